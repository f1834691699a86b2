//! Datagrams of sFlow version 5 (<https://sflow.org/sflow_version_5.txt>), in XDR (RFC 4506): all numbers are big-endian and
//! everything is a multiple of four bytes.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_core::verdict::{Reason, Verdict};

use crate::traffic::{Missed, Named};

/// The most bytes of a datagram: it fits the MTU of Ethernet behind IPv6 and UDP.
pub const MAX_DATAGRAM: usize = 1_400;

const VERSION: u32 = 5;
/// `flow_sample` and `counters_sample`, both of enterprise 0.
const FLOW_SAMPLE: u32 = 1;
const COUNTERS_SAMPLE: u32 = 2;
/// `sampled_header` among flow records, `if_counters` among counter records.
const SAMPLED_HEADER: u32 = 1;
const IF_COUNTERS: u32 = 1;
/// `ETHERNET-ISO88023` among header protocols.
const ETHERNET: u32 = 1;
/// The frame check sequence, which counts in the frame's length and which no program here ever sees.
const FCS: u32 = 4;
/// Format 1 of an output interface: the packet was discarded, and the rest says why.
const DISCARDED: u32 = 1 << 30;
/// Reasons of a discard beyond ICMP's codes.
const UNKNOWN: u32 = 256;
const ACL: u32 = 258;
const RATE_LIMITING: u32 = 261;
/// A counter that is not known.
const NOT_KNOWN: u32 = u32::MAX;

/// What one interface received, as Weir counted it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// The interface's index.
    pub ifindex: u32,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Packets that passed.
    pub passed: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Makes datagrams of samples; numbers them as the specification asks.
#[derive(Debug)]
pub struct Encoder {
    agent: IpAddr,
    datagrams: u32,
    sources: BTreeMap<u32, Source>,
    missed: Missed,
    samples: Vec<u8>,
    count: u32,
}

/// What is numbered for each source of data (an interface).
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    flow_samples: u32,
    counter_samples: u32,
    pool: u32,
    drops: u32,
}

impl Encoder {
    /// One that speaks for an agent.
    pub fn new(agent: IpAddr) -> Self {
        Self {
            agent,
            datagrams: 0,
            sources: BTreeMap::new(),
            missed: Missed::default(),
            samples: Vec::with_capacity(MAX_DATAGRAM),
            count: 0,
        }
    }

    /// From now on it speaks for this agent.
    pub fn set_agent(&mut self, agent: IpAddr) {
        self.agent = agent;
    }

    /// Adds a sample; the datagram that had no room for it any more, if there is one.
    pub fn add(&mut self, named: &Named, uptime_ms: u32) -> Option<Vec<u8>> {
        let head = &named.sample.head;
        let gone = self.missed.since(head.missed);
        let source = self.sources.entry(named.ifindex).or_default();
        source.flow_samples = source.flow_samples.wrapping_add(1);
        // The kernel counts what was missed for all interfaces together; it goes to the one whose sample tells of it, so that
        // the sums over all are right. The pool counts packets, the drops samples.
        let packets = u64::from(head.one_in).wrapping_add(gone);
        source.pool = source.pool.wrapping_add(packets as u32);
        let drops = gone.div_ceil(u64::from(head.one_in.max(1)));
        source.drops = source.drops.wrapping_add(drops as u32);
        let mut body = Vec::with_capacity(200);
        for word in [
            source.flow_samples,
            // Type 0, an interface, in the highest byte.
            named.ifindex & 0x00ff_ffff,
            head.one_in,
            source.pool,
            source.drops,
            named.ifindex & (DISCARDED - 1),
            output(named.verdict, named.reason),
            1,
            SAMPLED_HEADER,
        ] {
            put(&mut body, word);
        }
        let bytes = &named.sample.bytes;
        put(&mut body, 16 + padded(bytes.len()) as u32);
        put(&mut body, ETHERNET);
        put(&mut body, head.length + FCS);
        put(&mut body, FCS);
        put(&mut body, bytes.len() as u32);
        body.extend_from_slice(bytes);
        body.resize(body.len() + padded(bytes.len()) - bytes.len(), 0);
        self.push(FLOW_SAMPLE, &body, uptime_ms)
    }

    /// Adds an interface's counters, likewise.
    pub fn add_counters(&mut self, counters: &Counters, uptime_ms: u32) -> Option<Vec<u8>> {
        let source = self.sources.entry(counters.ifindex).or_default();
        source.counter_samples = source.counter_samples.wrapping_add(1);
        let mut body = Vec::with_capacity(108);
        put(&mut body, source.counter_samples);
        put(&mut body, counters.ifindex & 0x00ff_ffff);
        put(&mut body, 1);
        put(&mut body, IF_COUNTERS);
        put(&mut body, 88);
        // ifType 6 is Ethernet (RFC 1213); speed and direction are not known, both states are up.
        for word in [counters.ifindex, 6, 0, 0, 0, 3] {
            put(&mut body, word);
        }
        put_long(&mut body, counters.bytes);
        let packets = [
            counters.passed as u32,
            NOT_KNOWN,
            NOT_KNOWN,
            counters.dropped as u32,
        ];
        for word in packets.into_iter().chain([NOT_KNOWN; 2]) {
            put(&mut body, word);
        }
        put_long(&mut body, u64::MAX);
        for word in [NOT_KNOWN; 5] {
            put(&mut body, word);
        }
        // Whether it is promiscuous: not known, which here is 0.
        put(&mut body, 0);
        self.push(COUNTERS_SAMPLE, &body, uptime_ms)
    }

    /// What has been added since the last datagram, if anything.
    pub fn flush(&mut self, uptime_ms: u32) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        self.datagrams = self.datagrams.wrapping_add(1);
        let mut datagram = Vec::with_capacity(self.header() + self.samples.len());
        put(&mut datagram, VERSION);
        match self.agent {
            IpAddr::V4(address) => {
                put(&mut datagram, 1);
                datagram.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                put(&mut datagram, 2);
                datagram.extend_from_slice(&address.octets());
            }
        }
        // There is one agent process.
        for word in [0, self.datagrams, uptime_ms, self.count] {
            put(&mut datagram, word);
        }
        datagram.append(&mut self.samples);
        self.count = 0;
        Some(datagram)
    }

    fn push(&mut self, format: u32, body: &[u8], uptime_ms: u32) -> Option<Vec<u8>> {
        let full = self.header() + self.samples.len() + 8 + body.len() > MAX_DATAGRAM;
        let datagram = if full { self.flush(uptime_ms) } else { None };
        put(&mut self.samples, format);
        put(&mut self.samples, body.len() as u32);
        self.samples.extend_from_slice(body);
        self.count += 1;
        datagram
    }

    fn header(&self) -> usize {
        if self.agent.is_ipv4() { 28 } else { 40 }
    }
}

/// Where a packet went: not known, or nowhere and why.
fn output(verdict: Verdict, reason: Reason) -> u32 {
    if verdict != Verdict::Drop {
        return 0;
    }
    DISCARDED
        | match reason {
            Reason::Ban | Reason::List | Reason::DefaultDrop => ACL,
            Reason::Malformed => UNKNOWN,
            _ => RATE_LIMITING,
        }
}

fn put(bytes: &mut Vec<u8>, word: u32) {
    bytes.extend_from_slice(&word.to_be_bytes());
}

fn put_long(bytes: &mut Vec<u8>, long: u64) {
    bytes.extend_from_slice(&long.to_be_bytes());
}

const fn padded(length: usize) -> usize {
    length.div_ceil(4) * 4
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use gateway_core::sample::Sample as Head;
    use jiff::Timestamp;

    use super::*;
    use crate::kernel::Sample;

    pub(crate) fn named(ifindex: u32, bytes: &[u8], reason: Reason) -> Named {
        Named {
            sample: Sample {
                head: Head {
                    one_in: 1_000,
                    length: 1_514,
                    captured: bytes.len() as u8,
                    ..Head::default()
                },
                bytes: bytes.to_vec(),
            },
            at: Timestamp::UNIX_EPOCH,
            verdict: if reason.drops() {
                Verdict::Drop
            } else {
                Verdict::Pass
            },
            reason,
            service: Arc::from("shop"),
            class: Arc::from(""),
            interface: Arc::from("eth0"),
            ifindex,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        let word = |word: &[u8]| format!("{:08x}", u32::from_be_bytes(*word.first_chunk().unwrap()));
        bytes.chunks(4).map(word).collect::<Vec<_>>().join(" ")
    }

    /// Word by word by the specification.
    #[test]
    fn a_datagram_is_what_the_specification_says() {
        let mut encoder = Encoder::new("192.0.2.9".parse().unwrap());
        let frame = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0, 0x45];
        assert_eq!(encoder.add(&named(3, &frame, Reason::SourcePackets), 5_000), None);
        let datagram = encoder.flush(5_000).unwrap();
        let expected = "00000005 00000001 c0000209 00000000 00000001 00001388 00000001 \
                        00000001 00000048 00000001 00000003 000003e8 000003e8 00000000 00000003 40000105 00000001 \
                        00000001 00000020 00000001 000005ee 00000004 0000000f 01020304 05060708 090a0b0c 08004500";
        assert_eq!(hex(&datagram), expected);
        assert_eq!(encoder.flush(6_000), None, "there is nothing more");
        encoder.add(&named(3, &frame, Reason::Pass), 7_000);
        let second = hex(&encoder.flush(7_000).unwrap());
        let words: Vec<&str> = second.split(' ').collect();
        assert_eq!(
            (words[4], words[9], words[12], words[15]),
            ("00000002", "00000002", "000007d0", "00000000")
        );
    }

    /// Drops are samples, the pool is packets, of each interface for itself.
    #[test]
    fn what_was_missed_is_in_the_pool_and_among_the_drops_once() {
        let mut encoder = Encoder::new("192.0.2.9".parse().unwrap());
        let mut tell = |ifindex: u32, missed: u64| {
            let mut sample = named(ifindex, &[7; 60], Reason::Pass);
            sample.sample.head.missed = missed;
            encoder.add(&sample, 1);
            let datagram = encoder.flush(1).unwrap();
            let word = |at: usize| u32::from_be_bytes(*datagram[at * 4..].first_chunk().unwrap());
            (word(12), word(13))
        };
        assert_eq!(tell(3, 70_000), (1_000, 0), "before anybody listened");
        assert_eq!(tell(3, 75_000), (7_000, 5));
        assert_eq!(tell(4, 75_000), (1_000, 0), "told of the other interface already");
        assert_eq!(tell(4, 74_000), (2_000, 0), "a CPU that looked a little earlier");
        assert_eq!(tell(4, 76_000), (4_000, 1));
        assert_eq!(tell(4, 0), (5_000, 1), "new maps");
        assert_eq!(tell(3, 2_000), (10_000, 7));
    }

    #[test]
    fn counters_are_what_the_specification_says() {
        let mut encoder = Encoder::new("2001:db8::9".parse().unwrap());
        let counters = Counters {
            ifindex: 3,
            bytes: 1 << 33,
            passed: 10,
            dropped: 4,
        };
        encoder.add_counters(&counters, 0);
        let datagram = encoder.flush(0).unwrap();
        let expected = "00000005 00000002 20010db8 00000000 00000000 00000009 00000000 00000001 00000000 00000001 \
                        00000002 0000006c 00000001 00000003 00000001 00000001 00000058 \
                        00000003 00000006 00000000 00000000 00000000 00000003 00000002 00000000 \
                        0000000a ffffffff ffffffff 00000004 ffffffff ffffffff ffffffff ffffffff \
                        ffffffff ffffffff ffffffff ffffffff ffffffff 00000000";
        assert_eq!(hex(&datagram), expected);
    }

    #[test]
    fn datagrams_stay_within_the_mtu_and_lose_no_sample() {
        let mut encoder = Encoder::new("192.0.2.9".parse().unwrap());
        let mut counted = 0;
        let count = |datagram: &[u8]| {
            assert!(datagram.len() <= MAX_DATAGRAM && datagram.len().is_multiple_of(4));
            u32::from_be_bytes(*datagram[24..].first_chunk().unwrap())
        };
        for length in (0..=128).cycle().take(1_000) {
            let sample = named(1 + length % 2, &vec![7; length as usize], Reason::Pass);
            if let Some(datagram) = encoder.add(&sample, 1) {
                counted += count(&datagram);
            }
        }
        counted += count(&encoder.flush(1).unwrap());
        assert_eq!(counted, 1_000);
    }
}
