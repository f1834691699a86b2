//! `weir replay`: what a policy would have done to recorded traffic. Needs neither a controller nor rights.

mod detect;
mod progress;
mod text;

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{self, Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::ValueEnum;
use ipnet::IpNet;
use weir::{
    api::types::code,
    capture::Reader,
    geo::Database,
    kernel::ListContents,
    policy::{self, model::Policy, units},
    replay::{
        KEY, Options, Replay, detect as detectors, enforced, plot,
        report::{By, Heading, PolicyUsed},
    },
};

use self::progress::Progress;
use super::{
    Context,
    args::{self, FileOrInput},
    output::{Failure, print, print_json},
};

/// Show what a policy would have done to recorded traffic
///
/// Judges every packet of a capture as the kernel would have, on the capture's own clock, and says what passed, what was
/// dropped and why. Reads pcap and pcapng, also gzipped, in constant memory. Needs neither a controller nor root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir replay --policy new.toml friday.pcap.gz                          what would it have done?
  weir replay --policy new.toml --against /etc/weir/policy.toml a.pcap  what would change?
  weir replay --policy new.toml --plot friday.svg friday.pcapng         draw it
  weir replay --policy new.toml --detect --learn-from calm.pcap a.pcap  what would the detectors have said?
  tcpdump -i eth0 -s 256 -w - | weir replay --policy new.toml -         until tcpdump ends

A capture that was cut off or damaged is judged as far as it goes; then the exit code is 1.")]
pub(crate) struct Args {
    /// The policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Another policy: show what the first does differently
    #[arg(long, value_name = "OTHER")]
    against: Option<PathBuf>,
    /// Judge as if every mode were "enforce", for every source
    #[arg(long)]
    enforce: bool,
    /// The length of the intervals over time (1ms to 30d) [default: as it fits the screen]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    /// Addresses of the host that captured, whose own packets are not judged [default: those that the policy names]
    #[arg(long, value_name = "PREFIX", value_parser = args::prefix)]
    local: Vec<IpNet>,
    /// Order sources by this
    #[arg(long, value_enum, default_value_t)]
    by: Order,
    /// How many sources, and how many differences
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Draw packets a second by verdict, for each service
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    detectors: detect::Detectors,
    /// The hash key of a source table, 64 hexadecimal digits, to pick the same sources of an `enforce_share`
    #[arg(long, value_name = "HEX", value_parser = hash_key, hide = true)]
    hash_key: Option<[u64; 4]>,
    /// Captures, in the order in which they were made; - reads standard input
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<FileOrInput>,
}

/// By what sources are ordered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Order {
    #[default]
    Packets,
    Bytes,
    Dropped,
}

fn interval(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(30 * 24);
    match units::parse_duration(text) {
        Ok(time) if (Duration::from_millis(1)..=LONGEST).contains(&time) => Ok(time),
        Ok(_) => Err("expected 1ms to 30d".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn hash_key(text: &str) -> Result<[u64; 4], String> {
    let wrong = || "expected 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut key = [0; 4];
    for (at, word) in key.iter_mut().enumerate() {
        *word = u64::from_str_radix(&text[at * 16..][..16], 16).map_err(|_| wrong())?;
    }
    Ok(key)
}

/// A policy that was read.
struct Judge {
    used: PolicyUsed,
    policy: Policy,
    lists: ListContents,
    /// The folder of the policy's file.
    folder: PathBuf,
}

impl Judge {
    fn read(file: &Path, enforce: bool, context: &Context) -> Result<Self, Failure> {
        let loaded = policy::load(file).map_err(|errors| Failure::of_policy(&errors))?;
        let folder = path::absolute(file)
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned))
            .unwrap_or_default();
        let lists =
            policy::lists::contents(&loaded.policy, &folder).map_err(|errors| Failure::of_policy(&errors))?;
        for warning in &loaded.warnings {
            context.remark(&format!("warning: {warning}"));
        }
        let policy = if enforce {
            enforced(&loaded.policy)
        } else {
            loaded.policy
        };
        let used = PolicyUsed {
            path: file.display().to_string(),
            sha256: loaded.sha256,
            mode: policy.mode,
        };
        Ok(Self {
            used,
            policy,
            lists,
            folder,
        })
    }

    /// The database that the policy names, if the detectors are to run.
    fn countries(&self, detectors: &detect::Detectors) -> Result<Option<Arc<Database>>, Failure> {
        let Some(geo) = self.policy.geo.as_ref().filter(|_| detectors.detect) else {
            return Ok(None);
        };
        let database = Database::open(&self.folder.join(&geo.database));
        let database = database.map_err(|error| {
            Failure::new(code::INVALID_POLICY, format!("geo.database: {error}"))
                .hint("without [geo] in the policy the detectors run without countries")
        })?;
        Ok(Some(Arc::new(database)))
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let inputs = args
        .captures
        .iter()
        .filter(|capture| **capture == FileOrInput::Input);
    if inputs.count() > 1 {
        return Err(Failure::usage("- stands twice: there is only one standard input"));
    }
    let judge = Judge::read(&args.policy, args.enforce, context)?;
    let other = match &args.against {
        Some(file) => Some(Judge::read(file, args.enforce, context)?),
        None => None,
    };
    args.detectors
        .check(args.captures.iter().filter_map(|capture| match capture {
            FileOrInput::File(path) => Some(path.as_path()),
            FileOrInput::Input => None,
        }))?;
    // All of them before the long run: a name that is wrong should not cost an hour.
    let open = |captures: &[FileOrInput]| -> Result<Vec<Capture>, Failure> {
        captures.iter().map(Capture::open).collect()
    };
    let captures = open(&args.captures)?;
    let lessons: Vec<FileOrInput> = args
        .detectors
        .learn_from
        .iter()
        .cloned()
        .map(FileOrInput::File)
        .collect();
    let lessons = open(&lessons)?;
    let plot = args.plot.as_deref().map(PlotFile::open).transpose()?;
    let length = captures
        .iter()
        .chain(&lessons)
        .map(|capture| capture.length)
        .sum();
    let mut progress = Progress::new(length, context.json);

    let mut options = Options {
        interval: args.interval,
        local: args.local.clone(),
        key: args.hash_key.unwrap_or(KEY),
        detect: args.detectors.detect.then_some(detectors::Options {
            every_packet: args.detectors.every_packet,
            learned: args.detectors.saved()?,
            countries: judge.countries(&args.detectors)?,
        }),
    };
    if !lessons.is_empty() {
        learn(&judge, &mut options, lessons, &mut progress)?;
    }
    if let Some(from) = options.detect.as_ref().and_then(|of| of.learned.as_ref())
        && !context.json
    {
        progress.clear();
        print(&detect::learned(&from.from))?;
    }
    let mut replay = begin(&judge, other.as_ref(), &options)?;
    let names = captures.iter().map(|capture| capture.name.clone()).collect();
    let mut watch = Watch::new(!context.json);
    let failed = captures
        .into_iter()
        .find_map(|capture| read(capture, &mut replay, &mut progress, &mut watch).err());
    replay.finish();
    watch.show(&replay, &mut progress)?;
    progress.clear();
    if let Some(failure) = &failed
        && replay.packets() == 0
    {
        return Err(failure.clone());
    }
    let report = replay.report(Heading {
        policy: judge.used,
        against: other.map(|other| other.used),
        captures: names,
        error: failed.as_ref().map(|failure| failure.message().to_owned()),
        by: match args.by {
            Order::Packets => By::Packets,
            Order::Bytes => By::Bytes,
            Order::Dropped => By::Dropped,
        },
        limit: args.limit,
    });
    if let Some(plot) = plot {
        plot.write(&plot::svg(&replay, &report))?;
    }
    if context.json {
        print_json(&report)?;
    } else {
        print(&text::text(&report, args.limit))?;
    }
    // What was judged is said; that it was not all is said as well.
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn begin(judge: &Judge, other: Option<&Judge>, options: &Options) -> Result<Replay, Failure> {
    Replay::new(
        (&judge.policy, &judge.lists),
        other.map(|other| (&other.policy, &other.lists)),
        options,
    )
    .map_err(|error| Failure::new(code::TOO_LARGE, error.to_string()))
}

/// Lets the detectors learn from captures before those that are to be judged.
fn learn(
    judge: &Judge,
    options: &mut Options,
    lessons: Vec<Capture>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let names = lessons.iter().map(|capture| capture.name.clone()).collect();
    let mut replay = begin(judge, None, options)?;
    for capture in lessons {
        // What was learned from a part of a capture would say less than its name does.
        read(capture, &mut replay, progress, &mut Watch::new(false))
            .map_err(|failure| failure.hint("give --learn-from a capture that is whole"))?;
    }
    replay.finish();
    if let Some(detect) = &mut options.detect {
        detect.learned = replay.into_learned(names);
    }
    Ok(())
}

/// Shows what the detectors say as soon as they say it.
struct Watch {
    wanted: bool,
    shown: usize,
}

impl Watch {
    const fn new(wanted: bool) -> Self {
        Self { wanted, shown: 0 }
    }

    fn show(&mut self, replay: &Replay, progress: &mut Progress) -> Result<(), Failure> {
        if !self.wanted {
            return Ok(());
        }
        for change in replay.changes(self.shown) {
            progress.clear();
            print(&detect::changed(change))?;
            self.shown += 1;
        }
        Ok(())
    }
}

/// A capture that was opened.
struct Capture {
    name: String,
    source: Box<dyn Read>,
    /// In bytes; 0 where nobody knows.
    length: u64,
}

impl Capture {
    fn open(from: &FileOrInput) -> Result<Self, Failure> {
        match from {
            FileOrInput::Input => Ok(Self {
                name: "standard input".to_owned(),
                source: Box::new(io::stdin().lock()),
                length: 0,
            }),
            FileOrInput::File(path) => {
                let name = path.display().to_string();
                let file = File::open(path).map_err(|error| {
                    Failure::new(code::NOT_FOUND, format!("cannot read {name}: {error}"))
                        .hint("name a pcap or pcapng file, or - for standard input")
                })?;
                let length = file
                    .metadata()
                    .map_or(0, |of| if of.is_file() { of.len() } else { 0 });
                Ok(Self {
                    name,
                    source: Box::new(file),
                    length,
                })
            }
        }
    }
}

/// Judges a whole capture.
fn read(
    capture: Capture,
    replay: &mut Replay,
    progress: &mut Progress,
    watch: &mut Watch,
) -> Result<(), Failure> {
    let Capture { name, source, .. } = capture;
    let wrong = |what: String| Failure::new(code::INTERNAL, format!("{name}: {what}"));
    let before = replay.packets();
    let mut reader = Reader::new(progress.watch(source)).map_err(|error| wrong(error.to_string()))?;
    loop {
        match reader.next() {
            Ok(Some(packet)) => replay.packet(&packet).map_err(|foreign| {
                wrong(format!(
                    "packet {} was captured on {foreign}; capture on an Ethernet interface, or on any (tcpdump -i any)",
                    replay.packets() - before + 1
                ))
            })?,
            Ok(None) => return Ok(()),
            Err(error) => {
                let packets = replay.packets() - before;
                return Err(wrong(format!("{error} ({packets} packets)")));
            }
        }
        watch.show(replay, progress)?;
        progress.show(replay.packets());
    }
}

/// The file of a drawing, opened before the replay: that it cannot be written is said before the long run.
struct PlotFile {
    path: PathBuf,
    file: File,
    /// It was not there before, so it goes again if nothing is drawn.
    new: bool,
    written: bool,
}

impl PlotFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        let new = !path.exists();
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        Ok(Self {
            file: file.map_err(|error| cannot_write(path, &error))?,
            path: path.to_owned(),
            new,
            written: false,
        })
    }

    fn write(mut self, svg: &str) -> Result<(), Failure> {
        // What is no regular file (a pipe) has no length to set.
        let _ = self.file.set_len(0);
        let written = self.file.write_all(svg.as_bytes());
        written.map_err(|error| cannot_write(&self.path, &error))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for PlotFile {
    fn drop(&mut self) {
        if self.new && !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        code::INTERNAL,
        format!("cannot write {}: {error}", path.display()),
    )
    .hint("name a file for --plot in a folder that exists and that you may write to")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(interval("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0s", "31d", "10", "", "-1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hash_key_has_four_words() {
        let text = "0000000000000001000000000000000200000000000000030000000000000004";
        assert_eq!(hash_key(text), Ok([1, 2, 3, 4]));
        for wrong in ["", "12", &text[1..], &format!("+{}", &text[1..]), &"é".repeat(32)] {
            assert!(hash_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plot_that_was_not_drawn_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.svg");
        drop(PlotFile::open(&path).unwrap());
        assert!(!path.exists());
        PlotFile::open(&path).unwrap().write("a long drawing").unwrap();
        drop(PlotFile::open(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a long drawing");
        PlotFile::open(&path).unwrap().write("short").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short");
        let failure = PlotFile::open(&folder.path().join("none/a.svg")).err().unwrap();
        assert_eq!(failure.exit_code(), 1);
    }
}
