//! The smallest place to test in: a client and a node, joined by a veth pair, and what the node's Weir counted.

use std::{thread, time::Duration};

use anyhow::Result;

use crate::{
    command::patience,
    daemon::Daemon,
    frame::Frame,
    link,
    metrics::Metrics,
    netns::Netns,
    sender::{Plan, Sender, Sent},
};

/// A client and a node; both call their interface `eth0`.
#[derive(Debug)]
pub struct Site {
    /// Where traffic comes from.
    pub client: Netns,
    /// Where Weir runs.
    pub node: Netns,
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub pass: u64,
    /// Dropped.
    pub drop: u64,
    /// Passed, but would be dropped.
    pub would: u64,
}

impl Site {
    /// Makes both, with addresses on each end. The receiving end has no threaded NAPI, so that nothing is lost before
    /// Weir while the sender is on the same CPU.
    pub fn new() -> Result<Self> {
        crate::skip::require_root();
        let site = Self {
            client: Netns::create("client")?,
            node: Netns::create("node")?,
        };
        link::veth((&site.client, "eth0"), (&site.node, "eth0"))?;
        for (netns, last) in [(&site.client, 1), (&site.node, 2)] {
            netns.address("eth0", &format!("10.77.0.{last}/24"))?;
            netns.address("eth0", &format!("fd77::{last}/64"))?;
            netns.up("lo")?;
        }
        Ok(site)
    }

    /// Starts Weir on the node.
    pub fn weir(&self, policy: &str) -> Result<Daemon<'_>> {
        Daemon::run(&self.node, &["eth0"], policy)
    }

    /// Sends so many frames from the client, in turns, as fast as possible.
    pub fn send(&self, frames: &[Vec<u8>], count: u64) -> Result<Sent> {
        self.send_by(frames, &Plan::count(count).on_cpu(0))
    }

    /// Sends by a plan, and gives the node a moment to count the last of it.
    pub fn send_by(&self, frames: &[Vec<u8>], plan: &Plan) -> Result<Sent> {
        let sent = Sender::open(&self.client, "eth0")?.send(frames, plan, || false)?;
        thread::sleep(patience(Duration::from_millis(30)));
        Ok(sent)
    }
}

/// A UDP datagram from a source to port 80 of the node, of so many bytes of frame.
pub fn datagram(source: &str, bytes: usize) -> Vec<u8> {
    let target = if source.contains(':') {
        "fd77::2"
    } else {
        "10.77.0.2"
    };
    let headers = if source.contains(':') { 62 } else { 42 };
    Frame::new()
        .ip(source, target)
        .udp(4000, 80)
        .payload(&vec![0; bytes.saturating_sub(headers)])
        .build()
}

/// What a service's packets came to, narrowed by more labels.
pub fn counts(metrics: &Metrics, service: &str, labels: &[(&str, &str)]) -> Counts {
    let sum = |verdict: &str| {
        let mut all = vec![("service", service), ("verdict", verdict)];
        all.extend_from_slice(labels);
        metrics.sum("weir_packets_total", &all) as u64
    };
    Counts {
        pass: sum("pass"),
        drop: sum("drop"),
        would: sum("would_drop"),
    }
}

/// Packets of a service that have a reason, whatever became of them.
pub fn reason(metrics: &Metrics, service: &str, reason: &str) -> u64 {
    metrics.sum("weir_packets_total", &[("service", service), ("reason", reason)]) as u64
}

impl Counts {
    /// What was counted after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            pass: self.pass - before.pass,
            drop: self.drop - before.drop,
            would: self.would - before.would,
        }
    }
}
