//! CPUs that race for one line: real threads, and a second CPU at every point of the first one's way.

mod common;

use std::{
    cell::{Cell, RefCell},
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{HOUR, HostLine, OneSpec, SECOND, charge, hash, packets};
use gateway_core::{
    bucket::{cell, gcra, spec::Spec},
    line::{self, Block, Blocked, Charge, Line, Strike},
};

/// Threads that charge a line as fast as they can; how much was admitted, and how often all tries were lost.
fn hammer(
    threads: usize,
    packets_each: usize,
    now_ns: impl Fn() -> u64 + Sync,
    line: &HostLine,
    of: impl Fn(usize) -> (Spec, u64) + Sync,
) -> (Vec<u64>, u64) {
    let start = Barrier::new(threads);
    let lost = AtomicU64::new(0);
    let admitted = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, lost, now_ns, of) = (&start, &lost, &now_ns, &of);
                scope.spawn(move || {
                    let (spec, hash) = of(thread);
                    let mut admitted = 0;
                    start.wait();
                    for _ in 0..packets_each {
                        match charge(line, &OneSpec, &spec, hash, now_ns(), 1) {
                            Charge::Admitted => admitted += 1,
                            Charge::Lost => {
                                lost.fetch_add(1, Ordering::Relaxed);
                            }
                            Charge::Refused | Charge::Reserved | Charge::Full => {}
                        }
                    }
                    admitted
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a thread failed"))
            .collect()
    });
    (admitted, lost.into_inner())
}

#[test]
fn threads_at_one_bucket_share_its_burst_exactly() {
    let spec = packets(1, 1_000, 20_000);
    let line = HostLine::default();
    let (admitted, _) = hammer(6, 20_000, || SECOND, &line, |_| (spec, hash(0)));
    // On a clock that stands still, offered six times its burst: what loses every race is refused, and somebody else gets it.
    assert_eq!(admitted.iter().sum::<u64>(), 20_000);
}

#[test]
fn threads_on_a_running_clock_get_rate_times_time_and_burst() {
    let spec = packets(1, 1_000_000, 500);
    let line = HostLine::default();
    let clock = AtomicU64::new(SECOND);
    // Each look at the clock moves it: packets ten times as fast as the rate, out of order between the threads.
    let now = || clock.fetch_add(100, Ordering::Relaxed);
    let (admitted, lost) = hammer(6, 50_000, now, &line, |_| (spec, hash(0)));
    let elapsed = clock.load(Ordering::Relaxed) - SECOND;
    let bound = 500 + elapsed / 1_000;
    let total = admitted.iter().sum::<u64>();
    assert!(total <= bound + 1, "{total} of {bound}");
    assert!(
        total + lost + 2 + bound / 200 >= bound,
        "{total} of {bound}, {lost} lost"
    );
}

#[test]
fn threads_of_different_sources_in_one_line_do_not_disturb_each_other() {
    let line = HostLine::default();
    let (admitted, lost) = hammer(
        7,
        5_000,
        || SECOND,
        &line,
        |thread| (packets(1, 1, 1_000 + thread as u64), hash(thread)),
    );
    let expected: Vec<u64> = (0..7).map(|thread| 1_000 + thread).collect();
    assert_eq!(
        admitted.iter().sum::<u64>(),
        expected.iter().sum::<u64>(),
        "{admitted:?}, {lost} lost"
    );
    assert_eq!(admitted, expected);
}

#[test]
fn threads_start_a_block_once() {
    for _ in 0..50 {
        let line = HostLine::default();
        let block = Block {
            id: 2,
            drops: 400,
            within: 100,
            reserved: 0,
            for_ns: HOUR,
        };
        let started = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        loop {
                            match line::strike_once(&line, &block, hash(0), SECOND, true) {
                                Strike::Lost => {}
                                Strike::Started => {
                                    started.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                                Strike::Counted => break,
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(started.into_inner(), 1);
        assert_eq!(line::blocked(&line, &block, hash(0), SECOND), Blocked::Whole);
    }
}

/// A line in which, before one access of the first CPU, a second CPU does something of its own.
struct Interrupted<'a> {
    line: &'a HostLine,
    before: Cell<usize>,
    second: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Interrupted<'_> {
    fn step(&self) {
        if self.before.get() == 0 {
            if let Some(second) = self.second.borrow_mut().take() {
                second();
            }
        } else {
            self.before.set(self.before.get() - 1);
        }
    }
}

impl Line for Interrupted<'_> {
    fn get(&self, at: usize) -> u64 {
        self.step();
        self.line.get(at)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.step();
        self.line.swap(at, old, new)
    }
}

/// Cells of a line that carry a tag.
fn cells_of(line: &HostLine, tag: u64) -> Vec<u64> {
    line.words()[1..]
        .iter()
        .copied()
        .filter(|held| *held != 0 && cell::tag_of(*held) == tag)
        .collect()
}

/// Two CPUs bring the same new source, the second at every point of the first one's way, on the same clock and on clocks
/// for which different cells are free.
#[test]
fn two_cpus_with_the_same_new_source_leave_one_cell() {
    let spec = packets(1, 1_000, 10);
    let debtor = packets(1, 1_000, 10);
    let mut interrupted = 0;
    for (first_ns, second_ns) in [(0, 0), (0, 10_000), (10_000, 0)] {
        for before in 0..80 {
            let line = HostLine::default();
            // A debtor in the first cell whose last unit is repaid between the two clocks.
            let start = 1u64 << 40;
            let base = start + SECOND / 1_000 - 5_000;
            charge(&line, &OneSpec, &debtor, hash(7), start, 1);
            let second_charge = Cell::new(None);
            let outcome = {
                let both = Interrupted {
                    line: &line,
                    before: Cell::new(before),
                    second: RefCell::new(Some(Box::new(|| {
                        second_charge.set(Some(charge(&line, &OneSpec, &spec, hash(0), base + second_ns, 1)));
                    }))),
                };
                charge(&both, &OneSpec, &spec, hash(0), base + first_ns, 1)
            };
            let Some(second) = second_charge.into_inner() else {
                continue;
            };
            interrupted += 1;
            assert_eq!(
                (outcome, second),
                (Charge::Admitted, Charge::Admitted),
                "interrupted before {before}"
            );
            let cells = cells_of(&line, cell::tag(hash(0), spec.id()));
            assert_eq!(cells.len(), 1, "interrupted before {before}: {cells:?}");
            let now = spec.clock(base);
            let debt = gcra::debt(cells[0], cell::TIME_MASK, now, spec.window);
            let (cost, gap) = (spec.charge(1), spec.clock(10_000) + 2);
            assert!(
                debt + gap >= 2 * cost && debt <= 2 * cost + gap,
                "interrupted before {before}: {debt} of {}",
                2 * cost
            );
        }
    }
    assert!(
        interrupted > 40,
        "the second CPU hardly ever came between: {interrupted}"
    );
}

#[test]
fn racing_threads_with_the_same_new_source_leave_one_cell() {
    const ROUNDS: usize = 2_000;
    let spec = packets(1, 1_000, 100);
    let lines: Vec<HostLine> = (0..ROUNDS).map(|_| HostLine::default()).collect();
    let base = (1u64 << 40) + SECOND / 1_000 - 5_000;
    for line in &lines {
        charge(line, &OneSpec, &spec, hash(7), 1 << 40, 1);
    }
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (start, lines) = (&start, &lines);
            scope.spawn(move || {
                for line in lines {
                    start.wait();
                    charge(line, &OneSpec, &spec, hash(0), base + thread * 10_000, 1);
                }
            });
        }
    });
    for line in &lines {
        assert_eq!(cells_of(line, cell::tag(hash(0), spec.id())).len(), 1, "{line:?}");
    }
}

/// A CPU tidies a line while another begins a block there, each at every point of the other's way; in a line that had a block, which is over, and
/// in one that had none. What has begun is found.
#[test]
fn a_block_that_begins_while_its_line_is_tidied_is_found() {
    let block = |for_ns| Block {
        id: 2,
        drops: 1,
        within: 100,
        reserved: 0,
        for_ns,
    };
    let now = 10 * SECOND;
    let mut interrupted = 0;
    for had_one in [false, true] {
        for tidied_first in [false, true] {
            for before in 0..80 {
                let line = HostLine::default();
                if had_one {
                    let before = line::strike_once(&line, &block(SECOND), hash(1), SECOND, true);
                    assert_eq!(before, Strike::Started);
                }
                let come = Cell::new(false);
                let tidied = || {
                    come.set(true);
                    line::tidy(&line, now);
                };
                let begun = || {
                    come.set(true);
                    let once = || line::strike_once(&line, &block(HOUR), hash(0), now, true);
                    assert_eq!(line::strike(once), Strike::Started);
                };
                let second: Box<dyn FnOnce()> = if tidied_first {
                    Box::new(begun)
                } else {
                    Box::new(tidied)
                };
                let both = Interrupted {
                    line: &line,
                    before: Cell::new(before),
                    second: RefCell::new(Some(second)),
                };
                if tidied_first {
                    line::tidy(&both, now);
                } else {
                    let once = || line::strike_once(&both, &block(HOUR), hash(0), now, true);
                    assert_eq!(line::strike(once), Strike::Started);
                }
                if come.get() {
                    interrupted += 1;
                    assert_eq!(
                        line::blocked(&line, &block(HOUR), hash(0), now),
                        Blocked::Whole,
                        "had one: {had_one}, tidied first: {tidied_first}, interrupted before {before}: {line:?}"
                    );
                }
            }
        }
    }
    assert!(
        interrupted > 40,
        "the second CPU hardly ever came between: {interrupted}"
    );
}

/// A line at whose stamp every race is lost.
struct Deaf<'a>(&'a HostLine);

impl Line for Deaf<'_> {
    fn get(&self, at: usize) -> u64 {
        self.0.get(at)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        at != 0 && self.0.swap(at, old, new)
    }
}

#[test]
fn a_block_that_its_stamp_does_not_tell_of_is_found_after_the_next_drop() {
    let line = HostLine::default();
    let block = Block {
        id: 2,
        drops: 1,
        within: 100,
        reserved: 0,
        for_ns: HOUR,
    };
    let begun = line::strike_once(&Deaf(&line), &block, hash(0), SECOND, true);
    assert_eq!(begun, Strike::Started);
    assert_eq!(
        line::blocked(&line, &block, hash(0), SECOND),
        Blocked::Nothing,
        "nobody could say so"
    );
    let next = line::strike_once(&line, &block, hash(0), SECOND, true);
    assert_eq!(next, Strike::Counted, "it has begun already");
    assert_eq!(line::blocked(&line, &block, hash(0), SECOND), Blocked::Whole);
}
