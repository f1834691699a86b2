//! Nobody locks himself out by accident: bans, lists and policies that would cut off SSH, the host or its gateway.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use weir_tests::{
    command::{Output, finish},
    daemon::Daemon,
    site::Site,
    tcp,
};

const POLICY: &str = r#"version = 1
[lists.bad]
action = "drop"
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
"#;
const PATIENCE: Duration = Duration::from_secs(30);

/// An SSH session as far as the kernel sees one: a connection of the client's with a port of the node's.
struct Ssh {
    _listener: TcpListener,
    _server: TcpStream,
    client: TcpStream,
}

impl Ssh {
    fn open(site: &Site, port: u16) -> Result<Self> {
        site.node
            .ip(&["route", "replace", "default", "via", "10.77.0.254"])?;
        let target = SocketAddr::from(([10, 77, 0, 2], port));
        let listener = site.node.run(|| TcpListener::bind(target))??;
        let source = SocketAddr::from(([10, 77, 0, 1], 0));
        let client = site
            .client
            .run(|| tcp::connect_from(source, target, Duration::from_secs(5)))??;
        let (server, _) = listener.accept()?;
        Ok(Self {
            _listener: listener,
            _server: server,
            client,
        })
    }

    /// What sshd would put in `SSH_CONNECTION`.
    fn variable(&self) -> Result<String> {
        let (local, peer) = (self.client.local_addr()?, self.client.peer_addr()?);
        Ok(format!(
            "{} {} {} {}",
            local.ip(),
            local.port(),
            peer.ip(),
            peer.port()
        ))
    }
}

/// Runs a command of the command line under `env` with this setting and without the caller's own session; `below` runs
/// it as a child without the variable, as sudo does.
fn within(
    weir: &Daemon<'_>,
    site: &Site,
    session: Option<&str>,
    below: bool,
    args: &[&str],
) -> Result<Output> {
    let mut command: Command = site.node.command("sh");
    command.env_remove("SSH_CONNECTION").env_remove("SSH_CLIENT");
    if let Some(session) = session {
        command.env("SSH_CONNECTION", session);
    }
    let run = if below {
        "env -u SSH_CONNECTION \"$@\"; exit $?"
    } else {
        "exec \"$@\""
    };
    command.args(["-c", run, "sh"]).arg(weir.binary()).args(args);
    command.arg("--socket").arg(weir.socket_path());
    finish(&mut command, None, PATIENCE)
}

#[test]
fn bans_of_the_session_the_host_and_the_gateway_are_refused() -> Result<()> {
    let site = Site::new()?;
    // Not the usual port: only the variable tells of this session.
    let ssh = Ssh::open(&site, 2222)?;
    let session = ssh.variable()?;
    let weir = site.weir(POLICY)?;
    for (prefix, with) in [
        ("10.77.0.1", "10.77.0.1, the other end of your own SSH session"),
        ("10.77.0.0/31", "10.77.0.1, the other end of your own SSH session"),
        ("10.77.0.2", "10.77.0.2, an address of this host"),
        ("fd77::2", "fd77::2, an address of this host"),
        ("10.77.0.254", "10.77.0.254, a default gateway of this host"),
    ] {
        within(&weir, &site, Some(&session), false, &["ban", prefix])?.failed(1, with)?;
    }
    let all = within(&weir, &site, Some(&session), false, &["ban", "10.77.0.0/16"])?;
    all.failed(1, "--force")?.failed(1, "[[protect]]")?;
    within(&weir, &site, Some(&session), true, &["ban", "10.77.0.1"])?
        .failed(1, "your own SSH session")
        .context("its ancestors still have the variable")?;
    within(&weir, &site, None, false, &["ban", "10.77.0.1"])?
        .ok()
        .context("nothing tells of a session on another port")?;
    within(&weir, &site, None, false, &["unban", "10.77.0.1"])?.ok()?;
    within(
        &weir,
        &site,
        Some(&session),
        false,
        &["ban", "10.77.0.1", "--force", "--for", "1m"],
    )?
    .ok()?;
    Ok(())
}

#[test]
fn sessions_on_the_ssh_port_are_found_without_the_variable() -> Result<()> {
    let site = Site::new()?;
    let ssh = Ssh::open(&site, 22)?;
    let weir = site.weir(POLICY)?;
    within(&weir, &site, None, false, &["ban", "10.77.0.1"])?
        .failed(1, "10.77.0.1, the other end of an SSH session with this host")?;
    within(&weir, &site, None, false, &["ban", "10.77.0.3"])?.ok()?;
    drop(ssh);
    Ok(())
}

#[test]
fn lists_and_policies_that_cut_off_are_refused() -> Result<()> {
    let site = Site::new()?;
    let ssh = Ssh::open(&site, 2222)?;
    let session = ssh.variable()?;
    let weir = site.weir(POLICY)?;
    let run = |args: &[&str]| within(&weir, &site, Some(&session), false, args);
    run(&["list", "add", "bad", "10.77.0.0/31"])?.failed(1, "list bad would cut off 10.77.0.1")?;
    run(&["list", "add", "bad", "10.77.0.254"])?.failed(1, "default gateway")?;
    run(&["list", "add", "bad", "10.77.0.64/28"])?.ok()?;

    let file = weir.policy_path();
    let file = file.to_string_lossy();
    let apply = ["policy", "apply", &*file];
    let zero = format!("{POLICY}[default]\naction = \"drop\"\n");
    weir.write_policy(&zero)?;
    run(&apply)?.failed(1, "not connect to port 2222 again")?;
    weir.write_policy(&format!("{zero}replies = \"none\"\n"))?;
    run(&apply)?.failed(
        1,
        "would cut off 10.77.0.1, the other end of your own SSH session",
    )?;
    let listed = POLICY.replace(
        "action = \"drop\"",
        "action = \"drop\"\nprefixes = [\"10.77.0.1\"]",
    );
    weir.write_policy(&listed)?;
    run(&apply)?.failed(1, "reason list")?;
    weir.write_policy(&format!(
        "{listed}[[protect]]\nsources = [\"10.77.0.1/32\"]\nprotocol = \"tcp\"\nports = [2222]\n"
    ))?;
    run(&apply)?.ok().context("protected")?;
    weir.write_policy(&format!(
        "{zero}[[service]]\nname = \"ssh\"\nprotocol = \"tcp\"\nports = [2222]\n"
    ))?;
    run(&apply)?.ok().context("a service lets SSH in")?;
    weir.write_policy(&zero)?;
    run(&["policy", "apply", &file, "--force"])?.ok()?;
    Ok(())
}
