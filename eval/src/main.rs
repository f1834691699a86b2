//! Measures the detectors: delays, false alarms and confusion over a model of traffic and over captures, and the scores of
//! public benchmarks. `cargo xtask eval` runs it.

mod nab;

use std::path::PathBuf;

use clap::Parser;

#[derive(Parser)]
struct Cli {
    /// A folder in the form of the Numenta Anomaly Benchmark: data/**.csv and windows.json
    #[arg(long, value_name = "FOLDER")]
    nab: PathBuf,
}

fn main() -> anyhow::Result<()> {
    nab::run(&Cli::parse().nab)?;
    Ok(())
}
