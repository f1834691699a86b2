//! The sign of life that the kernel waits for under `[controller] on_loss = "open"`.
//!
//! A beat moves the time at which the kernel opens to now + `after`. It goes the way of every change, through the engine
//! and one operation at a time, so that a controller whose kernel work hangs gives no sign of life either. It has a task
//! of its own, so that a disk that hangs does not stop it.

use std::time::Duration;

use tokio::sync::watch;

use super::{engine::Engine, handle::Handle};
use crate::{api::types::ControllerStatus, policy::model::OnLoss};

/// The longest time between two beats.
const LONGEST: Duration = Duration::from_secs(5);

/// What the kernel was told last.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    /// When it opens, on its own clock; 0: never.
    opens_at_ns: Option<u64>,
    /// Why the last beat failed, until one succeeds.
    fault: Option<String>,
}

impl Engine {
    /// Tells the kernel that the controller lives; returns how long that is good for before the next beat.
    pub fn beat(&mut self) -> Duration {
        let now = self.clock.now();
        let controller = &self.in_force.prepared.policy.controller;
        let (opens_at_ns, rest) = match controller.on_loss {
            OnLoss::Hold => (0, LONGEST),
            OnLoss::Open => {
                let after = Duration::from_secs(controller.after_seconds);
                (now.ns_after(controller.after_seconds), LONGEST.min(after / 3))
            }
        };
        if opens_at_ns == 0 && self.heartbeat.opens_at_ns == Some(0) {
            return rest;
        }
        match self.backend.set_open_at(opens_at_ns) {
            Ok(()) => {
                self.heartbeat.opens_at_ns = Some(opens_at_ns);
                self.heartbeat.fault = None;
            }
            Err(error) => {
                if self.heartbeat.fault.is_none() {
                    tracing::error!(%error, "cannot tell the kernel that the controller lives");
                }
                self.heartbeat.fault = Some(error.to_string());
            }
        }
        rest
    }

    /// Says it when the kernel had opened because no controller reported; the next beat ends that.
    pub(super) fn notice_opened(&self) {
        let now = self.clock.now();
        if let Ok(opened_ns) = self.backend.open_at()
            && opened_ns != 0
            && opened_ns <= now.ns
        {
            tracing::warn!(
                since = %now.wall_at(opened_ns),
                "no controller had reported, and the node was open ([controller] on_loss = \"open\"): packets were counted \
                 as would_drop and passed; enforcement goes on now"
            );
        }
    }

    /// `controller` of `GET /v1/status`.
    pub(super) fn controller_status(&self) -> ControllerStatus {
        let controller = &self.in_force.prepared.policy.controller;
        ControllerStatus {
            on_loss: controller.on_loss,
            after_seconds: (controller.on_loss == OnLoss::Open).then_some(controller.after_seconds),
            socket_group: controller.socket_group.clone(),
        }
    }

    /// What is wrong with the heartbeat.
    pub(super) fn heartbeat_problem(&self) -> Option<String> {
        let fault = self.heartbeat.fault.as_ref()?;
        Some(match self.in_force.prepared.policy.controller.on_loss {
            OnLoss::Open => {
                format!(
                    "the kernel cannot be told that the controller lives, and the node will open: {fault}"
                )
            }
            OnLoss::Hold => {
                format!("on_loss = \"hold\" is not in force, because the kernel cannot be told: {fault}")
            }
        })
    }
}

impl Handle {
    /// Beats until `stop` changes. The last beat stays: a controller that was stopped on purpose is as silent as a lost one.
    pub async fn heartbeat(self, mut stop: watch::Receiver<bool>) {
        loop {
            let rest = self.call(|engine| Ok(engine.beat())).await.unwrap_or(LONGEST);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = stop.changed() => return,
            }
        }
    }
}
