//! `history.json`: the revisions of the policy, who asked for each, and how it ended.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The most revisions that are kept.
const REVISIONS: usize = 50;
/// The most bytes of policy texts that are kept; beyond it the oldest revisions lose their texts.
const TEXT_BYTES: usize = 16 << 20;

/// How a revision ended, or has not.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In force, and waiting for confirmation.
    Pending,
    /// In force for good; while another one is pending, what that one goes back to.
    InForce,
    /// Another policy took its place.
    Replaced,
    /// It was not confirmed in time, and the policy before it came back.
    Reverted,
    /// Somebody took it back.
    RolledBack,
    /// The kernel refused it; it never was in force.
    Failed,
}

/// Who asked for a policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct By {
    /// The user.
    pub uid: u32,
    /// The process id, where the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its command line, if it could be read; cut off after 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// A policy that was put in force, or was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number; numbers are not used twice.
    pub revision: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// The file that the text came from.
    pub path: String,
    /// When it was applied.
    pub applied_at: Timestamp,
    /// Who asked; absent: the controller itself, at a start or on SIGHUP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// How it ended.
    pub outcome: Outcome,
    /// The earlier revision that it brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// When it came to stay: at once, or at its confirmation; absent: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its text, while there is room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The revisions, the oldest first. Bounded in number and bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct History {
    revisions: Vec<Revision>,
}

impl History {
    /// The name of its state file.
    pub const FILE: &str = "history.json";

    /// Every revision, the oldest first.
    pub fn revisions(&self) -> &[Revision] {
        &self.revisions
    }

    /// The highest number that was given; 0 for none.
    pub fn newest(&self) -> u64 {
        self.revisions.iter().map(|held| held.revision).max().unwrap_or(0)
    }

    /// A revision by its number.
    pub fn get(&self, revision: u64) -> Option<&Revision> {
        self.revisions.iter().find(|held| held.revision == revision)
    }

    /// The revision that waits for confirmation.
    pub fn pending(&self) -> Option<&Revision> {
        let mut newest_first = self.revisions.iter().rev();
        newest_first.find(|held| held.outcome == Outcome::Pending)
    }

    /// What to go back to from a revision: the newest before it that came to stay, says something else and has its text.
    pub fn before(&self, revision: u64, sha256: &str) -> Option<&Revision> {
        self.revisions.iter().rev().find(|held| {
            held.revision < revision
                && held.confirmed_at.is_some()
                && held.sha256 != sha256
                && held.text.is_some()
        })
    }

    /// Adds a revision. One that is in force for good ends the one before, with this outcome.
    pub fn add(&mut self, revision: Revision, ends_the_last_as: Outcome) {
        if revision.outcome == Outcome::InForce {
            self.end_in_force(ends_the_last_as, revision.applied_at);
        }
        self.revisions.retain(|held| held.revision != revision.revision);
        self.revisions.push(revision);
        self.trim();
    }

    /// The pending revision stays.
    pub fn confirm(&mut self, revision: u64, at: Timestamp) {
        self.end_in_force(Outcome::Replaced, at);
        if let Some(held) = self.find(revision) {
            held.outcome = Outcome::InForce;
            held.confirmed_at = Some(at);
        }
    }

    /// A revision ends, with a reason if it failed.
    pub fn end(&mut self, revision: u64, outcome: Outcome, at: Timestamp, why: Option<String>) {
        if let Some(held) = self.find(revision) {
            held.outcome = outcome;
            held.ended_at = Some(at);
            held.why = why;
        }
    }

    fn find(&mut self, revision: u64) -> Option<&mut Revision> {
        self.revisions.iter_mut().find(|held| held.revision == revision)
    }

    fn end_in_force(&mut self, outcome: Outcome, at: Timestamp) {
        let in_force = self
            .revisions
            .iter_mut()
            .filter(|held| held.outcome == Outcome::InForce);
        for held in in_force {
            held.outcome = outcome;
            held.ended_at = Some(at);
        }
    }

    /// Lets go of the oldest, never of one that is in force or pending.
    fn trim(&mut self) {
        let needed = |held: &Revision| matches!(held.outcome, Outcome::InForce | Outcome::Pending);
        while self.revisions.len() > REVISIONS {
            let Some(oldest) = self.revisions.iter().position(|held| !needed(held)) else {
                break;
            };
            self.revisions.remove(oldest);
        }
        let mut room = TEXT_BYTES;
        for held in self.revisions.iter_mut().rev() {
            let length = held.text.as_ref().map_or(0, String::len);
            if needed(held) || length <= room {
                room = room.saturating_sub(length);
            } else {
                held.text = None;
                // What is older goes too, so that what is left has no gaps that depend on sizes.
                room = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn revision(number: u64, text: &str, outcome: Outcome) -> Revision {
        Revision {
            revision: number,
            sha256: format!("sum of {text}"),
            path: "/p.toml".into(),
            applied_at: at(number as i64),
            by: None,
            outcome,
            restores: None,
            confirmed_at: (outcome == Outcome::InForce).then(|| at(number as i64)),
            ended_at: None,
            why: None,
            text: Some(text.into()),
        }
    }

    fn outcomes(history: &History) -> Vec<Outcome> {
        history.revisions().iter().map(|held| held.outcome).collect()
    }

    #[test]
    fn a_new_policy_ends_the_one_before_and_a_pending_one_does_not() {
        let mut history = History::default();
        history.add(revision(1, "a", Outcome::InForce), Outcome::Replaced);
        history.add(revision(2, "b", Outcome::InForce), Outcome::Replaced);
        assert_eq!(outcomes(&history), [Outcome::Replaced, Outcome::InForce]);
        history.add(revision(3, "c", Outcome::Pending), Outcome::Replaced);
        assert_eq!(outcomes(&history)[1..], [Outcome::InForce, Outcome::Pending]);
        history.end(3, Outcome::Reverted, at(9), None);
        assert_eq!(outcomes(&history)[1..], [Outcome::InForce, Outcome::Reverted]);
        history.add(revision(4, "d", Outcome::Pending), Outcome::Replaced);
        history.confirm(4, at(10));
        assert_eq!(outcomes(&history)[1], Outcome::Replaced);
        assert_eq!(history.get(4).unwrap().outcome, Outcome::InForce);
        assert_eq!(history.newest(), 4);
    }

    #[test]
    fn one_goes_back_to_the_last_that_stayed_and_says_something_else() {
        let mut history = History::default();
        history.add(revision(1, "a", Outcome::InForce), Outcome::Replaced);
        history.add(revision(2, "b", Outcome::InForce), Outcome::Replaced);
        history.add(revision(3, "b", Outcome::InForce), Outcome::Replaced);
        history.add(revision(4, "c", Outcome::Pending), Outcome::Replaced);
        history.end(4, Outcome::Reverted, at(5), None);
        let back = |history: &History, from: u64| {
            let from = history.get(from).unwrap();
            history
                .before(from.revision, &from.sha256)
                .map(|held| held.revision)
        };
        assert_eq!(back(&history, 3), Some(1), "2 says the same");
        assert_eq!(back(&history, 1), None);
        history.add(revision(5, "a", Outcome::InForce), Outcome::RolledBack);
        assert_eq!(back(&history, 5), Some(3), "and there again; 4 never stayed");
    }

    #[test]
    fn it_is_bounded_and_never_lets_go_of_what_is_in_force() {
        let mut history = History::default();
        history.add(revision(1, "kept", Outcome::InForce), Outcome::Replaced);
        for number in 2..200 {
            let mut failed = revision(number, "x", Outcome::Failed);
            failed.confirmed_at = None;
            history.add(failed, Outcome::Replaced);
        }
        assert_eq!(history.revisions().len(), REVISIONS);
        assert_eq!(history.revisions()[0].revision, 1);
        assert_eq!(history.newest(), 199);

        let mut history = History::default();
        let large = "x".repeat(TEXT_BYTES / 3);
        for number in 1..=6 {
            history.add(revision(number, &large, Outcome::InForce), Outcome::Replaced);
        }
        let kept: Vec<bool> = history
            .revisions()
            .iter()
            .map(|held| held.text.is_some())
            .collect();
        assert_eq!(kept, [false, false, false, true, true, true]);
    }
}
