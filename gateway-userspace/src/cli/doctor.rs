//! `weir doctor`.

use std::process::ExitCode;

use serde::Serialize;
use weir::{
    api::types::SCHEMA,
    doctor::{self, Finding, Options},
    kernel,
};

use super::{Context, output::Failure};

/// What this kernel, driver and machine can do, what is in the way, how to mend it
///
/// One line each: ok, warn or fail, what was found, and how to mend it. Exits 1 if anything fails. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir doctor
  weir doctor --interface eth0 --interface eth1
  weir doctor --json | jq '.findings[] | select(.level == \"fail\")'")]
pub(crate) struct Args {
    /// Look at this interface (several times for several); without: those that face a network
    #[arg(long = "interface", value_name = "IF")]
    pub(crate) interfaces: Vec<String>,
}

/// The JSON answer.
#[derive(Serialize)]
struct Answer {
    schema: u32,
    ok: bool,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let options = Options {
        interfaces: args.interfaces,
        bpffs: context.bpffs.clone(),
        weir_on: weir_on(context),
    };
    let findings = doctor::examine(&options);
    let answer = Answer {
        schema: SCHEMA,
        ok: doctor::healthy(&findings),
        findings,
    };
    context.show(&answer, |answer| answer.findings.iter().map(line).collect())?;
    Ok(if answer.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The interfaces that Weir is attached to, as far as anybody can tell.
fn weir_on(context: &Context) -> Vec<String> {
    let attachments = kernel::attachments(&context.bpffs).unwrap_or_default();
    attachments
        .into_iter()
        .map(|attachment| attachment.interface)
        .collect()
}

fn line(finding: &Finding) -> String {
    let subject = finding
        .interface
        .as_ref()
        .map_or_else(String::new, |interface| format!("{interface}: "));
    let mend = finding
        .mend
        .as_ref()
        .map_or_else(String::new, |mend| format!(" – {mend}"));
    format!("{:<4}  {subject}{}{mend}\n", finding.level.word(), finding.what)
}

#[cfg(test)]
mod tests {
    use weir::doctor::Level;

    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let mut finding = Finding {
            check: "mtu",
            interface: Some("eth0".into()),
            level: Level::Warn,
            what: "MTU 9000".into(),
            mend: Some("lower it".into()),
        };
        assert_eq!(line(&finding), "warn  eth0: MTU 9000 – lower it\n");
        finding.interface = None;
        finding.mend = None;
        finding.level = Level::Ok;
        assert_eq!(line(&finding), "ok    MTU 9000\n");
    }
}
