//! Network namespaces: made, entered and removed.

use std::{
    fs::File,
    io::Write as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::names;

/// Where `ip netns` keeps its handles.
const NETNS_DIR: &str = "/run/netns";

/// A network namespace with its loopback up; removed on drop, with every interface in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes an empty namespace. `hint` says in its name what it is for; the first call of a process
    /// sweeps what dead processes left behind.
    pub fn create(hint: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = names::unique(hint);
        ip(&["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The namespace's name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it. A panic in `work`
    /// goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = self.open()?;
        let outcome = thread::scope(|scope| scope.spawn(move || enter(&handle).map(|()| work())).join());
        outcome.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Starts `work` inside the namespace, on a thread of its own.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let handle = self.open()?;
        Ok(thread::spawn(move || enter(&handle).map(|()| work())))
    }

    /// A command that will run inside the namespace. It is entered by `nsenter`, because `ip netns
    /// exec` mounts a fresh `/sys` that hides bpffs; `nsenter` becomes the program, so the child's
    /// process id is the program's own.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program.as_ref());
        command
    }

    /// Runs `ip` on the namespace and returns what it printed.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        ip(&all)
    }

    /// Runs many `ip` commands, one a line, in one process.
    pub fn ip_batch(&self, lines: &[String]) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip`; install iproute2 (`cargo xtask setup` does)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all((lines.join("\n") + "\n").as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "`ip -batch` in {}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Sets a network sysctl (`net.ipv4.tcp_syncookies`) in the namespace only.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))?
            .with_context(|| format!("cannot set {key} to {value} in {}", self.name))
    }

    fn open(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("cannot open the network namespace {}", path.display()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("network namespace {} stays behind: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces whose makers are gone. Failure is not fatal: another process may sweep
/// at the same time.
pub fn sweep() {
    let Ok(entries) = std::fs::read_dir(NETNS_DIR) else {
        return;
    };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| names::is_leftover(name)) {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn enter(handle: &File) -> Result<()> {
    setns(handle, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace; run this as root")
}

/// Runs a command to its end and returns its standard output; what it printed on standard error
/// becomes the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}; `cargo xtask setup` installs it"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} did not print text"))
}

fn ip(args: &[&str]) -> Result<String> {
    capture(Command::new("ip").args(args))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::skip;

    #[test]
    fn a_namespace_has_its_own_ports_and_goes_when_dropped() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        // The same address and port in both: only separate network stacks allow that.
        let one = a.run(|| TcpListener::bind("127.0.0.1:80"))??;
        let two = b.run(|| TcpListener::bind("127.0.0.1:80"))??;
        assert_eq!(one.local_addr()?, two.local_addr()?);
        let path = a.path();
        assert!(path.exists());
        drop(a);
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn a_namespace_goes_when_a_test_panics() -> Result<()> {
        skip::require_root();
        let netns = Netns::create("panic")?;
        let path = netns.path();
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(move || {
            let _ = netns.run(|| panic!("on purpose"));
        }));
        assert!(outcome.is_err());
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn commands_run_inside_and_still_see_bpffs() -> Result<()> {
        skip::require_root();
        let netns = Netns::create("cmd")?;
        crate::bpffs::ensure_mounted()?;
        let inside = capture(netns.command("readlink").arg("/proc/self/ns/net"))?;
        let outside = std::fs::read_link("/proc/self/ns/net")?;
        assert_ne!(inside.trim(), outside.to_string_lossy());
        let kind = capture(netns.command("stat").args(["-f", "-c", "%t", "/sys/fs/bpf"]))?;
        assert_eq!(kind.trim(), "cafe4a11");
        Ok(())
    }

    #[test]
    fn a_sysctl_stays_inside() -> Result<()> {
        skip::require_root();
        let read = || std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let before = read()?;
        let netns = Netns::create("sysctl")?;
        netns.sysctl("net.core.somaxconn", "77")?;
        assert_eq!(netns.run(read)??.trim(), "77");
        assert_eq!(read()?, before);
        Ok(())
    }
}
