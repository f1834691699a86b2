//! The source table measured: beside an `LRU_HASH` in the same program, and under simulated attackers who fill its lines.
//! `docs/source-table.md` says what came of it.

mod kernel;
mod model;

use anyhow::{Result, bail};

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("source-table: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut quick = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => quick = true,
            other => bail!("no option {other}; there is --quick"),
        }
    }
    weir_tests::skip::require_root();
    kernel::compare(quick)?;
    kernel::overload()?;
    model::attackers(quick)
}
