//! `weir list`.

use std::{fmt::Write as _, process::ExitCode};

use clap::Subcommand;
use ipnet::IpNet;
use weir::{
    api::types::{
        ListAddRequest, ListAnswer, ListChanged, ListOrigin, ListRemoveRequest, ListReplaceRequest,
        ListsAnswer,
    },
    policy::model::ListAction,
};

use super::{
    Context, args,
    args::FileOrInput,
    output::Failure,
    prefixes,
    table::{Align, Table, counted, grouped, span},
};

/// Show and feed the policy's lists, without touching the policy
///
/// Changes are in force at once and kept across restarts. The policy declares the lists; a list that was replaced live
/// keeps that content until it is replaced again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir list show                               every list, and how many prefixes it holds
  weir list show blocklist > copy.txt          its content, as weir list replace reads it
  weir list replace blocklist feed.txt         all of it, if it is not wildly different
  curl -s https://feeds.example/bad.txt | weir list replace blocklist -
  weir list add blocklist 192.0.2.0/24 --for 1h
  weir list remove blocklist 192.0.2.0/24")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show every list, or the content of one
    Show {
        /// The list
        name: Option<String>,
    },
    /// Replace the content of a list
    ///
    /// An empty feed, and one that changes more than --max-change, is refused without --force: it is more often a
    /// broken feed than a changed world.
    Replace {
        /// The list
        name: String,
        /// One prefix a line, # comments; - reads standard input
        #[arg(value_name = "FILE|-")]
        from: FileOrInput,
        /// The most that may change: prefixes added and removed, over the prefixes before [default: 20%]
        #[arg(long, value_name = "SHARE", value_parser = args::share)]
        max_change: Option<f64>,
        /// Take it even when it is empty, changes more than that, or cuts off an SSH session, this host or its gateway
        #[arg(long)]
        force: bool,
    },
    /// Add prefixes to a list
    Add {
        /// The list
        name: String,
        /// Addresses and prefixes
        #[arg(value_name = "PREFIX", required = true, value_parser = args::prefix)]
        prefixes: Vec<IpNet>,
        /// Only for so long (30s, 10m, 2h, 7d)
        #[arg(long = "for", value_name = "TIME", value_parser = args::ban_time)]
        time: Option<u64>,
        /// Even when that cuts off an SSH session, this host or its gateway
        #[arg(long)]
        force: bool,
    },
    /// Remove prefixes from a list
    Remove {
        /// The list
        name: String,
        /// Addresses and prefixes, as they stand in the list
        #[arg(value_name = "PREFIX", required = true, value_parser = args::prefix)]
        prefixes: Vec<IpNet>,
        /// Even when that cuts off an SSH session, this host or its gateway
        #[arg(long)]
        force: bool,
    },
}

pub(crate) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client();
    match args.command {
        Command::Show { name: None } => {
            let answer: ListsAnswer = client.get("/v1/lists")?;
            context.show(&answer, lists_text)?;
        }
        Command::Show { name: Some(name) } => {
            let answer: ListAnswer = client.get(&path(&name, "")?)?;
            context.show(&answer, list_text)?;
        }
        Command::Replace {
            name,
            from,
            max_change,
            force,
        } => {
            let path = path(&name, "/replace")?;
            let prefixes = texts(&prefixes::read(&from)?);
            let request = ListReplaceRequest {
                prefixes,
                max_change_percent: max_change,
                force,
            };
            context.show(&client.post::<_, ListChanged>(&path, &request)?, changed_text)?;
        }
        Command::Add {
            name,
            prefixes,
            time,
            force,
        } => {
            let request = ListAddRequest {
                prefixes: texts(&prefixes),
                for_seconds: time,
                force,
            };
            context.show(
                &client.post::<_, ListChanged>(&path(&name, "/add")?, &request)?,
                changed_text,
            )?;
        }
        Command::Remove {
            name,
            prefixes,
            force,
        } => {
            let request = ListRemoveRequest {
                prefixes: texts(&prefixes),
                force,
            };
            context.show(
                &client.post::<_, ListChanged>(&path(&name, "/remove")?, &request)?,
                changed_text,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a list. A name that a policy cannot have would also not fit in a path.
fn path(name: &str, action: &str) -> Result<String, Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(Failure::usage(format!("{name:?} is no name of a list"))
            .hint("names are of letters, digits, _, . and -; weir list show names those of the policy"));
    }
    Ok(format!("/v1/lists/{name}{action}"))
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

fn lists_text(answer: &ListsAnswer) -> String {
    if answer.lists.is_empty() {
        return "the policy declares no lists\n".to_owned();
    }
    let mut table = Table::new(&[
        ("LIST", Align::Left),
        ("ACTION", Align::Left),
        ("PREFIXES", Align::Right),
        ("TEMPORARY", Align::Right),
        ("SOURCE", Align::Left),
        ("REVISION", Align::Right),
        ("CHANGED", Align::Left),
    ]);
    for list in &answer.lists {
        let action = match (list.action, list.proxy) {
            (Some(ListAction::Drop), _) => "drop",
            (Some(ListAction::Trust), false) => "trust",
            (Some(ListAction::Trust), true) => "trust, proxy",
            (None, false) => "-",
            (None, true) => "proxy",
        };
        let source = match list.source {
            ListOrigin::Policy => "policy",
            ListOrigin::Live => "live",
        };
        table.row([
            list.list.clone(),
            action.to_owned(),
            grouped(list.prefixes),
            grouped(list.temporary),
            source.to_owned(),
            list.revision.to_string(),
            format!("{:.0}", list.changed_at),
        ]);
    }
    table.to_string()
}

/// The content of a list, in the form that `replace` reads.
fn list_text(answer: &ListAnswer) -> String {
    let list = &answer.list;
    let mut text = format!(
        "# {}: {}, revision {}\n",
        list.list,
        counted(list.prefixes, "prefix", "prefixes"),
        list.revision
    );
    let left = |prefix: &IpNet| answer.temporary.iter().find(|entry| entry.prefix == *prefix);
    for prefix in &answer.prefixes {
        text.push_str(&prefix.to_string());
        if let Some(entry) = left(prefix) {
            let _ = write!(text, "  # leaves in {}", span(entry.seconds_left));
        }
        text.push('\n');
    }
    text
}

fn changed_text(changed: &ListChanged) -> String {
    format!(
        "{}: {} added, {} removed; {} in force (revision {})\n",
        changed.list.list,
        grouped(changed.added),
        grouped(changed.removed),
        counted(changed.list.prefixes, "prefix", "prefixes"),
        changed.list.revision
    )
}

#[cfg(test)]
mod tests {
    use weir::api::types::{ListStatus, SCHEMA, TemporaryPrefix};

    use super::*;

    fn status() -> ListStatus {
        ListStatus {
            list: "blocklist".into(),
            action: Some(ListAction::Drop),
            proxy: false,
            prefixes: 1234,
            max_prefixes: 1_000_000,
            revision: 3,
            changed_at: "2026-11-27T08:59:00.123456Z".parse().unwrap(),
            source: ListOrigin::Live,
            temporary: 1,
        }
    }

    #[test]
    fn lists_are_a_table() {
        let expected = "\
LIST       ACTION  PREFIXES  TEMPORARY  SOURCE  REVISION  CHANGED
blocklist  drop       1,234          1  live           3  2026-11-27T08:59:00Z
";
        assert_eq!(
            lists_text(&ListsAnswer {
                schema: SCHEMA,
                lists: vec![status()]
            }),
            expected
        );
    }

    #[test]
    fn a_list_is_shown_as_it_is_fed() {
        let answer = ListAnswer {
            schema: SCHEMA,
            list: status(),
            prefixes: vec![
                "192.0.2.0/24".parse().unwrap(),
                "198.51.100.7/32".parse().unwrap(),
            ],
            temporary: vec![TemporaryPrefix {
                prefix: "198.51.100.7/32".parse().unwrap(),
                until: "2026-11-27T08:59:00Z".parse().unwrap(),
                seconds_left: 60,
            }],
        };
        assert_eq!(
            list_text(&answer),
            "# blocklist: 1,234 prefixes, revision 3\n192.0.2.0/24\n198.51.100.7/32  # leaves in 1 min\n"
        );
    }

    #[test]
    fn names_cannot_leave_their_path() {
        assert_eq!(path("cdn-1.a_b", "/add").unwrap(), "/v1/lists/cdn-1.a_b/add");
        for name in ["", "a/b", "a b", "ä", "a?x"] {
            assert_eq!(path(name, "").unwrap_err().exit_code(), 2, "{name}");
        }
    }
}
