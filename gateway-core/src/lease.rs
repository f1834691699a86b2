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
//! when one is taken. (The other half is for clocks that differ. A CPU that stands still between reading its clock and using its lease,
//! for longer than that, uses it late: at most that lease.)
//!
//! # How much less
//!
//! What leases, forfeited ones and the floor charge that no packet used is never more than the debt, and it grows only when
//! a lease is taken, which leaves a debt of at most a millisecond's refill for each other CPU ([`Terms::deepest`]). So a
//! total admits at least what one admits whose burst is smaller by that: by (CPUs − 1) × 0.1 % of one second's rate. Beyond that debt, and beyond
//! half of what strangers may charge, each packet is charged by itself. One CPU alone takes no leases.

use crate::bucket::spec::Spec;

/// A lease is worth at most so many nanoseconds of its bucket's refill: 0.1 % of a second's.
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
    /// Whose it is: number and version of the bucket, so that another rate or burst makes it void.
    pub bucket: u64,
    /// When it ends, on the packet path's clock.
    pub until_ns: u64,
    /// What is left of it, in the bucket's units.
    pub left: u64,
    /// What this CPU has charged the bucket since the lease was taken (or the count began), in the bucket's units: the
    /// next lease is about as large as this one's use.
    pub used: u64,
}

/// Where a CPU keeps what it holds of a bucket. Nobody else reads or writes it.
pub trait Slot {
    /// Reads it.
    fn get(&self) -> Lease;
    /// Writes it.
    fn set(&self, lease: Lease);
}

impl Slot for &core::cell::Cell<Lease> {
    #[inline(always)]
    fn get(&self) -> Lease {
        core::cell::Cell::get(self)
    }

    #[inline(always)]
    fn set(&self, lease: Lease) {
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
    /// The largest lease.
    largest: u64,
    /// What is owed at least when a lease is taken.
    floor: u64,
}

impl Terms {
    /// For a bucket that is charged so that its debt stays within `open`.
    #[inline(always)]
    const fn new(spec: &Spec, others: u64, open: u64) -> Self {
        let worth = spec.clock(WORTH_NS);
        let deepest = least(worth * others, open >> 1);
        Self {
            deepest,
            // Floor, and a lease for each of two CPUs, with room for what passes meanwhile.
            largest: least(worth, deepest >> 3),
            // Half of it is how long a lease lasts.
            floor: least(spec.clock(2 * LONGEST_NS), deepest >> 1),
        }
    }

    /// Whether there may be leases of a bucket that charges so much a packet.
    #[inline(always)]
    const fn allow(&self, cost: u64) -> bool {
        self.largest >= FEWEST * cost
    }
}

#[inline(always)]
const fn least(one: u64, other: u64) -> u64 {
    if one < other { one } else { other }
}

impl Lease {
    /// Whose a lease of this bucket is.
    #[inline(always)]
    const fn of(spec: &Spec) -> u64 {
        (spec.id as u64) << 2 | spec.version as u64
    }

    /// Whether it is of this bucket, and not over. A time that lies too far ahead is over too: the clock went back.
    #[inline(always)]
    const fn holds(&self, spec: &Spec, now_ns: u64) -> bool {
        self.bucket == Self::of(spec) && self.until_ns.wrapping_sub(now_ns).wrapping_sub(1) < LONGEST_NS
    }

    /// After a packet that was charged by itself.
    #[inline(always)]
    const fn counted(self, spec: &Spec, now_ns: u64, cost: u64) -> Self {
        if self.holds(spec, now_ns) {
            Self {
                used: self.used + cost,
                ..self
            }
        } else {
            Self {
                bucket: Self::of(spec),
                until_ns: now_ns + LONGEST_NS,
                left: 0,
                used: cost,
            }
        }
    }

    /// How large the next one should be. One that was used up before its end grows; one that was not becomes a little smaller than its use, so
    /// that hardly anything is forfeited.
    #[inline(always)]
    const fn wanted(&self, spec: &Spec, now_ns: u64) -> u64 {
        if self.bucket != Self::of(spec) {
            0
        } else if self.holds(spec, now_ns) {
            self.used + (self.used >> 2)
        } else {
            self.used - (self.used >> 3)
        }
    }
}

/// Pays for a packet from a lease; whether there was one that held enough.
#[inline(always)]
pub fn spend<L: Leases>(leases: &L, spec: &Spec, now_ns: u64, amount: u32) -> bool {
    if spec.leased == 0 || leases.others() == 0 {
        return false;
    }
    let Some(slot) = leases.slot(spec.id) else {
        return false;
    };
    let (lease, cost) = (slot.get(), spec.charge(amount));
    if !lease.holds(spec, now_ns) || lease.left < cost {
        return false;
    }
    slot.set(Lease {
        left: lease.left - cost,
        used: lease.used + cost,
        ..lease
    });
    true
}

/// What one compare-and-swap is to charge, and what the CPU then holds.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The debt that it leaves, with the packet and the lease.
    pub debt: u64,
    /// When the lease ends.
    pub until_ns: u64,
    /// How much it is, in the bucket's units.
    pub size: u64,
}

impl Offer {
    /// The lease, once it is paid.
    #[inline(always)]
    pub const fn lease(&self, spec: &Spec) -> Lease {
        Lease {
            bucket: Lease::of(spec),
            until_ns: self.until_ns,
            left: self.size,
            used: 0,
        }
    }
}

/// The slot of a bucket, where it may have leases for charges of this size.
#[inline(always)]
pub fn slot<L: Leases>(leases: &L, spec: &Spec, cost: u64, open: u64) -> Option<L::Slot> {
    if spec.leased == 0 || leases.others() == 0 || !Terms::new(spec, leases.others(), open).allow(cost) {
        return None;
    }
    leases.slot(spec.id)
}

/// A lease together with the charge of a packet, if one is due and the debt allows it.
#[inline(always)]
pub const fn offer(
    held: &Lease,
    spec: &Spec,
    now_ns: u64,
    others: u64,
    debt: u64,
    cost: u64,
    open: u64,
) -> Option<Offer> {
    let terms = Terms::new(spec, others, open);
    let size = least(held.wanted(spec, now_ns), terms.largest);
    if size < FEWEST * cost {
        return None;
    }
    let owed = if debt > terms.floor { debt } else { terms.floor };
    let after = owed + cost + size;
    if after > terms.deepest {
        return None;
    }
    let lasts_ns = least(spec.nanoseconds(owed) >> 1, LONGEST_NS);
    Some(Offer {
        debt: after,
        until_ns: now_ns + lasts_ns,
        size,
    })
}

/// Notes a packet that was charged by itself, so that the next lease fits this CPU's traffic.
#[inline(always)]
pub fn note<S: Slot>(slot: &S, held: Lease, spec: &Spec, now_ns: u64, cost: u64) {
    slot.set(held.counted(spec, now_ns, cost));
}
