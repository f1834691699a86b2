//! XDP programs and maps of the benchmark's own, run by the kernel's test-run: over one frame, or as a source of frames
//! that really go somewhere.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    ATTACH_XDP, Attach, Info, Load, NATIVE, OBJ_GET_INFO, PROG_LOAD, PROG_TYPE_XDP, bpf, bpf_writing, owned,
};
use crate::netns::Netns;

const MAP_CREATE: libc::c_int = 0;
const TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = super::LINK_CREATE;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program answers is done (Linux 5.18).
const LIVE_FRAMES: u32 = 1 << 1;

/// `XDP_DROP` (include/uapi/linux/bpf.h).
pub const DROP: i32 = 1;
/// `XDP_PASS`.
pub const PASS: i32 = 2;

/// Kinds of maps, as the kernel numbers them.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// An array.
    Array = 2,
    /// A hash map that evicts what was used longest ago.
    LruHash = 9,
}

#[repr(C)]
struct Create {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

/// A map.
#[derive(Debug)]
pub struct Map(OwnedFd);

impl Map {
    /// Makes a map with keys and values of so many bytes.
    pub fn create(kind: Kind, key: u32, value: u32, entries: u32) -> Result<Self> {
        let create = Create {
            kind: kind as u32,
            key,
            value,
            entries,
            flags: 0,
        };
        bpf(MAP_CREATE, &create)
            .map(|fd| Self(owned(fd)))
            .with_context(|| format!("cannot make a map {kind:?} of {entries} entries"))
    }

    /// Pins it.
    pub fn pin(&self, path: &Path) -> Result<()> {
        super::pin(self.fd(), path)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The fields of a test-run.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads instructions under a name of at most 15 characters.
    pub fn load(name: &str, code: &[u64]) -> Result<Self> {
        let mut log = vec![0_u8; 1 << 16];
        let mut load = Load {
            kind: PROG_TYPE_XDP,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log: log.as_mut_ptr() as u64,
            kernel_version: 0,
            flags: 0,
            name: [0; 16],
        };
        for (place, byte) in load.name.iter_mut().zip(name.bytes().take(15)) {
            *place = byte;
        }
        match bpf(PROG_LOAD, &load) {
            Ok(fd) => Ok(Self(owned(fd))),
            Err(error) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
                let log = String::from_utf8_lossy(&log[..end]).into_owned();
                Err(error).with_context(|| format!("the kernel does not take {name}: {log}"))
            }
        }
    }

    /// Runs it so often on a frame of at least 14 bytes; the last answer, and the time a run.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let test = self
            .test(frame, repeat, 0, 0)
            .context("cannot test-run a program")?;
        Ok((test.answer, Duration::from_nanos(u64::from(test.duration))))
    }

    /// Runs it on so many frames, each a copy of this one, and does with each what it answers; as on a device of the
    /// caller's network namespace.
    pub fn run_live(&self, frame: &[u8], count: u32, batch: u32) -> Result<()> {
        self.test(frame, count, LIVE_FRAMES, batch)
            .map(drop)
            .context("cannot run a program on live frames (Linux 5.18 has them)")
    }

    fn test(&self, frame: &[u8], repeat: u32, flags: u32, batch: u32) -> io::Result<TestRun> {
        let mut test = TestRun {
            program: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            flags,
            batch,
            ..TestRun::default()
        };
        loop {
            match bpf_writing(TEST_RUN, &mut test) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        Ok(test)
    }

    /// Attaches it in native mode by a link, which lasts as long as what is returned.
    pub fn link(&self, netns: &Netns, dev: &str) -> Result<OwnedFd> {
        let attach = Attach {
            program: self.0.as_raw_fd() as u32,
            ifindex: netns.ifindex(dev)?,
            kind: ATTACH_XDP,
            flags: NATIVE,
        };
        let link = netns.run(|| bpf(LINK_CREATE, &attach))?;
        link.map(owned)
            .with_context(|| format!("cannot attach a program to {dev}"))
    }
}

/// How large a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// BPF instructions, as the kernel runs them.
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited: u32,
}

/// `BPF_PROG_GET_FD_BY_ID`.
const PROG_GET_FD_BY_ID: libc::c_int = 13;

#[repr(C)]
struct Numbered {
    id: u32,
    rest: [u32; 2],
}

/// The first fields of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited: u32,
    translated: u32,
    pointers: [u64; 2],
    load_time: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// The programs of a name that this process holds, by their numbers. What loads them may keep their descriptors to itself.
pub fn held(name: &str) -> Result<BTreeMap<u32, Size>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if !target.to_string_lossy().contains("bpf-prog") {
            continue;
        }
        let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|text| text.parse::<i32>().ok())
        else {
            continue;
        };
        if let Ok(info) = info(fd)
            && info.name.starts_with(name.as_bytes())
            && info.name[name.len()] == 0
        {
            found.insert(info.id, info.size());
        }
    }
    Ok(found)
}

/// The program of a number, whoever holds it.
pub fn by_number(id: u32) -> Result<Size> {
    let fd = bpf(PROG_GET_FD_BY_ID, &Numbered { id, rest: [0; 2] })
        .with_context(|| format!("no program has the number {id}"))?;
    Ok(info(owned(fd).as_raw_fd())?.size())
}

/// What the program of a number is called, whoever holds it.
pub fn name_by_number(id: u32) -> Result<String> {
    let fd = bpf(PROG_GET_FD_BY_ID, &Numbered { id, rest: [0; 2] })
        .with_context(|| format!("no program has the number {id}"))?;
    let name = info(owned(fd).as_raw_fd())?.name;
    let bytes = name.into_iter().take_while(|byte| *byte != 0).collect();
    String::from_utf8(bytes).context("the program's name is no text")
}

fn info(fd: i32) -> std::io::Result<ProgramInfo> {
    let mut info = ProgramInfo::default();
    let ask = Info {
        fd: fd as u32,
        size: size_of::<ProgramInfo>() as u32,
        place: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO, &ask)?;
    Ok(info)
}

impl ProgramInfo {
    fn size(&self) -> Size {
        Size {
            instructions: self.translated / 8,
            jited: self.jited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bpf::asm::Code, skip};

    #[test]
    fn a_program_answers_and_its_size_is_known() -> Result<()> {
        skip::require_root();
        let program = Program::load("weir_answers", &Code::new().answer(PASS).words())?;
        assert_eq!(program.run(&[0; 60], 3)?.0, PASS as u32);
        let sizes: Vec<Size> = held("weir_answers")?.into_values().collect();
        assert_eq!(sizes.len(), 1);
        assert_eq!(sizes[0].instructions, 2);
        assert!(
            Program::load("weir_refused", &[0x95]).is_err(),
            "no answer is set"
        );
        Ok(())
    }
}
