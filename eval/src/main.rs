//! Measures the detectors: delays, false alarms and confusion over a model of traffic and over captures, and the scores of
//! public benchmarks. `cargo xtask eval` runs it.

mod demands;
mod model;
mod nab;
mod report;
mod run;

use std::{
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Result, bail};
use clap::Parser;

use model::{
    frames::Captured,
    plan::{PLANS, Plan},
    random::mix,
    tally::Sampling,
};
use report::{Results, ServiceResults};
use run::{
    captures,
    crowds::{self, Recorded, Series},
    injected, normal, steps,
};

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
    /// Less of everything, in well under a minute: a week of two services, few attacks, thirteen days of the World Cup
    #[arg(long)]
    quick: bool,
    /// Only these services
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Only these parts: normal, attacks, cold, steps, crowds, captures, worldcup, nab
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

/// The parts.
const PARTS: [&str; 8] = [
    "normal", "attacks", "cold", "steps", "crowds", "captures", "worldcup", "nab",
];
/// Those that need services whose weeks are known.
const OF_SERVICES: [&str; 6] = ["normal", "attacks", "cold", "steps", "crowds", "captures"];

impl Options {
    /// Whether a part is wanted.
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|of| of == part)
    }

    /// Refuses what cannot be meant.
    fn check(&self) -> Result<()> {
        if let Some(part) = self.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            bail!("there is no part {part}: expected one of {}", PARTS.join(", "));
        }
        let names = PLANS.map(|plan| plan.name);
        if let Some(name) = self.services.iter().find(|name| !names.contains(&name.as_str())) {
            bail!(
                "no service {name} is modelled: expected one of {}",
                names.join(", ")
            );
        }
        if !(0.01..=104.0).contains(&self.weeks) {
            bail!("--weeks {}: expected 0.01 to 104", self.weeks);
        }
        if !(1.0..=1e9).contains(&self.one_in) {
            bail!("--one-in {}: expected 1 to 1,000,000,000", self.one_in);
        }
        Ok(())
    }

    /// The services that run.
    fn plans(&self) -> Vec<Plan> {
        let mut plans = PLANS.to_vec();
        if !self.services.is_empty() {
            plans.retain(|plan| self.services.iter().any(|name| name == plan.name));
        } else if self.quick {
            plans.truncate(2);
        }
        plans
    }
}

/// What every service is run with.
struct Runs<'a> {
    options: &'a Options,
    weeks: f64,
    sampling: Sampling,
    series: Option<Series>,
    captured: Vec<Captured>,
}

impl Runs<'_> {
    fn service(&self, plan: Plan) -> ServiceResults {
        let options = self.options;
        let strengths: &[f64] = if options.quick {
            &[0.5, 2.0, 20.0]
        } else {
            &injected::STRENGTHS
        };
        // Names, not numbers: the same service has the same traffic whichever others run.
        let seed = plan
            .name
            .bytes()
            .fold(options.seed, |seed, byte| mix(seed ^ u64::from(byte)));
        let weeks = normal::run(plan, self.weeks, seed, self.sampling);
        let mut results = ServiceResults {
            attacks: Vec::new(),
            cold: Vec::new(),
            steps: Vec::new(),
            crowds: Vec::new(),
            captures: captures::run(&self.captured, &weeks, seed),
            weeks,
        };
        let weeks = &results.weeks;
        if options.wants("attacks") {
            results.attacks = injected::run(weeks, seed, strengths);
        }
        if options.wants("cold") {
            results.cold = injected::cold(weeks, seed, strengths);
        }
        if options.wants("steps") {
            results.steps = steps::run(weeks, seed);
        }
        if options.wants("crowds") && plan.crowds {
            let shapes = if options.quick { 3 } else { 15 };
            results.crowds = crowds::modelled(weeks, self.series.as_ref(), seed, shapes);
        }
        results
    }

    fn recorded(&self) -> Option<Recorded> {
        let series = self.series.as_ref().filter(|_| self.options.wants("worldcup"))?;
        let days = self.options.quick.then_some(13);
        Some(crowds::recorded(
            series,
            days,
            mix(self.options.seed),
            self.sampling,
        ))
    }
}

/// Runs it all; whether every demand is met that was measured.
fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    options.check()?;
    let weeks = if options.quick {
        options.weeks.min(1.0)
    } else {
        options.weeks
    };
    let mut runs = Runs {
        options,
        weeks,
        sampling: Sampling {
            one_in: options.one_in,
            ..Sampling::default()
        },
        series: None,
        captured: Vec::new(),
    };
    let mut benchmark = None;
    if let Some(folder) = &options.traffic {
        if options.wants("worldcup") || options.wants("crowds") {
            runs.series = Some(crowds::read(&folder.join(CROWDS))?);
        }
        if options.wants("nab") {
            benchmark = Some(nab::run(&folder.join(BENCHMARK))?);
        }
    }
    if let Some(folder) = options.captures.as_ref().filter(|_| options.wants("captures")) {
        runs.captured = captures::read(folder)?;
    }
    let mut plans = options.plans();
    if !OF_SERVICES.into_iter().any(|part| options.wants(part)) {
        plans.clear();
    }

    // The series is the longest task: it goes first.
    let next = AtomicUsize::new(0);
    let (services, recorded) = (Mutex::new(Vec::new()), Mutex::new(None));
    let worker = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            let Some(number) = task.checked_sub(1) else {
                let result = runs.recorded();
                if let Ok(mut recorded) = recorded.lock() {
                    *recorded = result;
                }
                continue;
            };
            let Some(plan) = plans.get(number) else { return };
            let result = runs.service(*plan);
            if let Ok(mut services) = services.lock() {
                services.push((number, result));
            }
        }
    };
    let jobs = match options.jobs {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        jobs => jobs,
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(worker);
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
        benchmark,
        captures: runs.captured,
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
