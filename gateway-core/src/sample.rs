//! Samples of the traffic: which packets are taken, and what a sample is.
//!
//! Each packet is taken with the same probability, one in N, independently of all others: the gap to the next sample is
//! drawn from the geometric distribution, so that the path only counts it down. N follows the traffic (see [`Window`]) so
//! that the samples per second stay near a cap, and every sample carries the N it was taken at.

use crate::verdict::{Reason, Verdict};

/// The most bytes of a frame that a sample holds.
pub const SNAP: usize = 128;

/// Bytes of the ring that carries samples: two seconds of the default cap.
pub const RING: u32 = 4 * 1024 * 1024;

/// The head of a sample in the ring; [`SNAP`] bytes follow, of which `captured` count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Sample {
    /// When, on the kernel's clock.
    pub at_ns: u64,
    /// Packets that samples stood for which never came (over the cap, or the ring was full): of all CPUs, since the maps
    /// were made.
    pub missed: u64,
    /// How many packets this sample stands for: one in so many was taken.
    pub one_in: u32,
    /// The frame's length from the Ethernet header on.
    pub length: u32,
    /// The number of the service that counted the packet; 0: the default.
    pub service: u32,
    /// The number of the interface.
    pub interface: u32,
    /// The number of a [`Verdict`].
    pub verdict: u8,
    /// The number of a [`Reason`].
    pub reason: u8,
    /// Bytes of the frame that follow, at most [`SNAP`].
    pub captured: u8,
    /// Which of the service's classes, counted from 1; 0: none.
    pub class: u8,
    /// Not used.
    pub reserved: [u8; 4],
}

impl Sample {
    /// The verdict; nothing where the number is of none.
    pub const fn verdict(&self) -> Option<Verdict> {
        Some(match self.verdict {
            0 => Verdict::Pass,
            1 => Verdict::Drop,
            2 => Verdict::WouldDrop,
            _ => return None,
        })
    }

    /// The reason; nothing where the number is of none.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(usize::from(self.reason)).copied()
    }
}

const _: () = assert!(size_of::<Sample>() == 40);
