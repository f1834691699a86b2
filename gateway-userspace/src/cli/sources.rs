//! `weir sources`.

use std::process::ExitCode;

use ipnet::IpNet;
use weir::{
    api::traffic::{Estimate, SourceUse, SourcesAnswer},
    kernel::BucketLeft,
    traffic::By,
};

use super::{
    Context, args,
    output::Failure,
    table::{Align, Table, bit_rate, rate},
};

/// Show who sends the most, and what is left in their buckets
///
/// Estimated from samples of the last ten seconds. ± is the standard error of the packets: in two of three cases the truth is
/// nearer than that, in 99 of 100 nearer than three times that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir sources                           the twenty that send most packets
  weir sources --by dropped --limit 50   whom the policy stops most
  weir sources --service shop --by connections
  weir sources --networks                by network (IPv4 /24, IPv6 /48)")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Show networks of sources
    #[arg(long)]
    pub(crate) networks: bool,
}

/// Which rows, and in which order.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Only what is sent to this service (default: to none)
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Only from within this address or prefix
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    pub(crate) source: Option<IpNet>,
    /// What to order by
    #[arg(long, value_name = "WHAT", default_value = "packets", value_parser = by)]
    pub(crate) by: By,
    /// At most so many rows, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
}

fn by(text: &str) -> Result<By, String> {
    let all = [By::Packets, By::Bytes, By::Dropped, By::Connections];
    let found = all.into_iter().find(|by| by.name() == text);
    found.ok_or_else(|| "expected packets, bytes, dropped or connections".to_owned())
}

impl Which {
    /// The path to ask.
    pub(crate) fn path(&self, what: &str) -> String {
        let mut path = format!("/v1/{what}?by={}&limit={}", self.by.name(), self.limit);
        if let Some(service) = &self.service {
            path = format!("{path}&service={}", args::in_query(service));
        }
        if let Some(source) = &self.source {
            path = format!("{path}&source={}", args::in_query(&source.to_string()));
        }
        path
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let mut path = args.which.path("sources");
    if args.networks {
        path += "&networks=true";
    }
    let answer: SourcesAnswer = context.client().get(&path)?;
    context.show(&answer, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &SourcesAnswer) -> String {
    let mut table = Table::new(&[
        ("SOURCE", Align::Left),
        ("PACKETS/S", Align::Right),
        ("±", Align::Right),
        ("BIT/S", Align::Right),
        ("DROPPED/S", Align::Right),
        ("NEW/S", Align::Right),
        ("SERVICES", Align::Left),
        ("LEFT", Align::Left),
    ]);
    for row in &answer.sources {
        let estimate = &row.estimate;
        table.row([
            row.source.to_string(),
            rate(estimate.packets_per_second),
            error(estimate),
            bit_rate(estimate.bytes_per_second),
            rate(estimate.dropped_per_second),
            rate(estimate.connections_per_second),
            services(row),
            state(row),
        ]);
    }
    with_basis(&table, answer.one_in, answer.span_seconds)
}

/// A table, and what it is estimated from; or why there is none.
pub(crate) fn with_basis(table: &Table, one_in: u32, span_seconds: f64) -> String {
    if one_in == 0 {
        return "the policy samples no packets ([sampling] one_in = 0), so there is nothing to estimate from\n".to_owned();
    }
    if table.is_empty() {
        return format!(
            "nothing was seen in the last {span_seconds:.0} seconds (one packet in {one_in} is sampled)\n"
        );
    }
    format!("{table}estimated over {span_seconds:.0} s, one packet in {one_in} is sampled\n")
}

/// The standard error in per cent.
pub(crate) fn error(estimate: &Estimate) -> String {
    format!("{:.0}%", estimate.error * 100.0)
}

/// The services a source sends to, the most first.
fn services(row: &SourceUse) -> String {
    let mut services: Vec<_> = row.services.iter().collect();
    services.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    let mut names: Vec<&str> = services.iter().take(3).map(|(name, _)| name.as_str()).collect();
    if services.len() > 3 {
        names.push("…");
    }
    names.join(",")
}

/// Whether a source is banned, else what is left in the bucket of its own that has the least.
fn state(row: &SourceUse) -> String {
    if row.banned {
        return "banned".to_owned();
    }
    let own = row.buckets.iter().filter(|bucket| bucket.tier == "per_source");
    let share = |bucket: &&BucketLeft| bucket.left as f64 / bucket.burst.max(1) as f64;
    let least = own.min_by(|left, right| share(left).total_cmp(&share(right)));
    least.map_or_else(String::new, |bucket| {
        format!("{} {:.0}%", bucket.kind, share(&bucket) * 100.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_rates_services_and_what_is_left() {
        let bucket = |kind: &str, left| BucketLeft {
            tier: "per_source".into(),
            kind: kind.into(),
            left,
            burst: 200,
        };
        let mut row = SourceUse {
            source: "192.0.2.1/32".parse().unwrap(),
            estimate: Estimate {
                packets_per_second: 1_500.0,
                bytes_per_second: 125_000.0,
                dropped_per_second: 10.0,
                connections_per_second: 0.0,
                error: 0.123,
            },
            services: [("shop".to_owned(), 1_400.0), ("api".to_owned(), 100.0)].into(),
            reasons: std::collections::BTreeMap::new(),
            first_seen: jiff::Timestamp::UNIX_EPOCH,
            last_seen: jiff::Timestamp::UNIX_EPOCH,
            banned: false,
            buckets: vec![bucket("packets", 100), bucket("connections", 20)],
        };
        let answer = |row: &SourceUse| SourcesAnswer {
            schema: 1,
            span_seconds: 10.0,
            one_in: 1_000,
            sources: vec![row.clone()],
            ..SourcesAnswer::default()
        };
        let shown = text(&answer(&row));
        for part in [
            "192.0.2.1/32",
            "12%",
            "shop,api",
            "connections 10%",
            "one packet in 1000",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        row.banned = true;
        assert!(text(&answer(&row)).contains("banned"));
        let off = SourcesAnswer::default();
        assert!(text(&off).contains("one_in = 0"));
    }
}
