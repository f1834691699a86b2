//! What a judgement looks at, in the order in which it does.

use std::cell::{Cell, RefCell};

use gateway_core::{
    bucket::spec::Spec,
    classify::{Groups, Tables},
    hash::Key,
    image::{AddressGroup, DestinationEntry, Generation, ListEntry, ProtectRule, Subject},
    judge::{self, Environment, Event, Shared},
    lease::Leases,
    limit,
    line::{self, Amount, Block, Blocked, Charge, Strike, Versions},
    packet::{Address, Packet},
    proof::{self, Standing},
};

/// One look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// Whether the VLAN is in scope.
    Vlan(bool),
    /// What services and scope say of the destination.
    Destination(DestinationEntry),
    /// A service, or a class that the source could belong to, or what follows a lever.
    Subject(u32),
    /// What the lists say of the source.
    Lists(ListEntry),
    /// The protect rules of the source were compared; the flattened rule that holds.
    Protect(Option<u32>),
    /// A ban for all services (`service` 0) or for one.
    Ban {
        /// The service's number.
        service: u32,
        /// When it ends; 0: there is none.
        until_ns: u64,
    },
    /// Whether it answers a socket.
    Socket(bool),
    /// Whether it completes a handshake that was seen on its way out.
    Answer(bool),
    /// The source's block.
    Block {
        /// What it blocks.
        blocked: Blocked,
        /// When it ends; 0: there is none.
        until_ns: u64,
    },
    /// What the source has shown for itself.
    Standing(Standing),
    /// A bucket that was charged, or refused to be.
    Bucket(Charged),
    /// The drop counts towards the source's block.
    Strike(Strike),
    /// The refused SYN would be remembered.
    Remembered,
}

/// A bucket that a packet met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Charged {
    /// The bucket.
    pub spec: Spec,
    /// Whether it was charged in a cell that all sources share.
    pub shared: bool,
    /// Packets, bytes or connections that were asked for.
    pub amount: u32,
    /// What was owed before, in the bucket's units.
    pub before: u64,
    /// What is owed after.
    pub after: u64,
    /// How deep it may be charged by this source.
    pub open: u64,
    /// What came of it.
    pub charge: Charge,
}

/// An environment that remembers what it was asked, and answers as another one does.
#[derive(Debug)]
pub struct Recorder<'a, E> {
    inner: &'a E,
    seen: RefCell<Vec<Seen>>,
}

impl<'a, E> Recorder<'a, E> {
    /// Begins to record.
    pub fn new(inner: &'a E) -> Self {
        Self {
            inner,
            seen: RefCell::default(),
        }
    }

    /// What was seen.
    pub fn into_seen(self) -> Vec<Seen> {
        self.seen.into_inner()
    }

    fn see(&self, seen: Seen) {
        self.seen.borrow_mut().push(seen);
    }
}

impl<E: Environment> Groups for Recorder<'_, E> {
    fn group(&self, number: u32) -> Option<AddressGroup> {
        self.inner.group(number)
    }

    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        self.inner.by_group(group, class, source_class)
    }
}

impl<E: Environment> Tables for Recorder<'_, E> {
    fn port_class(&self, udp: bool, port: u16) -> u16 {
        self.inner.port_class(udp, port)
    }

    fn source_port_class(&self, udp: bool, port: u16) -> u16 {
        self.inner.source_port_class(udp, port)
    }

    fn by_ports(&self, class: u16, source_class: u16) -> u32 {
        self.inner.by_ports(class, source_class)
    }
}

impl<E: Environment> Versions for Recorder<'_, E> {
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        self.inner.version(id, version)
    }
}

impl<E: Environment> Leases for Recorder<'_, E> {
    type Slot = E::Slot;

    fn others(&self) -> u64 {
        self.inner.others()
    }

    fn slot(&self, id: u32) -> Option<E::Slot> {
        self.inner.slot(id)
    }
}

impl<E: Environment> proof::Tables for Recorder<'_, E> {
    type Line = E::Line;
    type Proofs = E::Proofs;
    type Word = E::Word;

    fn line(&self, hash: u64) -> Option<E::Line> {
        self.inner.line(hash)
    }

    fn proofs(&self, hash: u64) -> Option<E::Proofs> {
        self.inner.proofs(hash)
    }

    fn offers(&self, at: u32) -> Option<E::Word> {
        self.inner.offers(at)
    }

    fn attempts(&self, at: u32) -> Option<E::Word> {
        self.inner.attempts(at)
    }
}

impl<E: Environment> Environment for Recorder<'_, E> {
    type Shared = E::Shared;

    fn generation(&self) -> &Generation {
        self.inner.generation()
    }

    fn now_ns(&self) -> u64 {
        self.inner.now_ns()
    }

    fn key(&self) -> Key {
        self.inner.key()
    }

    fn shared(&self, id: u32) -> Option<E::Shared> {
        self.inner.shared(id)
    }

    fn subject(&self, number: u32) -> Option<&Subject> {
        self.see(Seen::Subject(number));
        self.inner.subject(number)
    }

    fn lists(&self, v6: bool, source: &Address) -> ListEntry {
        let entry = self.inner.lists(v6, source);
        self.see(Seen::Lists(entry));
        entry
    }

    fn destination(&self, v6: bool, destination: &Address) -> DestinationEntry {
        let entry = self.inner.destination(v6, destination);
        self.see(Seen::Destination(entry));
        entry
    }

    fn vlan_in_scope(&self, vlan: u16) -> bool {
        let inside = self.inner.vlan_in_scope(vlan);
        self.see(Seen::Vlan(inside));
        inside
    }

    fn protect_rule(&self, number: u32) -> Option<ProtectRule> {
        self.inner.protect_rule(number)
    }

    fn banned_until_ns(&self, v6: bool, source: &Address, service: u32) -> u64 {
        let until_ns = self.inner.banned_until_ns(v6, source, service);
        self.see(Seen::Ban { service, until_ns });
        until_ns
    }

    fn answers_socket(&self, packet: &Packet) -> bool {
        let answers = self.inner.answers_socket(packet);
        self.see(Seen::Socket(answers));
        answers
    }

    fn note(&self, event: Event) {
        self.inner.note(event);
    }

    fn announce(&self, packet: &Packet, subject: &Subject, whole: bool) {
        self.inner.announce(packet, subject, whole);
    }

    fn watched(&self) -> bool {
        self.inner.watched()
    }

    fn tidy(&self, line: &E::Line) {
        self.inner.tidy(line);
    }

    fn charge(&self, line: &E::Line, spec: &Spec, hash: u64, amount: Amount) -> Charge {
        let owed = || line::owed(line, self, spec, hash, self.now_ns());
        let before = owed();
        let charge = self.inner.charge(line, spec, hash, amount);
        self.see(Seen::Bucket(Charged {
            spec: *spec,
            shared: false,
            amount: amount.number(),
            before,
            after: owed(),
            open: spec.depth,
            charge,
        }));
        charge
    }

    fn blocked(&self, line: &E::Line, block: &Block, hash: u64) -> Blocked {
        let blocked = self.inner.blocked(line, block, hash);
        let until_ns = line::blocked_until_ns(line, block.id, hash, self.now_ns());
        self.see(Seen::Block { blocked, until_ns });
        blocked
    }

    fn strike(&self, line: &E::Line, block: &Block, hash: u64, proven: bool) -> Strike {
        let strike = self.inner.strike(line, block, hash, proven);
        self.see(Seen::Strike(strike));
        strike
    }

    fn charge_shared(&self, spec: &Spec, amount: u32, open: impl Fn() -> u64) -> Charge {
        let owed = || {
            let cell = self.inner.shared(spec.id());
            cell.map_or(0, |cell| {
                limit::shared_debt(cell.get(), self, spec, self.now_ns())
            })
        };
        let before = owed();
        let charge = self.inner.charge_shared(spec, amount, &open);
        self.see(Seen::Bucket(Charged {
            spec: *spec,
            shared: true,
            amount,
            before,
            after: owed(),
            open: open(),
            charge,
        }));
        charge
    }

    fn standing(&self, packet: &Packet) -> Standing {
        let standing = self.inner.standing(packet);
        self.see(Seen::Standing(standing));
        standing
    }

    fn answer(&self, packet: &Packet) -> bool {
        let answers = self.inner.answer(packet);
        self.see(Seen::Answer(answers));
        answers
    }

    fn remember(&self, packet: &Packet) {
        self.inner.remember(packet);
        self.see(Seen::Remembered);
    }

    fn protected(&self, rules: u64, protocol: u8, port: Option<u16>) -> bool {
        let asked = Cell::new(None);
        let rule = |number| {
            asked.set(Some(number));
            self.inner.protect_rule(number)
        };
        // The last one that was asked for is the one that holds.
        let protected = judge::protected(rule, rules, protocol, port);
        self.see(Seen::Protect(asked.get().filter(|_| protected)));
        protected
    }
}
