//! Recorded attacks put into normal traffic and into crowds.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};

use crate::{
    model::{
        frames::{self, Captured, Playback},
        random::mix,
        service::Hostile,
    },
    run::{
        injected::{Trial, into_crowd, judge, trial},
        normal::Weeks,
    },
};

/// Times the traffic that it is mixed into.
pub(crate) const STRENGTHS: [f64; 3] = [1.0, 2.0, 5.0];
/// How long each is played: as long as it is, but at least and at most so many seconds.
const LEAST: f64 = 12.0;
const MOST: f64 = 30.0;

/// Reads all captures of a folder, in the order of their names.
pub(crate) fn read(folder: &Path) -> Result<Vec<Captured>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|of| of.to_str()).unwrap_or_default();
        if matches!(extension, "pcap" | "pcapng" | "cap" | "gz") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| frames::read(path)).collect()
}

/// Plays every capture into every moment of a service.
pub(crate) fn run(captures: &[Captured], weeks: &Weeks, seed: u64) -> Vec<Trial> {
    let mut moments = weeks.moments.clone();
    if weeks.plan.crowds
        && let Some(calm) = moments.iter().find(|moment| moment.name == "calm")
    {
        let crowd = into_crowd(calm, mix(seed));
        moments.push(crowd);
    }
    let mut trials = Vec::new();
    for captured in captures {
        let frames: Arc<[_]> = captured.frames.clone().into();
        for moment in &moments {
            for strength in STRENGTHS {
                let seed = mix(seed ^ strength.to_bits() ^ mix(frames.len() as u64));
                let lasts = captured.seconds.clamp(LEAST, MOST);
                let (watch, begins, rate) = trial(moment, seed, lasts, |begins, usual| {
                    let playback = Playback {
                        frames: Arc::clone(&frames),
                        begins,
                        ends: begins + lasts,
                        packets_per_second: strength * usual,
                        next: 0,
                    };
                    (Hostile::Recorded(playback), strength * usual)
                });
                let (any, right, last, over, early, why) = judge(watch, begins, lasts, captured.kind, None);
                trials.push(Trial {
                    name: captured.name.clone(),
                    kind: captured.kind,
                    also: None,
                    service: weeks.plan.name,
                    moment: moment.name,
                    strength,
                    rate,
                    any,
                    right,
                    last,
                    over,
                    early,
                    why,
                });
            }
        }
    }
    trials
}
