//! A packet's view of the maps: what it finds, and what it is classified, proven and counted by. What the judgement asks stands in [`judging`].

mod judging;

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use gateway_core::{
    bucket::spec::Spec,
    classify::{self, Tables},
    filter::{self, Filters},
    image::{
        Active, AddressGroup, Control, Generation, PAGE_SERIES, PAGES, PORT_CELLS, Subject, flags, half,
        subject_flags, uses,
    },
    judge::{self, Event, Judgement},
    lease::Leases,
    limit,
    line::{Line as _, Versions},
    packet::{Address, Packet},
    proof,
};

use crate::{
    buckets::{Element, MapLeases, MapLine, MapSlot, MapVersions, MapWord},
    clock,
    frame::opaque,
    functions,
    groups::Groups,
    maps, profiles,
    proofs::{self, Proofs},
    samples,
};

/// One packet's view of the maps, in one generation, in a program that was compiled for policies that need no more than `MADE_FOR`
/// ([`uses`]): what others need is not in it, where [`Self::uses`] would leave the question.
pub(crate) struct Environment<const MADE_FOR: u64> {
    context: *mut xdp_md,
    half: u32,
    generation: &'static Generation,
    now_ns: u64,
    /// What the program was made for, which the verifier knows wherever it is kept.
    uses: u64,
    /// The generation's flags, without those that the program was not made for.
    flags: u32,
    /// Which buckets any policy of the program has: [`uses::buckets`].
    buckets: u32,
    watched: bool,
    controls: Controls,
    /// Where the filters are; null where no policy of this program asks for them at every packet, and on the way out.
    filters: *mut Filters,
    /// Of the packet's source, once it was [expected](Self::expect), where the policies ask for it; not on the way out.
    source_hash: u64,
    /// Its line, likewise; null where no policy of this program asks for it.
    source_line: *mut Element,
}

impl<const MADE_FOR: u64> Environment<MADE_FOR> {
    /// Reads the clock, and which generation is in force then; nothing where no policy is.
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Option<Self> {
        let uses = maps::uses() & MADE_FOR;
        let now_ns = if uses::flags(uses) & flags::EXACT_CLOCK != 0 {
            clock::now_ns()
        } else {
            clock::coarse_ns()
        };
        let controls = Controls::find()?;
        let active = Active::from_word(controls.get(Control::Active));
        // The mask shows the verifier that it is one of two.
        let half = active.in_force(now_ns) & 1;
        let generation = maps::GENERATIONS.get(half)?;
        if generation.flags & flags::READY == 0 {
            return None;
        }
        let mut flags = uses::flags(uses) & generation.flags;
        if uses::granted(MADE_FOR) {
            flags |= flags::DIRECT_PORTS;
        }
        let opened = flags & flags::OPENS != 0 && {
            let open_at_ns = controls.get(Control::OpenAt);
            open_at_ns != 0 && now_ns >= open_at_ns
        };
        let filters = if Self::filtered(uses) {
            maps::FILTERS.get_ptr_mut(0)?
        } else {
            core::ptr::null_mut()
        };
        Some(Self {
            watched: opened || generation.flags & flags::MONITOR != 0,
            context: context.ctx,
            half,
            generation,
            now_ns,
            uses,
            flags,
            buckets: uses::buckets(uses),
            controls,
            filters,
            source_hash: 0,
            source_line: core::ptr::null_mut(),
        })
    }

    /// Asks for the line of a packet's source before it is known whether it will be needed. Of very many sources none is in the
    /// processor's cache, and all else that a packet takes is done while the line comes from memory. Nothing only if the table has no
    /// such line, which cannot be: the verifier need not follow it any further.
    #[inline(always)]
    pub(crate) fn expect(&mut self, packet: &Packet) -> Option<()> {
        if self.hashes() {
            self.source_hash = limit::hash_of(&proofs::key(), self.generation, packet);
        }
        if self.sources() {
            let line = proof::Tables::line(self, self.source_hash)?;
            let _ = line.get(0);
            self.source_line = line.element();
        }
        Some(())
    }

    /// Whether any policy of a program asks for filters at every packet, whoever is banned: known when the program is loaded.
    #[inline(always)]
    fn filtered(uses: u64) -> bool {
        // Who is compiled for lists is for policies that have them, nearly always.
        uses::granted(MADE_FOR) && uses::flags(MADE_FOR) & flags::LISTS != 0
            || uses::flags(uses) & (flags::LISTS | flags::OFFERS) != 0
    }

    #[inline(always)]
    fn filters(&self) -> Option<*mut Filters> {
        if Self::filtered(self.uses) {
            Some(self.filters)
        } else {
            maps::FILTERS.get_ptr_mut(0)
        }
    }

    /// Whether the tries behind a filter may cover an address.
    #[inline(always)]
    fn may_hold(&self, filter: u32, v6: bool, address: &Address) -> bool {
        let Some(filters) = self.filters() else {
            // Cannot be. The tries know.
            return true;
        };
        let bit = if v6 {
            // Or the compiler would reckon the bit of both families for each packet.
            filter::bit(true, &[opaque(address[0] as usize) as u32, 0, 0, 0])
        } else {
            filter::bit(false, address)
        };
        // SAFETY: words of a map element; the mask shows the verifier that the word is one of them, for filters are followed by more than the
        // few that the number could name beyond the last.
        let word = unsafe {
            (&raw const (*filters).tries)
                .cast::<u64>()
                .add((filter & 7) as usize * filter::WORDS + (bit / 64 & (filter::WORDS - 1)))
                .read_volatile()
        };
        word >> (bit % 64) & 1 == 1
    }

    /// Whether any policy of the program keeps something of sources: known when the program is loaded.
    #[inline(always)]
    fn sources(&self) -> bool {
        uses::granted(MADE_FOR) || uses::sources(self.uses)
    }

    /// Whether every packet's source is hashed, likewise.
    #[inline(always)]
    fn hashes(&self) -> bool {
        self.sources() || uses::flags(self.uses) & flags::PROFILES != 0
    }

    /// What a packet on its way out is classified by. It is not judged.
    #[inline(always)]
    pub(crate) fn leaving(half: u32) -> Option<Self> {
        Some(Self {
            context: core::ptr::null_mut(),
            half: half & 1,
            generation: proofs::generation(half)?,
            // Classification knows no time.
            now_ns: 0,
            uses: uses::ALL,
            flags: proofs::generation(half)?.flags,
            buckets: uses::buckets(uses::ALL),
            watched: false,
            controls: Controls::find()?,
            filters: core::ptr::null_mut(),
            source_hash: 0,
            source_line: core::ptr::null_mut(),
        })
    }

    #[inline(always)]
    fn groups(&self) -> Groups {
        Groups {
            half: self.half,
            slot: self.generation.destinations_slot,
        }
    }

    /// Counts a judged packet among those that completed a handshake, and takes it as a sample, where the policy asks for either.
    #[inline(always)]
    pub(crate) fn look_back(&self, judgement: Judgement, subject: Option<&Subject>, length: u32) {
        if judgement.answered
            && self.flags & flags::PROFILES != 0
            && let Some(subject) = subject
            && subject.flags & subject_flags::PROFILE != 0
        {
            profiles::weir_answered(subject.service);
        }
        if self.flags & flags::SAMPLES != 0 {
            samples::count(self.context, self.half, judgement, length, self.now_ns);
        }
    }

    /// Counts a judgement: one write to this CPU's own counters.
    #[inline(always)]
    pub(crate) fn count(&self, judgement: Judgement, subject: Option<&Subject>, length: u32) {
        let series = subject.and_then(|subject| judge::series_of(subject, judgement));
        let Some(series) = series else {
            return judge::Environment::note(self, Event::Uncounted);
        };
        let page = maps::interface() * PAGES + series / PAGE_SERIES;
        match maps::COUNTERS.get_value_ptr_mut(page, &(series % PAGE_SERIES)) {
            Some(counter) => {
                // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
                unsafe {
                    (*counter)[0] += 1;
                    (*counter)[1] += u64::from(length);
                }
            }
            None => judge::Environment::note(self, Event::Uncounted),
        }
    }
}

/// Counts an event.
#[inline(always)]
pub(crate) fn note(event: Event) {
    if let Some(count) = maps::EVENTS_SEEN.get_ptr_mut(event as u32) {
        // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
        unsafe { *count += 1 };
    }
}

/// The words of the control table.
#[derive(Clone, Copy)]
pub(crate) struct Controls(*const u64);

impl Controls {
    /// They are always there: the verifier need not follow it any further where they are not.
    #[inline(always)]
    pub(crate) fn find() -> Option<Self> {
        maps::CONTROL.get_ptr(0).map(|words| Self(words.cast()))
    }

    #[inline(always)]
    pub(crate) fn get(self, word: Control) -> u64 {
        // SAFETY: a word of a map element, which has all of them; userspace changes it while we read, so it is read once, whole.
        unsafe { self.0.add(word as usize).read_volatile() }
    }
}

/// A word of the control table, for those that need no other.
#[inline(always)]
pub(crate) fn control(word: Control) -> u64 {
    Controls::find().map_or(0, |controls| controls.get(word))
}

/// Reads a class from a table that holds four in a word.
#[inline(always)]
fn packed(word: Option<&u64>, at: u32) -> u16 {
    word.map_or(0, |word| (*word >> ((at & 3) * 16)) as u16)
}

#[inline(always)]
const fn port_word(udp: bool, port: u16) -> u32 {
    udp as u32 * 16_384 + (port as u32 >> 2)
}

impl<const MADE_FOR: u64> Tables for Environment<MADE_FOR> {
    #[inline(always)]
    fn port_class(&self, udp: bool, port: u16) -> u16 {
        packed(
            maps::PORT_CLASSES.get(half(self.half, 32_768, port_word(udp, port))),
            u32::from(port),
        )
    }

    #[inline(always)]
    fn source_port_class(&self, udp: bool, port: u16) -> u16 {
        packed(
            maps::SOURCE_PORTS.get(half(self.half, 32_768, port_word(udp, port))),
            u32::from(port),
        )
    }

    #[inline(always)]
    fn by_ports(&self, class: u16, source_class: u16) -> u32 {
        let cell = u32::from(class) * self.generation.source_port_classes + u32::from(source_class);
        u32::from(packed(
            maps::PORT_TABLE.get(half(self.half, PORT_CELLS / 4, cell >> 2)),
            cell,
        ))
    }

    #[inline(always)]
    fn in_groups(&self, group: u32, base: u16, class: u16, source_class: u16) -> u32 {
        let classes = u32::from(class) << 16 | u32::from(source_class);
        functions::weir_groups(
            self.half,
            self.generation.destinations_slot,
            group,
            u32::from(base),
            classes,
        )
    }
}

impl<const MADE_FOR: u64> classify::Groups for Environment<MADE_FOR> {
    #[inline(always)]
    fn group(&self, number: u32) -> Option<AddressGroup> {
        self.groups().group(number)
    }

    #[inline(always)]
    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        self.groups().by_group(group, class, source_class)
    }
}

impl<const MADE_FOR: u64> Versions for Environment<MADE_FOR> {
    #[inline(always)]
    fn version(&self, id: u32, version: u8) -> Option<Spec> {
        MapVersions.version(id, version)
    }
}

impl<const MADE_FOR: u64> Leases for Environment<MADE_FOR> {
    type Slot = MapSlot;

    #[inline(always)]
    fn others(&self) -> u64 {
        MapLeases.others()
    }

    #[inline(always)]
    fn slot(&self, id: u32) -> Option<MapSlot> {
        MapLeases.slot(id)
    }
}

impl<const MADE_FOR: u64> proof::Tables for Environment<MADE_FOR> {
    type Line = MapLine;
    type Proofs = MapLine;
    type Word = MapWord;

    #[inline(always)]
    fn line(&self, hash: u64) -> Option<MapLine> {
        Proofs.line(hash)
    }

    #[inline(always)]
    fn proofs(&self, hash: u64) -> Option<MapLine> {
        Proofs.proofs(hash)
    }

    #[inline(always)]
    fn offers(&self, at: u32) -> Option<MapWord> {
        Proofs.offers(at)
    }

    #[inline(always)]
    fn attempts(&self, at: u32) -> Option<MapWord> {
        Proofs.attempts(at)
    }
}
