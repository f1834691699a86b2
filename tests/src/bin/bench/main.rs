//! What Weir costs, measured side by side: a packet under the kernel's own test-run, a packet end to end beside the
//! filters that a user might take instead, and the controller's work. All variants take turns in every round.
//!
//! The figures are for comparing rows of one run on one machine: shared machines drift between runs.

mod cases;
mod control;
mod demanded;
mod filters;
mod machine;
mod packet;
mod programs;
mod table;
mod two_cpus;
mod wire;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{demanded::Known, table::Table};

/// How long each part goes on.
struct Effort {
    /// Of the test-run.
    packet: Turns,
    /// Rounds and time of a turn, end to end.
    wire: (usize, Duration),
    /// Rounds of the controller's work.
    control: usize,
}

/// The turns of each row under the test-run. A part is a call of the kernel's, and all rows' parts last equally long: what disturbs a machine
/// comes and goes, and of short parts the least is undisturbed sooner than of long ones.
struct Turns {
    rounds: usize,
    /// Parts of a turn.
    parts: usize,
    part: Duration,
    /// Whether rows of a million sources or prefixes are measured, which take longest to load and to warm up.
    millions: bool,
}

impl Turns {
    /// How many runs take about as long as a part, if one takes so many nanoseconds.
    fn runs(&self, run: f64) -> u32 {
        let runs = self.part.as_nanos() as f64 / run.max(1.0);
        (runs as u32).clamp(1_000, 1_000_000)
    }
}

const FULL: Effort = Effort {
    packet: Turns {
        rounds: 20,
        parts: 12,
        part: Duration::from_millis(8),
        millions: true,
    },
    wire: (21, Duration::from_millis(250)),
    control: 5,
};
const QUICK: Effort = Effort {
    packet: Turns {
        rounds: 3,
        parts: 1,
        part: Duration::from_millis(4),
        millions: false,
    },
    wire: (3, Duration::from_millis(60)),
    control: 1,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Json,
    Markdown,
}

const PARTS: [&str; 3] = ["packet", "wire", "control"];

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut form, mut quick, mut only) = (Form::Plain, false, None);
    let mut rows: Vec<String> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => form = Form::Json,
            "--markdown" => form = Form::Markdown,
            "--quick" => quick = true,
            "--only" => match arguments.next() {
                Some(part) if PARTS.contains(&part.as_str()) => only = Some(part),
                _ => bail!("--only is followed by one of {}", PARTS.join(", ")),
            },
            "--rows" => match arguments.next() {
                Some(text) => rows.push(text),
                None => bail!("--rows is followed by a part of the names of tables or rows"),
            },
            other => {
                bail!("no option {other}; there are --json, --markdown, --quick, --only PART and --rows TEXT")
            }
        }
    }
    weir_tests::skip::require_root();
    let effort = if quick { QUICK } else { FULL };
    // Some rows are rows of packets.
    let only = only.or_else(|| (!rows.is_empty()).then(|| PARTS[0].to_owned()));
    let asked = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut known = Known::default();
    let mut tables = Vec::new();
    let mut show = |new: Vec<Table>| {
        // Whoever waits for ten minutes sees what there is.
        if form == Form::Plain {
            for table in &new {
                println!("{}", table.plain());
            }
        }
        tables.extend(new);
    };
    let about = machine::about(quick, &effort)?;
    if form == Form::Plain {
        println!("{}\n", about.lines().join("\n"));
    }
    if asked("packet") {
        let (packets, leasts) = packet::measure(&effort.packet, &rows)?;
        known.leasts = leasts;
        show(packets);
        if rows.is_empty() {
            let (two, ratios) = two_cpus::measure(&effort.packet)?;
            known.two_cpus = ratios;
            show(vec![two]);
        }
    }
    if asked("wire") {
        let (wires, medians) = wire::measure(effort.wire.0, effort.wire.1)?;
        known.medians = medians;
        show(wires);
    }
    if asked("control") {
        show(control::measure(effort.control, quick)?);
    }
    show(vec![demanded::table(&known)]);
    match form {
        Form::Plain => {}
        Form::Markdown => {
            println!("{}\n", about.lines().join("\n"));
            for table in &tables {
                println!("{}", table.markdown());
            }
        }
        Form::Json => {
            let tables: Vec<Value> = tables.iter().map(Table::json).collect();
            println!(
                "{}",
                json!({ "schema": 2, "about": about.json(), "tables": tables })
            );
        }
    }
    Ok(())
}
