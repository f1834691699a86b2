//! A replay's report as tables.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};
use weir::{
    api::types::Volume,
    policy::model::Mode,
    replay::report::{Against, PolicyUsed, Report, Said, ServiceReplayed, Verdicts},
};

use super::{
    super::table::{Align, Table, bytes, counted, grouped, span},
    detect,
};

/// The whole report, with at most so many kinds of difference.
pub(super) fn text(report: &Report, limit: usize) -> String {
    let detected = report.detection.as_ref();
    // What the detectors said stands above.
    let said = detected.is_some_and(|of| !of.changes.is_empty());
    let mut text = if said { "\n".to_owned() } else { String::new() };
    text.push_str(&heading(report));
    let _ = write!(text, "\n{}", services(&report.services));
    let drops = drops(&report.services);
    if !drops.is_empty() {
        let _ = write!(text, "\n{drops}");
    }
    if report.intervals.len() > 1 {
        let _ = write!(text, "\n{}", over_time(report));
    }
    if !report.sources.is_empty() {
        let _ = write!(text, "\n{}", sources(report));
        if report.sources_error > 0 {
            let lacking = counted(report.sources_error, "packet", "packets");
            let _ = writeln!(
                text,
                "there were more sources than counters; each figure may lack up to {lacking}"
            );
        }
    }
    if let Some(against) = &report.against {
        let _ = write!(text, "\n{}", differences(report, against, limit));
    }
    if let Some(detected) = detected {
        let _ = write!(text, "\n{}", detect::seconds(detected));
    }
    if !report.notes.is_empty() {
        text.push('\n');
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn named(policy: &PolicyUsed) -> String {
    let mode = match policy.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    };
    format!("{} ({mode})", policy.path)
}

fn heading(report: &Report) -> String {
    let mut text = format!("{} on {}\n", named(&report.policy), report.captures.join(", "));
    let _ = write!(text, "{}", counted(report.packets, "packet", "packets"));
    if let (Some(from), Some(to)) = (report.from, report.to) {
        let time = if report.seconds < 60.0 {
            format!("{:.3} s", report.seconds)
        } else {
            span(report.seconds.round() as u64)
        };
        let _ = write!(text, " from {} to {} ({time})", second(from), second(to));
    }
    text.push('\n');
    for (what, volume) in [
        ("left the host", report.left),
        ("were cut off within their headers", report.headers_cut),
    ] {
        if volume.packets > 0 {
            let _ = writeln!(text, "{} {what}, not judged", grouped(volume.packets));
        }
    }
    if report.blocks > 0 {
        let _ = writeln!(text, "{} began", counted(report.blocks, "block", "blocks"));
    }
    text.push('\n');
    let mut table = Table::new(&[
        ("VERDICT", Align::Left),
        ("PACKETS", Align::Right),
        ("SHARE", Align::Right),
        ("BYTES", Align::Right),
        ("SHARE", Align::Right),
    ]);
    let all = &report.verdicts;
    for (name, volume) in verdicts(all) {
        if name != "would_drop" || volume.packets > 0 {
            table.row([
                name.to_owned(),
                grouped(volume.packets),
                share(volume.packets, all.packets()),
                bytes(volume.bytes),
                share(volume.bytes, all.bytes()),
            ]);
        }
    }
    let _ = write!(text, "{table}");
    text
}

fn verdicts(of: &Verdicts) -> [(&'static str, Volume); 3] {
    [
        ("pass", of.pass),
        ("drop", of.drop),
        ("would_drop", of.would_drop),
    ]
}

/// A share in per cent.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 / whole as f64 * 100.0)
}

/// A moment to the second.
fn second(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

fn services(services: &[ServiceReplayed]) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("CLASS", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("PASSED", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
    ]);
    for of in services {
        table.row([
            of.service.clone(),
            dash(&of.class),
            grouped(of.verdicts.packets()),
            bytes(of.verdicts.bytes()),
            grouped(of.verdicts.pass.packets),
            grouped(of.verdicts.drop.packets),
            grouped(of.verdicts.would_drop.packets),
        ]);
    }
    table.without("CLASS", "-").without("WOULD DROP", "0")
}

fn drops(services: &[ServiceReplayed]) -> Table {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("CLASS", Align::Left),
        ("VERDICT", Align::Left),
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    for of in services {
        for count in of.reasons.iter().filter(|count| count.verdict != "pass") {
            table.row([
                of.service.clone(),
                dash(&of.class),
                count.verdict.to_owned(),
                count.reason.to_owned(),
                grouped(count.volume.packets),
                bytes(count.volume.bytes),
            ]);
        }
    }
    table.without("CLASS", "-")
}

/// The intervals: packets by verdict, and what most of the drops are for.
fn over_time(report: &Report) -> String {
    let mut table = Table::new(&[
        ("FROM", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("PASSED", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
        ("MOST DROPPED AT", Align::Left),
        ("MOST FOR", Align::Left),
    ]);
    let one_day = report.seconds < 86_400.0;
    for interval in &report.intervals {
        let of = &interval.verdicts;
        let refused = |verdicts: &Verdicts| verdicts.drop.packets + verdicts.would_drop.packets;
        let service = interval
            .services
            .iter()
            .max_by_key(|(_, verdicts)| refused(verdicts));
        let service = service.filter(|(_, verdicts)| refused(verdicts) > 0);
        let reason = interval.reasons.iter().max_by_key(|count| count.volume.packets);
        table.row([
            beginning(interval.from, report.interval_seconds, one_day),
            grouped(of.packets()),
            bytes(of.bytes()),
            grouped(of.pass.packets),
            grouped(of.drop.packets),
            grouped(of.would_drop.packets),
            service.map_or_else(String::new, |(name, _)| name.clone()),
            reason.map_or_else(String::new, |count| count.reason.to_owned()),
        ]);
    }
    let table = table
        .without("WOULD DROP", "0")
        .without("MOST DROPPED AT", "")
        .without("MOST FOR", "");
    format!(
        "{table}intervals of {}, UTC\n",
        interval_length(report.interval_seconds)
    )
}

/// When an interval begins, as exactly as its length asks for; without the date where the heading has it.
fn beginning(moment: Timestamp, interval_seconds: f64, one_day: bool) -> String {
    let time = moment.to_zoned(TimeZone::UTC);
    let format = if interval_seconds < 1.0 {
        "%H:%M:%S%.3f"
    } else if one_day {
        "%H:%M:%S"
    } else if interval_seconds < 86_400.0 {
        "%m-%d %H:%M:%S"
    } else {
        "%Y-%m-%d"
    };
    time.strftime(format).to_string()
}

fn interval_length(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        span(seconds.round() as u64)
    }
}

fn sources(report: &Report) -> Table {
    let mut table = Table::new(&[
        ("SOURCE", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("PASSED", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
        ("MOST FOR", Align::Left),
    ]);
    for of in &report.sources {
        let reason = of.reasons.iter().max_by_key(|(_, packets)| **packets);
        table.row([
            of.source.to_string(),
            grouped(of.verdicts.packets()),
            bytes(of.verdicts.bytes()),
            grouped(of.verdicts.pass.packets),
            grouped(of.verdicts.drop.packets),
            grouped(of.verdicts.would_drop.packets),
            reason.map_or_else(String::new, |(reason, _)| (*reason).to_owned()),
        ]);
    }
    table.without("WOULD DROP", "0").without("MOST FOR", "")
}

fn differences(report: &Report, against: &Against, limit: usize) -> String {
    let all = report.verdicts.packets();
    let different = all - against.same.packets;
    let mut text = format!(
        "against {}: {} of {} judged differently ({})\n",
        named(&against.policy),
        grouped(different),
        counted(all, "packet", "packets"),
        share(different, all)
    );
    let mut table = Table::new(&[
        ("VERDICT", Align::Left),
        ("PACKETS", Align::Right),
        ("AGAINST", Align::Right),
        ("DIFFERENCE", Align::Right),
    ]);
    for ((name, ours), (_, theirs)) in verdicts(&report.verdicts)
        .into_iter()
        .zip(verdicts(&against.verdicts))
    {
        if ours.packets + theirs.packets > 0 {
            let sign = if ours.packets < theirs.packets { "-" } else { "+" };
            table.row([
                name.to_owned(),
                grouped(ours.packets),
                grouped(theirs.packets),
                format!("{sign}{}", grouped(ours.packets.abs_diff(theirs.packets))),
            ]);
        }
    }
    let _ = write!(text, "\n{table}");
    if different == 0 {
        return text;
    }
    let said = |said: &Said| format!("{} {}", said.verdict, said.reason);
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("CLASS", Align::Left),
        ("THIS POLICY", Align::Left),
        ("AGAINST", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    let both = |this: &str, other: &str| {
        if this == other {
            dash(this)
        } else {
            format!("{} / {}", dash(this), dash(other))
        }
    };
    for difference in against.differences.iter().take(limit) {
        let (this, other) = (&difference.policy, &difference.against);
        table.row([
            both(&this.service, &other.service),
            both(&this.class, &other.class),
            said(this),
            said(other),
            grouped(difference.volume.packets),
            bytes(difference.volume.bytes),
        ]);
    }
    let _ = write!(text, "\n{}", table.without("CLASS", "-"));
    let rest: u64 = against
        .differences
        .iter()
        .skip(limit)
        .map(|of| of.volume.packets)
        .sum();
    let rest = rest + against.other_differences.packets;
    if rest > 0 {
        let _ = writeln!(
            text,
            "and {} more; --limit shows more kinds",
            counted(rest, "packet", "packets")
        );
    }
    if !against.sources.is_empty() {
        let mut table = Table::new(&[
            ("SOURCE", Align::Left),
            ("DIFFERENT", Align::Right),
            ("CHANGES", Align::Left),
        ]);
        for source in &against.sources {
            let changes = source
                .changes
                .iter()
                .map(|(change, packets)| format!("{} {change}", grouped(*packets)));
            table.row([
                source.source.to_string(),
                grouped(source.packets),
                changes.collect::<Vec<_>>().join(", "),
            ]);
        }
        let _ = write!(text, "\n{table}");
    }
    text
}
