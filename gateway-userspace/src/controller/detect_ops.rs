//! What the engine has to do with detection: it says who is watched, and reads the kernel's profiles. All else happens outside
//! of it (`detect`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    backend::{Clock, Moment},
    engine::Engine,
    handle::{Handle, off_loop},
};
use crate::{
    api::error::Failure,
    compile::DEFAULT,
    detect::{Detection, Look, Roster},
    kernel::ServiceProfile,
};

/// How often everything is looked at.
const SECOND: Duration = Duration::from_secs(1);
/// How often those are looked at that suddenly have much.
const BETWEEN: Duration = Duration::from_millis(100);
/// How often what was learned is saved.
const SAVE: Duration = Duration::from_mins(5);
/// How long after a beginning or an end.
const SAVE_SOON: Duration = Duration::from_secs(5);
/// How long after a failure.
const SAVE_AGAIN: Duration = Duration::from_secs(30);
/// Saving may take this share of the time: one part in so many.
const SAVE_SHARE: u32 = 100;

impl Engine {
    /// What departs from the usual.
    pub fn detection(&self) -> Arc<Detection> {
        Arc::clone(&self.detection)
    }

    /// The present.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Reads the profiles, and who is watched if that is not what `known` was made from.
    pub(super) fn look(&mut self, known: Option<&str>) -> Result<Look, Failure> {
        let policy = &self.in_force.prepared.policy;
        let key = format!("{} {}", self.in_force.revision, self.in_force.prepared.sha256);
        let roster = (known != Some(&key)).then(|| Roster::of(key, policy));
        let enabled = policy.anomaly.enabled;
        let profiles = if enabled {
            self.fresh_profiles()?
        } else {
            Arc::default()
        };
        Ok(Look {
            now: self.clock.now(),
            roster,
            profiles,
            minute: self.seen.minute.last(),
        })
    }

    /// Reads the profiles of some services.
    fn look_between(&self, services: &[Arc<str>]) -> Result<(Moment, Vec<Arc<ServiceProfile>>), Failure> {
        let profiles = self.backend.profiles_of(services)?;
        Ok((self.clock.now(), profiles))
    }

    /// What is asked about a service's anomalies, and when; a service that the policy does not have is an error.
    pub(super) fn detection_of(&self, service: Option<&str>) -> Result<(Arc<Detection>, Moment), Failure> {
        if let Some(service) = service.filter(|service| *service != DEFAULT) {
            self.need_service(service)?;
        }
        Ok((self.detection(), self.clock.now()))
    }
}

/// Looks at everything once a second, and saves, until `stop` changes.
pub(super) async fn watch_seconds(
    handle: Handle,
    detection: Arc<Detection>,
    mut stop: watch::Receiver<bool>,
) {
    let mut every = interval(SECOND);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut saver = Saver::new(Arc::clone(&detection));
    let mut blind = false;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.changed() => {
                saver.finish().await;
                return;
            }
        }
        let known = detection.roster_key();
        let looked = handle.call(move |engine| {
            let look = engine.look(known.as_deref())?;
            Ok((look, Arc::clone(&engine.clock)))
        });
        match looked.await {
            Ok((look, clock)) => {
                blind = false;
                let at_work = Arc::clone(&detection);
                let any = off_loop(move || at_work.tick(look)).await.unwrap_or(false);
                saver.mind(any, &clock).await;
            }
            Err(error) if !blind => {
                blind = true;
                tracing::warn!(%error, "cannot look at the services' traffic; weir goes on trying");
            }
            Err(_) => {}
        }
    }
}

/// Looks at those that suddenly have much, ten times a second, until `stop` changes.
pub(super) async fn watch_between(
    handle: Handle,
    detection: Arc<Detection>,
    mut stop: watch::Receiver<bool>,
) {
    let mut every = interval(BETWEEN);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stop.changed() => return,
        }
        let now = Instant::now();
        let seconds = (now - last).as_secs_f64();
        // The first tick comes at once, and two that a busy loop has pushed together say little.
        if seconds < BETWEEN.as_secs_f64() / 2.0 {
            continue;
        }
        last = now;
        let suspects = detection.suspects(seconds);
        if suspects.is_empty() {
            continue;
        }
        let looked = handle.call(move |engine| engine.look_between(&suspects));
        // What cannot be read is told once a second.
        if let Ok((now, profiles)) = looked.await {
            let detection = Arc::clone(&detection);
            let _ = off_loop(move || detection.glance(now, &profiles)).await;
        }
    }
}

/// Saves what was learned, from time to time and never so often that it costs much.
struct Saver {
    detection: Arc<Detection>,
    /// A write that goes on: how long it took, and whether it succeeded.
    at_work: Option<JoinHandle<(Duration, bool)>>,
    due: Instant,
    /// Not before this.
    least: Instant,
}

impl Saver {
    fn new(detection: Arc<Detection>) -> Self {
        let now = Instant::now();
        Self {
            detection,
            at_work: None,
            due: now + SAVE,
            least: now,
        }
    }

    /// Saves if it is time; `changed`: something began or ended, so it is soon.
    async fn mind(&mut self, changed: bool, clock: &Arc<dyn Clock>) {
        let now = Instant::now();
        if changed {
            self.due = self.due.min(now + SAVE_SOON);
        }
        if self.at_work.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish().await;
        }
        if now >= self.due.max(self.least) && self.at_work.is_none() {
            self.due = now + SAVE;
            let (detection, clock) = (Arc::clone(&self.detection), Arc::clone(clock));
            self.at_work = Some(tokio::task::spawn_blocking(move || {
                let begun = Instant::now();
                // A failure is told where it happens, and `status` says so.
                let saved = detection.save(clock.now()).is_ok();
                (begun.elapsed(), saved)
            }));
        }
    }

    /// Waits for a write that goes on.
    async fn finish(&mut self) {
        if let Some(at_work) = self.at_work.take()
            && let Ok((took, saved)) = at_work.await
        {
            let now = Instant::now();
            self.least = now + took * SAVE_SHARE;
            if !saved {
                self.due = self.due.min(now + SAVE_AGAIN);
            }
        }
    }
}
