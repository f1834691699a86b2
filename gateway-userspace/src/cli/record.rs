//! `weir record`.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use gateway_core::{sample::SNAP, verdict::Reason};
use ipnet::IpNet;
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use weir::{
    api::{
        samples::{SampleTold, SamplesAnswer},
        types::{SCHEMA, code},
    },
    capture::{Recorded, Writer},
    client::{Client, ClientError},
    policy::units,
};

use super::{
    Context, args,
    output::{Failure, NO_CONTROLLER},
};

/// How long one request waits for samples, in seconds.
const WAIT: u64 = 20;
/// Answers that may wait while the file takes its time; then no more are asked for, and what is missed is counted.
const AHEAD: usize = 4;

/// Write sampled packets to a pcapng file, each with its verdict and reason as a comment
///
/// Only sampled packets can be written: one in N of the traffic, as the policy's [sampling] says, and of each its first 128
/// bytes. The comment also has the service, its class and N. It ends after --count, --for or --max-size, whichever comes
/// first, or with Ctrl-C; the file is whole each time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir record --dropped --count 1000 dropped.pcapng      the next 1000 samples of dropped packets
  weir record --source 192.0.2.0/24 --for 30s net.pcapng
  weir record --service shop - | tcpdump -nr -
  tshark -r dropped.pcapng -T fields -e ip.src -e frame.comment")]
pub(crate) struct Args {
    /// Only packets that were dropped, or would have been under mode = "monitor"
    #[arg(long)]
    pub(crate) dropped: bool,
    /// Only packets with this reason; may be given several times
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    pub(crate) reasons: Vec<&'static str>,
    /// Only what is sent to this service (default: to none)
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Only from within this address or prefix
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    pub(crate) source: Option<IpNet>,
    /// Only what arrives on this interface
    #[arg(long, value_name = "IF")]
    pub(crate) interface: Option<String>,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after so long (30s, 10m, 2h)
    #[arg(long = "for", value_name = "TIME", value_parser = args::ban_time)]
    pub(crate) time: Option<u64>,
    /// End before the file is larger than this
    #[arg(long, value_name = "SIZE", default_value = "10MB", value_parser = size)]
    pub(crate) max_size: u64,
    /// Replace the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
    /// The file to write, or - for standard output
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
}

fn reason(text: &str) -> Result<&'static str, String> {
    let mut names = Reason::ALL.iter().map(|reason| reason.name());
    names.find(|name| *name == text).ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn size(text: &str) -> Result<u64, String> {
    match units::parse_bytes(text) {
        Ok(bytes) if bytes >= 1_000 => Ok(bytes),
        Ok(_) => Err("expected at least 1kB".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    schema: u32,
    file: &'a Path,
    packets: u64,
    bytes: u64,
    /// Samples, wanted or not, that went by faster than they were read.
    missed: u64,
    ended_by: &'static str,
}

/// What the main thread waits for.
enum Message {
    Answer(Result<SamplesAnswer, ClientError>),
    Signal,
}

/// Where it is written to.
enum Out {
    File(File),
    Stdout(io::Stdout),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && context.json {
        return Err(Failure::usage(
            "--json and - both want standard output; name a file, or leave --json out",
        ));
    }
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a capture is nothing for a terminal; name a file, or pipe it on",
        ));
    }
    // An existing file is refused before the controller is asked for anything, and left alone while there is none.
    if !to_stdout && !args.force && args.file.exists() {
        return Err(exists(&args.file));
    }
    let client = context.client();
    let query = query(args);
    let first: SamplesAnswer = client.get(&format!("/v1/samples?limit=1000{query}"))?;
    if first.one_in == 0 {
        return Err(
            Failure::new(code::REFUSED, "no packets are sampled by the policy in force")
                .hint("set [sampling] one_in in the policy, to 1000 for example"),
        );
    }
    let out = if to_stdout {
        Out::Stdout(io::stdout())
    } else {
        Out::File(open(&args.file, args.force)?)
    };
    let (sender, messages) = sync_channel(AHEAD);
    hear_signals(sender.clone())
        .map_err(|error| Failure::new(code::INTERNAL, format!("cannot wait for signals: {error}")))?;
    thread::spawn(move || ask(&client, &query, first.next, &sender));
    let mut recording = Recording {
        args,
        writer: Writer::new(out, SNAP as u32, args.max_size),
        packets: 0,
        missed: 0,
    };
    let outcome = recording.flush().and_then(|open| {
        if open {
            recording.run(&messages)
        } else {
            Ok("reader")
        }
    });
    recording.finish(outcome, context, to_stdout)
}

fn exists(file: &Path) -> Failure {
    Failure::new(code::CONFLICT, format!("{} exists already", file.display()))
        .hint("name another file, or replace it with --force")
}

/// Packets are for their owner only: they may hold what others must not read.
fn open(file: &Path, force: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => Failure::new(
            code::INTERNAL,
            format!("cannot create {}: {error}", file.display()),
        ),
    })
}

/// The query's part that says which samples.
fn query(args: &Args) -> String {
    let mut query = String::new();
    if args.dropped {
        query += "&dropped=true";
    }
    let source = args.source.map(|source| source.to_string());
    let reasons = (!args.reasons.is_empty()).then(|| args.reasons.join(","));
    for (key, value) in [
        ("reason", &reasons),
        ("service", &args.service),
        ("source", &source),
        ("interface", &args.interface),
    ] {
        if let Some(value) = value {
            query = format!("{query}&{key}={}", args::in_query(value));
        }
    }
    query
}

/// Hears the signals that end it, on a thread of its own. To be called before any other thread is started.
fn hear_signals(messages: SyncSender<Message>) -> nix::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    thread::spawn(move || {
        let _ = signals.wait();
        // The main thread may hang in a pipe that nobody reads: whoever asks a second time is not held up by that.
        thread::spawn(move || {
            let _ = signals.wait();
            std::process::exit(1);
        });
        let _ = messages.send(Message::Signal);
    });
    Ok(())
}

/// Asks for samples until nobody listens any more.
fn ask(client: &Client, query: &str, mut after: u64, messages: &SyncSender<Message>) {
    loop {
        let path = format!("/v1/samples?after={after}&limit=1000&wait_seconds={WAIT}{query}");
        let answer = client.get::<SamplesAnswer>(&path);
        let last = match &answer {
            Ok(answer) => {
                after = answer.next;
                answer.ended
            }
            Err(_) => true,
        };
        if messages.send(Message::Answer(answer)).is_err() || last {
            return;
        }
    }
}

/// A file that is being written.
struct Recording<'a> {
    args: &'a Args,
    writer: Writer<Out>,
    packets: u64,
    missed: u64,
}

impl Recording<'_> {
    /// Writes until something ends it, and says what.
    fn run(&mut self, messages: &Receiver<Message>) -> Result<&'static str, Failure> {
        let until = self
            .args
            .time
            .map(|time| Instant::now() + Duration::from_secs(time));
        loop {
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok("time");
            }
            let answer = match messages.recv_timeout(left) {
                Ok(Message::Answer(answer)) => answer?,
                Ok(Message::Signal) => return Ok("signal"),
                Err(RecvTimeoutError::Timeout) => return Ok("time"),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(code::INTERNAL, "nobody asks for samples any more"));
                }
            };
            self.missed += answer.missed;
            let full = self.add(&answer.samples)?;
            if !self.flush()? {
                return Ok("reader");
            }
            if let Some(why) = full {
                return Ok(why);
            }
            if answer.ended {
                return Err(Failure::new(NO_CONTROLLER, "the controller is stopping")
                    .hint("record again when it runs again; enforcement goes on in the kernel meanwhile"));
            }
        }
    }

    /// Adds packets; says what is reached, if something is.
    fn add(&mut self, samples: &[SampleTold]) -> Result<Option<&'static str>, Failure> {
        for sample in samples {
            let time_ns = u64::try_from(sample.at.as_nanosecond()).unwrap_or(0);
            let data = sample.frame().ok_or_else(|| {
                Failure::new(
                    code::INTERNAL,
                    "the controller sent a frame that is not hexadecimal",
                )
            })?;
            let packet = Recorded {
                interface: &sample.interface,
                time_ns,
                wire_len: sample.length,
                data: &data,
                comment: &comment(sample),
            };
            if !self.writer.add(&packet) {
                return Ok(Some("size"));
            }
            self.packets += 1;
            if self.args.count == Some(self.packets) {
                return Ok(Some("count"));
            }
        }
        Ok(None)
    }

    /// Writes what was added; false: whoever read it has gone.
    fn flush(&mut self) -> Result<bool, Failure> {
        match self.writer.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                if let Out::File(file) = self.writer.out() {
                    // What the disk took of a block goes again; a device is not cut, and then nothing is lost by that.
                    let _ = file.set_len(self.writer.written());
                }
                let file = self.args.file.display();
                Err(Failure::new(
                    code::INTERNAL,
                    format!("cannot write {file}: {error}"),
                ))
            }
        }
    }

    fn finish(
        &self,
        outcome: Result<&'static str, Failure>,
        context: &Context,
        to_stdout: bool,
    ) -> Result<ExitCode, Failure> {
        let summary = Summary {
            schema: SCHEMA,
            file: &self.args.file,
            packets: self.packets,
            bytes: self.writer.written(),
            missed: self.missed,
            ended_by: outcome.as_ref().unwrap_or(&"failure"),
        };
        match outcome {
            Err(failure) => {
                return Err(failure.details(vec![format!("what came before is there: {}", told(&summary))]));
            }
            Ok(_) if to_stdout => context.remark(&told(&summary)),
            Ok(_) => context.show(&summary, |summary| format!("{}\n", told(summary)))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn comment(sample: &SampleTold) -> String {
    let SampleTold {
        verdict,
        reason,
        service,
        class,
        one_in,
        ..
    } = sample;
    let class = if class.is_empty() {
        String::new()
    } else {
        format!(" class={class}")
    };
    format!("verdict={verdict} reason={reason} service={service}{class} one_in={one_in}")
}

fn told(summary: &Summary<'_>) -> String {
    let packets = match summary.packets {
        1 => "1 packet".to_owned(),
        packets => format!("{packets} packets"),
    };
    let place = if summary.file.as_os_str() == "-" {
        "standard output".to_owned()
    } else {
        summary.file.display().to_string()
    };
    let mut text = format!("{packets}, {} bytes, in {place}", summary.bytes);
    if summary.ended_by == "size" {
        text += "; --max-size is reached";
    }
    if summary.missed > 0 {
        let _ = write!(
            text,
            "; {} samples went by faster than they were read",
            summary.missed
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(class: &str) -> SampleTold {
        SampleTold {
            at: "2026-11-27T08:59:00.000000007Z".parse().unwrap(),
            interface: "eth0".into(),
            verdict: "drop".into(),
            reason: "source_packets".into(),
            service: "shop".into(),
            class: class.into(),
            one_in: 20,
            length: 1_514,
            bytes: "0aff".into(),
        }
    }

    #[test]
    fn a_comment_says_what_happened_and_why() {
        assert_eq!(
            comment(&sample("")),
            "verdict=drop reason=source_packets service=shop one_in=20"
        );
        assert!(comment(&sample("login")).contains(" class=login "));
    }

    #[test]
    fn a_summary_says_what_is_there_and_what_is_not() {
        let mut summary = Summary {
            schema: SCHEMA,
            file: Path::new("a.pcapng"),
            packets: 1,
            bytes: 300,
            missed: 0,
            ended_by: "count",
        };
        assert_eq!(told(&summary), "1 packet, 300 bytes, in a.pcapng");
        (summary.missed, summary.ended_by) = (7, "size");
        assert_eq!(
            told(&summary),
            "1 packet, 300 bytes, in a.pcapng; --max-size is reached; 7 samples went by faster than they were read"
        );
    }

    #[test]
    fn values_have_bounds() {
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert!(size("999").unwrap_err().contains("1kB") && size("much").is_err());
        assert_eq!(reason("source_packets"), Ok("source_packets"));
        assert!(reason("because").unwrap_err().contains("source_packets"));
    }
}
