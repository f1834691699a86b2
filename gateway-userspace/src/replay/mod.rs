//! Recorded traffic through a policy, on the capture's own clock: what the kernel would have done.
//!
//! Each packet goes through [`Twin`], so through the same decision function and the same tables as in the kernel. The
//! memory is bounded whatever the capture holds: the twin's tables are as large as the kernel's, counts over time are
//! joined where there are too many intervals (at most 16 MB of them), and per source only the heaviest are kept
//! ([`SOURCES`]).
//!
//! A capture says less than an interface: see [`Replay::packet`] for which way a packet went, for times that run
//! backwards, and for frames that were cut off. Bans and levers are not of the policy, so there are none; proofs come from
//! the handshakes that the capture shows.

mod clock;
mod compare;
pub mod detect;
mod frame;
mod heavy;
pub mod plot;
pub mod report;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;

use std::{collections::VecDeque, time::Duration};

use gateway_core::{
    image::flags,
    judge::{self, Environment as _, Event, Judgement},
    packet::{Address, Malformed, Network, Packet},
    proof,
    wire::{ipv4, tcp},
};
use ipnet::IpNet;

use self::{
    clock::Clock,
    compare::Comparison,
    detect::{Changed, Detection, Learned},
    frame::{Seen, ethernet_frame},
    tally::{Count, SourceKey, Tally},
};
pub use self::{clock::STEP_NS, heavy::CAPACITY as SOURCES};
use crate::{
    capture::{self, Direction},
    compile::{CompileError, prefix},
    kernel::{self, ListContents},
    policy::model::{Mode, Policy},
    twin::{Socket, Twin},
};

/// Longer frames that leave are no SYN-ACKs for the program on the way out of an interface, which this follows.
const LONGEST_OFFER: u32 = 256;
/// No link has frames of more bytes; what a capture has of longer ones, its host had joined.
const LONGEST_FRAME: u32 = 9018;
/// How many flows that left are remembered, for the packets that answer them.
const SOCKETS: usize = 65_536;
/// After how many packets the notices of blocks are let go, which nobody reads here.
const NOTICES: u64 = 1024;

/// The hash key of the source table, where nobody gives one: any will do, and the same gives the same answer again.
pub const KEY: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The length of the intervals, at least a millisecond; nothing: as it fits.
    pub interval: Option<Duration>,
    /// The addresses of the host that captured: what comes from them has left. Empty: those that the policy names.
    pub local: Vec<IpNet>,
    /// The hash key of the source table, which picks the sources of an `enforce_share`.
    pub key: [u64; 4],
    /// Run the detectors, too.
    pub detect: Option<detect::Options>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: None,
            local: Vec::new(),
            key: KEY,
            detect: None,
        }
    }
}

/// A packet was captured on a link that Weir does not judge.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a link of type {link_type} ({}), which has no Ethernet frames", link_name(*.link_type))]
pub struct ForeignLink {
    /// The link type, as capture files number it.
    pub link_type: u16,
}

/// What a link type is called, of those that are met most.
fn link_name(link_type: u16) -> &'static str {
    match link_type {
        0 | 108 => "BSD loopback",
        9 => "PPP",
        105 => "802.11 wireless",
        127 => "802.11 wireless with radiotap",
        147..=162 => "user-defined",
        189 | 220 => "USB",
        192 => "PPI",
        195 | 215 | 230 => "802.15.4",
        227 => "CAN",
        239 => "netfilter log",
        253 => "netlink",
        271 => "vsock",
        _ => "one of those that are rare",
    }
}

/// The policy in which every mode is `enforce`, for every source.
pub fn enforced(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.mode = Mode::Enforce;
    for service in &mut policy.services {
        service.mode = Mode::Enforce;
        service.enforce_share_ppm = 1_000_000;
        for class in &mut service.classes {
            class.mode = Mode::Enforce;
        }
    }
    policy
}

/// One policy at work.
#[derive(Debug)]
struct Side {
    twin: Twin,
    /// The service and class of each subject.
    owners: Vec<(String, String)>,
    tally: Tally,
    /// Flows that left, the oldest first.
    sockets: VecDeque<Socket>,
}

impl Side {
    fn new(policy: &Policy, lists: &ListContents, options: &Options) -> Result<Self, CompileError> {
        let twin = Twin::new(policy, lists, options.key, kernel::lines_of(&policy.source))?;
        let owners = twin.owners();
        let width_ns = options.interval.map(|width| width.as_nanos() as u64);
        Ok(Self {
            tally: Tally::new(&twin, &owners, width_ns),
            owners,
            twin,
            sockets: VecDeque::new(),
        })
    }

    fn uses(&self, flag: u32) -> bool {
        self.twin.image().generation.flags & flag != 0
    }

    /// Whether services or the scope name an address.
    fn names(&self, v6: bool, address: &Address) -> bool {
        let entry = (&&self.twin).destination(v6, address);
        entry.group != 0 || entry.scope != 0
    }

    fn judge(
        &mut self,
        now_ns: u64,
        packet: Result<&Packet, Malformed>,
        length: u32,
    ) -> (Judgement, Option<SourceKey>) {
        self.twin.set_clock(now_ns);
        let twin = &self.twin;
        let (judgement, source) = match packet {
            Ok(packet) => (
                judge::judge_packet(&twin, packet),
                SourceKey::new(&twin.image().generation, packet),
            ),
            Err(malformed) => (judge::judge_malformed(&twin, malformed), None),
        };
        self.tally.add(now_ns, judgement, length, source);
        (judgement, source)
    }

    /// A packet leaves: what it offers, and what answers it.
    fn leaves(&mut self, now_ns: u64, packet: &Packet) {
        self.twin.set_clock(now_ns);
        if packet.length <= LONGEST_OFFER {
            let twin = &self.twin;
            proof::offer(&twin, &twin.key(), now_ns, packet);
        }
        let ported = matches!(packet.protocol, ipv4::TCP | ipv4::UDP);
        if !self.uses(flags::REPLIES) || !self.uses(flags::DEFAULT_DROP) || !ported {
            return;
        }
        let v6 = matches!(packet.network, Network::V6);
        let socket = (
            packet.protocol,
            (prefix::address(v6, &packet.source), packet.source_port),
            (prefix::address(v6, &packet.destination), packet.destination_port),
        );
        if self.twin.open_socket(socket) {
            if self.sockets.len() == SOCKETS
                && let Some(oldest) = self.sockets.pop_front()
            {
                self.twin.close_socket(&oldest);
            }
            self.sockets.push_back(socket);
        }
    }

    /// Whether a SYN-ACK is what a service of this policy would answer.
    fn would_answer(&self, packet: &Packet) -> bool {
        let back = Packet {
            source: packet.destination,
            destination: packet.source,
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            ..*packet
        };
        judge::service(&&self.twin, &back) != 0
    }
}

/// What a capture showed besides packets that were judged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Oddities {
    /// All packets.
    read: u64,
    /// Packets that left.
    left: Count,
    /// Packets that were cut off within their headers.
    cut: Count,
    /// UDP packets that were cut off before it could be told whether they are QUIC Initials.
    quic_unknown: u64,
    /// Frames longer than any link's.
    joined: u64,
    /// SYN-ACKs that were taken to arrive, from a port of a service.
    answers: u64,
}

/// A replay.
#[derive(Debug)]
pub struct Replay {
    policy: Side,
    against: Option<(Side, Comparison)>,
    detection: Option<Detection>,
    local: Vec<IpNet>,
    clock: Clock,
    odd: Oddities,
    scratch: Vec<u8>,
}

impl Replay {
    /// Puts a policy in force, and another to compare it with.
    ///
    /// # Errors
    /// Where a policy does not fit the tables.
    pub fn new(
        policy: (&Policy, &ListContents),
        against: Option<(&Policy, &ListContents)>,
        options: &Options,
    ) -> Result<Self, CompileError> {
        let (of, lists) = policy;
        let policy = Side::new(of, lists, options)?;
        let detection = options
            .detect
            .as_ref()
            .map(|detect| Detection::new(of, &policy.twin, detect));
        let against = match against {
            None => None,
            Some((other, lists)) => {
                let other = Side::new(other, lists, options)?;
                let comparison = Comparison::new([&policy.owners, &other.owners]);
                Some((other, comparison))
            }
        };
        Ok(Self {
            policy,
            against,
            detection,
            local: options.local.clone(),
            clock: Clock::default(),
            odd: Oddities::default(),
            scratch: Vec::new(),
        })
    }

    /// Judges the next packet of a capture.
    ///
    /// *When*: at its time. A time before that of a packet that came earlier is taken for that one's: this clock never runs
    /// backwards. More than [`STEP_NS`] back, the capturing clock was set: the replay goes on from where it stood. A packet
    /// without a time is judged at that of the one before.
    ///
    /// *Which way*: as the capture says (pcapng's flags, Linux' cooked captures); else a packet has left if its source is one of
    /// [`Options::local`] (or, without those, of the addresses that the policy's services and scope name) and its destination is
    /// not. A packet that left is not judged; it does what the program on the way out of an interface does.
    ///
    /// *How long*: as it was on the wire, from the Ethernet header on, however little was captured. Where the capture does not
    /// hold all the headers, the packet is counted apart and not judged. IP without Ethernet (raw, cooked) counts as in an
    /// untagged Ethernet frame.
    ///
    /// # Errors
    /// Where it is of a link that has no Ethernet frames.
    pub fn packet(&mut self, packet: &capture::Packet<'_>) -> Result<(), ForeignLink> {
        if self.odd.read.is_multiple_of(NOTICES) {
            self.let_notices_go();
        }
        let Some(frame) = ethernet_frame(packet, &mut self.scratch) else {
            return Err(ForeignLink {
                link_type: packet.link_type,
            });
        };
        self.odd.read += 1;
        self.clock.advance(packet.time_ns);
        let (now_ns, length, direction) = (self.clock.now_ns, frame.length, frame.direction);
        // Before the first time of all there is no clock to detect by.
        if self.clock.first_ns.is_some()
            && let Some(detection) = &mut self.detection
        {
            detection.advance(now_ns);
        }
        self.odd.joined += u64::from(length > LONGEST_FRAME);
        let seen = match frame.see() {
            Seen::Packet { packet, quic_unknown } => {
                self.odd.quic_unknown += u64::from(quic_unknown);
                Ok(packet)
            }
            Seen::Malformed(malformed) => Err(malformed),
            Seen::Cut => {
                self.odd.cut.add(length);
                return Ok(());
            }
        };
        if self.has_left(direction, seen.as_ref().ok()) {
            self.odd.left.add(length);
            if let Ok(packet) = &seen {
                self.policy.leaves(now_ns, packet);
                if let Some(detection) = &mut self.detection {
                    detection.leaves(&self.policy.twin, now_ns, packet);
                }
                if let Some((other, _)) = &mut self.against {
                    other.leaves(now_ns, packet);
                }
            }
            return Ok(());
        }
        if direction.is_none()
            && let Ok(packet) = &seen
            && is_answer(packet)
            && self.policy.would_answer(packet)
        {
            self.odd.answers += 1;
        }
        let seen = seen.as_ref().map_err(|malformed| *malformed);
        let (said, source) = self.policy.judge(now_ns, seen, length);
        if let Some(detection) = &mut self.detection {
            detection.arrives(&self.policy.twin, now_ns, seen, length, said);
        }
        if let Some((other, comparison)) = &mut self.against {
            let (other_said, _) = other.judge(now_ns, seen, length);
            comparison.add([said, other_said], length, source);
        }
        Ok(())
    }

    fn has_left(&self, direction: Option<Direction>, packet: Option<&Packet>) -> bool {
        if let Some(direction) = direction {
            return direction == Direction::Out;
        }
        let Some(packet) = packet.filter(|packet| !matches!(packet.network, Network::Other(_))) else {
            return false;
        };
        let v6 = matches!(packet.network, Network::V6);
        if !self.local.is_empty() {
            let is_local = |address| {
                let address = prefix::address(v6, address);
                self.local.iter().any(|net| net.contains(&address))
            };
            return is_local(&packet.source) && !is_local(&packet.destination);
        }
        let sides = || std::iter::once(&self.policy).chain(self.against.as_ref().map(|(other, _)| other));
        let is_named =
            |address| sides().any(|side| side.uses(flags::DESTINATIONS) && side.names(v6, address));
        is_named(&packet.source) && !is_named(&packet.destination)
    }

    fn let_notices_go(&self) {
        drop(self.policy.twin.notices());
        if let Some((other, _)) = &self.against {
            drop(other.twin.notices());
        }
    }

    /// There are no more packets: the detectors look at what remains.
    pub fn finish(&mut self) {
        if let Some(detection) = self.detection.as_mut().filter(|_| self.clock.first_ns.is_some()) {
            detection.finish(self.clock.now_ns);
        }
    }

    /// What the detectors said so far, from that change on.
    pub fn changes(&self, from: usize) -> &[Changed] {
        let detection = self.detection.as_ref();
        detection
            .and_then(|detection| detection.changes().get(from..))
            .unwrap_or_default()
    }

    /// What the detectors have learned of these captures, if they were run; after [`Self::finish`].
    pub fn into_learned(self, captures: Vec<String>) -> Option<Learned> {
        self.detection.map(|detection| detection.into_learned(captures))
    }

    /// How many packets were read.
    pub fn packets(&self) -> u64 {
        self.odd.read
    }

    /// How often a block began, and how many packets an overflow bucket judged.
    fn events(&self) -> (u64, u64) {
        let twin = &self.policy.twin;
        (twin.events(Event::Blocked), twin.events(Event::Overflow))
    }
}

/// Whether a packet is a SYN-ACK.
fn is_answer(packet: &Packet) -> bool {
    const FLAGS: u8 = tcp::SYN | tcp::ACK;
    packet.protocol == ipv4::TCP && packet.tcp_flags & (FLAGS | tcp::RST) == FLAGS
}
