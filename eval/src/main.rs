//! Measures the detectors: delays, false alarms and confusion over a model of traffic and over captures, and the scores of
//! public benchmarks. `cargo xtask eval` runs it.

mod demands;
mod model;
mod nab;
mod report;
mod run;

use std::{num::NonZero, path::PathBuf, process::ExitCode, sync::Mutex, thread, time::Instant};

use anyhow::{Result, bail};
use clap::Parser;

use model::{plan::PLANS, random::mix, tally::Sampling};
use report::{Results, ServiceResults};
use run::{captures, crowds, injected, normal};

/// The file of the series of crowds, within the folder of series.
const CROWDS: &str = "worldcup98-requests-per-minute.csv";
/// The folder of the Numenta series, within it.
const BENCHMARK: &str = "nab";

/// Measure the detectors, and print a table
#[derive(Debug, Parser)]
#[command(name = "cargo xtask eval", bin_name = "cargo xtask eval")]
struct Options {
    /// The seed that all chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Weeks of normal traffic for each service
    #[arg(long, default_value_t = 8.0)]
    weeks: f64,
    /// Less of everything, in well under a minute: a week of two services, few attacks, six days of the World Cup
    #[arg(long)]
    quick: bool,
    /// Only these services
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Only these parts: normal, attacks, cold, crowds, captures, worldcup, nab
    #[arg(long = "part", value_name = "PART")]
    parts: Vec<String>,
    /// A folder of captures of attacks, inbound only, to be mixed into the modelled traffic
    #[arg(long, value_name = "DIR")]
    captures: Option<PathBuf>,
    /// A folder of series: worldcup98-requests-per-minute.csv, and nab/ with windows.json and data/
    #[arg(long, value_name = "DIR")]
    traffic: Option<PathBuf>,
    /// One packet in so many is sampled
    #[arg(long, default_value_t = 1000.0)]
    one_in: f64,
    /// Services that run at the same time; 0: as many as there are CPUs
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Exit 1 where a demand is not met
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(met) => {
            if met {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const PARTS: [&str; 7] = [
    "normal", "attacks", "cold", "crowds", "captures", "worldcup", "nab",
];

fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    for part in &options.parts {
        if !PARTS.contains(&part.as_str()) {
            bail!("there is no part {part}: expected one of {}", PARTS.join(", "));
        }
    }
    let wanted = |part: &str| options.parts.is_empty() || options.parts.iter().any(|of| of == part);
    let mut plans = PLANS.to_vec();
    for name in &options.services {
        if !PLANS.iter().any(|plan| plan.name == name) {
            let names: Vec<&str> = PLANS.iter().map(|plan| plan.name).collect();
            bail!(
                "no service {name} is modelled: expected one of {}",
                names.join(", ")
            );
        }
    }
    if !options.services.is_empty() {
        plans.retain(|plan| options.services.iter().any(|name| name == plan.name));
    } else if options.quick {
        plans.truncate(2);
    }
    if !(options.weeks > 0.0 && options.weeks <= 104.0) {
        bail!("--weeks {}: expected more than 0 and at most 104", options.weeks);
    }
    if !(options.one_in >= 1.0) {
        bail!("--one-in {}: expected at least 1", options.one_in);
    }
    let weeks = if options.quick {
        options.weeks.min(1.0)
    } else {
        options.weeks
    };
    let sampling = Sampling {
        one_in: options.one_in,
        ..Sampling::default()
    };
    let series = match &options.traffic {
        Some(folder) if wanted("worldcup") || wanted("crowds") => Some(crowds::read(&folder.join(CROWDS))?),
        _ => None,
    };
    let captured = match &options.captures {
        Some(folder) if wanted("captures") => captures::read(folder)?,
        _ => Vec::new(),
    };
    let strengths: &[f64] = if options.quick {
        &[0.5, 2.0, 20.0]
    } else {
        &injected::STRENGTHS
    };
    let shapes = if options.quick { 3 } else { 15 };

    let next = Mutex::new(0_usize);
    let services = Mutex::new(Vec::new());
    let recorded = Mutex::new(None);
    let benchmark = Mutex::new(None);
    let one_service = |number: usize| {
        let plan = plans[number];
        // Names, not numbers: the same service has the same traffic whichever others run.
        let seed = plan
            .name
            .bytes()
            .fold(options.seed, |seed, byte| mix(seed ^ u64::from(byte)));
        let weeks = normal::run(plan, weeks, seed, sampling);
        let attacks = if wanted("attacks") {
            injected::run(&weeks, seed, strengths)
        } else {
            Vec::new()
        };
        let cold = if wanted("cold") {
            injected::cold(&weeks, seed, strengths)
        } else {
            Vec::new()
        };
        let crowds = if wanted("crowds") && plan.crowds {
            crowds::modelled(&weeks, series.as_ref(), seed, shapes)
        } else {
            Vec::new()
        };
        let captures = captures::run(&captured, &weeks, seed);
        if let Ok(mut services) = services.lock() {
            services.push((
                number,
                ServiceResults {
                    weeks,
                    attacks,
                    cold,
                    crowds,
                    captures,
                },
            ));
        }
    };
    let trained = ["normal", "attacks", "cold", "crowds", "captures"]
        .into_iter()
        .any(wanted);
    let work = |task: usize| match task {
        0 => {
            if let (Some(series), true) = (&series, wanted("worldcup")) {
                let days = options.quick.then_some(16);
                let result = crowds::recorded(series, days, mix(options.seed), sampling);
                if let Ok(mut recorded) = recorded.lock() {
                    *recorded = Some(result);
                }
            }
        }
        1 => {
            if let (Some(folder), true) = (&options.traffic, wanted("nab")) {
                let result = report::benchmark(&folder.join(BENCHMARK));
                if let Ok(mut benchmark) = benchmark.lock() {
                    *benchmark = Some(result);
                }
            }
        }
        number => {
            if trained {
                one_service(number - 2);
            }
        }
    };
    let jobs = match options.jobs {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        jobs => jobs,
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Ok(mut at) = next.lock() else { return };
                    let task = *at;
                    *at += 1;
                    drop(at);
                    if task >= plans.len() + 2 {
                        return;
                    }
                    work(task);
                }
            });
        }
    });
    let mut services = services.into_inner().unwrap_or_default();
    services.sort_by_key(|(number, _)| *number);
    let results = Results {
        seed: options.seed,
        weeks,
        quick: options.quick,
        one_in: options.one_in,
        services: services.into_iter().map(|(_, results)| results).collect(),
        recorded: recorded.into_inner().unwrap_or_default(),
        benchmark: benchmark.into_inner().unwrap_or_default(),
        captures: captured,
        took: begun.elapsed(),
    };
    let demands = demands::judge(&results);
    if options.json {
        println!("{}", report::json(&results, &demands));
    } else {
        print!("{}", report::text(&results, &demands));
    }
    let met = demands.iter().all(|demand| demand.met != Some(false));
    Ok(met || !options.check)
}
