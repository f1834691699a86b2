//! The maps and the constants that userspace fills in before loading. Types and sizes are `gateway_core::image`'s.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use gateway_core::{
    bucket::spec::Spec,
    filter::Filters,
    image::{
        ADDRESS_GROUPS, AddressGroup, BUCKETS, CONTROLS, DestinationEntry, Generation, INTERFACES, ListEntry,
        NOTICES as NOTICE_BYTES, Notice, PAGE_SERIES, PAGES, PORT_CELLS, PROTECT_RULES, ProtectRule, SLOTS,
        SUBJECTS, Subject,
    },
    judge::EVENTS,
    lease::{Lease, SLOTS as LEASE_SLOTS},
    profile::{PAGE_DISTINCT, PAGE_SERVICES, Profile, REGISTERS, Times},
    proof,
    sample::{Countdown, RING},
    times::CONVERSATIONS as CONVERSATION_WORDS,
};

use crate::samples::Record;

/// One-word settings, by `image::Control`, in one element.
#[btf_map]
pub(crate) static CONTROL: Array<[u64; CONTROLS as usize], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The two generations.
#[btf_map]
pub(crate) static GENERATIONS: Array<Generation, 2> = Array::new();

/// Services and classes.
#[btf_map]
pub(crate) static SUBJECT_TABLE: Array<Subject, { 2 * SUBJECTS as usize }> = Array::new();

/// Classes of destination ports, four in a word: TCP, then UDP.
#[btf_map]
pub(crate) static PORT_CLASSES: Array<u64, { 2 * 2 * 16_384 }> = Array::new();

/// Classes of source ports, likewise.
#[btf_map]
pub(crate) static SOURCE_PORTS: Array<u64, { 2 * 2 * 16_384 }> = Array::new();

/// Services without addresses, by classes of ports, four in a word.
#[btf_map]
pub(crate) static PORT_TABLE: Array<u64, { 2 * PORT_CELLS as usize / 4 }> = Array::new();

/// Groups of services that name the same address prefix.
#[btf_map]
pub(crate) static ADDRESS_GROUP: Array<AddressGroup, { 2 * ADDRESS_GROUPS as usize }> = Array::new();

/// VLANs in scope, one bit each.
#[btf_map]
pub(crate) static VLANS: Array<u64, { 2 * 64 }> = Array::new();

/// Protect rules.
#[btf_map]
pub(crate) static PROTECT: Array<ProtectRule, { 2 * PROTECT_RULES as usize }> = Array::new();

/// Sources in lists and protect rules, IPv4.
#[btf_map]
pub(crate) static LISTS_V4: ArrayOfMaps<LpmTrie<[u32; 1], ListEntry, 1_048_576>, { SLOTS as usize }> =
    ArrayOfMaps::new();

/// The same, IPv6.
#[btf_map]
pub(crate) static LISTS_V6: ArrayOfMaps<LpmTrie<[u32; 4], ListEntry, 1_048_576>, { SLOTS as usize }> =
    ArrayOfMaps::new();

/// Destinations of services and scope, IPv4.
#[btf_map]
pub(crate) static DESTS_V4: ArrayOfMaps<LpmTrie<[u32; 1], DestinationEntry, 65_536>, { SLOTS as usize }> =
    ArrayOfMaps::new();

/// The same, IPv6.
#[btf_map]
pub(crate) static DESTS_V6: ArrayOfMaps<LpmTrie<[u32; 4], DestinationEntry, 65_536>, { SLOTS as usize }> =
    ArrayOfMaps::new();

/// Services with addresses, by group and classes of ports.
#[btf_map]
pub(crate) static GROUP_TABLE: ArrayOfMaps<
    HashMap<u64, u32, 65_536, { BPF_F_NO_PREALLOC as usize }>,
    { SLOTS as usize },
> = ArrayOfMaps::new();

/// Filters before slower tables.
#[btf_map]
pub(crate) static FILTERS: Array<Filters, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Bans by service (0: all) and IPv4 prefix; the value is the expiry, low word first.
#[btf_map]
pub(crate) static BANS_V4: LpmTrie<[u32; 2], [u32; 2], 1_048_576> = LpmTrie::new();

/// The same, IPv6.
#[btf_map]
pub(crate) static BANS_V6: LpmTrie<[u32; 5], [u32; 2], 1_048_576> = LpmTrie::new();

/// The source table, a cache line an element: mappable maps begin at a page, so that lines do not straddle.
#[btf_map]
pub(crate) static SOURCES: Array<[u64; 8], 131_072, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What `docs/source-table.md` compares the source table with: an entry a bucket, evicted when others come.
#[cfg(feature = "lru")]
#[btf_map]
pub(crate) static LRU: aya_ebpf::btf_maps::LruHashMap<u64, u64, 1_048_576> =
    aya_ebpf::btf_maps::LruHashMap::new();

/// Totals and overflow buckets: one cell a cache line.
#[btf_map]
pub(crate) static SHARED: Array<[u64; 8], { BUCKETS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What each CPU has charged totals ahead.
#[btf_map]
pub(crate) static LEASES: PerCpuArray<Lease, { LEASE_SLOTS as usize }> = PerCpuArray::new();

/// Proofs of sources, in lines as many as the source table has.
#[btf_map]
pub(crate) static PROOFS: Array<[u64; 8], 131_072, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Offers: SYN-ACKs that left.
#[btf_map]
pub(crate) static OFFERS: Array<u64, { proof::OFFERS as usize }> = Array::new();

/// Attempts: SYNs that were refused.
#[btf_map]
pub(crate) static ATTEMPTS: Array<u64, { proof::ATTEMPTS as usize }> = Array::new();

/// What is worth an event.
#[btf_map]
pub(crate) static NOTICES: RingBuf<Notice, { NOTICE_BYTES as usize }> = RingBuf::new();

/// Samples of the traffic.
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Record, { RING as usize }> = RingBuf::new();

/// Where sampling stands: the words of `sample::Window`.
#[btf_map]
pub(crate) static SAMPLING: Array<[u64; 8], 1> = Array::new();

/// Each CPU's way to its next sample.
#[btf_map]
pub(crate) static COUNTDOWN: PerCpuArray<Countdown, 1> = PerCpuArray::new();

/// What services' traffic looks like, in pages made as a policy needs them.
#[btf_map]
pub(crate) static PROFILES: ArrayOfMaps<
    PerCpuArray<Profile, { PAGE_SERVICES as usize }>,
    { (SUBJECTS / PAGE_SERVICES) as usize },
> = ArrayOfMaps::new();

/// How long their handshakes and first answers take, likewise.
#[btf_map]
pub(crate) static TIMES: ArrayOfMaps<
    PerCpuArray<Times, { PAGE_SERVICES as usize }>,
    { (SUBJECTS / PAGE_SERVICES) as usize },
> = ArrayOfMaps::new();

/// Registers of different sources, two sets a service, likewise.
#[btf_map]
pub(crate) static DISTINCT: ArrayOfMaps<
    Array<[u64; REGISTERS / 8], { 2 * PAGE_DISTINCT as usize }>,
    { (SUBJECTS / PAGE_DISTINCT) as usize },
> = ArrayOfMaps::new();

/// The epoch in which a service's counts changed last.
#[btf_map]
pub(crate) static TOUCHED: Array<u64, { SUBJECTS as usize }> = Array::new();

/// Conversations that are timed.
#[btf_map]
pub(crate) static CONVERSATIONS: Array<u64, { CONVERSATION_WORDS as usize }> = Array::new();

/// The recent specs of each bucket, by version.
#[btf_map]
pub(crate) static VERSIONS: Array<[Spec; 4], { BUCKETS as usize }> = Array::new();

/// Packet counters in pages, made as a policy needs them: packets and bytes.
#[btf_map]
pub(crate) static COUNTERS: ArrayOfMaps<
    PerCpuArray<[u64; 2], { PAGE_SERIES as usize }>,
    { (INTERFACES * PAGES) as usize },
> = ArrayOfMaps::new();

/// Counts of `judge::Event`.
#[btf_map]
pub(crate) static EVENTS_SEEN: PerCpuArray<u64, { EVENTS as usize }> = PerCpuArray::new();

/// The hash key of the source table.
#[unsafe(no_mangle)]
static HASH_KEY: [u64; 4] = [0; 4];

/// Lines of the source table.
#[unsafe(no_mangle)]
static LINES: u32 = 0;

/// CPUs that share totals; with one there are no leases.
#[unsafe(no_mangle)]
static CPUS: u32 = 1;

/// Which interface's counters this program writes.
#[unsafe(no_mangle)]
static INTERFACE: u32 = 0;

/// Not zero: the clock stands in `CONTROL`.
#[unsafe(no_mangle)]
static TEST_CLOCK: u32 = 0;

/// How long a tick of the kernel lasts; 0: its count is not to be used as a clock.
#[unsafe(no_mangle)]
static TICK_NS: u64 = 0;

/// The kernel's clock when its count of ticks was 0, modulo 2⁶⁴.
#[unsafe(no_mangle)]
static TICK_ORIGIN_NS: u64 = 0;

/// What of the packet path the policies need that this program serves: `image::uses`.
#[unsafe(no_mangle)]
static USES: u64 = u64::MAX;

/// Bits of the source that a benchmark wants random in every run; 0 in every other program.
#[unsafe(no_mangle)]
static SPREAD: u32 = 0;

/// A constant that userspace has filled in. The verifier sees its value and prunes what it rules out.
macro_rules! constant {
    ($name:ident, $function:ident, $type:ty) => {
        #[inline(always)]
        pub(crate) fn $function() -> $type {
            // SAFETY: read-only data of the program; volatile, for the compiler must not use the value above.
            unsafe { (&raw const $name).read_volatile() }
        }
    };
}

constant!(HASH_KEY, hash_key, [u64; 4]);
constant!(LINES, lines, u32);
constant!(CPUS, cpus, u32);
constant!(INTERFACE, interface, u32);
constant!(TEST_CLOCK, test_clock, u32);
constant!(TICK_NS, tick_ns, u64);
constant!(TICK_ORIGIN_NS, tick_origin_ns, u64);
constant!(USES, uses, u64);
constant!(SPREAD, spread, u32);
