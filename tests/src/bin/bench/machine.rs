//! Where and when it was measured, and how much of it.

use std::{fs, thread, time::SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Effort, filters};

/// What a reader of the figures must know of the machine.
pub(crate) struct About {
    kernel: String,
    processor: String,
    cpus: usize,
    date: String,
    load: String,
    quick: bool,
    rounds: [usize; 3],
    parts: usize,
    part_ms: u128,
    others: Vec<String>,
}

/// Looks around.
pub(crate) fn about(quick: bool, effort: &Effort) -> Result<About> {
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let processor = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(About {
        kernel: kernel.trim().to_owned(),
        processor: processor.to_owned(),
        cpus: thread::available_parallelism()?.get(),
        date: date(
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)?
                .as_secs(),
        ),
        load: load.split_whitespace().next().unwrap_or_default().to_owned(),
        quick,
        rounds: [effort.packet.rounds, effort.wire.0, effort.control],
        parts: effort.packet.parts,
        part_ms: effort.packet.part.as_millis(),
        others: filters::versions(),
    })
}

impl About {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let [packet, wire, control] = self.rounds;
        let mut lines = vec![
            format!(
                "Linux {}, {} CPUs of {}, {}; load before the run {}.",
                self.kernel, self.cpus, self.processor, self.date, self.load
            ),
            format!(
                "{}Test-run: {packet} rounds of {} parts of {} ms; end to end: {wire} rounds; control: {control}. Medians, with the least and the most.",
                if self.quick {
                    "A quick run, not for conclusions. "
                } else {
                    ""
                },
                self.parts,
                self.part_ms
            ),
        ];
        if !self.others.is_empty() {
            lines.push(format!("Measured beside: {}.", self.others.join("; ")));
        }
        lines
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let [packet, wire, control] = self.rounds;
        json!({
            "kernel": self.kernel, "processor": self.processor, "cpus": self.cpus, "date": self.date, "load": self.load,
            "quick": self.quick, "rounds": { "packet": packet, "wire": wire, "control": control },
            "packet_parts": self.parts, "packet_part_ms": self.part_ms as u64,
            "others": self.others,
        })
    }
}

/// The day of a time in seconds since 1970, in UTC: Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_their_names() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_392_000), "2026-11-23");
    }
}
