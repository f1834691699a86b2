//! What a start puts in force: the policy that was applied last or the file's, or the one that waits for confirmation.

use super::{engine::whole_second, prepare::Prepared};
use crate::{
    policy::sha256_hex,
    state::{History, Outcome, PolicyState, Revision, StateError, Store},
};
use jiff::Timestamp;

use super::backend::Backend;

/// What the state directory and the policy file say.
#[derive(Debug)]
pub struct Choice {
    /// The policy that a start puts in force, unless another one waits in the kernel.
    pub prepared: Prepared,
    file: Prepared,
    stored: Option<PolicyState>,
    history: History,
}

/// What a start has found.
#[derive(Debug)]
pub(super) struct Found {
    /// The policy to put in force; or what the one that waits may go back to, which is in force already.
    pub(super) prepared: Prepared,
    pub(super) revision: u64,
    pub(super) applied_at: Timestamp,
    pub(super) file_sha256: String,
    pub(super) history: History,
    /// A policy that waits in the kernel.
    pub(super) waits: Option<Waits>,
}

/// A policy that was waiting for confirmation when the last controller ended, and still is.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) prepared: Prepared,
    pub(super) revision: u64,
    pub(super) applied_at: Timestamp,
    pub(super) until_ns: u64,
}

impl Choice {
    /// What was applied since the policy file was last read, if the file is still the same; else the file.
    pub fn of(store: &Store, file: Prepared) -> Result<Self, StateError> {
        let stored: Option<PolicyState> = store.load(PolicyState::FILE)?;
        let history = store.load::<History>(History::FILE)?.unwrap_or_default();
        Ok(Self {
            prepared: choose(stored.as_ref(), file.clone()),
            file,
            stored,
            history,
        })
    }

    /// Learns from the kernel what became of a policy that was pending when the last controller ended.
    pub(super) fn look(
        self,
        backend: &mut dyn Backend,
        now: Timestamp,
    ) -> Result<Found, crate::kernel::KernelError> {
        let Self {
            mut prepared,
            file,
            mut stored,
            mut history,
        } = self;
        let text = backend.policy_text()?;
        let mut waits = None;
        if let Some(pending) = history.pending().cloned() {
            let is_it = |text: &str| sha256_hex(text.as_bytes()) == pending.sha256;
            let held = backend.pending()?.filter(|held| is_it(&held.text));
            if let Some(held) = held {
                waits = adopt(&pending, held.until_ns, stored.as_ref(), text.as_deref());
            } else if stored
                .as_ref()
                .is_some_and(|stored| stored.revision >= pending.revision)
                || text.as_deref().is_some_and(is_it)
            {
                tracing::info!(revision = pending.revision, "the policy was confirmed");
                history.confirm(pending.revision, now);
                stored = stored.map(|stored| confirmed(stored, &pending));
                prepared = choose(stored.as_ref(), file.clone());
            }
            if waits.is_none() && history.pending().is_some() {
                tracing::warn!(
                    revision = pending.revision,
                    "policy reverted: it was not confirmed before the last controller ended"
                );
                history.end(pending.revision, Outcome::Reverted, now, None);
            }
        }
        if let (Some(waits), Some(before)) = (waits, &stored) {
            let (stays, waits) = waits;
            return Ok(Found {
                prepared: stays,
                revision: before.revision,
                applied_at: before.applied_at,
                file_sha256: before.file_sha256.clone(),
                history,
                waits: Some(waits),
            });
        }
        if backend.pending()?.is_some() {
            tracing::warn!(
                "a policy waits for confirmation that cannot be read back; it is taken back at once"
            );
            backend.revert()?;
        }
        let newest = history.newest();
        let (revision, applied_at) = match &stored {
            Some(stored) if stored.sha256 == prepared.sha256 => (stored.revision, stored.applied_at),
            Some(stored) => (stored.revision.max(newest) + 1, now),
            None => (newest + 1, now),
        };
        note(&mut history, &prepared, revision, applied_at);
        Ok(Found {
            prepared,
            revision,
            applied_at,
            file_sha256: file.sha256,
            history,
            waits: None,
        })
    }
}

/// Reads a pending policy and the one before it back; nothing if one of them cannot be.
fn adopt(
    pending: &Revision,
    until_ns: u64,
    stored: Option<&PolicyState>,
    stays: Option<&str>,
) -> Option<(Prepared, Waits)> {
    let stored = stored.filter(|stored| Some(stored.text.as_str()) == stays)?;
    let read = |text: &str, path: &str| {
        Prepared::from_text(text, path)
            .inspect_err(|errors| tracing::warn!(%errors, path, "a policy cannot be read back"))
            .ok()
    };
    let before = read(&stored.text, &stored.path)?;
    let prepared = read(pending.text.as_deref()?, &pending.path)?;
    tracing::warn!(
        revision = pending.revision,
        before = stored.revision,
        "the policy in force still waits for confirmation"
    );
    Some((
        before,
        Waits {
            prepared,
            revision: pending.revision,
            applied_at: pending.applied_at,
            until_ns,
        },
    ))
}

/// What `policy.json` would say had the last controller lived to write it.
fn confirmed(stored: PolicyState, pending: &Revision) -> PolicyState {
    match &pending.text {
        Some(text) if stored.revision < pending.revision => PolicyState {
            revision: pending.revision,
            sha256: pending.sha256.clone(),
            path: pending.path.clone(),
            applied_at: pending.applied_at,
            text: text.clone(),
            ..stored
        },
        _ => stored,
    }
}

/// Takes a policy that the start itself puts in force into the history, if it is not there.
fn note(history: &mut History, prepared: &Prepared, revision: u64, applied_at: Timestamp) {
    if history
        .get(revision)
        .is_some_and(|held| held.outcome == Outcome::InForce)
    {
        return;
    }
    let at = whole_second(applied_at);
    history.add(
        Revision {
            revision,
            sha256: prepared.sha256.clone(),
            path: prepared.path.clone(),
            applied_at: at,
            by: None,
            outcome: Outcome::InForce,
            restores: None,
            confirmed_at: Some(at),
            ended_at: None,
            why: None,
            text: Some(prepared.text.clone()),
        },
        Outcome::Replaced,
    );
}

/// What was applied since the policy file was last read, if the file is still the same; else the file.
fn choose(stored: Option<&PolicyState>, file: Prepared) -> Prepared {
    let Some(stored) = stored.filter(|stored| stored.outlives(&file.sha256)) else {
        return file;
    };
    match Prepared::from_text(&stored.text, &stored.path) {
        Ok(applied) => {
            tracing::warn!(
                revision = stored.revision,
                path = stored.path,
                file = file.path,
                "the last applied policy stays in force; it is not the policy file's (which has not changed since)"
            );
            applied
        }
        Err(errors) => {
            tracing::warn!(%errors, "the last applied policy is not valid any more; the policy file is used instead");
            file
        }
    }
}
