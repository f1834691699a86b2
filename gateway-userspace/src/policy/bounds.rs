//! The bounds and defaults of the policy file, in one place. `docs/policy.md` states the same numbers for operators.

use std::ops::RangeInclusive;

/// Largest policy file, in bytes.
pub const MAX_FILE: u64 = 16 << 20;
/// Most interfaces one policy may name (the same number bounds `--interface`).
pub const MAX_INTERFACES: usize = 16;
/// Most lists.
pub const MAX_LISTS: usize = 64;
/// Most services.
pub const MAX_SERVICES: usize = 10_000;
/// Most classes of one service.
pub const MAX_CLASSES: usize = 16;
/// Most pairs of a `protect` rule and one of its port ranges (a rule without ports counts once).
pub const MAX_PROTECT: usize = 64;
/// Most port ranges in one `ports` or `source_ports`, after merging.
pub const MAX_PORT_RANGES: usize = 1_024;
/// Most pairs of a range of `ports` and one of `source_ports` in one service.
pub const MAX_PORT_PAIRS: usize = 1_024;
/// How deep destination prefixes may nest.
pub const MAX_NESTING: usize = 8;
/// Longest name of a service, class or list, in characters.
pub const MAX_NAME: usize = 63;
/// Longest interface name, in bytes (the kernel's own bound).
pub const MAX_INTERFACE_NAME: usize = 15;

/// VLAN identifiers.
pub const VLANS: RangeInclusive<u64> = 1..=4_094;
/// Ports.
pub const PORTS: RangeInclusive<u64> = 1..=65_535;
/// Prefix lengths of an IPv4 source or network.
pub const IPV4_PREFIX: RangeInclusive<u64> = 8..=32;
/// Prefix lengths of an IPv6 source or network.
pub const IPV6_PREFIX: RangeInclusive<u64> = 16..=128;
/// Slots of the source table.
pub const MAX_TRACKED: RangeInclusive<u64> = 1_024..=64_000_000;
/// Prefixes a list may hold.
pub const MAX_PREFIXES: RangeInclusive<u64> = 1..=1_000_000;

/// Packets or connections a second.
pub const COUNT_RATE: RangeInclusive<u64> = 1..=100_000_000;
/// Bytes a second.
pub const BYTE_RATE: RangeInclusive<u64> = 1_000..=50_000_000_000;
/// Burst of packets or connections of one source or network.
pub const COUNT_BURST: RangeInclusive<u64> = 1..=8_000_000;
/// Burst of packets or connections of a total.
pub const COUNT_BURST_TOTAL: RangeInclusive<u64> = 1..=1_000_000_000;
/// Burst of bytes of one source or network: from one full Ethernet frame, which could otherwise never pass.
pub const BYTE_BURST: RangeInclusive<u64> = 1_514..=250_000_000;
/// Burst of bytes of a total.
pub const BYTE_BURST_TOTAL: RangeInclusive<u64> = 1_514..=1_000_000_000_000;

/// `sampling.one_in`; 0 turns sampling off.
pub const ONE_IN: RangeInclusive<u64> = 0..=1_000_000_000;
/// `sampling.one_in` when it is left out.
pub const DEFAULT_ONE_IN: u32 = 1_000;
/// `sampling.max_per_second`: the ring holds two seconds of the default, a fifth of a second of the largest.
pub const MAX_PER_SECOND: RangeInclusive<u64> = 1..=100_000;
/// `sampling.max_per_second` when it is left out.
pub const DEFAULT_MAX_PER_SECOND: u32 = 10_000;

/// False alarms in a period of `anomaly.sensitivity`.
pub const FALSE_ALARMS: RangeInclusive<u32> = 1..=1_000;

/// For how long a controller must be silent before the node opens, in seconds.
pub const CONTROLLER_AFTER: RangeInclusive<u64> = 10..=86_400;
/// `controller.after` when it is left out, in seconds.
pub const DEFAULT_CONTROLLER_AFTER: u64 = 300;
/// Bytes of a group's name.
pub const MAX_GROUP: usize = 32;

/// The largest `reserve`, in millionths.
pub const MAX_RESERVE_PPM: u32 = 900_000;
/// How long a step against an attack lasts, in seconds: no longer than a lever.
pub const ATTACK_FOR: RangeInclusive<u64> = 10..=86_400;
/// `on_attack.for` when it is left out, in seconds.
pub const DEFAULT_ATTACK_FOR: u64 = 600;
/// `on_attack.max_impact` when it is left out, in millionths.
pub const DEFAULT_MAX_IMPACT_PPM: u32 = 10_000;
/// Bans at a time that an attack on one service may lead to.
pub const MAX_BANS: RangeInclusive<u64> = 1..=10_000;
/// `on_attack.max_bans` when it is left out.
pub const DEFAULT_MAX_BANS: u32 = 100;
/// The lowest scale that limits may be tightened to, in per cent.
pub const LEAST_PERCENT: RangeInclusive<u32> = 1..=99;
/// `on_attack.least` when it is left out.
pub const DEFAULT_LEAST_PERCENT: u32 = 20;
/// How long a block lasts, in seconds.
pub const BLOCK_FOR: RangeInclusive<u64> = 1..=86_400;
/// How many drops start a block.
pub const BLOCK_DROPS: RangeInclusive<u64> = 1..=250_000;
/// Within what time they must fall, in seconds.
pub const BLOCK_WITHIN: RangeInclusive<u64> = 1..=3_600;

/// Longest address of a webhook, in bytes.
pub const MAX_URL: usize = 2_000;

/// `source.ipv4_prefix` when it is left out.
pub const DEFAULT_SOURCE_IPV4: u8 = 32;
/// `source.ipv6_prefix` when it is left out: the network that one customer gets.
pub const DEFAULT_SOURCE_IPV6: u8 = 64;
/// `per_network.ipv4_prefix` when it is left out (or the source's, where that is shorter).
pub const DEFAULT_NETWORK_IPV4: u8 = 24;
/// `per_network.ipv6_prefix` when it is left out (or the source's, where that is shorter).
pub const DEFAULT_NETWORK_IPV6: u8 = 48;
/// `source.max_tracked` when it is left out.
pub const DEFAULT_MAX_TRACKED: u32 = 1_000_000;
/// `max_prefixes` of a list when it is left out.
pub const DEFAULT_MAX_PREFIXES: u32 = 1_000_000;
