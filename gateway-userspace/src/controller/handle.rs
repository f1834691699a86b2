//! The engine, shared between the sockets, the signals and the upkeep.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{engine::Engine, policy_ops::Target, prepare::Prepared, settle};
use crate::{
    api::{
        anomalies::{AnomaliesAnswer, AnomaliesQuery, AnomalyAcceptRequest, AnomalyAccepted},
        error::Failure,
        explain::{ExplainAnswer, ExplainQuery},
        peer::Peer,
        traffic::ServicesAnswer,
        types::{PolicyApplied, PolicyApplyRequest, PolicyRollbackRequest, PolicyRolledBack, code},
    },
    events::Entry,
    inventory::{self, Listening},
    policy::{PolicyErrors, bounds},
};

/// The longest that the upkeep sleeps: an interface that comes back should not wait, and kernel time and the event loop's
/// may drift apart over a suspended machine.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// How long the upkeep waits after a change before it looks at what is due, so that a thousand changes wake it once.
const SETTLE: Duration = Duration::from_millis(250);

/// For how long a look at the sockets is good: it reads every descriptor of the host.
const SOCKETS_FOR: Duration = Duration::from_secs(2);

/// A handle to the engine. Kernel work may take a while, so it runs off the event loop; one at a time.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Mutex<Engine>,
    /// Held from taking what is unsaved to its being on disk, so that an older state is never written over a newer one.
    saving: tokio::sync::Mutex<()>,
    changed: Notify,
    /// The sockets that listened when somebody last asked.
    sockets: Mutex<Option<(Instant, Arc<Vec<Listening>>)>>,
}

impl Shared {
    fn sockets(&self) -> Result<Arc<Vec<Listening>>, Failure> {
        // Held while it looks: many who ask at once are answered by one look.
        let mut last = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, sockets)) = &*last
            && at.elapsed() < SOCKETS_FOR
        {
            return Ok(Arc::clone(sockets));
        }
        let sockets = inventory::listening()
            .map_err(|error| Failure::internal(format!("cannot read this host's sockets: {error}")))?;
        let sockets = Arc::new(sockets);
        *last = Some((Instant::now(), Arc::clone(&sockets)));
        Ok(sockets)
    }
}

impl Handle {
    /// Shares an engine.
    pub fn new(engine: Engine) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine: Mutex::new(engine),
                saving: tokio::sync::Mutex::new(()),
                changed: Notify::new(),
                sockets: Mutex::new(None),
            }),
        }
    }

    /// Asks the engine.
    pub async fn call<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        off_loop(move || {
            let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
            // The kernel goes back by itself; nobody is to hear of a policy that no packet is judged by any more.
            engine.settle_policy();
            work(&mut engine)
        })
        .await?
    }

    /// Changes something. It is answered when it is on disk: a ban or a list entry that was acknowledged survives a
    /// controller that is killed. What changes while a write goes on is saved together by the next one. A write that
    /// fails does not fail the change, which is in force; `status` says so. The upkeep looks again at what is due.
    pub async fn change<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    {
        let result = self.call(work).await;
        let handle = self.clone();
        // A task of its own: a client that hangs up cancels the request, which must not cancel half a save.
        let _ = tokio::spawn(async move { handle.save().await }).await;
        self.shared.changed.notify_one();
        result
    }

    /// Validates a policy (aside, while others go on) and puts it in force.
    pub async fn apply(&self, request: PolicyApplyRequest, peer: Peer) -> Result<PolicyApplied, Failure> {
        if request.text.len() as u64 > bounds::MAX_FILE {
            return Err(Failure::new(code::TOO_LARGE, "a policy is at most 16 MiB"));
        }
        if !request.path.starts_with('/') {
            return Err(Failure::invalid(
                "path must be absolute: list files are relative to its folder",
            ));
        }
        let (within, force) = (request.confirm_within_seconds, request.force);
        let prepared =
            off_loop(move || Prepared::from_text(&request.text, &request.path)?.usable()).await??;
        self.change(move |engine| engine.apply_guarded(prepared, within, force, Some(peer)))
            .await
    }

    /// Takes back the policy that waits for confirmation, or puts an earlier one in force again.
    pub async fn rollback(
        &self,
        request: PolicyRollbackRequest,
        peer: Peer,
    ) -> Result<PolicyRolledBack, Failure> {
        let target = self
            .call(move |engine| engine.rollback_target(request.to))
            .await?;
        let revision = match target {
            Target::Before => return self.change(move |engine| engine.take_back(Some(peer))).await,
            Target::Revision(revision) => *revision,
        };
        let number = revision.revision;
        let text = revision.text.unwrap_or_default();
        let prepared = off_loop(move || Prepared::from_text(&text, &revision.path)).await??;
        self.change(move |engine| engine.roll_back_to(prepared, number, Some(peer)))
            .await
    }

    /// What would happen to a packet. The engine only looks at the maps; the words are found aside.
    pub async fn explain(&self, query: ExplainQuery) -> Result<ExplainAnswer, Failure> {
        let finding = self.call(move |engine| engine.explain(query)).await?;
        off_loop(move || finding.answer()).await
    }

    /// Reads the policy file again; when it is not valid, what is in force stays.
    pub async fn reload(&self) -> Result<PolicyApplied, Failure> {
        let path = self.call(|engine| Ok(engine.policy_file())).await?;
        settle::settled(&path).await;
        let prepared: Result<Prepared, PolicyErrors> =
            off_loop(move || Prepared::from_file(&path)?.usable()).await?;
        let prepared = prepared?;
        self.change(move |engine| engine.reload(prepared)).await
    }

    /// What this host serves and is asked for. The sockets are read outside the engine.
    pub async fn services(&self) -> Result<ServicesAnswer, Failure> {
        let shared = Arc::clone(&self.shared);
        let sockets = off_loop(move || shared.sockets()).await??;
        self.call(move |engine| engine.show_services(&sockets)).await
    }

    /// What departs from the usual. The engine only says who may be asked about.
    pub async fn anomalies(&self, query: AnomaliesQuery) -> Result<AnomaliesAnswer, Failure> {
        let service = query.service.clone();
        let (detection, now) = self
            .call(move |engine| engine.detection_of(service.as_deref()))
            .await?;
        off_loop(move || detection.answer(&query, now)).await?
    }

    /// Takes what is now of a service for normal.
    pub async fn accept_anomaly(
        &self,
        request: AnomalyAcceptRequest,
        peer: Peer,
    ) -> Result<AnomalyAccepted, Failure> {
        let service = request.service.clone();
        let (detection, now) = self
            .call(move |engine| engine.detection_of(Some(&service)))
            .await?;
        off_loop(move || {
            let accepted = detection.accept(&request.service, now, Some(peer))?;
            // It is answered when it is on disk; a failure is in force all the same, and `status` says so.
            let _ = detection.save(now);
            Ok(accepted)
        })
        .await?
    }

    /// Does what happens by itself, until `stop` changes.
    pub async fn upkeep(self, mut stop: watch::Receiver<bool>) {
        loop {
            let next = self.call(|engine| {
                let next = engine.upkeep();
                Ok(Duration::from_nanos(engine.nanoseconds_to(next)))
            });
            let sleep = next.await.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.shared.changed.notified() => {
                    // Something may be due sooner now.
                    tokio::time::sleep(SETTLE).await;
                }
                _ = stop.changed() => return,
            }
            self.save().await;
        }
    }

    /// Takes an event in.
    pub(super) async fn tell(&self, entry: Entry) {
        let told = self.call(move |engine| {
            engine.tell(entry);
            Ok(())
        });
        // It fails only when the runtime is ending.
        let _ = told.await;
    }

    /// Saves what is not saved yet.
    pub async fn save(&self) {
        let _one_at_a_time = self.shared.saving.lock().await;
        let Ok(Some(pending)) = self.call(|engine| Ok(engine.take_unsaved())).await else {
            return;
        };
        let written = off_loop(move || {
            let result = pending.write();
            (pending, result)
        });
        if let Ok((pending, result)) = written.await {
            let told = self.call(move |engine| {
                engine.saved(pending, result);
                Ok(())
            });
            // It fails only when the runtime is ending, and then nobody asks any more.
            let _ = told.await;
        }
    }
}

pub(super) async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::internal("the controller is stopping"))
}
