//! How many cells of the source table can be in debt at one moment, and so how large the table must be.
//!
//! # The formula
//!
//! A cell is taken while its bucket is in debt. A packet that charges a bucket of rate *r* makes it owe 1/*r* seconds
//! more (a frame of *l* bytes: *l*/*r*), whatever the burst: a burst lets one source owe more, but then that source
//! needs as many packets more. So at *P* packets a second a bucket of packets or connections keeps at most *P* × 1/*r*
//! cells in debt, and reaches that when every packet comes from another source. For bytes the worst frames are the
//! largest; a link that carries *P* smallest frames (84 bytes on the wire) a second carries *P* × 84 × 1514 / 1538
//! bytes of full frames, so at most *P* × 82.7 / *r* cells.
//!
//! A packet charges the buckets of one service, and of one class or none: per source and per network, packets, bytes
//! and connections, at most six cells. Traffic may wander between services and leave debts behind, so the bound for the
//! node is, over the ages of packets, the largest number of cells that a packet of that age can still hold: take each
//! service's (or class's) times of debt in falling order; the longest of all services, plus the longest second of
//! all services, and so on, times *P*. The sum over all services would need each of them to receive *P* packets a
//! second at once, which one node cannot.
//!
//! A source that is dropped `drops` times holds a cell for its block, and one for the count before that. It must first
//! empty a bucket (min(burst, *r* × time) packets), then be dropped; so there are at most
//! *P* × `within` / (min(burst, *r* × `within`) + 1) counts and *P* × `for` / (min(burst, *r* × `for`) + `drops`)
//! blocks, for the bucket that is emptied with the fewest packets. Again the largest over the services counts, at every
//! age of a packet.
//!
//! Totals are not in the table. Sources that trusted lists exempt make it less.

use serde::Serialize;

use super::model::{Limit, PerNetwork, PerSource, Policy};

/// Packets a second that are assumed when nothing is said: a link of 1 Gb/s full of the smallest frames.
pub const GIGABIT_PACKETS_PER_SECOND: u64 = 1_488_095;

/// Bytes of full frames that a link carries in the time of one smallest frame.
const BYTES_A_PACKET: f64 = 84.0 * FULL_FRAME / 1_538.0;
/// Bytes of a full Ethernet frame, from the header on.
const FULL_FRAME: f64 = 1_514.0;

/// The worst of one bucket, if all packets were for it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BucketCells {
    /// The service.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// `per_source` or `per_network`.
    pub tier: &'static str,
    /// `packets`, `bytes`, `connections`, or `block` for blocks and the counts towards them.
    pub kind: &'static str,
    /// Cells in use at one moment.
    pub cells: u64,
}

/// How large the source table must be for a policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Sizing {
    /// The assumption: packets a second that the node receives at worst.
    pub packets_per_second: u64,
    /// What the policy gives: `source.max_tracked`.
    pub max_tracked: u32,
    /// Each bucket by itself, the most demanding first.
    pub buckets: Vec<BucketCells>,
    /// The most cells in use at one moment, all buckets and blocks together.
    pub cells: u64,
    /// The least `max_tracked` to give: twice `cells`, because lines fill unevenly.
    pub recommended: u64,
}

impl Sizing {
    /// Whether the policy's table is as large as recommended.
    pub fn is_enough(&self) -> bool {
        u64::from(self.max_tracked) >= self.recommended
    }
}

/// [`cells_in_debt_at`] for a link of 1 Gb/s.
pub fn cells_in_debt(policy: &Policy) -> Sizing {
    cells_in_debt_at(policy, GIGABIT_PACKETS_PER_SECOND)
}

/// The worst number of cells in use at one moment when the node receives `packets_per_second`.
pub fn cells_in_debt_at(policy: &Policy, packets_per_second: u64) -> Sizing {
    let packets = packets_per_second as f64;
    let mut worst = Worst::default();
    let mut buckets = Vec::new();
    for service in &policy.services {
        let own = ("", service.per_source.as_ref(), service.per_network.as_ref());
        let classes = service
            .classes
            .iter()
            .map(|c| (c.name.as_str(), c.per_source.as_ref(), c.per_network.as_ref()));
        for (class, per_source, per_network) in std::iter::once(own).chain(classes) {
            let account = Account::of(per_source, per_network);
            buckets.extend(account.rows(packets).map(|(tier, kind, cells)| BucketCells {
                service: service.name.clone(),
                class: class.to_owned(),
                tier,
                kind,
                cells,
            }));
            worst.add(&account);
        }
    }
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.cells));
    let cells = whole(packets * worst.cells_a_packet());
    Sizing {
        packets_per_second,
        max_tracked: policy.source.max_tracked,
        buckets,
        cells,
        recommended: cells.saturating_mul(2),
    }
}

/// What one packet to a service (or class) can hold.
struct Account {
    /// Seconds in debt, by tier and kind.
    debts: Vec<(&'static str, &'static str, f64)>,
    strikes: Option<Holding>,
    block: Option<Holding>,
}

/// A share of a cell that each packet holds for a time.
#[derive(Clone, Copy)]
struct Holding {
    seconds: f64,
    cells: f64,
}

impl Account {
    fn of(per_source: Option<&PerSource>, per_network: Option<&PerNetwork>) -> Self {
        let tiers = [
            ("per_source", per_source.map(|tier| &tier.limits)),
            ("per_network", per_network.map(|tier| &tier.limits)),
        ];
        let mut debts = Vec::new();
        for (tier, limits) in tiers {
            let Some(limits) = limits else { continue };
            let kinds = [
                ("packets", limits.packets, 1.0),
                ("bytes", limits.bytes, BYTES_A_PACKET),
                ("connections", limits.connections, 1.0),
            ];
            for (kind, limit, charge) in kinds {
                debts.extend(limit.map(|limit| (tier, kind, charge / limit.rate as f64)));
            }
        }
        let (mut strikes, mut block) = (None, None);
        if let Some(tier) = per_source
            && let Some(rule) = tier.block
        {
            // The fewest packets that empty one of the buckets when it has refilled for so long.
            let to_empty = |seconds: u64| {
                let packets = |limit: Limit, charge: f64| {
                    limit.burst.min(limit.rate.saturating_mul(seconds)) as f64 / charge
                };
                let all = [
                    tier.limits.packets.map(|limit| packets(limit, 1.0)),
                    tier.limits.bytes.map(|limit| packets(limit, FULL_FRAME)),
                    tier.limits.connections.map(|limit| packets(limit, 1.0)),
                ];
                all.into_iter().flatten().reduce(f64::min)
            };
            strikes = to_empty(rule.within_seconds).map(|packets| Holding {
                seconds: rule.within_seconds as f64,
                cells: 1.0 / (packets + 1.0),
            });
            block = to_empty(rule.for_seconds).map(|packets| Holding {
                seconds: rule.for_seconds as f64,
                cells: 1.0 / (packets + f64::from(rule.drops)),
            });
        }
        Self {
            debts,
            strikes,
            block,
        }
    }

    fn rows(&self, packets: f64) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let held = [self.strikes, self.block].into_iter().flatten();
        let held = held.map(|h| h.seconds * h.cells).reduce(|a, b| a + b);
        let debts = self
            .debts
            .iter()
            .map(move |&(tier, kind, seconds)| (tier, kind, whole(packets * seconds)));
        debts.chain(held.map(|held| ("per_source", "block", whole(packets * held))))
    }
}

/// The worst over all services at every age of a packet.
#[derive(Default)]
struct Worst {
    /// The longest debt of any service, the longest second, and so on, in seconds.
    debts: Vec<f64>,
    strikes: Vec<Holding>,
    blocks: Vec<Holding>,
}

impl Worst {
    fn add(&mut self, account: &Account) {
        let mut debts: Vec<f64> = account.debts.iter().map(|&(_, _, seconds)| seconds).collect();
        debts.sort_by(|a, b| b.total_cmp(a));
        for (rank, seconds) in debts.into_iter().enumerate() {
            match self.debts.get_mut(rank) {
                Some(longest) => *longest = longest.max(seconds),
                None => self.debts.push(seconds),
            }
        }
        self.strikes.extend(account.strikes);
        self.blocks.extend(account.block);
    }

    fn cells_a_packet(self) -> f64 {
        self.debts.iter().sum::<f64>() + envelope(self.strikes) + envelope(self.blocks)
    }
}

/// The area under the highest of several holdings at every age.
fn envelope(mut holdings: Vec<Holding>) -> f64 {
    holdings.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let (mut area, mut highest) = (0.0, 0.0_f64);
    for (index, holding) in holdings.iter().enumerate() {
        highest = highest.max(holding.cells);
        let next = holdings.get(index + 1).map_or(0.0, |next| next.seconds);
        area += highest * (holding.seconds - next);
    }
    area
}

fn whole(cells: f64) -> u64 {
    // What binary fractions leave over is not a cell.
    (cells - 1e-6).max(0.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, path::Path};

    use super::*;
    use crate::policy::parse;

    fn sizing(text: &str, packets_per_second: u64) -> Sizing {
        let text = format!("version = 1\n{text}");
        cells_in_debt_at(
            &parse(&text, Path::new("p.toml")).unwrap().policy,
            packets_per_second,
        )
    }

    const WEB: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";

    #[test]
    fn nothing_limited_needs_nothing() {
        let sizing = sizing(WEB, 1_000_000);
        assert_eq!(
            (sizing.cells, sizing.recommended, sizing.is_enough()),
            (0, 0, true)
        );
    }

    #[test]
    fn packets_and_connections_hold_a_cell_for_one_refill() {
        let text = format!(
            "{WEB}per_source.packets.rate = 100\nper_source.connections.rate = 20\nper_network.packets.rate = 1000\n"
        );
        let sizing = sizing(&text, 1_000_000);
        let rows: Vec<_> = sizing.buckets.iter().map(|b| (b.tier, b.kind, b.cells)).collect();
        assert_eq!(
            rows,
            [
                ("per_source", "connections", 50_000),
                ("per_source", "packets", 10_000),
                ("per_network", "packets", 1_000)
            ]
        );
        assert_eq!(sizing.cells, 61_000);
        assert_eq!(sizing.recommended, 122_000);
    }

    #[test]
    fn bytes_are_worst_in_full_frames() {
        let text = format!("{WEB}per_source.bytes = {{ rate = \"1MB\" }}\n");
        // 1,000,000 × 84 × 1514 / 1538 / 1,000,000
        assert_eq!(sizing(&text, 1_000_000).cells, 83);
    }

    #[test]
    fn services_share_the_packets() {
        let mut text = String::new();
        for number in 1..=100 {
            let _ = write!(
                text,
                "[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\nports = [{number}]\nper_source.packets.rate = 1000\n"
            );
        }
        assert_eq!(sizing(&text, 1_000_000).cells, 1_000);
        // One with a long and one with two short debts: the long one's packets come first, then the others'.
        let text = "[[service]]\nname = \"a\"\nprotocol = \"tcp\"\nper_source.packets.rate = 1\n\
                    [[service]]\nname = \"b\"\nprotocol = \"udp\"\nper_source.packets.rate = 10\nper_source.connections.rate = 10\n";
        assert_eq!(sizing(text, 100).cells, 110);
    }

    #[test]
    fn a_class_counts_instead_of_the_service() {
        let text = format!(
            "{WEB}per_source.packets.rate = 1000\n[[service.class]]\nname = \"c\"\nlists = [\"l\"]\nper_source.packets.rate = 10\n[lists.l]\n"
        );
        let sizing = sizing(&text, 1_000);
        assert_eq!(sizing.cells, 100);
        assert_eq!(sizing.buckets[0].class, "c");
    }

    #[test]
    fn blocks_cost_what_it_takes_to_earn_them() {
        let text = format!(
            "{WEB}per_source = {{ packets = {{ rate = 10, burst = 1 }}, block = {{ for = \"30s\", drops = 99, within = \"10s\" }} }}\n"
        );
        let sizing = sizing(&text, 1_000);
        // debt 1000/10; counts 1000 × 10/(1 + 1); blocks 1000 × 30/(1 + 99)
        assert_eq!(sizing.cells, 100 + 5_000 + 300);
        assert_eq!(sizing.buckets[0].kind, "block");
        assert_eq!(sizing.buckets[0].cells, 5_300);
    }

    #[test]
    fn the_envelope_is_the_highest_at_every_age() {
        let holding = |seconds, cells| Holding { seconds, cells };
        let area = envelope(vec![holding(1.0, 5.0), holding(10.0, 1.0), holding(5.0, 0.5)]);
        assert!((area - (9.0 + 5.0)).abs() < 1e-9, "{area}");
    }
}
