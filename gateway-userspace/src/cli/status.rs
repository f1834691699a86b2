//! `weir status`.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use weir::{
    api::types::{ServiceStatus, StatusAnswer, Volume},
    kernel::XdpMode,
    policy::model::{Mode, OnLoss},
};

use super::{
    Context,
    actions::actions_text,
    anomalies,
    levers::levers_text,
    output::Failure,
    table::{Align, Table, bit_rate, bytes, counted, grouped, rate, span},
};

/// What is attached, which policy is in force, what passes, what is dropped and why
///
/// Exits 1 when something is wrong, and says what.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir status
  watch -n 1 weir status
  weir status --json | jq '.services[] | {service, drops_per_second}'")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let status: StatusAnswer = context.client().get("/v1/status")?;
    context.show(&status, text)?;
    Ok(if status.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(status: &StatusAnswer) -> String {
    let mut sections = vec![heading(status), attachments(status), services(status)];
    sections.extend(reasons(status, "DROPPED", |service| &service.drops));
    sections.extend(reasons(status, "WOULD DROP", |service| &service.would_drops));
    if !status.actions.is_empty() {
        sections.push(actions_text(&status.actions));
    }
    if !status.levers.is_empty() {
        sections.push(levers_text(&status.levers));
    }
    sections.push(footing(status));
    if let Some(lost) = &status.replaced {
        sections.push(format!("at this start: {lost}\n"));
    }
    if !status.problems.is_empty() {
        sections.push(status.problems.iter().fold(String::new(), |mut text, problem| {
            let _ = writeln!(text, "problem: {problem}");
            text
        }));
    }
    sections.join("\n")
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

fn heading(status: &StatusAnswer) -> String {
    let policy = &status.policy;
    let mut text = format!(
        "weir {}, up {}\npolicy revision {} ({}), applied {:.0} from {}\n",
        status.version,
        span(status.uptime_seconds),
        policy.revision,
        mode(policy.mode),
        policy.applied_at,
        policy.path
    );
    if let Some(pending) = &policy.pending {
        let _ = writeln!(
            text,
            "it waits for confirmation: unless `weir policy confirm` comes within {}, revision {} is in force again",
            span(pending.seconds_left),
            pending.before
        );
    }
    if let (OnLoss::Open, Some(after)) = (status.controller.on_loss, status.controller.after_seconds) {
        let _ = writeln!(
            text,
            "without a controller the node opens after {}: packets are then counted, and not dropped",
            span(after)
        );
    }
    if let Some(difference) = &policy.difference {
        let _ = writeln!(text, "the policy in force is not the file's: {difference}");
    }
    text
}

fn attachments(status: &StatusAnswer) -> String {
    if status.attachments.is_empty() {
        return "attached to no interface: nothing is enforced\n".to_owned();
    }
    let mut table = Table::new(&[
        ("INTERFACE", Align::Left),
        ("XDP MODE", Align::Left),
        ("STATE", Align::Left),
    ]);
    let mut notes = String::new();
    for attachment in &status.attachments {
        let mode = match attachment.xdp_mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        };
        let state = if attachment.present {
            "attached"
        } else {
            "gone: the interface has vanished"
        };
        table.row([attachment.interface.clone(), mode.to_owned(), state.to_owned()]);
        for remark in attachment
            .fallback
            .iter()
            .map(|why| format!("generic because {why}"))
            .chain(attachment.note.clone())
        {
            let _ = writeln!(notes, "{}: {remark}", attachment.interface);
        }
    }
    format!("{table}{notes}")
}

fn services(status: &StatusAnswer) -> String {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("MODE", Align::Left),
        ("PACKETS/S", Align::Right),
        ("RATE", Align::Right),
        ("DROPS/S", Align::Right),
        ("WOULD/S", Align::Right),
        ("PASSED", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
    ]);
    for service in &status.services {
        table.row([
            service.service.clone(),
            mode(service.mode).to_owned(),
            rate(service.packets_per_second),
            bit_rate(service.bytes_per_second),
            rate(service.drops_per_second),
            rate(service.would_drops_per_second),
            grouped(service.pass.packets),
            grouped(service.drop.packets),
            grouped(service.would_drop.packets),
        ]);
    }
    let over = if status.rates_over_seconds > 0.0 {
        format!(
            "rates over the last {:.1} s; totals in packets\n",
            status.rates_over_seconds
        )
    } else {
        "no rates yet; totals in packets\n".to_owned()
    };
    format!("{table}{over}")
}

/// What was dropped (or would have been), by service and reason, the most first; nothing when nothing was.
fn reasons(
    status: &StatusAnswer,
    heading: &'static str,
    of: impl Fn(&ServiceStatus) -> &BTreeMap<String, Volume>,
) -> Option<String> {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("REASON", Align::Left),
        (heading, Align::Right),
        ("BYTES", Align::Right),
    ]);
    for service in &status.services {
        let mut volumes: Vec<_> = of(service)
            .iter()
            .filter(|(_, volume)| volume.packets > 0)
            .collect();
        volumes.sort_by(|(a, x), (b, y)| y.packets.cmp(&x.packets).then_with(|| a.cmp(b)));
        for (reason, volume) in volumes {
            table.row([
                service.service.clone(),
                reason.clone(),
                grouped(volume.packets),
                bytes(volume.bytes),
            ]);
        }
    }
    (!table.is_empty()).then(|| table.to_string())
}

fn footing(status: &StatusAnswer) -> String {
    let slots = &status.source_slots;
    let mut text = format!(
        "{}\n{}, {}; source table: {} of {} slots in use\n",
        anomalies::summary(&status.anomalies),
        counted(status.bans, "ban", "bans"),
        counted(status.lists, "list", "lists"),
        grouped(slots.in_debt),
        grouped(slots.in_debt.saturating_add(slots.free))
    );
    let losses = &status.losses;
    for (count, what) in [
        (
            losses.overflow,
            "packets were judged by a shared overflow bucket: the source table was full of debtors",
        ),
        (
            losses.lost_race,
            "packets were refused because other CPUs kept changing their bucket",
        ),
        (
            losses.uncounted,
            "packets could not be counted: an internal fault, please report it",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{} {what}", grouped(count));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use weir::{
        api::{
            anomalies::AnomalySummary,
            types::{AttachmentStatus, ControllerStatus, PolicyStatus, SCHEMA},
        },
        kernel::{Losses, SourceSlots},
    };

    use super::*;

    fn service() -> ServiceStatus {
        ServiceStatus {
            service: "storefront".into(),
            mode: Mode::Enforce,
            pass: Volume {
                packets: 1_234_567,
                bytes: 987_654_321,
            },
            drop: Volume {
                packets: 98_765,
                bytes: 6_000_000,
            },
            would_drop: Volume::default(),
            packets_per_second: 12_345.6,
            bytes_per_second: 1_562_500.0,
            drops_per_second: 432.1,
            would_drops_per_second: 0.0,
            drops: [
                (
                    "ban".to_owned(),
                    Volume {
                        packets: 5,
                        bytes: 300,
                    },
                ),
                (
                    "source_packets".to_owned(),
                    Volume {
                        packets: 98_760,
                        bytes: 5_999_700,
                    },
                ),
                ("list".to_owned(), Volume::default()),
            ]
            .into(),
            would_drops: BTreeMap::new(),
            verdict: None,
            kind: None,
        }
    }

    fn status() -> StatusAnswer {
        StatusAnswer {
            schema: SCHEMA,
            ok: false,
            problems: vec!["eth1 has vanished".into()],
            version: "0.1.0".into(),
            started_at: "2026-11-27T06:59:00Z".parse().unwrap(),
            uptime_seconds: 7380,
            attachments: vec![
                AttachmentStatus {
                    interface: "eth0".into(),
                    ifindex: 2,
                    xdp_mode: XdpMode::Native,
                    present: true,
                    fallback: None,
                    note: None,
                },
                AttachmentStatus {
                    interface: "eth1".into(),
                    ifindex: 0,
                    xdp_mode: XdpMode::Generic,
                    present: false,
                    fallback: Some("the driver has no XDP".into()),
                    note: Some("sees super-frames".into()),
                },
            ],
            policy: PolicyStatus {
                revision: 3,
                sha256: "ab".into(),
                path: "/etc/weir/policy.toml".into(),
                applied_at: "2026-11-27T08:59:00.5Z".parse().unwrap(),
                pending: None,
                mode: Mode::Enforce,
                differs_from_file: false,
                difference: None,
            },
            rates_over_seconds: 5.0,
            services: vec![service()],
            levers: Vec::new(),
            anomalies: AnomalySummary {
                enabled: true,
                attack: 1,
                quiet: 3,
                ..AnomalySummary::default()
            },
            actions: Vec::new(),
            bans: 2,
            lists: 1,
            losses: Losses {
                overflow: 7,
                lost_race: 0,
                uncounted: 0,
                notice: 0,
                sampled: 0,
                sample: 0,
                sample_suppressed: 0,
            },
            replaced: None,
            source_slots: SourceSlots {
                in_debt: 10,
                free: 1_048_566,
            },
            controller: ControllerStatus {
                on_loss: OnLoss::Open,
                after_seconds: Some(300),
                socket_group: None,
            },
        }
    }

    #[test]
    fn a_status_is_readable() {
        let expected = "\
weir 0.1.0, up 2 h 3 min
policy revision 3 (enforce), applied 2026-11-27T08:59:00Z from /etc/weir/policy.toml
without a controller the node opens after 5 min: packets are then counted, and not dropped

INTERFACE  XDP MODE  STATE
eth0       native    attached
eth1       generic   gone: the interface has vanished
eth1: generic because the driver has no XDP
eth1: sees super-frames

SERVICE     MODE     PACKETS/S       RATE  DROPS/S  WOULD/S     PASSED  DROPPED  WOULD DROP
storefront  enforce     12,346  12.5 Mb/s      432        0  1,234,567   98,765           0
rates over the last 5.0 s; totals in packets

SERVICE     REASON          DROPPED   BYTES
storefront  source_packets   98,760  6.0 MB
storefront  ban                   5   300 B

anomalies: 1 service under attack, 3 services quiet
2 bans, 1 list; source table: 10 of 1,048,576 slots in use
7 packets were judged by a shared overflow bucket: the source table was full of debtors

problem: eth1 has vanished
";
        assert_eq!(text(&status()), expected);
    }

    #[test]
    fn ordinary_rows_fit_a_hundred_columns() {
        assert!(text(&status()).lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn a_difference_from_the_file_and_no_attachment_are_said() {
        let mut status = status();
        status.attachments.clear();
        status.rates_over_seconds = 0.0;
        status.policy.difference = Some("line 3 changed".into());
        let text = text(&status);
        assert!(
            text.contains("nothing is enforced")
                && text.contains("line 3 changed")
                && text.contains("no rates yet")
        );
    }
}
