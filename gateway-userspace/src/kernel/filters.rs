//! The filters before the tries of lists and bans.

use std::sync::atomic::Ordering;

use gateway_core::filter::{BITS, WORDS, bits};
use ipnet::IpNet;

use super::{Dataplane, KernelError, pins::io_error};
use crate::compile::prefix;

/// A filter, as the kernel has it.
pub(super) type Words = [u64; WORDS];

/// A filter of prefixes that come and go.
#[derive(Debug)]
pub(super) struct Filter {
    /// How many prefixes set each bit.
    counts: Vec<u32>,
    words: Box<Words>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            counts: vec![0; BITS],
            words: Box::new([0; WORDS]),
        }
    }
}

impl Filter {
    /// That of some prefixes.
    pub(super) fn of<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut filter = Self::default();
        for net in nets {
            filter.add(net);
        }
        filter
    }

    /// Adds a prefix.
    pub(super) fn add(&mut self, net: &IpNet) {
        for bit in bits_of(net) {
            self.counts[bit] += 1;
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Takes back a prefix that was added.
    pub(super) fn remove(&mut self, net: &IpNet) {
        for bit in bits_of(net) {
            self.counts[bit] -= 1;
            if self.counts[bit] == 0 {
                self.words[bit / 64] &= !(1 << (bit % 64));
            }
        }
    }
}

fn bits_of(net: &IpNet) -> impl Iterator<Item = usize> + use<> {
    bits(
        net.addr().is_ipv6(),
        &prefix::words(net.network()),
        net.prefix_len(),
    )
}

impl Dataplane {
    /// Writes a filter. Packets may look at it meanwhile: the words that stay are written as they are.
    pub(super) fn write_filter(&self, at: u32, filter: &Filter) -> Result<(), KernelError> {
        let all = self.map("FILTERS").words();
        let all = all.map_err(|source| io_error("cannot write the filter of prefixes".into(), source))?;
        let held = all.get().iter().skip(at as usize * WORDS);
        for (held, word) in held.zip(&*filter.words) {
            held.store(*word, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_stays_while_a_prefix_needs_it() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let (one, other, wide) = (net("192.0.2.0/24"), net("192.0.2.7/32"), net("192.0.0.0/8"));
        let mut filter = Filter::of([&one, &other, &wide]);
        let ones = |filter: &Filter| filter.words.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!(ones(&filter), 256);
        filter.remove(&wide);
        filter.remove(&one);
        assert_eq!(ones(&filter), 1);
        filter.remove(&other);
        assert_eq!(ones(&filter), 0);
    }
}
