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
mod wire;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{demanded::Known, table::Table};

/// How long each part goes on.
struct Effort {
    /// Rounds and runs of the test-run.
    packet: (usize, u32),
    /// Rounds and time of a turn, end to end.
    wire: (usize, Duration),
    /// Rounds of the controller's work.
    control: usize,
}

const FULL: Effort = Effort {
    packet: (25, 200_000),
    wire: (21, Duration::from_millis(250)),
    control: 5,
};
const QUICK: Effort = Effort {
    packet: (3, 50_000),
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
    let (mut form, mut quick, mut only, mut rows) = (Form::Plain, false, None, None);
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
                Some(text) => rows = Some(text),
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
    let only = only.or_else(|| rows.as_ref().map(|_| PARTS[0].to_owned()));
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
        let (packets, leasts) =
            packet::measure(effort.packet.0, effort.packet.1, rows.as_deref().unwrap_or(""))?;
        known.leasts = leasts;
        show(packets);
        if rows.is_none() {
            let (two, ratios) = packet::two_cpus(effort.packet.0, effort.packet.1 * 8)?;
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
                json!({ "schema": 1, "about": about.json(), "tables": tables })
            );
        }
    }
    Ok(())
}
