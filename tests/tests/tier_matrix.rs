//! Every tier with every kind of limit, for both families: each admits its burst, refuses the rest under its own
//! reason and is charged by those that share it.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use weir_tests::{
    daemon::Daemon,
    frame::{ACK, Frame, SYN, TPID_8021AD, TPID_8021Q},
    site::{Site, counts, reason},
};

/// What a bucket of every row holds, in packets of [`SIZE`] bytes or in connections.
const BURST: u64 = 24;
/// The bytes of every frame.
const SIZE: u64 = 1_000;
/// The times that a row is offered its burst.
const OFFERED: u64 = 10;

const TIERS: [&str; 4] = ["source", "network", "class", "total"];
const KINDS: [&str; 3] = ["packets", "bytes", "connections"];

/// A row: who shares a bucket, what it counts, and the family.
#[derive(Clone, Copy, Debug)]
struct Row {
    tier: &'static str,
    kind: &'static str,
    v6: bool,
    port: u16,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for tier in TIERS {
        for kind in KINDS {
            for v6 in [false, true] {
                let port = 1000 + rows.len() as u16;
                rows.push(Row { tier, kind, v6, port });
            }
        }
    }
    rows
}

impl Row {
    fn service(self) -> String {
        format!(
            "{}-{}-{}",
            self.tier,
            self.kind,
            if self.v6 { "v6" } else { "v4" }
        )
    }

    fn reason(self) -> String {
        format!("{}_{}", self.tier, self.kind)
    }

    /// A service of its own with the one limit. A rate of one packet a second is too slow to matter.
    fn policy(self) -> String {
        let section = match self.tier {
            "source" => "[service.per_source]",
            "network" => "[service.per_network]",
            "class" => "[[service.class]]\nname = \"listed\"\nlists = [\"listed\"]\n[service.class.total]",
            _ => "[service.total]",
        };
        let (rate, burst) = if self.kind == "bytes" {
            (SIZE, BURST * SIZE)
        } else {
            (1, BURST)
        };
        format!(
            "[[service]]\nname = \"{}\"\nprotocol = \"tcp\"\nports = [{}]\n{section}\n{} = {{ rate = {rate}, burst = {burst} }}\n",
            self.service(),
            self.port,
            self.kind,
        )
    }

    /// The sources that share the row's bucket: addresses of one /64 (one address in IPv4), of one network, of one
    /// list from many networks, or from anywhere.
    fn sharing(self) -> Vec<String> {
        (1..=6)
            .map(|n| match (self.tier, self.v6) {
                ("source", false) => "192.0.2.7".to_owned(),
                ("source", true) => format!("2001:db8:7:1::{n:x}"),
                ("network", false) => format!("192.0.2.{n}"),
                ("network", true) => format!("2001:db8:7:{n:x}::1"),
                ("class", false) => format!("10.64.{n}.1"),
                ("class", true) => format!("2001:db8:64{n:x}0::1"),
                (_, false) => format!("10.{n}.0.1"),
                (_, true) => format!("2001:db8:{n:x}::1"),
            })
            .collect()
    }

    /// One that is just outside of those: the neighbouring address, /64, network, or one in no list. Nothing is outside
    /// of a total.
    fn outside(self) -> Option<&'static str> {
        match (self.tier, self.v6) {
            ("source", false) => Some("192.0.2.8"),
            ("source", true) => Some("2001:db8:7:2::1"),
            ("network", false) => Some("192.0.3.1"),
            ("network", true) => Some("2001:db8:8:1::1"),
            ("class", false) => Some("10.128.0.1"),
            ("class", true) => Some("2001:db9::1"),
            _ => None,
        }
    }

    /// The frames of a source: plain, in one tag and in two, all of one length, so that framing neither hides a source
    /// nor changes what it costs.
    fn frames(self, source: &str) -> Vec<Vec<u8>> {
        let flags = if self.kind == "connections" { SYN } else { ACK };
        let target = if self.v6 { "fd77::2" } else { "10.77.0.2" };
        [
            Frame::new(),
            Frame::new().vlan(TPID_8021Q, 100),
            Frame::new().vlan(TPID_8021AD, 5).vlan(TPID_8021Q, 100),
        ]
        .into_iter()
        .map(|frame| {
            let headers = frame.build().len() + if self.v6 { 40 } else { 20 } + 20;
            frame
                .ip(source, target)
                .tcp(4000, self.port, flags)
                .payload(&vec![0; (SIZE as usize).saturating_sub(headers)])
                .build()
        })
        .collect()
    }

    fn check(self, site: &Site, weir: &Daemon<'_>) -> Result<()> {
        let service = self.service();
        let frames: Vec<_> = self
            .sharing()
            .iter()
            .flat_map(|source| self.frames(source))
            .collect();
        ensure!(
            frames.iter().all(|frame| frame.len() as u64 == SIZE),
            "the test's own frames differ in length"
        );
        site.send(&frames, BURST * OFFERED)?;
        let metrics = weir.metrics()?;
        let all = counts(&metrics, &service, &[]);
        ensure!(
            (BURST..=BURST + 2).contains(&all.pass) && all.pass + all.drop == BURST * OFFERED,
            "{service}: {all:?}"
        );
        let refused = reason(&metrics, &service, &self.reason());
        ensure!(
            refused == all.drop,
            "{service}: {refused} refused as {}, {all:?}: {:?}",
            self.reason(),
            metrics.by("weir_packets_total", "reason", &[("service", &service)])
        );
        let bytes = metrics.sum("weir_bytes_total", &[("service", &service)]) as u64;
        ensure!(
            bytes == SIZE * BURST * OFFERED,
            "{service}: {bytes} bytes counted"
        );
        if let Some(source) = self.outside() {
            let frames = self.frames(source);
            site.send(&frames, BURST)?;
            let after = counts(&weir.metrics()?, &service, &[]).since(all);
            ensure!(
                after.pass == BURST && after.drop == 0,
                "{service}: {source} shares a bucket that is not its own: {after:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn every_tier_with_every_kind_for_both_families() -> Result<()> {
    let site = Site::new()?;
    let mut text =
        String::from("version = 1\n[lists.listed]\nprefixes = [\"10.64.0.0/10\", \"2001:db8:6400::/38\"]\n");
    for row in rows() {
        write!(text, "{}", row.policy())?;
    }
    let weir = site.weir(&text)?;
    for row in rows() {
        row.check(&site, &weir)?;
    }
    Ok(())
}

/// The bucket that refuses is not charged, nor are those after it; the ones before it are, and stay so.
#[test]
fn only_what_comes_before_a_refusal_is_charged() -> Result<()> {
    let site = Site::new()?;
    let limit = "packets = { rate = 1, burst = ";
    let weir = site.weir(&format!(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n[service.per_source]\n{limit}60 }}\n[service.per_network]\nipv4_prefix = 24\n{limit}40 }}\n[service.total]\n{limit}100 }}\n"
    ))?;
    let from = |source: &str| vec![Frame::new().ip(source, "10.77.0.2").tcp(4000, 80, ACK).build()];
    // Sixty leave the source, its network admits forty of them, and only those reach the total.
    site.send(&from("192.0.2.1"), 200)?;
    let metrics = weir.metrics()?;
    let first = counts(&metrics, "web", &[]);
    let network = reason(&metrics, "web", "network_packets");
    let source = reason(&metrics, "web", "source_packets");
    ensure!(
        (40..=42).contains(&first.pass) && (18..=22).contains(&network) && source + network == first.drop,
        "{first:?}, {source} by the source's, {network} by the network's"
    );
    // A neighbour meets the empty network and takes nothing from the total either.
    site.send(&from("192.0.2.2"), 50)?;
    // Sixty are left there for others.
    let before = counts(&weir.metrics()?, "web", &[]);
    for source in ["198.51.100.1", "203.0.113.1"] {
        site.send(&from(source), 40)?;
    }
    let metrics = weir.metrics()?;
    let after = counts(&metrics, "web", &[]).since(before);
    ensure!(
        (57..=64).contains(&after.pass) && reason(&metrics, "web", "total_packets") == after.drop,
        "{after:?}: {:?}",
        metrics.by("weir_packets_total", "reason", &[])
    );
    Ok(())
}

/// First fragments have ports; the rest of the packet is judged by a service that names none, and charges the same
/// source there.
#[test]
fn later_fragments_have_a_limit_where_a_service_names_no_ports() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 10 }\n[[service]]\nname = \"rest\"\nprotocol = \"udp\"\n[service.per_source]\npackets = { rate = 1, burst = 15 }\n",
    )?;
    for (source, target, ends) in [
        ("192.0.2.1", "10.77.0.2", "IPv4"),
        ("2001:db8:7::1", "fd77::2", "IPv6"),
    ] {
        let ip = || Frame::new().ip(source, target);
        let first = ip().fragment(0, true).udp(4000, 80).payload(&[0; 64]).build();
        let later = ip().fragment(1480, false).protocol(17).payload(&[0; 64]).build();
        let before = weir.metrics()?;
        site.send(&[first, later], 100)?;
        let after = weir.metrics()?;
        for (service, burst) in [("web", 10), ("rest", 15)] {
            let here = counts(&after, service, &[]).since(counts(&before, service, &[]));
            ensure!(
                (burst..=burst + 2).contains(&here.pass) && here.pass + here.drop == 50,
                "{ends} in {service}: {here:?}"
            );
        }
    }
    Ok(())
}
