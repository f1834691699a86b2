//! What userspace compiles a policy into and the packet path reads: the types and sizes that both halves share.
//!
//! Tables that belong to a policy exist twice, in the halves of fixed arrays ([`half`]) or as inner maps; a *generation* says
//! which half and which inner maps are in force, and one word ([`Control::Active`], read as [`Active`]) says which generation
//! is in force and until when. A packet reads that word once.

pub mod uses;

use crate::{bucket::spec::Spec, line::Block, packet::Address, sample::Rate, verdict::Reason};

/// Services and classes that a policy may have together, the default among them.
pub const SUBJECTS: u32 = 16_384;
/// Buckets and blocks together; number 0 is none.
pub const BUCKETS: u32 = 65_536;
/// Cells of the table that finds the service by port classes.
pub const PORT_CELLS: u32 = 524_288;
/// Prefixes of services' addresses.
pub const ADDRESS_GROUPS: u32 = 32_768;
/// How deep addresses may nest.
pub const NESTING: usize = 8;
/// Flattened protect rules.
pub const PROTECT_RULES: u32 = 64;
/// Classes of one service.
pub const CLASSES: u32 = 16;
/// Interfaces.
pub const INTERFACES: u32 = 16;
/// Series in one counter page.
pub const PAGE_SERIES: u32 = 4096;
/// Counter pages of an interface.
pub const PAGES: u32 = 128;
/// Slots of the maps in maps: the one in force, the one before, and those being filled.
pub const SLOTS: u32 = 4;
/// Which filter is that of bans; those before it are of the slots of lists.
pub const BANS_FILTER: u32 = SLOTS;
/// Changes whenever a type or a table here changes its meaning; pinned state of another number is not reused.
pub const ABI: u64 = 11;

/// The words of the control table, which is one element, so that one lookup gives them all. Userspace writes them one by one, in memory
/// that it shares with the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Control {
    /// Which generation is in force, until when, and what is banned: an [`Active`].
    Active = 0,
    /// The clock of tests and replays, in nanoseconds; used only by programs loaded for it.
    TestClock = 2,
    /// [`ABI`].
    Abi = 3,
    /// Not zero once a policy is in force.
    Ready = 4,
    /// From when on the node is judged as in global monitor mode, on the kernel's clock: the controller moves it on while it
    /// lives. 0: never.
    OpenAt = 5,
    /// The cookie of the network namespace whose connections prove their peers; 0: any.
    Namespace = 6,
    /// How far profiles are read: an [`Epoch`].
    Epoch = 7,
    /// First of the four words that the hash key of the source table was drawn from.
    Key = 8,
    /// The kernel's clock when its count of ticks was 0, in nanoseconds modulo 2⁶⁴; 0: not known.
    TickOrigin = 13,
}

/// Which of the two generations is in force: one of them for good, or one until a time and then the other. One word, so
/// that one write switches, confirms or takes back, and the kernel goes back by itself. Which ban tables have entries stands in
/// it as well, which spares each packet another look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Active(u64);

impl Active {
    /// The bit that names the generation.
    const GENERATION: u64 = 1;
    /// Where the bits of [`bans`] begin.
    const BANS_SHIFT: u32 = 1;
    /// All of them.
    const BANS: u64 = bans::ALL << Self::BANS_SHIFT;
    /// The bits of the time: its lowest are not kept.
    const UNTIL: u64 = !(Self::GENERATION | Self::BANS);
    /// The earliest time that is not taken for none.
    const EARLIEST: u64 = 1 << (Self::BANS_SHIFT + bans::ALL.count_ones());

    /// This generation (0 or 1), for good.
    pub const fn for_good(generation: u32) -> Self {
        Self(generation as u64 & Self::GENERATION)
    }

    /// This generation while the kernel's clock is below `until_ns` (rounded down to a multiple of 32, and at least that), then
    /// the other one.
    pub const fn until(generation: u32, until_ns: u64) -> Self {
        let until_ns = if until_ns < Self::EARLIEST {
            Self::EARLIEST
        } else {
            until_ns & Self::UNTIL
        };
        Self(until_ns | generation as u64 & Self::GENERATION)
    }

    /// The same, where the ban tables of these bits of [`bans`] have entries.
    #[must_use]
    pub const fn banning(self, bans: u64) -> Self {
        Self(self.0 & !Self::BANS | bans << Self::BANS_SHIFT & Self::BANS)
    }

    /// Which ban tables have entries: bits of [`bans`].
    #[inline(always)]
    pub const fn bans(self) -> u64 {
        (self.0 & Self::BANS) >> Self::BANS_SHIFT
    }

    /// From the word in the control table.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word for the control table.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The generation that the time speaks of.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 & Self::GENERATION) as u32
    }

    /// The end of its time on the kernel's clock, in nanoseconds; `None`: it is in force for good.
    pub const fn until_ns(self) -> Option<u64> {
        match self.0 & Self::UNTIL {
            0 => None,
            until_ns => Some(until_ns),
        }
    }

    /// The generation in force at a moment.
    #[inline(always)]
    pub const fn in_force(self, now_ns: u64) -> u32 {
        let until_ns = self.0 & Self::UNTIL;
        let over = until_ns != 0 && now_ns >= until_ns;
        self.generation() ^ over as u32
    }
}

/// How far profiles are read: the epoch that the marks of touched services are of, and which of the two sets of registers counts different
/// sources, while userspace reads the other. One word, for each packet of a service with a profile reads both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Epoch(u64);

impl Epoch {
    /// From the word in the control table.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word for the control table.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Its number. Userspace moves it on when it reads; 0 is before the first reading.
    #[inline(always)]
    pub const fn number(self) -> u64 {
        self.0 >> 1
    }

    /// Which set of registers counts: 0 or 1.
    #[inline(always)]
    pub const fn set(self) -> u32 {
        (self.0 & 1) as u32
    }

    /// The next epoch, with this set of registers or the other one.
    #[must_use]
    pub const fn next(self, other_set: bool) -> Self {
        Self((self.number() + 1) << 1 | (self.set() ^ other_set as u32) as u64)
    }
}

/// Words of the control table.
pub const CONTROLS: u32 = 16;

/// Which ban tables have entries: bits of [`Active::bans`].
pub mod bans {
    /// IPv4 bans for all services.
    pub const V4: u64 = 1;
    /// IPv6 bans for all services.
    pub const V6: u64 = 2;
    /// IPv4 bans for one service.
    pub const SERVICE_V4: u64 = 4;
    /// IPv6 bans for one service.
    pub const SERVICE_V6: u64 = 8;
    /// All of these.
    pub const ALL: u64 = V4 | V6 | SERVICE_V4 | SERVICE_V6;

    /// The table of bans of a family, for all services (0) or for one.
    #[inline(always)]
    pub const fn of(v6: bool, service: u32) -> u64 {
        match (v6, service) {
            (false, 0) => V4,
            (true, 0) => V6,
            (false, _) => SERVICE_V4,
            (true, _) => SERVICE_V6,
        }
    }
}

/// What a generation is and uses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Generation {
    /// Bits of [`flags`].
    pub flags: u32,
    /// Columns of the port table: 1 and the number of source port classes.
    pub source_port_classes: u32,
    /// Slot of the list tries.
    pub lists_slot: u32,
    /// Slot of the destination tries and the address group table.
    pub destinations_slot: u32,
    /// Mask of an IPv4 source, in memory order.
    pub source_v4: u32,
    /// Services and classes in use (userspace's).
    pub subjects: u32,
    /// Mask of an IPv6 source.
    pub source_v6: Address,
    /// Until when the bypass lever is pulled for the whole node, on the kernel's clock.
    pub bypass_until_ns: u64,
    /// How many packets are sampled.
    pub sample: Rate,
    /// What of the packet path this policy may need: see [`uses`].
    pub uses: u64,
    /// For how many ticks a line of the source table may wait before it is tidied: the least
    /// [`crate::bucket::spec::Spec::patience`] of all buckets that may have cells.
    pub patience: u32,
    /// Not used.
    pub reserved: u32,
}

/// Bits of [`Generation::flags`].
pub mod flags {
    /// The whole node only watches.
    pub const MONITOR: u32 = 1;
    /// There are list prefixes or protect rules.
    pub const LISTS: u32 = 1 << 1;
    /// Destinations are looked up (service addresses or scope).
    pub const DESTINATIONS: u32 = 1 << 2;
    /// Some service names addresses.
    pub const ADDRESS_GROUPS: u32 = 1 << 3;
    /// Some service names source ports.
    pub const SOURCE_PORTS: u32 = 1 << 4;
    /// Only certain VLANs are looked at.
    pub const SCOPE_VLANS: u32 = 1 << 5;
    /// Only certain destinations are looked at.
    pub const SCOPE_ADDRESSES: u32 = 1 << 6;
    /// Traffic to no service is dropped.
    pub const DEFAULT_DROP: u32 = 1 << 7;
    /// Packets that answer a socket of this host pass.
    pub const REPLIES: u32 = 1 << 8;
    /// What a network needs to work passes.
    pub const ESSENTIAL: u32 = 1 << 9;
    /// The bypass lever passes bans and drop lists too.
    pub const BYPASS_ALL: u32 = 1 << 10;
    /// Some service limits something.
    pub const LIMITS: u32 = 1 << 11;
    /// Some service keeps state by source, so proofs of sources matter.
    pub const PROOFS: u32 = 1 << 12;
    /// Some service has a reserve, blocks, or speaks TCP and has a profile: who is offered a connection is remembered on the way out, and the path looks for
    /// answers.
    pub const OFFERS: u32 = 1 << 13;
    /// Some service has a profile.
    pub const PROFILES: u32 = 1 << 14;
    /// Some service measures time.
    pub const TIMES: u32 = 1 << 15;
    /// There is a policy: every one has this.
    pub const READY: u32 = 1 << 16;
    /// The node opens when no controller reports.
    pub const OPENS: u32 = 1 << 17;
    /// Some bucket is so shallow, or something is timed, that the clock must be exact ([`crate::bucket::spec::Spec::needs_exact_clock`]).
    pub const EXACT_CLOCK: u32 = 1 << 18;
    /// Packets are sampled.
    pub const SAMPLES: u32 = 1 << 19;
    /// The table of destination ports holds services, not classes: nothing else tells services apart.
    pub const DIRECT_PORTS: u32 = 1 << 20;
}

/// Tiers of buckets, in the order of judgement.
pub const TIERS: usize = 4;
/// Kinds of buckets in a tier.
pub const KINDS: usize = 3;
/// Series numbers of a subject: one a reason.
pub const SERIES: usize = 28;

/// A service, or a class of one, as the packet path sees it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Subject {
    /// Until when this entry holds; then `after` does. [`u64::MAX`]: for good.
    pub until_ns: u64,
    /// Until when the bypass lever is pulled for it.
    pub bypass_until_ns: u64,
    /// Lists whose members alone may reach the service; 0: everybody.
    pub only: u64,
    /// A class's lists.
    pub lists: u64,
    /// The entry that holds after `until_ns`.
    pub after: u32,
    /// The number of the service, which bans carry: the entry of the service itself.
    pub service: u32,
    /// First of the service's classes, which lie one after the other.
    pub first_class: u32,
    /// How many there are.
    pub classes: u32,
    /// Bits of [`subject_flags`].
    pub flags: u32,
    /// Sources whose share number is not below this are only watched; [`u32::MAX`]: none is.
    pub enforce_share: u32,
    /// Mask of an IPv4 source's network.
    pub network_v4: u32,
    /// Not used.
    pub reserved: u32,
    /// Mask of an IPv6 source's network.
    pub network_v6: Address,
    /// The block.
    pub block: Block,
    /// How deep each kind of the total may be charged by strangers, and by those of them who ask again, in the bucket's
    /// units; proven sources charge down to its depth.
    pub open: [Open; KINDS],
    /// The buckets, by tier and kind.
    pub buckets: [[Spec; KINDS]; TIERS],
    /// The series of each reason: 0 is none; reasons that drop have two in a row, `drop` and `would_drop`.
    pub series: [u32; SERIES],
}

/// How deep a bucket may be charged by sources that have no proof.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Open {
    /// By strangers.
    pub stranger: u64,
    /// By strangers who ask again for a connection that they were refused: all but the reserve.
    pub retry: u64,
}

/// Something that happened in the packet path and is worth an event of its own.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Notice {
    /// When, on the kernel's clock.
    pub at_ns: u64,
    /// Until when it lasts.
    pub until_ns: u64,
    /// The number of the service, as in [`Subject::service`].
    pub service: u32,
    /// One of [`notice`].
    pub kind: u32,
    /// The source, under the policy's mask.
    pub source: Address,
    /// 1 if it is an IPv6 source.
    pub v6: u32,
    /// The number of the interface.
    pub interface: u32,
}

/// Values of [`Notice::kind`].
pub mod notice {
    /// A block of all that a source sends began.
    pub const BLOCKED: u32 = 1;
    /// A block of a source's new connections began.
    pub const BLOCKED_CONNECTIONS: u32 = 2;
}

/// Bytes of the ring that carries [`Notice`]s.
pub const NOTICES: u32 = 256 * 1024;

/// Bits of [`Subject::flags`].
pub mod subject_flags {
    /// It only watches.
    pub const MONITOR: u32 = 1;
    /// A tier has buckets: this bit shifted left by the tier's number.
    pub const TIER: u32 = 1 << 1;
    /// It has a block.
    pub const BLOCK: u32 = 1 << 5;
    /// It has classes.
    pub const CLASSES: u32 = 1 << 6;
    /// It is the default: no service.
    pub const DEFAULT: u32 = 1 << 7;
    /// Its total has a reserve.
    pub const RESERVE: u32 = 1 << 8;
    /// Its traffic has a profile.
    pub const PROFILE: u32 = 1 << 9;
    /// Its handshakes and first answers are timed.
    pub const TIME: u32 = 1 << 10;
    /// It is enforced for a share of sources only.
    pub const SHARE: u32 = 1 << 11;
}

/// What the list tries say about a source: of the longest prefix that covers it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct ListEntry {
    /// Lists that cover it, by number; low word first (tries align values to four bytes).
    pub lists: [u32; 2],
    /// Protect rules whose sources cover it.
    pub protect: [u32; 2],
    /// Bits of [`list_flags`].
    pub flags: u32,
}

impl ListEntry {
    /// The lists as one number.
    #[inline(always)]
    pub const fn mask(&self) -> u64 {
        self.lists[0] as u64 | (self.lists[1] as u64) << 32
    }

    /// The protect rules as one number.
    #[inline(always)]
    pub const fn rules(&self) -> u64 {
        self.protect[0] as u64 | (self.protect[1] as u64) << 32
    }
}

/// Bits of [`ListEntry::flags`].
pub mod list_flags {
    /// The longest list with an action that covers it drops.
    pub const DROP: u32 = 1;
    /// It trusts.
    pub const TRUST: u32 = 2;
    /// A proxy list covers it.
    pub const PROXY: u32 = 4;
}

/// What the destination tries say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct DestinationEntry {
    /// The group of services with the longest address prefix; 0: none.
    pub group: u32,
    /// 1 if it lies in the policy's scope.
    pub scope: u32,
}

/// A group of services that name the same address prefix.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct AddressGroup {
    /// The group of the next shorter prefix; 0: none, then services without addresses come.
    pub parent: u32,
    /// Bits: 1 some service names ports and source ports, 2 ports only, 4 source ports only, 8 neither.
    pub shapes: u32,
}

/// A protect rule.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct ProtectRule {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// 0 any, 1 TCP, 2 UDP, 3 ICMP.
    pub protocol: u8,
    /// 1 if it names ports.
    pub ports: u8,
    /// Not used.
    pub reserved: u16,
}

/// The number of an entry in the half of a table that belongs to a generation.
#[inline(always)]
pub const fn half(generation: u32, size: u32, at: u32) -> u32 {
    (generation & 1) * size + at
}

const _: () = assert!(Reason::COUNT <= SERIES);
const _: () = assert!(size_of::<Spec>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_for_good_is_in_force_at_any_time() {
        for generation in [0, 1] {
            let active = Active::for_good(generation);
            assert_eq!(active.word(), u64::from(generation));
            assert_eq!(active.until_ns(), None);
            for now_ns in [0, 1, 2, 1 << 40, u64::MAX] {
                assert_eq!(active.in_force(now_ns), generation);
            }
        }
    }

    #[test]
    fn a_generation_with_a_time_gives_way_to_the_other_at_its_end() {
        for generation in [0, 1] {
            for until_ns in [32, 33, 1_000_000_001, u64::MAX - 1, u64::MAX] {
                let active = Active::until(generation, until_ns);
                let end = active.until_ns().unwrap();
                assert!(end <= until_ns && until_ns - end < 32);
                assert_eq!(active.generation(), generation);
                assert_eq!(active.in_force(0), generation);
                assert_eq!(active.in_force(end - 1), generation);
                assert_eq!(active.in_force(end), 1 - generation);
                assert_eq!(active.in_force(u64::MAX), 1 - generation);
                assert_eq!(Active::from_word(active.word()), active);
            }
        }
    }

    #[test]
    fn every_reading_begins_an_epoch_and_changes_the_set_if_asked() {
        let mut epoch = Epoch::from_word(0);
        assert_eq!((epoch.number(), epoch.set()), (0, 0));
        for (number, (other_set, set)) in (1..).zip([(false, 0), (true, 1), (false, 1), (true, 0)]) {
            epoch = epoch.next(other_set);
            assert_eq!((epoch.number(), epoch.set()), (number, set));
            assert_eq!(Epoch::from_word(epoch.word()), epoch);
        }
    }

    #[test]
    fn a_time_is_never_mistaken_for_none() {
        for until_ns in [0, 1, 31] {
            assert_eq!(Active::until(1, until_ns).until_ns(), Some(32));
            assert_eq!(Active::until(1, until_ns).in_force(32), 0);
        }
    }

    #[test]
    fn what_is_banned_and_what_is_in_force_do_not_touch_each_other() {
        for generation in [0, 1] {
            for active in [Active::for_good(generation), Active::until(generation, u64::MAX)] {
                assert_eq!(active.bans(), 0);
                for bits in 0..=bans::ALL {
                    let banning = active.banning(bans::ALL).banning(bits);
                    assert_eq!(banning.bans(), bits);
                    assert_eq!(banning.generation(), generation);
                    assert_eq!(banning.until_ns(), active.until_ns());
                    assert_eq!(banning.in_force(u64::MAX), active.in_force(u64::MAX));
                    assert_eq!(banning.banning(0), active);
                }
                assert_eq!(active.banning(u64::MAX), active.banning(bans::ALL));
            }
        }
    }
}
