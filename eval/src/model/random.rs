//! Chance, from a seed: the same seed gives the same run on every machine.

/// A generator: xoshiro256++ (Blackman and Vigna, Scrambled Linear Pseudorandom Number Generators, 2021).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
    /// The second of two normal numbers, which come in pairs.
    spare: Option<f64>,
}

/// Splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014): one number to another that
/// shows nothing of it.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = [0; 4];
        let mut at = seed;
        for word in &mut state {
            at = mix(at);
            *word = at;
        }
        Self { state, spare: None }
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let t = b << 17;
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ t, d.rotate_left(45)];
        result
    }

    /// Uniform in \[0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform between two numbers.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below this one, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// Exponential with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Log-normal, by its median and the deviation of its logarithm.
    pub(crate) fn log_normal(&mut self, median: f64, deviation: f64) -> f64 {
        median * (deviation * self.normal()).exp()
    }

    /// Pareto: at least `least`, exceeding x with the probability (least / x)^`index`, and cut off at `most`.
    pub(crate) fn pareto(&mut self, least: f64, index: f64, most: f64) -> f64 {
        (least * (1.0 - self.unit()).powf(-1.0 / index)).min(most)
    }

    /// Poisson. From a mean of 20 on, a normal number with the skewness put right (Cornish and Fisher 1938).
    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        if mean <= 0.0 {
            return 0.0;
        }
        if mean < 20.0 {
            let (end, mut product, mut count) = ((-mean).exp(), self.unit(), 0.0);
            while product > end {
                product *= self.unit();
                count += 1.0;
            }
            return count;
        }
        let z = self.normal();
        (mean + mean.sqrt() * z + (z * z - 1.0) / 6.0).round().max(0.0)
    }

    /// Binomial: of `count`, so many with this probability each.
    pub(crate) fn binomial(&mut self, count: f64, probability: f64) -> f64 {
        if count <= 0.0 || probability <= 0.0 {
            return 0.0;
        }
        if probability >= 1.0 {
            return count;
        }
        if probability > 0.5 {
            return count - self.binomial(count, 1.0 - probability);
        }
        let mean = count * probability;
        if count <= 16.0 {
            return (0..count as u32).filter(|_| self.chance(probability)).count() as f64;
        }
        if mean < 12.0 {
            // From 0 upwards, by the ratio of neighbouring probabilities.
            let odds = probability / (1.0 - probability);
            let mut term = ((1.0 - probability).ln() * count).exp();
            let (mut rest, mut hit) = (self.unit(), 0.0);
            while rest > term && hit < count {
                rest -= term;
                term *= odds * (count - hit) / (hit + 1.0);
                hit += 1.0;
            }
            return hit;
        }
        let z = self.normal();
        let deviation = (mean * (1.0 - probability)).sqrt();
        let skew = (z * z - 1.0) * (1.0 - 2.0 * probability) / 6.0;
        (mean + deviation * z + skew).round().clamp(0.0, count)
    }

    /// Distributes a count over cells with these weights; nothing where no weight is.
    pub(crate) fn distribute(&mut self, count: f64, weights: &[f64], mut sink: impl FnMut(usize, f64)) {
        let mut left = count;
        let mut weight_left: f64 = weights.iter().sum();
        for (cell, &weight) in weights.iter().enumerate() {
            if left <= 0.0 || weight_left <= 0.0 {
                return;
            }
            if weight > 0.0 {
                let probability = weight / weight_left;
                // What rounding leaves of the weights must not lose the last ones.
                let hit = if probability > 1.0 - 1e-9 {
                    left
                } else {
                    self.binomial(left, probability)
                };
                if hit > 0.0 {
                    sink(cell, hit);
                }
                left -= hit;
                weight_left -= weight;
            }
        }
    }
}

/// Noise with a memory: an Ornstein-Uhlenbeck process around 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wander {
    value: f64,
    deviation: f64,
    memory: f64,
}

impl Wander {
    /// Noise of this deviation that forgets within so many seconds.
    pub(crate) fn new(random: &mut Random, deviation: f64, memory: f64) -> Self {
        Self {
            value: deviation * random.normal(),
            deviation,
            memory,
        }
    }

    /// Goes on by so many seconds.
    pub(crate) fn step(&mut self, random: &mut Random, seconds: f64) -> f64 {
        let kept = (-seconds / self.memory).exp();
        self.value = self.value * kept + self.deviation * (1.0 - kept * kept).sqrt() * random.normal();
        self.value
    }

    /// What it is now.
    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of draws.
    fn moments(draws: u32, mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..draws).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(draws);
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(draws);
        (mean, variance)
    }

    #[test]
    fn counts_have_their_means_and_variances() {
        let mut random = Random::new(1);
        for mean in [0.3, 5.0, 19.0, 21.0, 400.0] {
            let (found, variance) = moments(100_000, || random.poisson(mean));
            assert!((found / mean - 1.0).abs() < 0.02, "{mean}: {found}");
            assert!((variance / mean - 1.0).abs() < 0.03, "{mean}: {variance}");
        }
        for (count, probability) in [(10.0, 0.3), (1000.0, 0.001), (1000.0, 0.4), (50.0, 0.97)] {
            let (found, variance) = moments(100_000, || random.binomial(count, probability));
            let (mean, spread) = (count * probability, count * probability * (1.0 - probability));
            assert!(
                (found / mean - 1.0).abs() < 0.02,
                "{count} {probability}: {found}"
            );
            assert!(
                (variance / spread - 1.0).abs() < 0.05,
                "{count} {probability}: {variance}"
            );
        }
    }

    #[test]
    fn a_distributed_count_is_all_there() {
        let mut random = Random::new(2);
        for count in [0.0, 1.0, 17.0, 5_000.0, 1e6] {
            let mut cells = [0.0; 5];
            random.distribute(count, &[0.1, 0.0, 3.0, 1.0, 0.2], |cell, hit| cells[cell] += hit);
            assert_eq!(cells.iter().sum::<f64>(), count);
            assert_eq!(cells[1], 0.0);
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
