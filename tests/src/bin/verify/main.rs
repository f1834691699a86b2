//! `cargo xtask verify`: what the BPF programs cost in counts, against their budgets.

use std::{env, fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use weir_tests::budgets::{self, Line};

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let (mut json, mut write) = (false, false);
    for arg in args {
        match arg.as_str() {
            "--json" => json = true,
            "--write" => write = true,
            other => bail!("{other} is not known; it takes --json and --write"),
        }
    }
    let measured = budgets::measure()?;
    if write {
        fs::write(budgets::FILE, budgets::written(&measured))
            .with_context(|| format!("cannot write {}", budgets::FILE))?;
    }
    let text = fs::read_to_string(budgets::FILE).with_context(|| format!("cannot read {}", budgets::FILE))?;
    let lines = budgets::compare(&measured, &text)?;
    if json {
        let line = |line: &Line| {
            json!({
                "program": line.program, "count": line.count, "measured": line.measured, "budget": line.budget,
                "fits": line.fits(),
            })
        };
        let lines: Vec<_> = lines.iter().map(line).collect();
        println!("{}", json!({ "schema": 1, "counts": lines }));
    } else {
        print!("{}", budgets::table(&lines));
    }
    if lines.iter().all(Line::fits) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "a program is over its budget: make it smaller, or set the budgets anew (--write) and say why in the commit"
    );
    Ok(ExitCode::FAILURE)
}
