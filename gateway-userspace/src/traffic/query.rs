//! What is asked of the tables: the heaviest first.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    tables::{FlowEntry, FlowKey, SourceEntry, Tables},
    weights::Weights,
};
use crate::api::traffic::{Estimate, Flow, SourceUse};

/// What is heavy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Packets.
    #[default]
    Packets,
    /// Bytes.
    Bytes,
    /// Packets that were dropped, or would have been.
    Dropped,
    /// New connections.
    Connections,
}

impl By {
    /// Its name in queries and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Dropped => "dropped",
            Self::Connections => "connections",
        }
    }

    fn of(self, estimate: &Estimate) -> f64 {
        match self {
            Self::Packets => estimate.packets_per_second,
            Self::Bytes => estimate.bytes_per_second,
            Self::Dropped => estimate.dropped_per_second,
            Self::Connections => estimate.connections_per_second,
        }
    }
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only of this service.
    pub service: Option<String>,
    /// Only from within this prefix.
    pub source: Option<IpNet>,
    /// What is heavy.
    pub by: By,
    /// At most so many.
    pub limit: usize,
    /// Networks in place of sources.
    pub networks: bool,
}

/// What a port is asked for, and by whom most.
#[derive(Clone, Debug, PartialEq)]
pub struct PortRow {
    /// The IP protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// The service of the last packet.
    pub service: String,
    /// How much.
    pub estimate: Estimate,
    /// The source that sends it most.
    pub top_source: Option<IpNet>,
}

/// A source at all its services together.
struct Sum<'a> {
    weights: Weights,
    parts: Vec<(&'a str, &'a SourceEntry)>,
}

impl Tables {
    /// All traffic, or that of one service.
    pub fn all(&self, service: Option<&str>, now: f64) -> Estimate {
        let mut sum = Weights::default();
        for (name, weights) in &self.all {
            if service.is_none_or(|service| service == &**name) {
                sum.merge(weights, now);
            }
        }
        sum.estimate(now, self.age(now))
    }

    /// The heaviest sources or networks. Whether they are banned, and what is left in their buckets, others know.
    pub fn sources(&self, query: &Query, now: f64) -> Vec<SourceUse> {
        let table = if query.networks {
            &self.networks
        } else {
            &self.sources
        };
        let mut sums: HashMap<IpNet, Sum<'_>> = HashMap::new();
        for ((source, service), entry) in table.iter() {
            let wanted = query.service.as_deref().is_none_or(|wanted| wanted == &**service)
                && query.source.is_none_or(|prefix| prefix.contains(source));
            if !wanted {
                continue;
            }
            let sum = sums.entry(*source).or_insert_with(|| Sum {
                weights: Weights::default(),
                parts: Vec::new(),
            });
            sum.weights.merge(&entry.weights, now);
            sum.parts.push((service, entry));
        }
        let age = self.age(now);
        let rows = sums
            .into_iter()
            .map(|(source, sum)| (source, sum.weights.estimate(now, age), sum));
        let rows: Vec<_> = rows
            .map(|(source, estimate, sum)| (estimate, (source, sum)))
            .collect();
        heaviest(rows, query)
            .into_iter()
            .map(|(estimate, (source, sum))| row(source, estimate, &sum, now, age))
            .collect()
    }

    /// The heaviest flows.
    pub fn flows(&self, query: &Query, now: f64) -> Vec<Flow> {
        let age = self.age(now);
        let wanted = |key: &FlowKey, entry: &FlowEntry| {
            query
                .service
                .as_deref()
                .is_none_or(|wanted| wanted == &*entry.service)
                && query.source.is_none_or(|prefix| prefix.contains(&key.source.0))
        };
        let rows = self.flows.iter().filter(|(key, entry)| wanted(key, entry));
        let rows: Vec<_> = rows
            .map(|(key, entry)| (entry.weights.estimate(now, age), (key, entry)))
            .collect();
        heaviest(rows, query)
            .into_iter()
            .map(|(estimate, (key, entry))| flow(key, entry, estimate))
            .collect()
    }

    /// Every port that was asked for.
    pub fn ports(&self, now: f64) -> Vec<PortRow> {
        let age = self.age(now);
        let mut senders: HashMap<(u8, u16), HashMap<IpNet, f64>> = HashMap::new();
        for (key, entry) in self.flows.iter() {
            let (v4, v6) = self.cut.source;
            let length = if key.source.0.is_ipv6() { v6 } else { v4 };
            if let Ok(source) = IpNet::new(key.source.0, length) {
                let by = senders.entry((key.protocol, key.destination.1)).or_default();
                *by.entry(source.trunc()).or_default() += entry.weights.heft(now);
            }
        }
        let mut rows: Vec<PortRow> = self
            .ports
            .iter()
            .map(|((protocol, port), entry)| PortRow {
                protocol: *protocol,
                port: *port,
                service: entry.service.to_string(),
                estimate: entry.weights.estimate(now, age),
                top_source: senders
                    .get(&(*protocol, *port))
                    .and_then(|by| by.iter().max_by(|(_, left), (_, right)| left.total_cmp(right)))
                    .map(|(source, _)| *source),
            })
            .collect();
        rows.sort_by_key(|row| (row.protocol, row.port));
        rows
    }
}

/// The heaviest rows of those that weigh anything.
fn heaviest<T>(mut rows: Vec<(Estimate, T)>, query: &Query) -> Vec<(Estimate, T)> {
    // Less than a packet in a quarter of an hour is a trace of what once was.
    rows.retain(|(estimate, _)| estimate.packets_per_second > 0.001 && query.by.of(estimate) > 0.0);
    let order =
        |left: &(Estimate, T), right: &(Estimate, T)| query.by.of(&right.0).total_cmp(&query.by.of(&left.0));
    if query.limit < rows.len() {
        rows.select_nth_unstable_by(query.limit, order);
        rows.truncate(query.limit);
    }
    rows.sort_by(order);
    rows
}

fn row(source: IpNet, estimate: Estimate, sum: &Sum<'_>, now: f64, age: f64) -> SourceUse {
    let mut services: BTreeMap<String, f64> = BTreeMap::new();
    let mut reasons: BTreeMap<String, f64> = BTreeMap::new();
    for (service, entry) in &sum.parts {
        let rate = entry.weights.estimate(now, age).packets_per_second;
        *services.entry((*service).to_owned()).or_default() += rate;
        for (reason, weights) in &entry.reasons {
            let rate = weights.estimate(now, age).packets_per_second;
            *reasons.entry(reason.name().to_owned()).or_default() += rate;
        }
    }
    let seen = sum.parts.iter().map(|(_, entry)| entry);
    SourceUse {
        source,
        estimate,
        services,
        reasons,
        first_seen: seen
            .clone()
            .map(|entry| entry.first_seen)
            .min()
            .unwrap_or_default(),
        last_seen: seen.map(|entry| entry.last_seen).max().unwrap_or_default(),
        banned: false,
        buckets: Vec::new(),
    }
}

fn flow(key: &FlowKey, entry: &FlowEntry, estimate: Estimate) -> Flow {
    Flow {
        protocol: protocol(key.protocol),
        source: key.source.0,
        source_port: key.source.1,
        destination: key.destination.0,
        destination_port: key.destination.1,
        service: entry.service.to_string(),
        estimate,
        packets: entry.packets.round() as u64,
        bytes: entry.bytes.round() as u64,
        samples: entry.samples,
        tcp_flags: flags(entry.tcp_flags),
        verdict: entry.verdict.name().to_owned(),
        reason: entry.reason.name().to_owned(),
        first_seen: entry.first_seen,
        last_seen: entry.last_seen,
    }
}

/// The name of a protocol, or its number.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// TCP flags by name (RFC 9293, 3.1), in the order of their bits.
fn flags(flags: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}
