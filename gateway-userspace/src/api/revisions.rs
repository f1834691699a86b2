//! What the socket says and hears about policies that wait for confirmation, rollbacks and the history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::{By, Outcome, Revision};

/// A policy that waits for confirmation.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyPending {
    /// When the kernel goes back to the policy before it.
    pub until: Timestamp,
    /// The time left.
    pub seconds_left: u64,
    /// The revision that it goes back to.
    pub before: u64,
}

/// `POST /v1/policy/confirm`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfirmRequest {}

/// The policy that waited is in force for good.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyConfirmed {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// What went wrong besides, one sentence each.
    pub warnings: Vec<String>,
}

/// `POST /v1/policy/rollback`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRollbackRequest {
    /// The revision to bring back; absent: the one before the policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// An earlier policy is in force again.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyRolledBack {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// The revision in force now.
    pub revision: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// The revision that was in force until now.
    pub taken_back: u64,
    /// The earlier revision whose text is in force again under a new number; absent: the taken one had waited for confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// What is allowed and probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// `GET /v1/policy/history`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HistoryAnswer {
    /// [`SCHEMA`](super::types::SCHEMA).
    pub schema: u32,
    /// The revisions that are kept, the newest first.
    pub revisions: Vec<RevisionStatus>,
}

/// A policy that was put in force, or was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// Its number.
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
    /// How it ended, or has not.
    pub outcome: Outcome,
    /// The earlier revision that it brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// When it came to stay; absent: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether its text is kept, so that it can be brought back.
    pub text_kept: bool,
}

impl RevisionStatus {
    /// A revision of the history, without its text.
    pub(crate) fn of(revision: &Revision) -> Self {
        let held = revision.clone();
        Self {
            revision: held.revision,
            sha256: held.sha256,
            path: held.path,
            applied_at: held.applied_at,
            by: held.by,
            outcome: held.outcome,
            restores: held.restores,
            confirmed_at: held.confirmed_at,
            ended_at: held.ended_at,
            why: held.why,
            text_kept: held.text.is_some(),
        }
    }
}
