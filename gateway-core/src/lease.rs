//! Leases: tokens of a total that one CPU has charged ahead, so that it need not fight for the total's cell at each packet.
//!
//! A total is one cell. Where CPUs charge it packet by packet, its cache line travels between them at each packet. A lease
//! is a batch that one compare-and-swap charges and that the CPU then uses up in memory of its own. What is not used is forfeited.
//!
//! # Never more
//!
//! Tokens that are charged before they are used are worth nothing once the bucket is full again: a lease used then would come on
//! top of a full burst. So a lease ends at the latest half way to the time at which the bucket would have been full again had the lease not been
//! charged. All leases that hold something therefore lie in the debt: debt − leases is at least what the bucket would owe if
//! each packet had been charged when it passed, and what passes conforms to the bucket. So that a lease lasts while little is owed, the debt is raised to a floor
//! when one is taken. (The other half is for clocks that differ by less. A packet whose clock was read before a lease ended, and which comes to use it long
//! after, because its CPU stood still or the coarse clock ticked meanwhile, may come on top: one packet of each CPU.)
//!
//! # How much less
//!
//! What leases, forfeited ones and the floor charge that no packet used makes a total refuse too early. All of it lies in the debt, so
//! it is at most the floor where that is what is owed. Beyond that each CPU knows its share: what is left of its lease, and what it has
//! [lost](Lease::lost) of those before. A CPU takes a lease only so large that both together stay within its budget, and the floor and all
//! budgets together are [worth](Terms) (CPUs − 1) × 0.1 % of one second's rate: a total admits at least what one admits whose burst is smaller by that.
//! A CPU that finds less owed, beyond the floor, than it has lost has lost no more than that, for what is paid off
//! is lost to nobody. One that knows nothing of a bucket, because its slot was another's, has lost all that is owed, as
//! far as anybody can tell.
//!
//! That holds however long the clock stands still between its ticks and however much is owed, up to half of what strangers may
//! charge, whoever takes the lease ([`Spec::leased`]): whoever comes next uses it, and a lease beyond that would let strangers
//! have what is kept for others. Beyond it each packet is charged by itself. One CPU alone takes no leases.

use crate::bucket::spec::Spec;

/// What each CPU but one may keep from a total, in nanoseconds of the total's refill: 0.1 % of a second's. A lease is smaller.
pub const WORTH_NS: u64 = 1_000_000;
/// After so long a lease is forfeited, and a count of what a CPU charges begins anew.
pub const LONGEST_NS: u64 = 10_000_000;
/// A batch of fewer charges than this is no lease.
pub const FEWEST: u64 = 16;
/// Slots of a CPU; a bucket's is the one of its number modulo this.
pub const SLOTS: u32 = 1024;

/// What a CPU holds of a bucket. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Lease {
    /// Whose it is: number and version of the bucket ([`Spec::label`]), so that another rate or burst makes it void.
    pub bucket: u64,
    /// When it ends, on the packet path's clock.
    pub until_ns: u64,
    /// What is left of it, in the bucket's units.
    pub left: u64,
    /// What this CPU has charged the bucket since the lease was taken (or the count began), the lease itself included, in the bucket's units: the
    /// next lease is about as large as what was used of that.
    pub charged: u64,
    /// What this CPU has charged the bucket beyond the floor and nobody has used, at most: what it has forfeited.
    /// Without what is left of the lease.
    pub lost: u64,
}

/// A word of a [`Lease`], by its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    /// [`Lease::bucket`].
    Bucket = 0,
    /// [`Lease::until_ns`].
    UntilNs = 1,
    /// [`Lease::left`].
    Left = 2,
    /// [`Lease::charged`].
    Charged = 3,
    /// [`Lease::lost`].
    Lost = 4,
}

/// Where a CPU keeps what it holds of a bucket. Nobody else reads or writes it. Word by word, for a whole lease in registers
/// would be spilled to a stack that has no room for it.
pub trait Slot {
    /// Reads a word.
    fn get(&self, field: Field) -> u64;
    /// Writes a word.
    fn set(&self, field: Field, value: u64);
}

impl Slot for &core::cell::Cell<Lease> {
    #[inline(always)]
    fn get(&self, field: Field) -> u64 {
        let lease = core::cell::Cell::get(self);
        match field {
            Field::Bucket => lease.bucket,
            Field::UntilNs => lease.until_ns,
            Field::Left => lease.left,
            Field::Charged => lease.charged,
            Field::Lost => lease.lost,
        }
    }

    #[inline(always)]
    fn set(&self, field: Field, value: u64) {
        let mut lease = core::cell::Cell::get(self);
        match field {
            Field::Bucket => lease.bucket = value,
            Field::UntilNs => lease.until_ns = value,
            Field::Left => lease.left = value,
            Field::Charged => lease.charged = value,
            Field::Lost => lease.lost = value,
        }
        core::cell::Cell::set(self, lease);
    }
}

/// The slots of the CPU that judges.
pub trait Leases {
    /// A slot.
    type Slot: Slot;

    /// How many other CPUs charge the same totals; 0: no leases are taken.
    fn others(&self) -> u64;
    /// The slot of a bucket's number.
    fn slot(&self, id: u32) -> Option<Self::Slot>;
}

/// For who takes no leases.
#[derive(Clone, Copy, Debug)]
pub struct NoLeases;

impl Leases for NoLeases {
    type Slot = &'static core::cell::Cell<Lease>;

    #[inline(always)]
    fn others(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn slot(&self, _id: u32) -> Option<Self::Slot> {
        None
    }
}

/// How far leases may charge a bucket, in its units.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// The deepest debt that a lease may leave.
    deepest: u64,
    /// What one CPU may keep from the bucket: a quarter of [`WORTH_NS`].
    budget: u64,
    /// What is owed at least when a lease is taken: what all budgets leave of what CPUs may keep, or less.
    floor: u64,
}

impl Terms {
    /// For a bucket that so many other CPUs charge.
    #[inline(always)]
    const fn new(spec: &Spec, others: u64) -> Self {
        let (worth, deepest) = (spec.clock(WORTH_NS), spec.depth >> (spec.leased & 63));
        let budget = worth >> 2;
        // Half of it is how long a lease lasts.
        let longest = least(spec.clock(2 * LONGEST_NS), deepest >> 1);
        Self {
            deepest,
            budget: least(budget, deepest >> 2),
            floor: least(longest, (worth - budget) * others - budget),
        }
    }

    /// The largest lease of a CPU that has lost so much: half of what it may still lose, so that a few that are forfeited do not end them all.
    #[inline(always)]
    const fn largest(&self, lost: u64) -> u64 {
        self.budget.saturating_sub(lost) >> 1
    }

    /// Whether there may be leases of a bucket that charges so much a packet.
    #[inline(always)]
    const fn allow(&self, cost: u64) -> bool {
        self.largest(0) >= FEWEST * cost
    }
}

/// What [`Spec::leased`] is for a total of this depth of which strangers may charge so much: the least shift of the depth that leaves at most half of it.
#[must_use]
pub const fn shift(depth: u64, stranger: u64) -> u8 {
    let mut shift = 1;
    while shift < 63 && depth >> shift > stranger >> 1 {
        shift += 1;
    }
    shift
}

#[inline(always)]
const fn least(one: u64, other: u64) -> u64 {
    if one < other { one } else { other }
}

/// Whose a lease of this bucket is.
#[inline(always)]
const fn bucket(spec: &Spec) -> u64 {
    spec.label() as u64
}

/// Whether a slot is this bucket's.
#[inline(always)]
fn owns<S: Slot>(slot: &S, spec: &Spec) -> bool {
    slot.get(Field::Bucket) == bucket(spec)
}

/// Whether what a slot holds is not over. A time that lies too far ahead is over too: the clock went back.
#[inline(always)]
fn lasts<S: Slot>(slot: &S, now_ns: u64) -> bool {
    let until_ns = slot.get(Field::UntilNs);
    until_ns.wrapping_sub(now_ns).wrapping_sub(1) < LONGEST_NS
}

/// How large the next lease should be. One that was used up before its end grows; one that was not becomes a little smaller than its use, so
/// that hardly anything is forfeited.
#[inline(always)]
fn wanted<S: Slot>(slot: &S, spec: &Spec, now_ns: u64) -> u64 {
    if !owns(slot, spec) {
        return 0;
    }
    let used = slot.get(Field::Charged).saturating_sub(slot.get(Field::Left));
    if lasts(slot, now_ns) {
        used + (used >> 2)
    } else {
        used - (used >> 3)
    }
}

/// Pays for a packet from a lease; whether there was one that held enough.
#[inline(always)]
pub fn spend<L: Leases>(leases: &L, spec: &Spec, now_ns: u64, amount: u32) -> bool {
    if spec.leased == 0 || leases.others() == 0 {
        return false;
    }
    let Some(slot) = leases.slot(spec.id()) else {
        return false;
    };
    let (left, cost) = (slot.get(Field::Left), spec.charge(amount));
    if left < cost || !owns(&slot, spec) || !lasts(&slot, now_ns) {
        return false;
    }
    slot.set(Field::Left, left - cost);
    true
}

/// The slot of a bucket, where it may have leases for charges of this size.
#[inline(always)]
pub fn slot<L: Leases>(leases: &L, spec: &Spec, cost: u64) -> Option<L::Slot> {
    if spec.leased == 0 || leases.others() == 0 || !Terms::new(spec, leases.others()).allow(cost) {
        return None;
    }
    leases.slot(spec.id())
}

/// What one compare-and-swap is to charge, and what the CPU then holds.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The debt that it leaves, with the packet and the lease.
    pub debt: u64,
    /// How much it is, in the bucket's units.
    pub size: u64,
}

/// A lease together with the charge of a packet, if one is due and the debt allows it. The slot has it then, but for
/// [what is left](Field::Left) of it, which is nothing before it is paid. (Written before, for what is kept over the race takes stack. Who loses it has
/// counted more than was charged, and wants a larger lease the next time.)
#[inline(always)]
pub fn offer<S: Slot>(
    slot: &S,
    spec: &Spec,
    now_ns: u64,
    others: u64,
    debt: u64,
    cost: u64,
) -> Option<Offer> {
    let terms = Terms::new(spec, others);
    let beyond = debt.saturating_sub(terms.floor);
    // What is left of the lease before is given up. (A slot that was another bucket's wants nothing yet.)
    let lost = least(slot.get(Field::Lost) + slot.get(Field::Left), beyond);
    let size = least(wanted(slot, spec, now_ns), terms.largest(lost));
    let owed = terms.floor + beyond;
    let after = owed + cost + size;
    if size < FEWEST * cost || after > terms.deepest {
        return None;
    }
    let lasts_ns = least(spec.nanoseconds(owed) >> 1, LONGEST_NS);
    slot.set(Field::Bucket, bucket(spec));
    slot.set(Field::UntilNs, now_ns + lasts_ns);
    slot.set(Field::Left, 0);
    slot.set(Field::Charged, size);
    slot.set(Field::Lost, lost);
    Some(Offer { debt: after, size })
}

/// Counts a packet that is charged by itself to a bucket that owed `debt`, so that the next lease fits this CPU's traffic. What is left of
/// a lease that is over is lost then; how much of that is paid off [`offer`] finds out.
#[inline(always)]
pub fn count<S: Slot>(slot: &S, spec: &Spec, now_ns: u64, debt: u64, cost: u64) {
    if !owns(slot, spec) {
        slot.set(Field::Bucket, bucket(spec));
        slot.set(Field::Lost, debt);
    } else if lasts(slot, now_ns) {
        slot.set(Field::Charged, slot.get(Field::Charged) + cost);
        return;
    } else {
        slot.set(Field::Lost, slot.get(Field::Lost) + slot.get(Field::Left));
    }
    slot.set(Field::UntilNs, now_ns + LONGEST_NS);
    slot.set(Field::Left, 0);
    slot.set(Field::Charged, cost);
}
