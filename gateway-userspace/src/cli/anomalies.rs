//! `weir anomalies`.

use std::{fmt::Write as _, process::ExitCode};

use clap::Subcommand;
use weir::{
    api::{
        anomalies::{
            AnomaliesAnswer, Anomaly, AnomalyAcceptRequest, AnomalyAccepted, AnomalyCarrier, AnomalySummary,
            FeatureSpeaking,
        },
        types::{EventsAnswer, SCHEMA},
    },
    detect::figure,
    events::{Event, Kind},
};

use super::{
    Context, actions, args,
    events::{Missed, json_line, line},
    output::{Failure, print},
    table::{Align, Table, counted, rate, span},
};

/// How long one request waits for an event, in seconds.
const WAIT: u64 = 20;
/// Features and carriers that a row has room for.
const IN_ROW: usize = 3;
/// Anomalies that are over and shown as text.
const ENDED: usize = 10;

/// Show which services' traffic departs from the usual, how and since when
///
/// A crowd is much of the usual kind; an attack is much of another kind; stealth is little of another kind. A score of 1 is what
/// happens as often as [anomaly] sensitivity says, more is rarer. A feature is shown as it is and as it usually is.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  weir anomalies                     what is unusual now, and what lately was
  weir anomalies --all               quiet and learning services too
  weir anomalies --follow            and what begins and ends, until Ctrl-C
  weir anomalies --service shop --json | jq '.services[0].features'
  weir anomalies accept shop         what is now is normal: the anomaly ends and is learned
  weir anomalies undo shop           take back what was done by itself, and do no more"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Change>,
    /// Only this service (default for traffic to none)
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Also services where nothing is unusual, or too little is known
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on with what begins and ends; with --json one object a line
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Change {
    /// Take what is now for normal: the anomaly ends, and its traffic is learned
    Accept {
        /// The service (default for traffic to none)
        service: String,
    },
    /// Take back what Weir did by itself about an attack; it does no more until the attack has ended
    Undo {
        /// Only what was done about this service
        service: Option<String>,
    },
}

pub(crate) fn run(given: &Args, context: &Context) -> Result<ExitCode, Failure> {
    match &given.command {
        Some(Change::Accept { service }) => return accept(service, context),
        Some(Change::Undo { service }) => return actions::undo(service.as_deref(), context),
        None => {}
    }
    let client = context.client();
    // First, so that nothing is lost in between.
    let mut events: Option<EventsAnswer> = if given.follow {
        Some(client.get("/v1/events?limit=1")?)
    } else {
        None
    };
    let service = given.service.as_ref().map_or_else(String::new, |service| {
        format!("&service={}", args::in_query(service))
    });
    let all = given.all || given.service.is_some();
    let answer: AnomaliesAnswer = client.get(&format!("/v1/anomalies?all={all}{service}"))?;
    context.show(&answer, text)?;
    while let Some(last) = events {
        if last.ended {
            context
                .remark("the controller is stopping; weir anomalies --follow can go on when it runs again");
            break;
        }
        let path = format!("/v1/events?after={}&limit=1000&wait_seconds={WAIT}", last.next);
        let answer: EventsAnswer = client.get(&path)?;
        follow(&answer, given, context)?;
        events = Some(answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn follow(answer: &EventsAnswer, given: &Args, context: &Context) -> Result<(), Failure> {
    if answer.missed > 0 {
        let missed = answer.missed;
        context.remark(&format!(
            "{missed} events went by faster than they were read; events.jsonl has them"
        ));
        if context.json {
            json_line(&Missed {
                schema: SCHEMA,
                missed,
            })?;
        }
    }
    let wanted = |event: &&Event| {
        matches!(event.entry.kind, Kind::AnomalyBegan | Kind::AnomalyEnded)
            && (given.service.is_none() || given.service == event.entry.service)
    };
    for event in answer.events.iter().filter(wanted) {
        if context.json {
            json_line(event)?;
        } else {
            print(&line(event))?;
        }
    }
    Ok(())
}

fn accept(service: &str, context: &Context) -> Result<ExitCode, Failure> {
    let request = AnomalyAcceptRequest {
        service: service.to_owned(),
    };
    let accepted: AnomalyAccepted = context.client().post("/v1/anomalies/accept", &request)?;
    context.show(&accepted, |accepted| {
        let ended = &accepted.ended;
        format!(
            "{} is no longer {}: what is now is learned as normal\n",
            ended.service,
            ended.anomaly.title()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &AnomaliesAnswer) -> String {
    if !answer.summary.enabled {
        return "anomalies are not looked for ([anomaly] enabled = false in the policy)\n".to_owned();
    }
    let mut text = String::new();
    if !answer.services.is_empty() {
        let mut table = table(&[("SINCE UTC", Align::Left), ("LASTS", Align::Right)]);
        for told in &answer.services {
            let anomaly = &told.anomaly;
            let mut verdict = anomaly.title();
            if verdict == "learning" {
                let _ = write!(verdict, " {:.0}%", (told.learned * 100.0).clamp(0.0, 100.0));
            }
            row(&mut table, &told.service, verdict, anomaly);
        }
        let _ = writeln!(text, "{table}");
    }
    let _ = writeln!(text, "{}", summary(&answer.summary));
    if !answer.ended.is_empty() {
        let mut table = table(&[("BEGAN UTC", Align::Left), ("LASTED", Align::Right)]);
        for ended in answer.ended.iter().take(ENDED) {
            row(&mut table, &ended.service, ended.anomaly.title(), &ended.anomaly);
        }
        let _ = write!(text, "\nover, as they were at their worst:\n{table}");
        let hidden = answer.ended.len().saturating_sub(ENDED);
        if hidden > 0 {
            let _ = writeln!(text, "and {hidden} more (--json has them)");
        }
    }
    text
}

/// The columns; those of the time are called differently while it lasts and after.
fn table(times: &[(&'static str, Align); 2]) -> Table {
    Table::new(&[
        ("SERVICE", Align::Left),
        ("VERDICT", Align::Left),
        ("SCORE", Align::Right),
        times[0],
        times[1],
        ("PACKETS/S", Align::Right),
        ("USUALLY", Align::Right),
        ("WHAT SPEAKS", Align::Left),
        ("WHO", Align::Left),
    ])
}

fn row(table: &mut Table, service: &str, verdict: String, anomaly: &Anomaly) {
    table.row([
        service.to_owned(),
        verdict,
        figure(anomaly.score),
        format!("{:.0}", anomaly.since)
            .trim_end_matches('Z')
            .replace('T', " "),
        span(anomaly.duration_seconds),
        rate(anomaly.packets_per_second),
        rate(anomaly.expected_packets_per_second),
        features(&anomaly.features),
        carriers(&anomaly.carriers),
    ]);
}

fn features(features: &[FeatureSpeaking]) -> String {
    let mut told: Vec<String> = features.iter().take(IN_ROW).map(feature).collect();
    if features.len() > IN_ROW {
        told.push("…".to_owned());
    }
    told.join(", ")
}

/// A feature as it is, and as it usually is.
pub(crate) fn feature(speaking: &FeatureSpeaking) -> String {
    format!(
        "{} {} ({})",
        speaking.feature,
        figure(speaking.value),
        figure(speaking.expected)
    )
}

fn carriers(carriers: &[AnomalyCarrier]) -> String {
    let shown = carriers.iter().take(IN_ROW);
    let mut told: Vec<String> = shown.map(carrier).collect();
    if carriers.len() > IN_ROW {
        told.push("…".to_owned());
    }
    told.join(", ")
}

/// A carrier and its share.
pub(crate) fn carrier(carrier: &AnomalyCarrier) -> String {
    format!("{} {:.0}%", carrier.prefix, carrier.share * 100.0)
}

/// How many services there is what to say of, in one line.
pub(crate) fn summary(summary: &AnomalySummary) -> String {
    if !summary.enabled {
        return "anomalies: not looked for".to_owned();
    }
    let parts = [
        (summary.attack, "under attack"),
        (summary.stealth, "stealth"),
        (summary.crowd, "crowd"),
        (summary.quiet, "quiet"),
        (summary.learning, "learning"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", counted(*count, "service", "services")))
        .collect();
    if told.is_empty() {
        "anomalies: no service is looked at".to_owned()
    } else {
        format!("anomalies: {}", told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use weir::api::anomalies::{EndedAnomaly, ServiceAnomaly};

    use super::*;

    fn flood() -> Anomaly {
        Anomaly {
            verdict: "attack".into(),
            kind: Some("syn_flood".into()),
            score: 123.4,
            volume_score: 1.5,
            composition_score: 123.4,
            since: "2026-11-27T08:59:00Z".parse().unwrap(),
            duration_seconds: 75,
            packets_per_second: 120_000.0,
            expected_packets_per_second: 3_000.0,
            foreign_packets_per_second: 117_000.0,
            features: ["completion", "syn_share", "new_sources", "ttl_divergence"]
                .map(|feature| FeatureSpeaking {
                    feature: feature.into(),
                    value: 0.02,
                    expected: 0.97,
                    share: 0.25,
                })
                .into(),
            carriers: vec![AnomalyCarrier {
                prefix: "198.51.100.0/24".parse().unwrap(),
                packets_per_second: 12_000.0,
                share: 0.1,
            }],
        }
    }

    #[test]
    fn a_row_says_what_how_much_why_and_who() {
        let answer = AnomaliesAnswer {
            schema: SCHEMA,
            summary: AnomalySummary {
                enabled: true,
                attack: 1,
                learning: 2,
                ..AnomalySummary::default()
            },
            services: vec![
                ServiceAnomaly {
                    service: "shop".into(),
                    anomaly: flood(),
                    learned: 1.0,
                },
                ServiceAnomaly {
                    service: "default".into(),
                    anomaly: Anomaly {
                        verdict: "learning".into(),
                        ..Anomaly::default()
                    },
                    learned: 0.4,
                },
            ],
            ended: vec![
                EndedAnomaly {
                    service: "shop".into(),
                    anomaly: flood(),
                    ended_at: "2026-11-27T09:59:00Z".parse().unwrap(),
                    why: None,
                };
                12
            ],
        };
        let shown = text(&answer);
        for part in [
            "attack (syn_flood)",
            "2026-11-27 08:59:00",
            "1 min 15 s",
            "120,000",
            "3,000",
            "completion 0.020 (0.970), syn_share 0.020 (0.970), new_sources 0.020 (0.970), …",
            "198.51.100.0/24 10%",
            "learning 40%",
            "anomalies: 1 service under attack, 2 services learning",
            "and 2 more",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        let off = AnomaliesAnswer::default();
        assert!(text(&off).contains("enabled = false"));
    }
}
