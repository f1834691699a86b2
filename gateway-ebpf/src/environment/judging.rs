//! What the decision function asks, over BPF maps.

use core::cell::Cell;

use aya_ebpf::{btf_maps::lpm_trie::Key as Prefix, programs::XdpContext};
use gateway_core::{
    bucket::spec::Spec,
    hash::Key,
    image::{
        Active, BANS_FILTER, Control, DestinationEntry, Epoch, Generation, ListEntry, PROTECT_RULES,
        ProtectRule, SUBJECTS, Subject, half, subject_flags, uses,
    },
    judge::{self, Event},
    limit,
    line::{self, Amount, Block, Charge, Strike},
    packet::{Address, Packet},
    proof::{self, Standing},
};

use crate::{
    buckets::{MapLine, MapShared},
    frame::in_memory,
    functions, maps, profiles,
    proofs::{self},
    sockets,
};

use super::{Environment, note};

impl<const MADE_FOR: u64> judge::Environment for Environment<MADE_FOR> {
    type Shared = MapShared;

    #[inline(always)]
    fn generation(&self) -> &Generation {
        self.generation
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        self.flags
    }

    #[inline(always)]
    fn subject_flags(&self, subject: &Subject) -> u32 {
        uses::subject_flags(self.uses) & subject.flags
    }

    #[inline(always)]
    fn may_have(&self, tier: usize, kind: usize) -> bool {
        self.buckets & uses::bucket_of(tier, kind) != 0
    }

    #[inline(always)]
    fn key(&self) -> Key {
        proofs::key()
    }

    #[inline(always)]
    fn source_hash(&self, packet: &Packet) -> u64 {
        if self.hashes() {
            self.source_hash
        } else {
            limit::hash_of(&proofs::key(), self.generation, packet)
        }
    }

    #[inline(always)]
    fn source_line(&self, hash: u64) -> Option<MapLine> {
        if self.sources() {
            Some(MapLine::new(self.source_line))
        } else {
            proof::Tables::line(self, hash)
        }
    }

    #[inline(always)]
    fn shared(&self, id: u32) -> Option<MapShared> {
        maps::SHARED.get_ptr_mut(id).map(MapShared::new)
    }

    #[inline(always)]
    fn subject(&self, number: u32) -> Option<&Subject> {
        maps::SUBJECT_TABLE.get(half(self.half, SUBJECTS, number))
    }

    #[inline(always)]
    fn lists(&self, v6: bool, source: &Address) -> ListEntry {
        let slot = self.generation.lists_slot;
        if !self.may_hold(slot, v6, source) {
            return ListEntry::default();
        }
        let found = if v6 {
            maps::LISTS_V6
                .get(slot)
                .and_then(|trie| trie.get(&Prefix::new(128, *source)))
        } else {
            maps::LISTS_V4
                .get(slot)
                .and_then(|trie| trie.get(&Prefix::new(32, [source[0]])))
        };
        // Copied from behind the pointer only where there is one: an `Option` of the value itself would leave registers
        // unwritten on the other way, and the compiler tests them there, which the verifier refuses.
        match found {
            Some(entry) => *entry,
            None => ListEntry::default(),
        }
    }

    #[inline(always)]
    fn destination(&self, v6: bool, destination: &Address) -> DestinationEntry {
        let slot = self.generation.destinations_slot;
        let found = if v6 {
            maps::DESTS_V6
                .get(slot)
                .and_then(|trie| trie.get(&Prefix::new(128, *destination)))
        } else {
            maps::DESTS_V4
                .get(slot)
                .and_then(|trie| trie.get(&Prefix::new(32, [destination[0]])))
        };
        match found {
            Some(entry) => *entry,
            None => DestinationEntry::default(),
        }
    }

    #[inline(always)]
    fn vlan_in_scope(&self, vlan: u16) -> bool {
        maps::VLANS
            .get(half(self.half, 64, u32::from(vlan) >> 6))
            .is_some_and(|word| word >> (vlan & 63) & 1 == 1)
    }

    #[inline(always)]
    fn protect_rule(&self, number: u32) -> Option<ProtectRule> {
        maps::PROTECT.get(half(self.half, PROTECT_RULES, number)).copied()
    }

    #[inline(always)]
    fn bans(&self) -> u64 {
        Active::from_word(self.controls.get(Control::Active)).bans()
    }

    #[inline(always)]
    fn may_be_banned(&self, v6: bool, source: &Address) -> bool {
        self.may_hold(BANS_FILTER, v6, source)
    }

    #[inline(always)]
    fn banned_until_ns(&self, v6: bool, source: &Address, service: u32) -> u64 {
        let until = if v6 {
            let key = [service, source[0], source[1], source[2], source[3]];
            maps::BANS_V6.get(&Prefix::new(160, key))
        } else {
            maps::BANS_V4.get(&Prefix::new(64, [service, source[0]]))
        };
        until.map_or(0, |until| u64::from(until[0]) | u64::from(until[1]) << 32)
    }

    #[inline(always)]
    fn answers_socket(&self, packet: &Packet) -> bool {
        sockets::answers(&XdpContext::new(self.context), packet)
    }

    #[inline(always)]
    fn watched(&self) -> bool {
        self.watched
    }

    #[inline(always)]
    fn announce(&self, packet: &Packet, subject: &Subject, whole: bool) {
        let place = proofs::place(packet);
        if functions::weir_announce(place, subject, self.half, self.now_ns, u32::from(whole)) != 0 {
            self.note(Event::Unnoticed);
        }
    }

    #[inline(always)]
    fn note(&self, event: Event) {
        note(event);
    }

    #[inline(always)]
    fn look(&self, packet: &Packet, subject: &Subject) {
        let own = judge::Environment::subject_flags(self, subject);
        let epoch = || Epoch::from_word(self.controls.get(Control::Epoch));
        profiles::look(packet, subject.service, own, self.now_ns, self.source_hash, epoch);
    }

    #[inline(always)]
    fn tidy(&self, line: &MapLine) {
        // A call costs more than the question, whose answer is nearly always no.
        if line::untidy(line, self.now_ns, self.generation.patience) {
            functions::weir_tidy(line.element(), self.now_ns);
        }
    }

    /// Beside the benchmark's `LRU_HASH`, whose cells are in no line.
    #[cfg(not(feature = "lru"))]
    #[inline(always)]
    fn charge_first(&self, line: &MapLine, spec: &Spec, hash: u64, amount: Amount, cost: u64) -> Charge {
        match line::charge_found(line, spec, hash, self.now_ns, cost) {
            Some(charge) => charge,
            None => self.charge(line, spec, hash, amount),
        }
    }

    #[inline(always)]
    fn charge(&self, line: &MapLine, spec: &Spec, hash: u64, amount: Amount) -> Charge {
        Charge::from_number(functions::weir_charge(
            line.element(),
            spec,
            hash,
            self.now_ns,
            amount.bits(),
        ))
    }

    #[inline(always)]
    fn strike(&self, line: &MapLine, block: &Block, hash: u64, proven: bool) -> Strike {
        Strike::from_number(functions::weir_strike(
            line.element(),
            block,
            hash,
            self.now_ns,
            u32::from(proven),
        ))
    }

    #[inline(always)]
    fn charge_shared(&self, spec: &Spec, amount: u32, open: impl Fn() -> u64) -> Charge {
        // Who has a lease is spared the calls, and who is refused.
        limit::charge_shared(
            self,
            spec,
            self.now_ns,
            amount,
            open,
            || judge::Environment::shared(self, spec.id()),
            |cell, open| {
                Charge::from_number(functions::weir_shared(
                    cell.element(),
                    spec,
                    self.now_ns,
                    amount,
                    open,
                ))
            },
        )
    }

    #[inline(always)]
    fn keep(&self, standing: &Cell<Option<Standing>>) {
        // Where it is asked for more than once.
        if uses::subject_flags(MADE_FOR) & subject_flags::RESERVE != 0 {
            in_memory(standing);
        }
    }

    #[inline(always)]
    fn standing(&self, packet: &Packet) -> Standing {
        // All that a packet shows by itself is an attempt.
        if self.sources()
            && !packet.connection
            && !proof::marked(&MapLine::new(self.source_line), self.now_ns)
        {
            return Standing::Stranger;
        }
        Standing::from_number(proofs::weir_standing(
            proofs::place(packet),
            self.half,
            self.now_ns,
        ))
    }

    #[inline(always)]
    fn answer(&self, packet: &Packet) -> bool {
        let awaited = |filters| proofs::awaited(filters, packet, self.now_ns);
        self.filters().is_some_and(awaited)
            && proofs::weir_answer(proofs::place(packet), self.half, self.now_ns) != 0
    }

    #[inline(always)]
    fn remember(&self, packet: &Packet) {
        proofs::weir_remember(proofs::place(packet), self.now_ns);
    }

    #[inline(always)]
    fn protected(&self, rules: u64, protocol: u8, port: Option<u16>) -> bool {
        let (has_port, port) = match port {
            Some(port) => (1, u32::from(port)),
            None => (0, 0),
        };
        functions::weir_protected(self.half, rules, u32::from(protocol), has_port, port) != 0
    }
}
