//! Counts over time, in bounded memory whatever a capture spans: where there are too many intervals, they are joined.

use std::collections::VecDeque;

use gateway_core::verdict::{Reason, Verdict};

use super::tally::Count;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What intervals are joined to while nobody has chosen their length: each divides the next. After the last, ten of them.
const WIDTHS: [u64; 10] = [
    MS,
    10 * MS,
    100 * MS,
    SECOND,
    10 * SECOND,
    MINUTE,
    10 * MINUTE,
    HOUR,
    6 * HOUR,
    DAY,
];
/// Lengths that people read easily.
const READABLE: [u64; 28] = [
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    20 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    10 * DAY,
];
/// Counts held at once: 16 bytes each.
const COUNTS: usize = 1 << 20;
/// Intervals held at least, and at most; at most where their length was chosen.
const LEAST: usize = 64;
const MOST: usize = 1024;
const MOST_CHOSEN: usize = 10_000;

/// What one interval saw.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    /// By service, then pass, drop and would drop.
    pub(super) services: Box<[[Count; 3]]>,
    /// By reason; the second of each is what would have been dropped.
    pub(super) reasons: [[Count; 2]; Reason::COUNT],
}

impl Interval {
    fn new(services: usize) -> Self {
        Self {
            services: vec![[Count::default(); 3]; services].into_boxed_slice(),
            reasons: [[Count::default(); 2]; Reason::COUNT],
        }
    }

    fn join(&mut self, other: &Self) {
        let pairs = self
            .services
            .iter_mut()
            .flatten()
            .zip(other.services.iter().flatten());
        let reasons = self
            .reasons
            .iter_mut()
            .flatten()
            .zip(other.reasons.iter().flatten());
        for (count, more) in pairs.chain(reasons) {
            *count += *more;
        }
    }

    /// Pass, drop and would drop of one service, or of all.
    pub(super) fn verdicts(&self, service: Option<usize>) -> [Count; 3] {
        match service {
            Some(service) => self.services.get(service).copied().unwrap_or_default(),
            None => self.services.iter().fold([Count::default(); 3], |mut sum, of| {
                for (count, more) in sum.iter_mut().zip(of) {
                    *count += *more;
                }
                sum
            }),
        }
    }
}

/// Intervals one after the other, without gaps.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// How long each is, in nanoseconds; they begin at multiples of it.
    width_ns: u64,
    chosen: bool,
    /// The number of the first: how many fit between 1970 and its beginning.
    first: u64,
    intervals: VecDeque<Interval>,
    most: usize,
    services: usize,
    /// When the last one ends: nearly every packet falls into it.
    end_ns: u64,
}

impl Timeline {
    /// For so many services; `width_ns` where somebody has chosen a length.
    pub(super) fn new(services: usize, width_ns: Option<u64>) -> Self {
        let row = services * 3 + Reason::COUNT * 2;
        let most = if width_ns.is_some() { MOST_CHOSEN } else { MOST };
        Self {
            width_ns: width_ns.unwrap_or(WIDTHS[0]).max(1),
            chosen: width_ns.is_some(),
            first: 0,
            intervals: VecDeque::new(),
            most: (COUNTS / row).clamp(LEAST, most),
            services,
            end_ns: 0,
        }
    }

    /// Counts a packet. Times never run backwards.
    pub(super) fn add(&mut self, now_ns: u64, service: usize, verdict: Verdict, reason: Reason, length: u32) {
        if now_ns >= self.end_ns || self.intervals.is_empty() {
            self.reach(now_ns);
        }
        let Some(interval) = self.intervals.back_mut() else {
            return;
        };
        if let Some(counts) = interval.services.get_mut(service) {
            counts[verdict as usize].add(length);
        }
        interval.reasons[reason as usize][usize::from(verdict == Verdict::WouldDrop)].add(length);
    }

    /// Appends intervals up to a time, of a length that leaves room for them.
    fn reach(&mut self, now_ns: u64) {
        if self.intervals.is_empty() {
            self.first = now_ns / self.width_ns;
        }
        while now_ns / self.width_ns - self.first >= self.most as u64 {
            self.join(self.factor());
        }
        let wanted = (now_ns / self.width_ns - self.first) as usize + 1;
        while self.intervals.len() < wanted {
            self.intervals.push_back(Interval::new(self.services));
        }
        self.end_ns = (now_ns / self.width_ns + 1).saturating_mul(self.width_ns);
    }

    /// How many intervals are joined to one when there are too many.
    fn factor(&self) -> u64 {
        if self.chosen {
            return 2;
        }
        let wider = WIDTHS.iter().find(|width| **width > self.width_ns);
        wider.map_or(10, |wider| wider / self.width_ns)
    }

    /// Joins as many intervals as `factor` says to one, at multiples of the new length.
    fn join(&mut self, factor: u64) {
        let before = std::mem::take(&mut self.intervals);
        let first = self.first / factor;
        for (number, interval) in (self.first..).zip(before) {
            if number / factor - first == self.intervals.len() as u64 {
                self.intervals.push_back(interval);
            } else if let Some(last) = self.intervals.back_mut() {
                last.join(&interval);
            }
        }
        self.first = first;
        self.width_ns = self.width_ns.saturating_mul(factor);
    }

    /// The same in at most so many intervals, of a length that people read easily; as it is where somebody has chosen one.
    pub(super) fn readable(&self, most: usize) -> Self {
        let mut timeline = self.clone();
        if self.chosen {
            return timeline;
        }
        let last = self.first + self.intervals.len().saturating_sub(1) as u64;
        let fits = |factor: u64| last / factor - self.first / factor < most as u64;
        let factor = READABLE
            .iter()
            .filter(|width| width.is_multiple_of(self.width_ns))
            .map(|width| width / self.width_ns)
            .chain((1..19).map(|power| 10u64.pow(power)))
            .find(|factor| fits(*factor));
        timeline.join(factor.unwrap_or(1));
        timeline
    }

    /// The length of an interval, in nanoseconds.
    pub(super) fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// The intervals, each with its beginning in nanoseconds since 1970.
    pub(super) fn intervals(&self) -> impl Iterator<Item = (u64, &Interval)> {
        (self.first..)
            .map(|number| number.saturating_mul(self.width_ns))
            .zip(&self.intervals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(timeline: &Timeline) -> Vec<(u64, u64)> {
        let packets = timeline.intervals().map(|(from, interval)| {
            let [pass, drop, would_drop] = interval.verdicts(None);
            let of_reasons: u64 = interval.reasons.iter().flatten().map(|of| of.packets).sum();
            assert_eq!(pass.packets + drop.packets + would_drop.packets, of_reasons);
            (from, of_reasons)
        });
        packets.collect()
    }

    fn filled(width_ns: Option<u64>, times: impl Iterator<Item = u64>) -> Timeline {
        let mut timeline = Timeline::new(2, width_ns);
        for time in times {
            timeline.add(time, 1, Verdict::Drop, Reason::Ban, 100);
        }
        timeline
    }

    #[test]
    fn intervals_begin_at_multiples_of_their_length() {
        let timeline = filled(
            Some(10 * SECOND),
            [1_003, 1_009, 1_010, 1_035].map(|at| at * SECOND).into_iter(),
        );
        assert_eq!(
            packets(&timeline),
            [
                (1_000 * SECOND, 2),
                (1_010 * SECOND, 1),
                (1_020 * SECOND, 0),
                (1_030 * SECOND, 1)
            ]
        );
        assert_eq!(
            timeline
                .intervals()
                .next()
                .map(|(_, of)| of.verdicts(Some(1))[1].bytes),
            Some(200)
        );
        assert_eq!(
            timeline
                .intervals()
                .next()
                .map(|(_, of)| of.verdicts(Some(0))[1].bytes),
            Some(0)
        );
    }

    #[test]
    fn nothing_is_lost_when_intervals_are_joined() {
        let start = 1_700_000_000 * SECOND + 123;
        // Three days, a packet every ten seconds.
        let timeline = filled(None, (0..25_920).map(|at| start + at * 10 * SECOND));
        assert_eq!(timeline.width_ns(), 10 * MINUTE);
        let all = packets(&timeline);
        assert!(all.len() <= MOST && all.len() > 100, "{}", all.len());
        assert_eq!(all.iter().map(|(_, packets)| packets).sum::<u64>(), 25_920);
        assert!(
            all[1..all.len() - 1]
                .iter()
                .all(|(from, packets)| from.is_multiple_of(10 * MINUTE) && *packets == 60)
        );
        let shown = timeline.readable(20);
        assert_eq!(shown.width_ns(), 6 * HOUR);
        assert_eq!(
            packets(&shown).iter().map(|(_, packets)| packets).sum::<u64>(),
            25_920
        );
    }

    #[test]
    fn a_jump_of_a_century_takes_no_memory() {
        let timeline = filled(None, [0, 100 * 365 * DAY].into_iter());
        assert!(packets(&timeline).len() <= MOST);
        assert_eq!(
            packets(&timeline.readable(20))
                .iter()
                .map(|(_, packets)| packets)
                .sum::<u64>(),
            2
        );
        assert!(packets(&timeline.readable(20)).len() <= 20);
        let timeline = filled(Some(SECOND), [0, 100 * 365 * DAY].into_iter());
        assert!(packets(&timeline).len() <= MOST_CHOSEN);
        // The latest time that a clock shows.
        let timeline = filled(None, [0, i64::MAX as u64].into_iter());
        assert_eq!(packets(&timeline).len(), 2.max(packets(&timeline).len()));
    }

    #[test]
    fn many_services_have_fewer_intervals() {
        let mut timeline = Timeline::new(10_000, None);
        for at in 0..1000 {
            timeline.add(at * MS, 9_999, Verdict::Pass, Reason::Pass, 60);
        }
        assert!(timeline.intervals().count() <= LEAST);
    }
}
