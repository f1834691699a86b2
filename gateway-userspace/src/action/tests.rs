//! Plans over made findings and stated truths, and the book of what is being done.

mod bans;
mod books;
mod tightening;

use gateway_detect::{
    Carrier, Finding, Kind, Verdict,
    normal::{Load, Per, Unit},
};
use ipnet::IpNet;

use super::*;
use crate::policy::model::{OnAttack, Service, Source};

/// What is true of normal traffic.
#[derive(Clone, Debug)]
struct Truth {
    /// The share of sources above each rate of packets, per source.
    packets: Vec<(f64, f64)>,
    /// The same of connections.
    connections: Vec<(f64, f64)>,
    /// Normal sources, all alike.
    sources: Vec<IpNet>,
    peak: Load,
    known: bool,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            // Nobody sends 1,000 packets in a second, one in a thousand sends 500, one in fifty 200.
            packets: vec![(1_000.0, 0.0), (500.0, 0.001), (200.0, 0.02), (0.0, 1.0)],
            connections: vec![(50.0, 0.0), (10.0, 0.005), (0.0, 1.0)],
            sources: (0..1_000_u32)
                .map(|n| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + n * 64).into(), 32).unwrap())
                .collect(),
            peak: Load {
                packets: 20_000.0,
                bytes: 8e6,
                connections: 500.0,
            },
            known: true,
        }
    }
}

impl Remembered for Truth {
    fn hit(&self, per: Per, unit: Unit, rate: f64) -> Option<f64> {
        let steps = match unit {
            Unit::Connections => &self.connections,
            _ => &self.packets,
        };
        // A network sends as much as four sources.
        let rate = if per == Per::Network { rate / 4.0 } else { rate };
        let share = steps.iter().find(|(least, _)| rate >= *least);
        self.known.then(|| share.map_or(1.0, |(_, share)| *share))
    }

    fn within(&self, prefixes: &[IpNet]) -> Option<f64> {
        let hit = |source: &&IpNet| {
            prefixes
                .iter()
                .any(|prefix| prefix.contains(*source) || source.contains(prefix))
        };
        let hit = self.sources.iter().filter(hit).count();
        self.known.then(|| hit as f64 / self.sources.len() as f64)
    }

    fn peak(&self) -> Load {
        self.peak
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// An attack of a kind, with carriers and what each sends.
fn attack(kind: Kind, carriers: &[(&str, f64)]) -> Finding {
    let all: f64 = carriers.iter().map(|(_, rate)| rate).sum();
    Finding {
        verdict: Verdict::Attack(kind),
        since: 1.8e9,
        at: 1.8e9,
        packets_per_second: all + 10_000.0,
        expected_packets_per_second: 10_000.0,
        foreign_packets_per_second: all,
        carriers: carriers
            .iter()
            .map(|(prefix, rate)| Carrier {
                prefix: net(prefix),
                packets_per_second: *rate,
                share: rate / all,
            })
            .collect(),
        ..Finding::default()
    }
}

fn load(finding: &Finding) -> Load {
    Load {
        packets: finding.packets_per_second,
        bytes: finding.packets_per_second * 400.0,
        connections: 300.0,
    }
}

/// The service of a policy, with its settings.
fn service(section: &str) -> Service {
    let text = format!(
        "version = 1\n[lists.mobile]\nprefixes = [\"10.0.128.0/17\"]\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n{section}\n"
    );
    let parsed = crate::policy::parse(&text, std::path::Path::new("/p.toml"));
    parsed
        .unwrap_or_else(|error| panic!("{error}"))
        .policy
        .services
        .remove(0)
}
