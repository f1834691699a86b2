//! What the engine tells as events.

use std::sync::Arc;

use gateway_core::image::{Notice, notice};
use ipnet::IpNet;

use super::{
    backend::NoticeSource,
    engine::{Engine, whole_second},
};
use crate::{
    api::peer::Peer,
    compile::prefix,
    events::{Actor, Entry, EventLog, Kind},
    kernel::KernelError,
};

impl Engine {
    /// The log of events.
    pub fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.events)
    }

    /// Takes an event in that happened now.
    pub fn tell(&self, entry: Entry) {
        self.events.record(self.clock.now(), entry);
    }

    /// Opens the ring of what the packet path announces.
    pub fn notices(&self) -> Result<Box<dyn NoticeSource>, KernelError> {
        self.backend.notices()
    }

    /// Says that the controller is stopping and lets followers of events and of samples go.
    pub fn close_events(&self) {
        let last = Entry::new(Kind::Stopped, "the controller is stopping");
        self.events.close(self.clock.now(), last);
        self.traffic.recent().close();
    }

    /// Tells what the packet path announced.
    pub fn tell_notices(&self, notices: &[Notice]) {
        for notice in notices {
            if let Some(entry) = self.of_notice(notice) {
                let now = self.clock.now();
                self.events.record_at(now, now.wall_at(notice.at_ns), entry);
            }
        }
    }

    fn of_notice(&self, told: &Notice) -> Option<Entry> {
        let what = match told.kind {
            notice::BLOCKED => "is blocked",
            notice::BLOCKED_CONNECTIONS => "opens no new connections: they are blocked",
            _ => return None,
        };
        let v6 = told.v6 != 0;
        let source = &self.in_force.prepared.policy.source;
        let length = if v6 {
            source.ipv6_prefix
        } else {
            source.ipv4_prefix
        };
        let prefix = IpNet::new(prefix::address(v6, &told.source), length)
            .ok()?
            .trunc();
        let service = self.backend.service_name(told.service);
        let services = &self.in_force.prepared.policy.services;
        let block = service
            .as_ref()
            .and_then(|name| services.iter().find(|service| service.name == *name))
            .and_then(|service| service.per_source.as_ref()?.block);
        let whom = service
            .as_ref()
            .map_or_else(String::new, |service| format!(" at {service}"));
        let now = self.clock.now();
        let mut entry = Entry::new(Kind::Block, format!("{prefix} {what}{whom}"));
        entry.by = Actor::Kernel;
        entry.why = block.map(|block| {
            let within = block.within_seconds;
            format!("{} packets over its limits within {within} s", block.drops)
        });
        entry.prefix = Some(prefix);
        entry.until = Some(whole_second(now.wall_at(told.until_ns)));
        entry.interface = self.backend.interface_name(told.interface);
        entry.service = service;
        Some(entry)
    }

    /// Tells of bans: each of a few, or how many there are.
    pub(super) fn tell_bans(&self, kind: Kind, bans: Vec<BanTold>, peer: Option<Peer>) {
        /// More than this are one event: a feed of ten thousand must not push everything else out of the log.
        const EACH: usize = 20;
        let verb = match kind {
            Kind::Ban => "banned",
            Kind::Unban => "unbanned",
            _ => "the ban ended of",
        };
        if bans.len() > EACH {
            let mut entry = Entry::new(kind, format!("{verb} {} prefixes", bans.len())).by(peer);
            entry.count = Some(bans.len() as u64);
            if let Some(first) = bans.into_iter().next() {
                (entry.why, entry.service, entry.until) = (first.reason, first.service, first.until);
            }
            self.tell(entry);
            return;
        }
        for ban in bans {
            let whom = ban
                .service
                .as_ref()
                .map_or_else(String::new, |service| format!(" from {service}"));
            let mut entry = Entry::new(kind, format!("{verb} {}{whom}", ban.prefix)).by(peer);
            entry.prefix = Some(ban.prefix);
            (entry.why, entry.service, entry.until) = (ban.reason, ban.service, ban.until);
            self.tell(entry);
        }
    }

    /// Tells of faults that began and ended since the last look: interfaces that are gone, state that is not saved.
    pub(super) fn watch_faults(&mut self) {
        let mut faults: Vec<(Option<String>, String)> = Vec::new();
        if let Ok(attachments) = self.backend.attachments() {
            for name in &self.wanted {
                let there = attachments
                    .iter()
                    .any(|attached| attached.interface == *name && attached.ifindex != 0);
                if !there {
                    faults.push((
                        Some(name.clone()),
                        format!("weir is not attached to {name} any more"),
                    ));
                }
            }
        }
        if let Some(why) = &self.save_fault {
            faults.push((None, format!("the state is not saved: {why}")));
        }
        if let Some((why, _)) = self.events.fault() {
            faults.push((None, format!("events are not written: {why}")));
        }
        let told = |kind: Kind, fault: &(Option<String>, String)| {
            let mut entry = Entry::new(kind, fault.1.clone());
            entry.interface.clone_from(&fault.0);
            self.tell(entry);
        };
        for began in faults.iter().filter(|fault| !self.faults.contains(fault)) {
            told(Kind::Fault, began);
        }
        for ended in self.faults.iter().filter(|fault| !faults.contains(fault)) {
            told(Kind::Mended, ended);
        }
        self.faults = faults;
    }
}

/// A ban as an event tells it.
pub(super) struct BanTold {
    pub(super) prefix: IpNet,
    pub(super) service: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) until: Option<jiff::Timestamp>,
}
