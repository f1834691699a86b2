//! The decision function: one packet, one verdict, one reason.
//!
//! The order of judgement is the design's: malformed → out of scope → protect → ban → list → (bypass) → block → per
//! source → per network → class total → total → pass; and without a service: essential → reply → default. A bucket that
//! admits is charged at once; the one that refuses, and those after it, are not. Under `monitor` everything happens
//! exactly so, except that the packet passes and no block starts.

use core::cell::Cell;

use crate::{
    bucket::spec::Spec,
    classify::{self, Uses, classify},
    frame::Frame,
    hash::Key,
    image::{
        self, DestinationEntry, Generation, ListEntry, Notice, ProtectRule, Subject, bans, flags, list_flags,
        subject_flags,
    },
    lease::Leases,
    limit::{self, limit},
    line::{self, Amount, Block, Blocked, Charge, Strike, Versions},
    packet::{Address, Fragment, Malformed, Network, Packet, UNTAGGED},
    parse::parse,
    proof::{self, Standing},
    verdict::{Reason, Verdict},
    wire::{ethernet, icmp, ipv4, ipv6},
};

/// One shared cell.
pub trait Shared {
    /// Reads it.
    fn get(&self) -> u64;
    /// Replaces it if it is `old`; whether it did.
    fn swap(&self, old: u64, new: u64) -> bool;
}

impl<S: Shared> Shared for &S {
    #[inline(always)]
    fn get(&self) -> u64 {
        (**self).get()
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        (**self).swap(old, new)
    }
}

/// Where tables, time and keys come from. One value of it serves one packet and one generation.
pub trait Environment: classify::Tables + Versions + proof::Tables + Leases {
    /// A shared cell.
    type Shared: Shared;

    /// The generation in force.
    fn generation(&self) -> &Generation;
    /// Nanoseconds that never run backwards by more than a second between CPUs.
    fn now_ns(&self) -> u64;
    /// The hash key of the source table.
    fn key(&self) -> Key;
    /// The hash of a packet's source.
    #[inline(always)]
    fn source_hash(&self, packet: &Packet) -> u64 {
        limit::hash_of(&self.key(), self.generation(), packet)
    }
    /// The line of a packet's source, whose hash this is. The kernel half has looked it up already.
    #[inline(always)]
    fn source_line(&self, hash: u64) -> Option<Self::Line> {
        self.line(hash)
    }
    /// The shared cell of a bucket.
    fn shared(&self, id: u32) -> Option<Self::Shared>;
    /// A service or class.
    fn subject(&self, number: u32) -> Option<&Subject>;
    /// What the lists say of a source; the default where none covers it.
    fn lists(&self, v6: bool, source: &Address) -> ListEntry;
    /// What services and scope say of a destination; the default where none covers it.
    fn destination(&self, v6: bool, destination: &Address) -> DestinationEntry;
    /// Whether a VLAN is in scope.
    fn vlan_in_scope(&self, vlan: u16) -> bool;
    /// A protect rule.
    fn protect_rule(&self, number: u32) -> Option<ProtectRule>;
    /// Which tables of bans may have entries: bits of [`bans`]. The others are not asked.
    #[inline(always)]
    fn bans(&self) -> u64 {
        bans::ALL
    }
    /// Whether a source may be banned: never no where it is.
    #[inline(always)]
    fn may_be_banned(&self, _v6: bool, _source: &Address) -> bool {
        true
    }
    /// Until when a source is banned, for all services (`service` 0) or for one; 0 if it is not. Asked of those that may be.
    fn banned_until_ns(&self, v6: bool, source: &Address, service: u32) -> u64;
    /// Whether a packet answers a socket of this host.
    fn answers_socket(&self, packet: &Packet) -> bool;
    /// Counts an event that has no packet counter of its own.
    fn note(&self, event: Event);
    /// Looks at a packet whose subject is known, whatever was judged of it. After the judgement: the processor begins nothing before a compare-and-swap
    /// is done, and ends what it has begun, so what each tier waits for would come on top.
    #[inline(always)]
    fn look(&self, _packet: &Packet, _subject: &Subject) {}
    /// Tells of a block that has just begun: of all that a source sends (`whole`), or of its new connections.
    fn announce(&self, packet: &Packet, subject: &Subject, whole: bool);

    /// Bits of [`flags`] of the generation in force. A program that was made for certain policies has none that they do not use.
    #[inline(always)]
    fn flags(&self) -> u32 {
        self.generation().flags
    }

    /// Bits of [`subject_flags`], likewise.
    #[inline(always)]
    fn subject_flags(&self, subject: &Subject) -> u32 {
        subject.flags
    }

    /// Whether any subject may have a bucket in this place, likewise.
    #[inline(always)]
    fn may_have(&self, _tier: usize, _kind: usize) -> bool {
        true
    }

    /// Whether the whole node only watches.
    #[inline(always)]
    fn watched(&self) -> bool {
        self.generation().flags & flags::MONITOR != 0
    }

    /// [`line::tidy`]; the kernel half puts these behind functions that its verifier checks one by one.
    #[inline(always)]
    fn tidy(&self, line: &Self::Line) {
        if line::untidy(line, self.now_ns(), self.generation().patience) {
            line::tidy(line, self.now_ns());
        }
    }
    /// As [`Self::charge`]; `_cost` is what the amount costs. The kernel half tries [`line::charge_found`] first, which spares nearly every packet
    /// a call.
    #[inline(always)]
    fn charge_first(&self, line: &Self::Line, spec: &Spec, hash: u64, amount: Amount, _cost: u64) -> Charge
    where
        Self: Sized,
    {
        self.charge(line, spec, hash, amount)
    }
    /// [`line::charge`].
    #[inline(always)]
    fn charge(&self, line: &Self::Line, spec: &Spec, hash: u64, amount: Amount) -> Charge
    where
        Self: Sized,
    {
        line::charge(|| line::charge_once(line, self, spec, hash, self.now_ns(), amount))
    }
    /// [`line::blocked`].
    #[inline(always)]
    fn blocked(&self, line: &Self::Line, block: &Block, hash: u64) -> Blocked {
        line::blocked(line, block, hash, self.now_ns())
    }
    /// [`line::strike`].
    #[inline(always)]
    fn strike(&self, line: &Self::Line, block: &Block, hash: u64, proven: bool) -> Strike {
        line::strike(|| line::strike_once(line, block, hash, self.now_ns(), proven))
    }
    /// [`limit::charge_shared`] for a bucket's shared cell.
    #[inline(always)]
    fn charge_shared(&self, spec: &Spec, amount: u32, open: impl Fn() -> u64) -> Charge
    where
        Self: Sized,
    {
        let (now_ns, cell) = (self.now_ns(), || self.shared(spec.id()));
        limit::charge_shared(self, spec, now_ns, amount, open, cell, |cell, open| {
            limit::race(|| limit::shared_once(cell, self, self, spec, now_ns, amount, open))
        })
    }
    /// Is shown where it is kept what a packet's source has shown for itself, before anything is charged. The kernel half has it kept in memory: the
    /// compiler would carry it through every bucket, in registers that BPF does not have.
    #[inline(always)]
    fn keep(&self, _standing: &Cell<Option<Standing>>) {}
    /// [`proof::standing`] of a packet's source.
    #[inline(always)]
    fn standing(&self, packet: &Packet) -> Standing
    where
        Self: Sized,
    {
        let hash = limit::hash_of(&self.key(), self.generation(), packet);
        proof::standing(self, &self.key(), self.now_ns(), packet, hash)
    }
    /// [`proof::answer`] for a packet's source.
    #[inline(always)]
    fn answer(&self, packet: &Packet) -> bool
    where
        Self: Sized,
    {
        let hash = || limit::hash_of(&self.key(), self.generation(), packet);
        proof::answer(self, &self.key(), self.now_ns(), packet, hash)
    }
    /// [`proof::remember`].
    #[inline(always)]
    fn remember(&self, packet: &Packet)
    where
        Self: Sized,
    {
        proof::remember(self, &self.key(), self.now_ns(), packet);
    }
    /// [`protected`].
    #[inline(always)]
    fn protected(&self, rules: u64, protocol: u8, port: Option<u16>) -> bool
    where
        Self: Sized,
    {
        protected(|number| self.protect_rule(number), rules, protocol, port)
    }
}

/// Events that have counters of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Event {
    /// A shared overflow bucket judged a packet.
    Overflow = 0,
    /// A packet was refused because its compare-and-swap lost every try.
    LostRace = 1,
    /// A packet could not be counted under its series.
    Uncounted = 2,
    /// A block started.
    Blocked = 3,
    /// A notice did not fit the ring.
    Unnoticed = 4,
    /// A sample was taken.
    Sampled = 5,
    /// A sample did not fit the ring.
    Unsampled = 6,
    /// A sample was over the cap.
    Suppressed = 7,
}

/// How many kinds of [`Event`] there are.
pub const EVENTS: u32 = 8;

/// What was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// What happens to the packet.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The subject that counts it.
    pub subject: u32,
    /// Whether it completed a handshake, where that is looked for.
    pub answered: bool,
}

/// Parses and judges a frame.
#[inline(always)]
pub fn judge<E: Environment, F: Frame>(environment: &E, frame: &F) -> Judgement {
    match parse(frame) {
        Ok(packet) => judge_packet(environment, &packet),
        Err(malformed) => judge_malformed(environment, malformed),
    }
}

/// The verdict of a reason, under a mode.
#[inline(always)]
pub(crate) const fn verdict(reason: Reason, watch: bool) -> Verdict {
    match (reason.drops(), watch) {
        (false, _) => Verdict::Pass,
        (true, false) => Verdict::Drop,
        (true, true) => Verdict::WouldDrop,
    }
}

/// Judges a frame that could not be parsed.
#[inline(always)]
pub fn judge_malformed<E: Environment>(environment: &E, _malformed: Malformed) -> Judgement {
    let generation = environment.generation();
    let bypassed = generation.bypass_until_ns != 0 && environment.now_ns() < generation.bypass_until_ns;
    let reason = if bypassed {
        Reason::Bypass
    } else {
        Reason::Malformed
    };
    Judgement {
        verdict: verdict(reason, environment.watched()),
        reason,
        subject: 0,
        answered: false,
    }
}

/// The number of the service that a packet belongs to; 0: none. In scope or not.
#[inline(always)]
pub fn service<E: Environment>(environment: &E, packet: &Packet) -> u32 {
    classify(
        environment,
        uses(environment),
        packet,
        destination(environment, packet),
    )
}

/// What services and scope say of a packet's destination.
#[inline(always)]
fn destination<E: Environment>(environment: &E, packet: &Packet) -> DestinationEntry {
    let ip = !matches!(packet.network, Network::Other(_));
    if environment.flags() & flags::DESTINATIONS != 0 && ip {
        environment.destination(matches!(packet.network, Network::V6), &packet.destination)
    } else {
        DestinationEntry::default()
    }
}

/// What classification has to look at.
#[inline(always)]
fn uses<E: Environment>(environment: &E) -> Uses {
    Uses {
        groups: environment.flags() & flags::ADDRESS_GROUPS != 0,
        source_ports: environment.flags() & flags::SOURCE_PORTS != 0,
        direct: environment.flags() & flags::DIRECT_PORTS != 0,
    }
}

/// Judges a parsed packet.
#[inline(always)]
pub fn judge_packet<E: Environment>(environment: &E, packet: &Packet) -> Judgement {
    judge_for(environment, packet).0
}

/// As [`judge_packet`], with the entry of the subject that counts it, so that nobody looks it up again.
#[inline(always)]
pub fn judge_for<'e, E: Environment>(
    environment: &'e E,
    packet: &Packet,
) -> (Judgement, Option<&'e Subject>) {
    let (judgement, subject) = judged(environment, packet);
    if let Some(subject) = subject {
        environment.look(packet, subject);
    }
    (judgement, subject)
}

#[inline(always)]
fn judged<'e, E: Environment>(environment: &'e E, packet: &Packet) -> (Judgement, Option<&'e Subject>) {
    let generation = environment.generation();
    let watched = environment.watched();
    let v6 = matches!(packet.network, Network::V6);
    let ip = !matches!(packet.network, Network::Other(_));

    let destination = destination(environment, packet);
    let out_of_scope = out_of_scope(environment, packet, destination);
    let mut entry = ListEntry::default();
    let found = if out_of_scope {
        environment.subject(0).map(|subject| (0, subject))
    } else {
        let service = classify(environment, uses(environment), packet, destination);
        if environment.flags() & flags::LISTS != 0 && ip {
            entry = environment.lists(v6, &packet.source);
        }
        resolve(environment, service, entry.mask())
    };
    let Some((number, subject)) = found else {
        // Cannot be: every number that a table gives has an entry. Never unjudged all the same.
        let reason = if out_of_scope {
            Reason::OutOfScope
        } else {
            Reason::DefaultDrop
        };
        let judgement = Judgement {
            verdict: verdict(reason, watched),
            reason,
            subject: 0,
            answered: false,
        };
        return (judgement, None);
    };
    let done = |reason: Reason, watch: bool| {
        let judgement = Judgement {
            verdict: verdict(reason, watch),
            reason,
            subject: number,
            answered: false,
        };
        (judgement, Some(subject))
    };

    if out_of_scope {
        return done(Reason::OutOfScope, watched);
    }
    if entry.rules() != 0 && is_protected(environment, entry.rules(), packet) {
        return done(Reason::Protect, watched);
    }
    let bypassed = bypassed(environment, generation, subject);
    if !(bypassed && environment.flags() & flags::BYPASS_ALL != 0) {
        if ip && banned(environment, v6, &packet.source, subject.service) {
            return done(Reason::Ban, watched);
        }
        let shut_out = subject.only != 0 && entry.mask() & subject.only == 0;
        if entry.flags & list_flags::DROP != 0 || shut_out {
            return done(Reason::List, watched);
        }
    }
    if bypassed {
        return done(Reason::Bypass, watched);
    }
    if environment.subject_flags(subject) & subject_flags::DEFAULT != 0 {
        return done(without_service(environment, packet), watched);
    }
    let judgement = limit(environment, packet, v6, entry.flags, number, subject);
    (judgement, Some(subject))
}

/// Whether a packet is outside what the policy looks at.
#[inline(always)]
fn out_of_scope<E: Environment>(environment: &E, packet: &Packet, destination: DestinationEntry) -> bool {
    let vlan_out = environment.flags() & flags::SCOPE_VLANS != 0
        && (packet.vlan == UNTAGGED || !environment.vlan_in_scope(packet.vlan));
    let address_out = environment.flags() & flags::SCOPE_ADDRESSES != 0 && destination.scope == 0;
    vlan_out || address_out
}

/// The entry that counts and limits: of the service, or of its first class that matches, in the state that its
/// lever is in.
#[inline(always)]
fn resolve<E: Environment>(environment: &E, service: u32, lists: u64) -> Option<(u32, &Subject)> {
    let mut number = service;
    let mut subject = environment.subject(number)?;
    if environment.subject_flags(subject) & subject_flags::CLASSES != 0 && lists != 0 {
        for at in 0..crate::image::CLASSES {
            if at >= subject.classes {
                break;
            }
            let class = environment.subject(subject.first_class + at)?;
            if class.lists & lists != 0 {
                number = subject.first_class + at;
                subject = class;
                break;
            }
        }
    }
    if subject.until_ns != u64::MAX && environment.now_ns() >= subject.until_ns {
        subject = environment.subject(subject.after)?;
    }
    Some((number, subject))
}

/// Whether one of the rules named by the bits of `rules` holds: for a protocol (1 TCP, 2 UDP, 3 ICMP, 0 another), and a
/// destination port if the packet has one.
#[inline(always)]
pub fn protected(
    rule: impl Fn(u32) -> Option<ProtectRule>,
    rules: u64,
    protocol: u8,
    port: Option<u16>,
) -> bool {
    for number in 0..crate::image::PROTECT_RULES {
        if rules >> number & 1 == 0 {
            continue;
        }
        let Some(rule) = rule(number) else { continue };
        let port_fits = rule.ports == 0 || port.is_some_and(|port| port >= rule.first && port <= rule.last);
        if (rule.protocol == 0 || rule.protocol == protocol) && port_fits {
            return true;
        }
    }
    false
}

/// Whether a packet is management traffic.
#[inline(always)]
fn is_protected<E: Environment>(environment: &E, rules: u64, packet: &Packet) -> bool {
    let (protocol, ported) = match packet.protocol {
        ipv4::TCP => (1, true),
        ipv4::UDP => (2, true),
        ipv4::ICMP | ipv6::ICMPV6 => (3, false),
        _ => (0, false),
    };
    let later = matches!(packet.fragment, Fragment::Later);
    environment.protected(
        rules,
        protocol,
        (ported && !later).then_some(packet.destination_port),
    )
}

/// Whether the bypass lever is pulled, for the node or for the service.
#[inline(always)]
fn bypassed<E: Environment>(environment: &E, generation: &Generation, subject: &Subject) -> bool {
    let until_ns = generation.bypass_until_ns.max(subject.bypass_until_ns);
    until_ns != 0 && environment.now_ns() < until_ns
}

/// Whether a source is banned, everywhere or at this service.
#[inline(always)]
fn banned<E: Environment>(environment: &E, v6: bool, source: &Address, service: u32) -> bool {
    let tables = environment.bans();
    if tables == 0 || !environment.may_be_banned(v6, source) {
        return false;
    }
    let mut until_ns = 0;
    if tables & bans::of(v6, 0) != 0 {
        until_ns = environment.banned_until_ns(v6, source, 0);
    }
    if service != 0 && tables & bans::of(v6, service) != 0 {
        until_ns = until_ns.max(environment.banned_until_ns(v6, source, service));
    }
    until_ns != 0 && environment.now_ns() < until_ns
}

/// Judges what belongs to no service.
#[inline(always)]
fn without_service<E: Environment>(environment: &E, packet: &Packet) -> Reason {
    let dropping = environment.flags() & flags::DEFAULT_DROP != 0;
    let essential = essential(packet);
    if matches!(packet.network, Network::Other(_)) && !dropping {
        return Reason::Essential;
    }
    if essential && environment.flags() & flags::ESSENTIAL != 0 {
        return Reason::Essential;
    }
    if !dropping {
        return Reason::Pass;
    }
    if environment.flags() & flags::REPLIES != 0
        && !matches!(packet.network, Network::Other(_))
        && environment.answers_socket(packet)
    {
        return Reason::Reply;
    }
    Reason::DefaultDrop
}

/// Whether a network needs a packet to work: ARP, LACP, LLDP, neighbour discovery and router advertisements, DHCP,
/// ICMP errors.
#[inline(always)]
fn essential(packet: &Packet) -> bool {
    match packet.network {
        Network::Other(ethertype) => {
            matches!(
                ethertype,
                ethernet::ARP | ethernet::SLOW_PROTOCOLS | ethernet::LLDP
            )
        }
        _ if matches!(packet.fragment, Fragment::Later) => false,
        Network::V4 => match packet.protocol {
            ipv4::ICMP => icmp::is_error_v4(packet.icmp_type),
            ipv4::UDP => matches!(
                (packet.source_port, packet.destination_port),
                (67, 68) | (68 | 67, 67)
            ),
            _ => false,
        },
        Network::V6 => match packet.protocol {
            ipv6::ICMPV6 => {
                icmp::is_error_v6(packet.icmp_type) || icmp::is_neighbour_discovery(packet.icmp_type)
            }
            // A client listens on 546, servers and relays on 547; servers may answer from any port (RFC 8415, 7.2).
            ipv4::UDP => matches!(packet.destination_port, 546 | 547),
            _ => false,
        },
    }
}

/// The notice of a block that has just begun.
#[inline(always)]
pub fn notice(
    generation: &Generation,
    packet: &Packet,
    subject: &Subject,
    now_ns: u64,
    whole: bool,
) -> Notice {
    let v6 = matches!(packet.network, Network::V6);
    Notice {
        at_ns: now_ns,
        until_ns: now_ns + subject.block.for_ns,
        service: subject.service,
        kind: if whole {
            image::notice::BLOCKED
        } else {
            image::notice::BLOCKED_CONNECTIONS
        },
        source: limit::masked(v6, &packet.source, generation.source_v4, &generation.source_v6),
        v6: u32::from(v6),
        interface: 0,
    }
}

/// The series that counts a judgement, among those of its interface; nothing if its subject has none for the reason. What follows a
/// lever has the same series.
#[inline(always)]
pub fn series_of(subject: &Subject, judgement: Judgement) -> Option<u32> {
    let first = *subject.series.get(judgement.reason as usize)?;
    if first == 0 {
        return None;
    }
    Some(first + u32::from(matches!(judgement.verdict, Verdict::WouldDrop)))
}
