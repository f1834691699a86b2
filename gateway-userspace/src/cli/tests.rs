//! What the words on the command line mean.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser as _};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("weir").chain(line.split_whitespace()))
}

fn command(line: &str) -> Command {
    parse(line)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .command
}

#[test]
fn the_parser_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_design_is_there() {
    for line in [
        "run --policy p.toml --interface eth0 --interface eth1 --socket s --listen 127.0.0.1:1 --xdp-mode native --state-dir d --bpffs b",
        "run --detach-on-exit",
        "detach",
        "detach --interface eth0 --bpffs b",
        "doctor",
        "doctor --interface eth0 --json",
        "policy check p.toml",
        "policy apply p.toml",
        "policy apply p.toml --confirm-within 60s",
        "policy diff p.toml --json",
        "policy confirm",
        "policy rollback",
        "policy rollback --to 3",
        "policy history --json",
        "policy show --json",
        "status",
        "ban 192.0.2.7",
        "ban 2001:db8::/32 --service web --for 10m --reason why",
        "ban - --for 1h",
        "unban 192.0.2.0/24 --service web",
        "bans --json",
        "list show",
        "list show cdn",
        "list replace cdn feed.txt --max-change 20% --force",
        "list replace cdn -",
        "list add cdn 192.0.2.0/24 2001:db8::1 --for 1h",
        "list remove cdn 192.0.2.0/24",
        "bypass --for 10m",
        "bypass --service web --for 10m --all",
        "scale web 50% --for 15m",
        "lever show",
        "record --dropped --reason ban --reason list --service web --source 192.0.2.0/24 --interface eth0 --count 9 --for 30s --max-size 1MB --force f",
        "record -",
        "detect --csv f.csv --column value",
        "detect --csv - --column value --timestamp time --json",
        "lever clear",
    ] {
        command(line);
    }
}

#[test]
fn wrong_usage_is_refused() {
    for (line, why) in [
        ("", "Usage"),
        ("fly", "unrecognized subcommand"),
        ("ban", "required"),
        (
            "ban 192.0.2.7/24",
            "did you mean 192.0.2.0/24, or 192.0.2.7 alone?",
        ),
        ("ban nonsense", "expected an address or a prefix"),
        ("ban 192.0.2.7 --for 0s", "expected 1s to 3650d"),
        ("bypass", "--for"),
        ("bypass --for 25h", "expected 1s to 24h"),
        ("scale web --for 1m", "required"),
        ("scale web 0% --for 1m", "expected 1% to 10000%"),
        ("scale web 50 --for 1m", "expected a percentage"),
        ("list add cdn", "required"),
        ("list replace cdn f --max-change 20", "expected a share"),
        ("run --xdp-mode fast", "possible values: auto, native, generic"),
        ("run --listen nowhere", "invalid"),
        ("policy", "Usage"),
        ("policy check", "required"),
        ("status --colour", "unexpected argument"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn run_has_the_documented_defaults() {
    let Command::Run(args) = command("run") else {
        panic!()
    };
    assert_eq!(args.policy, PathBuf::from("/etc/weir/policy.toml"));
    assert_eq!(args.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(args.xdp_mode, run::Mode::Auto);
    assert_eq!(args.state_dir, PathBuf::from("/var/lib/weir"));
    assert!(args.interfaces.is_empty() && !args.detach_on_exit);
}

#[test]
fn a_ban_keeps_what_it_was_given() {
    let Command::Ban(args) = command("ban 192.0.2.7 --for 10m --service web --reason why") else {
        panic!()
    };
    assert_eq!(
        args.prefix,
        args::PrefixOrInput::Prefix("192.0.2.7/32".parse().unwrap())
    );
    assert_eq!(
        (args.time, args.service.as_deref(), args.reason.as_deref()),
        (Some(600), Some("web"), Some("why"))
    );
}

#[test]
fn a_lever_keeps_what_it_was_given() {
    let Command::Scale(args) = command("scale web 50% --for 15m") else {
        panic!()
    };
    assert_eq!((args.service.as_str(), args.percent, args.time), ("web", 50, 900));
    let Command::Bypass(args) = command("bypass --for 1s") else {
        panic!()
    };
    assert_eq!((args.service, args.time, args.all), (None, 1, false));
}

#[test]
fn global_flags_may_stand_anywhere() {
    for line in [
        "--socket s --json --bpffs b status",
        "status --json --bpffs b --socket s",
    ] {
        let context = Context::new(parse(line).unwrap().global, Some("other".into()));
        assert_eq!(
            context,
            Context {
                socket: "s".into(),
                bpffs: "b".into(),
                json: true
            },
            "{line}"
        );
    }
}

#[test]
fn the_socket_is_the_flag_then_the_variable_then_the_default() {
    let context = |line: &str, variable: Option<&str>| {
        Context::new(parse(line).unwrap().global, variable.map(Into::into)).socket
    };
    assert_eq!(context("status --socket a", Some("b")), PathBuf::from("a"));
    assert_eq!(context("status", Some("b")), PathBuf::from("b"));
    assert_eq!(context("status", Some("")), PathBuf::from("/run/weir/weir.sock"));
    assert_eq!(context("status", None), PathBuf::from("/run/weir/weir.sock"));
}

#[test]
fn every_command_has_examples() {
    for command in Cli::command().get_subcommands() {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("weir "), "{} has no examples", command.get_name());
        assert!(
            command.get_about().is_some(),
            "{} says nothing of itself",
            command.get_name()
        );
    }
}

#[test]
fn wrong_usage_is_one_sentence_in_json() {
    let failure = usage_failure(&parse("scale web 0% --for 1m").unwrap_err());
    assert_eq!(failure.exit_code(), 2);
    let text = format!("{failure:?}");
    assert!(
        text.contains("expected 1% to 10000%") && !text.contains("error: "),
        "{text}"
    );
}
