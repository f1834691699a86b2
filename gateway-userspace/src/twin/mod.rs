//! The host's twin of the packet path: the same decision function over memory, on a clock that the caller sets.
//!
//! It judges by the same [`Image`] that the kernel gets, so what it says of a frame at a time is what the kernel would
//! have said; `tests/` sends the same frames through both.

mod trie;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gateway_core::{
    bucket::spec::Spec,
    classify::{Groups, Tables},
    frame::Slice,
    hash::{self, Key},
    image::{
        AddressGroup, BUCKETS, DestinationEntry, Generation, ListEntry, Notice, ProtectRule, Subject, flags,
    },
    judge::{self, Event, Judgement, Shared},
    lease::{self, Lease, Leases},
    limit,
    line::{Line, Versions, WORDS},
    packet::{Address, Network, Packet},
    parse::parse,
    proof, times,
    verdict::Reason,
};
use ipnet::IpNet;

use self::trie::Trie;
use crate::{
    compile::{
        CompileError, Image, compile, prefix,
        registry::{Registry, SeriesRecord},
    },
    kernel::{Lever, ListContents},
    policy::model::Policy,
};

/// A socket of the host, as `[default] replies = "socket"` asks for it: protocol number, local and remote end.
pub type Socket = (u8, (IpAddr, u16), (IpAddr, u16));

/// A policy in force in memory.
#[derive(Debug)]
pub struct Twin {
    image: Image,
    registry: Registry,
    versions: HashMap<u32, [Spec; 4]>,
    lists: Trie<ListEntry>,
    destinations: Trie<DestinationEntry>,
    groups: HashMap<u64, u32>,
    bans: BTreeMap<u32, Trie<u64>>,
    sockets: BTreeSet<Socket>,
    key: Key,
    lines: Vec<Cells>,
    shared: Words,
    /// What its one CPU has charged totals ahead.
    leases: Vec<Cell<Lease>>,
    cpus: u32,
    /// Lines of proofs, a word an entry.
    proofs: Words,
    offers: Words,
    attempts: Words,
    conversations: Words,
    notices: RefCell<Vec<Notice>>,
    open_at_ns: u64,
    events: [Cell<u64>; judge::EVENTS as usize],
    now_ns: u64,
}

impl Twin {
    /// Puts a policy in force, with as many lines of sources and the same hash key as the kernel has (or any others).
    ///
    /// # Errors
    /// Where the policy does not fit the tables.
    pub fn new(
        policy: &Policy,
        contents: &ListContents,
        key: [u64; 4],
        lines: u32,
    ) -> Result<Self, CompileError> {
        let mut registry = Registry::default();
        registry.reindex();
        let mut twin = Self {
            image: Image::default(),
            registry,
            versions: HashMap::new(),
            lists: Trie::default(),
            destinations: Trie::default(),
            groups: HashMap::new(),
            bans: BTreeMap::new(),
            sockets: BTreeSet::new(),
            key: Key::new(key),
            lines: (0..lines.max(1)).map(|_| Cells::default()).collect(),
            shared: Words::new(BUCKETS as usize),
            leases: vec![Cell::default(); lease::SLOTS as usize],
            cpus: 1,
            proofs: Words::new(lines.max(1) as usize * WORDS),
            offers: Words::new(proof::OFFERS as usize),
            attempts: Words::new(proof::ATTEMPTS as usize),
            conversations: Words::new(times::CONVERSATIONS as usize),
            notices: RefCell::default(),
            open_at_ns: 0,
            events: std::array::from_fn(|_| Cell::new(0)),
            now_ns: 0,
        };
        twin.apply(policy, contents, &[])?;
        Ok(twin)
    }

    /// Replaces the policy; buckets that stay keep their state.
    ///
    /// # Errors
    /// Where the policy does not fit the tables; the old one then stays in force.
    pub fn apply(
        &mut self,
        policy: &Policy,
        contents: &ListContents,
        levers: &[Lever],
    ) -> Result<(), CompileError> {
        let mut registry = self.registry.clone();
        let image = compile(policy, contents, levers, &mut registry, self.now_ns)?;
        self.versions = registry.versions().collect();
        self.lists = image.lists.iter().copied().collect();
        self.destinations = image.destinations.iter().copied().collect();
        self.groups = image.group_table.iter().copied().collect();
        (self.image, self.registry) = (image, registry);
        Ok(())
    }

    /// Sets the clock, in nanoseconds.
    pub fn set_clock(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Judges as one of so many CPUs that share totals, and so takes leases as it would. It begins as the only one, which takes none.
    pub fn set_cpus(&mut self, cpus: u32) {
        self.cpus = cpus;
    }

    /// Bans a prefix until a time, at one service or at all.
    ///
    /// # Errors
    /// Where there is no such service.
    pub fn ban(&mut self, prefix: IpNet, service: Option<&str>, until_ns: u64) -> Result<(), CompileError> {
        let number = match service {
            None => 0,
            Some(name) => self
                .registry
                .service(name)
                .ok_or_else(|| CompileError::NoService(name.to_owned()))?,
        };
        self.bans.entry(number).or_default().insert(prefix, until_ns);
        Ok(())
    }

    /// Tells of a connected socket of the host; whether it was not known.
    pub fn open_socket(&mut self, socket: Socket) -> bool {
        self.sockets.insert(socket)
    }

    /// Forgets a socket of the host.
    pub fn close_socket(&mut self, socket: &Socket) {
        self.sockets.remove(socket);
    }

    /// Sets from when on the node is judged as if it only watched, in nanoseconds; 0: never.
    pub fn open_at(&mut self, open_at_ns: u64) {
        self.open_at_ns = open_at_ns;
    }

    /// A frame leaves.
    pub fn leaves(&self, frame: &[u8]) {
        if let Ok(packet) = parse(&Slice::whole(frame)) {
            proof::offer(&self, &self.key, self.now_ns, &packet);
        }
    }

    /// The host's own TCP has completed a handshake with a source.
    pub fn prove(&self, source: IpAddr) {
        let v6 = source.is_ipv6();
        let hash = limit::hash_of_address(&self.key, &self.image.generation, v6, &prefix::words(source));
        proof::give(&self, hash, self.now_ns);
    }

    /// The blocks that have begun since the last call.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.take()
    }

    /// Judges a frame that is wholly there.
    pub fn judge(&self, frame: &[u8]) -> Judgement {
        judge::judge(&self, &Slice::whole(frame))
    }

    /// The service and class that count a judgement.
    pub fn owner(&self, judgement: Judgement) -> (String, String) {
        let number = self
            .image
            .subjects
            .get(judgement.subject as usize)
            .map(|subject| subject.series[judgement.reason as usize]);
        let record = self
            .registry
            .series()
            .iter()
            .find(|record| Some(record.number) == number);
        record.map_or_else(Default::default, |record| {
            (record.service.clone(), record.class.clone())
        })
    }

    /// The service and class of each subject, by number; both empty for a number that nobody has.
    pub fn owners(&self) -> Vec<(String, String)> {
        let series: HashMap<u32, &SeriesRecord> = self
            .registry
            .series()
            .iter()
            .map(|record| (record.number, record))
            .collect();
        // Every subject has a series for what bans drop.
        let of = |subject: &Subject| series.get(&subject.series[Reason::Ban as usize]);
        self.image
            .subjects
            .iter()
            .map(|subject| {
                of(subject).map_or_else(Default::default, |of| (of.service.clone(), of.class.clone()))
            })
            .collect()
    }

    /// The tables in force.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// How often an event was noted.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }
}

fn packed(words: &[u64], at: usize) -> u16 {
    words.get(at / 4).map_or(0, |word| (word >> (at % 4 * 16)) as u16)
}

impl Groups for Twin {
    fn group(&self, number: u32) -> Option<AddressGroup> {
        self.image.groups.get(number as usize).copied()
    }

    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        let key = u64::from(group) << 32 | u64::from(class) << 16 | u64::from(source_class);
        self.groups.get(&key).copied().unwrap_or(0)
    }
}

impl Tables for Twin {
    fn port_class(&self, udp: bool, port: u16) -> u16 {
        packed(
            &self.image.port_classes,
            usize::from(udp) * 65_536 + usize::from(port),
        )
    }

    fn source_port_class(&self, udp: bool, port: u16) -> u16 {
        packed(
            &self.image.source_ports,
            usize::from(udp) * 65_536 + usize::from(port),
        )
    }

    fn by_ports(&self, class: u16, source_class: u16) -> u32 {
        let cell = usize::from(class) * self.image.generation.source_port_classes as usize
            + usize::from(source_class);
        u32::from(packed(&self.image.port_table, cell))
    }
}

impl Versions for Twin {
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        self.versions
            .get(&id)
            .map(|specs| specs[usize::from(version & 3)])
    }
}

/// The cells of a line, in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells([Cell<u64>; WORDS]);

/// A line of the twin's source table.
#[derive(Debug)]
pub struct TwinLine<'a>(&'a [Cell<u64>; WORDS]);

impl Line for TwinLine<'_> {
    fn get(&self, at: usize) -> u64 {
        self.0[at].get()
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        let same = self.0[at].get() == old;
        if same {
            self.0[at].set(new);
        }
        same
    }
}

/// A table of words. It takes no memory until one is written.
#[derive(Debug)]
struct Words {
    size: usize,
    words: RefCell<Vec<u64>>,
}

impl Words {
    fn new(size: usize) -> Self {
        Self {
            size,
            words: RefCell::default(),
        }
    }
}

/// A word of one of the twin's tables.
#[derive(Debug)]
pub struct TwinWord<'a>(&'a Words, u32);

impl Shared for TwinWord<'_> {
    fn get(&self) -> u64 {
        self.0.words.borrow().get(self.1 as usize).copied().unwrap_or(0)
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        let mut words = self.0.words.borrow_mut();
        if words.is_empty() {
            // Zeros from the operating system: pages that nobody touches stay untouched.
            *words = vec![0; self.0.size];
        }
        let word = words.get_mut(self.1 as usize).filter(|word| **word == old);
        word.map(|word| *word = new).is_some()
    }
}

/// A line of the twin's proofs.
#[derive(Debug)]
pub struct TwinProofs<'a>(&'a Words, u32);

impl TwinProofs<'_> {
    const fn word(&self, at: usize) -> TwinWord<'_> {
        TwinWord(self.0, self.1 * WORDS as u32 + at as u32)
    }
}

impl Line for TwinProofs<'_> {
    fn get(&self, at: usize) -> u64 {
        self.word(at).get()
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.word(at).swap(old, new)
    }
}

impl<'a> Leases for &'a Twin {
    type Slot = &'a Cell<Lease>;

    fn others(&self) -> u64 {
        u64::from(self.cpus.saturating_sub(1))
    }

    fn slot(&self, id: u32) -> Option<&'a Cell<Lease>> {
        self.leases.get((id % lease::SLOTS) as usize)
    }
}

impl<'a> proof::Tables for &'a Twin {
    type Line = TwinLine<'a>;
    type Proofs = TwinProofs<'a>;
    type Word = TwinWord<'a>;

    fn line(&self, hash: u64) -> Option<TwinLine<'a>> {
        self.lines
            .get(hash::line(hash, self.lines.len() as u32) as usize)
            .map(|cells| TwinLine(&cells.0))
    }

    fn proofs(&self, hash: u64) -> Option<TwinProofs<'a>> {
        Some(TwinProofs(
            &self.proofs,
            hash::line(hash, self.lines.len() as u32),
        ))
    }

    fn offers(&self, at: u32) -> Option<TwinWord<'a>> {
        Some(TwinWord(&self.offers, at))
    }

    fn attempts(&self, at: u32) -> Option<TwinWord<'a>> {
        Some(TwinWord(&self.attempts, at))
    }
}

impl<'a> times::Tables for &'a Twin {
    type Word = TwinWord<'a>;

    fn conversation(&self, at: u32) -> Option<TwinWord<'a>> {
        Some(TwinWord(&self.conversations, at))
    }
}

impl<'a> judge::Environment for &'a Twin {
    type Shared = TwinWord<'a>;

    fn generation(&self) -> &Generation {
        &self.image.generation
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn key(&self) -> Key {
        self.key
    }

    fn shared(&self, id: u32) -> Option<TwinWord<'a>> {
        Some(TwinWord(&self.shared, id))
    }

    fn subject(&self, number: u32) -> Option<&Subject> {
        self.image.subjects.get(number as usize)
    }

    fn lists(&self, v6: bool, source: &Address) -> ListEntry {
        self.lists.get(v6, source).unwrap_or_default()
    }

    fn destination(&self, v6: bool, destination: &Address) -> DestinationEntry {
        self.destinations.get(v6, destination).unwrap_or_default()
    }

    fn vlan_in_scope(&self, vlan: u16) -> bool {
        self.image
            .vlans
            .get(usize::from(vlan >> 6))
            .is_some_and(|word| word >> (vlan & 63) & 1 == 1)
    }

    fn protect_rule(&self, number: u32) -> Option<ProtectRule> {
        self.image.protect.get(number as usize).copied()
    }

    fn banned_until_ns(&self, v6: bool, source: &Address, service: u32) -> u64 {
        self.bans
            .get(&service)
            .and_then(|bans| bans.get(v6, source))
            .unwrap_or(0)
    }

    fn answers_socket(&self, packet: &Packet) -> bool {
        let v6 = matches!(packet.network, Network::V6);
        let local = (prefix::address(v6, &packet.destination), packet.destination_port);
        let remote = (prefix::address(v6, &packet.source), packet.source_port);
        self.sockets.contains(&(packet.protocol, local, remote))
    }

    fn note(&self, event: Event) {
        let count = &self.events[event as usize];
        count.set(count.get() + 1);
    }

    fn announce(&self, packet: &Packet, subject: &Subject, whole: bool) {
        self.notices.borrow_mut().push(judge::notice(
            &self.image.generation,
            packet,
            subject,
            self.now_ns,
            whole,
        ));
    }

    fn watched(&self) -> bool {
        self.image.generation.flags & flags::MONITOR != 0
            || self.open_at_ns != 0 && self.now_ns >= self.open_at_ns
    }
}

impl Groups for &Twin {
    fn group(&self, number: u32) -> Option<AddressGroup> {
        (*self).group(number)
    }

    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        (*self).by_group(group, class, source_class)
    }
}

impl Tables for &Twin {
    fn port_class(&self, udp: bool, port: u16) -> u16 {
        (*self).port_class(udp, port)
    }

    fn source_port_class(&self, udp: bool, port: u16) -> u16 {
        (*self).source_port_class(udp, port)
    }

    fn by_ports(&self, class: u16, source_class: u16) -> u32 {
        (*self).by_ports(class, source_class)
    }
}

impl Versions for &Twin {
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        (*self).version(id, version)
    }
}
