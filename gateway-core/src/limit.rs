//! Judging a packet to a service by its block and its buckets, tier by tier, and charging them.

use crate::{
    bucket::{cell, gcra, spec::Spec},
    hash::{self, Domain},
    image::{Generation, KINDS, Subject, flags, list_flags, subject_flags},
    judge::{Environment, Event, Judgement, Shared, verdict},
    line::{Block, Charge, Strike, TRIES, Versions},
    packet::{Address, Packet},
    verdict::Reason,
};

/// Judges a packet to a service by its blocks and buckets.
#[inline(always)]
pub fn limit<E: Environment>(
    environment: &E,
    generation: &Generation,
    packet: &Packet,
    v6: bool,
    listed: u32,
    number: u32,
    subject: &Subject,
) -> Judgement {
    let trusted = listed & list_flags::TRUST != 0;
    let mut watch = (generation.flags | subject.flags) & flags::MONITOR != 0;
    let family = if v6 { 6 } else { 4 };
    let by_source = subject.flags & (subject_flags::TIER | subject_flags::BLOCK) != 0
        && !trusted
        && listed & list_flags::PROXY == 0;
    let mut reason = if trusted { Reason::Trust } else { Reason::Pass };

    'judged: {
        if by_source || subject.enforce_share != u32::MAX {
            let source = masked(v6, &packet.source, generation.source_v4, &generation.source_v6);
            let hash = hash::hash(environment.key(), Domain::Source, family, &source);
            watch |= subject.enforce_share != u32::MAX && hash::share(hash) >= subject.enforce_share;
            if by_source && let Some(refused) = by_own_buckets(environment, packet, subject, hash, watch) {
                reason = refused;
                break 'judged;
            }
        }
        if subject.flags & subject_flags::TIER << 1 != 0 && !trusted {
            let network = masked(v6, &packet.source, subject.network_v4, &subject.network_v6);
            let hash = hash::hash(environment.key(), Domain::Network, family, &network);
            if let Some(line) = environment.line(hash) {
                environment.tidy(&line);
                for kind in 0..KINDS {
                    if !charged(
                        environment,
                        &line,
                        &subject.buckets[1][kind],
                        hash,
                        amount(packet, kind),
                    ) {
                        reason = Reason::of_bucket(1, kind);
                        break 'judged;
                    }
                }
            }
        }
        if subject.flags & (subject_flags::TIER << 2 | subject_flags::TIER << 3) != 0 {
            for tier in 2..4 {
                for kind in 0..KINDS {
                    let spec = &subject.buckets[tier][kind];
                    let amount = amount(packet, kind);
                    if spec.exists() && amount != 0 && !admits_shared(environment, spec, amount) {
                        reason = Reason::of_bucket(tier, kind);
                        break 'judged;
                    }
                }
            }
        }
    }
    Judgement {
        verdict: verdict(reason, watch),
        reason,
        subject: number,
    }
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

/// An address under the mask of its family.
#[inline(always)]
fn masked(v6: bool, address: &Address, v4_mask: u32, v6_mask: &Address) -> Address {
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

/// Judges a packet by its source's block and buckets; the reason if they refuse it.
#[inline(always)]
fn by_own_buckets<E: Environment>(
    environment: &E,
    packet: &Packet,
    subject: &Subject,
    hash: u64,
    watch: bool,
) -> Option<Reason> {
    let line = environment.line(hash)?;
    environment.tidy(&line);
    let blocking = subject.flags & subject_flags::BLOCK != 0;
    if blocking && environment.blocked(&line, &subject.block, hash) {
        return Some(Reason::Block);
    }
    for kind in 0..KINDS {
        if !charged(
            environment,
            &line,
            &subject.buckets[0][kind],
            hash,
            amount(packet, kind),
        ) {
            if blocking && !watch {
                strike(environment, &line, &subject.block, hash);
            }
            return Some(Reason::of_bucket(0, kind));
        }
    }
    None
}

/// Charges a bucket of a source or network, or its overflow bucket; whether it admits.
#[inline(always)]
fn charged<E: Environment>(environment: &E, line: &E::Line, spec: &Spec, hash: u64, amount: u32) -> bool {
    if !spec.exists() || amount == 0 {
        return true;
    }
    for _ in 0..TRIES {
        match environment.charge_once(line, spec, hash, amount) {
            Charge::Admitted => return true,
            Charge::Refused => return false,
            Charge::Full => {
                environment.note(Event::Overflow);
                return admits_shared(environment, spec, amount);
            }
            Charge::Lost => {}
        }
    }
    environment.note(Event::LostRace);
    false
}

/// Counts a drop of a source towards its block. A count that loses every race is lost: it delays a block by a packet.
#[inline(always)]
fn strike<E: Environment>(environment: &E, line: &E::Line, block: &Block, hash: u64) {
    for _ in 0..TRIES {
        match environment.strike_once(line, block, hash) {
            Strike::Counted => return,
            Strike::Started => return environment.note(Event::Blocked),
            Strike::Lost => {}
        }
    }
}

/// Charges a shared cell; whether it admits. Everybody fights for it, so it is tried twice as often as a source's own.
#[inline(always)]
fn admits_shared<E: Environment>(environment: &E, spec: &Spec, amount: u32) -> bool {
    let Some(cell) = environment.shared(spec.id) else {
        return false;
    };
    for _ in 0..TRIES * 2 {
        match environment.shared_once(&cell, spec, amount) {
            Charge::Admitted => return true,
            Charge::Refused | Charge::Full => return false,
            Charge::Lost => {}
        }
    }
    environment.note(Event::LostRace);
    false
}

/// Tries once to charge a shared cell.
#[inline(always)]
pub fn shared_once<S: Shared, V: Versions>(
    shared: &S,
    versions: &V,
    spec: &Spec,
    now_ns: u64,
    amount: u32,
) -> Charge {
    let now = spec.clock(now_ns);
    let held = shared.get();
    let version = (held >> 62) as u8;
    let debt = if version == spec.version {
        gcra::debt(held, cell::SHARED_MASK, now, spec.window)
    } else if let Some(old) = versions.version(spec.id, version) {
        spec.convert(
            gcra::debt(held, cell::SHARED_MASK, old.clock(now_ns), old.window),
            &old,
        )
    } else {
        0
    };
    let (time, charge) = match gcra::admit(debt, cell::SHARED_MASK, now, spec.charge(amount), spec.depth) {
        Some(time) => (time, Charge::Admitted),
        // The debt goes on at this spec's rate.
        None if version != spec.version => (now.wrapping_add(debt) & cell::SHARED_MASK, Charge::Refused),
        None => return Charge::Refused,
    };
    if shared.swap(held, u64::from(spec.version) << 62 | time) {
        charge
    } else {
        Charge::Lost
    }
}
