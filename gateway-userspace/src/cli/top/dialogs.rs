//! What is asked, and what is shown above everything else.

use ratatui::{
    layout::Rect,
    style::Style,
    symbols::border,
    widgets::{Block, Clear, Widget as _},
};
use weir::{
    api::{
        traffic::Estimate,
        types::{Ban, ServiceStatus},
    },
    detect::figure,
};

use super::{
    draw::Painter,
    rows::{flow_key, listing},
    state::{Dialog, Pane, Stage, State, TIMES},
    text::{columns, short, wrap},
};
use crate::cli::table::{bit_rate, bytes, grouped, span};

/// The border where only ASCII can be shown.
const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const HELP: &[&str] = &[
    "1-7, Tab     what the middle shows",
    "n            networks, and back",
    "arrows       choose a row; PgUp, PgDn, Home, End",
    "Enter        all about it",
    "b            ban it (asks first)",
    "u            take its ban back (asks first)",
    "s, r         next column to sort by; reverse",
    "/            only rows with a text or in a prefix",
    "space        let the rates stand still",
    "q, Esc, ^C   quit;  ^Z to the shell",
    "LEFT         in the emptiest of its buckets",
    "±            one standard error of an estimate",
];

/// Draws a dialog in the middle of the screen.
pub(super) fn draw(painter: &mut Painter<'_>, screen: Rect, dialog: &Dialog, state: &State) {
    let theme = painter.theme;
    let plain = Style::new();
    let line = |text: String| (text, plain);
    let (title, lines, scroll): (&str, Vec<(String, Style)>, usize) = match dialog {
        Dialog::Help => (
            "keys",
            HELP.iter().map(|text| line((*text).to_owned())).collect(),
            0,
        ),
        Dialog::Details { key, scroll } => {
            let lines = details(state, key);
            ("details", lines.into_iter().map(line).collect(), *scroll)
        }
        Dialog::Ban {
            prefix,
            service,
            only_service,
            time,
            warnings,
            stage,
        } => {
            let whom = match service {
                Some(service) if *only_service => format!("only from service {service}"),
                _ => "from all services".to_owned(),
            };
            let mut lines = vec![
                (format!("Ban {prefix} {whom}?"), theme.heading()),
                line(String::new()),
            ];
            let times = TIMES.iter().enumerate().map(|(index, (_, name))| {
                if index == *time {
                    format!("[{name}]")
                } else {
                    format!(" {name} ")
                }
            });
            lines.push(line(format!("for {}", times.collect::<String>())));
            lines.extend(
                warnings
                    .iter()
                    .map(|why| (format!("warning: {why}"), theme.warn())),
            );
            lines.push(line(String::new()));
            let mut keys = "Enter bans   left/right how long".to_owned();
            if service.is_some() {
                keys.push_str("   Tab whom from");
            }
            lines.push(stage_line(stage, &format!("{keys}   Esc cancels"), painter));
            ("ban", lines, 0)
        }
        Dialog::Unban {
            ban,
            wider_than,
            stage,
        } => {
            let mut lines = vec![
                (
                    format!("Take the ban of {} back{}?", ban.prefix, of(ban)),
                    theme.heading(),
                ),
                line(String::new()),
                line(format!("{} left", left(ban))),
            ];
            lines.extend(ban.reason.iter().map(|why| line(format!("reason: {why}"))));
            if let Some(prefix) = wider_than {
                let text = format!("warning: it holds all of {}, not only {prefix}", ban.prefix);
                lines.push((text, theme.warn()));
            }
            lines.push(line(String::new()));
            lines.push(stage_line(stage, "Enter unbans   Esc cancels", painter));
            ("unban", lines, 0)
        }
    };
    boxed(painter, screen, title, &lines, scroll);
}

fn stage_line(stage: &Stage, keys: &str, painter: &Painter<'_>) -> (String, Style) {
    match stage {
        Stage::Asked => (keys.to_owned(), painter.theme.dim()),
        Stage::Sent => ("asking the controller".to_owned(), painter.theme.warn()),
        Stage::Refused(why) => (format!("refused: {why}"), painter.theme.bad()),
    }
}

fn boxed(painter: &mut Painter<'_>, screen: Rect, title: &str, lines: &[(String, Style)], scroll: usize) {
    let widest = lines.iter().map(|(text, _)| columns(text)).max().unwrap_or(0) as u16;
    let inner = widest.clamp(20, screen.width.saturating_sub(4).min(100));
    let mut wrapped: Vec<(String, Style)> = lines
        .iter()
        .flat_map(|(text, style)| {
            let clean = painter.theme.charset.clean(text);
            let lines = wrap(&clean, usize::from(inner));
            lines.into_iter().map(|line| (line, *style)).collect::<Vec<_>>()
        })
        .collect();
    let room = usize::from(screen.height.saturating_sub(2));
    let scroll = scroll.min(wrapped.len().saturating_sub(room));
    wrapped.drain(..scroll);
    let height = wrapped.len().min(room) as u16 + 2;
    let width = inner + 4;
    let area = Rect {
        x: screen.x + (screen.width - width) / 2,
        y: screen.y + (screen.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, painter.buffer);
    let set = if painter.theme.charset.unicode {
        border::PLAIN
    } else {
        ASCII_BORDER
    };
    Block::bordered()
        .border_set(set)
        .title(format!(" {title} "))
        .render(area, painter.buffer);
    let inside = Rect {
        x: area.x + 2,
        y: area.y + 1,
        width: inner,
        height: height - 2,
    };
    painter.lines(inside, &wrapped);
}

fn of(ban: &Ban) -> String {
    ban.service
        .as_ref()
        .map_or_else(String::new, |service| format!(" (service {service})"))
}

fn left(ban: &Ban) -> String {
    ban.seconds_left.map_or_else(|| "for ever".to_owned(), span)
}

fn details(state: &State, key: &str) -> Vec<String> {
    let found = match state.pane {
        Pane::Services => service(state, key),
        Pane::Sources => source(state.data.sources.as_ref(), state, key),
        Pane::Networks => source(state.data.networks.as_ref(), state, key),
        Pane::Flows => flow(state, key),
        Pane::Events => event(state, key),
        Pane::Drops | Pane::Bans => None,
    };
    found.or_else(|| row(state, key)).unwrap_or_else(|| {
        vec![
            key.to_owned(),
            String::new(),
            "is no longer among those that are shown".to_owned(),
        ]
    })
}

/// Heading and content of every column, for what has no more to tell.
fn row(state: &State, key: &str) -> Option<Vec<String>> {
    let listing = listing(state.pane, state);
    let row = listing.rows.iter().find(|row| row.key == key)?;
    let cells = listing.columns.iter().zip(&row.cells);
    Some(
        cells
            .map(|(column, cell)| format!("{:<9} {}", column.heading.to_lowercase(), cell.as_text()))
            .collect(),
    )
}

fn service(state: &State, key: &str) -> Option<Vec<String>> {
    let status = state.data.status.as_ref()?;
    let service = status.services.iter().find(|service| service.service == key)?;
    let rates = state
        .data
        .rates
        .now
        .iter()
        .find(|service| service.service == key)?;
    let mut lines = vec![key.to_owned(), String::new()];
    for (name, volume, rate) in [
        ("passed", service.pass, rates.pass),
        ("dropped", service.drop, rates.drop),
        ("would drop", service.would_drop, rates.would_drop),
    ] {
        lines.push(format!(
            "{name:<11} {:>7}/s   {} packets, {}",
            short(rate),
            grouped(volume.packets),
            bytes(volume.bytes)
        ));
    }
    lines.push(format!("received    {}", bit_rate(rates.bytes)));
    lines.extend(anomaly(state, key, service));
    if let Some(connections) = state.data.connections.get(key) {
        lines.push(format!("connections {:>7}/s", short(*connections)));
    }
    for (reason, rates) in &rates.reasons {
        lines.push(format!(
            "{reason}: {}/s dropped, {}/s would be, {} packets",
            short(rates.drop),
            short(rates.would_drop),
            grouped(rates.packets)
        ));
    }
    Some(lines)
}

/// What is said of a service's traffic, why, and who carries it.
fn anomaly(state: &State, key: &str, service: &ServiceStatus) -> Vec<String> {
    let told = state.data.anomalies.iter().find(|told| told.service == key);
    let Some(anomaly) = told.map(|told| &told.anomaly) else {
        let verdict = service.verdict.iter();
        return verdict.map(|verdict| format!("verdict     {verdict}")).collect();
    };
    let mut lines = vec![
        format!(
            "verdict     {} since {:.0}, score {}",
            anomaly.title(),
            anomaly.since,
            figure(anomaly.score)
        ),
        format!(
            "usually     {} packets/s, now {}",
            short(anomaly.expected_packets_per_second),
            short(anomaly.packets_per_second)
        ),
    ];
    lines.extend(anomaly.features.iter().map(|speaking| {
        format!(
            "{}: {} (usually {}), {:.0}% of the score",
            speaking.feature,
            figure(speaking.value),
            figure(speaking.expected),
            speaking.share * 100.0
        )
    }));
    lines.extend(anomaly.carriers.iter().map(|carrier| {
        format!(
            "carried by {}: {} packets/s, {:.0}%",
            carrier.prefix,
            short(carrier.packets_per_second),
            carrier.share * 100.0
        )
    }));
    lines
}

fn estimate_lines(estimate: &Estimate) -> Vec<String> {
    vec![
        format!(
            "packets     {}/s ± {:.0}%",
            short(estimate.packets_per_second),
            estimate.error * 100.0
        ),
        format!("bytes       {}", bit_rate(estimate.bytes_per_second)),
        format!("dropped     {}/s", short(estimate.dropped_per_second)),
        format!("connections {}/s", short(estimate.connections_per_second)),
    ]
}

fn source(
    answer: Option<&Result<weir::api::traffic::SourcesAnswer, String>>,
    state: &State,
    key: &str,
) -> Option<Vec<String>> {
    let answer = answer?.as_ref().ok()?;
    let source = answer
        .sources
        .iter()
        .find(|source| source.source.to_string() == key)?;
    let mut lines = vec![key.to_owned(), String::new()];
    lines.extend(estimate_lines(&source.estimate));
    lines.push(format!(
        "seen        {:.0} to {:.0}",
        source.first_seen, source.last_seen
    ));
    for (name, rate) in &source.services {
        lines.push(format!("to {name}: {} packets/s", short(*rate)));
    }
    for (reason, rate) in &source.reasons {
        lines.push(format!("dropped by {reason}: {} packets/s", short(*rate)));
    }
    for bucket in &source.buckets {
        lines.push(format!(
            "bucket {} {}: {} of {} left",
            bucket.tier,
            bucket.kind,
            grouped(bucket.left),
            grouped(bucket.burst)
        ));
    }
    for ban in state.bans_over(&source.source) {
        lines.push(format!("banned by {}{}, {}", ban.prefix, of(ban), left(ban)));
    }
    Some(lines)
}

fn flow(state: &State, key: &str) -> Option<Vec<String>> {
    let flows = &state.data.flows.as_ref()?.as_ref().ok()?.flows;
    let flow = flows.iter().find(|flow| flow_key(flow) == key)?;
    let mut lines = vec![
        key.to_owned(),
        String::new(),
        format!("service     {}", flow.service),
    ];
    lines.extend(estimate_lines(&flow.estimate));
    lines.push(format!(
        "in all      {} packets, {} (from {} samples)",
        grouped(flow.packets),
        bytes(flow.bytes),
        grouped(flow.samples)
    ));
    if !flow.tcp_flags.is_empty() {
        lines.push(format!("tcp flags   {}", flow.tcp_flags));
    }
    lines.push(format!("verdict     {} ({})", flow.verdict, flow.reason));
    lines.push(format!(
        "seen        {:.0} to {:.0}",
        flow.first_seen, flow.last_seen
    ));
    Some(lines)
}

fn event(state: &State, key: &str) -> Option<Vec<String>> {
    let event = state
        .data
        .events
        .iter()
        .find(|event| event.number.to_string() == key)?;
    let entry = &event.entry;
    let mut lines = vec![
        format!("{:.0}  {}", event.at, entry.kind.name()),
        String::new(),
        entry.what.clone(),
    ];
    lines.extend(entry.why.iter().map(|why| format!("why: {why}")));
    lines.extend(entry.until.iter().map(|until| format!("until {until:.0}")));
    lines.push(match &entry.by {
        weir::events::Actor::User { uid, command, .. } => {
            let command = command.as_deref().unwrap_or("a program without a name");
            format!("by uid {uid} with {command}")
        }
        weir::events::Actor::Kernel => "by the kernel".to_owned(),
        weir::events::Actor::Controller => "by the controller".to_owned(),
    });
    Some(lines)
}
