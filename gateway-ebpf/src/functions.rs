//! Global functions: the verifier checks each of them once, for any arguments that its signature allows, and not again at
//! every call with all that led there. Inlined, their loops (cells, tries, kinds, tiers, rules) multiply beyond its limit
//! of a million instructions. Five arguments are the most that a BPF function has, and it must look at every pointer
//! before it follows it.

use gateway_core::{
    bucket::spec::Spec,
    classify,
    image::{PROTECT_RULES, Subject, half},
    judge, limit,
    line::{self, Amount, Block, Charge, Strike},
};

use crate::{
    PacketPlace,
    buckets::{Element, MapLeases, MapLine, MapShared, MapVersions},
    groups::Groups,
    maps, proofs,
};

/// [`line::tidy`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_tidy(element: *mut Element, now_ns: u64) -> u32 {
    if !element.is_null() && cfg!(not(feature = "lru")) {
        line::tidy(&MapLine::new(element), now_ns);
    }
    0
}

/// [`line::charge`]; the number of a [`Charge`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_charge(
    element: *mut Element,
    spec: *const Spec,
    hash: u64,
    now_ns: u64,
    amount: u32,
) -> u32 {
    line::charge(|| Charge::from_number(weir_charge_once(element, spec, hash, now_ns, amount))) as u32
}

/// [`line::charge_once`]; the number of a [`Charge`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_charge_once(
    element: *mut Element,
    spec: *const Spec,
    hash: u64,
    now_ns: u64,
    amount: u32,
) -> u32 {
    // SAFETY: null, or as the signature and the verifier have it: a whole spec.
    let Some(spec) = (unsafe { spec.as_ref() }) else {
        return Charge::Refused as u32;
    };
    if element.is_null() {
        return Charge::Refused as u32;
    }
    let amount = Amount::from_bits(amount);
    #[cfg(feature = "lru")]
    let charge = crate::lru::charge_once(spec, hash, now_ns, amount);
    #[cfg(not(feature = "lru"))]
    let charge = line::charge_once(&MapLine::new(element), &MapVersions, spec, hash, now_ns, amount);
    charge as u32
}

/// [`line::strike`]; the number of a [`Strike`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_strike(
    element: *mut Element,
    block: *const Block,
    hash: u64,
    now_ns: u64,
    proven: u32,
) -> u32 {
    line::strike(|| Strike::from_number(weir_strike_once(element, block, hash, now_ns, proven))) as u32
}

/// [`line::strike_once`]; the number of a [`Strike`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_strike_once(
    element: *mut Element,
    block: *const Block,
    hash: u64,
    now_ns: u64,
    proven: u32,
) -> u32 {
    // SAFETY: null, or a whole block.
    let Some(block) = (unsafe { block.as_ref() }) else {
        return 0;
    };
    if element.is_null() {
        return 0;
    }
    line::strike_once(&MapLine::new(element), block, hash, now_ns, proven != 0) as u32
}

/// [`limit::race`] for a shared cell; the number of a [`Charge`]. Whoever calls it has no lease that would do.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_shared(
    element: *mut Element,
    spec: *const Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> u32 {
    limit::race(|| Charge::from_number(weir_shared_once(element, spec, now_ns, amount, open))) as u32
}

/// [`limit::shared_once`]; the number of a [`Charge`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_shared_once(
    element: *mut Element,
    spec: *const Spec,
    now_ns: u64,
    amount: u32,
    open: u64,
) -> u32 {
    // SAFETY: null, or a whole spec.
    let Some(spec) = (unsafe { spec.as_ref() }) else {
        return Charge::Refused as u32;
    };
    if element.is_null() {
        return Charge::Refused as u32;
    }
    let shared = MapShared::new(element);
    limit::shared_once(&shared, &MapVersions, &MapLeases, spec, now_ns, amount, open) as u32
}

/// Puts [`judge::notice`] into the ring; not 0 if it did not fit.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_announce(
    place: *const PacketPlace,
    subject: *const Subject,
    generation: u32,
    now_ns: u64,
    whole: u32,
) -> u32 {
    // SAFETY: null, or a whole subject.
    let subject = unsafe { subject.as_ref() };
    let (Some(packet), Some(subject)) = (proofs::packet(place), subject) else {
        return 0;
    };
    let Some(generation) = proofs::generation(generation) else {
        return 1;
    };
    let mut notice = judge::notice(generation, packet, subject, now_ns, whole != 0);
    notice.interface = maps::interface();
    u32::from(maps::NOTICES.output(&notice, 0).is_err())
}

/// [`judge::protected`]; not 0 if it is.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_protected(
    generation: u32,
    rules: u64,
    protocol: u32,
    has_port: u32,
    port: u32,
) -> u32 {
    let port = if has_port == 0 { None } else { Some(port as u16) };
    let rule = |number| {
        maps::PROTECT
            .get(half(generation, PROTECT_RULES, number))
            .copied()
    };
    u32::from(judge::protected(rule, rules, protocol as u8, port))
}

/// [`classify::in_groups`]; `classes` is the destination's class and, in the low half, the source's.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn weir_groups(generation: u32, slot: u32, group: u32, base: u32, classes: u32) -> u32 {
    let groups = Groups {
        half: generation,
        slot,
    };
    classify::in_groups(
        &groups,
        group,
        base as u16,
        (classes >> 16) as u16,
        classes as u16,
    )
}
