//! Reading the buckets: `{ rate, burst }`, the tiers that hold them, and blocks.

use std::ops::RangeInclusive;

use super::{
    bounds,
    model::{Block, Limit, Limits, PerNetwork, PerSource, Source, Total},
    units,
    walk::{Item, Section, Sink},
};

/// Keys of every tier.
const BUCKETS: [&str; 3] = ["packets", "bytes", "connections"];

/// A parser of [`units`].
type Parse = fn(&str) -> Result<u64, units::UnitError>;

/// Whose bucket it is, which decides how deep it may be.
#[derive(Clone, Copy)]
enum Owner {
    /// One source's or one network's.
    Source,
    /// Shared by all.
    Everybody,
}

/// Reads `per_source`; a block only where `block` is true for the table.
pub(super) fn per_source(section: &Section<'_>, sink: &mut Sink<'_>) -> PerSource {
    let [packets, bytes, connections] = BUCKETS;
    section.check_keys(&[packets, bytes, connections, "block"], &[], sink);
    let before = sink.errors.len();
    let limits = limits(section, Owner::Source, sink);
    let block = section.get("block").and_then(|item| block(&item, sink));
    if sink.errors.len() == before && is_empty(&limits) {
        if block.is_some() {
            sink.warn_section(
                section,
                "a block without packets, bytes or connections beside it never starts",
            );
        } else {
            sink.warn_section(section, "limits nothing: it has no packets, bytes or connections");
        }
    }
    PerSource { limits, block }
}

/// Reads `per_network`.
pub(super) fn per_network(section: &Section<'_>, source: &Source, sink: &mut Sink<'_>) -> PerNetwork {
    let [packets, bytes, connections] = BUCKETS;
    let later = [("block", "a block of whole networks")];
    section.check_keys(
        &["ipv4_prefix", "ipv6_prefix", packets, bytes, connections],
        &later,
        sink,
    );
    let before = sink.errors.len();
    let mut prefix = |key, bounds: RangeInclusive<u64>, default: u8, of_source: u8| {
        let Some(item) = section.get(key) else {
            return default.min(of_source);
        };
        let length = item.integer(sink, &bounds).map_or(default, |length| length as u8);
        if length > of_source {
            let message =
                format!("expected at most {of_source}, the source.{key}: a network holds whole sources");
            sink.bad(&item, message);
        }
        length
    };
    let ipv4_prefix = prefix(
        "ipv4_prefix",
        bounds::IPV4_PREFIX,
        bounds::DEFAULT_NETWORK_IPV4,
        source.ipv4_prefix,
    );
    let ipv6_prefix = prefix(
        "ipv6_prefix",
        bounds::IPV6_PREFIX,
        bounds::DEFAULT_NETWORK_IPV6,
        source.ipv6_prefix,
    );
    let limits = limits(section, Owner::Source, sink);
    if sink.errors.len() == before && is_empty(&limits) {
        sink.warn_section(section, "limits nothing: it has no packets, bytes or connections");
    }
    PerNetwork {
        ipv4_prefix,
        ipv6_prefix,
        limits,
    }
}

/// Reads a service's `total`.
pub(super) fn total(section: &Section<'_>, sink: &mut Sink<'_>) -> Total {
    let [packets, bytes, connections] = BUCKETS;
    section.check_keys(&[packets, bytes, connections, "reserve"], &[], sink);
    let reserve_ppm = section.get("reserve").and_then(|item| {
        let share = share(&item, sink)?;
        if share > bounds::MAX_RESERVE_PPM {
            sink.bad(
                &item,
                "must leave at least 10 % to sources that have proven nothing yet, or nobody new could come in",
            );
            return None;
        }
        Some(share)
    });
    Total {
        limits: limits_or_warning(section, sink),
        reserve_ppm,
    }
}

/// Reads a class's `total`.
pub(super) fn class_total(section: &Section<'_>, sink: &mut Sink<'_>) -> Limits {
    section.check_keys(&BUCKETS, &[("reserve", "a reserve of a class")], sink);
    limits_or_warning(section, sink)
}

fn limits_or_warning(section: &Section<'_>, sink: &mut Sink<'_>) -> Limits {
    let before = sink.errors.len();
    let limits = limits(section, Owner::Everybody, sink);
    if sink.errors.len() == before && is_empty(&limits) {
        sink.warn_section(section, "limits nothing: it has no packets, bytes or connections");
    }
    limits
}

/// Reads a share of 0 to 100 %, in millionths.
pub(super) fn share(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<u32> {
    let text = item.string(sink, "a share such as \"20%\"")?;
    units::parse_share(text)
        .map_err(|error| sink.bad(item, error.to_string()))
        .ok()
}

/// Whether none of the three buckets is there.
pub(super) fn is_empty(limits: &Limits) -> bool {
    limits.packets.is_none() && limits.bytes.is_none() && limits.connections.is_none()
}

fn limits(section: &Section<'_>, owner: Owner, sink: &mut Sink<'_>) -> Limits {
    let mut read = |key| section.get(key).and_then(|item| limit(&item, key, owner, sink));
    let [packets, bytes, connections] = BUCKETS;
    Limits {
        packets: read(packets),
        bytes: read(bytes),
        connections: read(connections),
    }
}

fn limit(item: &Item<'_>, kind: &str, owner: Owner, sink: &mut Sink<'_>) -> Option<Limit> {
    let section = item.table(sink, "a table { rate = …, burst = … }")?;
    section.check_keys(&["rate", "burst"], &[], sink);
    let in_bytes = kind == "bytes";
    let rates = if in_bytes {
        bounds::BYTE_RATE
    } else {
        bounds::COUNT_RATE
    };
    let bursts = match (in_bytes, owner) {
        (true, Owner::Source) => bounds::BYTE_BURST,
        (true, Owner::Everybody) => bounds::BYTE_BURST_TOTAL,
        (false, Owner::Source) => bounds::COUNT_BURST,
        (false, Owner::Everybody) => bounds::COUNT_BURST_TOTAL,
    };
    // Byte bounds carry their unit: "1kB to 50GB".
    let unit = if in_bytes {
        String::new()
    } else {
        format!(" {kind}")
    };
    let rate = section.require("rate", sink, &format!("a rate in {kind} a second"));
    let rate = rate.and_then(|item| amount(&item, in_bytes, &rates, &format!("{unit} a second"), sink));
    let burst = match section.get("burst") {
        Some(item) => amount(&item, in_bytes, &bursts, &unit, sink),
        // One second's worth.
        None => rate.map(|rate| rate.clamp(*bursts.start(), *bursts.end())),
    };
    Some(Limit {
        rate: rate?,
        burst: burst?,
    })
}

/// Reads an integer or a string with a suffix, within bounds.
fn amount(
    item: &Item<'_>,
    in_bytes: bool,
    bounds: &RangeInclusive<u64>,
    what: &str,
    sink: &mut Sink<'_>,
) -> Option<u64> {
    let (parse, format): (Parse, fn(u64) -> String) = if in_bytes {
        (units::parse_bytes, units::format_bytes)
    } else {
        (units::parse_count, units::format_count)
    };
    let range = format!("{} to {}{what}", format(*bounds.start()), format(*bounds.end()));
    if item.value.is_integer() {
        let amount = item
            .any_integer()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| bounds.contains(n));
        if amount.is_none() {
            sink.bad(item, format!("expected {range}"));
        }
        return amount;
    }
    let example = if in_bytes {
        "an integer or a string such as \"5MB\""
    } else {
        "an integer or a string such as \"20k\""
    };
    item.quantity(sink, parse, example, bounds, &range)
}

fn block(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<Block> {
    let section = item.table(sink, "a table { for = \"30s\", drops = 1000, within = \"10s\" }")?;
    section.check_keys(&["for", "drops", "within"], &[], sink);
    let mut seconds = |key, bounds: RangeInclusive<u64>| {
        let item = section.require(key, sink, "a duration such as \"30s\"")?;
        let (least, most) = (
            units::format_seconds(*bounds.start()),
            units::format_seconds(*bounds.end()),
        );
        let range = format!("a duration from {least:?} to {most:?}");
        item.quantity(
            sink,
            units::parse_seconds,
            "a duration such as \"30s\"",
            &bounds,
            &range,
        )
    };
    let for_seconds = seconds("for", bounds::BLOCK_FOR);
    let within_seconds = seconds("within", bounds::BLOCK_WITHIN);
    let drops = section.require("drops", sink, "a number of drops");
    let drops = drops.and_then(|item| item.integer(sink, &bounds::BLOCK_DROPS));
    Some(Block {
        for_seconds: for_seconds?,
        drops: drops? as u32,
        within_seconds: within_seconds?,
    })
}
