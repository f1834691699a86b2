//! What holds enforcement in place by itself: interfaces that come back are attached to again, and what is pinned stays
//! pinned when its file system is unmounted.

use std::collections::BTreeMap;

use super::engine::Engine;
use crate::kernel::{Attachment, KernelError, Pinned, XdpModeChoice};

/// How often interfaces are looked at, in nanoseconds.
const EVERY_NS: u64 = 1_000_000_000;
/// How long to wait after an interface that is back refused, in nanoseconds: every try loads a program.
const RETRY_NS: u64 = 10_000_000_000;

/// What is wrong with the attachments.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// In which mode to attach again.
    pub(super) mode: XdpModeChoice,
    /// When to look next, on the kernel's clock.
    due_ns: u64,
    /// Interfaces that are lost, with why they cannot be attached to (nothing: they are not there), and when to try again.
    lost: BTreeMap<String, (Option<String>, u64)>,
    /// What is wrong with the place where things are pinned.
    place: Option<String>,
}

impl Links {
    /// What is wrong, one sentence each.
    pub(super) fn problems(&self, attachments: &[Attachment]) -> Vec<String> {
        let mut problems: Vec<String> = self.place.iter().cloned().collect();
        for attachment in attachments {
            let name = &attachment.interface;
            if let Some(now) = &attachment.renamed {
                problems.push(format!(
                    "interface {name} is called {now} now: it is enforced and counted as {name}; to follow, name {now} in the \
                     policy or with --interface and restart weir"
                ));
            }
            if attachment.ifindex == 0 {
                let why = self.lost.get(name).and_then(|(why, _)| why.as_ref());
                problems.push(why.map_or_else(
                    || {
                        format!(
                            "interface {name} has vanished, and its enforcement with it; weir attaches to it again when it \
                             comes back"
                        )
                    },
                    |why| format!("interface {name} is not enforced: {why}"),
                ));
            }
        }
        problems
    }
}

impl Engine {
    /// Looks at the attachments, when that is due.
    pub(super) fn look_after_links(&mut self) {
        let now_ns = self.clock.now().ns;
        if now_ns < self.links.due_ns {
            return;
        }
        self.links.due_ns = now_ns.saturating_add(EVERY_NS);
        self.look_after_pins();
        let attachments = match self.backend.attachments() {
            Ok(attachments) => attachments,
            Err(error) => {
                tracing::warn!(%error, "cannot look at the attachments");
                return;
            }
        };
        let gone =
            |attachment: &&Attachment| attachment.ifindex == 0 && self.wanted.contains(&attachment.interface);
        let gone: Vec<String> = attachments
            .iter()
            .filter(gone)
            .map(|attachment| attachment.interface.clone())
            .collect();
        self.links.lost.retain(|name, _| gone.contains(name));
        for interface in gone {
            self.attach_again(interface, now_ns);
        }
    }

    fn attach_again(&mut self, interface: String, now_ns: u64) {
        let before = self.links.lost.get(&interface);
        if before.is_some_and(|(_, retry_ns)| now_ns < *retry_ns) {
            return;
        }
        let (fault, retry_ns) = match self.backend.attach(&interface, self.links.mode) {
            Ok(attachment) => {
                tracing::warn!(
                    interface,
                    ifindex = attachment.ifindex,
                    "the interface is back and enforced again (`weir detach` is the way to keep weir off it)"
                );
                self.links.lost.remove(&interface);
                return;
            }
            Err(KernelError::NoInterface { .. }) => (None, 0),
            Err(error) => (Some(error.to_string()), now_ns.saturating_add(RETRY_NS)),
        };
        if before.is_none_or(|(told, _)| *told != fault) {
            match &fault {
                None => tracing::error!(
                    interface,
                    "the interface has vanished, and its enforcement with it; weir attaches to it again when it comes back"
                ),
                Some(why) => {
                    tracing::error!(
                        interface,
                        why,
                        "the interface is back, and weir cannot attach to it"
                    );
                }
            }
        }
        self.links.lost.insert(interface, (fault, retry_ns));
    }

    /// Looks whether what is pinned has its place. Cheap; before whatever reaches for pins.
    pub(super) fn look_after_pins(&mut self) {
        let fault = match self.backend.keep_pinned() {
            Ok(Pinned::InPlace) => None,
            Ok(Pinned::Restored) => {
                tracing::warn!("the bpf file system is mounted again, and everything is pinned in it again");
                None
            }
            Ok(Pinned::Unmounted) => Some(
                "the bpf file system was unmounted: packets are judged only while this controller runs, so do not stop it; \
                 mount it again (mount -t bpf bpf /sys/fs/bpf, or where --bpffs is), and weir pins everything there again"
                    .to_owned(),
            ),
            Ok(Pinned::Removed) => Some(
                "the folder that everything was pinned in was removed, and enforcement ended with it; restart weir to enforce \
                 again"
                    .to_owned(),
            ),
            Err(error) => Some(format!("what is pinned has lost its place: {error}")),
        };
        if let Some(fault) = &fault
            && self.links.place.as_ref() != Some(fault)
        {
            tracing::error!("{fault}");
        }
        self.links.place = fault;
    }
}
