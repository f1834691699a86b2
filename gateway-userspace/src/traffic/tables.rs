//! The tables of flows, sources, networks and ports that samples fill.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use gateway_core::{
    frame::Slice,
    packet::{Fragment, Network, Packet},
    parse::parse,
    verdict::{Reason, Verdict},
    wire::ipv4,
};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    batch::{Batch, Missed, Named},
    table::{Table, Weighed},
    weights::{Addend, Weights},
};
use crate::{compile::prefix, kernel::Sample};

/// Flows that are kept.
pub(super) const FLOWS: usize = 32_768;
/// Sources at services that are kept.
pub(super) const SOURCES: usize = 32_768;
/// Networks at services that are kept.
pub(super) const NETWORKS: usize = 16_384;
/// Ports that are kept.
pub(super) const PORTS: usize = 8_192;

/// How sources and their networks are cut: bits of IPv4 and IPv6 addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// A source, as `[source]` says.
    pub source: (u8, u8),
    /// A network.
    pub network: (u8, u8),
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            source: (32, 64),
            network: (24, 48),
        }
    }
}

/// What tells flows apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct FlowKey {
    /// The IP protocol's number.
    pub protocol: u8,
    /// The source, and its port or 0.
    pub source: (IpAddr, u16),
    /// The destination, and its port or 0.
    pub destination: (IpAddr, u16),
}

/// A flow.
#[derive(Clone, Debug)]
pub(super) struct FlowEntry {
    /// Its rates.
    pub weights: Weights,
    /// Packets since it was first seen.
    pub packets: f64,
    /// Bytes since it was first seen.
    pub bytes: f64,
    /// The samples that this is from.
    pub samples: u64,
    /// TCP flags of all samples.
    pub tcp_flags: u8,
    /// The service of the last sample.
    pub service: Arc<str>,
    /// The last verdict.
    pub verdict: Verdict,
    /// The last reason.
    pub reason: Reason,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

/// A source, or a network, at one service.
#[derive(Clone, Debug)]
pub(super) struct SourceEntry {
    /// Its rates.
    pub weights: Weights,
    /// Its drops by reason.
    pub reasons: Vec<(Reason, Weights)>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

/// A port that is asked for.
#[derive(Clone, Debug)]
pub(super) struct PortEntry {
    /// Its rates.
    pub weights: Weights,
    /// The service of the last sample.
    pub service: Arc<str>,
}

impl Weighed for FlowEntry {
    fn weights(&self) -> &Weights {
        &self.weights
    }
}

impl Weighed for SourceEntry {
    fn weights(&self) -> &Weights {
        &self.weights
    }
}

impl Weighed for PortEntry {
    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// The tables.
#[derive(Debug)]
pub struct Tables {
    pub(super) cut: Cut,
    pub(super) all: BTreeMap<Arc<str>, Weights>,
    pub(super) flows: Table<FlowKey, FlowEntry>,
    pub(super) sources: Table<(IpNet, Arc<str>), SourceEntry>,
    pub(super) networks: Table<(IpNet, Arc<str>), SourceEntry>,
    pub(super) ports: Table<(u8, u16), PortEntry>,
    /// The N of the last sample, and when that came.
    pub(super) one_in: (u32, f64),
    pub(super) samples: u64,
    missed: Missed,
    began: Option<f64>,
    services: HashMap<Arc<str>, Arc<str>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            cut: Cut::default(),
            all: BTreeMap::new(),
            flows: Table::new(FLOWS),
            sources: Table::new(SOURCES),
            networks: Table::new(NETWORKS),
            ports: Table::new(PORTS),
            one_in: (0, 0.0),
            samples: 0,
            missed: Missed::default(),
            began: None,
            services: HashMap::new(),
        }
    }
}

impl Tables {
    /// Takes a batch in. `now`: seconds of a clock that does not run backwards.
    pub fn add(&mut self, batch: &Batch, now: f64) {
        let Some(last) = batch.samples.last() else { return };
        self.began.get_or_insert(now);
        self.one_in = (last.sample.head.one_in, now);
        let scale = self.scale(batch, last);
        for named in &batch.samples {
            self.one(named, scale, now);
        }
        self.samples += batch.samples.len() as u64;
    }

    /// What every sample of a batch must be multiplied with, so that it stands also for those that never came.
    fn scale(&mut self, batch: &Batch, last: &Named) -> f64 {
        let gone = self.missed.since(last.sample.head.missed);
        let stands_for: f64 = batch
            .samples
            .iter()
            .map(|named| f64::from(named.sample.head.one_in))
            .sum();
        1.0 + gone as f64 / stands_for.max(1.0)
    }

    fn one(&mut self, named: &Named, scale: f64, now: f64) {
        let Sample { head, bytes } = &named.sample;
        let frame = Slice {
            bytes,
            wire_length: head.length,
        };
        let packet = parse(&frame).ok();
        let addend = Addend {
            packets: f64::from(head.one_in) * scale,
            length: f64::from(head.length),
            dropped: named.verdict != Verdict::Pass,
            connection: packet.is_some_and(|packet| packet.connection),
        };
        let service = Arc::clone(
            self.services
                .entry(Arc::clone(&named.service))
                .or_insert_with(|| Arc::clone(&named.service)),
        );
        self.all.entry(Arc::clone(&service)).or_default().add(addend, now);
        let Some(packet) = packet.filter(|packet| !matches!(packet.network, Network::Other(_))) else {
            return;
        };
        let v6 = matches!(packet.network, Network::V6);
        let source = prefix::address(v6, &packet.source);
        let length = |cut: (u8, u8)| if v6 { cut.1 } else { cut.0 };
        for (table, cut) in [
            (&mut self.sources, self.cut.source),
            (&mut self.networks, self.cut.network),
        ] {
            let Ok(net) = IpNet::new(source, length(cut)) else {
                continue;
            };
            let entry = table.entry((net.trunc(), Arc::clone(&service)), now, || SourceEntry {
                weights: Weights::default(),
                reasons: Vec::new(),
                first_seen: named.at,
                last_seen: named.at,
            });
            entry.add(addend, named, now);
        }
        let (source_port, destination_port) = ports(&packet);
        if matches!(packet.protocol, ipv4::TCP | ipv4::UDP) && !matches!(packet.fragment, Fragment::Later) {
            let port = self
                .ports
                .entry((packet.protocol, destination_port), now, || PortEntry {
                    weights: Weights::default(),
                    service: Arc::clone(&service),
                });
            port.weights.add(addend, now);
            port.service = Arc::clone(&service);
        }
        let key = FlowKey {
            protocol: packet.protocol,
            source: (source, source_port),
            destination: (prefix::address(v6, &packet.destination), destination_port),
        };
        let flow = self.flows.entry(key, now, || FlowEntry {
            weights: Weights::default(),
            packets: 0.0,
            bytes: 0.0,
            samples: 0,
            tcp_flags: 0,
            service: Arc::clone(&service),
            verdict: named.verdict,
            reason: named.reason,
            first_seen: named.at,
            last_seen: named.at,
        });
        flow.weights.add(addend, now);
        flow.packets += addend.packets;
        flow.bytes += addend.packets * addend.length;
        flow.samples += 1;
        flow.tcp_flags |= packet.tcp_flags;
        flow.service = service;
        flow.verdict = named.verdict;
        flow.reason = named.reason;
        flow.last_seen = named.at;
    }

    /// For how long there have been samples, in seconds.
    pub(super) fn age(&self, now: f64) -> f64 {
        self.began.map_or(0.0, |began| now - began)
    }
}

impl SourceEntry {
    fn add(&mut self, addend: Addend, named: &Named, now: f64) {
        self.weights.add(addend, now);
        self.last_seen = named.at;
        if addend.dropped {
            let known = self
                .reasons
                .iter_mut()
                .find(|(reason, _)| *reason == named.reason);
            if let Some((_, weights)) = known {
                weights.add(addend, now);
            } else {
                let mut weights = Weights::default();
                weights.add(addend, now);
                self.reasons.push((named.reason, weights));
            }
        }
    }
}

/// The ports, or for ICMP its type in place of the destination's.
fn ports(packet: &Packet) -> (u16, u16) {
    match packet.protocol {
        ipv4::TCP | ipv4::UDP => (packet.source_port, packet.destination_port),
        _ => (0, u16::from(packet.icmp_type)),
    }
}
