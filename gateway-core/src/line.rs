//! A line of the source table: a stamp and seven cells, in one cache line.
//!
//! The stamp says in which tick (2²² ns) the line was last tidied, whether it may have blocks, and when a source of it last proved itself; the first packet of a tick to touch a line empties
//! its stale cells ([`crate::bucket::cell`] says why that is enough). A source's buckets and its block are cells of the line
//! that its hash names, found by tag; a bucket that is full needs no cell. A cell in debt is never given to somebody else:
//! a newcomer takes a free one, then a drop count, then a block, and if there is none it is judged by the
//! overflow bucket. The last two cells of a line are kept for proven sources.

use crate::bucket::{
    cell::{self, Use},
    gcra,
    spec::Spec,
};

/// Words in a line: the stamp and the cells.
pub const WORDS: usize = 8;
/// From this word on, cells are kept for sources that have proven themselves ([`crate::proof`]): what others send cannot fill them.
pub const KEPT: usize = 6;
/// How often a lost compare-and-swap is tried again before the packet is refused.
pub const TRIES: usize = 8;
/// A tick, as a shift of nanoseconds.
pub const TICK_SHIFT: u32 = 22;
/// Bits of the stamp that are a tick: 292 years.
pub const TICK_BITS: u32 = 41;
/// Set in the stamp while a cell of the line may be a block: nearly no line has one, and a packet that sees it need not look for its own.
const BLOCKS: u64 = 1 << TICK_BITS;
/// Bits of the stamp that are a tick and [`BLOCKS`]. Those above them are [`crate::proof`]'s, and nobody else changes them.
pub const STAMP_BITS: u32 = TICK_BITS + 1;
/// The most ticks that a line may wait to be tidied: a second.
pub const MOST_PATIENCE: u32 = 240;

/// A line, shared by all CPUs. `at` is always below [`WORDS`].
pub trait Line {
    /// Reads a word.
    fn get(&self, at: usize) -> u64;
    /// Replaces a word if it is `old`; whether it did.
    fn swap(&self, at: usize, old: u64, new: u64) -> bool;
}

/// How much is charged, and whether its source has proven itself: a function of the kernel half has no room for a sixth argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct Amount(u32);

impl Amount {
    const PROVEN: u32 = 1 << 31;

    /// Packets, connections or bytes (frames are far below 2³¹ bytes).
    #[inline(always)]
    pub const fn new(number: u32, proven: bool) -> Self {
        Self(number & !Self::PROVEN | (proven as u32) << 31)
    }

    /// From [`Self::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Both in one number.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Packets, connections or bytes.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0 & !Self::PROVEN
    }

    #[inline(always)]
    const fn proven(self) -> bool {
        self.0 & Self::PROVEN != 0
    }
}

/// What charging a bucket came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Charge {
    /// Admitted, and charged.
    Admitted = 0,
    /// Refused, and not charged.
    Refused = 1,
    /// No cell is free: the overflow bucket decides.
    Full = 2,
    /// Every try lost its race: refused.
    Lost = 3,
    /// Refused, and not charged; a source of higher standing would have been admitted.
    Reserved = 4,
}

impl Charge {
    /// From its number; what is no number of one refuses.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Admitted,
            2 => Self::Full,
            3 => Self::Lost,
            4 => Self::Reserved,
            _ => Self::Refused,
        }
    }
}

/// How specs of other versions are found when a cell carries one (a rate was changed since).
pub trait Versions {
    /// The spec of bucket `id` in `version`.
    fn version(&self, id: u32, version: u8) -> Option<Spec>;
}

/// Whether nobody has tidied a line for more than so many ticks. A stamp of the future is another CPU's later clock.
///
/// Tidying takes a compare-and-swap, which waits until the line has come from memory; a packet whose bucket refuses it takes none
/// otherwise. So a flood of very many sources costs what its cache misses cost only if lines are tidied seldom.
#[inline(always)]
pub fn untidy<L: Line>(line: &L, now_ns: u64, patience: u32) -> bool {
    now_ns >> TICK_SHIFT > tick_of(line.get(0)) + u64::from(patience)
}

/// The tick of a stamp.
#[inline(always)]
const fn tick_of(stamp: u64) -> u64 {
    stamp & ((1 << TICK_BITS) - 1)
}

/// For how long a line of this stamp has not been tidied at least: from the end of the stamp's tick on.
#[inline(always)]
pub const fn rested_ns(stamp: u64, now_ns: u64) -> u64 {
    (now_ns >> TICK_SHIFT)
        .saturating_sub(tick_of(stamp))
        .saturating_sub(1)
        << TICK_SHIFT
}

/// Empties the stale cells of a line if nobody has done so in this tick.
#[inline(always)]
pub fn tidy<L: Line>(line: &L, now_ns: u64) {
    let stamp = line.get(0);
    let tick = now_ns >> TICK_SHIFT;
    if tick <= tick_of(stamp) {
        return;
    }
    // [`cell::used`] allows for the touches that patience let pass after the stamp's tick.
    let rested_ns = rested_ns(stamp, now_ns);
    let mut blocks = 0;
    for at in 1..WORDS {
        let held = line.get(at);
        if held == 0 {
            continue;
        }
        match cell::used(held, now_ns, rested_ns) {
            Use::Free => {
                // Lost to somebody who charged it meanwhile: then it is not stale.
                let _ = line.swap(at, held, 0);
            }
            Use::Block => blocks = BLOCKS,
            _ => {}
        }
    }
    // After the cells: who sees the new stamp must not see a stale cell.
    let tidied = line.swap(0, stamp, stamp >> STAMP_BITS << STAMP_BITS | blocks | tick);
    if tidied && stamp & !blocks & BLOCKS != 0 {
        // Who has begun a block meanwhile, and has seen the bit still set, did so before it was cleared.
        for at in 1..WORDS {
            if cell::blocks(line.get(at), now_ns) {
                return raise(line);
            }
        }
    }
}

/// Says in the stamp of a line that it has a block. Who loses every race leaves it to the source's next drop.
#[inline(always)]
fn raise<L: Line>(line: &L) {
    for _ in 0..TRIES {
        let stamp = line.get(0);
        if stamp & BLOCKS != 0 || line.swap(0, stamp, stamp | BLOCKS) {
            return;
        }
    }
}

/// Where a tag is: its place and the cell, or place 0.
#[inline(always)]
fn find<L: Line>(line: &L, tag: u64) -> (usize, u64) {
    for at in 1..WORDS {
        let held = line.get(at);
        if cell::tag_of(held) == tag && held != 0 {
            return (at, held);
        }
    }
    (0, 0)
}

/// The place of the first cell of this use among those that are open to a source, and what it holds; place 0 if there is none.
#[inline(always)]
fn first<L: Line>(line: &L, now_ns: u64, proven: bool, wanted: Use) -> (usize, u64) {
    for at in 1..WORDS {
        if at >= KEPT && !proven {
            break;
        }
        let held = line.get(at);
        if cell::used(held, now_ns, 0) as u8 == wanted as u8 {
            return (at, held);
        }
    }
    (0, 0)
}

/// The place of a cell that may be taken for a debt, and what it holds; place 0 if there is none. Passes over the line one use at a
/// time, the least valuable first: keeping the best of several in one pass would multiply the ways that the
/// kernel's verifier must follow. No loop over the uses: one that the compiler leaves as it is, kernel 6.1 refuses.
#[inline(always)]
fn vacancy<L: Line>(line: &L, now_ns: u64, proven: bool) -> (usize, u64) {
    let free = first(line, now_ns, proven, Use::Free);
    if free.0 != 0 {
        return free;
    }
    // Where there are debts alone, as in a flood that has filled the line, no other pass would find anything.
    let mut yields = false;
    for at in 1..WORDS {
        yields |= cell::yields(line.get(at));
    }
    if !yields {
        return (0, 0);
    }
    let strikes = first(line, now_ns, proven, Use::Strikes);
    if strikes.0 != 0 {
        return strikes;
    }
    first(line, now_ns, proven, Use::Block)
}

/// Tries to charge a source's bucket until it does not lose its race; [`Charge::Lost`] if it lost all of them.
#[inline(always)]
pub fn charge(once: impl Fn() -> Charge) -> Charge {
    for _ in 0..TRIES {
        let charge = once();
        if !matches!(charge, Charge::Lost) {
            return charge;
        }
    }
    Charge::Lost
}

/// Where the cell of this label is, and what it holds: of its tag, and charged by the spec in force.
#[inline(always)]
fn found<L: Line>(line: &L, label: u64) -> Option<(usize, u64)> {
    if label == 0 {
        // It would find a free cell.
        return None;
    }
    for at in 1..WORDS {
        let held = line.get(at);
        if cell::label_of(held) == label {
            return Some((at, held));
        }
    }
    None
}

/// Tries once to charge a source's bucket `cost` of its units, whose cell is there, and of this spec; nothing where it is not, or another CPU was
/// faster: then [`charge`] does it. So short that the kernel half can spare nearly every packet a call.
#[inline(always)]
pub fn charge_found<L: Line>(line: &L, spec: &Spec, hash: u64, now_ns: u64, cost: u64) -> Option<Charge> {
    let label = cell::label(hash, spec.label());
    let (at, held) = found(line, label)?;
    let now = spec.clock(now_ns);
    let debt = gcra::debt(held, cell::TIME_MASK, now, spec.window);
    match gcra::admit(debt, cell::TIME_MASK, now, cost, spec.depth) {
        Some(time) if line.swap(at, held, cell::bucket(label, time)) => Some(Charge::Admitted),
        Some(_) => None,
        None => Some(Charge::Refused),
    }
}

/// Tries once to charge a source's bucket; [`Charge::Lost`] if another CPU was faster.
#[inline(always)]
pub fn charge_once<L: Line, V: Versions>(
    line: &L,
    versions: &V,
    spec: &Spec,
    hash: u64,
    now_ns: u64,
    amount: Amount,
) -> Charge {
    let proven = amount.proven();
    let amount = amount.number();
    let tag = cell::tag(hash, spec.id());
    let now = spec.clock(now_ns);
    let cost = spec.charge(amount);
    let (mut at, held) = find(line, tag);
    let mut old = held;
    let debt = if at == 0 {
        if cost > spec.depth {
            return Charge::Refused;
        }
        (at, old) = vacancy(line, now_ns, proven);
        if at == 0 {
            return Charge::Full;
        }
        0
    } else {
        debt(versions, spec, held, now, now_ns)
    };
    let changed = of_another_spec(held, spec);
    let (time, charge) = match gcra::admit(debt, cell::TIME_MASK, now, cost, spec.depth) {
        Some(time) => (time, Charge::Admitted),
        // The debt goes on at this spec's rate, or a source would wait for the old one before the new one counts.
        None if held != 0 && changed => (now.wrapping_add(debt), Charge::Refused),
        None => return Charge::Refused,
    };
    let new = cell::bucket(cell::label(hash, spec.label()), time);
    if line.swap(at, old, new) && (held != 0 || alone(line, at, tag, new)) {
        charge
    } else {
        Charge::Lost
    }
}

/// Whether a cell was charged by another spec of its bucket.
#[inline(always)]
const fn of_another_spec(held: u64, spec: &Spec) -> bool {
    cell::exponent_of(held) as u8 != spec.exponent() || cell::version_of(held) != spec.version()
}

/// The debt that a found cell stands for, in units of `spec`.
#[inline(always)]
fn debt<V: Versions>(versions: &V, spec: &Spec, held: u64, now: u64, now_ns: u64) -> u64 {
    if !of_another_spec(held, spec) {
        return gcra::debt(held, cell::TIME_MASK, now, spec.window);
    }
    match versions.version(spec.id(), cell::version_of(held)) {
        Some(old) => {
            let debt = gcra::debt(held, cell::TIME_MASK, old.clock(now_ns), old.window);
            spec.convert(debt, &old)
        }
        None => 0,
    }
}

/// What a source owes to its bucket, in units of `spec`; 0 where the bucket is full. Changes nothing.
pub fn owed<L: Line, V: Versions>(line: &L, versions: &V, spec: &Spec, hash: u64, now_ns: u64) -> u64 {
    match find(line, cell::tag(hash, spec.id())) {
        (0, _) => 0,
        (_, held) => debt(versions, spec, held, spec.clock(now_ns), now_ns),
    }
}

/// Until when the block `id` of a source lasts, on the kernel's clock; 0 where there is none. Changes nothing.
pub fn blocked_until_ns<L: Line>(line: &L, id: u32, hash: u64, now_ns: u64) -> u64 {
    match find(line, cell::tag(hash, id)) {
        (at, held) if at != 0 => cell::block_end_ns(held, now_ns),
        _ => 0,
    }
}

/// Whether a cell just filled is the only one of its tag. Two CPUs may have seen different cells free and both have
/// filled one for the same source; whoever sees the other's takes its own back and charges again.
#[inline(always)]
fn alone<L: Line>(line: &L, filled: usize, tag: u64, new: u64) -> bool {
    for at in 1..WORDS {
        let held = line.get(at);
        if at != filled && held != 0 && cell::tag_of(held) == tag {
            // If the swap fails, the other CPU has charged this one: it stays, and the other goes.
            return !line.swap(filled, new, 0);
        }
    }
    true
}

/// What is blocked of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Blocked {
    /// Nothing.
    Nothing = 0,
    /// Its new connections.
    Connections = 1,
    /// All that it sends.
    Whole = 2,
}

impl Blocked {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Connections,
            2 => Self::Whole,
            _ => Self::Nothing,
        }
    }
}

/// What is blocked of a source.
#[inline(always)]
pub fn blocked<L: Line>(line: &L, block: &Block, hash: u64, now_ns: u64) -> Blocked {
    if line.get(0) & BLOCKS == 0 {
        return Blocked::Nothing;
    }
    let (at, held) = find(line, cell::tag(hash, block.id));
    if at == 0 || !cell::blocks(held, now_ns) {
        Blocked::Nothing
    } else if cell::is_whole(held) {
        Blocked::Whole
    } else {
        Blocked::Connections
    }
}

/// A block's terms.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Block {
    /// Its number, part of its cells' tags; 0: no block.
    pub id: u32,
    /// Drops that start it, 1 to [`cell::MAX_DROPS`].
    pub drops: u32,
    /// Within which time, in units of 2²⁶ ns, rounded up.
    pub within: u32,
    /// Not used.
    pub reserved: u32,
    /// How long it lasts, in nanoseconds.
    pub for_ns: u64,
}

/// What counting a drop came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Strike {
    /// Counted, or there was no room to count it.
    Counted = 0,
    /// This drop started the block.
    Started = 1,
    /// Another CPU was faster.
    Lost = 2,
}

impl Strike {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Started,
            2 => Self::Lost,
            _ => Self::Counted,
        }
    }
}

/// Tries to count a drop of a source towards its block. A count that loses every race is lost: it delays a block by a packet.
#[inline(always)]
pub fn strike(once: impl Fn() -> Strike) -> Strike {
    for _ in 0..TRIES {
        let strike = once();
        if !matches!(strike, Strike::Lost) {
            return strike;
        }
    }
    Strike::Lost
}

/// Tries once to count a drop of a source towards its block. One that has proven itself is blocked whole: of any other,
/// which may be somebody else's invention, only the new connections are.
#[inline(always)]
pub fn strike_once<L: Line>(line: &L, block: &Block, hash: u64, now_ns: u64, proven: bool) -> Strike {
    let tag = cell::tag(hash, block.id);
    let (mut at, mut held) = find(line, tag);
    let (mut since, mut drops) = (now_ns >> cell::STRIKE_SHIFT, 0);
    if at == 0 {
        // Only a free cell: a count takes nobody's place.
        (at, held) = first(line, now_ns, proven, Use::Free);
        if at == 0 {
            return Strike::Counted;
        }
    } else if cell::blocks(held, now_ns) {
        raise(line);
        return Strike::Counted;
    } else if let Some((counted, age)) = cell::struck(held, now_ns)
        && age <= u64::from(block.within)
    {
        (since, drops) = (since.wrapping_sub(age), counted);
    }
    drops += 1;
    let starts = drops >= u64::from(block.drops);
    let new = if starts {
        cell::block(tag, now_ns + block.for_ns, proven)
    } else {
        cell::strikes(tag, since, drops)
    };
    match (line.swap(at, held, new), starts) {
        (false, _) => Strike::Lost,
        (true, true) => {
            raise(line);
            Strike::Started
        }
        (true, false) => Strike::Counted,
    }
}
