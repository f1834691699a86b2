//! The command line: one file per command. Arguments are parsed here and checked there; answers go to standard output,
//! failures to standard error, and the exit code is 0 (done), 1 (failed) or 2 (wrong usage, or an invalid policy).

mod actions;
mod anomalies;
mod args;
mod ban;
mod detach;
mod detect;
mod doctor;
mod events;
mod explain;
mod flows;
mod levers;
mod list;
mod output;
mod policy;
mod prefixes;
mod record;
mod replay;
mod run;
mod services;
mod sources;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod top;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};
use serde::Serialize;
use weir::client::Client;

use self::output::{Failure, print, print_json};

/// Where the controller listens when nobody says otherwise.
const SOCKET: &str = "/run/weir/weir.sock";
/// The variable that says otherwise.
const SOCKET_VARIABLE: &str = "WEIR_SOCKET";

/// A kernel-level rate limiter and traffic monitor for Linux edge nodes
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Start here:
  weir doctor --interface eth0             what this machine can do, and what is in the way
  weir policy check policy.toml            is the policy valid?
  weir run --policy policy.toml            enforce it (mode = \"monitor\" only counts)
  weir status                              what passes, what is dropped, and why

Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid policy.
weir COMMAND --help shows examples of each command."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that may stand before or after the command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help = "The controller's socket [env: WEIR_SOCKET] [default: /run/weir/weir.sock]"
    )]
    socket: Option<PathBuf>,
    /// Where Weir pins its maps, on a bpf file system
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/weir")]
    bpffs: PathBuf,
    /// Print one JSON object (errors too, on standard error)
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Detach(detach::Args),
    Doctor(doctor::Args),
    Policy(policy::Args),
    Status(status::Args),
    Services(services::Args),
    Ban(ban::BanArgs),
    Unban(ban::UnbanArgs),
    Bans(ban::BansArgs),
    List(list::Args),
    Bypass(levers::BypassArgs),
    Scale(levers::ScaleArgs),
    Lever(levers::LeverArgs),
    Events(events::Args),
    Sources(sources::Args),
    Flows(flows::Args),
    Top(top::Args),
    Anomalies(anomalies::Args),
    Explain(explain::Args),
    Replay(replay::Args),
    Record(record::Args),
    Detect(detect::Args),
}

/// What every command needs to know.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Context {
    socket: PathBuf,
    bpffs: PathBuf,
    json: bool,
}

impl Context {
    fn new(global: Global, variable: Option<OsString>) -> Self {
        // An empty variable is one that a unit file could not fill in: it says nothing.
        let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
        let socket = global
            .socket
            .or(variable)
            .unwrap_or_else(|| PathBuf::from(SOCKET));
        Self {
            socket,
            bpffs: global.bpffs,
            json: global.json,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket).in_session(weir::guard::own_session())
    }

    /// Shows an answer: as JSON where that is asked for, else as the text that `text` makes of it.
    fn show<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json {
            print_json(answer)
        } else {
            print(&text(answer))
        }
    }

    /// Says something besides the answer, on standard error; not with `--json`, whose answer has it already.
    fn remark(&self, text: &str) {
        if !self.json {
            // The answer matters, not the remark: a closed standard error must not fail the command.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("weir: {text}\n").as_bytes());
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, &arguments),
    };
    let context = Context::new(cli.global, env::var_os(SOCKET_VARIABLE));
    dispatch(cli.command, &context).unwrap_or_else(|failure| failure.report(context.json))
}

fn dispatch(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => run::run(args, context),
        Command::Detach(args) => detach::run(&args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Policy(args) => policy::run(args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Services(args) => services::run(&args, context),
        Command::Ban(args) => ban::ban(&args, context),
        Command::Unban(args) => ban::unban(&args, context),
        Command::Bans(args) => ban::bans(&args, context),
        Command::List(args) => list::run(args, context),
        Command::Bypass(args) => levers::bypass(args, context),
        Command::Scale(args) => levers::scale(args, context),
        Command::Lever(args) => levers::lever(&args, context),
        Command::Events(args) => events::run(&args, context),
        Command::Sources(args) => sources::run(&args, context),
        Command::Flows(args) => flows::run(&args, context),
        Command::Top(args) => top::run(args, context),
        Command::Anomalies(args) => anomalies::run(&args, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Replay(args) => replay::run(&args, context),
        Command::Record(args) => record::run(&args, context),
        Command::Detect(args) => detect::run(&args, context),
    }
}

/// Help, the version, or wrong usage.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !help && arguments.iter().any(|argument| argument == "--json") {
        return usage_failure(error).report(true);
    }
    // A closed output is no failure of ours; the exit code still tells help from wrong usage.
    let _ = error.print();
    if help {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}

/// The parser's complaint as a failure: its first line is the sentence, the rest is how to go on.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let sentence: Vec<&str> = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim)
        .collect();
    let sentence = sentence.join(" ");
    Failure::usage(sentence.strip_prefix("error: ").unwrap_or(&sentence))
        .hint("weir COMMAND --help shows the usage")
}
