//! `weir run`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::ValueEnum;
use weir::{
    controller::{self, RunOptions},
    kernel::XdpModeChoice,
};

use super::{Context, output::Failure};

/// Attach and control: enforce a policy on live interfaces
///
/// Stays in the foreground, logs to standard error and notifies systemd. SIGHUP reads the policy file again. SIGTERM and SIGINT stop the controller and leave enforcement
/// on in the kernel; weir detach, or --detach-on-exit, takes it off.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir run --policy policy.toml --interface eth0
  weir run --interface eth0 --interface eth1 --xdp-mode native
  weir run --policy trial.toml --interface eth0 --detach-on-exit

Environment:
  WEIR_LOG          what is logged: error, warn, info (default), debug, trace
  WEIR_LOG_FORMAT   json for JSON lines")]
pub(crate) struct Args {
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = "/etc/weir/policy.toml")]
    pub(crate) policy: PathBuf,
    /// Attach here, instead of to the policy's interfaces (several times for several)
    #[arg(long = "interface", value_name = "IF")]
    pub(crate) interfaces: Vec<String>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,
    /// Serve them on an address that other machines reach, too: they have no password
    #[arg(long)]
    pub(crate) listen_public: bool,
    /// Native (in the driver), generic (slower; counts super-frames as one packet), or whichever works
    #[arg(long, value_enum, value_name = "MODE", default_value = "auto")]
    pub(crate) xdp_mode: Mode,
    /// Where bans, lists and the policy in force are kept across restarts
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weir")]
    pub(crate) state_dir: PathBuf,
    /// Take enforcement off when this ends
    #[arg(long)]
    pub(crate) detach_on_exit: bool,
    /// Seconds for which a message of the webhook is tried, where not the usual hour: for tests
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600), hide = true)]
    pub(crate) webhook_for: Option<u64>,
}

/// `--xdp-mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// Native, and generic with a warning where the driver cannot
    Auto,
    /// Native or nothing
    Native,
    /// Generic
    Generic,
}

impl From<Mode> for XdpModeChoice {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

pub(crate) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let options = RunOptions {
        policy: args.policy,
        interfaces: args.interfaces,
        socket: context.socket.clone(),
        listen: args.listen,
        listen_public: args.listen_public,
        xdp_mode: args.xdp_mode.into(),
        state_dir: args.state_dir,
        bpffs: context.bpffs.clone(),
        detach_on_exit: args.detach_on_exit,
        webhook_for: args.webhook_for.map(Duration::from_secs),
    };
    controller::run(options)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| Failure::of_run(&error))
}
