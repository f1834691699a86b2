//! The one module that touches BPF maps, programs and links.

mod types;

use std::{collections::BTreeMap, path::Path};

use ipnet::IpNet;

pub use self::types::*;
use crate::policy::model::{Policy, Source};

/// The effective content of every list, by name: policy, files and live changes together.
pub type ListContents = BTreeMap<String, Vec<IpNet>>;

/// Weir's half in the kernel: pinned maps, programs and links under one bpffs directory, and the lock on it.
#[derive(Debug)]
pub struct Dataplane {}

impl Dataplane {
    /// Takes the lock on `bpffs` (created if absent), opens what is pinned there or creates it. Nothing is attached
    /// or changed for packets yet. Slow only when it creates (some 50 ms).
    pub fn open(bpffs: &Path, source: &Source) -> Result<(Self, Opened), KernelError> {
        let _ = (bpffs, source);
        Err(KernelError::Other("not built yet".into()))
    }

    /// Opens what is pinned, for commands that work without a controller; fails with `NotPinned` when there is nothing.
    pub fn open_pinned(bpffs: &Path) -> Result<Self, KernelError> {
        let _ = bpffs;
        Err(KernelError::Other("not built yet".into()))
    }

    /// Compiles `policy` and puts it in force for every attached interface in one switch. On any error what was in
    /// force stays in force. Call it before the first [`Self::attach`].
    /// `text` is the policy file's text; it is kept beside the maps, so that levers work without a controller.
    pub fn apply(&mut self, policy: &Policy, text: &str, lists: &ListContents, levers: &[Lever]) -> Result<Applied, KernelError> {
        let _ = (policy, text, lists, levers);
        Err(KernelError::Other("not built yet".into()))
    }

    /// Changes the levers only; the policy, the lists and the state of every bucket stay.
    pub fn set_levers(&mut self, levers: &[Lever]) -> Result<(), KernelError> {
        let _ = levers;
        Err(KernelError::Other("not built yet".into()))
    }

    /// The levers in force (expired ones left out).
    pub fn levers(&self) -> Result<Vec<Lever>, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// The text of the policy in force, if there is one.
    pub fn policy_text(&self) -> Result<Option<String>, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// Attaches to an interface and pins the link; takes over (replacing the program atomically) a link pinned before.
    pub fn attach(&mut self, interface: &str, mode: XdpModeChoice) -> Result<Attachment, KernelError> {
        let _ = (interface, mode);
        Err(KernelError::Other("not built yet".into()))
    }

    /// Every pinned attachment.
    pub fn attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// Takes enforcement off one interface; true if it was attached. With the last one the shared maps go too.
    pub fn detach(&mut self, interface: &str) -> Result<bool, KernelError> {
        let _ = interface;
        Err(KernelError::Other("not built yet".into()))
    }

    /// The packet counters.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// What was lost or overflowed.
    pub fn losses(&self) -> Result<Losses, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// How full the source table is (reads the whole table: 10 ms for a million slots; cache it).
    pub fn source_slots(&self) -> Result<SourceSlots, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// Writes and deletes ban entries in the kernel.
    pub fn change_bans(&mut self, set: &[BanEntry], delete: &[(IpNet, Option<String>)]) -> Result<(), KernelError> {
        let _ = (set, delete);
        Err(KernelError::Other("not built yet".into()))
    }

    /// Every ban entry in the kernel (effective expiries).
    pub fn bans(&self) -> Result<Vec<BanEntry>, KernelError> {
        Err(KernelError::Other("not built yet".into()))
    }

    /// The kernel's monotonic clock, in nanoseconds: the clock of every `until_ns`.
    pub fn now_ns() -> u64 {
        0
    }
}
