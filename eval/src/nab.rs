//! The Numenta Anomaly Benchmark: the volume axis over its series, scored by its own published method.
//!
//! The detector is the one of `weir detect`, with the same constants: every row is scored before it is learned.

mod score;

use std::{collections::BTreeMap, fmt::Write as _, fs::File, path::Path};

use anyhow::{Context, Result, ensure};
use gateway_detect::volume::Recorded;
use weir::series::{self, Series};

use self::score::{Outcome, PROFILES, Scored};

/// Scores the series of a folder with `data/**.csv` (columns `timestamp` and `value`) and `windows.json` (for each file, the
/// first and the last time of every window): the score of the standard profile, and a table of what each comes to.
pub(crate) fn run(folder: &Path) -> Result<(f64, String)> {
    let corpus = corpus(folder)?;
    let outcomes = PROFILES.map(|profile| score::score(&corpus, profile));
    Ok((outcomes[0].normalised, table(&corpus, &outcomes)))
}

/// Reads the corpus and runs the detector over it.
fn corpus(folder: &Path) -> Result<Vec<Scored>> {
    let path = folder.join("windows.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: expected {{\"file\": [[\"first\", \"last\"], …], …}}",
                path.display()
            )
        })?;
    ensure!(!windows.is_empty(), "{} names no series", path.display());
    windows
        .into_iter()
        .map(|(name, windows)| {
            let file = folder.join("data").join(&name);
            detect(&file, name, &windows).with_context(|| file.display().to_string())
        })
        .collect()
}

/// Runs the detector over a series.
fn detect(file: &Path, name: String, windows: &[(String, String)]) -> Result<Scored> {
    let mut recorded = Recorded::default();
    let (mut times, mut scores) = (Vec::new(), Vec::new());
    for row in Series::new(File::open(file)?, "value", None)? {
        let row = row?;
        let (_, score) = recorded.look(row.at, row.value);
        times.push(row.at);
        scores.push(score);
    }
    let windows = windows
        .iter()
        .map(|(first, last)| rows_of(&times, first, last))
        .collect::<Result<_>>()?;
    Ok(Scored {
        name,
        scores,
        windows,
    })
}

/// The first and the last row of a window.
fn rows_of(times: &[f64], first: &str, last: &str) -> Result<(usize, usize)> {
    let time = |text: &str| series::time(text).with_context(|| format!("windows.json: {text:?} is no time"));
    let (begin, end) = (time(first)?, time(last)?);
    let from = times.partition_point(|&at| at < begin);
    let to = times.partition_point(|&at| at <= end);
    ensure!(from < to, "windows.json: no row lies between {first} and {last}");
    Ok((from, to - 1))
}

/// A line for each series, and the totals.
fn table(corpus: &[Scored], outcomes: &[Outcome]) -> String {
    let width = corpus.iter().map(|scored| scored.name.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:width$}  {:>6}  {:>5}  {:>5}\n",
        "SERIES", "SCORE", "FOUND", "FALSE"
    );
    let standard = &outcomes[0];
    // Writing to a string does not fail.
    for (scored, part) in corpus.iter().zip(&standard.series) {
        let _ = writeln!(
            text,
            "{:width$}  {:>6.2}  {:>5}  {:>5}",
            scored.name,
            part.score,
            format!("{}/{}", part.found, part.windows),
            part.false_positives
        );
    }
    for (profile, outcome) in PROFILES.iter().zip(outcomes) {
        let found: usize = outcome.series.iter().map(|part| part.found).sum();
        let windows: usize = outcome.series.iter().map(|part| part.windows).sum();
        let wrong: usize = outcome.series.iter().map(|part| part.false_positives).sum();
        let _ = writeln!(
            text,
            "{:width$}  {:>6.1}  {:>5}  {:>5}  rows that score at least {:.4}",
            profile.name,
            outcome.normalised,
            format!("{found}/{windows}"),
            wrong,
            outcome.threshold
        );
    }
    text
}
