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
    let mut text = table(&corpus, &outcomes);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "standard, each series at the threshold that is best for the others: {:.1}",
        score::held_out(&corpus, PROFILES[0])
    );
    Ok((outcomes[0].normalised, text))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A corpus of one series: a wave, and a surge in the row 1800.
    fn write(folder: &Path, windows: &str) {
        let data = folder.join("data/kind");
        std::fs::create_dir_all(&data).unwrap();
        let mut text = String::from("timestamp,value\n");
        for row in 0..2016_u32 {
            let wave = 100.0 + 50.0 * (f64::from(row % 288) / 288.0 * std::f64::consts::TAU).sin();
            let noise = f64::from(row.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
            let surge = if row == 1800 { 5.0 } else { 1.0 };
            let _ = writeln!(
                text,
                "{},{:.3}",
                1_700_000_000 + row * 300,
                surge * (wave + 10.0 * noise)
            );
        }
        std::fs::write(data.join("a.csv"), text).unwrap();
        std::fs::write(folder.join("windows.json"), windows).unwrap();
    }

    #[test]
    fn a_surge_is_found() {
        let folder = tempfile::tempdir().unwrap();
        // From row 1795 to row 1900.
        write(
            folder.path(),
            r#"{"kind/a.csv": [["2023-11-21 03:48:20.000000", "2023-11-21 12:33:20.000000"]]}"#,
        );
        let corpus = corpus(folder.path()).unwrap();
        assert_eq!(corpus[0].windows, [(1795, 1900)]);
        let (score, text) = run(folder.path()).unwrap();
        assert!(score > 95.0 && text.contains("kind/a.csv"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let complaint = |folder: &Path| format!("{:#}", run(folder).unwrap_err());
        assert!(complaint(folder.path()).contains("windows.json"));
        write(folder.path(), r#"{"kind/b.csv": []}"#);
        assert!(complaint(folder.path()).contains("kind/b.csv"));
        write(folder.path(), r#"{"kind/a.csv": [["soon", "later"]]}"#);
        assert!(complaint(folder.path()).contains("soon"));
        write(
            folder.path(),
            r#"{"kind/a.csv": [["2020-01-01 00:00:00", "2020-01-02 00:00:00"]]}"#,
        );
        assert!(complaint(folder.path()).contains("no row lies between"));
        write(folder.path(), "[]");
        assert!(complaint(folder.path()).contains("windows.json"));
    }
}
