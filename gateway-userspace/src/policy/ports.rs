//! Reading ports and port ranges.

use super::{
    bounds,
    model::PortRange,
    walk::{Section, Sink},
};

const EXPECTED: &str = "a port from 1 to 65535 or a range such as \"8000-8080\"";

/// Reads an array of ports and ranges under a key; sorted, and merged where they overlap or touch.
pub(super) fn ports(section: &Section<'_>, key: &str, sink: &mut Sink<'_>) -> Vec<PortRange> {
    let items = section.array(key, sink, "an array of ports, such as [80, 443, \"8000-8080\"]");
    let mut ranges = Vec::with_capacity(items.len());
    for item in &items {
        let range = match item.value.as_str() {
            Some(text) => range(text),
            None => item.any_integer().and_then(port).map(|port| PortRange {
                first: port,
                last: port,
            }),
        };
        match range {
            Some(range) if range.first <= range.last => ranges.push(range),
            Some(range) => {
                let (first, last) = (range.first, range.last);
                sink.bad(
                    item,
                    format!("expected a range that begins with its lower port: \"{last}-{first}\""),
                );
            }
            None => sink.bad(item, format!("expected {EXPECTED}")),
        }
    }
    let ranges = merge(ranges);
    if ranges.len() > bounds::MAX_PORT_RANGES
        && let Some(item) = section.get(key)
    {
        let (found, most) = (ranges.len(), bounds::MAX_PORT_RANGES);
        sink.bad(
            &item,
            format!("expected at most {most} separate port ranges, not {found}"),
        );
    }
    ranges
}

fn port(number: i128) -> Option<u16> {
    u16::try_from(number)
        .ok()
        .filter(|&port| bounds::PORTS.contains(&u64::from(port)))
}

fn range(text: &str) -> Option<PortRange> {
    let number = |text: &str| {
        let digits = text.trim();
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok().and_then(port))?
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(PortRange {
        first: number(first)?,
        last: number(last)?,
    })
}

fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_merge_where_they_overlap_or_touch() {
        let range = |first, last| PortRange { first, last };
        let merged = merge(vec![
            range(443, 443),
            range(80, 90),
            range(85, 100),
            range(101, 101),
            range(65535, 65535),
        ]);
        assert_eq!(merged, [range(80, 101), range(443, 443), range(65535, 65535)]);
    }

    #[test]
    fn texts_of_ranges() {
        assert_eq!(
            range("8000-8080"),
            Some(PortRange {
                first: 8000,
                last: 8080
            })
        );
        assert_eq!(
            range("443"),
            Some(PortRange {
                first: 443,
                last: 443
            })
        );
        for text in ["", "-", "0", "1-65536", "a-b", "1-2-3", "+1-2", "80-"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_ports(pairs in prop::collection::vec((1_u16..200, 0_u16..20), 0..20)) {
            let ranges: Vec<_> = pairs.iter().map(|&(first, more)| PortRange { first, last: first + more }).collect();
            let merged = merge(ranges.clone());
            let holds = |set: &[PortRange], port| set.iter().any(|r| r.first <= port && port <= r.last);
            for port in 0..230 {
                prop_assert_eq!(holds(&ranges, port), holds(&merged, port));
            }
            prop_assert!(merged.windows(2).all(|w| w[0].last + 1 < w[1].first));
        }
    }
}
