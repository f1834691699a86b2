//! The one module that touches BPF maps, programs and links.
//!
//! [`Dataplane`] is Weir's half in the kernel as one value: whoever has it holds the lock on its bpffs folder. What is
//! pinned there outlives it.

mod apply;
mod attach;
mod bans;
mod costs;
mod counters;
mod established;
mod explain;
mod filters;
mod fit;
mod handshakes;
mod nested;
mod notices;
mod object;
mod peek;
mod pending;
mod pins;
mod profiles;
mod proven;
mod remount;
mod replies;
mod rights;
mod samples;
mod state;
mod sys;
mod testrun;
mod ticks;
mod types;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use gateway_core::{
    image::{ABI, CONTROLS, Control, uses},
    line::WORDS,
};
use ipnet::IpNet;
use nix::fcntl::Flock;

pub(crate) use self::fit::is_own;
use self::{
    bans::BanTable,
    object::{Constants, MAPS},
    pins::io_error,
    state::State,
    sys::Map,
    ticks::Ticks,
};
pub use self::{costs::ProgramCost, notices::Notices, samples::Samples, testrun::TestProgram, types::*};
use crate::policy::model::Source;

/// The effective content of every list, by name: policy, files and live changes together.
pub type ListContents = BTreeMap<String, Vec<IpNet>>;

/// Weir's half in the kernel: pinned maps, programs and links under one bpffs directory, and the lock on it.
#[derive(Debug)]
pub struct Dataplane {
    /// Where it is meant to be pinned.
    place: PathBuf,
    /// Where what is pinned is reached: `place`, or a descriptor of what was unmounted from there.
    dir: PathBuf,
    set: PathBuf,
    maps: BTreeMap<&'static str, Map>,
    constants: Constants,
    state: State,
    cpus: usize,
    bans: BanTable,
    /// What each half of the large arrays holds, so that only changes are written; unknown after opening.
    written: apply::Written,
    /// Whether the maps carry a policy.
    ready: bool,
    /// Whether enforcement was taken off and everything pinned removed.
    gone: bool,
    /// What could not be attached of the programs that see handshakes.
    handshake_faults: Vec<String>,
    reading: RefCell<profiles::Reading>,
    fitted: RefCell<Vec<fit::Fitted>>,
    lock: Flock<File>,
}

impl Dataplane {
    /// Takes the lock on `bpffs` (created if absent), opens what is pinned there or creates it. Nothing is attached
    /// or changed for packets yet. Slow only when it creates (some 80 ms, for a
    /// few ticks must go by).
    pub fn open(bpffs: &Path, source: &Source) -> Result<(Self, Opened), KernelError> {
        pins::ensure(bpffs, true)?;
        let lock = pins::lock(bpffs)?;
        let sets = pins::sets(bpffs)?;
        let lines = lines_of(source);
        let mut lost = None;
        if let Some((_, set)) = sets.last() {
            match usable(set, Some(lines)) {
                Ok(()) => return Ok((Self::assemble(bpffs, set.clone(), lock)?, Opened::Reused)),
                Err(why) => lost = Some(why),
            }
        }
        let number = sets.last().map_or(1, |(number, _)| number + 1);
        let set = bpffs.join(format!("set-{number}"));
        std::fs::create_dir(&set)
            .map_err(|source| io_error(format!("cannot create {}", set.display()), source))?;
        let made = Self::make(&set, lines).and_then(|()| Self::assemble(bpffs, set.clone(), lock));
        if made.is_err() {
            // A half-made set would be found, and refused, by every start to come.
            let _ = pins::remove(&set);
            // Only if nothing else is there.
            let _ = std::fs::remove_dir(bpffs);
        }
        let opened = lost.map_or(Opened::Fresh, |why| {
            Opened::Replaced(format!(
                "{why}; buckets start full, blocks have ended, counters start from zero and levers are cleared; bans and \
                 lists stay"
            ))
        });
        Ok((made?, opened))
    }

    /// Opens what is pinned, for commands that work without a controller; fails with `NotPinned` when there is nothing.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, KernelError> {
        pins::ensure(bpffs, false)?;
        let lock = pins::lock(bpffs)?;
        let sets = pins::sets(bpffs)?;
        let Some((_, set)) = sets.last() else {
            return Err(KernelError::NotPinned {
                dir: bpffs.to_owned(),
            });
        };
        usable(set, None).map_err(KernelError::Other)?;
        Self::assemble(bpffs, set.clone(), lock)
    }

    /// Makes the maps of a new set.
    fn make(set: &Path, lines: u32) -> Result<(), KernelError> {
        let constants = Constants {
            key: [0; 4],
            lines,
            cpus: 1,
            interface: 0,
            test_clock: false,
            uses: uses::ALL,
            ticks: Ticks::default(),
            spread: 0,
            #[cfg(feature = "lru")]
            lru: false,
        };
        nested::make(set)?;
        let mut object = object::prepare(set, &constants)?;
        let origin_ns = ticks::origin_ns(&mut object);
        drop(object);
        trim();
        let failed = |source| io_error("cannot open the map CONTROL".into(), source);
        let control = Map::open(&pins::map(set, "CONTROL")).map_err(failed)?;
        let control = control.words().map_err(failed)?;
        let put = |at: u32, value| control.get()[at as usize].store(value, Ordering::Relaxed);
        for at in 0..4 {
            let word = random().map_err(|source| io_error("cannot draw a hash key".into(), source))?;
            put(Control::Key as u32 + at, word);
        }
        let origin_ns = origin_ns.unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel's count of ticks cannot be read; its coarse clock is used instead");
            0
        });
        put(Control::TickOrigin as u32, origin_ns);
        put(Control::Abi as u32, ABI);
        Ok(())
    }

    fn assemble(dir: &Path, set: PathBuf, lock: Flock<File>) -> Result<Self, KernelError> {
        let mut maps = BTreeMap::new();
        for name in MAPS {
            let map = Map::open(&pins::map(&set, name))
                .map_err(|source| io_error(format!("cannot open the map {name}"), source))?;
            maps.insert(*name, map);
        }
        let uncounted = |source| io_error("cannot count the CPUs".into(), source);
        let cpus = sys::possible_cpus().map_err(uncounted)?;
        let online = sys::online_cpus().map_err(uncounted)?;
        let state = State::read(&set)?.unwrap_or_else(|| {
            let mut fresh = State::default();
            fresh.registry.reindex();
            fresh
        });
        let mut dataplane = Self {
            place: dir.to_owned(),
            dir: dir.to_owned(),
            constants: Constants {
                key: [0; 4],
                lines: maps["SOURCES"].entries,
                cpus: online as u32,
                interface: 0,
                test_clock: false,
                uses: uses::ALL,
                ticks: Ticks::default(),
                spread: 0,
                #[cfg(feature = "lru")]
                lru: false,
            },
            set,
            maps,
            state,
            cpus,
            bans: BanTable::default(),
            written: apply::Written::default(),
            reading: RefCell::default(),
            fitted: RefCell::default(),
            ready: false,
            gone: false,
            handshake_faults: Vec::new(),
            lock,
        };
        for at in 0..4 {
            dataplane.constants.key[at as usize] = dataplane.control_at(Control::Key as u32 + at)?;
        }
        dataplane.constants.ticks = Ticks::new(dataplane.control(Control::TickOrigin)?);
        dataplane.ready = dataplane.control(Control::Ready)? != 0;
        dataplane.bans = dataplane.read_bans()?;
        // A policy may have been confirmed or taken back, or its time may be over, since the books were written.
        dataplane.settle()?;
        Ok(dataplane)
    }

    fn map(&self, name: &'static str) -> &Map {
        &self.maps[name]
    }

    fn control(&self, word: Control) -> Result<u64, KernelError> {
        self.control_at(word as u32)
    }

    fn control_at(&self, at: u32) -> Result<u64, KernelError> {
        Ok(self.controls("read")?.get()[at as usize].load(Ordering::Relaxed))
    }

    fn set_control(&self, word: Control, value: u64) -> Result<(), KernelError> {
        self.controls("write")?.get()[word as usize].store(value, Ordering::Release);
        Ok(())
    }

    /// The words of the control table. Not a call for the whole element: the packet path reads a word while another is written, and
    /// must never see a half of either.
    fn controls(&self, access: &str) -> Result<sys::Words, KernelError> {
        let words = self.map("CONTROL").words();
        words.map_err(|source| io_error(format!("cannot {access} the map CONTROL"), source))
    }

    /// Judges the whole node as under `mode = "monitor"` from `ns` on, on the kernel's clock; 0: never. At once, and for
    /// every generation.
    pub fn set_open_at(&mut self, ns: u64) -> Result<(), KernelError> {
        self.set_control(Control::OpenAt, ns)
    }

    /// From when on the node is judged as under `mode = "monitor"`; 0: never.
    pub fn open_at(&self) -> Result<u64, KernelError> {
        self.control(Control::OpenAt)
    }

    /// The levers in force (expired ones left out).
    pub fn levers(&self) -> Result<Vec<Lever>, KernelError> {
        let now = Self::now_ns();
        let running = |lever: &&Lever| match lever {
            Lever::Bypass { until_ns, .. } | Lever::Scale { until_ns, .. } => *until_ns > now,
        };
        let levers = match &self.state.waiting {
            Some(waiting) => &waiting.levers,
            None => &self.state.levers,
        };
        Ok(levers.iter().filter(running).cloned().collect())
    }

    /// The text of the policy that is in force for good (not of one that waits for confirmation), if there is one.
    pub fn policy_text(&self) -> Result<Option<String>, KernelError> {
        Ok(self.state.text.clone())
    }

    /// Attaches to an interface and pins the link; takes over (replacing the program atomically) a link pinned before.
    pub fn attach(&mut self, interface: &str, mode: XdpModeChoice) -> Result<Attachment, KernelError> {
        if !self.ready {
            return Err(KernelError::Other(
                "no policy is in force yet; apply one before attaching".into(),
            ));
        }
        // Before anything is written for an interface that is not there.
        attach::ifindex(interface)?;
        let number = self.interface_number(interface)?;
        let constants = Constants {
            interface: number,
            uses: self.needed()?,
            ..self.constants
        };
        let attachment = attach::attach(&self.dir, &self.set, &constants, interface, mode);
        trim();
        let attachment = attachment?;
        self.watch_handshakes(true)?;
        self.retire_old_sets()?;
        Ok(attachment)
    }

    /// The number under which an interface is counted, with pages for every series.
    fn interface_number(&mut self, interface: &str) -> Result<u32, KernelError> {
        let most = gateway_core::image::INTERFACES as usize;
        let interfaces = &mut self.state.registry.interfaces;
        let at = if let Some(at) = interfaces.iter().position(|name| name == interface) {
            at
        } else if interfaces.len() < most {
            interfaces.push(interface.to_owned());
            interfaces.len() - 1
        } else {
            // The counters of an interface that is attached no more make room.
            let attached: Vec<String> = attach::list(&self.dir)?
                .into_iter()
                .map(|found| found.interface)
                .collect();
            let Some(at) = interfaces.iter().position(|name| !attached.contains(name)) else {
                return Err(KernelError::TooLarge {
                    what: format!("more than {most} interfaces"),
                });
            };
            interface.clone_into(&mut interfaces[at]);
            for page in 0..gateway_core::image::PAGES {
                let _ = std::fs::remove_file(pins::page(&self.set, at as u32, page));
            }
            at
        };
        self.state.write(&self.set)?;
        self.make_pages()?;
        Ok(at as u32)
    }

    /// Removes sets that this one has replaced, once no link needs them.
    fn retire_old_sets(&self) -> Result<(), KernelError> {
        for (_, set) in pins::sets(&self.dir)? {
            if set != self.set {
                pins::remove(&set)?;
            }
        }
        Ok(())
    }

    /// Every pinned attachment.
    pub fn attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        attach::list(&self.dir)
    }

    /// Takes enforcement off one interface; true if it was attached. With the last one the shared maps go too.
    pub fn detach(&mut self, interface: &str) -> Result<bool, KernelError> {
        let found = attach::detach(&self.dir, interface)?;
        self.remove_unused()?;
        Ok(found)
    }

    /// Removes everything that is pinned if nothing is attached: what a failed start, or the last detach, leaves.
    pub fn remove_unused(&mut self) -> Result<(), KernelError> {
        if self.attachments()?.is_empty() {
            clear(&self.dir)?;
            self.reading.borrow_mut().let_go();
            self.fitted.borrow_mut().clear();
            self.gone = true;
        }
        Ok(())
    }

    fn still_there(&self) -> Result<(), KernelError> {
        if self.gone {
            Err(KernelError::Detached)
        } else {
            Ok(())
        }
    }

    /// The kernel's monotonic clock, in nanoseconds: the clock of every `until_ns`.
    pub fn now_ns() -> u64 {
        use nix::time::{ClockId, clock_gettime};
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
            now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
        })
    }
}

/// Every attachment pinned under `bpffs`, without taking its lock.
pub fn attachments(bpffs: &Path) -> Result<Vec<Attachment>, KernelError> {
    attach::list(bpffs)
}

/// From when on the node is judged as under `mode = "monitor"` (0: never), without taking the lock of `bpffs`; `None` where
/// nothing is pinned that this version understands, or this process may not read it.
pub fn open_at(bpffs: &Path) -> Option<u64> {
    let (_, set) = pins::sets(bpffs).ok()?.pop()?;
    let control = Map::open(&pins::map(&set, "CONTROL")).ok()?;
    let words: [u64; CONTROLS as usize] = control.get(&0u32).ok()??;
    (words[Control::Abi as usize] == ABI).then_some(words[Control::OpenAt as usize])
}

/// Takes enforcement off the named interfaces (all, for none), and with the last one removes what is pinned: also where
/// another version of weir pinned it. Returns those that it was taken off, and those that remain.
///
/// # Errors
/// `Locked` where a controller runs, `NotPinned` where nothing is pinned; nothing is done if one of the names is not
/// attached.
pub fn detach(bpffs: &Path, interfaces: &[String]) -> Result<(Vec<String>, Vec<String>), KernelError> {
    pins::ensure(bpffs, false)?;
    let _lock = pins::lock(bpffs)?;
    let attached: Vec<String> = attach::list(bpffs)?
        .into_iter()
        .map(|found| found.interface)
        .collect();
    if let Some(stranger) = interfaces.iter().find(|name| !attached.contains(name)) {
        return Err(KernelError::NotAttached {
            interface: stranger.clone(),
            attached: attached.join(", "),
        });
    }
    let (off, rest): (Vec<String>, Vec<String>) = attached
        .into_iter()
        .partition(|name| interfaces.is_empty() || interfaces.contains(name));
    for interface in &off {
        attach::detach(bpffs, interface)?;
    }
    if rest.is_empty() {
        clear(bpffs)?;
    }
    Ok((off, rest))
}

/// Removes all that is pinned.
fn clear(bpffs: &Path) -> Result<(), KernelError> {
    handshakes::detach_connections(bpffs)?;
    for (_, set) in pins::sets(bpffs)? {
        pins::remove(&set)?;
    }
    pins::remove(&pins::links(bpffs))?;
    // Only if nobody put anything else there.
    let _ = std::fs::remove_dir(bpffs);
    Ok(())
}

/// How many lines a source table of so many slots has. Seven of a line's eight words are slots.
pub(crate) fn lines_of(source: &Source) -> u32 {
    source.max_tracked.div_ceil(WORDS as u32 - 1).max(1)
}

/// Whether a pinned set can be taken over; if not, why.
fn usable(set: &Path, lines: Option<u32>) -> Result<(), String> {
    let open = |name: &str| {
        Map::open(&pins::map(set, name))
            .map_err(|error| format!("the pinned map {name} cannot be opened ({error})"))
    };
    let control = open("CONTROL")?;
    let unreadable = |error| format!("the pinned map CONTROL cannot be read ({error})");
    // Until ABI 9 each word was an element.
    let abi: Option<u64> = if control.value == size_of::<u64>() {
        control.get(&(Control::Abi as u32)).map_err(unreadable)?
    } else {
        let words = control.get::<_, [u64; CONTROLS as usize]>(&0u32);
        words
            .map_err(unreadable)?
            .map(|words| words[Control::Abi as usize])
    };
    if abi != Some(ABI) {
        return Err(format!(
            "the pinned maps are of another version of weir (ABI {}, not {ABI})",
            abi.unwrap_or(0)
        ));
    }
    // The ABI number covers it; one that cannot be read all the same must not keep a controller from starting.
    State::read(set).map_err(|error| error.to_string())?;
    let shapes = counters::expected_values();
    for name in MAPS {
        let map = open(name)?;
        let expected = shapes
            .iter()
            .find(|(of, _)| of == name)
            .map_or(map.value, |(_, value)| *value);
        if map.value != expected {
            return Err(format!(
                "the pinned map {name} has values of {} bytes, not {expected}",
                map.value
            ));
        }
    }
    if let Some(lines) = lines {
        let found = open("SOURCES")?.entries;
        if found != lines {
            return Err(format!(
                "source.max_tracked changed from about {} to about {} slots",
                u64::from(found) * 7,
                u64::from(lines) * 7
            ));
        }
    }
    Ok(())
}

/// Eight random bytes from the kernel.
fn random() -> std::io::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Gives memory that was needed for a moment back to the system: aya reads the kernel's type information (some 20 MB) even
/// where it is not used, and a policy of thousands of services is tens of megabytes while it is compiled.
fn trim() {
    // SAFETY: takes a number; touches only the allocator's own free memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
