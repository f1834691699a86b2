//! The few `bpf()` calls that tests make themselves: a stranger's XDP program on an interface, a word of a map that
//! Weir has pinned, and what the benchmark measures with ([`program`]).

pub mod asm;
pub mod program;

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

// Commands, and kinds of programs and attachments, as include/uapi/linux/bpf.h numbers them.
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;
const PROG_TYPE_XDP: u32 = 6;
const MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const MAP_TYPE_RINGBUF: u32 = 27;
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Attach {
    program: u32,
    ifindex: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    size: u32,
    place: u64,
}

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key: u32,
    value: u32,
    entries: u32,
}

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes begin with every field of their command and outlive the call, as what they point to does;
    // the kernel takes the fields beyond their size as zeros.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

/// A call whose answers the kernel writes into the attributes.
fn bpf_writing<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: as above; nobody else looks at the attributes meanwhile.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn text(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn open(pin: &Path) -> Result<OwnedFd> {
    let path = text(pin)?;
    let get = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    bpf(OBJ_GET, &get)
        .map(owned)
        .with_context(|| format!("cannot open {}", pin.display()))
}

fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let text = text(path)?;
    let pin = Pin {
        path: text.as_ptr() as u64,
        fd: fd.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(OBJ_PIN, &pin).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(())
}

/// The sum over all CPUs of a word of a pinned per-CPU array map.
pub fn sum_of_words(pin: &Path, key: u32) -> Result<u64> {
    let map = open(pin)?;
    // One value for each CPU that could ever be there; no kernel of ours is configured for more than this.
    let mut values = vec![0_u64; 8192];
    let element = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: values.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(MAP_LOOKUP_ELEM, &element).with_context(|| format!("cannot read {}", pin.display()))?;
    Ok(values.iter().sum())
}

/// Writes a word of a pinned array map whose elements have so many.
pub fn set_word<const WORDS: usize>(pin: &Path, at: usize, value: u64) -> Result<()> {
    let map = open(pin)?;
    let key = (at / WORDS) as u32;
    let element = |words: *const u64| Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: words as u64,
        flags: 0,
    };
    let mut words = [0_u64; WORDS];
    bpf(MAP_LOOKUP_ELEM, &element(words.as_mut_ptr()))
        .with_context(|| format!("cannot read {}", pin.display()))?;
    words[at % WORDS] = value;
    bpf(MAP_UPDATE_ELEM, &element(words.as_ptr()))
        .with_context(|| format!("cannot write {}", pin.display()))?;
    Ok(())
}

/// Everything that every map pinned in a folder holds, keys and values, by name. Rings are left out: what they hold is not in
/// their elements.
pub fn dump(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let cpus = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = cpus.trim().rsplit(['-', ',']).next().unwrap_or_default();
    let cpus = last.parse::<usize>()? + 1;
    let mut dumped = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let held = dump_map(&path, cpus).with_context(|| format!("cannot dump {name}"))?;
        dumped.insert(name, held);
    }
    Ok(dumped)
}

/// Bytes of memory that the maps pinned in a folder, and in the folders in it, take: what their descriptors say.
pub fn memory_of_pinned(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += memory_of_pinned(&entry.path())?;
            continue;
        }
        let pinned = open(&entry.path())?;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pinned.as_raw_fd()))?;
        // Links and programs have other fields.
        if !info.lines().any(|line| line.starts_with("map_type:")) {
            continue;
        }
        let memory = info.lines().find_map(|line| line.strip_prefix("memlock:"));
        bytes += memory
            .and_then(|text| text.trim().parse::<u64>().ok())
            .context("a map does not say how much memory it takes")?;
    }
    Ok(bytes)
}

fn dump_map(pin: &Path, cpus: usize) -> Result<Vec<u8>> {
    const STEP: usize = 4096;
    let map = open(pin)?;
    let mut info = MapInfo::default();
    let ask = Info {
        fd: map.as_raw_fd() as u32,
        size: size_of::<MapInfo>() as u32,
        place: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO, &ask)?;
    let value = match info.kind {
        MAP_TYPE_RINGBUF => return Ok(Vec::new()),
        MAP_TYPE_PERCPU_ARRAY => (info.value as usize).next_multiple_of(8) * cpus,
        _ => info.value as usize,
    };
    let mut held = Vec::new();
    if info.kind == MAP_TYPE_ARRAY_OF_MAPS {
        // Not every kernel has batches of these; a place is empty or has a map's number.
        for key in 0..info.entries {
            let mut number = 0_u32;
            let element = Element {
                map: map.as_raw_fd() as u32,
                padding: 0,
                key: (&raw const key) as u64,
                value: (&raw mut number) as u64,
                flags: 0,
            };
            let _ = bpf(MAP_LOOKUP_ELEM, &element);
            held.extend(number.to_ne_bytes());
        }
        return Ok(held);
    }
    let (mut keys, mut values) = (vec![0_u8; STEP * info.key as usize], vec![0_u8; STEP * value]);
    let (mut from, mut to) = ([0_u8; 64], [0_u8; 64]);
    for first in [true].into_iter().chain(std::iter::repeat(false)) {
        let batch = Batch {
            from: if first { 0 } else { from.as_mut_ptr() as u64 },
            to: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: STEP as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        let result = bpf(MAP_LOOKUP_BATCH, &batch);
        // SAFETY: the kernel wrote the count while we looked away.
        let count = unsafe { (&raw const batch.count).read_volatile() } as usize;
        let over = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error.into()),
        };
        held.extend(&keys[..count * info.key as usize]);
        held.extend(&values[..count * value]);
        if over || count == 0 {
            break;
        }
        from = to;
    }
    Ok(held)
}

/// An XDP program that is not Weir's and passes everything.
#[derive(Debug)]
pub struct Stranger {
    program: OwnedFd,
}

impl Stranger {
    /// Loads it under a name of at most 15 characters.
    pub fn load(name: &str) -> Result<Self> {
        // r0 = XDP_PASS; exit
        let code: [u64; 2] = [0x2_0000_00b7, 0x95];
        let mut load = Load {
            kind: PROG_TYPE_XDP,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
        };
        for (place, byte) in load.name.iter_mut().zip(name.bytes().take(15)) {
            *place = byte;
        }
        let program = owned(bpf(PROG_LOAD, &load).context("cannot load a program")?);
        Ok(Self { program })
    }

    /// Attaches it by a link, which lasts as long as what is returned.
    pub fn link(&self, netns: &Netns, dev: &str, native: bool) -> Result<OwnedFd> {
        let attach = Attach {
            program: self.program.as_raw_fd() as u32,
            ifindex: netns.ifindex(dev)?,
            kind: ATTACH_XDP,
            flags: if native { NATIVE } else { GENERIC },
        };
        let link = netns.run(|| bpf(LINK_CREATE, &attach))?;
        Ok(owned(
            link.with_context(|| format!("cannot attach a program to {dev}"))?,
        ))
    }

    /// Pins it, for `ip link set dev … xdp pinned PATH`.
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin(self.program.as_fd(), path)
    }
}
