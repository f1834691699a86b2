//! `weir bypass`, `weir scale` and `weir lever`: the emergency levers.
//!
//! They go through the controller if one answers, and else straight to the maps that it left pinned: they are for the
//! worst hour of the year, and that may be the one in which the controller does not run.

use std::process::ExitCode;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;
use weir::{
    api::types::{LeverRequest, LeverStatus, LeversAnswer, LeversCleared, SCHEMA},
    client::ClientError,
    kernel::{Dataplane, KernelError, Lever},
};

use super::{
    Context, args,
    output::Failure,
    table::{Align, Table, span},
};

const NANOSECONDS: u64 = 1_000_000_000;

/// Emergency: let everything pass, for a while
///
/// Bans and drop lists stay in force unless --all. Ends by itself: the kernel honours the expiry. Works without a
/// controller too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir bypass --for 10m                          no limits on the whole node
  weir bypass --service storefront --for 10m     none for this service
  weir bypass --all --for 5m                     nor bans, nor drop lists
  weir lever clear                               back to the policy, now")]
pub(crate) struct BypassArgs {
    /// Only this service; without: the whole node
    #[arg(long, value_name = "S")]
    pub(crate) service: Option<String>,
    /// For so long (1s to 24h)
    #[arg(long = "for", value_name = "TIME", value_parser = args::lever_time)]
    pub(crate) time: u64,
    /// Also let pass what bans and drop lists name
    #[arg(long)]
    pub(crate) all: bool,
}

/// Emergency: tighten or loosen all limits of a service, for a while
///
/// Ends by itself: the kernel honours the expiry. Works without a controller too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir scale storefront 50% --for 15m      half of every rate and burst
  weir scale storefront 400% --for 2h      four times as much")]
pub(crate) struct ScaleArgs {
    /// The service
    pub(crate) service: String,
    /// Of the policy's limits, 1% to 10000%
    #[arg(value_name = "PERCENT", value_parser = args::factor)]
    pub(crate) percent: u32,
    /// For so long (1s to 24h)
    #[arg(long = "for", value_name = "TIME", value_parser = args::lever_time)]
    pub(crate) time: u64,
}

/// Show the levers in force, or take them all back
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir lever show
  weir lever clear")]
pub(crate) struct LeverArgs {
    #[command(subcommand)]
    pub(crate) command: LeverCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeverCommand {
    /// Show the levers in force
    Show,
    /// Take every lever back: the policy's own limits are in force again
    Clear,
}

/// Which way a lever went.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Via {
    Controller,
    Kernel,
}

/// An answer, and which way it came.
#[derive(Debug, Serialize)]
struct Routed<T> {
    #[serde(flatten)]
    answer: T,
    via: Via,
}

pub(crate) fn bypass(args: BypassArgs, context: &Context) -> Result<ExitCode, Failure> {
    set(
        &LeverRequest::Bypass {
            service: args.service,
            all: args.all,
            for_seconds: args.time,
        },
        context,
    )
}

pub(crate) fn scale(args: ScaleArgs, context: &Context) -> Result<ExitCode, Failure> {
    set(
        &LeverRequest::Scale {
            service: args.service,
            percent: args.percent,
            for_seconds: args.time,
        },
        context,
    )
}

pub(crate) fn lever(args: &LeverArgs, context: &Context) -> Result<ExitCode, Failure> {
    match args.command {
        LeverCommand::Show => {
            let routed = route(context, context.client().get("/v1/levers"), |dataplane| {
                Ok(LeversAnswer {
                    schema: SCHEMA,
                    levers: statuses(&dataplane.levers()?),
                    warnings: Vec::new(),
                })
            })?;
            context.show(&routed, |routed| levers_text(&routed.answer.levers))?;
        }
        LeverCommand::Clear => {
            let cleared = context.client().delete("/v1/levers", &serde_json::Map::new());
            let routed = route(context, cleared, |dataplane| {
                let cleared = statuses(&dataplane.levers()?);
                dataplane.set_levers(&[])?;
                Ok(LeversCleared {
                    schema: SCHEMA,
                    cleared,
                })
            })?;
            context.show(&routed, |routed| cleared_text(&routed.answer))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn set(request: &LeverRequest, context: &Context) -> Result<ExitCode, Failure> {
    let routed = route(
        context,
        context.client().post("/v1/levers", request),
        |dataplane| {
            let mut warnings = Vec::new();
            if matches!(request, LeverRequest::Bypass { .. }) && dataplane.pending()?.is_some() {
                // As the controller does: the newest change is the first suspect.
                dataplane.revert()?;
                warnings.push(
                    "the policy that waited for confirmation was taken back first; the one before it is in force".to_owned(),
                );
            }
            let levers = with(dataplane.levers()?, request, Dataplane::now_ns());
            dataplane.set_levers(&levers)?;
            Ok(LeversAnswer {
                schema: SCHEMA,
                levers: statuses(&levers),
                warnings,
            })
        },
    )?;
    for warning in &routed.answer.warnings {
        context.remark(&format!("warning: {warning}"));
    }
    context.show(&routed, |routed: &Routed<LeversAnswer>| {
        levers_text(&routed.answer.levers)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes the controller's answer, or goes to the kernel when there is no controller.
fn route<T>(
    context: &Context,
    answer: Result<T, ClientError>,
    directly: impl FnOnce(&mut Dataplane) -> Result<T, KernelError>,
) -> Result<Routed<T>, Failure> {
    let refused = match answer {
        Ok(answer) => {
            return Ok(Routed {
                answer,
                via: Via::Controller,
            });
        }
        Err(error @ ClientError::NoController { .. }) => error,
        Err(error @ ClientError::Timeout { .. }) => {
            // While it lives it holds the lock on the maps, and would undo what goes past it.
            return Err(Failure::from(error)
                .hint("if it hangs, end its process and repeat this: levers work without a controller"));
        }
        Err(error) => return Err(error.into()),
    };
    context.remark(&format!(
        "{refused}; going straight to the kernel's maps under {}",
        context.bpffs.display()
    ));
    let mut dataplane = Dataplane::open_pinned(&context.bpffs).map_err(|error| match error {
        KernelError::NotPinned { .. } => {
            Failure::from(error).hint("there is nothing to lever: every packet passes already")
        }
        KernelError::Locked { .. } => Failure::from(error).hint("name the controller's socket with --socket"),
        error => error.into(),
    })?;
    let answer = directly(&mut dataplane)?;
    Ok(Routed {
        answer,
        via: Via::Kernel,
    })
}

/// The levers with one more, which takes the place of a running one of the same kind for the same service.
fn with(mut levers: Vec<Lever>, request: &LeverRequest, now_ns: u64) -> Vec<Lever> {
    let until = |seconds: u64| now_ns.saturating_add(seconds.saturating_mul(NANOSECONDS));
    let new = match request.clone() {
        LeverRequest::Bypass {
            service,
            all,
            for_seconds,
        } => Lever::Bypass {
            service,
            all,
            until_ns: until(for_seconds),
        },
        LeverRequest::Scale {
            service,
            percent,
            for_seconds,
        } => Lever::Scale {
            service,
            percent,
            until_ns: until(for_seconds),
        },
    };
    levers.retain(|lever| match (lever, &new) {
        (Lever::Bypass { service: old, .. }, Lever::Bypass { service: new, .. }) => old != new,
        (Lever::Scale { service: old, .. }, Lever::Scale { service: new, .. }) => old != new,
        _ => true,
    });
    levers.push(new);
    levers
}

fn statuses(levers: &[Lever]) -> Vec<LeverStatus> {
    let (now, now_ns) = (Timestamp::now(), Dataplane::now_ns());
    levers.iter().map(|lever| status(lever, now, now_ns)).collect()
}

fn status(lever: &Lever, now: Timestamp, now_ns: u64) -> LeverStatus {
    let left = |until_ns: u64| until_ns.saturating_sub(now_ns).div_ceil(NANOSECONDS);
    // A lever lasts a day at most, so the sum is a time that exists; if it is not, now is a safe answer.
    // In whole seconds, as everywhere.
    let ends =
        |seconds: u64| Timestamp::from_second(now.as_second().saturating_add(seconds as i64)).unwrap_or(now);
    match lever.clone() {
        Lever::Bypass {
            service,
            all,
            until_ns,
        } => {
            let seconds_left = left(until_ns);
            LeverStatus::Bypass {
                service,
                all,
                until: ends(seconds_left),
                seconds_left,
            }
        }
        Lever::Scale {
            service,
            percent,
            until_ns,
        } => {
            let seconds_left = left(until_ns);
            LeverStatus::Scale {
                service,
                percent,
                until: ends(seconds_left),
                seconds_left,
            }
        }
    }
}

/// The levers as a table.
pub(crate) fn levers_text(levers: &[LeverStatus]) -> String {
    if levers.is_empty() {
        return "no lever is in force\n".to_owned();
    }
    let mut table = Table::new(&[
        ("LEVER", Align::Left),
        ("SERVICE", Align::Left),
        ("LEFT", Align::Right),
    ]);
    for lever in levers {
        let (what, service, left) = match lever {
            LeverStatus::Bypass {
                service,
                all,
                seconds_left,
                ..
            } => {
                let what = if *all {
                    "bypass (bans and drop lists too)"
                } else {
                    "bypass"
                };
                (
                    what.to_owned(),
                    service.clone().unwrap_or_else(|| "all".to_owned()),
                    *seconds_left,
                )
            }
            LeverStatus::Scale {
                service,
                percent,
                seconds_left,
                ..
            } => (format!("scale {percent}%"), service.clone(), *seconds_left),
        };
        table.row([what, service, span(left)]);
    }
    table.to_string()
}

fn cleared_text(answer: &LeversCleared) -> String {
    match answer.cleared.len() {
        0 => "no lever was in force\n".to_owned(),
        1 => "1 lever taken back; the policy's limits are in force\n".to_owned(),
        count => format!("{count} levers taken back; the policy's limits are in force\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bypass(service: Option<&str>, until_ns: u64) -> Lever {
        Lever::Bypass {
            service: service.map(Into::into),
            all: false,
            until_ns,
        }
    }

    #[test]
    fn a_lever_replaces_its_like_only() {
        let scale = Lever::Scale {
            service: "web".into(),
            percent: 50,
            until_ns: 9,
        };
        let levers = vec![bypass(None, 5), bypass(Some("web"), 6), scale.clone()];
        let request = LeverRequest::Bypass {
            service: Some("web".into()),
            all: false,
            for_seconds: 2,
        };
        assert_eq!(
            with(levers, &request, 100),
            [bypass(None, 5), scale, bypass(Some("web"), 2 * NANOSECONDS + 100)]
        );
        let request = LeverRequest::Scale {
            service: "web".into(),
            percent: 10,
            for_seconds: u64::MAX,
        };
        let levers = with(
            vec![Lever::Scale {
                service: "web".into(),
                percent: 50,
                until_ns: 9,
            }],
            &request,
            100,
        );
        assert_eq!(
            levers,
            [Lever::Scale {
                service: "web".into(),
                percent: 10,
                until_ns: u64::MAX
            }]
        );
    }

    #[test]
    fn the_time_left_is_rounded_up() {
        let now: Timestamp = "2026-11-27T08:59:00.7Z".parse().unwrap();
        let status = status(&bypass(None, 100 + 1_500_000_000), now, 100);
        let LeverStatus::Bypass {
            until, seconds_left, ..
        } = status
        else {
            panic!()
        };
        assert_eq!(seconds_left, 2);
        assert_eq!(until, "2026-11-27T08:59:02Z".parse::<Timestamp>().unwrap());
    }

    #[test]
    fn levers_are_a_table() {
        let until = "2026-11-27T08:59:00Z".parse().unwrap();
        let levers = [
            LeverStatus::Bypass {
                service: None,
                all: true,
                until,
                seconds_left: 600,
            },
            LeverStatus::Scale {
                service: "web".into(),
                percent: 50,
                until,
                seconds_left: 61,
            },
        ];
        let expected = "\
LEVER                             SERVICE       LEFT
bypass (bans and drop lists too)  all         10 min
scale 50%                         web      1 min 1 s
";
        assert_eq!(levers_text(&levers), expected);
    }

    #[test]
    fn json_says_which_way_it_went() {
        let routed = Routed {
            answer: LeversAnswer {
                schema: SCHEMA,
                levers: Vec::new(),
                warnings: Vec::new(),
            },
            via: Via::Kernel,
        };
        assert_eq!(
            serde_json::to_string(&routed).unwrap(),
            r#"{"schema":1,"levers":[],"via":"kernel"}"#
        );
    }
}
