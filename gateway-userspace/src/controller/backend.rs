//! What the controller needs from the kernel and from the clocks, so that it can be tested without either.

use std::{fs, net::IpAddr, os::fd::BorrowedFd, sync::Arc, time::Duration};

use gateway_core::{image::Notice, packet::Packet};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::{
    explain::Explained,
    kernel::{
        Applied, Attachment, BanEntry, BucketLeft, Counter, Dataplane, DistinctSources, KernelError, Lever,
        ListContents, Losses, Notices, Pending, Pinned, Sample, Samples, ServiceProfile, SourceSlots,
        XdpModeChoice,
    },
    policy::model::Policy,
};

/// The kernel half, as [`Dataplane`] offers it; each method is described there.
#[allow(
    missing_docs,
    reason = "each method is described at Dataplane's method of the same name"
)]
pub trait Backend: Send {
    fn apply_until(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: &ListContents,
        levers: &[Lever],
        until_ns: Option<u64>,
    ) -> Result<Applied, KernelError>;
    fn pending(&self) -> Result<Option<Pending>, KernelError>;
    fn confirm(&mut self) -> Result<(), KernelError>;
    fn revert(&mut self) -> Result<(), KernelError>;
    fn settle(&mut self) -> Result<bool, KernelError>;
    fn set_levers(&mut self, levers: &[Lever]) -> Result<(), KernelError>;
    fn levers(&self) -> Result<Vec<Lever>, KernelError>;
    fn policy_text(&self) -> Result<Option<String>, KernelError>;
    fn attach(&mut self, interface: &str, mode: XdpModeChoice) -> Result<Attachment, KernelError>;
    fn attachments(&self) -> Result<Vec<Attachment>, KernelError>;
    fn detach(&mut self, interface: &str) -> Result<bool, KernelError>;
    fn keep_pinned(&mut self) -> Result<Pinned, KernelError>;
    fn remove_unused(&mut self) -> Result<(), KernelError>;
    fn counters(&self) -> Result<Vec<Counter>, KernelError>;
    fn losses(&self) -> Result<Losses, KernelError>;
    fn source_slots(&self) -> Result<SourceSlots, KernelError>;
    fn change_bans(
        &mut self,
        set: &[BanEntry],
        delete: &[(IpNet, Option<String>)],
    ) -> Result<(), KernelError>;
    fn bans(&self) -> Result<Vec<BanEntry>, KernelError>;
    fn handshake_faults(&self) -> Vec<String>;
    fn notices(&self) -> Result<Box<dyn NoticeSource>, KernelError>;
    fn samples(&self) -> Result<Box<dyn SampleSource>, KernelError>;
    fn profiles(&self) -> Result<Vec<Arc<ServiceProfile>>, KernelError>;
    fn profiles_of(&self, services: &[Arc<str>]) -> Result<Vec<Arc<ServiceProfile>>, KernelError>;
    fn take_distinct(&mut self) -> Result<Vec<DistinctSources>, KernelError>;
    fn service_name(&self, number: u32) -> Option<String>;
    fn service_numbers(&self) -> Vec<(String, u32)>;
    fn interface_name(&self, number: u32) -> Option<String>;
    fn set_open_at(&mut self, ns: u64) -> Result<(), KernelError>;
    fn open_at(&self) -> Result<u64, KernelError>;
    fn explain(&self, packet: &Packet, now_ns: u64) -> Result<Explained, KernelError>;
    fn left(&self, source: IpAddr, service: &str) -> Result<Vec<BucketLeft>, KernelError>;
    fn proven(&self, source: IpAddr) -> Result<bool, KernelError>;
}

/// The ring of what the packet path announces.
pub trait NoticeSource: Send {
    /// The descriptor that becomes readable when there is something.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Takes what is there, at most so many.
    fn take(&mut self, most: usize) -> Vec<Notice>;
}

impl NoticeSource for Notices {
    fn descriptor(&self) -> BorrowedFd<'_> {
        Self::descriptor(self)
    }

    fn take(&mut self, most: usize) -> Vec<Notice> {
        Self::take(self, most)
    }
}

/// The ring of samples.
pub trait SampleSource: Send {
    /// The descriptor that becomes readable when many wait.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Takes what is there, at most so many.
    fn take(&mut self, most: usize) -> Vec<Sample>;
}

impl SampleSource for Samples {
    fn descriptor(&self) -> BorrowedFd<'_> {
        Self::descriptor(self)
    }

    fn take(&mut self, most: usize) -> Vec<Sample> {
        Self::take(self, most)
    }
}

impl Backend for Dataplane {
    fn apply_until(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: &ListContents,
        levers: &[Lever],
        until_ns: Option<u64>,
    ) -> Result<Applied, KernelError> {
        Self::apply_until(self, policy, text, lists, levers, until_ns)
    }

    fn pending(&self) -> Result<Option<Pending>, KernelError> {
        Self::pending(self)
    }

    fn confirm(&mut self) -> Result<(), KernelError> {
        Self::confirm(self)
    }

    fn revert(&mut self) -> Result<(), KernelError> {
        Self::revert(self)
    }

    fn settle(&mut self) -> Result<bool, KernelError> {
        Self::settle(self)
    }

    fn set_levers(&mut self, levers: &[Lever]) -> Result<(), KernelError> {
        Self::set_levers(self, levers)
    }

    fn levers(&self) -> Result<Vec<Lever>, KernelError> {
        Self::levers(self)
    }

    fn policy_text(&self) -> Result<Option<String>, KernelError> {
        Self::policy_text(self)
    }

    fn attach(&mut self, interface: &str, mode: XdpModeChoice) -> Result<Attachment, KernelError> {
        Self::attach(self, interface, mode)
    }

    fn attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        Self::attachments(self)
    }

    fn detach(&mut self, interface: &str) -> Result<bool, KernelError> {
        Self::detach(self, interface)
    }

    fn keep_pinned(&mut self) -> Result<Pinned, KernelError> {
        Self::keep_pinned(self)
    }

    fn remove_unused(&mut self) -> Result<(), KernelError> {
        Self::remove_unused(self)
    }

    fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        Self::counters(self)
    }

    fn losses(&self) -> Result<Losses, KernelError> {
        Self::losses(self)
    }

    fn source_slots(&self) -> Result<SourceSlots, KernelError> {
        Self::source_slots(self)
    }

    fn change_bans(
        &mut self,
        set: &[BanEntry],
        delete: &[(IpNet, Option<String>)],
    ) -> Result<(), KernelError> {
        Self::change_bans(self, set, delete)
    }

    fn bans(&self) -> Result<Vec<BanEntry>, KernelError> {
        Self::bans(self)
    }

    fn handshake_faults(&self) -> Vec<String> {
        Self::handshake_faults(self).to_vec()
    }

    fn notices(&self) -> Result<Box<dyn NoticeSource>, KernelError> {
        Ok(Box::new(Self::notices(self)?))
    }

    fn samples(&self) -> Result<Box<dyn SampleSource>, KernelError> {
        Ok(Box::new(Self::samples(self)?))
    }

    fn profiles(&self) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        Self::profiles(self)
    }

    fn profiles_of(&self, services: &[Arc<str>]) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        Self::profiles_of(self, services)
    }

    fn take_distinct(&mut self) -> Result<Vec<DistinctSources>, KernelError> {
        Self::take_distinct(self)
    }

    fn service_name(&self, number: u32) -> Option<String> {
        Self::service_name(self, number)
    }

    fn service_numbers(&self) -> Vec<(String, u32)> {
        Self::service_numbers(self)
    }

    fn interface_name(&self, number: u32) -> Option<String> {
        Self::interface_name(self, number)
    }

    fn set_open_at(&mut self, ns: u64) -> Result<(), KernelError> {
        Self::set_open_at(self, ns)
    }

    fn open_at(&self) -> Result<u64, KernelError> {
        Self::open_at(self)
    }

    fn explain(&self, packet: &Packet, now_ns: u64) -> Result<Explained, KernelError> {
        Self::explain(self, packet, now_ns)
    }

    fn left(&self, source: IpAddr, service: &str) -> Result<Vec<BucketLeft>, KernelError> {
        Self::left(self, source, service)
    }

    fn proven(&self, source: IpAddr) -> Result<bool, KernelError> {
        Self::proven(self, source)
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// The kernel's monotonic clock, in nanoseconds.
    pub ns: u64,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// The wall-clock time of a moment on the kernel's clock.
    pub fn wall_at(&self, ns: u64) -> Timestamp {
        let (ahead, span) = if ns >= self.ns {
            (true, ns - self.ns)
        } else {
            (false, self.ns - ns)
        };
        let span = Duration::from_nanos(span);
        let moved = if ahead {
            self.wall.checked_add(span)
        } else {
            self.wall.checked_sub(span)
        };
        // Only a clock set to the end of time gets here; the present is the least wrong answer then.
        moved.unwrap_or(self.wall)
    }

    /// The kernel's time after a span in seconds.
    pub fn ns_after(&self, seconds: u64) -> u64 {
        self.ns.saturating_add(seconds.saturating_mul(1_000_000_000))
    }

    /// Whole seconds from now to `ns`, rounded up, so that what is in force never shows 0 left.
    pub fn seconds_to(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.ns).div_ceil(1_000_000_000)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Moment;
    /// Names the boot that the kernel's clock counts from.
    fn boot_id(&self) -> String;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment {
            ns: Dataplane::now_ns(),
            wall: Timestamp::now(),
        }
    }

    fn boot_id(&self) -> String {
        // Without it every saved end is worked out from the wall clock, which is right, only less exact.
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    }
}
