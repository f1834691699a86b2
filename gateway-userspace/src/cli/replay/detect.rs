//! `weir replay --detect`: what the detectors are told before, and what they said.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use weir::{
    api::types::code,
    detect::{FILE, figure},
    replay::detect::{Changed, Detected, Learned, LearnedFrom},
};

use super::super::{
    output::Failure,
    table::{Align, Table, counted, grouped, rate, span},
};

/// Features and carriers that a line names.
const NAMED: usize = 3;

/// The flags of the detectors.
#[derive(Debug, clap::Args)]
pub(super) struct Detectors {
    /// Run the detectors, and say what they would have said and when
    #[arg(long)]
    pub(super) detect: bool,
    /// Let the detectors begin with what a controller has learned: `detectors` of its --state-dir
    #[arg(long, value_name = "FILE", requires = "detect")]
    pub(super) learned: Option<PathBuf>,
    /// Let the detectors learn from this capture first (once: the same traffic twice teaches nothing)
    #[arg(long, value_name = "CAPTURE", requires = "detect")]
    pub(super) learn_from: Vec<PathBuf>,
    /// Show the detectors every packet, not samples as [sampling] says
    #[arg(long, requires = "detect")]
    pub(super) every_packet: bool,
}

impl Detectors {
    /// What a controller has saved, if a file of it is named.
    pub(super) fn saved(&self) -> Result<Option<Learned>, Failure> {
        let Some(path) = &self.learned else {
            return Ok(None);
        };
        let path = if path.is_dir() {
            path.join(FILE)
        } else {
            path.clone()
        };
        let name = path.display().to_string();
        let bytes = fs::read(&path).map_err(|error| {
            Failure::new(code::NOT_FOUND, format!("cannot read {name}: {error}")).hint(format!(
                "name the file {FILE} of a controller's --state-dir, or that folder"
            ))
        })?;
        let learned = Learned::saved(&bytes, name.clone()).map_err(|error| {
            Failure::new(
                code::INTERNAL,
                format!("{name}: nothing can be known from it: {error}"),
            )
            .hint("name a file that a controller of this version wrote, or learn with --learn-from")
        })?;
        Ok(Some(learned))
    }

    /// Refuses to learn from a capture twice, and from the one that is to be judged: the detectors would take for known what
    /// they saw once, or what they are to find.
    pub(super) fn check<'a>(&self, judged: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
        // What cannot be found is said where it is opened.
        let same = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let judged: HashSet<PathBuf> = judged.map(same).collect();
        let mut learned = HashSet::new();
        for path in &self.learn_from {
            let name = path.display();
            if judged.contains(&same(path)) {
                return Err(Failure::usage(format!(
                    "--learn-from {name} is the capture that is to be judged: whatever is in it would be usual"
                )));
            }
            if !learned.insert(same(path)) {
                return Err(Failure::usage(format!(
                    "--learn-from {name} stands twice: the same traffic twice teaches nothing"
                )));
            }
        }
        Ok(())
    }
}

/// What was learned before, in a few lines.
pub(super) fn learned(from: &LearnedFrom) -> String {
    let mut sources = from.captures.clone();
    sources.extend(from.file.clone());
    let mut text = format!("learned from {}\n", sources.join(", "));
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("LEARNED", Align::Right),
        ("SECONDS", Align::Right),
        ("ANOMALOUS", Align::Right),
    ]);
    let whole = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |of| grouped(of.round() as u64));
    for (name, of) in &from.services {
        table.row([
            name.clone(),
            percent(of.learned),
            whole(of.seconds),
            whole(of.anomalous_seconds),
        ]);
    }
    let table = table.without("SECONDS", "-").without("ANOMALOUS", "-");
    let _ = writeln!(text, "{table}");
    text
}

/// A change of a verdict, in a line and a few indented ones.
pub(super) fn changed(of: &Changed) -> String {
    let named = |verdict: &str, kind: Option<&str>| match kind {
        Some(kind) => format!("{verdict} ({kind})"),
        None => verdict.to_owned(),
    };
    let mut text = format!(
        "{}  {:>+10.1} s  {}: {}, was {} for {}\n",
        of.at.strftime("%Y-%m-%dT%H:%M:%S%.1fZ"),
        of.offset_seconds,
        of.service,
        named(of.verdict, of.kind),
        named(of.before, of.kind_before),
        lasted(of.lasted_seconds),
    );
    let anomalous = matches!(of.verdict, "attack" | "crowd" | "stealth");
    if !anomalous {
        return text;
    }
    let indent = "    ";
    let after = of.after_first_seconds.map_or(String::new(), |seconds| {
        format!("{} after the service's first packet; ", lasted(seconds))
    });
    let _ = writeln!(
        text,
        "{indent}{after}scores: volume {:.1}, composition {:.1}",
        of.volume_score, of.composition_score,
    );
    let _ = writeln!(
        text,
        "{indent}{} packets/s, {} usual, {} of another kind",
        rate(of.packets_per_second),
        rate(of.expected_packets_per_second),
        rate(of.foreign_packets_per_second),
    );
    let features = of.features.iter().take(NAMED).map(|speaking| {
        format!(
            "{} {} (usually {}; {} of the score)",
            speaking.feature,
            number(speaking.value),
            number(speaking.expected),
            percent(speaking.share)
        )
    });
    let features: Vec<String> = features.collect();
    if !features.is_empty() {
        let _ = writeln!(text, "{indent}{}", features.join(", "));
    }
    let carriers = of.carriers.iter().take(NAMED).map(|carrier| {
        format!(
            "{} with {} packets/s ({})",
            carrier.prefix,
            rate(carrier.packets_per_second),
            percent(carrier.share)
        )
    });
    let carriers: Vec<String> = carriers.collect();
    if !carriers.is_empty() {
        let more = of.carriers.len() - carriers.len();
        let more = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        let _ = writeln!(text, "{indent}from {}{more}", carriers.join(", "));
    }
    text
}

/// How long each verdict was said of each service.
pub(super) fn seconds(detected: &Detected) -> String {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("LEARNING", Align::Right),
        ("QUIET", Align::Right),
        ("CROWD", Align::Right),
        ("STEALTH", Align::Right),
        ("ATTACK", Align::Right),
        ("KINDS", Align::Left),
        ("VOLUME", Align::Right),
        ("COMPOSITION", Align::Right),
        ("LEARNED", Align::Right),
    ]);
    for of in &detected.services {
        let said = |verdict: &str| exact(of.seconds.get(verdict).copied().unwrap_or(0.0));
        let kinds: Vec<String> = of
            .attack_seconds
            .iter()
            .map(|(kind, sum)| format!("{kind} {}", exact(*sum)))
            .collect();
        table.row([
            of.service.clone(),
            said("learning"),
            said("quiet"),
            said("crowd"),
            said("stealth"),
            said("attack"),
            kinds.join(", "),
            number(of.highest_volume_score),
            number(of.highest_composition_score),
            percent(of.learned),
        ]);
    }
    let mut text = format!("{}", table.without("KINDS", ""));
    text.push_str(
        "seconds by verdict; the highest scores (from 1 on an event is rarer than sensitivity allows)\n",
    );
    if detected.other_changes > 0 {
        let more = counted(
            detected.other_changes,
            "more change of a verdict",
            "more changes of verdicts",
        );
        let _ = writeln!(text, "there were {more}");
    }
    text
}

/// Seconds: whole ones without decimals.
fn exact(seconds: f64) -> String {
    let tenths = (seconds * 10.0).round() / 10.0;
    if tenths.fract() == 0.0 {
        grouped(tenths as u64)
    } else {
        format!("{tenths:.1}")
    }
}

fn lasted(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        span(seconds.round() as u64)
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share.clamp(0.0, 1.0) * 100.0)
}

/// A figure; one that is none has no digits.
fn number(value: f64) -> String {
    if value.is_finite() {
        figure(value)
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir::{
        controller::backend::{Clock as _, SystemClock},
        detect::Detection,
        events::EventLog,
        state::Store,
    };

    use super::*;

    #[test]
    fn numbers_say_what_matters() {
        assert_eq!((number(12.34), number(f64::NAN)), ("12.3".into(), "-".into()));
        assert_eq!(
            (exact(3.0), exact(3.25), exact(0.0)),
            ("3".into(), "3.3".into(), "0".into())
        );
        assert_eq!(
            (lasted(3.25), lasted(75.0)),
            ("3.2 s".into(), "1 min 15 s".into())
        );
        assert_eq!((percent(0.123), percent(7.0)), ("12 %".into(), "100 %".into()));
    }

    #[test]
    fn nothing_is_learned_twice_nor_from_what_is_judged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            path
        });
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&a, &link).unwrap();
        let check = |learn_from: &[&PathBuf], judged: &PathBuf| {
            let args = Detectors {
                detect: true,
                learn_from: learn_from.iter().map(|path| (*path).clone()).collect(),
                every_packet: false,
                learned: None,
            };
            args.check([judged.as_path()].into_iter())
        };
        assert_eq!(check(&[&a], &b), Ok(()));
        assert!(check(&[&a, &link], &b).unwrap_err().message().contains("twice"));
        assert!(check(&[&link], &a).unwrap_err().message().contains("judged"));
        assert_eq!(check(&[&link], &a).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn what_a_controller_saved_is_found_by_its_folder_too() {
        let folder = tempfile::tempdir().unwrap();
        let saved = |path: &Path| {
            let args = Detectors {
                detect: true,
                learned: Some(path.to_owned()),
                learn_from: Vec::new(),
                every_packet: false,
            };
            args.saved()
        };
        let none = saved(folder.path()).unwrap_err();
        assert!(
            none.message().contains("detectors: No such file"),
            "{}",
            none.message()
        );
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let events = Arc::new(EventLog::open(folder.path()));
        let now = SystemClock.now();
        Detection::open(store, events, now).save(now).unwrap();
        let file = folder.path().join(FILE);
        for path in [folder.path(), &file] {
            let learned = saved(path).unwrap().unwrap();
            assert_eq!(learned.from.file, Some(file.display().to_string()));
            assert!(learned.detectors.is_empty() && learned.until.is_some());
        }
        fs::write(&file, "something else").unwrap();
        let error = saved(&file).unwrap_err();
        assert!(error.message().contains("it is damaged"), "{}", error.message());
    }
}
