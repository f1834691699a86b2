//! Raw frames onto an interface, at a given rate or as fast as one CPU can.
//!
//! For tests that count exactly: leave threaded NAPI off and pin the sender to one CPU, and a veth
//! peer receives on the sender's CPU, in step with it, so that nothing is lost before the filter.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrStorage, sendmmsg, socket,
    },
};

use crate::{cpus::stay_on, netns::Netns};

/// Frames handed to the kernel in one call, at most.
const BATCH: usize = 64;
/// Below this gap to the next frame the sender spins, since a sleep would overshoot it.
const SPIN: Duration = Duration::from_micros(150);

/// How fast and how long to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Frames a second; `None` sends as fast as possible.
    pub rate: Option<u64>,
    /// Stop after so many frames.
    pub count: Option<u64>,
    /// Stop after so long.
    pub time: Duration,
    /// The CPU to stay on; the calling thread stays there afterwards.
    pub cpu: Option<usize>,
    /// Sleep between batches of up to a millisecond's frames instead of spinning: less even, but the CPU
    /// is left to others.
    pub relaxed: bool,
}

impl Plan {
    /// Exactly `count` frames, as fast as possible, giving up after 30 seconds.
    pub fn count(count: u64) -> Self {
        Self {
            rate: None,
            count: Some(count),
            time: Duration::from_secs(30),
            cpu: None,
            relaxed: false,
        }
    }

    /// `rate` frames a second for `time`.
    pub fn rate(rate: u64, time: Duration) -> Self {
        Self {
            rate: Some(rate),
            count: None,
            time,
            cpu: None,
            relaxed: false,
        }
    }

    /// Holds the frames to a rate, so that a fast machine does not send them all within one of the kernel's
    /// ten-millisecond windows.
    #[must_use]
    pub fn at(mut self, rate: u64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sends in batches a millisecond apart.
    #[must_use]
    pub fn relaxed(mut self) -> Self {
        self.relaxed = true;
        self
    }

    /// Pins the sender to a CPU.
    #[must_use]
    pub fn on_cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }
}

/// What a sender did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Frames that the interface took.
    pub frames: u64,
    /// Frames that it refused because its queue was full; each was offered once.
    pub refused: u64,
    /// From the first frame to the last.
    pub took: Duration,
}

/// A socket that sends whole frames on one interface, past its queueing discipline.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens a sender on `dev` inside `netns`. It stays usable from any thread.
    pub fn open(netns: &Netns, dev: &str) -> Result<Self> {
        let index = netns.ifindex(dev)?;
        let socket = netns.run(|| packet_socket(index))?.with_context(|| {
            format!(
                "cannot open a packet socket on {dev} in {}; it takes CAP_NET_RAW",
                netns.name()
            )
        })?;
        Ok(Self { socket })
    }

    /// Sends `frames` over and over, in order, until the plan's count or time is reached or `stop`
    /// says so (it is asked about once a millisecond).
    pub fn send(&self, frames: &[Vec<u8>], plan: &Plan, stop: impl Fn() -> bool) -> Result<Sent> {
        ensure!(!frames.is_empty(), "there is nothing to send");
        if let Some(cpu) = plan.cpu {
            stay_on(cpu)?;
        }
        let limit = plan.count.unwrap_or(u64::MAX);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut batch: Vec<[IoSlice<'_>; 1]> = Vec::with_capacity(BATCH);
        let (mut offered, mut refused) = (0_u64, 0_u64);
        let start = Instant::now();
        let mut asked = start;
        loop {
            let now = Instant::now();
            let elapsed = now - start;
            if offered >= limit || elapsed >= plan.time {
                break;
            }
            if now - asked >= Duration::from_millis(1) {
                asked = now;
                if stop() {
                    break;
                }
            }
            let due = match plan.rate {
                None => limit,
                Some(rate) => due(rate, elapsed).min(limit),
            };
            if due <= offered {
                // A rate of zero never comes due; the wait is cut short so that `stop` is heard.
                let next = plan
                    .rate
                    .map_or(SPIN, |rate| due_at(rate, offered + 1).saturating_sub(elapsed));
                let nap = Duration::from_millis(1);
                let idle = if plan.relaxed {
                    nap
                } else {
                    next.saturating_sub(SPIN).min(nap)
                };
                if !idle.is_zero() {
                    thread::sleep(idle);
                }
                continue;
            }
            let size = (due - offered).min(BATCH as u64);
            batch.clear();
            batch.extend(
                (offered..offered + size)
                    .map(|n| [IoSlice::new(&frames[(n % frames.len() as u64) as usize])]),
            );
            let (taken, full) = self.send_batch(&mut headers, &batch)?;
            offered += taken + u64::from(full);
            refused += u64::from(full);
        }
        Ok(Sent {
            frames: offered - refused,
            refused,
            took: start.elapsed(),
        })
    }

    /// Sends a batch: how many went, and whether the one after them was refused.
    fn send_batch(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        batch: &[[IoSlice<'_>; 1]],
    ) -> Result<(u64, bool)> {
        const NOWHERE: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
        let fd = self.socket.as_raw_fd();
        match sendmmsg(
            fd,
            headers,
            batch,
            NOWHERE.get(..batch.len()).unwrap_or(&NOWHERE),
            [],
            MsgFlags::empty(),
        ) {
            Ok(results) => Ok((results.count() as u64, false)),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok((0, true)),
            Err(Errno::EINTR) => Ok((0, false)),
            Err(error) => Err(error).context("the interface refuses frames; is it up?"),
        }
    }
}

/// Frames due after `elapsed` at `rate` a second; the first is due at once.
fn due(rate: u64, elapsed: Duration) -> u64 {
    if rate == 0 {
        return 0;
    }
    let done = u128::from(rate) * elapsed.as_nanos() / 1_000_000_000;
    u64::try_from(done).unwrap_or(u64::MAX).saturating_add(1)
}

/// When the `n`-th frame (counted from one) is due.
fn due_at(rate: u64, n: u64) -> Duration {
    if rate == 0 {
        return Duration::MAX;
    }
    let nanos = u128::from(n.saturating_sub(1)) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn packet_socket(index: u32) -> Result<OwnedFd> {
    // Protocol 0: the socket sends and never receives, so it costs the receive path nothing.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole `sockaddr_ll` that lives across the call, and its size is passed.
    let outcome = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(outcome)?;
    Ok(socket)
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is an `int` that lives across the call, and its size is passed.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(outcome)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::{frame::Frame, link::veth, skip};

    #[test]
    fn frames_come_due_evenly_from_the_start() {
        assert_eq!(due(1000, Duration::ZERO), 1);
        assert_eq!(due(1000, Duration::from_micros(999)), 1);
        assert_eq!(due(1000, Duration::from_millis(1)), 2);
        assert_eq!(due(500_000, Duration::from_secs(10)), 5_000_001);
        for rate in [1, 3, 1000, 500_000] {
            for n in [1, 2, 17, 1_000_001] {
                let at = due_at(rate, n) + Duration::from_nanos(1);
                assert_eq!(due(rate, at), n, "rate {rate}, frame {n}");
            }
        }
        assert_eq!(due(0, Duration::from_secs(9)), 0);
    }

    /// The kernel's own UDP takes only frames whose lengths and checksums are right.
    #[test]
    fn the_kernel_accepts_what_the_builder_builds() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&b, "eth0"))?;
        b.address("eth0", "192.0.2.2/24")?;
        b.address("eth0", "2001:db8::2/64")?;
        b.route("default", "192.0.2.1".parse()?)?;
        let sender = Sender::open(&a, "eth0")?;
        let (from, to) = (a.mac("eth0")?, b.mac("eth0")?);
        let frame = |frame: Frame| vec![frame.macs(from, to).build()];
        for (bind, source, target) in [
            ("0.0.0.0:9", "192.0.2.1", "192.0.2.2"),
            ("[::]:9", "2001:db8::1", "2001:db8::2"),
        ] {
            let socket = b.run(|| UdpSocket::bind(bind))??;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let plain = Frame::new().ip(source, target);
            let chained = if source.contains(':') {
                plain.clone().destination_options(2)
            } else {
                plain.clone().options(&[1])
            };
            for (text, headers) in [("plain", plain), ("with options", chained)] {
                let sent = sender.send(
                    &frame(headers.udp(7, 9).payload(text.as_bytes())),
                    &Plan::count(1),
                    || false,
                )?;
                assert_eq!((sent.frames, sent.refused), (1, 0));
                let mut heard = [0; 64];
                let (len, peer) = socket
                    .recv_from(&mut heard)
                    .with_context(|| format!("{text} from {source}"))?;
                assert_eq!(
                    (&heard[..len], peer.ip().to_string().as_str(), peer.port()),
                    (text.as_bytes(), source, 7)
                );
            }
        }
        Ok(())
    }

    #[test]
    fn a_count_is_sent_exactly_and_arrives_whole() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&b, "eth0"))?;
        let before = b.stats("eth0")?.rx_packets;
        let frames: Vec<_> = scattered_frames();
        let sender = Sender::open(&a, "eth0")?;
        let sent = sender.send(&frames, &Plan::count(20_000).on_cpu(0), || false)?;
        assert_eq!(sent.frames, 20_000);
        let arrived = b.stats("eth0")?.rx_packets - before;
        // The kernel's own chatter (multicast listener reports) may add a few.
        assert!((20_000..20_010).contains(&arrived), "{arrived} arrived");
        Ok(())
    }

    #[test]
    fn a_rate_is_kept_and_a_stop_is_heard() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&b, "eth0"))?;
        let sender = Sender::open(&a, "eth0")?;
        let frames = scattered_frames();
        let sent = sender.send(&frames, &Plan::rate(10_000, Duration::from_millis(500)), || false)?;
        assert!(
            (4_900..=5_001).contains(&(sent.frames + sent.refused)),
            "{sent:?}"
        );
        let sent = sender.send(&frames, &Plan::rate(10, Duration::from_mins(10)), || true)?;
        assert!(sent.frames <= 1, "{sent:?}");
        Ok(())
    }

    fn scattered_frames() -> Vec<Vec<u8>> {
        crate::frame::scattered_sources(7, 100)
            .into_iter()
            .map(|source| {
                Frame::new()
                    .ips(source.into(), [192, 0, 2, 2].into())
                    .udp(1, 2)
                    .payload(&[0; 18])
                    .build()
            })
            .collect()
    }
}
