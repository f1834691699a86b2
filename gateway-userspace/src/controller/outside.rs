//! What the controller has to do with the world outside because of anomalies: the webhook hears of them, and the database of
//! countries is followed. What the policy in force says of both is asked for once a second.

use std::{path::PathBuf, sync::Arc, time::Duration};

use gateway_detect::Change;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    engine::Engine,
    handle::{Handle, off_loop},
    prepare::folder,
};
use crate::{
    detect::{Detection, Turn, moment},
    notify::webhook::{Message, Settings, Webhook},
};

/// How often the policy is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How often, in seconds, the file is looked at while the policy stays as it is.
const FILE: u32 = 60;

/// What the policy in force says.
#[derive(Debug)]
struct Wanted {
    /// Which policy: another one with every apply and reload.
    revision: u64,
    webhook: Option<Settings>,
    database: Option<PathBuf>,
}

impl Engine {
    /// Who is told of anomalies.
    pub(super) fn webhook(&self) -> Arc<Webhook> {
        Arc::clone(&self.webhook)
    }

    fn wanted_outside(&self) -> Wanted {
        let prepared = &self.in_force.prepared;
        let folder = folder(&prepared.path);
        let policy = &prepared.policy;
        Wanted {
            revision: self.in_force.revision,
            webhook: policy.webhook.as_ref().map(|webhook| Settings {
                url: webhook.url.clone(),
                secret_file: webhook.secret_file.as_ref().map(|file| folder.join(file)),
                verdicts: webhook.verdicts.clone(),
            }),
            database: policy.geo.as_ref().map(|geo| folder.join(&geo.database)),
        }
    }
}

/// Lets the webhook hear of every beginning and end, and follows the database, until `stop` changes.
pub(super) async fn follow(handle: Handle, detection: Arc<Detection>, mut stop: watch::Receiver<bool>) {
    let mut turns = detection.follow();
    let geo = detection.geo();
    let Ok(webhook) = handle.call(|engine| Ok(engine.webhook())).await else {
        return;
    };
    let node = node();
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut revision = None;
    let mut seconds = 0_u32;
    loop {
        tokio::select! {
            // The settings before the turns: what the policy says first is known when the first one comes.
            biased;
            _ = every.tick() => {
                let Ok(wanted) = handle.call(|engine| Ok(engine.wanted_outside())).await else {
                    return;
                };
                webhook.set(wanted.webhook);
                if revision != Some(wanted.revision) || seconds.is_multiple_of(FILE) {
                    revision = Some(wanted.revision);
                    let (geo, path) = (Arc::clone(&geo), wanted.database);
                    let _ = off_loop(move || geo.follow(path.as_deref())).await;
                }
                seconds = seconds.wrapping_add(1);
            }
            turn = turns.recv() => match turn {
                Ok(turn) => webhook.send(&message(&node, &turn)),
                Err(RecvError::Lagged(turns)) => webhook.missed(turns),
                Err(RecvError::Closed) => return,
            },
            _ = stop.changed() => return,
        }
    }
}

/// This node, as its machine is called.
fn node() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

fn message(node: &str, turn: &Turn) -> Message {
    let (now, before) = match turn.change {
        Change::Began => (Some(turn.anomaly.clone()), turn.before.clone()),
        Change::Ended(_) => (None, Some(turn.anomaly.clone())),
    };
    Message {
        node: node.to_owned(),
        service: turn.service.to_string(),
        at: moment(turn.at),
        now,
        before,
    }
}
