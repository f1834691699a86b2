//! The `bpf()` system call where aya has no word for it: batches, maps made by hand, link updates that keep the pin.
//!
//! aya 0.14 reads and writes maps one element a call, drops a link whose update fails, and falls back to netlink (whose
//! attachments cannot be pinned) where a link is refused.

use std::{
    ffi::CString,
    io,
    mem::{size_of, zeroed},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_info, bpf_map_type};

/// Elements in one batch: few enough that the buffers stay small, many enough that the call disappears.
const BATCH: usize = 4096;

/// A value whose bytes are all meaningful, so that it can be given to and taken from the kernel as bytes.
///
/// # Safety
/// No padding, no invalid bit patterns, no pointers.
pub(super) unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers, arrays of them and `repr(C)` structures of them, whose padding is spelt out as fields.
        $(unsafe impl Plain for $type {})*
    };
}

plain!(
    u8,
    u32,
    u64,
    gateway_core::image::AddressGroup,
    gateway_core::image::DestinationEntry,
    gateway_core::image::Generation,
    gateway_core::image::ListEntry,
    gateway_core::image::ProtectRule,
    gateway_core::image::Subject,
    gateway_core::bucket::spec::Spec,
);
// SAFETY: an array of plain values has no padding between them.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attributes outlive the call, and callers fill in the fields of their command, whose pointers are of
    // live buffers of the sizes that the map's element sizes demand.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attributes,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn blank() -> bpf_attr {
    // SAFETY: a union of plain structures; zeros mean "not given" to the kernel.
    unsafe { zeroed() }
}

fn owned(descriptor: i64) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A descriptor of whatever is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attributes = blank();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes).map(owned)
}

/// Pins a descriptor.
pub(super) fn pin(descriptor: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    let mut attributes = blank();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = descriptor.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// What an interface receives, before the network stack; with the flags of an XDP mode.
    Xdp(u32, u32),
    /// What an interface sends (kernel 6.6).
    Egress(u32),
    /// The TCP connections below a cgroup.
    Connections(BorrowedFd<'a>),
}

/// Attaches a program by link; never by netlink.
pub(super) fn link_create(program: BorrowedFd<'_>, target: Target<'_>) -> io::Result<OwnedFd> {
    // `enum bpf_attach_type` (include/uapi/linux/bpf.h).
    const BPF_CGROUP_SOCK_OPS: u32 = 3;
    const BPF_XDP: u32 = 37;
    const BPF_TCX_EGRESS: u32 = 47;
    let mut attributes = blank();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    match target {
        Target::Xdp(ifindex, flags) => {
            attributes.link_create.__bindgen_anon_2.target_ifindex = ifindex;
            attributes.link_create.attach_type = BPF_XDP;
            attributes.link_create.flags = flags;
        }
        Target::Egress(ifindex) => {
            attributes.link_create.__bindgen_anon_2.target_ifindex = ifindex;
            attributes.link_create.attach_type = BPF_TCX_EGRESS;
        }
        Target::Connections(cgroup) => {
            attributes.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd() as u32;
            attributes.link_create.attach_type = BPF_CGROUP_SOCK_OPS;
        }
    }
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes).map(owned)
}

/// The cookie of a socket's network namespace (kernel 5.14).
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: a live socket, and a place of the size that is given along.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// Replaces the program of a link atomically; on failure the old one stays.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = blank();
    attributes.link_update.link_fd = link.as_raw_fd() as u32;
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link's program off its interface, whoever else holds a descriptor of the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = blank();
    attributes.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// The interface that an XDP link is attached to; 0 if it is attached no more.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: plain integers.
    let mut info: aya_obj::generated::bpf_link_info = unsafe { zeroed() };
    let mut attributes = blank();
    attributes.info.bpf_fd = link.as_raw_fd() as u32;
    attributes.info.info = (&raw mut info) as u64;
    attributes.info.info_len = size_of::<aya_obj::generated::bpf_link_info>() as u32;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // SAFETY: the kernel filled in the member for XDP links.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// Runs an XDP program on a frame: the action, and the nanoseconds a run of the mean of `repeat`.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    test_run_attributes(program, frame, repeat, blank())
}

/// Runs an XDP program once on a frame, into which it may write.
pub(super) fn test_run_once(program: BorrowedFd<'_>, frame: &mut [u8]) -> io::Result<()> {
    let mut attributes = blank();
    let given = frame.to_vec();
    attributes.test.data_out = frame.as_mut_ptr() as u64;
    attributes.test.data_size_out = frame.len() as u32;
    test_run_attributes(program, &given, 1, attributes).map(drop)
}

fn test_run_attributes(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    mut attributes: bpf_attr,
) -> io::Result<(u32, u32)> {
    attributes.test.prog_fd = program.as_raw_fd() as u32;
    attributes.test.data_in = frame.as_ptr() as u64;
    attributes.test.data_size_in = frame.len() as u32;
    attributes.test.repeat = repeat;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    // SAFETY: the kernel filled in the member of the command.
    Ok(unsafe { (attributes.test.retval, attributes.test.duration) })
}

/// How a map is made.
pub(super) struct Shape {
    pub(super) kind: bpf_map_type,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
}

/// A map's descriptor and sizes. A value of a per-CPU map is one of `cpus` values of `value` bytes each.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    pub(super) name: String,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) entries: u32,
}

/// The words of an array that was made to be mapped: those that the kernel's programs read and write.
pub(super) struct Words {
    begin: NonNull<AtomicU64>,
    count: usize,
}

impl Words {
    /// All of them.
    pub(super) const fn get(&self) -> &[AtomicU64] {
        // SAFETY: mapped until dropped, so many; whoever writes to them at the same time does so word by word.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: what `Map::words` mapped, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.begin.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}

impl Map {
    /// Maps an array's elements, whose size is a whole number of words, into memory.
    pub(super) fn words(&self) -> io::Result<Words> {
        let size = self.entries as usize * self.value;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, of a descriptor that we own.
        let begin = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                access,
                libc::MAP_SHARED,
                self.fd.as_raw_fd(),
                0,
            )
        };
        if begin == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let begin = NonNull::new(begin.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Words {
            begin,
            count: size / size_of::<u64>(),
        })
    }

    /// Opens a pinned map.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::from_fd(open_pin(path)?, path)
    }

    /// Makes a map.
    pub(super) fn create(name: &str, shape: &Shape) -> io::Result<Self> {
        Self::create_with(name, shape, None)
    }

    /// Makes an array of maps that are like `template`.
    pub(super) fn create_outer(name: &str, slots: u32, template: &Self) -> io::Result<Self> {
        let shape = Shape {
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS,
            key: 4,
            value: 4,
            entries: slots,
            flags: 0,
        };
        Self::create_with(name, &shape, Some(template))
    }

    fn create_with(name: &str, shape: &Shape, inner: Option<&Self>) -> io::Result<Self> {
        let mut attributes = blank();
        // SAFETY: plain fields of a union.
        let create = unsafe { &mut attributes.__bindgen_anon_1 };
        create.map_type = shape.kind as u32;
        create.key_size = shape.key;
        create.value_size = shape.value;
        create.max_entries = shape.entries;
        create.map_flags = shape.flags;
        create.inner_map_fd = inner.map_or(0, Self::number);
        for (place, byte) in create.map_name.iter_mut().zip(name.bytes().take(15)) {
            *place = byte as libc::c_char;
        }
        Self::from_fd(
            owned(bpf(bpf_cmd::BPF_MAP_CREATE, &mut attributes)?),
            Path::new(name),
        )
    }

    fn from_fd(fd: OwnedFd, path: &Path) -> io::Result<Self> {
        // SAFETY: plain integers.
        let mut info: bpf_map_info = unsafe { zeroed() };
        let mut attributes = blank();
        attributes.info.bpf_fd = fd.as_raw_fd() as u32;
        attributes.info.info = (&raw mut info) as u64;
        attributes.info.info_len = size_of::<bpf_map_info>() as u32;
        bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
        Ok(Self {
            fd,
            name: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            key: info.key_size as usize,
            value: info.value_size as usize,
            entries: info.max_entries,
        })
    }

    /// Pins it.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        use std::os::fd::AsFd as _;
        pin(self.fd.as_fd(), path)
    }

    /// Its descriptor's number, which is what a map in a map is given as.
    pub(super) fn number(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }

    fn check<K, V>(&self, values: usize) -> io::Result<()> {
        if size_of::<K>() == self.key && size_of::<V>() == self.value * values {
            return Ok(());
        }
        let text = format!(
            "map {} has keys of {} and values of {} bytes",
            self.name, self.key, self.value
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn element(&self, command: bpf_cmd, key: *const u8, value: *const u8) -> io::Result<()> {
        let mut attributes = blank();
        // SAFETY: plain fields of a union.
        let element = unsafe { &mut attributes.__bindgen_anon_2 };
        element.map_fd = self.number();
        element.key = key as u64;
        element.__bindgen_anon_1.value = value as u64;
        bpf(command, &mut attributes).map(drop)
    }

    /// Reads an element; nothing if there is none.
    pub(super) fn get<K: Plain, V: Plain>(&self, key: &K) -> io::Result<Option<V>> {
        self.check::<K, V>(1)?;
        // SAFETY: a plain value.
        let mut value: V = unsafe { zeroed() };
        match self.element(
            bpf_cmd::BPF_MAP_LOOKUP_ELEM,
            (&raw const *key).cast(),
            (&raw mut value).cast(),
        ) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads every CPU's value of an element.
    pub(super) fn get_per_cpu<V: Plain>(&self, key: u32, cpus: usize) -> io::Result<Vec<V>> {
        self.check::<u32, V>(1)?;
        // SAFETY: plain values.
        let mut values = vec![unsafe { zeroed::<V>() }; cpus];
        self.element(
            bpf_cmd::BPF_MAP_LOOKUP_ELEM,
            (&raw const key).cast(),
            values.as_mut_ptr().cast(),
        )?;
        Ok(values)
    }

    /// Writes an element.
    pub(super) fn set<K: Plain, V: Plain>(&self, key: &K, value: &V) -> io::Result<()> {
        self.check::<K, V>(1)?;
        self.element(
            bpf_cmd::BPF_MAP_UPDATE_ELEM,
            (&raw const *key).cast(),
            (&raw const *value).cast(),
        )
    }

    /// Zeroes an element of a per-CPU map.
    pub(super) fn clear_per_cpu<V: Plain>(&self, key: u32, cpus: usize) -> io::Result<()> {
        self.check::<u32, V>(1)?;
        // SAFETY: plain values.
        let values = vec![unsafe { zeroed::<V>() }; cpus];
        self.element(
            bpf_cmd::BPF_MAP_UPDATE_ELEM,
            (&raw const key).cast(),
            values.as_ptr().cast(),
        )
    }

    /// Deletes an element; whether there was one.
    pub(super) fn delete<K: Plain>(&self, key: &K) -> io::Result<bool> {
        match self.element(
            bpf_cmd::BPF_MAP_DELETE_ELEM,
            (&raw const *key).cast(),
            std::ptr::null(),
        ) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The key after another (the first, for none).
    pub(super) fn next_key<K: Plain>(&self, after: Option<&K>) -> io::Result<Option<K>> {
        self.check::<K, u8>(0).or_else(|_| {
            if size_of::<K>() == self.key {
                Ok(())
            } else {
                Err(io::Error::from(io::ErrorKind::InvalidData))
            }
        })?;
        // SAFETY: a plain value.
        let mut next: K = unsafe { zeroed() };
        let key = after.map_or(std::ptr::null(), |key| (&raw const *key).cast());
        match self.element(bpf_cmd::BPF_MAP_GET_NEXT_KEY, key, (&raw mut next).cast()) {
            Ok(()) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes many elements. Those before a failed one are written.
    pub(super) fn set_all<K: Plain, V: Plain>(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        self.check::<K, V>(1)?;
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut attributes = blank();
            attributes.batch.map_fd = self.number();
            attributes.batch.keys = keys.as_ptr() as u64;
            attributes.batch.values = values.as_ptr() as u64;
            attributes.batch.count = keys.len().min(values.len()) as u32;
            bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes)?;
        }
        Ok(())
    }

    /// Writes elements of an array from `first` on.
    pub(super) fn set_run<V: Plain>(&self, first: u32, values: &[V]) -> io::Result<()> {
        let keys: Vec<u32> = (first..).take(values.len()).collect();
        self.set_all(&keys, values)
    }

    /// Reads an array in pieces, in order: `cpus` is 1, or the number of possible CPUs for per-CPU arrays, whose
    /// values come CPU by CPU, element after element.
    pub(super) fn read_array<V: Plain>(&self, cpus: usize, each: impl FnMut(u32, &[V])) -> io::Result<()> {
        self.read_first(self.entries, cpus, each)
    }

    /// The same for its first elements only.
    pub(super) fn read_first<V: Plain>(
        &self,
        elements: u32,
        cpus: usize,
        mut each: impl FnMut(u32, &[V]),
    ) -> io::Result<()> {
        self.check::<u32, V>(1)?;
        let elements = elements.min(self.entries);
        let step = (BATCH / cpus.max(1)).max(64).min(elements.max(1) as usize);
        let mut keys = vec![0u32; step];
        // SAFETY: plain values.
        let mut values = vec![unsafe { zeroed::<V>() }; step * cpus];
        let (mut position, mut next) = (0u32, 0u32);
        let mut read = 0;
        while read < elements {
            let mut attributes = blank();
            attributes.batch.map_fd = self.number();
            attributes.batch.in_batch = if read == 0 {
                0
            } else {
                (&raw const position) as u64
            };
            attributes.batch.out_batch = (&raw mut next) as u64;
            attributes.batch.keys = keys.as_mut_ptr() as u64;
            attributes.batch.values = values.as_mut_ptr() as u64;
            attributes.batch.count = (elements - read).min(step as u32);
            let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes);
            // SAFETY: the kernel wrote how many it read, also at the end of the map.
            let count = unsafe { attributes.batch.count } as usize;
            match result {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                Err(_) if count == 0 => break,
                _ => {}
            }
            for at in 0..count {
                each(keys[at], &values[at * cpus..(at + 1) * cpus]);
            }
            read += count as u32;
            position = next;
        }
        Ok(())
    }
}

/// How many CPUs can ever be online: per-CPU values come in that number.
pub(super) fn possible_cpus() -> io::Result<usize> {
    count_cpus("possible")
}

/// How many CPUs are online.
pub(super) fn online_cpus() -> io::Result<usize> {
    count_cpus("online")
}

/// How many CPUs are in one of the kernel's lists ("0-3,8").
fn count_cpus(name: &str) -> io::Result<usize> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{name}"))?;
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("cannot read the CPU list {:?}", text.trim()),
        )
    };
    let mut count = 0;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.parse().map_err(|_| invalid())?;
        let last: usize = last.parse().map_err(|_| invalid())?;
        count += last.checked_sub(first).ok_or_else(invalid)? + 1;
    }
    Ok(count)
}
