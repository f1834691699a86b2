//! `weir ban`, `weir unban` and `weir bans`.

use std::{fmt::Write as _, process::ExitCode};

use ipnet::IpNet;
use weir::api::types::{Ban, BanRequest, BansAdded, BansAnswer, BansRequest, UnbanRequest, Unbanned};

use super::{
    Context, args,
    args::{FileOrInput, PrefixOrInput},
    output::Failure,
    prefixes,
    table::{Align, Table, counted, span},
};

/// Drop everything from these sources
///
/// A bare address means that address alone. The kernel honours the expiry by itself, and bans are kept across restarts.
/// A ban that would do nothing (protected, or covered by a longer one) fails and says why; so does one that would cut off
/// an SSH session with this host (your own first of all), an address of the host or its default gateway.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir ban 192.0.2.7 --for 10m --reason 'login attempts'
  weir ban 2001:db8:bad::/48 --service storefront
  weir ban - --for 1h < prefixes.txt      one a line, # comments; all or none")]
pub(crate) struct BanArgs {
    /// An address or a prefix; - reads them from standard input
    #[arg(value_name = "PREFIX|-")]
    pub(crate) prefix: PrefixOrInput,
    /// Only what they send to this service
    #[arg(long, value_name = "S")]
    pub(crate) service: Option<String>,
    /// For so long (30s, 10m, 2h, 7d); without: until weir unban
    #[arg(long = "for", value_name = "TIME", value_parser = args::ban_time)]
    pub(crate) time: Option<u64>,
    /// Why, for whoever reads weir bans (at most 256 characters)
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Ban even what would cut off an SSH session, this host or its gateway, or would do nothing
    #[arg(long)]
    pub(crate) force: bool,
}

/// Take a ban back
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir unban 192.0.2.7
  weir unban 2001:db8:bad::/48 --service storefront")]
pub(crate) struct UnbanArgs {
    /// The ban's own prefix, as weir bans shows it
    #[arg(value_name = "PREFIX", value_parser = args::prefix)]
    pub(crate) prefix: IpNet,
    /// The ban for this service; without: the ban for all services
    #[arg(long, value_name = "S")]
    pub(crate) service: Option<String>,
}

/// Show the bans in force
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir bans
  weir bans --json | jq -r '.bans[].prefix'")]
pub(crate) struct BansArgs {}

pub(crate) fn ban(args: &BanArgs, context: &Context) -> Result<ExitCode, Failure> {
    let prefixes = match args.prefix {
        PrefixOrInput::Prefix(prefix) => vec![prefix],
        PrefixOrInput::Input => prefixes::read(&FileOrInput::Input)?,
    };
    if prefixes.is_empty() {
        return Err(Failure::usage(
            "there is no prefix on standard input; nothing was banned",
        ));
    }
    let bans = prefixes.iter().map(|prefix| BanRequest {
        prefix: prefix.to_string(),
        service: args.service.clone(),
        for_seconds: args.time,
        reason: args.reason.clone(),
    });
    let request = BansRequest {
        bans: bans.collect(),
        force: args.force,
    };
    let added: BansAdded = context.client().post("/v1/bans", &request)?;
    for warning in &added.warnings {
        context.remark(&format!("warning: {warning}"));
    }
    context.show(&added, |added| added_text(added, &prefixes, args))?;
    Ok(ExitCode::SUCCESS)
}

fn added_text(added: &BansAdded, prefixes: &[IpNet], args: &BanArgs) -> String {
    let what = match (prefixes, added.renewed) {
        ([prefix], 0) => format!("banned {prefix}"),
        ([prefix], _) => format!("renewed the ban of {prefix}"),
        (_, 0) => format!("banned {}", counted(added.added, "prefix", "prefixes")),
        (_, renewed) => format!(
            "banned {} and renewed {}",
            counted(added.added, "prefix", "prefixes"),
            counted(renewed, "ban", "bans")
        ),
    };
    let whom = args
        .service
        .as_ref()
        .map_or_else(String::new, |service| format!(" from {service}"));
    let time = args.time.map_or_else(
        || "until weir unban".to_owned(),
        |seconds| format!("for {}", span(seconds)),
    );
    let mut text = format!("{what}{whom} {time}\n");
    for ban in &added.ineffective {
        let _ = writeln!(text, "not banned: {}: {}", ban.prefix, ban.why);
    }
    text
}

pub(crate) fn unban(args: &UnbanArgs, context: &Context) -> Result<ExitCode, Failure> {
    let request = UnbanRequest {
        prefix: args.prefix.to_string(),
        service: args.service.clone(),
    };
    let unbanned: Unbanned = context.client().delete("/v1/bans", &request)?;
    context.show(&unbanned, unbanned_text)?;
    Ok(ExitCode::SUCCESS)
}

fn unbanned_text(unbanned: &Unbanned) -> String {
    let mut text = format!("unbanned {}{}\n", unbanned.ban.prefix, scope(&unbanned.ban));
    if let Some(ban) = &unbanned.still_covered_by {
        let _ = writeln!(
            text,
            "it is still banned by {}{} ({}); weir unban {} takes that off too",
            ban.prefix,
            scope(ban),
            left(ban),
            ban.prefix
        );
    }
    text
}

pub(crate) fn bans(_: &BansArgs, context: &Context) -> Result<ExitCode, Failure> {
    let answer: BansAnswer = context.client().get("/v1/bans")?;
    context.show(&answer, bans_text)?;
    Ok(ExitCode::SUCCESS)
}

fn bans_text(answer: &BansAnswer) -> String {
    if answer.bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut table = Table::new(&[
        ("PREFIX", Align::Left),
        ("SERVICE", Align::Left),
        ("LEFT", Align::Right),
        ("REASON", Align::Left),
    ]);
    for ban in &answer.bans {
        let service = ban.service.clone().unwrap_or_else(|| "all".to_owned());
        // A reason is free text: a line break in it must not look like a row.
        let reason = ban
            .reason
            .as_deref()
            .unwrap_or_default()
            .replace(char::is_control, " ");
        table.row([ban.prefix.to_string(), service, left(ban), reason]);
    }
    table.to_string()
}

fn scope(ban: &Ban) -> String {
    ban.service
        .as_ref()
        .map_or_else(String::new, |service| format!(" from {service}"))
}

fn left(ban: &Ban) -> String {
    ban.seconds_left.map_or_else(|| "for ever".to_owned(), span)
}

#[cfg(test)]
mod tests {
    use weir::api::types::{IneffectiveBan, SCHEMA};

    use super::*;

    fn ban(prefix: &str, service: Option<&str>, seconds_left: Option<u64>, reason: Option<&str>) -> Ban {
        Ban {
            prefix: prefix.parse().unwrap(),
            service: service.map(Into::into),
            created_at: "2026-11-27T08:59:00Z".parse().unwrap(),
            until: None,
            seconds_left,
            reason: reason.map(Into::into),
        }
    }

    #[test]
    fn bans_are_a_table() {
        let bans = vec![
            ban("192.0.2.7/32", None, Some(605), Some("login\nattempts")),
            ban("2001:db8::/32", Some("storefront"), None, None),
        ];
        let expected = "\
PREFIX         SERVICE           LEFT  REASON
192.0.2.7/32   all         10 min 5 s  login attempts
2001:db8::/32  storefront    for ever
";
        assert_eq!(bans_text(&BansAnswer { schema: SCHEMA, bans }), expected);
        assert_eq!(
            bans_text(&BansAnswer {
                schema: SCHEMA,
                bans: Vec::new()
            }),
            "nobody is banned\n"
        );
    }

    #[test]
    fn what_was_not_banned_is_said() {
        let args = BanArgs {
            prefix: PrefixOrInput::Input,
            service: Some("web".into()),
            time: Some(600),
            reason: None,
            force: false,
        };
        let prefixes = ["192.0.2.1/32".parse().unwrap(), "10.9.0.1/32".parse().unwrap()];
        let added = BansAdded {
            schema: SCHEMA,
            added: 1,
            renewed: 0,
            ineffective: vec![IneffectiveBan {
                prefix: prefixes[1],
                service: None,
                why: "it is protected".into(),
            }],
            warnings: Vec::new(),
        };
        assert_eq!(
            added_text(&added, &prefixes, &args),
            "banned 1 prefix from web for 10 min\nnot banned: 10.9.0.1/32: it is protected\n"
        );
    }

    #[test]
    fn a_wider_ban_that_still_holds_is_said() {
        let unbanned = Unbanned {
            schema: SCHEMA,
            ban: ban("192.0.2.7/32", None, Some(1), None),
            still_covered_by: Some(ban("192.0.2.0/24", None, Some(60), None)),
        };
        assert_eq!(
            unbanned_text(&unbanned),
            "unbanned 192.0.2.7/32\n\
             it is still banned by 192.0.2.0/24 (1 min); weir unban 192.0.2.0/24 takes that off too\n"
        );
    }
}
