//! The replay's clock: the capture's time stamps, made to behave as the kernel's clock does, which never runs backwards.

/// A step back by no more than this leaves the clock standing; by more, somebody set it, and it goes on from where it stood.
pub const STEP_NS: u64 = 3_600 * 1_000_000_000;
/// The latest time that is believed, in nanoseconds since 1970: April 2262. Sums with the longest block stay far from overflow.
const LATEST: u64 = i64::MAX as u64;

/// The clock, and what was odd about the times it was given.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Clock {
    /// What it shows.
    pub(super) now_ns: u64,
    /// The first time that it was given.
    pub(super) first_ns: Option<u64>,
    /// What is added to times since somebody set the capture's clock back.
    shift_ns: u64,
    /// Packets with a time before that of a packet that came earlier: judged at that one's.
    pub(super) backwards: u64,
    /// By how much, at most.
    pub(super) furthest_back_ns: u64,
    /// How often a time was further back than [`STEP_NS`].
    pub(super) steps: u64,
    /// Packets without a time: judged at the time of the packet before.
    pub(super) untimed: u64,
}

impl Clock {
    /// Moves to a packet's time.
    pub(super) fn advance(&mut self, time_ns: Option<u64>) {
        let Some(time_ns) = time_ns.filter(|time_ns| *time_ns <= LATEST) else {
            self.untimed += 1;
            return;
        };
        if self.first_ns.is_none() {
            self.first_ns = Some(time_ns);
        }
        let time_ns = time_ns.saturating_add(self.shift_ns).min(LATEST);
        let Some(back) = self.now_ns.checked_sub(time_ns).filter(|back| *back > 0) else {
            self.now_ns = time_ns;
            return;
        };
        if back > STEP_NS {
            self.steps += 1;
            self.shift_ns += back;
        } else {
            self.backwards += 1;
            self.furthest_back_ns = self.furthest_back_ns.max(back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn shown(times: &[Option<u64>]) -> (Vec<u64>, Clock) {
        let mut clock = Clock::default();
        let shown = times.iter().map(|time| {
            clock.advance(*time);
            clock.now_ns
        });
        (shown.collect(), clock)
    }

    #[test]
    fn it_follows_the_times_and_stands_while_they_run_backwards() {
        let (shown, clock) = shown(&[
            Some(100),
            Some(100),
            Some(250),
            Some(180),
            None,
            Some(240),
            Some(300),
        ]);
        assert_eq!(shown, [100, 100, 250, 250, 250, 250, 300]);
        assert_eq!((clock.backwards, clock.furthest_back_ns), (2, 70));
        assert_eq!((clock.untimed, clock.steps, clock.first_ns), (1, 0, Some(100)));
    }

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_where_it_stood() {
        let late = 10_000 * SECOND;
        let (shown, clock) = shown(&[Some(late), Some(SECOND), Some(2 * SECOND), Some(5 * SECOND)]);
        assert_eq!(shown, [late, late, late + SECOND, late + 4 * SECOND]);
        assert_eq!((clock.backwards, clock.steps), (0, 1));
        // An hour exactly is not a set clock yet.
        let (shown, clock) = shown_pair(late, late - STEP_NS);
        assert_eq!((shown, clock.steps, clock.backwards), (late, 0, 1));
    }

    fn shown_pair(first: u64, second: u64) -> (u64, Clock) {
        let (shown, clock) = shown(&[Some(first), Some(second)]);
        (shown[1], clock)
    }

    #[test]
    fn no_time_overflows() {
        let (shown, clock) = shown(&[Some(u64::MAX), Some(LATEST), Some(0), Some(LATEST), Some(LATEST)]);
        assert_eq!(shown, [0, LATEST, LATEST, LATEST, LATEST]);
        assert_eq!((clock.untimed, clock.steps), (1, 1));
    }
}
