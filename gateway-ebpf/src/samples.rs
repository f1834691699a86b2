//! Samples: the countdown of each packet, and what a packet that is taken puts into the ring.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, xdp_md},
    helpers::generated::{bpf_get_prandom_u32, bpf_ringbuf_query, bpf_xdp_load_bytes},
};
use gateway_core::{
    image::{SUBJECTS, half},
    judge::{Event, Judgement, Shared},
    sample::{self, SNAP, Sample, Taken, Window},
};

use crate::{
    buckets::{Element, MapWord},
    clock, environment,
    frame::opaque,
    maps, proofs,
};

/// A sample and its bytes, as they lie in the ring.
#[repr(C)]
pub(crate) struct Record {
    head: Sample,
    bytes: [u8; SNAP],
}

/// The reader is woken when so many bytes wait; it looks by itself now and then as well.
const BATCH: u64 = 64 * 1024;

/// Where sampling stands, for all CPUs.
struct MapWindow(*mut Element);

impl Window for MapWindow {
    type Word = MapWord;

    #[inline(always)]
    fn word(&self, at: usize) -> MapWord {
        // SAFETY: a word of a map element; the mask holds it there.
        MapWord::new(unsafe { self.0.cast::<u64>().add(at & (sample::word::COUNT - 1)) })
    }
}

/// Counts a packet down; what is rarely more than that is a function of its own.
#[inline(always)]
pub(crate) fn count(context: *mut xdp_md, generation: u32, judgement: Judgement, length: u32, now_ns: u64) {
    let Some(countdown) = maps::COUNTDOWN.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
    if unsafe { (*countdown).count(now_ns) } {
        let judged = u64::from(judgement.subject)
            | (judgement.verdict as u64) << 32
            | (judgement.reason as u64) << 40
            | u64::from(generation & 1) << 48;
        weir_sample(context, judged, length, now_ns);
    }
}

/// [`sample::attend`], and the sample if it takes one. `judged`: the subject in the low half, then verdict, reason and
/// generation.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_sample(context: *mut xdp_md, judged: u64, length: u32, now_ns: u64) -> u32 {
    let generation = (judged >> 48) as u32 & 1;
    let (Some(countdown), Some(window), Some(in_force)) = (
        maps::COUNTDOWN.get_ptr_mut(0),
        maps::SAMPLING.get_ptr_mut(0),
        proofs::generation(generation),
    ) else {
        return 0;
    };
    let window = MapWindow(window);
    // SAFETY: takes nothing, gives a number.
    let random = unsafe { bpf_get_prandom_u32() };
    // SAFETY: this CPU's own element; XDP programs do not nest on a CPU.
    let taken = sample::attend(
        &window,
        unsafe { &mut *countdown },
        in_force.sample,
        now_ns,
        random,
    );
    let one_in = match taken {
        Taken::No => return 0,
        Taken::Suppressed => {
            environment::note(Event::Suppressed);
            return 0;
        }
        Taken::Yes(one_in) => one_in,
    };
    let (service, class) = counted_by(generation, judged as u32);
    let head = Sample {
        // Seldom, so exactly: the packet may have been judged by a coarse clock.
        at_ns: clock::now_ns(),
        missed: Shared::get(&window.word(sample::word::MISSED)),
        one_in,
        length,
        service,
        interface: maps::interface(),
        verdict: (judged >> 32) as u8,
        reason: (judged >> 40) as u8,
        captured: if length < SNAP as u32 {
            length as u8
        } else {
            SNAP as u8
        },
        class,
        reserved: [0; 4],
    };
    if put(context, head) {
        environment::note(Event::Sampled);
    } else {
        environment::note(Event::Unsampled);
        sample::miss(&window, one_in);
    }
    0
}

/// The service of a subject, and which of its classes it is.
#[inline(always)]
fn counted_by(generation: u32, subject: u32) -> (u32, u8) {
    let entry = |number| maps::SUBJECT_TABLE.get(half(generation, SUBJECTS, number));
    let Some(service) = entry(subject).map(|entry| entry.service) else {
        return (0, 0);
    };
    if service == subject {
        return (service, 0);
    }
    let first = entry(service).map_or(subject, |entry| entry.first_class);
    (service, (subject.wrapping_sub(first) + 1) as u8)
}

/// Puts a sample and the frame's first bytes into the ring; whether there was room.
#[inline(always)]
fn put(context: *mut xdp_md, head: Sample) -> bool {
    let Some(mut entry) = maps::SAMPLES.reserve(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // Never 0, of which the verifier of kernel 6.1 must be sure; no frame is empty. The register that is bounded must be the one
    // that is passed.
    let captured = (opaque(usize::from(head.captured).wrapping_sub(1)) & (SNAP - 1)) + 1;
    // SAFETY: memory that the ring has reserved for a record.
    unsafe {
        (&raw mut (*record).head).write(head);
        // Word by word: see `blank`.
        let words = (&raw mut (*record).bytes).cast::<u64>();
        for at in 0..SNAP / 8 {
            words.add(at).write_volatile(0);
        }
        // Also where the frame lies in several buffers (kernel 5.18).
        bpf_xdp_load_bytes(context, 0, (&raw mut (*record).bytes).cast(), captured as u32);
    }
    // SAFETY: asks how much waits in a ring that is there.
    let waiting = unsafe {
        bpf_ringbuf_query(
            (&raw const maps::SAMPLES).cast_mut().cast(),
            u64::from(BPF_RB_AVAIL_DATA),
        )
    };
    entry.submit(u64::from(if waiting >= BATCH {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }));
    true
}
