//! `weir policy`.

mod check;
mod diff;
mod history;
mod init;

use std::{
    fmt::Write as _,
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;
use weir::api::types::{
    HistoryAnswer, PolicyAnswer, PolicyApplied, PolicyApplyRequest, PolicyConfirmRequest, PolicyConfirmed,
    PolicyRollbackRequest, PolicyRolledBack, code,
};

use self::check::{Checked, summary_text, table_too_small};
use super::{Context, args, output::Failure, table::counted};

/// Draw, check, compare, apply and show policies, and take them back
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir policy init > policy.toml      a first one, from what this host serves
  weir policy check policy.toml       without a controller, and without rights
  weir policy diff policy.toml        what it would change
  weir policy apply policy.toml --confirm-within 60s
  weir policy confirm                 keep it; else the kernel goes back by itself
  weir policy rollback                back to the policy before
  weir policy show > in-force.toml")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    /// Say whether a policy is valid, and what it amounts to
    ///
    /// Shows every error of the file at once, each with its line, column and key. Exits 2 if there is one.
    Check {
        /// The policy file
        file: PathBuf,
    },
    /// Say what a policy would change
    ///
    /// Compares the policy in force with a file: services, limits, lists, protection, by their keys, and what would be lost.
    /// Changes nothing. Exits 0 whether they differ or not, 2 if the file is not valid.
    Diff {
        /// The policy file
        file: PathBuf,
    },
    /// Put a policy in force
    ///
    /// Atomic: a packet sees the old policy or the new one. Sources and services that stay keep their buckets. A policy
    /// that fails anywhere leaves the old one in force.
    Apply {
        /// The policy file
        file: PathBuf,
        /// Go back by itself unless `weir policy confirm` comes within this time (1s to 1h)
        ///
        /// The kernel goes back, so it does also when the controller has died. Until then other changes of the policy, the
        /// lists and the levers are refused; bans are not.
        #[arg(long, value_name = "TIME", value_parser = args::confirm_time)]
        confirm_within: Option<u64>,
        /// Even when it cuts off an SSH session, this host or its gateway
        #[arg(long)]
        force: bool,
    },
    /// Keep the policy that waits for confirmation
    Confirm,
    /// Go back to the policy before
    ///
    /// Takes back at once a policy that waits for confirmation. Where none waits, the revision before the one in force is put
    /// in force again, as a new revision.
    Rollback {
        /// Go back to this revision of `weir policy history`
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
    },
    /// Show the policy in force
    Show,
    /// List the revisions: when, who asked, and how each ended
    History,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Init(args) => init::run(args, context)?,
        Command::Check { file } => context.show(&check::check(&file)?.summary, summary_text)?,
        Command::Diff { file } => diff::run(&file, context)?,
        Command::Apply {
            file,
            confirm_within,
            force,
        } => apply(&file, confirm_within, force, context)?,
        Command::Confirm => {
            let confirmed: PolicyConfirmed = context
                .client()
                .post("/v1/policy/confirm", &PolicyConfirmRequest {})?;
            warn(context, &confirmed.warnings);
            context.show(&confirmed, |confirmed| {
                format!("policy revision {} stays in force\n", confirmed.revision)
            })?;
        }
        Command::Rollback { to } => {
            let request = PolicyRollbackRequest { to };
            let back: PolicyRolledBack = context.client().post("/v1/policy/rollback", &request)?;
            warn(context, &back.warnings);
            context.show(&back, rolled_back_text)?;
        }
        Command::Show => {
            let answer: PolicyAnswer = context.client().get("/v1/policy")?;
            if let Some(pending) = &answer.policy.pending {
                context.remark(&format!(
                    "revision {} waits for confirmation until {}; then revision {} is in force again",
                    answer.policy.revision, pending.until, pending.before
                ));
            }
            context.show(&answer, |answer| answer.text.clone())?;
        }
        Command::History => {
            let answer: HistoryAnswer = context.client().get("/v1/policy/history")?;
            context.show(&answer, history::text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(file: &Path, confirm_within: Option<u64>, force: bool, context: &Context) -> Result<(), Failure> {
    // Here too, so that an invalid policy is refused with its places even where no controller runs.
    let Checked { loaded, summary, .. } = check::check(file)?;
    let path = path::absolute(file).map_err(|error| {
        Failure::new(
            code::INTERNAL,
            format!("cannot tell where {} is: {error}", file.display()),
        )
    })?;
    let Some(path) = path.to_str() else {
        return Err(
            Failure::usage(format!("the path {} is not UTF-8", path.display())).hint("rename the file"),
        );
    };
    let request = PolicyApplyRequest {
        text: loaded.text,
        path: path.to_owned(),
        confirm_within_seconds: confirm_within,
        force,
    };
    let applied: PolicyApplied = context.client().post("/v1/policy/apply", &request)?;
    warn(context, &applied.warnings);
    if !summary.sizing.is_enough() {
        context.remark(&format!("warning: {}", table_too_small(&summary.sizing)));
    }
    context.show(&applied, applied_text)
}

fn warn(context: &Context, warnings: &[String]) {
    for warning in warnings {
        context.remark(&format!("warning: {warning}"));
    }
}

fn applied_text(applied: &PolicyApplied) -> String {
    let mut text = format!(
        "policy revision {} is in force: {}, {} in lists, switched in {:.1} ms\n",
        applied.revision,
        counted(applied.services, "service", "services"),
        counted(applied.prefixes, "prefix", "prefixes"),
        applied.took_seconds * 1000.0
    );
    if let Some(pending) = &applied.pending {
        let _ = writeln!(
            text,
            "unless `weir policy confirm` comes by {} ({} s), revision {} is in force again then",
            pending.until, pending.seconds_left, pending.before
        );
    }
    text
}

fn rolled_back_text(back: &PolicyRolledBack) -> String {
    match back.restores {
        None => format!(
            "policy revision {} is taken back; revision {} is in force again\n",
            back.taken_back, back.revision
        ),
        Some(restores) => format!(
            "policy revision {} is in force, with the text of revision {restores}; revision {} is out of force\n",
            back.revision, back.taken_back
        ),
    }
}

#[cfg(test)]
mod tests {
    use weir::api::types::{PolicyPending, SCHEMA};

    use super::*;

    #[test]
    fn an_apply_says_until_when_it_waits() {
        let mut applied = PolicyApplied {
            schema: SCHEMA,
            revision: 4,
            sha256: String::new(),
            services: 1,
            prefixes: 0,
            took_seconds: 0.0123,
            pending: None,
            warnings: Vec::new(),
        };
        assert_eq!(
            applied_text(&applied),
            "policy revision 4 is in force: 1 service, 0 prefixes in lists, switched in 12.3 ms\n"
        );
        applied.pending = Some(PolicyPending {
            until: "2026-11-27T09:00:00Z".parse().unwrap(),
            seconds_left: 60,
            before: 3,
        });
        assert!(
            applied_text(&applied).ends_with(
                "unless `weir policy confirm` comes by 2026-11-27T09:00:00Z (60 s), revision 3 is in force again then\n"
            ),
            "{}",
            applied_text(&applied)
        );
    }

    #[test]
    fn a_rollback_says_what_is_in_force_now() {
        let mut back = PolicyRolledBack {
            schema: SCHEMA,
            revision: 3,
            sha256: String::new(),
            taken_back: 4,
            restores: None,
            warnings: Vec::new(),
        };
        assert_eq!(
            rolled_back_text(&back),
            "policy revision 4 is taken back; revision 3 is in force again\n"
        );
        back.revision = 5;
        back.restores = Some(3);
        assert_eq!(
            rolled_back_text(&back),
            "policy revision 5 is in force, with the text of revision 3; revision 4 is out of force\n"
        );
    }
}
