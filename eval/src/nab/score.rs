//! The scoring of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, arXiv 1510.03336, with the corrections of NAB 1.0).
//!
//! Each anomaly has a window. The first detection in it earns up to one point, the earlier the more; a window without one
//! costs a point; a detection outside costs the more the further it is behind the last window. The first rows of a series are
//! probation: nothing counts. One threshold holds for the whole corpus, the one that scores best; 0 is a detector that says
//! nothing, 100 one that says it at each window's first row.

use std::cmp::Ordering;

/// What right and wrong are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    /// What the first detection in a window earns at most.
    pub(crate) true_positive: f64,
    /// What a detection outside costs at most.
    pub(crate) false_positive: f64,
    /// What a window without a detection costs.
    pub(crate) false_negative: f64,
}

/// The three profiles of the benchmark. True negatives are worth nothing in any of them but for the name.
pub(crate) const PROFILES: [Profile; 3] = [
    Profile {
        name: "standard",
        true_positive: 1.0,
        false_positive: 0.11,
        false_negative: 1.0,
    },
    Profile {
        name: "reward_low_FP",
        true_positive: 1.0,
        false_positive: 0.22,
        false_negative: 1.0,
    },
    Profile {
        name: "reward_low_FN",
        true_positive: 1.0,
        false_positive: 0.11,
        false_negative: 2.0,
    },
];

/// The share of a series that is probation, of at most so many rows.
const PROBATION: f64 = 0.15;
const PROBATION_ROWS: f64 = 5000.0;

/// A series with a detector's scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// Its name.
    pub(crate) name: String,
    /// The score of every row.
    pub(crate) scores: Vec<f64>,
    /// The first and the last row of each window, in order.
    pub(crate) windows: Vec<(usize, usize)>,
}

/// What a corpus comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// 0 for a detector that says nothing, 100 for a perfect one.
    pub(crate) normalised: f64,
    /// Rows with at least this score are detections; above every score when it is best to say nothing.
    pub(crate) threshold: f64,
    /// Each series' part, in the order given.
    pub(crate) series: Vec<Part>,
}

/// What a series comes to at the corpus' threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Points.
    pub(crate) score: f64,
    /// Windows that were found, and all of them.
    pub(crate) found: usize,
    pub(crate) windows: usize,
    /// Detections outside.
    pub(crate) false_positives: usize,
}

/// A row that counts.
struct Row {
    score: f64,
    series: usize,
    /// Which of the corpus' windows it lies in.
    window: Option<usize>,
    /// What it is worth as a detection.
    worth: f64,
}

/// 1 long before the end of a window (0), -1 long after it.
fn position_worth(position: f64) -> f64 {
    if position > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * position).exp()) - 1.0
    }
}

/// Rows that are not scored.
fn probation(rows: usize) -> usize {
    (PROBATION * (rows as f64).min(PROBATION_ROWS)).floor() as usize
}

/// The rows of a series that count, its windows numbered from `first_window` on.
fn rows(series: usize, scored: &Scored, first_window: usize, profile: Profile) -> Vec<Row> {
    let probation = probation(scored.scores.len());
    let mut current = 0;
    let mut rows = Vec::with_capacity(scored.scores.len());
    for (row, &score) in scored.scores.iter().enumerate() {
        while scored.windows.get(current).is_some_and(|&(_, last)| last < row) {
            current += 1;
        }
        if row < probation {
            continue;
        }
        let inside = scored.windows.get(current).filter(|&&(first, _)| first <= row);
        let (window, worth) = match (
            inside,
            current.checked_sub(1).map(|before| scored.windows[before]),
        ) {
            (Some(&(first, last)), _) => {
                let width = (last - first + 1) as f64;
                let position = -((last - row + 1) as f64) / width;
                let most = position_worth(-1.0);
                (
                    Some(first_window + current),
                    position_worth(position) / most * profile.true_positive,
                )
            }
            (None, Some((first, last))) => {
                let position = (row - last) as f64 / ((last - first).max(1) as f64);
                (None, position_worth(position) * profile.false_positive)
            }
            (None, None) => (None, -profile.false_positive),
        };
        rows.push(Row {
            score,
            series,
            window,
            worth,
        });
    }
    rows
}

/// Scores a corpus, at the threshold that is best for it.
pub(crate) fn score(corpus: &[Scored], profile: Profile) -> Outcome {
    let mut all = Vec::new();
    let mut owners = Vec::new();
    for (series, scored) in corpus.iter().enumerate() {
        all.extend(rows(series, scored, owners.len(), profile));
        owners.extend(std::iter::repeat_n(series, scored.windows.len()));
    }
    // A window that lies wholly within probation can be neither found nor missed.
    let mut counts = vec![false; owners.len()];
    for window in all.iter().filter_map(|row| row.window) {
        counts[window] = true;
    }
    all.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));

    let windows = counts.iter().filter(|&&counts| counts).count() as f64;
    let nothing = -profile.false_negative * windows;
    let mut best = (nothing, 0);
    let mut total = nothing;
    let mut found: Vec<Option<f64>> = vec![None; owners.len()];
    for (index, row) in all.iter().enumerate() {
        total += gain(row, &mut found, profile);
        let last_of_its_score = all.get(index + 1).is_none_or(|next| next.score < row.score);
        if last_of_its_score && total > best.0 {
            best = (total, index + 1);
        }
    }

    let detections = &all[..best.1];
    let mut parts = vec![Part::default(); corpus.len()];
    for (window, &series) in owners.iter().enumerate() {
        if counts[window] {
            parts[series].windows += 1;
            parts[series].score -= profile.false_negative;
        }
    }
    let mut found = vec![None; owners.len()];
    for row in detections {
        let part = &mut parts[row.series];
        match row.window {
            Some(window) if found[window].is_none() => part.found += 1,
            Some(_) => {}
            None => part.false_positives += 1,
        }
        part.score += gain(row, &mut found, profile);
    }
    let perfect = profile.true_positive * windows;
    Outcome {
        normalised: if windows > 0.0 {
            100.0 * (best.0 - nothing) / (perfect - nothing)
        } else {
            0.0
        },
        threshold: detections.last().map_or(f64::INFINITY, |row| row.score),
        series: parts,
    }
}

/// What a further detection adds: of a window only the best one counts.
fn gain(row: &Row, found: &mut [Option<f64>], profile: Profile) -> f64 {
    let Some(window) = row.window else {
        return row.worth;
    };
    let before = found[window].unwrap_or(-profile.false_negative);
    if row.worth <= before {
        return 0.0;
    }
    found[window] = Some(row.worth);
    row.worth - before
}
