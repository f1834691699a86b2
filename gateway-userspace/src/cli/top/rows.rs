//! The rows of each pane: filtered, sorted, and the same for the keys as for the screen.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weir::{
    api::{
        traffic::{Flow, SourceUse, SourcesAnswer},
        types::Ban,
    },
    events::Event,
    policy::{model::Mode, prefix::parse_prefix},
};

use super::{
    columns::{Column, columns},
    rates::{ReasonRates, ServiceRates},
    state::{Pane, State},
    text::short,
};
use crate::cli::table::{bit_rate, bytes, grouped, span};

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Words, sorted by themselves.
    Text(String),
    /// Words, sorted by a number, the largest first.
    Number(String, f64),
    /// Rates over time.
    Trend(Vec<f64>),
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn short(number: f64) -> Self {
        Self::Number(short(number), number)
    }

    fn bits(bytes_per_second: f64) -> Self {
        Self::Number(bit_rate(bytes_per_second), bytes_per_second)
    }

    /// What stands in it; nothing for a trend.
    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text, _) => text,
            Self::Trend(_) => "",
        }
    }
}

/// What a row tells at a glance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mark {
    /// Nothing special.
    Plain,
    /// Some of it is refused, or would be.
    Refused,
    /// It is banned.
    Banned,
    /// Its traffic is unusual.
    Unusual,
    /// It is under attack.
    Attacked,
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What it is about, whatever its place.
    pub(super) key: String,
    /// A cell a column.
    pub(super) cells: Vec<Cell>,
    /// What it tells at a glance.
    pub(super) mark: Mark,
    /// What can be banned, or is.
    pub(super) prefix: Option<IpNet>,
    /// The service it is mostly about.
    pub(super) service: Option<String>,
}

/// A pane's table.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Its columns.
    pub(super) columns: &'static [Column],
    /// Its rows, in order.
    pub(super) rows: Vec<Row>,
    /// Why there are none.
    pub(super) empty: String,
    /// The column it is sorted by.
    pub(super) sorted_by: usize,
}

/// The table of a pane.
pub(super) fn listing(pane: Pane, state: &State) -> Listing {
    let (columns, standard) = columns(pane, state);
    let (mut rows, empty) = rows(pane, state);
    let any = !rows.is_empty();
    let filter = Filter::new(&state.filter);
    rows.retain(|row| filter.keeps(row));
    let (sorted_by, reversed) = match state.sort.get(&pane) {
        Some((column, reversed)) => (Some(*column), *reversed),
        None => (standard, false),
    };
    if let Some(column) = sorted_by {
        sort(&mut rows, column, reversed);
    }
    Listing {
        columns,
        rows,
        empty: if any {
            format!(
                "nothing here has \"{}\" in it (/ changes the filter)",
                state.filter
            )
        } else {
            empty
        },
        sorted_by: sorted_by.unwrap_or(usize::MAX),
    }
}

/// Numbers from the largest, words from A; equals stay in the order in which they are.
fn sort(rows: &mut [Row], column: usize, reversed: bool) {
    rows.sort_by(|a, b| {
        let order = match (a.cells.get(column), b.cells.get(column)) {
            (Some(Cell::Number(_, x)), Some(Cell::Number(_, y))) => y.total_cmp(x),
            (Some(x), Some(y)) => x.as_text().cmp(y.as_text()),
            _ => std::cmp::Ordering::Equal,
        };
        if reversed { order.reverse() } else { order }
    });
}

/// What is looked for.
enum Filter {
    Everything,
    Text(String),
    Within(IpNet, String),
}

impl Filter {
    fn new(text: &str) -> Self {
        match (text.trim(), parse_prefix(text.trim())) {
            ("", _) => Self::Everything,
            (text, Ok(prefix)) => Self::Within(prefix, text.to_lowercase()),
            (text, Err(_)) => Self::Text(text.to_lowercase()),
        }
    }

    fn keeps(&self, row: &Row) -> bool {
        let has = |text: &str| {
            row.cells
                .iter()
                .map(Cell::as_text)
                .chain(row.service.as_deref())
                .any(|cell| cell.to_lowercase().contains(text))
        };
        match self {
            Self::Everything => true,
            Self::Text(text) => has(text),
            Self::Within(prefix, text) => {
                let related = |own: &IpNet| prefix.contains(own) || own.contains(prefix);
                row.prefix.as_ref().is_some_and(related) || has(text)
            }
        }
    }
}

fn rows(pane: Pane, state: &State) -> (Vec<Row>, String) {
    let data = &state.data;
    match pane {
        Pane::Services => {
            let of_service =
                |service: &&ServiceRates| state.service.as_ref().is_none_or(|only| *only == service.service);
            let services = data.rates.now.iter().filter(of_service);
            let rows = services.map(|service| service_row(service, state)).collect();
            let empty = match (&state.service, &data.status) {
                (Some(service), Some(_)) => format!("the policy in force has no service {service}"),
                _ => waiting(state),
            };
            (rows, empty)
        }
        Pane::Sources => sources(data.sources.as_ref(), state),
        Pane::Networks => sources(data.networks.as_ref(), state),
        Pane::Flows => match &data.flows {
            None => (Vec::new(), waiting(state)),
            Some(Err(why)) => (Vec::new(), why.clone()),
            Some(Ok(answer)) => (
                by_key(answer.flows.iter().map(flow_row).collect()),
                nothing_sampled(answer.one_in, "flow"),
            ),
        },
        Pane::Drops => {
            let services = data.rates.now.iter();
            let services =
                services.filter(|service| state.service.as_ref().is_none_or(|only| *only == service.service));
            let mut drops: Vec<(&str, &str, &ReasonRates)> = services
                .flat_map(|service| {
                    let reasons = service.reasons.iter();
                    reasons.map(|(reason, rates)| (service.service.as_str(), reason.as_str(), rates))
                })
                .collect();
            drops.sort_by(|(.., a), (.., b)| {
                let now = |rates: &ReasonRates| rates.drop + rates.would_drop;
                now(b).total_cmp(&now(a)).then(b.packets.cmp(&a.packets))
            });
            let rows = drops
                .into_iter()
                .map(|(service, reason, rates)| drop_row(service, reason, rates));
            let empty = if data.status.is_some() {
                "nothing was dropped, and nothing would have been".to_owned()
            } else {
                waiting(state)
            };
            (rows.collect(), empty)
        }
        Pane::Events => (
            data.events.iter().rev().map(event_row).collect(),
            if data.status.is_some() {
                "no events yet".to_owned()
            } else {
                waiting(state)
            },
        ),
        Pane::Bans => match &data.bans {
            None => (Vec::new(), waiting(state)),
            Some(Err(why)) => (Vec::new(), why.clone()),
            Some(Ok(bans)) => (bans.iter().map(ban_row).collect(), "nobody is banned".to_owned()),
        },
    }
}

/// In an order of their own, so that equals do not dance.
fn by_key(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

/// Why there is no answer yet.
fn waiting(state: &State) -> String {
    match (&state.data.trouble, state.paused) {
        (Some(trouble), _) => trouble.clone(),
        (None, true) => "paused (space goes on)".to_owned(),
        (None, false) => "waiting for the controller".to_owned(),
    }
}

fn nothing_sampled(one_in: u32, what: &str) -> String {
    if one_in == 0 {
        format!("no {what} is known: sampling is off ([sampling] one_in = 0 in the policy)")
    } else {
        format!("no {what} was sampled lately (one packet in {one_in} is)")
    }
}

fn service_row(service: &ServiceRates, state: &State) -> Row {
    let connections = state.data.connections.get(&service.service);
    let trend = state.data.rates.trends.get(&service.service);
    let (verdict, kind) = &service.verdict;
    let verdict = verdict.as_deref();
    Row {
        key: service.service.clone(),
        cells: vec![
            Cell::text(&service.service),
            Cell::text(kind.as_deref().or(verdict).unwrap_or("-")),
            Cell::text(match service.mode {
                Mode::Enforce => "enforce",
                Mode::Monitor => "monitor",
            }),
            Cell::short(service.pass),
            Cell::short(service.drop),
            Cell::short(service.would_drop),
            Cell::bits(service.bytes),
            connections.map_or_else(|| Cell::Number("-".into(), 0.0), |rate| Cell::short(*rate)),
            Cell::Trend(trend.into_iter().flatten().copied().collect()),
        ],
        mark: match verdict {
            Some("attack") => Mark::Attacked,
            Some("crowd" | "stealth") => Mark::Unusual,
            _ if service.drop + service.would_drop > 0.0 => Mark::Refused,
            _ => Mark::Plain,
        },
        prefix: None,
        service: Some(service.service.clone()),
    }
}

fn sources(answer: Option<&Result<SourcesAnswer, String>>, state: &State) -> (Vec<Row>, String) {
    match answer {
        None => (Vec::new(), waiting(state)),
        Some(Err(why)) => (Vec::new(), why.clone()),
        Some(Ok(answer)) => (
            by_key(answer.sources.iter().map(source_row).collect()),
            nothing_sampled(answer.one_in, "source"),
        ),
    }
}

fn source_row(source: &SourceUse) -> Row {
    let estimate = &source.estimate;
    let busiest = source.services.iter().max_by(|(_, x), (_, y)| x.total_cmp(y));
    let busiest = busiest.map(|(name, _)| name.clone());
    // The emptiest bucket is the one that will refuse.
    let left = source
        .buckets
        .iter()
        .filter(|bucket| bucket.burst > 0)
        .map(|bucket| bucket.left as f64 / bucket.burst as f64 * 100.0)
        .min_by(f64::total_cmp);
    Row {
        key: source.source.to_string(),
        cells: vec![
            Cell::text(source.source.to_string()),
            Cell::short(estimate.packets_per_second),
            percent(estimate.error * 100.0),
            Cell::bits(estimate.bytes_per_second),
            Cell::short(estimate.dropped_per_second),
            Cell::short(estimate.connections_per_second),
            // Sorted so that the emptiest come first.
            left.map_or_else(
                || Cell::Number("-".into(), f64::NEG_INFINITY),
                |left| Cell::Number(format!("{left:.0}%"), -left),
            ),
            Cell::text(if source.banned { "ban" } else { "" }),
            Cell::text(busiest.clone().unwrap_or_default()),
        ],
        mark: match (source.banned, estimate.dropped_per_second > 0.0) {
            (true, _) => Mark::Banned,
            (false, true) => Mark::Refused,
            (false, false) => Mark::Plain,
        },
        prefix: Some(source.source),
        service: busiest,
    }
}

fn percent(percent: f64) -> Cell {
    let text = if percent < 999.5 {
        format!("{percent:.0}%")
    } else {
        ">999".to_owned()
    };
    Cell::Number(text, percent)
}

/// One end of a flow.
fn end(address: IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        port => SocketAddr::from((address, port)).to_string(),
    }
}

/// What tells a flow from the others.
pub(super) fn flow_key(flow: &Flow) -> String {
    format!(
        "{} {} {}",
        flow.protocol,
        end(flow.source, flow.source_port),
        end(flow.destination, flow.destination_port)
    )
}

fn flow_row(flow: &Flow) -> Row {
    let estimate = &flow.estimate;
    let verdict = if flow.reason == flow.verdict {
        flow.verdict.clone()
    } else {
        format!("{} {}", flow.verdict, flow.reason)
    };
    Row {
        key: flow_key(flow),
        cells: vec![
            Cell::text(&flow.protocol),
            Cell::text(end(flow.source, flow.source_port)),
            Cell::text(end(flow.destination, flow.destination_port)),
            Cell::short(estimate.packets_per_second),
            Cell::bits(estimate.bytes_per_second),
            Cell::short(estimate.dropped_per_second),
            Cell::text(verdict),
        ],
        mark: if estimate.dropped_per_second > 0.0 {
            Mark::Refused
        } else {
            Mark::Plain
        },
        prefix: Some(IpNet::from(flow.source)),
        service: Some(flow.service.clone()),
    }
}

fn drop_row(service: &str, reason: &str, rates: &ReasonRates) -> Row {
    Row {
        key: format!("{service} {reason}"),
        cells: vec![
            Cell::text(service),
            Cell::text(reason),
            Cell::short(rates.drop),
            Cell::short(rates.would_drop),
            Cell::Number(grouped(rates.packets), rates.packets as f64),
            Cell::Number(bytes(rates.bytes), rates.bytes as f64),
        ],
        mark: if rates.drop + rates.would_drop > 0.0 {
            Mark::Refused
        } else {
            Mark::Plain
        },
        prefix: None,
        service: Some(service.to_owned()),
    }
}

fn event_row(event: &Event) -> Row {
    let entry = &event.entry;
    let what = match &entry.why {
        Some(why) => format!("{}: {why}", entry.what),
        None => entry.what.clone(),
    };
    // `2026-11-27T08:59:00Z`: the day stands in the details.
    let at = format!("{:.0}", event.at);
    let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time);
    Row {
        key: event.number.to_string(),
        cells: vec![
            Cell::text(time.trim_end_matches('Z')),
            Cell::text(entry.kind.name()),
            Cell::text(what),
        ],
        mark: match entry.kind {
            weir::events::Kind::Fault | weir::events::Kind::PolicyRefused | weir::events::Kind::LockOut => {
                Mark::Refused
            }
            weir::events::Kind::AnomalyBegan => match &entry.anomaly {
                Some(anomaly) if anomaly.verdict == "attack" => Mark::Attacked,
                _ => Mark::Unusual,
            },
            _ => Mark::Plain,
        },
        prefix: entry.prefix,
        service: entry.service.clone(),
    }
}

/// What tells a ban from the others.
pub(super) fn ban_key(ban: &Ban) -> String {
    format!("{} {}", ban.prefix, ban.service.as_deref().unwrap_or_default())
}

fn ban_row(ban: &Ban) -> Row {
    Row {
        key: ban_key(ban),
        cells: vec![
            Cell::text(ban.prefix.to_string()),
            Cell::text(ban.service.as_deref().unwrap_or("all")),
            ban.seconds_left.map_or_else(
                || Cell::Number("for ever".to_owned(), f64::INFINITY),
                |left| Cell::Number(span(left), left as f64),
            ),
            Cell::text(ban.reason.clone().unwrap_or_default()),
        ],
        mark: Mark::Banned,
        prefix: Some(ban.prefix),
        service: ban.service.clone(),
    }
}
