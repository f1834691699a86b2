//! Sums that fade, from which rates and their errors are estimated.
//!
//! A sample of one packet in N stands for N packets (Horvitz and Thompson 1952: the inverse of its probability). The sum of
//! what samples stand for is an unbiased estimate of the packets, and Σ N (N − 1) one of its variance, because each packet
//! is taken independently of the others. All sums fade by the same exponential, so a rate is that of the last seconds, and
//! an entry has the same size however long it lives.

use crate::api::traffic::Estimate;

/// The time in which what was counted fades to 1/e of itself: rates are over about so many seconds.
pub const SPAN_SECONDS: f64 = 10.0;

/// What a sample adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addend {
    /// Packets that it stands for.
    pub packets: f64,
    /// The frame's length.
    pub length: f64,
    /// Whether it was dropped, or would have been.
    pub dropped: bool,
    /// Whether it asks for a new connection.
    pub connection: bool,
}

/// Fading sums.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weights {
    packets: f64,
    bytes: f64,
    dropped: f64,
    connections: f64,
    variance: f64,
    /// When the sums were as they are, in seconds of the reader's clock.
    at: f64,
}

impl Weights {
    /// Lets the sums fade until a moment.
    fn fade(&mut self, now: f64) {
        let passed = now - self.at;
        if passed > 0.0 {
            let factor = (-passed / SPAN_SECONDS).exp();
            self.packets *= factor;
            self.bytes *= factor;
            self.dropped *= factor;
            self.connections *= factor;
            self.variance *= factor * factor;
            self.at = now;
        }
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, addend: Addend, now: f64) {
        self.fade(now);
        let packets = addend.packets;
        self.packets += packets;
        self.bytes += packets * addend.length;
        self.variance += packets * (packets - 1.0).max(0.0);
        if addend.dropped {
            self.dropped += packets;
        }
        if addend.connection {
            self.connections += packets;
        }
    }

    /// Adds other sums, as they are at a moment.
    pub(super) fn merge(&mut self, other: &Self, now: f64) {
        self.fade(now);
        let mut other = *other;
        other.fade(now);
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.dropped += other.dropped;
        self.connections += other.connections;
        self.variance += other.variance;
    }

    /// How heavy it is at a moment, in packets.
    pub(super) fn heft(&self, now: f64) -> f64 {
        let mut faded = *self;
        faded.fade(now);
        faded.packets
    }

    /// The rates at a moment. `age`: for how long there has been anything to add, in seconds.
    pub(super) fn estimate(&self, now: f64, age: f64) -> Estimate {
        let mut sums = *self;
        sums.fade(now);
        // A second after the start there was no more than a second's to add.
        let span = SPAN_SECONDS * (1.0 - (-age.max(0.1) / SPAN_SECONDS).exp());
        Estimate {
            packets_per_second: sums.packets / span,
            bytes_per_second: sums.bytes / span,
            dropped_per_second: sums.dropped / span,
            connections_per_second: sums.connections / span,
            error: if sums.packets > 0.0 {
                sums.variance.sqrt() / sums.packets
            } else {
                0.0
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(packets: f64) -> Addend {
        Addend {
            packets,
            length: 100.0,
            dropped: true,
            connection: false,
        }
    }

    #[test]
    fn a_steady_rate_is_found_soon_and_kept() {
        let mut weights = Weights::default();
        for tick in 0..6_000 {
            let now = f64::from(tick) / 100.0;
            weights.add(packet(10.0), now);
            if tick > 100 {
                let estimate = weights.estimate(now, now);
                let off = (estimate.packets_per_second / 1_000.0 - 1.0).abs();
                assert!(off < 0.03, "{now}: {estimate:?}");
                assert!((estimate.bytes_per_second / estimate.packets_per_second - 100.0).abs() < 1e-6);
                assert!((estimate.dropped_per_second - estimate.packets_per_second).abs() < 1e-6);
                assert!(estimate.connections_per_second < 1e-9);
            }
        }
        let later = weights.estimate(60.0 + 5.0 * SPAN_SECONDS, 100.0);
        assert!(later.packets_per_second < 10.0, "{later:?}");
    }

    #[test]
    fn the_error_is_that_of_independent_samples() {
        let mut weights = Weights::default();
        for _ in 0..100 {
            weights.add(packet(1_000.0), 0.0);
        }
        // A hundred samples: a tenth.
        assert!((weights.estimate(0.0, 10.0).error - 0.1).abs() < 0.001);
        let mut all = Weights::default();
        for _ in 0..100 {
            all.add(packet(1.0), 0.0);
        }
        assert!(
            all.estimate(0.0, 10.0).error.abs() < 1e-9,
            "every packet was looked at"
        );
        let mut both = Weights::default();
        both.merge(&weights, 0.0);
        both.merge(&all, 0.0);
        assert!((both.heft(0.0) - 100_100.0).abs() < 1e-6);
    }
}
