//! One external command. What is printed is exactly what is run.

use std::{
    fmt,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::rights::Rights;

/// A command line with the environment variables that it adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
}

impl Call {
    /// A call of `program`, looked up in `PATH` unless it has a slash.
    pub(crate) fn new<A: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self {
            program: program.into(),
            args,
            env: Vec::new(),
            dir: None,
        }
    }

    /// The same call with more arguments at its end.
    pub(crate) fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same call with one more environment variable.
    pub(crate) fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The same call, run in `dir`.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// The same call as root. Without the rights it is what a person with them would type.
    pub(crate) fn as_root(&self, rights: Rights) -> Self {
        let mut args: Vec<String> = match rights {
            Rights::Root => return self.clone(),
            Rights::Sudo => vec!["-n".into()],
            Rights::None => Vec::new(),
        };
        if !self.env.is_empty() {
            args.push("env".into());
            args.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        }
        args.push(self.program.clone());
        args.extend(self.args.iter().cloned());
        Self {
            program: "sudo".into(),
            args,
            env: Vec::new(),
            dir: self.dir.clone(),
        }
    }

    fn command(&self) -> Command {
        Command::from(self)
    }

    /// Runs the call with the terminal's streams; whether it succeeded.
    pub(crate) fn succeeds(&self) -> Result<bool> {
        let status = self
            .command()
            .status()
            .with_context(|| format!("cannot start `{}`", self.program))?;
        Ok(status.success())
    }

    /// Runs the call with the terminal's streams and fails when it fails.
    pub(crate) fn run(&self) -> Result<()> {
        if !self.succeeds()? {
            bail!("`{self}` failed; its own message is above");
        }
        Ok(())
    }

    /// Runs the call quietly: its standard output, or nothing when it cannot be started or fails.
    pub(crate) fn probe(&self) -> Option<String> {
        let output = self
            .command()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the call and returns its standard output; standard error goes to the terminal.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self
            .command()
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start `{}`", self.program))?;
        if !output.status.success() {
            bail!("`{self}` failed; its own message is above");
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a `cargo test`, passes its standard output on to `out` as it comes, and hands every piece
    /// to `watch`; whether it succeeded. Lines are passed on whole, so that what goes to standard error does
    /// not break them, but the name of a test is shown as soon as it runs.
    pub(crate) fn stream(&self, out: &mut impl io::Write, mut watch: impl FnMut(&[u8])) -> Result<bool> {
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", self.program))?;
        if let Some(mut pipe) = child.stdout.take() {
            let mut buffer = [0; 8192];
            let mut held = Vec::new();
            // A closed terminal must not end the run: the tests would leave their interfaces behind.
            let mut pass_on = |bytes: &[u8]| {
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            };
            loop {
                let length = match pipe.read(&mut buffer) {
                    Ok(0) => break pass_on(&held),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error).context("cannot read what the tests print"),
                };
                watch(&buffer[..length]);
                held.extend_from_slice(&buffer[..length]);
                let showable = if held.ends_with(b" ... ") {
                    held.len()
                } else {
                    held.iter()
                        .rposition(|byte| *byte == b'\n')
                        .map_or(0, |newline| newline + 1)
                };
                pass_on(&held[..showable]);
                held.drain(..showable);
            }
        }
        Ok(child.wait()?.success())
    }
}

impl From<&Call> for Command {
    fn from(call: &Call) -> Self {
        let mut command = Self::new(&call.program);
        command
            .args(&call.args)
            .envs(call.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &call.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// As a shell would take it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "{}", quoted(&self.program))?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_a_shell_takes() {
        let call = Call::new("cargo", ["install", "a b", "it's", ""]).env("LLVM_PREFIX", "/usr/lib/llvm-22");
        assert_eq!(
            call.to_string(),
            r"LLVM_PREFIX=/usr/lib/llvm-22 cargo install 'a b' 'it'\''s' ''"
        );
    }

    #[test]
    fn root_needs_no_sudo_and_sudo_carries_the_environment() {
        let call =
            Call::new("apt-get", ["install", "-y", "tcpdump"]).env("DEBIAN_FRONTEND", "noninteractive");
        assert_eq!(call.as_root(Rights::Root), call);
        assert_eq!(
            call.as_root(Rights::Sudo).to_string(),
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y tcpdump"
        );
        assert_eq!(
            call.as_root(Rights::None).to_string(),
            "sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y tcpdump"
        );
    }

    #[test]
    fn streams_everything_and_tells_failure() {
        let (mut passed_on, mut seen) = (Vec::new(), Vec::new());
        let call = Call::new("sh", ["-c", "printf 'a\\nb'; exit 3"]);
        let succeeded = call.stream(&mut passed_on, |piece| seen.extend_from_slice(piece));
        assert!(!succeeded.expect("sh starts"));
        assert_eq!(passed_on, b"a\nb");
        assert_eq!(seen, passed_on);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Call::new("weir-no-such-program", [""; 0])
            .run()
            .expect_err("there is none");
        assert_eq!(error.to_string(), "cannot start `weir-no-such-program`");
    }
}
