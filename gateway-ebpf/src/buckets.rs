//! The buckets' cells in map elements.

use gateway_core::{
    bucket::spec::Spec,
    judge,
    lease::{Field, Lease, Leases, SLOTS, Slot},
    line::{Line, Versions, WORDS},
};

use crate::{atomic::Word, maps};

/// An element of the source table or of the shared cells: a cache line.
pub(crate) type Element = [u64; WORDS];

/// A line of the source table.
pub(crate) struct MapLine(*mut Element);

impl MapLine {
    #[inline(always)]
    pub(crate) const fn new(element: *mut Element) -> Self {
        Self(element)
    }

    #[inline(always)]
    pub(crate) const fn element(&self) -> *mut Element {
        self.0
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Word {
        // SAFETY: a map element, or an argument that was compared with null; `at` is below WORDS by the trait's
        // contract, and the mask holds it there.
        unsafe { Word::new(self.0.cast::<u64>().add(at & (WORDS - 1))) }
    }
}

impl Line for MapLine {
    #[inline(always)]
    fn get(&self, at: usize) -> u64 {
        self.word(at).get()
    }

    #[inline(always)]
    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.word(at).swap(old, new)
    }
}

/// A shared cell: the first word of its element.
pub(crate) struct MapShared(*mut Element);

impl MapShared {
    #[inline(always)]
    pub(crate) const fn new(element: *mut Element) -> Self {
        Self(element)
    }

    #[inline(always)]
    pub(crate) const fn element(&self) -> *mut Element {
        self.0
    }

    #[inline(always)]
    fn word(&self) -> Word {
        // SAFETY: a map element, or an argument that was compared with null.
        unsafe { Word::new(self.0.cast()) }
    }
}

impl judge::Shared for MapShared {
    #[inline(always)]
    fn get(&self) -> u64 {
        self.word().get()
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        self.word().swap(old, new)
    }
}

/// A word of an array of words.
pub(crate) struct MapWord(*mut u64);

impl MapWord {
    #[inline(always)]
    pub(crate) const fn new(element: *mut u64) -> Self {
        Self(element)
    }

    #[inline(always)]
    fn word(&self) -> Word {
        // SAFETY: a map element.
        unsafe { Word::new(self.0) }
    }
}

impl judge::Shared for MapWord {
    #[inline(always)]
    fn get(&self) -> u64 {
        self.word().get()
    }

    #[inline(always)]
    fn swap(&self, old: u64, new: u64) -> bool {
        self.word().swap(old, new)
    }
}

/// The recent specs of buckets.
pub(crate) struct MapVersions;

impl Versions for MapVersions {
    #[inline(always)]
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        let specs = maps::VERSIONS.get(id)?;
        specs.get(usize::from(version & 3)).copied()
    }
}

/// This CPU's slots.
pub(crate) struct MapLeases;

/// One of them.
pub(crate) struct MapSlot(*mut Lease);

impl MapSlot {
    #[inline(always)]
    fn word(&self, field: Field) -> *mut u64 {
        // SAFETY: a lease has a word for each field.
        unsafe { self.0.cast::<u64>().add(field as usize) }
    }
}

// Volatile, for the compiler would read all words at the first and keep them on a stack that has no room.
impl Slot for MapSlot {
    #[inline(always)]
    fn get(&self, field: Field) -> u64 {
        // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
        unsafe { self.word(field).read_volatile() }
    }

    #[inline(always)]
    fn set(&self, field: Field, value: u64) {
        // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
        unsafe { self.word(field).write_volatile(value) };
    }
}

impl Leases for MapLeases {
    type Slot = MapSlot;

    #[inline(always)]
    fn others(&self) -> u64 {
        u64::from(maps::cpus().saturating_sub(1))
    }

    #[inline(always)]
    fn slot(&self, id: u32) -> Option<MapSlot> {
        maps::LEASES.get_ptr_mut(id & (SLOTS - 1)).map(MapSlot)
    }
}
