//! How far a long replay has come: one line on standard error, while that is a terminal.

use std::{
    cell::Cell,
    io::{self, IsTerminal as _, Read, Write as _},
    rc::Rc,
    time::{Duration, Instant},
};

use super::super::table::{bytes, grouped};

/// A replay that takes less has no line.
const AFTER: Duration = Duration::from_secs(1);
/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);
/// How many packets lie between two looks at the clock.
const PACKETS: u64 = 16_384;
/// Signs of the bar.
const BAR: u64 = 24;

/// The line.
pub(super) struct Progress {
    /// Of all files, in bytes; 0 where nobody knows.
    length: u64,
    read: Rc<Cell<u64>>,
    began: Instant,
    last: Instant,
    shown: bool,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(length: u64, json: bool) -> Self {
        let now = Instant::now();
        Self {
            length,
            read: Rc::default(),
            began: now,
            last: now,
            shown: false,
            wanted: !json && io::stderr().is_terminal(),
        }
    }

    /// The source, watched as it is read.
    pub(super) fn watch(&self, source: Box<dyn Read>) -> impl Read + use<> {
        Watched {
            source,
            read: Rc::clone(&self.read),
        }
    }

    /// Shows how many packets were judged, if it is time to.
    pub(super) fn show(&mut self, packets: u64) {
        if !self.wanted || !packets.is_multiple_of(PACKETS) {
            return;
        }
        let now = Instant::now();
        if now - self.began < AFTER || self.shown && now - self.last < EVERY {
            return;
        }
        self.last = now;
        self.shown = true;
        let seconds = (now - self.began).as_secs_f64();
        // The line is only for the eye: that it cannot be written matters to nobody.
        let line = line(self.read.get(), self.length, packets, seconds);
        let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

fn line(read: u64, length: u64, packets: u64, seconds: f64) -> String {
    let rate = packets as f64 / seconds / 1e6;
    let packets = grouped(packets);
    if length == 0 {
        return format!("{} read, {packets} packets, {rate:.1} M/s", bytes(read));
    }
    let share = (read as f64 / length as f64).min(1.0);
    let filled = (share * BAR as f64) as usize;
    let bar = "#".repeat(filled) + &".".repeat(BAR as usize - filled);
    let left = seconds * (1.0 - share) / share.max(0.001);
    format!(
        "[{bar}] {:>3.0} %, {packets} packets, {rate:.1} M/s, {left:.0} s left",
        share * 100.0
    )
}

struct Watched {
    source: Box<dyn Read>,
    read: Rc<Cell<u64>>,
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(into)?;
        self.read.set(self.read.get() + len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_a_terminal() {
        assert_eq!(
            line(250, 1000, 1_234_567, 1.0),
            "[######..................]  25 %, 1,234,567 packets, 1.2 M/s, 3 s left"
        );
        assert_eq!(line(2_000_000, 0, 10, 1.0), "2 MB read, 10 packets, 0.0 M/s");
        assert!(line(1, u64::MAX, 123_456_789_012, 100_000.0).len() < 110);
    }
}
