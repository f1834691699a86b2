//! Judging a packet to a service by its block and its buckets, tier by tier, and charging them.

use core::cell::Cell;

use crate::{
    bucket::{cell, gcra, spec::Spec},
    hash::{self, Domain, Key},
    image::{Generation, KINDS, Subject, list_flags, subject_flags},
    judge::{Environment, Event, Judgement, Shared, verdict},
    lease::{self, Field, Leases, Slot as _},
    line::{Amount, Blocked, Charge, Line as _, Strike, TRIES, Versions},
    packet::{Address, Network, Packet},
    proof::{self, Standing},
    verdict::Reason,
};

/// Who sends a packet. What it has shown for itself is looked up only where it matters, and once.
struct Sender<'a> {
    packet: &'a Packet,
    standing: &'a Cell<Option<Standing>>,
}

impl Sender<'_> {
    #[inline(always)]
    fn standing<E: Environment>(&self, environment: &E) -> Standing {
        if let Some(known) = self.standing.get() {
            return known;
        }
        let found = environment.standing(self.packet);
        self.standing.set(Some(found));
        found
    }

    /// A SYN that was refused is remembered, so that it counts when it comes again.
    #[inline(always)]
    fn refused<E: Environment>(&self, environment: &E) {
        if self.packet.connection && !matches!(self.standing.get(), Some(Standing::Proven)) {
            environment.remember(self.packet);
        }
    }
}

/// Judges a packet to a service by its blocks and buckets.
#[inline(always)]
pub fn limit<E: Environment>(
    environment: &E,
    packet: &Packet,
    v6: bool,
    listed: u32,
    number: u32,
    subject: &Subject,
) -> Judgement {
    let trusted = listed & list_flags::TRUST != 0;
    let own = environment.subject_flags(subject);
    let mut watch = environment.watched() || own & subject_flags::MONITOR != 0;
    let mut answered = false;
    let standing = Cell::new(None);
    environment.keep(&standing);
    if trusted {
        standing.set(Some(Standing::Proven));
    }
    let sender = Sender {
        packet,
        standing: &standing,
    };
    // A policy that has one of the three looks for answers to offers (`flags::OFFERS`), unless it is of profiles of what is not TCP.
    if own & (subject_flags::RESERVE | subject_flags::BLOCK | subject_flags::PROFILE) != 0
        && proof::may_answer(packet)
        && environment.answer(packet)
    {
        standing.set(Some(Standing::Proven));
        answered = true;
    }

    let by_source = own & (subject_flags::TIER | subject_flags::BLOCK) != 0
        && listed & (list_flags::TRUST | list_flags::PROXY) == 0;
    let reason = 'judged: {
        let shared_out = own & subject_flags::SHARE != 0;
        let hash = if by_source || shared_out {
            environment.source_hash(packet)
        } else {
            0
        };
        watch |= shared_out && hash::share(hash) >= subject.enforce_share;
        let own_line = if by_source {
            environment.source_line(hash)
        } else {
            None
        };
        if let Some(line) = &own_line {
            environment.tidy(line);
            if own & subject_flags::BLOCK != 0 && is_blocked(environment, line, packet, subject, hash) {
                break 'judged Reason::Block;
            }
        }
        // Before anything is charged: a compare-and-swap lets the processor begin nothing that comes after it, and so this line is found, and comes from
        // memory, while that of the source does.
        let network = if own & subject_flags::TIER << 1 != 0 && !trusted {
            network_line(environment, packet, subject, v6)
        } else {
            None
        };
        if let Some(line) = &own_line
            && let Some(refused) = by_tier(environment, line, subject, 0, hash, &sender)
        {
            if own & subject_flags::BLOCK != 0 && !watch {
                strike(environment, line, subject, hash, &sender);
            }
            break 'judged refused;
        }
        if let Some((line, hash)) = network {
            environment.tidy(&line);
            if let Some(refused) = by_tier(environment, &line, subject, 1, hash, &sender) {
                break 'judged refused;
            }
        }
        if own & subject_flags::TIER << 2 != 0
            && let Some(refused) = by_totals(environment, &sender, subject, own, 2)
        {
            break 'judged refused;
        }
        if own & subject_flags::TIER << 3 != 0
            && let Some(refused) = by_totals(environment, &sender, subject, own, 3)
        {
            break 'judged refused;
        }
        if trusted { Reason::Trust } else { Reason::Pass }
    };
    Judgement {
        verdict: verdict(reason, watch),
        reason,
        subject: number,
        answered,
    }
}

/// The hash of a packet's source, as the policy masks sources.
#[inline(always)]
pub fn hash_of(key: &Key, generation: &Generation, packet: &Packet) -> u64 {
    hash_of_address(
        key,
        generation,
        matches!(packet.network, Network::V6),
        &packet.source,
    )
}

/// The IPv4 address that an IPv6 socket sees in mapped form (RFC 4291, 2.5.5.2), if it is one.
#[inline(always)]
pub const fn unmapped(address: Address) -> Option<u32> {
    const PREFIX: u32 = 0xffff_u32.to_be();
    if address[0] == 0 && address[1] == 0 && address[2] == PREFIX {
        Some(address[3])
    } else {
        None
    }
}

/// The hash of the source that an address belongs to.
#[inline(always)]
pub fn hash_of_address(key: &Key, generation: &Generation, v6: bool, address: &Address) -> u64 {
    let source = masked(v6, address, generation.source_v4, &generation.source_v6);
    hash::hash(key, Domain::Source, if v6 { 6 } else { 4 }, &source)
}

/// How much of a kind a packet is: nothing of connections, if it asks for none.
#[inline(always)]
const fn amount(packet: &Packet, kind: usize) -> u32 {
    match kind {
        0 => 1,
        1 => packet.length,
        _ => packet.connection as u32,
    }
}

/// What that costs. Only bytes cost fractions of units, and of packets and connections a packet is one or none.
#[inline(always)]
const fn cost(spec: &Spec, kind: usize, amount: u32) -> u64 {
    if kind == 1 {
        spec.charge(amount)
    } else {
        spec.cost as u64
    }
}

/// An address under the mask of its family.
#[inline(always)]
pub fn masked(v6: bool, address: &Address, v4_mask: u32, v6_mask: &Address) -> Address {
    if v6 {
        [
            address[0] & v6_mask[0],
            address[1] & v6_mask[1],
            address[2] & v6_mask[2],
            address[3] & v6_mask[3],
        ]
    } else {
        [address[0] & v4_mask, 0, 0, 0]
    }
}

/// Whether a packet's source is blocked, or if that is all that the packet asks for, its new connections.
#[inline(always)]
fn is_blocked<E: Environment>(
    environment: &E,
    line: &E::Line,
    packet: &Packet,
    subject: &Subject,
    hash: u64,
) -> bool {
    match environment.blocked(line, &subject.block, hash) {
        Blocked::Whole => true,
        Blocked::Connections => packet.connection,
        Blocked::Nothing => false,
    }
}

/// The line of a packet's network, which has been asked for, and the network's hash.
#[inline(always)]
fn network_line<E: Environment>(
    environment: &E,
    packet: &Packet,
    subject: &Subject,
    v6: bool,
) -> Option<(E::Line, u64)> {
    let network = masked(v6, &packet.source, subject.network_v4, &subject.network_v6);
    let hash = hash::hash(
        &environment.key(),
        Domain::Network,
        if v6 { 6 } else { 4 },
        &network,
    );
    let line = environment.line(hash)?;
    let _ = line.get(0);
    Some((line, hash))
}

/// Charges the buckets of a source (`tier` 0) or network (1), one after the other; the reason of the one that refuses. Not a loop, here or
/// in the other tiers: of what stands there for each kind, the kernel's verifier takes away what no policy of a program uses, and a loop asks
/// again for every packet.
#[inline(always)]
fn by_tier<E: Environment>(
    environment: &E,
    line: &E::Line,
    subject: &Subject,
    tier: usize,
    hash: u64,
    sender: &Sender<'_>,
) -> Option<Reason> {
    const { assert!(KINDS == 3) };
    by_kind(environment, line, subject, (tier, 0), hash, sender)
        .or_else(|| by_kind(environment, line, subject, (tier, 1), hash, sender))
        .or_else(|| by_kind(environment, line, subject, (tier, 2), hash, sender))
}

/// Charges one of them, named by tier and kind; the reason if it refuses.
#[inline(always)]
fn by_kind<E: Environment>(
    environment: &E,
    line: &E::Line,
    subject: &Subject,
    (tier, kind): (usize, usize),
    hash: u64,
    sender: &Sender<'_>,
) -> Option<Reason> {
    let spec = &subject.buckets[tier][kind];
    let amount = amount(sender.packet, kind);
    if !environment.may_have(tier, kind) || !spec.exists() || amount == 0 {
        return None;
    }
    let cost = cost(spec, kind, amount);
    if charged(environment, line, spec, hash, (amount, cost), sender) {
        return None;
    }
    Some(Reason::of_bucket(tier, kind))
}

/// Charges a bucket of a source or network, or its overflow bucket; whether it admits.
#[inline(always)]
fn charged<E: Environment>(
    environment: &E,
    line: &E::Line,
    spec: &Spec,
    hash: u64,
    (amount, cost): (u32, u64),
    sender: &Sender<'_>,
) -> bool {
    let known = matches!(sender.standing.get(), Some(Standing::Proven));
    let mut result = environment.charge_first(line, spec, hash, Amount::new(amount, known), cost);
    // The cells that are for everybody are taken. Now it matters whether there are others for this source.
    if matches!(result, Charge::Full) && !known && matches!(sender.standing(environment), Standing::Proven) {
        result = environment.charge(line, spec, hash, Amount::new(amount, true));
    }
    match result {
        Charge::Admitted => true,
        Charge::Refused | Charge::Reserved => false,
        Charge::Full => overflow(environment, spec, amount, sender),
        Charge::Lost => {
            environment.note(Event::LostRace);
            false
        }
    }
}

/// Judges by the overflow bucket. Half of it is for those who have shown something for themselves: a flood that fills
/// lines would use up all of it.
#[inline(always)]
fn overflow<E: Environment>(environment: &E, spec: &Spec, amount: u32, sender: &Sender<'_>) -> bool {
    environment.note(Event::Overflow);
    let open = if matches!(sender.standing(environment), Standing::Stranger) {
        let (half, least) = (spec.depth >> 1, spec.charge(amount));
        if half > least { half } else { least }
    } else {
        spec.depth
    };
    if matches!(by_shared(environment, spec, amount, || open), Charge::Admitted) {
        return true;
    }
    sender.refused(environment);
    false
}

/// Charges the totals of a class (`tier` 2) or of the service (3), one after the other; the reason of the one that refuses.
#[inline(always)]
fn by_totals<E: Environment>(
    environment: &E,
    sender: &Sender<'_>,
    subject: &Subject,
    own: u32,
    tier: usize,
) -> Option<Reason> {
    by_total(environment, sender, subject, own, (tier, 0))
        .or_else(|| by_total(environment, sender, subject, own, (tier, 1)))
        .or_else(|| by_total(environment, sender, subject, own, (tier, 2)))
}

/// Charges one of them, named by tier and kind; the reason if it refuses. Only a service's has a part that is kept for some; without contention
/// nobody's standing matters, and none is looked up.
#[inline(always)]
fn by_total<E: Environment>(
    environment: &E,
    sender: &Sender<'_>,
    subject: &Subject,
    own: u32,
    (tier, kind): (usize, usize),
) -> Option<Reason> {
    let spec = &subject.buckets[tier][kind];
    let amount = amount(sender.packet, kind);
    if !environment.may_have(tier, kind) || !spec.exists() || amount == 0 {
        return None;
    }
    let reserve = tier == 3 && own & subject_flags::RESERVE != 0;
    let open = |standing| match standing {
        Standing::Stranger if reserve => subject.open[kind].stranger,
        Standing::Retry if reserve => subject.open[kind].retry,
        _ => spec.depth,
    };
    let shown = sender.standing.get();
    let mut result = by_shared(environment, spec, amount, || {
        open(match shown {
            Some(standing) => standing,
            None => Standing::Stranger,
        })
    });
    if reserve && matches!(result, Charge::Reserved) && shown.is_none() {
        let standing = sender.standing(environment);
        if !matches!(standing, Standing::Stranger) {
            result = by_shared(environment, spec, amount, || open(standing));
        }
    }
    match result {
        Charge::Admitted => return None,
        _ if reserve => sender.refused(environment),
        _ => {}
    }
    Some(if reserve && matches!(result, Charge::Reserved) {
        Reason::of_reserve(kind)
    } else {
        Reason::of_bucket(tier, kind)
    })
}

/// Counts a drop of a source towards its block.
#[inline(always)]
fn strike<E: Environment>(
    environment: &E,
    line: &E::Line,
    subject: &Subject,
    hash: u64,
    sender: &Sender<'_>,
) {
    let proven = matches!(sender.standing(environment), Standing::Proven);
    if matches!(
        environment.strike(line, &subject.block, hash, proven),
        Strike::Started
    ) {
        environment.note(Event::Blocked);
        environment.announce(sender.packet, subject, proven);
    }
}

/// Charges the shared cell of a bucket so far that its debt stays within `open`.
#[inline(always)]
fn by_shared<E: Environment>(environment: &E, spec: &Spec, amount: u32, open: impl Fn() -> u64) -> Charge {
    let charge = environment.charge_shared(spec, amount, open);
    if matches!(charge, Charge::Lost) {
        environment.note(Event::LostRace);
    }
    charge
}

/// Pays from this CPU's lease, or charges the shared cell so far that its debt stays within `open`: both are looked up only then. It leaves that to
/// `charge`, which is given what `open` is, only if it does not refuse at sight, for the kernel half has to call it.
#[inline(always)]
pub fn charge_shared<L: Leases, S: Shared>(
    leases: &L,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
    open: impl Fn() -> u64,
    cell: impl Fn() -> Option<S>,
    charge: impl Fn(&S, u64) -> Charge,
) -> Charge {
    if lease::spend(leases, spec, now_ns, amount) {
        return Charge::Admitted;
    }
    let open = open();
    match cell() {
        Some(cell) => match refused_at_sight(&cell, spec, now_ns, amount, open) {
            Some(refused) => refused,
            None => charge(&cell, open),
        },
        // Cannot be: every bucket has a cell.
        None => Charge::Refused,
    }
}

/// What [`shared_once`] comes to, if it is to refuse and to change nothing. (No lease is due where `open` is reached: it leaves at most half of what
/// strangers may charge, [`lease::shift`].)
#[inline(always)]
fn refused_at_sight<S: Shared>(
    shared: &S,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> Option<Charge> {
    let held = shared.get();
    let debt = gcra::debt(held, cell::SHARED_MASK, spec.clock(now_ns), spec.window);
    let cost = spec.charge(amount);
    if (held >> 62) as u8 == spec.version() && debt + cost > open {
        Some(refusal(debt, cost, spec))
    } else {
        None
    }
}

/// Tries to charge a shared cell until it does not lose its race. Everybody fights for it, so it is tried twice as often as a
/// source's own.
#[inline(always)]
pub fn race(once: impl Fn() -> Charge) -> Charge {
    for _ in 0..TRIES * 2 {
        let charge = once();
        if !matches!(charge, Charge::Lost) {
            return charge;
        }
    }
    Charge::Lost
}

/// Tries once to charge a shared cell, so far that its debt stays within `open`, which is at most the depth; and takes a
/// lease with it where one is due.
#[inline(always)]
pub fn shared_once<S: Shared, V: Versions, L: Leases>(
    shared: &S,
    versions: &V,
    leases: &L,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> Charge {
    let held = shared.get();
    let debt = shared_debt(held, versions, spec, now_ns);
    let cost = spec.charge(amount);
    // What a lease holds is written once it is paid; all else before, for what is kept over the race takes stack that a kernel function
    // does not have. Who loses a race has counted more than it has charged, and wants a larger lease.
    let slot = lease::slot(leases, spec, cost);
    let offer = slot
        .as_ref()
        .and_then(|slot| lease::offer(slot, spec, now_ns, leases.others(), debt, cost));
    let after = match offer {
        Some(offer) => offer.debt,
        None if debt + cost <= open => {
            if let Some(slot) = &slot {
                lease::count(slot, spec, now_ns, debt, cost);
            }
            debt + cost
        }
        None => {
            // A debt goes on at this spec's rate.
            let kept =
                (held >> 62) as u8 == spec.version() || shared.swap(held, shared_cell(spec, now_ns, debt));
            return if kept {
                refusal(debt, cost, spec)
            } else {
                Charge::Lost
            };
        }
    };
    if !shared.swap(held, shared_cell(spec, now_ns, after)) {
        return Charge::Lost;
    }
    if let (Some(slot), Some(offer)) = (&slot, offer) {
        slot.set(Field::Left, offer.size);
    }
    Charge::Admitted
}

/// What a shared cell holds that owes so much now: the version, and the time at which the bucket will be full.
#[inline(always)]
const fn shared_cell(spec: &Spec, now_ns: u64, debt: u64) -> u64 {
    let full_at = spec.clock(now_ns).wrapping_add(debt) & cell::SHARED_MASK;
    (spec.version() as u64) << 62 | full_at
}

/// What a charge that does not fit comes to.
#[inline(always)]
const fn refusal(debt: u64, cost: u64, spec: &Spec) -> Charge {
    if debt + cost > spec.depth {
        Charge::Refused
    } else {
        Charge::Reserved
    }
}

/// The debt that a shared cell stands for, in units of `spec`.
#[inline(always)]
pub fn shared_debt<V: Versions>(held: u64, versions: &V, spec: &Spec, now_ns: u64) -> u64 {
    let version = (held >> 62) as u8;
    if version == spec.version() {
        gcra::debt(held, cell::SHARED_MASK, spec.clock(now_ns), spec.window)
    } else if let Some(old) = versions.version(spec.id(), version) {
        spec.convert(
            gcra::debt(held, cell::SHARED_MASK, old.clock(now_ns), old.window),
            &old,
        )
    } else {
        0
    }
}
