//! `weir events`.

use std::{fmt::Write as _, process::ExitCode};

use jiff::Timestamp;
use serde::Serialize;
use weir::{
    api::types::{EventsAnswer, SCHEMA, code},
    events::{Actor, Event},
};

use super::{
    Context, args,
    output::{Failure, print},
};

/// How long one request waits for an event, in seconds.
const WAIT: u64 = 20;

/// Show what changed, who asked and why
///
/// Policies, bans, lists, levers, blocks that the kernel began, anomalies, interfaces, faults, and the controller's starts and ends.
/// The controller has the last 4096 in memory; older ones are in events.jsonl* of its state directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir events                        the last 100
  weir events --since 1h
  weir events --follow               and what comes, until Ctrl-C
  weir events --follow --json | jq 'select(.kind == \"block\")'")]
pub(crate) struct Args {
    /// Go on with what comes; with --json one object a line
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// At most so many of the past, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Only from so long ago (30s, 10m, 2h, 7d), or from a time (2026-11-27T08:59:00Z)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = args::ban_time(text)
        .map_err(|_| "a time ago such as 10m or 2h, or a time such as 2026-11-27T08:59:00Z".to_owned())?;
    Timestamp::now()
        .checked_sub(std::time::Duration::from_secs(ago))
        .map_err(|_| "that is before all calendars".to_owned())
}

/// What a follower is told in JSON when events went by that it did not get.
#[derive(Serialize)]
pub(crate) struct Missed {
    pub(crate) schema: u32,
    pub(crate) missed: u64,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client();
    let since = args
        .since
        .map_or_else(String::new, |since| format!("&since={since}"));
    let mut answer: EventsAnswer = client.get(&format!("/v1/events?limit={}{since}", args.limit))?;
    if !args.follow {
        context.show(&answer, |answer| {
            if answer.events.is_empty() {
                return "no events\n".to_owned();
            }
            answer.events.iter().map(line).collect()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        follow(&answer, context)?;
        if answer.ended {
            context.remark("the controller is stopping; weir events --follow can go on when it runs again");
            return Ok(ExitCode::SUCCESS);
        }
        answer = client.get(&format!(
            "/v1/events?after={}&limit=1000&wait_seconds={WAIT}",
            answer.next
        ))?;
    }
}

fn follow(answer: &EventsAnswer, context: &Context) -> Result<(), Failure> {
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
    for event in &answer.events {
        if context.json {
            json_line(event)?;
        } else {
            print(&line(event))?;
        }
    }
    Ok(())
}

pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
    print(&format!("{text}\n"))
}

/// One event in one line.
pub(crate) fn line(event: &Event) -> String {
    let entry = &event.entry;
    let mut text = format!("{:.0}  {:<14}  {}", event.at, entry.kind.name(), entry.what);
    if let Some(until) = entry.until {
        let _ = write!(text, " until {until:.0}");
    }
    if let Some(why) = &entry.why {
        let _ = write!(text, ": {why}");
    }
    match &entry.by {
        Actor::User { uid, pid, command } => {
            let _ = write!(text, "  [uid {uid}");
            if let Some(pid) = pid {
                let _ = write!(text, ", pid {pid}");
            }
            if let Some(command) = command {
                let _ = write!(text, ", {command}");
            }
            text.push(']');
        }
        Actor::Kernel => text.push_str("  [kernel]"),
        Actor::Controller => text.push_str("  [controller]"),
    }
    // A reason is free text: a line break in it must not look like an event.
    let mut text = text.replace(char::is_control, " ");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use weir::events::{Entry, Kind};

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut entry = Entry::new(Kind::Ban, "banned 192.0.2.7/32").why(Some("login\nattempts".into()));
        entry.until = Some("2026-11-27T09:09:00Z".parse().unwrap());
        entry.by = Actor::User {
            uid: 1000,
            pid: Some(4242),
            command: Some("weir".into()),
        };
        let event = Event {
            number: 7,
            at: "2026-11-27T08:59:00.25Z".parse().unwrap(),
            entry,
        };
        assert_eq!(
            line(&event),
            "2026-11-27T08:59:00Z  ban             banned 192.0.2.7/32 until 2026-11-27T09:09:00Z: login attempts  \
             [uid 1000, pid 4242, weir]\n"
        );
    }

    #[test]
    fn a_time_is_a_moment_or_a_span_ago() {
        assert_eq!(
            since("2026-11-27T08:59:00Z").unwrap(),
            "2026-11-27T08:59:00Z".parse().unwrap()
        );
        let hour = Timestamp::now().duration_since(since("1h").unwrap()).as_secs();
        assert!((3599..=3605).contains(&hour), "{hour}");
        assert!(since("yesterday").is_err());
    }
}
