//! The scoring of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015, arXiv 1510.03336, with the corrections of NAB 1.0).
//!
//! Each anomaly has a window. The first detection in it earns up to one point, the earlier the more; a window without one
//! costs a point; a detection outside costs the more the further it is behind the last window. The first rows of a series are
//! probation: nothing counts. One threshold holds for the whole corpus, the one that scores best; 0 is a detector that says
//! nothing, 100 one that says it at each window's first row.

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

/// The rows of a corpus that count, the highest score first, and which series each window belongs to: none where the window
/// lies wholly within probation and can be neither found nor missed.
fn sorted(corpus: &[Scored], profile: Profile) -> (Vec<Row>, Vec<Option<usize>>) {
    let mut all = Vec::new();
    let mut owners = Vec::new();
    for (series, scored) in corpus.iter().enumerate() {
        let first = owners.len();
        owners.extend(std::iter::repeat_n(None, scored.windows.len()));
        let rows = rows(series, scored, first, profile);
        for window in rows.iter().filter_map(|row| row.window) {
            owners[window] = Some(series);
        }
        all.extend(rows);
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    (all, owners)
}

/// The threshold that is best for a corpus: infinite when it is best to say nothing.
fn best_threshold(rows: &[Row], windows: usize, owners: usize, profile: Profile) -> f64 {
    let mut total = -profile.false_negative * windows as f64;
    let mut best = (total, f64::INFINITY);
    let mut found = vec![None; owners];
    for (index, row) in rows.iter().enumerate() {
        total += gain(row, &mut found, profile);
        let last_of_its_score = rows.get(index + 1).is_none_or(|next| next.score < row.score);
        if last_of_its_score && total > best.0 {
            best = (total, row.score);
        }
    }
    best.1
}

/// What each series comes to at a threshold.
fn parts(
    rows: &[Row],
    owners: &[Option<usize>],
    count: usize,
    threshold: f64,
    profile: Profile,
) -> Vec<Part> {
    let mut parts = vec![Part::default(); count];
    for &series in owners.iter().flatten() {
        parts[series].windows += 1;
        parts[series].score -= profile.false_negative;
    }
    let mut found = vec![None; owners.len()];
    for row in rows.iter().take_while(|row| row.score >= threshold) {
        let part = &mut parts[row.series];
        match row.window {
            Some(window) if found[window].is_none() => part.found += 1,
            Some(_) => {}
            None => part.false_positives += 1,
        }
        part.score += gain(row, &mut found, profile);
    }
    parts
}

/// What parts come to, from 0 (nothing said) to 100 (everything at once).
fn normalised(parts: &[Part], profile: Profile) -> f64 {
    let windows: usize = parts.iter().map(|part| part.windows).sum();
    let nothing = -profile.false_negative * windows as f64;
    let perfect = profile.true_positive * windows as f64;
    let score: f64 = parts.iter().map(|part| part.score).sum();
    if windows > 0 {
        100.0 * (score - nothing) / (perfect - nothing)
    } else {
        0.0
    }
}

/// Scores a corpus, at the threshold that is best for it.
pub(crate) fn score(corpus: &[Scored], profile: Profile) -> Outcome {
    let (rows, owners) = sorted(corpus, profile);
    let windows = owners.iter().flatten().count();
    let threshold = best_threshold(&rows, windows, owners.len(), profile);
    let series = parts(&rows, &owners, corpus.len(), threshold, profile);
    Outcome {
        normalised: normalised(&series, profile),
        threshold,
        series,
    }
}

/// Scores a corpus, each series at the threshold that is best for the others: what is left when nobody knows the answers. Not
/// part of the benchmark.
pub(crate) fn held_out(corpus: &[Scored], profile: Profile) -> f64 {
    let all: Vec<Part> = (0..corpus.len())
        .map(|out| {
            let mut others = corpus.to_vec();
            let alone = others.remove(out);
            let threshold = score(&others, profile).threshold;
            let (rows, owners) = sorted(std::slice::from_ref(&alone), profile);
            parts(&rows, &owners, 1, threshold, profile)[0]
        })
        .collect();
    normalised(&all, profile)
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

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: Profile = PROFILES[0];

    /// A series of 1000 rows that score 0, but for these.
    fn series(loud: &[(usize, f64)], windows: &[(usize, usize)]) -> Scored {
        let mut scores = vec![0.0; 1000];
        for &(row, score) in loud {
            scores[row] = score;
        }
        Scored {
            name: "series".to_owned(),
            scores,
            windows: windows.to_vec(),
        }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn who_says_nothing_has_0_and_who_is_right_at_once_has_100() {
        let silent = score(&[series(&[], &[(400, 499)])], STANDARD);
        assert!(near(silent.normalised, 0.0) && silent.threshold.is_infinite());
        for profile in PROFILES {
            let perfect = score(
                &[series(&[(400, 1.0), (700, 1.0)], &[(400, 499), (700, 799)])],
                profile,
            );
            assert!(near(perfect.normalised, 100.0), "{}: {perfect:?}", profile.name);
            assert_eq!(
                (perfect.series[0].found, perfect.series[0].false_positives),
                (2, 0)
            );
        }
    }

    #[test]
    fn later_is_worth_less_and_only_the_first_counts() {
        let at = |rows: &[(usize, f64)]| score(&[series(rows, &[(400, 499)])], STANDARD).series[0].score;
        // Half-way: 2 / (1 + exp(-2.5)) - 1 = 0.8483, of the most that there is (0.9866).
        assert!(near(
            at(&[(450, 1.0)]),
            0.848_283_639_957_513 / 0.986_614_298_151_430_3
        ));
        assert!(at(&[(499, 1.0)]) > 0.0 && at(&[(499, 1.0)]) < 0.03);
        assert!(near(at(&[(450, 1.0), (460, 1.0), (499, 1.0)]), at(&[(450, 1.0)])));
    }

    #[test]
    fn a_false_detection_costs_more_the_further_it_is_behind_a_window() {
        // The window is found as well, at a higher score than the false one, so that the threshold lets both in.
        let cost = |row: usize, profile: Profile| {
            let scored = series(&[(400, 1.0), (row, 1.0)], &[(400, 499)]);
            1.0 - score(&[scored], profile).series[0].score
        };
        assert!(near(cost(900, STANDARD), 0.11), "{}", cost(900, STANDARD));
        assert!(
            near(cost(300, STANDARD), 0.11),
            "nothing is forgiven before the first window"
        );
        assert!(near(cost(900, PROFILES[1]), 0.22));
        let close = cost(505, STANDARD);
        assert!(close > 0.0 && close < 0.02, "{close}");
    }

    #[test]
    fn the_first_rows_are_probation() {
        // 15 % of 1000 rows; what is said there neither costs nor earns, and a window there does not count.
        let outcome = score(
            &[series(
                &[(10, 1.0), (149, 1.0), (400, 1.0)],
                &[(20, 60), (400, 499)],
            )],
            STANDARD,
        );
        assert!(near(outcome.normalised, 100.0), "{outcome:?}");
        assert_eq!(outcome.series[0].windows, 1);
        assert_eq!(probation(1000), 150);
        assert_eq!(probation(22_695), 750);
    }

    #[test]
    fn one_threshold_holds_for_all_and_it_is_the_best() {
        let corpus = [
            series(&[(400, 0.9), (600, 0.5)], &[(400, 499)]),
            series(&[(400, 0.7), (200, 0.6), (210, 0.6)], &[(400, 499)]),
        ];
        let outcome = score(&corpus, STANDARD);
        assert!(
            near(outcome.threshold, 0.7) && near(outcome.normalised, 100.0),
            "{outcome:?}"
        );
        // Rows of the same score stand or fall together.
        let tied = score(&[series(&[(400, 0.5), (900, 0.5)], &[(400, 499)])], STANDARD);
        assert!(near(tied.series[0].score, 0.89), "{tied:?}");
        let hopeless: Vec<(usize, f64)> = (200..399).map(|row| (row, 0.5)).chain([(400, 0.5)]).collect();
        assert!(
            score(&[series(&hopeless, &[(400, 499)])], STANDARD)
                .threshold
                .is_infinite()
        );
    }

    #[test]
    fn held_out_thresholds_come_from_the_others() {
        let good = series(&[(400, 0.9)], &[(400, 499)]);
        let quiet = series(&[(400, 0.1)], &[(400, 499)]);
        assert!(near(held_out(&[good.clone(), good.clone()], STANDARD), 100.0));
        // By the loud one's threshold the quiet one says nothing; by the quiet one's the loud one is found.
        assert!(near(held_out(&[good, quiet], STANDARD), 50.0));
    }
}
