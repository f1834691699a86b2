//! The real `weir`, run inside a namespace with files, a socket and a bpffs directory of its own.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixDatagram,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    bpffs::BpffsDir,
    command::{Output, finish, patience},
    metrics::Metrics,
    netns::Netns,
};

/// The capabilities that Weir needs, as `setpriv` names them.
pub const CAPABILITIES: [&str; 3] = ["bpf", "net_admin", "perfmon"];
/// How long a controller may take to say that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// How long a controller may take to stop after SIGTERM, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a command of the command line may take.
const CLI_PATIENCE: Duration = Duration::from_mins(1);
/// How long an HTTP answer of the controller may take.
const HTTP_PATIENCE: Duration = Duration::from_secs(10);

/// A `weir` with a place of its own in a namespace. Made stopped; [`Daemon::start`] runs the
/// controller, as often as a test likes. Dropped, it stops the controller, takes enforcement off and
/// removes every file.
#[derive(Debug)]
pub struct Daemon<'n> {
    netns: &'n Netns,
    binary: PathBuf,
    interfaces: Vec<String>,
    child: Option<Child>,
    ready_after: Duration,
    starts: u32,
    /// Arguments added to `weir run`.
    extra: Vec<OsString>,
    /// A command that `weir run` is given to, to be started by it.
    wrapper: Vec<OsString>,
    listen: SocketAddr,
    /// Where the controller that was started last says that it is ready.
    ready: Option<UnixDatagram>,
    env: BTreeMap<String, String>,
    /// The user that the controller runs as, with [`CAPABILITIES`] and nothing else; `None`: root.
    user: Option<u32>,
    // Dropped in this order, after the controller: what is pinned, then the files.
    bpffs: BpffsDir,
    dir: TempDir,
}

impl<'n> Daemon<'n> {
    /// Prepares a `weir` for some interfaces of `netns` with this policy; nothing runs yet.
    pub fn prepare(netns: &'n Netns, interfaces: &[&str], policy: &str) -> Result<Self> {
        let daemon = Self {
            netns,
            binary: binary()?,
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            child: None,
            ready_after: Duration::ZERO,
            starts: 0,
            extra: Vec::new(),
            wrapper: Vec::new(),
            listen: Self::listen_address(),
            ready: None,
            env: BTreeMap::new(),
            user: None,
            bpffs: BpffsDir::create()?,
            dir: tempfile::Builder::new().prefix("weir-lab-").tempdir()?,
        };
        daemon.write_policy(policy)?;
        Ok(daemon)
    }

    /// Prepares and starts one.
    pub fn run(netns: &'n Netns, interfaces: &[&str], policy: &str) -> Result<Self> {
        let mut daemon = Self::prepare(netns, interfaces, policy)?;
        daemon.start()?;
        Ok(daemon)
    }

    /// Adds arguments to the next `weir run`.
    #[must_use]
    pub fn with_args(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(OsString::from));
        self
    }

    /// Sets a variable in the environment of the next `weir run`.
    #[must_use]
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Gives the next `weir run` to another command, which must become it (`exec`), so that the process is the same:
    /// `&["setpriv", "--bounding-set=-all"]`, or a shell that prepares something and ends with `exec "$@"`.
    #[must_use]
    pub fn wrapped(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(OsString::from).collect();
        self
    }

    /// Serves metrics on another port of the loopback, for a second controller in one namespace.
    #[must_use]
    pub fn listening_on(mut self, port: u16) -> Self {
        self.listen.set_port(port);
        self
    }

    /// Serves metrics at another address.
    #[must_use]
    pub fn listening_at(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Names other interfaces for the next `weir run`.
    pub fn set_interfaces(&mut self, interfaces: &[&str]) {
        self.interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
    }

    /// Makes the next `weir run` run as this user (and the group of the same number), with [`CAPABILITIES`] alone, in all
    /// sets: more cannot be had by any means. What it keeps becomes its own.
    pub fn as_user(mut self, user: u32) -> Result<Self> {
        self = self.for_all()?;
        for path in [self.dir.path(), self.bpffs.path()] {
            chown(path, Some(user), Some(user))?;
        }
        self.user = Some(user);
        Ok(self)
    }

    /// Lets other users reach the binary and, as far as its own mode lets them, the socket.
    pub fn for_all(mut self) -> Result<Self> {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755))?;
        // The build's directory may be closed to others.
        let binary = self.path("weir");
        fs::copy(&self.binary, &binary)?;
        self.binary = binary;
        Ok(self)
    }

    /// Starts the controller and waits until it says that it is ready. When it ends instead, the
    /// error has its exit status and its log. It is killed when the calling thread ends.
    pub fn start(&mut self) -> Result<()> {
        let start = Instant::now();
        self.launch()?;
        self.wait_ready(start)
    }

    /// Starts the controller and does not wait.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the controller runs already");
        let notify = self.path("notify.sock");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify)?;
        if self.user.is_some() {
            fs::set_permissions(&notify, fs::Permissions::from_mode(0o666))?;
        }
        ready.set_read_timeout(Some(Duration::from_millis(20)))?;
        self.starts += 1;
        let log = File::create(self.log_path())?;
        let mut command = self.run_command();
        command.env("NOTIFY_SOCKET", &notify).envs(&self.env);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        die_with_the_caller(&mut command);
        self.child = Some(command.spawn().context("cannot start weir")?);
        self.ready = Some(ready);
        Ok(())
    }

    fn wait_ready(&mut self, start: Instant) -> Result<()> {
        let ready = self.ready.take().context("the controller was not started")?;
        loop {
            let mut message = [0; 4096];
            match ready.recv(&mut message) {
                Ok(len)
                    if message[..len]
                        .split(|&byte| byte == b'\n')
                        .any(|line| line == b"READY=1") =>
                {
                    break;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error).context("cannot hear whether weir is ready"),
            }
            if let Some(status) = self.poll_exit()? {
                bail!("weir ended before it was ready ({status}):\n{}", self.log());
            }
            if start.elapsed() > patience(READY_PATIENCE) {
                self.stop_with(Signal::SIGKILL)?;
                bail!("weir was not ready after {READY_PATIENCE:?}:\n{}", self.log());
            }
        }
        self.ready_after = start.elapsed();
        Ok(())
    }

    /// Runs `weir run` where it is expected to fail, and waits for its end.
    pub fn start_failing(&mut self) -> Result<Output> {
        finish(&mut self.run_command(), None, READY_PATIENCE)
    }

    /// How long the last start took, from the start of the process to its being ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The controller's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The exit status, if the controller has ended by itself.
    pub fn poll_exit(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Sends the controller a signal (SIGHUP) and does not wait.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the controller does not run")?;
        Ok(kill(Pid::from_raw(pid as i32), signal)?)
    }

    /// Sends the controller a signal that ends it (SIGTERM, SIGINT, SIGKILL) and waits; enforcement stays.
    /// One that does not end in five seconds is killed, and that is an error.
    pub fn stop_with(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let mut child = self.child.take().context("the controller does not run")?;
        let deadline = Instant::now() + patience(STOP_PATIENCE);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!(
                    "weir did not stop within {STOP_PATIENCE:?} of {signal}:\n{}",
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a command of `weir` (`&["status", "--json"]`) and waits for its end. The socket and the
    /// bpffs directory are added where the command takes them.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        finish(&mut self.cli_command(args), None, CLI_PATIENCE)
    }

    /// As [`Daemon::cli`], run by a user without any capability, who is in these groups besides the one of its number.
    pub fn cli_as(&self, user: u32, groups: &[u32], args: &[&str]) -> Result<Output> {
        let mut command = self.unprivileged(&[], user, groups);
        command.args(args).arg("--socket").arg(self.socket_path());
        finish(&mut command, None, CLI_PATIENCE)
    }

    /// `weir doctor`, run by a user with these capabilities.
    pub fn doctor_as(&self, user: u32, capabilities: &[&str]) -> Result<Output> {
        let mut command = self.unprivileged(capabilities, user, &[]);
        command.arg("doctor").arg("--bpffs").arg(self.bpffs_path());
        finish(&mut command, None, CLI_PATIENCE)
    }

    /// As [`Daemon::cli`], with this on standard input.
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        finish(&mut self.cli_command(args), Some(input), CLI_PATIENCE)
    }

    /// Writes another policy and applies it with `weir policy apply`.
    pub fn apply(&self, policy: &str) -> Result<Output> {
        self.write_policy(policy)?;
        let path = self.policy_path();
        self.cli(&["policy", "apply", &path.to_string_lossy()])
    }

    /// Scrapes `/metrics`.
    pub fn metrics(&self) -> Result<Metrics> {
        let (code, body) = self.http("GET", "/metrics")?;
        ensure!(code == 200, "/metrics answered {code}: {body}");
        Metrics::parse(&body)
    }

    /// Asks the `--listen` address; returns the status code and the body.
    pub fn http(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let answer = self
            .netns
            .run(|| -> io::Result<String> {
                let mut stream = TcpStream::connect(self.listen)?;
                stream.set_read_timeout(Some(HTTP_PATIENCE))?;
                write!(
                    stream,
                    "{method} {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n"
                )?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            })?
            .with_context(|| format!("no answer to {method} {path}; the log:\n{}", self.log()))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let code = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("no HTTP status")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Ok((code, if chunked { unchunk(body)? } else { body.to_owned() }))
    }

    /// What the controller has logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Replaces the policy file in one step; the controller is not told.
    pub fn write_policy(&self, policy: &str) -> Result<()> {
        let fresh = self.path("policy.toml.new");
        fs::write(&fresh, policy)?;
        fs::rename(fresh, self.policy_path())?;
        Ok(())
    }

    /// The policy file.
    pub fn policy_path(&self) -> PathBuf {
        self.path("policy.toml")
    }

    /// The control socket.
    pub fn socket_path(&self) -> PathBuf {
        self.path("weir.sock")
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The bpffs directory that `weir` pins in.
    pub fn bpffs_path(&self) -> PathBuf {
        self.bpffs.path().join("weir")
    }

    /// A directory for the test's own files, removed with the rest.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The `weir` that runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Where metrics are served, inside the namespace, unless [`Self::listening_on`] says otherwise.
    pub fn listen_address() -> SocketAddr {
        ([127, 0, 0, 1], 9464).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("log-{}", self.starts))
    }

    fn run_command(&self) -> Command {
        let mut command = match (self.user, self.wrapper.split_first()) {
            (Some(user), _) => self.unprivileged(&CAPABILITIES, user, &[]),
            (None, None) => self.netns.command(&self.binary),
            (None, Some((program, rest))) => {
                let mut command = self.netns.command(program);
                command.args(rest).arg(&self.binary);
                command
            }
        };
        command.arg("run");
        for (flag, value) in [
            ("--policy", self.policy_path()),
            ("--socket", self.socket_path()),
            ("--state-dir", self.state_dir()),
            ("--bpffs", self.bpffs_path()),
        ] {
            command.arg(flag).arg(value);
        }
        command.args(["--listen", &self.listen.to_string()]);
        for interface in &self.interfaces {
            command.args(["--interface", interface]);
        }
        command.args(&self.extra);
        // Out of the terminal's process group: Ctrl-C is for the laboratory, which then ends it in order.
        command.process_group(0);
        command
    }

    /// `weir`, inside the namespace, run by a user with these capabilities and no way to others.
    fn unprivileged(&self, capabilities: &[&str], user: u32, groups: &[u32]) -> Command {
        let mut command = self.netns.command("setpriv");
        let held: String = capabilities
            .iter()
            .map(|name| format!(",+{name}"))
            .collect::<Vec<_>>()
            .concat();
        for set in ["--bounding-set", "--inh-caps", "--ambient-caps"] {
            command.arg(format!("{set}=-all{held}"));
        }
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        if groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", groups.join(",")));
        }
        // A change of user takes away what makes it end with the test.
        command.args(["--no-new-privs", "--pdeathsig=KILL", "--"]);
        command.arg(&self.binary);
        command
    }

    fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = self.netns.command(&self.binary);
        command.args(args);
        let (socket, bpffs) = match args {
            [
                "status" | "events" | "anomalies" | "top" | "explain" | "sources" | "flows" | "services"
                | "record" | "ban" | "unban" | "bans" | "list",
                ..,
            ]
            | [
                "policy",
                "apply" | "init" | "show" | "diff" | "confirm" | "rollback" | "history",
                ..,
            ] => (true, false),
            ["bypass" | "scale" | "lever" | "detach", ..] => (true, true),
            _ => (false, false),
        };
        if socket {
            command.arg("--socket").arg(self.socket_path());
        }
        if bpffs {
            command.arg("--bpffs").arg(self.bpffs_path());
        }
        command
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.stop_with(Signal::SIGTERM)
        {
            eprintln!("{error:#}");
        }
        // Nothing is attached when a start failed or a test detached by itself; then this fails, and may.
        let _ = self.cli(&["detach"]);
    }
}

/// The `weir` to test: `WEIR_BIN`, or the newer one of the release and debug builds in the target
/// directory that this program was built in.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "WEIR_BIN names {}, which is not a file",
            path.display()
        );
        return fs::canonicalize(path).context("WEIR_BIN");
    }
    let exe = std::env::current_exe()?;
    let built: Vec<(SystemTime, PathBuf)> = exe
        .ancestors()
        .skip(1)
        .flat_map(|dir| ["release/weir", "debug/weir"].map(|name| dir.join(name)))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    built.into_iter().max().map(|(_, path)| path).ok_or_else(|| {
        anyhow!(
            "there is no weir beside {}; run `cargo build -p gateway-userspace` or set WEIR_BIN",
            exe.display()
        )
    })
}

/// Makes the kernel end the command when the thread that starts it ends, so that a killed test leaves
/// no controller behind.
fn die_with_the_caller(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
}

/// Joins the pieces of a chunked body.
fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(after.get(..size).context("a chunk is cut short")?);
        rest = after.get(size + 2..).context("a chunk without an end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() -> Result<()> {
        assert_eq!(unchunk("5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n")?, "hello!");
        assert!(unchunk("5\r\nhel").is_err());
        Ok(())
    }
}
