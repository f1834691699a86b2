//! A kernel half in memory, and clocks that tests set.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write as _,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex},
    time::Duration,
};

use gateway_core::{
    image::{Notice, Subject},
    packet::Packet,
};
use ipnet::IpNet;
use jiff::Timestamp;

use super::backend::{Backend, Clock, Moment, NoticeSource, SampleSource};
use crate::{
    explain::Explained,
    kernel::{
        Applied, Attachment, BanEntry, BucketLeft, Counter, DistinctSources, KernelError, Lever,
        ListContents, Losses, Pending, Pinned, Sample, ServiceProfile, SourceSlots, XdpMode, XdpModeChoice,
    },
    policy::model::Policy,
};

/// What the fake kernel holds; tests look at it and set it.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) text: Option<String>,
    /// What waits for confirmation, and what it would go back to.
    pub(crate) waiting: Option<(Pending, Before)>,
    /// The present by the clock, for what ends by itself.
    pub(crate) clock: FakeClock,
    pub(crate) lists: ListContents,
    pub(crate) applies: usize,
    pub(crate) levers: Vec<Lever>,
    pub(crate) attached: BTreeMap<String, Attachment>,
    pub(crate) counters: Vec<Counter>,
    pub(crate) losses: Losses,
    /// When it opens.
    pub(crate) open_at_ns: u64,
    pub(crate) bans: BTreeMap<(IpNet, Option<String>), u64>,
    services: Vec<String>,
    notices: VecDeque<Notice>,
    /// What waits in the ring of samples.
    pub(crate) samples: VecDeque<Sample>,
    pub(crate) profiles: Vec<Arc<ServiceProfile>>,
    pub(crate) distinct: Vec<DistinctSources>,
    wake: Option<UnixStream>,
    /// The next change is refused with this.
    pub(crate) refuse: Option<&'static str>,
    /// Where what is pinned is said to be.
    pub(crate) pinned: Option<Pinned>,
    /// Who has completed a handshake.
    pub(crate) proven: Vec<std::net::IpAddr>,
    /// Interfaces that cannot be attached to.
    pub(crate) unwilling: Vec<String>,
}

/// What a policy that waits would go back to.
#[derive(Debug)]
pub(crate) struct Before {
    lists: ListContents,
    levers: Vec<Lever>,
    services: Vec<String>,
}

impl Kernel {
    /// The text that packets are judged by.
    pub(crate) fn in_force(&self) -> Option<&str> {
        match &self.waiting {
            Some((pending, _)) if self.clock.now().ns < pending.until_ns => Some(&pending.text),
            _ => self.text.as_deref(),
        }
    }

    fn go_back(&mut self) -> bool {
        let Some((_, before)) = self.waiting.take() else {
            return false;
        };
        self.lists = before.lists;
        self.levers = before.levers;
        self.services = before.services;
        true
    }

    fn settle(&mut self) -> bool {
        let over = |(pending, _): &(Pending, Before)| self.clock.now().ns >= pending.until_ns;
        self.waiting.as_ref().is_some_and(over) && self.go_back()
    }

    fn none_waits(&mut self) -> Result<(), KernelError> {
        self.settle();
        self.waiting
            .as_ref()
            .map_or(Ok(()), |_| Err(KernelError::Pending))
    }

    fn willing(&mut self) -> Result<(), KernelError> {
        self.refuse
            .take()
            .map_or(Ok(()), |why| Err(KernelError::Other(why.into())))
    }
}

/// The fake ring; it is woken by a byte on a socket.
struct FakeNotices(Fake, UnixStream);

/// The ring of samples: nothing wakes its reader, who looks by itself.
struct FakeSamples {
    fake: Fake,
    quiet: UnixStream,
    /// Kept open, so that `quiet` stays silent.
    _other_end: UnixStream,
}

impl SampleSource for FakeSamples {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.quiet.as_fd()
    }

    fn take(&mut self, most: usize) -> Vec<Sample> {
        let mut kernel = self.fake.0.lock().unwrap();
        let most = most.min(kernel.samples.len());
        kernel.samples.drain(..most).collect()
    }
}

impl NoticeSource for FakeNotices {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }

    fn take(&mut self, most: usize) -> Vec<Notice> {
        let mut kernel = self.0.0.lock().unwrap();
        let count = kernel.notices.len().min(most);
        kernel.notices.drain(..count).collect()
    }
}

impl Fake {
    /// The packet path announces something.
    pub(crate) fn announce(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut kernel = self.0.lock().unwrap();
        kernel.notices.extend(notices);
        if let Some(mut wake) = kernel.wake.as_ref() {
            wake.write_all(&[1]).unwrap();
        }
    }
}

/// A handle to a fake kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<Kernel>>);

impl Backend for Fake {
    fn apply_until(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: &ListContents,
        levers: &[Lever],
        until_ns: Option<u64>,
    ) -> Result<Applied, KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        kernel.none_waits()?;
        let services = policy.services.iter().map(|service| service.name.clone());
        let before = Before {
            lists: std::mem::replace(&mut kernel.lists, lists.clone()),
            levers: std::mem::replace(&mut kernel.levers, levers.to_vec()),
            services: std::mem::replace(&mut kernel.services, services.collect()),
        };
        match until_ns {
            None => kernel.text = Some(text.into()),
            Some(until_ns) => {
                let text = text.into();
                kernel.waiting = Some((Pending { text, until_ns }, before));
            }
        }
        kernel.applies += 1;
        let prefixes = lists.values().map(Vec::len).sum();
        Ok(Applied {
            services: policy.services.len(),
            prefixes,
            took: Duration::from_millis(3),
        })
    }

    fn pending(&self) -> Result<Option<Pending>, KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.settle();
        Ok(kernel.waiting.as_ref().map(|(pending, _)| pending.clone()))
    }

    fn confirm(&mut self) -> Result<(), KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        kernel.settle();
        let (pending, _) = kernel.waiting.take().ok_or(KernelError::NotPending)?;
        kernel.text = Some(pending.text);
        Ok(())
    }

    fn revert(&mut self) -> Result<(), KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        kernel.settle();
        kernel.go_back().then_some(()).ok_or(KernelError::NotPending)
    }

    fn settle(&mut self) -> Result<bool, KernelError> {
        Ok(self.0.lock().unwrap().settle())
    }

    fn set_levers(&mut self, levers: &[Lever]) -> Result<(), KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        kernel.none_waits()?;
        kernel.levers = levers.to_vec();
        Ok(())
    }

    fn levers(&self) -> Result<Vec<Lever>, KernelError> {
        Ok(self.0.lock().unwrap().levers.clone())
    }

    fn policy_text(&self) -> Result<Option<String>, KernelError> {
        Ok(self.0.lock().unwrap().text.clone())
    }

    fn attach(&mut self, interface: &str, _: XdpModeChoice) -> Result<Attachment, KernelError> {
        let mut kernel = self.0.lock().unwrap();
        if kernel.unwilling.iter().any(|name| name == interface) {
            return Err(KernelError::NoInterface {
                name: interface.into(),
            });
        }
        let reused = kernel.attached.contains_key(interface);
        let attachment = Attachment {
            interface: interface.into(),
            ifindex: 7,
            xdp_mode: XdpMode::Native,
            fallback: None,
            reused,
            renamed: None,
        };
        kernel.attached.insert(interface.into(), attachment.clone());
        Ok(attachment)
    }

    fn attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        Ok(self.0.lock().unwrap().attached.values().cloned().collect())
    }

    fn detach(&mut self, interface: &str) -> Result<bool, KernelError> {
        Ok(self.0.lock().unwrap().attached.remove(interface).is_some())
    }

    fn keep_pinned(&mut self) -> Result<Pinned, KernelError> {
        Ok(self.0.lock().unwrap().pinned.unwrap_or(Pinned::InPlace))
    }

    fn remove_unused(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        Ok(self.0.lock().unwrap().counters.clone())
    }

    fn losses(&self) -> Result<Losses, KernelError> {
        Ok(self.0.lock().unwrap().losses)
    }

    fn source_slots(&self) -> Result<SourceSlots, KernelError> {
        Ok(SourceSlots { in_debt: 1, free: 99 })
    }

    fn change_bans(
        &mut self,
        set: &[BanEntry],
        delete: &[(IpNet, Option<String>)],
    ) -> Result<(), KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        let named = set
            .iter()
            .map(|entry| &entry.service)
            .chain(delete.iter().map(|(_, service)| service));
        let before = kernel.waiting.as_ref().map(|(_, before)| &before.services);
        let known = |service: &String| {
            kernel.services.contains(service) || before.is_some_and(|before| before.contains(service))
        };
        if let Some(unknown) = named.flatten().find(|service| !known(service)) {
            return Err(KernelError::NoService {
                name: unknown.clone(),
            });
        }
        for key in delete {
            kernel.bans.remove(key);
        }
        for entry in set {
            kernel
                .bans
                .insert((entry.prefix, entry.service.clone()), entry.until_ns);
        }
        Ok(())
    }

    fn handshake_faults(&self) -> Vec<String> {
        Vec::new()
    }

    fn notices(&self) -> Result<Box<dyn NoticeSource>, KernelError> {
        let (wake, woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        self.0.lock().unwrap().wake = Some(wake);
        Ok(Box::new(FakeNotices(self.clone(), woken)))
    }

    fn samples(&self) -> Result<Box<dyn SampleSource>, KernelError> {
        let (wake, woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        Ok(Box::new(FakeSamples {
            fake: self.clone(),
            quiet: woken,
            _other_end: wake,
        }))
    }

    fn profiles(&self) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        Ok(self.0.lock().unwrap().profiles.clone())
    }

    fn profiles_of(&self, services: &[Arc<str>]) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        let kernel = self.0.lock().unwrap();
        let wanted = |profile: &&Arc<ServiceProfile>| services.iter().any(|name| **name == *profile.service);
        Ok(kernel.profiles.iter().filter(wanted).cloned().collect())
    }

    fn take_distinct(&mut self) -> Result<Vec<DistinctSources>, KernelError> {
        Ok(std::mem::take(&mut self.0.lock().unwrap().distinct))
    }

    fn service_name(&self, number: u32) -> Option<String> {
        let kernel = self.0.lock().unwrap();
        kernel.services.get(number as usize).cloned()
    }

    fn service_numbers(&self) -> Vec<(String, u32)> {
        let kernel = self.0.lock().unwrap();
        let numbered = kernel.services.iter().cloned().zip(0..);
        numbered.filter(|(_, number)| *number != 0).collect()
    }

    fn interface_name(&self, number: u32) -> Option<String> {
        let kernel = self.0.lock().unwrap();
        kernel.attached.keys().nth(number as usize).cloned()
    }

    fn set_open_at(&mut self, ns: u64) -> Result<(), KernelError> {
        let mut kernel = self.0.lock().unwrap();
        kernel.willing()?;
        kernel.open_at_ns = ns;
        Ok(())
    }

    fn explain(&self, packet: &Packet, now_ns: u64) -> Result<Explained, KernelError> {
        // It judges nothing: what no service takes passes.
        let default = Subject {
            flags: gateway_core::image::subject_flags::DEFAULT,
            enforce_share: u32::MAX,
            ..Subject::default()
        };
        let _ = packet;
        Ok(Explained {
            judgement: gateway_core::judge::Judgement {
                verdict: gateway_core::verdict::Verdict::Pass,
                reason: gateway_core::verdict::Reason::Pass,
                subject: 0,
                answered: false,
            },
            now_ns,
            generation: gateway_core::image::Generation::default(),
            subject: default,
            scaled_until_ns: None,
            service: crate::compile::DEFAULT.into(),
            class: String::new(),
            opened: false,
            enforced: None,
            seen: Vec::new(),
            limits: Vec::new(),
        })
    }

    fn left(&self, _: std::net::IpAddr, service: &str) -> Result<Vec<BucketLeft>, KernelError> {
        if self.0.lock().unwrap().services.iter().any(|name| name == service) {
            return Ok(Vec::new());
        }
        Err(KernelError::NoService { name: service.into() })
    }

    fn proven(&self, source: std::net::IpAddr) -> Result<bool, KernelError> {
        Ok(self.0.lock().unwrap().proven.contains(&source))
    }

    fn open_at(&self) -> Result<u64, KernelError> {
        Ok(self.0.lock().unwrap().open_at_ns)
    }

    fn bans(&self) -> Result<Vec<BanEntry>, KernelError> {
        let kernel = self.0.lock().unwrap();
        let entries = kernel.bans.iter();
        let entries = entries.map(|((prefix, service), until_ns)| BanEntry {
            prefix: *prefix,
            service: service.clone(),
            until_ns: *until_ns,
        });
        Ok(entries.collect())
    }
}

/// Clocks that stand still until a test moves them.
#[derive(Clone, Debug)]
pub(crate) struct FakeClock(Arc<Mutex<Moment>>);

impl Default for FakeClock {
    fn default() -> Self {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        Self(Arc::new(Mutex::new(Moment {
            ns: 1_000_000_000_000,
            wall,
        })))
    }
}

impl FakeClock {
    pub(crate) fn pass(&self, seconds: u64) {
        let mut now = self.0.lock().unwrap();
        now.ns += seconds * 1_000_000_000;
        now.wall = now.wall.checked_add(Duration::from_secs(seconds)).unwrap();
    }
}

impl FakeClock {
    /// Sets the wall clock forward or back; the kernel's goes on.
    pub(crate) fn step(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        now.wall = Timestamp::from_second(now.wall.as_second() + seconds).unwrap();
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap()
    }

    fn boot_id(&self) -> String {
        "test-boot".into()
    }
}

/// A controller over it whose state is in a folder, and who has nobody to guard.
#[cfg(feature = "fuzzing")]
pub(crate) fn engine(
    state: &std::path::Path,
    policy: &std::path::Path,
) -> Result<super::engine::Engine, super::engine::StartError> {
    struct Nobody;
    impl crate::guard::Neighbours for Nobody {
        fn look(&mut self) -> Vec<crate::guard::Guarded> {
            Vec::new()
        }
    }
    let (kernel, clock) = (Fake::default(), FakeClock::default());
    kernel.0.lock().unwrap().clock = clock.clone();
    let store = Arc::new(crate::state::Store::open(state)?);
    let file = super::prepare::Prepared::from_file(policy).unwrap();
    let choice = super::start::Choice::of(&store, file)?;
    let mut engine = super::engine::Engine::start(
        super::engine::Parts {
            backend: Box::new(kernel),
            clock: Arc::new(clock),
            store,
            policy_file: policy.to_owned(),
        },
        choice,
    )?;
    engine.neighbours = Box::new(Nobody);
    Ok(engine)
}
