//! How much normal sources send in a second, and how many do.
//!
//! What is counted are *source-minutes*: a source that was there in a minute, by the second of it in which most of its
//! packets were sampled. A source with more than `r` packets in a second has, at a sampling probability `p`, at least `j` samples of that second with the
//! probability `P(j)` of a binomial tail; so there are at most about `count(≥ j) / P(j)` such source-minutes, whatever the
//! others send. Small `j` need few minutes and overstate much, large ones the other way round: several are tried and the
//! least bound holds, at a confidence that allows for the choice.

use serde::{Deserialize, Serialize};

use super::{
    Per,
    bounds::{ONE_IN_600, poisson_upper, sampled_at_least},
};

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum What {
    Packets,
    Connections,
}

/// Bins of counts: 1, 2, 3, 4, 6, 8, 12, … samples in a second.
const BINS: usize = 26;
/// Sampling probabilities that are told apart.
const CLASSES: usize = 2;
/// The largest sources and networks of the present minute that are told from each other.
const PEAKS: usize = 32;
/// The tails that are tried: see [`ONE_IN_600`].
const TAILS: [f64; 6] = [0.9, 0.5, 0.1, 0.01, 0.001, 0.000_1];

/// The least count of a bin.
const fn edge(bin: usize) -> u32 {
    // 1, then twos and threes times powers of two.
    match bin {
        0 => 1,
        _ if bin % 2 == 1 => 2 << (bin / 2),
        _ => 3 << (bin / 2 - 1),
    }
}

/// The bin of a count.
fn bin(count: u32) -> usize {
    (1..BINS).rev().find(|bin| edge(*bin) <= count).unwrap_or(0)
}

/// Source-minutes (or network-minutes) by bin; grows to the largest bin in use.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Histogram(Vec<f64>);

impl Histogram {
    fn add(&mut self, count: u32) {
        if count == 0 {
            return;
        }
        let at = bin(count);
        self.grow(at + 1);
        self.0[at] += 1.0;
    }

    /// To so many bins at least, without room to spare.
    fn grow(&mut self, bins: usize) {
        if self.0.len() < bins {
            self.0.reserve_exact(bins - self.0.len());
            self.0.resize(bins, 0.0);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.grow(other.0.len());
        for (bin, more) in self.0.iter_mut().zip(&other.0) {
            *bin += more;
        }
    }

    fn age(&mut self, factor: f64) {
        for bin in &mut self.0 {
            *bin *= factor;
        }
    }

    /// The most that may have had more than `rate` packets in a second.
    fn above(&self, rate: f64, p: f64) -> f64 {
        let packets = rate.max(0.0).floor() + 1.0;
        let mut least = f64::INFINITY;
        let mut tails = TAILS.iter().peekable();
        let mut chosen: Option<(usize, f64)> = None;
        // The largest bin for each of the tails, in one pass from the smallest bin on.
        for bin in 0..=BINS {
            let tail = if bin < BINS {
                sampled_at_least(edge(bin), packets, p)
            } else {
                0.0
            };
            while let Some(wanted) = tails.peek() {
                if tail >= **wanted {
                    break;
                }
                if let Some((bin, tail)) = chosen {
                    let counted: f64 = self.0.iter().skip(bin).sum();
                    least = least.min(poisson_upper(counted, ONE_IN_600) / tail);
                }
                tails.next();
            }
            if tail > 0.0 {
                chosen = Some((bin, tail));
            }
        }
        least
    }
}

/// What was counted at one sampling probability.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Class {
    /// Packets that a sample stands for, at most.
    weight: f64,
    /// Source-minutes, sampled or not.
    sources: f64,
    /// Minutes.
    minutes: f64,
    /// By who it is counted for, and what.
    histograms: [[Histogram; 2]; 2],
}

/// A source or a network of the present minute, and the most samples of it in one second.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Peak {
    hash: u32,
    packets: u16,
    connections: u16,
}

/// The present minute.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Minute {
    /// Sources, networks.
    peaks: [Vec<Peak>; 2],
    /// Those for which there was no room: they may be counted more than once, never not at all.
    crowded: [[Histogram; 2]; 2],
    /// The largest weight of a sample.
    weight: f64,
    /// The fewest different sources that a whole minute was said to have.
    pub(super) sources: Option<f64>,
}

impl Minute {
    /// Takes in the samples of one source or network in one second.
    pub(super) fn meet(&mut self, per: Per, hash: u64, packets: u32, connections: u32, weight: f64) {
        self.weight = self.weight.max(weight);
        let short = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let new = Peak {
            hash: hash as u32,
            packets: short(packets),
            connections: short(connections),
        };
        let peaks = &mut self.peaks[per as usize];
        if let Some(held) = peaks.iter_mut().find(|held| held.hash == new.hash) {
            held.packets = held.packets.max(new.packets);
            held.connections = held.connections.max(new.connections);
            return;
        }
        if peaks.len() < PEAKS {
            if peaks.len() == peaks.capacity() {
                peaks.reserve_exact(PEAKS / 4);
            }
            peaks.push(new);
            return;
        }
        // The larger stay: it is the large ones that must not be counted every second.
        let mut out = new;
        if let Some(smallest) = peaks
            .iter_mut()
            .min_by_key(|held| (held.packets, held.connections))
            && (smallest.packets, smallest.connections) < (new.packets, new.connections)
        {
            out = std::mem::replace(smallest, new);
        }
        self.crowded[per as usize][What::Packets as usize].add(u32::from(out.packets));
        self.crowded[per as usize][What::Connections as usize].add(u32::from(out.connections));
    }

    fn heap(&self) -> usize {
        let peaks: usize = self.peaks.iter().map(Vec::capacity).sum();
        peaks * size_of::<Peak>() + heap(&self.crowded)
    }
}

fn heap(histograms: &[[Histogram; 2]; 2]) -> usize {
    let bins: usize = histograms.iter().flatten().map(|one| one.0.capacity()).sum();
    bins * size_of::<f64>()
}

/// What was counted in whole minutes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Rates {
    classes: Vec<Class>,
}

impl Rates {
    /// Takes in a whole minute with so many different sources.
    pub(super) fn keep(&mut self, minute: &Minute, sources: f64) {
        let exponent = |weight: f64| weight.max(1.0).log2().ceil() as i32;
        let at = if minute.weight > 0.0 {
            let like = |class: &Class| exponent(class.weight) == exponent(minute.weight);
            self.classes.iter().position(like).unwrap_or_else(|| {
                self.classes.reserve_exact(1);
                self.classes.push(Class::default());
                self.classes.len() - 1
            })
        } else {
            // Without a sample nobody knows how thinly it was sampled: as thinly as any other.
            let classes = self.classes.iter().enumerate();
            match classes.max_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight)) {
                Some((at, _)) => at,
                None => return,
            }
        };
        if let Some(class) = self.classes.get_mut(at) {
            class.weight = class.weight.max(minute.weight).max(1.0);
            class.sources += sources;
            class.minutes += 1.0;
            for (per, peaks) in minute.peaks.iter().enumerate() {
                let [packets, connections] = &mut class.histograms[per];
                for peak in peaks {
                    packets.add(u32::from(peak.packets));
                    connections.add(u32::from(peak.connections));
                }
            }
            let counted = class.histograms.iter_mut().flatten();
            for (histogram, crowded) in counted.zip(minute.crowded.iter().flatten()) {
                histogram.merge(crowded);
            }
        }
        if self.classes.len() > CLASSES {
            self.merge_nearest();
        }
    }

    /// The two classes that are most alike become one. It counts as the more thinly sampled of the two, which overstates.
    fn merge_nearest(&mut self) {
        self.classes.sort_by(|a, b| a.weight.total_cmp(&b.weight));
        let ratio = |pair: &[Class]| pair[1].weight / pair[0].weight.max(1.0);
        let nearest = self.classes.windows(2).enumerate();
        let nearest = nearest.min_by(|(_, a), (_, b)| ratio(a).total_cmp(&ratio(b)));
        let Some((at, _)) = nearest else { return };
        let lighter = self.classes.remove(at);
        let Some(class) = self.classes.get_mut(at) else {
            return;
        };
        class.sources += lighter.sources;
        class.minutes += lighter.minutes;
        let both = class.histograms.iter_mut().flatten();
        for (histogram, other) in both.zip(lighter.histograms.iter().flatten()) {
            histogram.merge(other);
        }
        self.classes.shrink_to_fit();
    }

    pub(super) fn age(&mut self, factor: f64) {
        for class in &mut self.classes {
            class.sources *= factor;
            class.minutes *= factor;
            for histogram in class.histograms.iter_mut().flatten() {
                histogram.age(factor);
            }
        }
        // What has all but gone would only make the bound looser.
        self.classes.retain(|class| class.minutes >= 0.5);
    }

    /// Source-minutes in all.
    pub(super) fn sources(&self) -> f64 {
        self.classes.iter().map(|class| class.sources).sum()
    }

    /// Minutes in all.
    pub(super) fn minutes(&self) -> f64 {
        self.classes.iter().map(|class| class.minutes).sum()
    }

    /// The most source-minutes (or network-minutes) with more than `rate` packets or connections in a second.
    pub(super) fn above(&self, per: Per, what: What, rate: f64) -> f64 {
        let of = |class: &Class| {
            let p = 1.0 / class.weight.max(1.0);
            let above = class.histograms[per as usize][what as usize].above(rate, p);
            // There are no more networks than sources.
            above.min(class.sources)
        };
        self.classes.iter().map(of).sum()
    }

    /// Bytes on the heap, those of the present minute included.
    pub(super) fn heap(&self, minute: &Minute) -> usize {
        let classes: usize = self.classes.iter().map(|class| heap(&class.histograms)).sum();
        self.classes.capacity() * size_of::<Class>() + classes + minute.heap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_have_two_to_the_octave() {
        let edges: Vec<u32> = (0..9).map(edge).collect();
        assert_eq!(edges, [1, 2, 3, 4, 6, 8, 12, 16, 24]);
        for bin_of in 0..BINS {
            assert_eq!(bin(edge(bin_of)), bin_of);
            assert_eq!(bin(edge(bin_of + 1) - 1), bin_of);
        }
        assert_eq!(bin(u32::MAX), BINS - 1);
    }

    #[test]
    fn whoever_finds_no_room_is_counted_all_the_same() {
        let mut minute = Minute::default();
        for source in 0..200_u32 {
            for _second in 0..2 {
                minute.meet(Per::Source, u64::from(source), source + 1, 0, 1.0);
            }
        }
        let mut rates = Rates::default();
        rates.keep(&minute, 200.0);
        let exact = 200.0 - 150.0;
        let above = rates.above(Per::Source, What::Packets, 150.0);
        assert!(above >= exact, "{above}");
    }
}
