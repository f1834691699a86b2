//! Who counts as proven, whose SYN counts as one that comes again, and what either is worth.

#[path = "common/frames.rs"]
mod frames;
#[path = "common/world.rs"]
mod world;

use frames::*;
use gateway_core::{
    frame::Slice,
    hash::Key,
    judge::{Event, Shared, judge},
    line::{self, Block, Blocked, Line},
    packet::Packet,
    parse::parse,
    proof::{self, LIFETIME, REFRESH, Standing, Tables},
    verdict::{Reason, Verdict},
};
use proptest::prelude::*;
use std::cell::Cell;
use world::{OVERFLOW_LINES, SECOND, World};

const TCP: u8 = 6;
/// A second in which the slow buckets of this world refill a whole packet: rates are rounded by up to 0.05 %.
const REFILL: u64 = SECOND + SECOND / 100;
/// The unit of the clock of proofs.
const PROOF_SECOND: u64 = 1 << 30;

/// A segment of the connection between the tests' source and port 443 of their destination.
fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    let mut header = tcp(40_000, 443, flags);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    ethernet(0x0800, &ipv4(TCP, &header))
}

/// The same connection's other direction.
fn back(flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = segment(flags, sequence, 1);
    for at in 0..4 {
        frame.swap(26 + at, 30 + at);
    }
    frame.swap(34, 36);
    frame.swap(35, 37);
    frame
}

fn verdict(world: &World, frame: &[u8]) -> (Verdict, Reason) {
    let judgement = judge(&world, &Slice::whole(frame));
    (judgement.verdict, judgement.reason)
}

/// How many of a hundred frames pass.
fn passed(world: &World, frame: impl Fn(u32) -> Vec<u8>) -> usize {
    (0..100)
        .filter(|number| verdict(world, &frame(*number)).0 == Verdict::Pass)
        .count()
}

fn reserved() -> World {
    let mut world = World::new();
    world.limit(3, 0, 40);
    world.reserve(0, 20, 30);
    world
}

#[derive(Default)]
struct Proofs([Cell<u64>; 8]);

impl Line for Proofs {
    fn get(&self, at: usize) -> u64 {
        self.0[at].get()
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.0[at].replace(new) == old
    }
}

#[test]
fn a_proof_lasts_an_hour_from_the_last_handshake() {
    let (line, begin) = (Proofs::default(), 5 * PROOF_SECOND);
    proof::prove(&line, 7, begin);
    let end = begin + LIFETIME * PROOF_SECOND;
    assert!(proof::proven(&line, 7, begin) && proof::proven(&line, 7, end));
    assert!(!proof::proven(&line, 7, end + PROOF_SECOND));
    assert!(!proof::proven(&line, 8, begin), "somebody else's");
    // Another handshake before the end, and it lasts an hour from there; a minute is too soon to write it again.
    let soon = begin + (REFRESH - 1) * PROOF_SECOND;
    proof::prove(&line, 7, soon);
    assert!(!proof::proven(&line, 7, end + PROOF_SECOND));
    let later = begin + REFRESH * PROOF_SECOND;
    proof::prove(&line, 7, later);
    assert!(proof::proven(&line, 7, later + LIFETIME * PROOF_SECOND));
    assert_eq!(
        (0..8).filter(|at| line.get(*at) != 0).count(),
        1,
        "one source, one cell"
    );
    // A clock that is a little behind the one that proved.
    assert!(proof::proven(&line, 7, later - PROOF_SECOND));
}

#[test]
fn in_a_full_line_the_oldest_proof_goes() {
    let line = Proofs::default();
    for source in 0..8 {
        proof::prove(&line, 100 + source, (10 + source) * 100 * PROOF_SECOND);
    }
    let now = 1_800 * PROOF_SECOND;
    proof::prove(&line, 100, now);
    proof::prove(&line, 200, now);
    let proven: Vec<u64> = (100..108)
        .chain([200])
        .filter(|source| proof::proven(&line, *source, now))
        .collect();
    // 100 was used again, so 101 was the oldest.
    assert_eq!(proven, [100, 102, 103, 104, 105, 106, 107, 200]);
}

#[test]
fn strangers_stop_at_the_reserve_and_proven_sources_at_the_bottom() {
    let world = reserved();
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 20);
    assert_eq!(
        verdict(&world, &segment(ACK, 1, 1)),
        (Verdict::Drop, Reason::ReservePackets)
    );
    world.prove_source();
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 20);
    assert_eq!(
        verdict(&world, &segment(ACK, 1, 1)),
        (Verdict::Drop, Reason::TotalPackets)
    );
}

#[test]
fn the_total_of_a_class_is_for_everybody() {
    let mut world = reserved();
    world.limit(2, 0, 10);
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 10);
    assert_eq!(
        verdict(&world, &segment(ACK, 1, 1)),
        (Verdict::Drop, Reason::of_bucket(2, 0))
    );
}

/// Nothing is wasted: who comes alone gets what is free, and what proven sources took is not counted against strangers twice.
#[test]
fn one_cell_serves_both() {
    let mut world = reserved();
    world.prove_source();
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 40);
    // Twenty-five refill: five above what strangers may take.
    world.now_ns += 25 * REFILL;
    let stranger = |_| {
        let mut frame = segment(ACK, 1, 1);
        frame[29] = 77;
        frame
    };
    assert_eq!(passed(&world, stranger), 5);
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 20);
}

#[test]
fn the_ack_of_a_handshake_that_passes_through_proves_its_source() {
    let world = reserved();
    world.leaves(&back(SYN | ACK, 4_000_000_000));
    let answer = segment(ACK, 1, 4_000_000_001);
    assert_eq!(verdict(&world, &answer), (Verdict::Pass, Reason::Pass));
    assert_eq!(world.proofs(), 1);
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 39, "down to the bottom");
}

#[test]
fn only_the_right_number_in_time_and_once_proves() {
    let syn_ack = back(SYN | ACK, 900);
    let elsewhere = |at: usize, value: u8| {
        let mut frame = segment(ACK, 1, 901);
        frame[at] = value;
        frame
    };
    for (what, seconds, frame) in [
        ("another number", 0, segment(ACK, 1, 902)),
        ("the SYN-ACK's own number", 0, segment(ACK, 1, 900)),
        ("a reset", 0, segment(ACK | 0x04, 1, 901)),
        ("a SYN", 0, segment(ACK | SYN, 1, 901)),
        ("another source", 0, elsewhere(29, 200)),
        ("another source port", 0, elsewhere(35, 9)),
        ("another destination", 0, elsewhere(33, 200)),
        ("another port", 0, elsewhere(37, 9)),
        ("ten seconds later", 11, segment(ACK, 1, 901)),
    ] {
        let mut world = reserved();
        world.leaves(&syn_ack);
        world.now_ns += seconds * SECOND;
        verdict(&world, &frame);
        assert_eq!(world.proofs(), 0, "{what}");
    }
    for left in [
        segment(ACK, 1, 900),
        back(SYN, 900),
        back(ACK, 900),
        back(SYN | ACK | 0x04, 900),
    ] {
        let world = reserved();
        world.leaves(&left);
        verdict(&world, &segment(ACK, 1, 901));
        assert_eq!(world.proofs(), 0, "that was no offer");
    }
    // The number is worth one proof, also while it could still be answered.
    let world = reserved();
    world.leaves(&syn_ack);
    verdict(&world, &segment(ACK, 1, 901));
    assert_eq!(world.proofs(), 1);
    world.forget_proofs();
    verdict(&world, &segment(ACK, 1, 901));
    assert_eq!(world.proofs(), 0, "the same number again");
}

#[test]
fn a_syn_that_comes_again_goes_before_those_that_come_first() {
    let mut world = World::new();
    world.limit(3, 2, 40);
    world.reserve(2, 20, 30);
    let syn = |sequence| segment(SYN, sequence, 0);
    assert_eq!(passed(&world, syn), 20);
    // A second later one more has refilled, which a first SYN takes, and then those of before come again.
    world.now_ns += REFILL;
    assert_eq!(passed(&world, |number| syn(1_000 + number)), 1);
    assert_eq!(
        verdict(&world, &syn(1_000_000)),
        (Verdict::Drop, Reason::ReserveConnections)
    );
    assert_eq!(passed(&world, |number| syn(20 + number)), 10);
    // The reserve is not for them either.
    assert_eq!(
        verdict(&world, &syn(99)),
        (Verdict::Drop, Reason::ReserveConnections)
    );
}

#[test]
fn an_attempt_must_wait_and_counts_once() {
    let mut world = World::new();
    world.limit(3, 2, 40);
    world.reserve(2, 20, 30);
    let syn = |sequence| segment(SYN, sequence, 0);
    passed(&world, syn);
    let refused = (Verdict::Drop, Reason::ReserveConnections);
    world.now_ns += SECOND / 2;
    assert_eq!(
        verdict(&world, &syn(50)),
        refused,
        "too soon for a retransmission"
    );
    world.now_ns += REFILL - SECOND / 2;
    assert_eq!(
        verdict(&world, &syn(200)),
        (Verdict::Pass, Reason::Pass),
        "what refilled"
    );
    assert_eq!(verdict(&world, &syn(50)), (Verdict::Pass, Reason::Pass));
    for _ in 0..5 {
        assert_eq!(
            verdict(&world, &syn(50)),
            refused,
            "repeating it at once buys nothing"
        );
    }
    world.now_ns += REFILL;
    assert_eq!(
        verdict(&world, &syn(201)),
        refused,
        "what refilled makes up for the one that came again"
    );
    assert_eq!(
        verdict(&world, &syn(50)),
        (Verdict::Pass, Reason::Pass),
        "a second later it does"
    );
}

#[test]
fn what_others_fill_is_not_kept_from_proven_sources() {
    let mut world = World::new();
    world.limit(0, 0, 4);
    world.lines = OVERFLOW_LINES;
    let from = |source: u8| {
        let mut frame = segment(ACK, 1, 1);
        frame[29] = source;
        frame
    };
    for source in 10..200 {
        verdict(&world, &from(source));
    }
    let overflows = world.noted(Event::Overflow);
    assert_eq!(overflows, 185, "five have cells");
    world.prove_source();
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 4, "its own bucket, whole");
    assert_eq!(world.noted(Event::Overflow), overflows);
    // And nobody takes its cell while it is in debt.
    for source in 10..200 {
        verdict(&world, &from(source));
    }
    assert_eq!(passed(&world, |_| segment(ACK, 1, 1)), 0);
}

/// A full line asks what a source has shown, and then so does the overflow bucket: an attempt that counts once counts for both.
#[test]
fn an_attempt_counts_for_all_that_one_packet_meets() {
    let mut world = World::new();
    world.limit(0, 0, 4);
    world.lines = OVERFLOW_LINES;
    let from = |source: u8| {
        let mut frame = segment(SYN, 50, 0);
        frame[29] = source;
        frame
    };
    let (passes, refused) = (
        (Verdict::Pass, Reason::Pass),
        (Verdict::Drop, Reason::SourcePackets),
    );
    // Five debtors fill the line, two strangers their half of the overflow bucket.
    for source in (10..15).cycle().take(20).chain(100..102) {
        assert_eq!(verdict(&world, &from(source)), passes, "{source}");
    }
    assert_eq!(verdict(&world, &from(102)), refused);
    world.now_ns += SECOND * 4 / 5;
    assert_eq!(verdict(&world, &from(103)), refused, "it comes first");
    assert_eq!(verdict(&world, &from(102)), passes, "it comes again");
}

#[test]
fn a_strangers_excess_blocks_only_its_new_connections() {
    for proven in [false, true] {
        let mut world = World::new();
        world.limit(0, 0, 10);
        world.block_after(3);
        if proven {
            world.prove_source();
        }
        for _ in 0..13 {
            verdict(&world, &segment(ACK, 1, 1));
        }
        assert_eq!(*world.blocks.borrow(), [proven]);
        world.now_ns += 20 * SECOND;
        let expected = if proven {
            (Verdict::Drop, Reason::Block)
        } else {
            (Verdict::Pass, Reason::Pass)
        };
        assert_eq!(verdict(&world, &segment(ACK, 1, 1)), expected);
        assert_eq!(
            verdict(&world, &segment(SYN, 1, 0)),
            (Verdict::Drop, Reason::Block)
        );
        // Who proves itself meanwhile is not blocked whole for what it did as a stranger.
        world.prove_source();
        assert_eq!(verdict(&world, &segment(ACK, 1, 1)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever anybody sends, with any flags and numbers, no packet alone proves anybody.
    #[test]
    fn packets_alone_change_no_proof(
        packets in prop::collection::vec((any::<u8>(), any::<u32>(), any::<u32>(), any::<u8>(), 0u64..2_000_000_000), 1..200),
    ) {
        let mut world = reserved();
        world.limit(0, 0, 50);
        world.block_after(2);
        for (flags, sequence, acknowledgement, source, gap) in packets {
            world.now_ns += gap;
            let mut frame = segment(flags, sequence, acknowledgement);
            frame[29] = source;
            verdict(&world, &frame);
        }
        prop_assert_eq!(world.proofs(), 0);
    }

    /// A total never admits more than its burst and what refilled, whoever comes in whatever order.
    #[test]
    fn a_reserve_lends_nothing(
        packets in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..50, 0u64..200_000_000), 1..400),
    ) {
        let mut world = reserved();
        world.limit(3, 2, 40);
        world.reserve(2, 20, 30);
        world.prove_source();
        let begin = world.now_ns;
        let mut admitted = 0;
        for (known, syn, sequence, gap) in packets {
            world.now_ns += gap;
            let mut frame = segment(if syn { SYN } else { ACK }, sequence, 0);
            if !known {
                frame[29] = 99;
            }
            admitted += u64::from(verdict(&world, &frame).0 == Verdict::Pass);
            prop_assert!(admitted <= 40 + (world.now_ns - begin) / SECOND + 1, "{} after {} ns", admitted, world.now_ns - begin);
        }
    }
}

/// A table of attempts of its real size.
struct Attempts(Vec<Cell<u64>>);

struct Word<'a>(&'a Cell<u64>);

impl Shared for Word<'_> {
    fn get(&self) -> u64 {
        self.0.get()
    }

    fn swap(&self, old: u64, new: u64) -> bool {
        self.0.replace(new) == old
    }
}

impl<'a> Tables for &'a Attempts {
    type Line = Proofs;
    type Proofs = Proofs;
    type Word = Word<'a>;

    fn line(&self, _hash: u64) -> Option<Proofs> {
        None
    }

    fn proofs(&self, _hash: u64) -> Option<Proofs> {
        None
    }

    fn offers(&self, _at: u32) -> Option<Word<'a>> {
        None
    }

    fn attempts(&self, at: u32) -> Option<Word<'a>> {
        self.0.get(at as usize).map(Word)
    }
}

/// Nothing that can still be answered is passed over, and hours later no cell speaks for what was then.
/// A word holds two attempts, so one is forgotten when two others have come to its word: of a flood of F first SYNs a second
/// it is still known after t seconds with the chance e^−λ (1 + λ), λ = F t / 2²¹. `SPECIFICATION.md` has the figures.
#[test]
fn attempts_are_remembered_as_long_as_is_stated() {
    let key = Key::new([
        0x0123_4567_89ab_cdef,
        0xfedc_ba98_7654_3210,
        0x9ddf_ea08_eb38_2d69,
        0xc2b2_ae3d_27d4_eb4f,
    ]);
    let syn = |source: u32, sequence: u32| {
        let mut frame = segment(SYN, sequence, 0);
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        parse(&Slice::whole(&frame)).expect("a well-formed frame")
    };
    for (flood, stated) in [(300_000, 0.991), (1_000_000, 0.917), (2_000_000, 0.753)] {
        let attempts = Attempts(vec![Cell::new(0); proof::ATTEMPTS as usize]);
        let (begin, known) = (100 * SECOND, 4_000);
        for newcomer in 0..known {
            proof::remember(&&attempts, &key, begin, &syn(newcomer, 1));
        }
        for number in 0..flood {
            let now = begin + SECOND * u64::from(number) / u64::from(flood);
            proof::remember(&&attempts, &key, now, &syn(0x1400_0000 + number, number));
        }
        let found = (0..known)
            .filter(|newcomer| {
                proof::standing(&&attempts, &key, begin + SECOND, &syn(*newcomer, 1), 0) == Standing::Retry
            })
            .count();
        let share = found as f64 / f64::from(known);
        assert!(
            (share - stated).abs() < 0.025,
            "{flood} a second: {share}, not {stated}"
        );
    }
}

/// Nothing here is placed.
const ANY_KEY: Key = Key::new([1, 2, 3, 4]);

/// One line of the source table and one of proofs, and how often the latter was fetched.
#[derive(Default)]
struct OneLine {
    source: Proofs,
    proofs: Proofs,
    fetched: Cell<u32>,
}

struct Borrowed<'a>(&'a Proofs);

impl Line for Borrowed<'_> {
    fn get(&self, at: usize) -> u64 {
        self.0.get(at)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.0.swap(at, old, new)
    }
}

impl<'a> Tables for &'a OneLine {
    type Line = Borrowed<'a>;
    type Proofs = Borrowed<'a>;
    type Word = Word<'a>;

    fn line(&self, _hash: u64) -> Option<Borrowed<'a>> {
        Some(Borrowed(&self.source))
    }

    fn proofs(&self, _hash: u64) -> Option<Borrowed<'a>> {
        self.fetched.set(self.fetched.get() + 1);
        Some(Borrowed(&self.proofs))
    }

    fn offers(&self, _at: u32) -> Option<Word<'a>> {
        None
    }

    fn attempts(&self, _at: u32) -> Option<Word<'a>> {
        None
    }
}

impl OneLine {
    fn standing(&self, hash: u64, now_ns: u64) -> Standing {
        proof::standing(&self, &ANY_KEY, now_ns, &Packet::EMPTY, hash)
    }
}

#[test]
fn nobody_fetches_proofs_for_a_line_in_which_nobody_proved_himself() {
    let (table, begin) = (OneLine::default(), 5 * PROOF_SECOND);
    assert_eq!(table.standing(1, begin), Standing::Stranger);
    assert_eq!(table.fetched.get(), 0, "a flood's line");
    proof::give(&&table, 1, begin);
    let before = table.fetched.replace(0);
    assert_eq!(before, 1);
    assert_eq!(table.standing(1, begin), Standing::Proven);
    assert_eq!(
        table.standing(2, begin),
        Standing::Stranger,
        "a neighbour in the line"
    );
    assert_eq!(table.fetched.get(), 2);
    let over = begin + (LIFETIME + REFRESH + 1) * PROOF_SECOND;
    assert_eq!(table.standing(1, over), Standing::Stranger);
    assert_eq!(table.fetched.get(), 2, "no proof of this line can count any more");
}

/// The stamp of a line says both; neither of them may be lost to the other.
#[test]
fn a_proof_hides_no_block_of_its_line_and_a_block_no_proof() {
    let block = Block {
        id: 2,
        drops: 1,
        within: 100,
        reserved: 0,
        for_ns: 600 * SECOND,
    };
    let begin = 5 * PROOF_SECOND;
    for proof_first in [false, true] {
        let table = OneLine::default();
        let line = Borrowed(&table.source);
        if proof_first {
            proof::give(&&table, 1, begin);
        }
        line::strike_once(&line, &block, 2, begin, false);
        if !proof_first {
            proof::give(&&table, 1, begin);
        }
        for (seconds, tidied) in [(0, false), (1, false), (1, true), (500, true)] {
            let now = begin + seconds * SECOND;
            if tidied {
                line::tidy(&line, now);
            }
            let found = (line::blocked(&line, &block, 2, now), table.standing(1, now));
            let both = (Blocked::Connections, Standing::Proven);
            assert_eq!(found, both, "proof first: {proof_first}, after {seconds} s");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order sources of a line prove themselves in, and however often the line is tidied: who has a proof is known.
    #[test]
    fn no_mark_hides_a_proof(
        schedule in prop::collection::vec((1u64..14, 0u64..2_000, any::<bool>(), 0u64..4_000), 1..60),
        start in 0u64..60_000_000,
    ) {
        let table = OneLine::default();
        let mut now = start * PROOF_SECOND;
        for (source, seconds, tidied, ahead) in schedule {
            now += seconds * PROOF_SECOND;
            proof::give(&&table, source, now);
            if tidied {
                line::tidy(&Borrowed(&table.source), now);
                prop_assert!(!line::untidy(&Borrowed(&table.source), now, 0), "the tick is in the stamp");
            }
            // Also long after, and by a clock that is a little behind.
            for at in [now.saturating_sub(PROOF_SECOND), now, now + ahead * PROOF_SECOND] {
                for source in 1..14 {
                    let proven = proof::proven(&table.proofs, source, at);
                    prop_assert_eq!(table.standing(source, at) == Standing::Proven, proven, "source {} at {}", source, at);
                }
            }
        }
    }
}
