//! The packet path's view of the pinned maps, read by system call: for judging a packet without changing anything.
//!
//! Whatever a judgement writes (a charge, a tidied line, a proof) goes to a copy of the word in memory, and what is read
//! again is read from there. The maps are only ever read.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use gateway_core::{
    bucket::spec::Spec,
    classify::{Groups, Tables},
    hash::{self, Key},
    image::{
        ADDRESS_GROUPS, AddressGroup, CLASSES, Control, DestinationEntry, Generation, ListEntry, PORT_CELLS,
        PROTECT_RULES, ProtectRule, SUBJECTS, Subject, bans, flags, half, subject_flags,
    },
    judge::{Environment, Event, Shared},
    lease::{Leases, NoLeases},
    line::{Line, Versions, WORDS},
    packet::{Address, Packet},
    proof,
};

use super::{
    Dataplane, KernelError,
    pins::{self, io_error},
    replies,
    sys::{Map, Plain},
};

/// Words that were read, and what a judgement has made of them since.
type Words<const N: usize> = RefCell<BTreeMap<u32, Rc<[Cell<u64>; N]>>>;

/// Subjects that one judgement can look at: a service, its classes, and what follows a lever.
const SEEN: usize = CLASSES as usize + 4;

/// The maps, at one moment of the kernel's clock.
pub(super) struct Peek<'a> {
    kernel: &'a Dataplane,
    half: u32,
    generation: Generation,
    now_ns: u64,
    bans: u64,
    opened: bool,
    subjects: [OnceCell<(u32, Subject)>; SEEN],
    lines: Words<WORDS>,
    proofs: Words<WORDS>,
    shared: Words<WORDS>,
    offers: Words<1>,
    attempts: Words<1>,
    /// The first thing that could not be read.
    fault: RefCell<Option<KernelError>>,
}

impl<'a> Peek<'a> {
    /// The generation in force at a moment.
    pub(super) fn new(kernel: &'a Dataplane, now_ns: u64) -> Result<Self, KernelError> {
        if kernel.control(Control::Ready)? == 0 {
            return Err(KernelError::Other(
                "no policy is in force yet, so no packet is judged".into(),
            ));
        }
        let active = kernel.active()?;
        let half = active.in_force(now_ns) & 1;
        let open_at_ns = kernel.control(Control::OpenAt)?;
        let generation = kernel.map("GENERATIONS").get(&half);
        let generation: Option<Generation> = generation.map_err(failed("GENERATIONS"))?;
        let generation = generation.unwrap_or_default();
        let opens = generation.flags & flags::OPENS != 0;
        Ok(Self {
            half,
            generation,
            now_ns,
            bans: active.bans(),
            opened: opens && open_at_ns != 0 && now_ns >= open_at_ns,
            kernel,
            subjects: [const { OnceCell::new() }; SEEN],
            lines: RefCell::default(),
            proofs: RefCell::default(),
            shared: RefCell::default(),
            offers: RefCell::default(),
            attempts: RefCell::default(),
            fault: RefCell::default(),
        })
    }

    /// Whether the node only watches because no controller has reported for too long.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// An error if anything could not be read: what was judged then counts for nothing.
    pub(super) fn whole(&self) -> Result<(), KernelError> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// The subject that judges packets to a service from a source in these lists, in the state that its lever is in.
    pub(super) fn judging(&self, service: u32, lists: u64) -> Option<&Subject> {
        let mut subject = self.subject(service)?;
        if subject.flags & subject_flags::CLASSES != 0 && lists != 0 {
            let classes = (0..subject.classes.min(CLASSES)).map(|at| self.subject(subject.first_class + at));
            let mut classes = classes.flatten();
            subject = classes.find(|class| class.lists & lists != 0).unwrap_or(subject);
        }
        self.after_lever(subject)
    }

    /// A subject, or what follows it where its time is over.
    pub(super) fn after_lever<'s>(&'s self, subject: &'s Subject) -> Option<&'s Subject> {
        if subject.until_ns != u64::MAX && self.now_ns >= subject.until_ns {
            self.subject(subject.after)
        } else {
            Some(subject)
        }
    }

    fn note_fault(&self, error: KernelError) {
        self.fault.borrow_mut().get_or_insert(error);
    }

    fn read<K: Plain, V: Plain>(&self, map: &Map, key: &K) -> Option<V> {
        map.get(key).unwrap_or_else(|source| {
            self.note_fault(failed(&map.name)(source));
            None
        })
    }

    /// An element of this generation's half of an array.
    fn of_half<V: Plain>(&self, name: &'static str, size: u32, at: u32) -> Option<V> {
        self.read(self.kernel.map(name), &half(self.half, size, at))
    }

    /// What lies in a slot of a map in maps.
    fn of_slot<K: Plain, V: Plain>(&self, outer: &'static str, slot: u32, key: &K) -> Option<V> {
        match Map::open(&pins::inner(&self.kernel.set, outer, slot)) {
            Ok(map) => self.read(&map, key),
            Err(source) => {
                self.note_fault(failed(outer)(source));
                None
            }
        }
    }

    /// The copy of an element, read when it is first asked for.
    fn copy<const N: usize>(
        &self,
        copies: &Words<N>,
        name: &'static str,
        at: u32,
    ) -> Option<Rc<[Cell<u64>; N]>> {
        if let Some(copy) = copies.borrow().get(&at) {
            return Some(Rc::clone(copy));
        }
        let words: [u64; N] = self.read(self.kernel.map(name), &at)?;
        let copy = Rc::new(words.map(Cell::new));
        copies.borrow_mut().insert(at, Rc::clone(&copy));
        Some(copy)
    }

    /// Four classes lie in a word, those of TCP before those of UDP.
    fn class_of(&self, name: &'static str, udp: bool, port: u16) -> u16 {
        let word = u32::from(udp) * 16_384 + u32::from(port >> 2);
        packed(self.of_half(name, 32_768, word), u32::from(port))
    }
}

fn failed(map: &str) -> impl Fn(std::io::Error) -> KernelError {
    let what = format!("cannot read the map {map}");
    move |source| io_error(what.clone(), source)
}

fn packed(word: Option<u64>, at: u32) -> u16 {
    word.map_or(0, |word| (word >> ((at & 3) * 16)) as u16)
}

/// A line's or a word's copy.
#[derive(Clone, Debug)]
pub(super) struct Copied<const N: usize>(Rc<[Cell<u64>; N]>);

impl<const N: usize> Copied<N> {
    fn swap_at(&self, at: usize, old: u64, new: u64) -> bool {
        let same = self.0[at].get() == old;
        if same {
            self.0[at].set(new);
        }
        same
    }
}

impl Line for Copied<WORDS> {
    fn get(&self, at: usize) -> u64 {
        self.0[at].get()
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.swap_at(at, old, new)
    }
}

/// The first word of an element.
#[derive(Clone, Debug)]
pub(super) struct Word<const N: usize>(Copied<N>);

impl<const N: usize> Shared for Word<N> {
    fn get(&self) -> u64 {
        self.0.0[0].get()
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.0.swap_at(0, old, new)
    }
}

impl Groups for Peek<'_> {
    fn group(&self, number: u32) -> Option<AddressGroup> {
        self.of_half("ADDRESS_GROUP", ADDRESS_GROUPS, number)
    }

    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        let key = u64::from(group) << 32 | u64::from(class) << 16 | u64::from(source_class);
        self.of_slot("GROUP_TABLE", self.generation.destinations_slot, &key)
            .unwrap_or(0)
    }
}

impl Tables for Peek<'_> {
    fn port_class(&self, udp: bool, port: u16) -> u16 {
        self.class_of("PORT_CLASSES", udp, port)
    }

    fn source_port_class(&self, udp: bool, port: u16) -> u16 {
        self.class_of("SOURCE_PORTS", udp, port)
    }

    fn by_ports(&self, class: u16, source_class: u16) -> u32 {
        let cell = u32::from(class) * self.generation.source_port_classes + u32::from(source_class);
        u32::from(packed(
            self.of_half("PORT_TABLE", PORT_CELLS / 4, cell >> 2),
            cell,
        ))
    }
}

impl Versions for Peek<'_> {
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        let specs: [Spec; 4] = self.read(self.kernel.map("VERSIONS"), &id)?;
        specs.get(usize::from(version & 3)).copied()
    }
}

/// What a CPU holds of a total is another CPU's business: the packet is judged by the total itself.
impl Leases for Peek<'_> {
    type Slot = <NoLeases as Leases>::Slot;

    fn others(&self) -> u64 {
        NoLeases.others()
    }

    fn slot(&self, id: u32) -> Option<Self::Slot> {
        NoLeases.slot(id)
    }
}

impl proof::Tables for Peek<'_> {
    type Line = Copied<WORDS>;
    type Proofs = Copied<WORDS>;
    type Word = Word<1>;

    fn line(&self, hash: u64) -> Option<Copied<WORDS>> {
        let at = hash::line(hash, self.kernel.constants.lines);
        self.copy(&self.lines, "SOURCES", at).map(Copied)
    }

    fn proofs(&self, hash: u64) -> Option<Copied<WORDS>> {
        let at = hash::line(hash, self.kernel.constants.lines);
        self.copy(&self.proofs, "PROOFS", at).map(Copied)
    }

    fn offers(&self, at: u32) -> Option<Word<1>> {
        self.copy(&self.offers, "OFFERS", at).map(Copied).map(Word)
    }

    fn attempts(&self, at: u32) -> Option<Word<1>> {
        self.copy(&self.attempts, "ATTEMPTS", at).map(Copied).map(Word)
    }
}

impl Environment for Peek<'_> {
    type Shared = Word<WORDS>;

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn key(&self) -> Key {
        Key::new(self.kernel.constants.key)
    }

    fn shared(&self, id: u32) -> Option<Word<WORDS>> {
        self.copy(&self.shared, "SHARED", id).map(Copied).map(Word)
    }

    fn subject(&self, number: u32) -> Option<&Subject> {
        for place in &self.subjects {
            if let Some((held, subject)) = place.get() {
                if *held == number {
                    return Some(subject);
                }
                continue;
            }
            let subject = self.of_half("SUBJECT_TABLE", SUBJECTS, number)?;
            return Some(&place.get_or_init(|| (number, subject)).1);
        }
        let text = "a packet meets more services and classes than there can be";
        self.note_fault(KernelError::Other(text.into()));
        None
    }

    fn lists(&self, v6: bool, source: &Address) -> ListEntry {
        let slot = self.generation.lists_slot;
        let found = if v6 {
            self.of_slot("LISTS_V6", slot, &prefix6(source))
        } else {
            self.of_slot("LISTS_V4", slot, &[32, source[0]])
        };
        found.unwrap_or_default()
    }

    fn destination(&self, v6: bool, destination: &Address) -> DestinationEntry {
        let slot = self.generation.destinations_slot;
        let found = if v6 {
            self.of_slot("DESTS_V6", slot, &prefix6(destination))
        } else {
            self.of_slot("DESTS_V4", slot, &[32, destination[0]])
        };
        found.unwrap_or_default()
    }

    fn vlan_in_scope(&self, vlan: u16) -> bool {
        self.of_half("VLANS", 64, u32::from(vlan) >> 6)
            .is_some_and(|word: u64| word >> (vlan & 63) & 1 == 1)
    }

    fn protect_rule(&self, number: u32) -> Option<ProtectRule> {
        self.of_half("PROTECT", PROTECT_RULES, number)
    }

    fn banned_until_ns(&self, v6: bool, source: &Address, service: u32) -> u64 {
        if self.bans & bans::of(v6, service) == 0 {
            return 0;
        }
        let until: Option<[u32; 2]> = if v6 {
            let [a, b, c, d] = *source;
            self.read(self.kernel.map("BANS_V6"), &[160, service, a, b, c, d])
        } else {
            self.read(self.kernel.map("BANS_V4"), &[64, service, source[0]])
        };
        until.map_or(0, |until| u64::from(until[0]) | u64::from(until[1]) << 32)
    }

    fn answers_socket(&self, packet: &Packet) -> bool {
        replies::answers_socket(packet).unwrap_or_else(|source| {
            self.note_fault(io_error("cannot read the tables of sockets".into(), source));
            false
        })
    }

    fn note(&self, _event: Event) {}

    fn announce(&self, _packet: &Packet, _subject: &Subject, _whole: bool) {}

    fn watched(&self) -> bool {
        self.opened || self.generation.flags & flags::MONITOR != 0
    }
}

/// The key that finds the longest prefix of an IPv6 address.
const fn prefix6(address: &Address) -> [u32; 5] {
    [128, address[0], address[1], address[2], address[3]]
}
