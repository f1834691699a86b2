//! Counts tests from what `cargo test` prints.

use std::fmt;

/// What came out of one or several runs of `cargo test`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// The lines `SKIP name: why` of tests that this machine cannot run.
    skips: Vec<String>,
    /// The names of what failed, in order.
    failures: Vec<String>,
    /// The last line as far as it has come.
    unfinished: Vec<u8>,
    /// Whether the list of failed tests is being printed.
    in_failures: bool,
}

impl Tally {
    /// Takes in the next piece of output.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.unfinished);
                self.line(&String::from_utf8_lossy(&line));
            } else {
                self.unfinished.push(byte);
            }
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(skip) = skip_in(line) {
            self.skips.push(skip.to_owned());
        }
        if line == "failures:" {
            self.in_failures = true;
        } else if self.in_failures
            && let Some(name) = line.strip_prefix("    ").filter(|it| !it.starts_with(' '))
        {
            // The first of the two lists holds the output of the tests, the second the names alone; output may
            // look like a name too, so only the names that the second one holds are kept.
            self.failures.push(name.to_owned());
        } else if line.starts_with("---- ") {
            self.in_failures = false;
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_failures = false;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.skipped += number_before(result, " ignored");
        }
    }

    /// Ends a run of tests: one that failed without a failed test did not compile or died.
    pub(crate) fn end_run(&mut self, what: &str, succeeded: bool) {
        let unfinished = std::mem::take(&mut self.unfinished);
        self.line(&String::from_utf8_lossy(&unfinished));
        let said = self.skips.len() as u64;
        // The test harness knows no skips: a test that skipped itself counts as passed there.
        self.passed = self.passed.saturating_sub(said);
        self.skipped += said;
        if !succeeded && self.failed == 0 {
            self.failed = 1;
            self.failures.push(format!(
                "{what} (did not compile, or died before it could report)"
            ));
        }
    }

    /// Counts a check that is no test.
    pub(crate) fn check(&mut self, what: &str, succeeded: bool) {
        if succeeded {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(what.to_owned());
        }
    }

    /// Counts what cannot be run here, as `SKIP name: why`.
    pub(crate) fn skip(&mut self, skip: &str) {
        self.skipped += 1;
        self.skips.push(skip.to_owned());
    }

    /// Adds a run that has ended.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.skips.extend(other.skips);
        self.failures.extend(other.failures);
    }

    /// The same, with a place named behind every failure and every skip.
    pub(crate) fn on(mut self, place: &str) -> Self {
        for failure in &mut self.failures {
            *failure = format!("{failure} ({place})");
        }
        for skip in &mut self.skips {
            *skip = skip.replacen(": ", &format!(" ({place}): "), 1);
        }
        self
    }

    /// The three counts, right under `passed  failed  skipped`.
    pub(crate) fn columns(&self) -> String {
        format!("{:>6}  {:>6}  {:>7}", self.passed, self.failed, self.skipped)
    }

    /// Whether nothing failed.
    pub(crate) fn succeeded(&self) -> bool {
        self.failed == 0
    }

    /// How many passed, failed or were skipped.
    pub(crate) fn total(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }

    /// The skips, each as `SKIP name: why`.
    pub(crate) fn skips(&self) -> &[String] {
        &self.skips
    }

    /// The names of what failed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The skip that a line tells of. On one thread the harness prints `test name ... ` before the test
/// runs, and what the test says follows on the same line.
fn skip_in(line: &str) -> Option<&str> {
    let said = if line.starts_with("test ") {
        line.split_once(" ... ")?.1
    } else {
        line
    };
    let (name, _) = said.strip_prefix("SKIP ")?.split_once(": ")?;
    (!name.is_empty()).then_some(said)
}

/// The number before `label` in `ok. 3 passed; 0 failed; …`.
fn number_before(result: &str, label: &str) -> u64 {
    let before = result.find(label).map_or("", |end| &result[..end]);
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str, succeeded: bool) -> Tally {
        let mut tally = Tally::default();
        // In pieces that break lines anywhere.
        for piece in output.as_bytes().chunks(7) {
            tally.read(piece);
        }
        tally.end_run("host tests", succeeded);
        tally
    }

    const PASSING: &str = "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... ok\n\ntest result: ok. 3 passed; 0 \
        failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s\n";

    #[test]
    fn results_of_several_binaries_add_up() {
        let tally = read(&format!("{PASSING}\n{PASSING}"), true);
        assert_eq!(tally.to_string(), "6 passed, 0 failed, 0 skipped");
        assert!(tally.succeeded());
        assert_eq!(tally.total(), 6);
    }

    #[test]
    fn failures_are_counted_and_named() {
        let output = "test a ... ok\ntest m::b ... FAILED\n\nfailures:\n\n---- m::b stdout ----\n    not a name\n\n\n\
            failures:\n    m::b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let tally = read(output, false);
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failures(), ["m::b"]);
        assert!(!tally.succeeded());
    }

    #[test]
    fn a_skip_counts_as_skipped_and_not_as_passed() {
        let output = "test bond ... SKIP bond: this kernel cannot make interfaces of type bond\nok\nSKIP vlan: none\n\
            test other ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let tally = read(output, true);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 3 skipped");
        assert_eq!(
            tally.skips(),
            [
                "SKIP bond: this kernel cannot make interfaces of type bond",
                "SKIP vlan: none"
            ]
        );
    }

    #[test]
    fn talk_about_skips_is_no_skip() {
        assert_eq!(skip_in("we SKIP this: really"), None);
        assert_eq!(skip_in("test x ... ok"), None);
        assert_eq!(skip_in("SKIP without a reason"), None);
    }

    #[test]
    fn a_run_that_dies_has_failed() {
        let tally = read("error: could not compile", false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
        let died_later = read(PASSING, false);
        assert_eq!(died_later.to_string(), "3 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn runs_and_checks_add_up() {
        let mut all = read(PASSING, true);
        all.check("clippy", false);
        all.check("format", true);
        all.add(read(PASSING, true));
        assert_eq!(all.to_string(), "7 passed, 1 failed, 0 skipped");
        assert_eq!(all.failures(), ["clippy"]);
    }
}
