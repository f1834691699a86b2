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

    /// Takes the outcome of a try in; tells of the first failure and of its end, and nothing of those between. A datagram
    /// that nobody hears comes back as the failure of the next one, so one success proves nothing.
    fn note(&self, collector: SocketAddr, result: io::Result<()>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                if fault.as_ref().is_some_and(|fault| fault.at.elapsed() >= PROVEN) {
                    *fault = None;
                    tracing::info!(%collector, "the sFlow collector takes datagrams again");
                }
            }
            Err(error) => {
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

/// The way to a collector.
#[derive(Debug)]
struct Way {
    to: Sflow,
    /// Nothing while no route leads there; it is tried again with every tick.
    socket: Option<UdpSocket>,
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

    /// Heads for the collector that is wanted now, and for no other any more.
    async fn head_for(&mut self, wanted: Option<Sflow>) {
        if self.way.as_ref().map(|way| &way.to) != wanted.as_ref() {
            self.flush();
            self.stand.clear();
            self.way = wanted.map(Way::new);
        }
        if let Some(way) = &mut self.way
            && way.socket.is_none()
        {
            match way.open().await {
                Ok(()) => tracing::info!(collector = %way.to.collector, "samples are exported by sFlow"),
                Err(error) => self.stand.note(way.to.collector, Err(error)),
            }
        }
    }

    fn uptime_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    fn export(&mut self, batch: &Batch) {
        let uptime_ms = self.uptime_ms();
        let Some(way) = &mut self.way else { return };
        for named in &batch.samples {
            if let Some(datagram) = way.encoder.add(named, uptime_ms) {
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
    fn new(to: Sflow) -> Self {
        // Until a socket says it, an agent without an address of its own has none; no datagram leaves before.
        let agent = to.agent.unwrap_or(any(&to));
        Self {
            to,
            socket: None,
            encoder: Encoder::new(agent),
        }
    }

    async fn open(&mut self) -> io::Result<()> {
        let socket = UdpSocket::bind((any(&self.to), 0)).await?;
        socket.connect(self.to.collector).await?;
        // Until the reactor has looked at a new socket once, it is taken for one that cannot send, and the first datagram would be lost.
        socket.writable().await?;
        // Without an address of its own in the policy, the agent is who the collector sees.
        if self.to.agent.is_none() {
            self.encoder.set_agent(socket.local_addr()?.ip());
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Sends a datagram if that is possible at once: nobody waits for a collector.
    fn send(&self, datagram: &[u8], stand: &Stand) {
        let sent = self.socket.as_ref().map(|socket| socket.try_send(datagram));
        let counter = match sent {
            Some(Ok(_)) => &stand.sent,
            _ => &stand.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // That there is no way was told when it was looked for.
        if let Some(sent) = sent {
            stand.note(self.to.collector, sent.map(drop));
        }
    }
}

/// The address that stands for all of the collector's family.
fn any(to: &Sflow) -> IpAddr {
    match to.collector {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use gateway_core::verdict::Reason;

    use super::*;
    use crate::{export::datagram, traffic::Batch};

    /// What is told while this lives, on the thread that made it.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Told {
        fn listen(&self) -> tracing::subscriber::DefaultGuard {
            let told = self.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || told.clone())
                .finish();
            tracing::subscriber::set_default(subscriber)
        }

        fn times(&self, what: &str) -> usize {
            String::from_utf8_lossy(&self.0.lock().unwrap())
                .matches(what)
                .count()
        }
    }

    /// Nobody may connect to the broadcast address without asking for it first: as no route, whatever routes there are.
    fn unreachable() -> Sflow {
        Sflow {
            collector: "255.255.255.255:6343".parse().unwrap(),
            agent: None,
        }
    }

    #[tokio::test]
    async fn a_collector_without_a_way_is_told_once() {
        let told = Told::default();
        let _guard = told.listen();
        let stand = Arc::new(Stand::default());
        let mut exporter = Exporter::new(Arc::clone(&stand));
        for _ in 0..5 {
            exporter.head_for(Some(unreachable())).await;
        }
        assert_eq!(told.times("cannot be reached"), 1);
        assert!(stand.fault().is_some());
        assert_eq!(stand.lost(), 0, "there was nothing to lose");

        exporter.export(&Batch {
            samples: vec![datagram::tests::named(3, &[7; 60], Reason::Pass)],
        });
        exporter.flush();
        assert_eq!((stand.lost(), stand.sent()), (1, 0));
        exporter.head_for(None).await;
        assert_eq!(stand.fault(), None, "nobody wants it any more");
    }

    #[tokio::test]
    async fn a_way_is_taken_as_soon_as_there_is_one() {
        // What nobody listens to when it is told first, tracing does not tell the other test either.
        let _guard = Told::default().listen();
        let collector = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = Sflow {
            collector: collector.local_addr().unwrap(),
            agent: None,
        };
        let stand = Arc::new(Stand::default());
        let mut exporter = Exporter::new(Arc::clone(&stand));
        exporter.head_for(Some(unreachable())).await;
        exporter.head_for(Some(to)).await;
        assert_eq!(stand.fault(), None);
        exporter.count(&BTreeMap::from([(3, Counters::default())]));
        exporter.flush();
        assert_eq!((stand.lost(), stand.sent()), (0, 1), "the first one leaves");
        let mut buffer = [0; 2_000];
        let heard = time::timeout(Duration::from_secs(10), collector.recv(&mut buffer));
        let length = heard.await.unwrap().unwrap();
        // The agent is who the collector sees.
        assert_eq!(buffer[4..12], [0, 0, 0, 1, 127, 0, 0, 1], "{length} bytes");
    }
}
