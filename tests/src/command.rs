//! Commands run to their end, with all that they print.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What a command printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long the command ran.
    pub took: Duration,
}

impl Output {
    /// The one JSON object on standard output.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON on standard output: {self:?}"))
    }

    /// Requires exit code 0.
    pub fn ok(self) -> Result<Self> {
        ensure!(
            self.code == 0,
            "weir exited with {}: {}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Requires an exit code and, on standard error, a piece of text.
    pub fn failed(self, code: i32, with: &str) -> Result<Self> {
        ensure!(
            self.code == code && self.stderr.contains(with),
            "expected exit code {code} and {with:?} on standard error, got {self:?}"
        );
        Ok(self)
    }
}

/// How long to wait for something that takes up to `base` on a machine of its own: so many times longer as
/// `WEIR_TEST_PATIENCE` says, which is set where a processor is emulated.
pub fn patience(base: Duration) -> Duration {
    let factor = std::env::var("WEIR_TEST_PATIENCE").ok();
    base * factor.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs a command to its end, within `patience`, as [`patience`] stretches it.
pub fn finish(command: &mut Command, input: Option<&str>, patience: Duration) -> Result<Output> {
    let patience = self::patience(patience);
    let start = Instant::now();
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    // Readers of their own, so that no pipe fills up and stops the command.
    let readers = [child.stdout.take().map(drain), child.stderr.take().map(drain)];
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        match stdin.write_all(input.as_bytes()) {
            // It may refuse its arguments without reading.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end within {patience:?}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = start.elapsed();
    let [stdout, stderr] =
        readers.map(|reader| reader.and_then(|thread| thread.join().ok()).unwrap_or_default());
    Ok(Output {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr,
        took,
    })
}

fn drain(mut pipe: impl io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_run_to_its_end_with_its_input() -> Result<()> {
        let output = finish(
            Command::new("sh").args(["-c", "cat; echo oops >&2; exit 3"]),
            Some("in"),
            Duration::from_secs(10),
        )?;
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (3, "in", "oops\n")
        );
        assert!(output.clone().failed(3, "oops").is_ok());
        assert!(output.clone().failed(2, "oops").is_err());
        assert!(output.ok().is_err());
        Ok(())
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error =
            finish(Command::new("sleep").arg("600"), None, Duration::from_millis(50)).expect_err("it sleeps");
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
