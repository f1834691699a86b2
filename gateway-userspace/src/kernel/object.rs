//! The BPF object: making its maps, loading its programs.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError},
};

use super::{KernelError, pins, rights, ticks::Ticks};

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf"));

/// The one whose sources lie in an `LRU_HASH`.
#[cfg(feature = "lru")]
static LRU_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf-lru"));

/// Every map of the object, all of them pinned.
pub(super) const MAPS: &[&str] = &[
    "CONTROL",
    "GENERATIONS",
    "SUBJECT_TABLE",
    "PORT_CLASSES",
    "SOURCE_PORTS",
    "PORT_TABLE",
    "ADDRESS_GROUP",
    "VLANS",
    "PROTECT",
    "LISTS_V4",
    "LISTS_V6",
    "DESTS_V4",
    "DESTS_V6",
    "GROUP_TABLE",
    "FILTERS",
    "BANS_V4",
    "BANS_V6",
    "SOURCES",
    "SHARED",
    "LEASES",
    "PROOFS",
    "OFFERS",
    "ATTEMPTS",
    "NOTICES",
    "SAMPLES",
    "SAMPLING",
    "COUNTDOWN",
    "PROFILES",
    "TIMES",
    "DISTINCT",
    "TOUCHED",
    "CONVERSATIONS",
    "VERSIONS",
    "COUNTERS",
    "EVENTS_SEEN",
];

/// What is fixed in a program when it is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    /// Words that the hash key is made of.
    pub(super) key: [u64; 4],
    /// Lines of the source table.
    pub(super) lines: u32,
    /// CPUs that share totals; with one there are no leases.
    pub(super) cpus: u32,
    /// The number of the interface, which its counters have.
    pub(super) interface: u32,
    /// Whether the clock stands in the control table.
    pub(super) test_clock: bool,
    /// What the policies need that it serves: `image::uses`.
    pub(super) uses: u64,
    /// How the kernel's count of ticks becomes a clock.
    pub(super) ticks: Ticks,
    /// Bits of the source that are random in every run, of a benchmark.
    pub(super) spread: u32,
    /// Whether sources lie in an `LRU_HASH`, in a benchmark.
    #[cfg(feature = "lru")]
    pub(super) lru: bool,
}

/// The object as it was compiled.
pub(super) fn bytes() -> &'static [u8] {
    OBJECT
}

/// Makes the maps that are not pinned yet under `set`, takes over those that are, and reads the programs.
pub(super) fn prepare(set: &Path, constants: &Constants) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    // There are no CO-RE relocations, so the kernel's own type information is not needed.
    loader.btf(None);
    let test_clock = u32::from(constants.test_clock);
    loader.override_global("HASH_KEY", &constants.key, true);
    loader.override_global("LINES", &constants.lines, true);
    loader.override_global("CPUS", &constants.cpus, true);
    loader.override_global("INTERFACE", &constants.interface, true);
    loader.override_global("TEST_CLOCK", &test_clock, true);
    loader.override_global("TICK_NS", &constants.ticks.tick_ns, true);
    loader.override_global("TICK_ORIGIN_NS", &constants.ticks.origin_ns, true);
    loader.override_global("USES", &constants.uses, true);
    loader.override_global("SPREAD", &constants.spread, true);
    loader.map_max_entries("SOURCES", constants.lines);
    loader.map_max_entries("PROOFS", constants.lines);
    for map in MAPS {
        loader.map_pin_path(map, pins::map(set, map));
    }
    #[cfg(feature = "lru")]
    if constants.lru {
        loader.map_max_entries("LRU", constants.lines * (gateway_core::line::WORDS as u32 - 1));
        loader.map_pin_path("LRU", pins::map(set, "LRU"));
        return loader.load(LRU_OBJECT).map_err(|error| describe(&error, set));
    }
    loader.load(OBJECT).map_err(|error| describe(&error, set))
}

/// Loads every program of the object, whatever its kind; their names.
pub(super) fn load_all(object: &mut Ebpf) -> Result<Vec<String>, KernelError> {
    let names: Vec<String> = object.programs().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        load(object, name)?;
    }
    Ok(names)
}

/// Loads one of the object's programs; the descriptor lives as long as the object.
pub(super) fn load<'a>(object: &'a mut Ebpf, name: &str) -> Result<BorrowedFd<'a>, KernelError> {
    let missing = || KernelError::Load {
        why: format!("the object has no program {name}"),
    };
    let program = object.program_mut(name).ok_or_else(missing)?;
    // One that was loaded for another attempt serves again.
    let loaded = match program {
        _ if program.fd().is_ok() => Ok(()),
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SockOps(program) => program.load(),
        other => {
            return Err(KernelError::Load {
                why: format!(
                    "{name} is of a kind that Weir does not load: {:?}",
                    other.prog_type()
                ),
            });
        }
    };
    if let Err(error) = loaded {
        return Err(refused(name, error));
    }
    match program.fd() {
        Ok(fd) => Ok(fd.as_fd()),
        Err(error) => Err(KernelError::Load { why: chain(&error) }),
    }
}

/// Why the kernel does not take a program.
fn refused(name: &str, error: ProgramError) -> KernelError {
    match error {
        ProgramError::SyscallError(call) if denied(&call.io_error) => not_permitted("load BPF programs"),
        ProgramError::LoadError { io_error, .. } if denied(&io_error) || rights::incomplete() => {
            not_permitted("load BPF programs")
        }
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => KernelError::Load {
            why: format!(
                "{name}: {io_error}; the verifier's last words: {}",
                last_words(&verifier_log.to_string())
            ),
        },
        other => KernelError::Load {
            why: format!("{name}: {}", chain(&other)),
        },
    }
}

fn last_words(log: &str) -> String {
    let mut lines: Vec<&str> = log
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(6)
        .collect();
    lines.reverse();
    lines.join(" | ")
}

fn denied(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

pub(super) fn not_permitted(what: &str) -> KernelError {
    KernelError::NotPermitted {
        what: what.to_owned(),
        advice: rights::advice(),
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn describe(error: &EbpfError, set: &Path) -> KernelError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<std::io::Error>() {
            match io.raw_os_error() {
                Some(libc::EPERM) => return not_permitted("create BPF maps"),
                Some(libc::ENOMEM) => {
                    return KernelError::Load {
                        why: "the kernel has no memory for the tables; lower source.max_tracked".into(),
                    };
                }
                _ => {}
            }
        }
        cause = at.source();
    }
    KernelError::Load {
        why: format!("cannot make the maps under {}: {}", set.display(), chain(error)),
    }
}
