//! From the samples to the collector that the policy in force names.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    sync::{broadcast, watch},
    time,
};

use super::datagram::{Counters, Encoder};
use crate::{controller::Handle, policy::model::Sflow, traffic::Batch};

/// Nothing waits longer than this; and so often the policy is asked for its collector.
const FLUSH: Duration = Duration::from_secs(1);
/// Counters go out so often, in seconds.
const COUNTERS: u32 = 20;

/// How the export stands, for status and metrics.
#[derive(Debug, Default)]
pub struct Stand {
    lost: AtomicU64,
    sent: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

/// That the collector cannot be reached.
#[derive(Debug)]
struct Fault {
    text: String,
    /// When a datagram failed last.
    at: Instant,
}

impl Stand {
    /// Datagrams that could not be sent, and batches of samples that came faster than they were.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Datagrams that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the last datagram could not be sent, if it could not.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map(|fault| fault.text.clone())
    }

    /// Takes the outcome of a datagram in; tells of the first failure and of its end, and nothing of those between. A datagram
    /// that nobody hears comes back as the failure of the next one, so one success proves nothing.
    fn note(&self, collector: SocketAddr, result: io::Result<()>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                if fault.as_ref().is_some_and(|fault| fault.at.elapsed() >= PROVEN) {
                    *fault = None;
                    tracing::info!(%collector, "the sFlow collector takes datagrams again");
                }
            }
            Err(error) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                if fault.is_none() {
                    tracing::warn!(%collector, %error, "the sFlow collector cannot be reached; samples for it are lost and counted");
                }
                *fault = Some(Fault {
                    text: format!("the sFlow collector {collector} cannot be reached: {error}"),
                    at: Instant::now(),
                });
            }
        }
    }

    fn clear(&self) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A collector is there again when nothing has failed for so long.
const PROVEN: Duration = Duration::from_secs(5);

/// An open way to a collector.
#[derive(Debug)]
struct Way {
    to: Sflow,
    socket: UdpSocket,
    encoder: Encoder,
}

/// Exports samples while the policy in force says so.
#[derive(Debug)]
pub struct Exporter {
    stand: Arc<Stand>,
    began: Instant,
    way: Option<Way>,
}

impl Exporter {
    /// One that tells how it stands.
    pub fn new(stand: Arc<Stand>) -> Self {
        Self {
            stand,
            began: Instant::now(),
            way: None,
        }
    }

    /// Exports until `stop` changes.
    pub async fn run(
        mut self,
        handle: Handle,
        mut batches: broadcast::Receiver<Arc<Batch>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tick = time::interval(FLUSH);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut seconds = 0_u32;
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Ok(batch) => self.export(&batch),
                    Err(broadcast::error::RecvError::Lagged(batches)) => {
                        self.stand.lost.fetch_add(batches, Ordering::Relaxed);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => {
                    let Ok(wanted) = handle.call(|engine| Ok(engine.sflow())).await else { return };
                    self.head_for(wanted).await;
                    if self.way.is_some() && seconds.is_multiple_of(COUNTERS) {
                        let counted = handle.call(|engine| engine.interface_counters()).await;
                        self.count(&counted.unwrap_or_default());
                    }
                    seconds = seconds.wrapping_add(1);
                    self.flush();
                }
                _ = stop.changed() => return self.flush(),
            }
        }
    }

    /// Opens the way to the collector that is wanted now, and closes any other.
    async fn head_for(&mut self, wanted: Option<Sflow>) {
        if self.way.as_ref().map(|way| &way.to) == wanted.as_ref() {
            return;
        }
        self.flush();
        self.way = None;
        self.stand.clear();
        let Some(to) = wanted else { return };
        match open(&to).await {
            Ok(way) => {
                tracing::info!(collector = %to.collector, "samples are exported by sFlow");
                self.way = Some(way);
            }
            // It is tried again with the next tick.
            Err(error) => self.stand.note(to.collector, Err(error)),
        }
    }

    fn uptime_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    fn export(&mut self, batch: &Batch) {
        let uptime_ms = self.uptime_ms();
        let Some(way) = &mut self.way else { return };
        for named in &batch.samples {
            if let Some(datagram) = way.encoder.add(named, named.sample.head.missed, uptime_ms) {
                way.send(&datagram, &self.stand);
            }
        }
    }

    fn count(&mut self, counted: &BTreeMap<u32, Counters>) {
        let uptime_ms = self.uptime_ms();
        let Some(way) = &mut self.way else { return };
        for counters in counted.values() {
            if let Some(datagram) = way.encoder.add_counters(counters, uptime_ms) {
                way.send(&datagram, &self.stand);
            }
        }
    }

    fn flush(&mut self) {
        let uptime_ms = self.uptime_ms();
        if let Some(way) = &mut self.way
            && let Some(datagram) = way.encoder.flush(uptime_ms)
        {
            way.send(&datagram, &self.stand);
        }
    }
}

impl Way {
    /// Sends a datagram if that is possible at once: nobody waits for a collector.
    fn send(&self, datagram: &[u8], stand: &Stand) {
        stand.note(self.to.collector, self.socket.try_send(datagram).map(drop));
    }
}

async fn open(to: &Sflow) -> io::Result<Way> {
    let any = match to.collector {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to.collector).await?;
    // Without an address of its own in the policy, the agent is who the collector sees.
    let agent = match to.agent {
        Some(agent) => agent,
        None => socket.local_addr()?.ip(),
    };
    Ok(Way {
        to: to.clone(),
        socket,
        encoder: Encoder::new(agent),
    })
}
