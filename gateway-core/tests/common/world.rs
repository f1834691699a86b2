//! An environment of one service, one source table of one line, and whatever a test says of lists, bans and sockets.

#![allow(dead_code, reason = "each test program uses some of this")]

use std::{cell::RefCell, collections::BTreeMap};

use gateway_core::{
    bucket::spec::{Home, Kind, Spec},
    classify::{Groups, Tables, class},
    frame::Slice,
    hash::{self, Domain, Key},
    image::{
        AddressGroup, DestinationEntry, Generation, KINDS, ListEntry, Open, ProtectRule, Subject, TIERS,
        bans, flags, subject_flags,
    },
    judge::{Environment, Event, Shared},
    lease::{Leases, NoLeases},
    limit,
    line::{self, Amount, Block, Charge, Line, Versions, WORDS},
    packet::{Address, Packet},
    parse::parse,
    proof,
};

use crate::frames::SOURCE4;

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// So many lines that everybody shares one.
pub(crate) const OVERFLOW_LINES: u32 = 1;

const KEY: Key = Key::new([
    0x0123_4567_89ab_cdef,
    0xfedc_ba98_7654_3210,
    0x9ddf_ea08_eb38_2d69,
    0xc2b2_ae3d_27d4_eb4f,
]);
/// A rate at which nothing refills while a test runs its packets.
const SLOW: u64 = 1;
/// The service's number; 0 is the default.
const SERVICE: u32 = 1;

/// The environment.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that a test sets")]
pub(crate) struct World {
    /// The clock.
    pub(crate) now_ns: u64,
    /// The generation in force.
    pub(crate) generation: Generation,
    /// The one service.
    pub(crate) service: Subject,
    /// What the lists say of every source.
    pub(crate) lists: ListEntry,
    /// Until when every source is banned.
    pub(crate) banned_until_ns: u64,
    /// Whether that ban is for all services, instead of the one.
    pub(crate) banned_everywhere: bool,
    /// Which tables of bans have entries.
    pub(crate) ban_tables: u64,
    /// Whether every packet answers a socket.
    pub(crate) answers: bool,
    /// Whether every compare-and-swap fails.
    pub(crate) lose_races: bool,
    /// Lines of the source table.
    pub(crate) lines: u32,
    default: Subject,
    /// Classes and what follows levers, from number 2 on.
    more: Vec<Subject>,
    has_service: bool,
    cells: RefCell<BTreeMap<(u32, usize), u64>>,
    shared: RefCell<BTreeMap<u32, u64>>,
    proofs: RefCell<BTreeMap<u32, u64>>,
    offers: RefCell<BTreeMap<u32, u64>>,
    attempts: RefCell<BTreeMap<u32, u64>>,
    /// Blocks that have begun: whether each is whole.
    pub(crate) blocks: RefCell<Vec<bool>>,
    /// The services whose packets were looked at.
    pub(crate) looked_at: RefCell<Vec<u32>>,
    events: RefCell<Vec<Event>>,
}

fn id(tier: usize, kind: usize) -> u32 {
    (1 + tier * KINDS + kind) as u32
}

fn spec(tier: usize, kind: usize, burst: u64) -> Spec {
    let home = if tier < 2 { Home::Tagged } else { Home::Shared };
    let (kinds, scale) = ([Kind::Packets, Kind::Bytes, Kind::Connections], [1, 1_000, 1]);
    Spec::new(kinds[kind], home, SLOW * scale[kind], burst)
        .expect("within the policy's bounds")
        .of_bucket(id(tier, kind), 0)
}

impl World {
    /// One service that takes everything and limits nothing; the default passes.
    pub(crate) fn new() -> Self {
        Self {
            now_ns: 1_000 * SECOND,
            generation: Generation {
                source_v4: u32::MAX,
                source_v6: [u32::MAX, u32::MAX, 0, 0],
                source_port_classes: 1,
                ..Generation::default()
            },
            service: Subject {
                until_ns: u64::MAX,
                service: SERVICE,
                enforce_share: u32::MAX,
                network_v4: u32::from_ne_bytes([255, 255, 255, 0]),
                network_v6: [u32::MAX, 0, 0, 0],
                ..Subject::default()
            },
            lists: ListEntry::default(),
            banned_until_ns: 0,
            banned_everywhere: false,
            ban_tables: bans::ALL,
            answers: false,
            lose_races: false,
            lines: 1 << 20,
            default: Subject {
                until_ns: u64::MAX,
                enforce_share: u32::MAX,
                flags: subject_flags::DEFAULT,
                ..Subject::default()
            },
            more: Vec::new(),
            has_service: true,
            cells: RefCell::default(),
            shared: RefCell::default(),
            proofs: RefCell::default(),
            offers: RefCell::default(),
            attempts: RefCell::default(),
            blocks: RefCell::default(),
            looked_at: RefCell::default(),
            events: RefCell::default(),
        }
    }

    /// No packet belongs to a service.
    pub(crate) fn no_service(&mut self) {
        self.has_service = false;
    }

    /// Gives the service a bucket that admits `burst` and refills one a second (a thousand bytes).
    pub(crate) fn limit(&mut self, tier: usize, kind: usize, burst: u64) {
        self.service.buckets[tier][kind] = spec(tier, kind, burst);
        self.service.flags |= subject_flags::TIER << tier;
        self.generation.flags |= flags::LIMITS;
    }

    /// Gives the service every bucket there is, so shallow that none admits anything.
    pub(crate) fn limit_everything(&mut self) {
        for tier in 0..TIERS {
            for kind in 0..KINDS {
                self.limit(tier, kind, 1);
                self.service.buckets[tier][kind].depth = 1;
            }
        }
        self.block_after(1_000);
    }

    /// Makes one of them deep enough.
    pub(crate) fn open(&mut self, tier: usize, kind: usize) {
        self.service.buckets[tier][kind] = spec(tier, kind, 100_000);
    }

    /// Blocks a source for thirty seconds after so many drops.
    pub(crate) fn block_after(&mut self, drops: u32) {
        self.service.block = Block {
            id: 100,
            drops,
            within: 100,
            reserved: 0,
            for_ns: 30 * SECOND,
        };
        self.service.flags |= subject_flags::BLOCK;
    }

    /// Blocks the test's source now.
    pub(crate) fn block_source(&self) {
        let source = [u32::from_ne_bytes(SOURCE4), 0, 0, 0];
        let hash = hash::hash(&KEY, Domain::Source, 4, &source);
        let at = hash::line(hash, self.lines);
        let block = Block {
            drops: 1,
            ..self.service.block
        };
        line::strike_once(&WorldLine(self, at), &block, hash, self.now_ns, true);
    }

    /// The total of a kind keeps a reserve: strangers charge so much of it, those who ask again so much more.
    pub(crate) fn reserve(&mut self, kind: usize, stranger: u64, retry: u64) {
        let charge = self.service.buckets[3][kind].charge(1);
        self.service.open[kind] = Open {
            stranger: stranger * charge,
            retry: retry * charge,
        };
        self.service.flags |= subject_flags::RESERVE;
        self.generation.flags |= flags::PROOFS | flags::OFFERS;
    }

    /// A frame leaves.
    pub(crate) fn leaves(&self, frame: &[u8]) {
        let packet = parse(&Slice::whole(frame)).expect("a well-formed frame");
        proof::offer(&self, &KEY, self.now_ns, &packet);
    }

    /// Empties the table of proofs.
    pub(crate) fn forget_proofs(&self) {
        self.proofs.borrow_mut().clear();
    }

    /// How many words of the table of proofs are in use.
    pub(crate) fn proofs(&self) -> usize {
        self.proofs.borrow().len()
    }

    /// The host's own TCP has completed a handshake with the source of the tests' IPv4 frames.
    pub(crate) fn prove_source(&self) {
        let hash = limit::hash_of_address(
            &KEY,
            &self.generation,
            false,
            &[u32::from_ne_bytes(SOURCE4), 0, 0, 0],
        );
        proof::give(&self, hash, self.now_ns);
    }

    /// Empties every bucket's debt and every block.
    pub(crate) fn forget(&self) {
        self.cells.borrow_mut().retain(|(_, at), _| *at == 0);
        self.shared.borrow_mut().clear();
    }

    /// A class of the service for the sources in some lists, with a burst of packets a source.
    pub(crate) fn add_class(&mut self, lists: u64, burst: u64) {
        let mut class = self.service;
        class.lists = lists;
        class.flags &= !subject_flags::CLASSES;
        class.buckets[0][0] = spec(0, 0, burst).of_bucket(200 + self.more.len() as u32, 0);
        self.more.push(class);
        self.service.flags |= subject_flags::CLASSES;
        self.service.first_class = SERVICE + 1;
        self.service.classes = self.more.len() as u32;
    }

    /// Until a time, each source's burst of packets is another one.
    pub(crate) fn scale_until(&mut self, until_ns: u64, burst: u64) {
        self.more.push(self.service);
        self.service.after = SERVICE + self.more.len() as u32;
        self.service.until_ns = until_ns;
        self.service.buckets[0][0] = spec(0, 0, burst);
    }

    /// The shared cell of a bucket.
    pub(crate) fn shared_word(&self, tier: usize, kind: usize) -> u64 {
        self.shared.borrow().get(&id(tier, kind)).copied().unwrap_or(0)
    }

    /// How often an event was noted.
    pub(crate) fn noted(&self, event: Event) -> usize {
        self.events
            .borrow()
            .iter()
            .filter(|noted| **noted == event)
            .count()
    }
}

/// A line of the source table.
pub(crate) struct WorldLine<'a>(&'a World, u32);

impl Line for WorldLine<'_> {
    fn get(&self, at: usize) -> u64 {
        assert!(at < WORDS, "a line has no word {at}");
        self.0.cells.borrow().get(&(self.1, at)).copied().unwrap_or(0)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        let same = !self.0.lose_races && self.get(at) == old;
        if same {
            self.0.cells.borrow_mut().insert((self.1, at), new);
        }
        same
    }
}

/// A word of a table of them.
pub(crate) struct WorldWord<'a>(&'a World, &'a RefCell<BTreeMap<u32, u64>>, u32);

impl Shared for WorldWord<'_> {
    fn get(&self) -> u64 {
        self.1.borrow().get(&self.2).copied().unwrap_or(0)
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        let same = !self.0.lose_races && self.get() == old;
        if same {
            self.1.borrow_mut().insert(self.2, new);
        }
        same
    }
}

/// A line of proofs.
pub(crate) struct WorldProofs<'a>(&'a World, u32);

impl Line for WorldProofs<'_> {
    fn get(&self, at: usize) -> u64 {
        WorldWord(self.0, &self.0.proofs, self.1 * 8 + at as u32).get()
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        WorldWord(self.0, &self.0.proofs, self.1 * 8 + at as u32).swap(old, new)
    }
}

impl<'a> proof::Tables for &'a World {
    type Line = WorldLine<'a>;
    type Proofs = WorldProofs<'a>;
    type Word = WorldWord<'a>;

    fn line(&self, hash: u64) -> Option<WorldLine<'a>> {
        Some(WorldLine(self, hash::line(hash, self.lines)))
    }

    fn proofs(&self, hash: u64) -> Option<WorldProofs<'a>> {
        Some(WorldProofs(self, hash::line(hash, 1 << 20)))
    }

    fn offers(&self, at: u32) -> Option<WorldWord<'a>> {
        Some(WorldWord(self, &self.offers, at))
    }

    fn attempts(&self, at: u32) -> Option<WorldWord<'a>> {
        Some(WorldWord(self, &self.attempts, at))
    }
}

impl<'a> Environment for &'a World {
    type Shared = WorldWord<'a>;

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn key(&self) -> Key {
        KEY
    }

    fn shared(&self, id: u32) -> Option<WorldWord<'a>> {
        Some(WorldWord(self, &self.shared, id))
    }

    fn subject(&self, number: u32) -> Option<&Subject> {
        match number {
            0 => Some(&self.default),
            SERVICE => Some(&self.service),
            _ => self.more.get((number - SERVICE - 1) as usize),
        }
    }

    fn lists(&self, _v6: bool, _source: &Address) -> ListEntry {
        self.lists
    }

    fn destination(&self, _v6: bool, _destination: &Address) -> DestinationEntry {
        DestinationEntry::default()
    }

    fn vlan_in_scope(&self, _vlan: u16) -> bool {
        false
    }

    fn protect_rule(&self, number: u32) -> Option<ProtectRule> {
        (number == 0).then(|| ProtectRule {
            protocol: 1,
            first: 443,
            last: 443,
            ports: 1,
            ..ProtectRule::default()
        })
    }

    fn bans(&self) -> u64 {
        self.ban_tables
    }

    fn banned_until_ns(&self, _v6: bool, _source: &Address, service: u32) -> u64 {
        // Only one of the two is there: both are asked.
        if (service == 0) == self.banned_everywhere {
            self.banned_until_ns
        } else {
            0
        }
    }

    fn answers_socket(&self, _packet: &Packet) -> bool {
        self.answers
    }

    fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn charge_first(
        &self,
        line: &WorldLine<'a>,
        spec: &Spec,
        hash: u64,
        amount: Amount,
        cost: u64,
    ) -> Charge {
        // As the kernel half does it.
        assert_eq!(cost, spec.charge(amount.number()));
        line::charge_found(line, spec, hash, self.now_ns, cost)
            .unwrap_or_else(|| self.charge(line, spec, hash, amount))
    }

    fn look(&self, _packet: &Packet, subject: &Subject) {
        self.looked_at.borrow_mut().push(subject.service);
    }

    fn announce(&self, _packet: &Packet, _subject: &Subject, whole: bool) {
        self.blocks.borrow_mut().push(whole);
    }
}

impl Groups for &World {
    fn group(&self, _number: u32) -> Option<AddressGroup> {
        None
    }

    fn by_group(&self, _group: u32, _class: u16, _source_class: u16) -> u32 {
        0
    }
}

impl Tables for &World {
    fn port_class(&self, udp: bool, _port: u16) -> u16 {
        if udp { class::UDP } else { class::TCP }
    }

    fn source_port_class(&self, _udp: bool, _port: u16) -> u16 {
        0
    }

    fn by_ports(&self, _class: u16, _source_class: u16) -> u32 {
        if self.has_service { SERVICE } else { 0 }
    }
}

impl Leases for &World {
    type Slot = <NoLeases as Leases>::Slot;

    fn others(&self) -> u64 {
        NoLeases.others()
    }

    fn slot(&self, id: u32) -> Option<Self::Slot> {
        NoLeases.slot(id)
    }
}

impl Versions for &World {
    fn version(&self, _id: u32, _version: u8) -> Option<Spec> {
        None
    }
}
