//! From what is found to what is done about it: the services for which the policy says so are looked at once a second, and
//! at once when something begins.

use std::{sync::Arc, time::Duration};

use gateway_detect::{
    Detector, Finding,
    features::Feature,
    normal::{Load, Normal},
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{MissedTickBehavior, interval},
};

use super::handle::{Handle, off_loop};
use crate::{action::Case, detect::Detection};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes of a packet, where nobody knows: a full Ethernet frame.
const FRAME: f64 = 1_514.0;

/// Does what is to be done about attacks, until `stop` changes.
pub(super) async fn act(handle: Handle, detection: Arc<Detection>, mut stop: watch::Receiver<bool>) {
    let mut turns = detection.follow();
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            turn = turns.recv() => {
                // Whatever was missed is found out by looking.
                if matches!(turn, Err(RecvError::Closed)) {
                    return;
                }
            }
            _ = stop.changed() => return,
        }
        let Ok(names) = handle.call(|engine| Ok(engine.acting_for())).await else {
            continue;
        };
        if names.is_empty() {
            continue;
        }
        let at_work = Arc::clone(&detection);
        let cases = off_loop(move || cases(&at_work, names)).await.unwrap_or_default();
        if cases.is_empty() {
            continue;
        }
        let reacted = handle.change(move |engine| {
            for case in &cases {
                engine.react(case);
            }
            Ok(())
        });
        // It fails only when the runtime is ending.
        let _ = reacted.await;
    }
}

/// Those of the services that are under attack, or about which something is or was being done.
fn cases(detection: &Detection, names: Vec<(String, bool)>) -> Vec<Case> {
    let cases = names.into_iter().filter_map(|(service, concerned)| {
        let found = detection.with(&service, |detector| {
            let attacked = detector.finding().verdict.kind().is_some();
            (attacked || concerned).then(|| look(&service, detector, attacked))
        });
        match found {
            Some(case) => case,
            // Nobody watches it any more: whatever it was, nobody sees it.
            None => concerned.then(|| Case {
                service,
                finding: Finding::default(),
                load: Load::default(),
                normal: Normal::default(),
            }),
        }
    });
    cases.collect()
}

fn look(service: &str, detector: &Detector, attacked: bool) -> Case {
    let finding = detector.finding().clone();
    let packets = finding.packets_per_second;
    let value = |feature| {
        detector
            .features()
            .find(|(one, ..)| *one == feature)
            .and_then(|(_, value, _)| value)
    };
    Case {
        service: service.to_owned(),
        load: Load {
            packets,
            bytes: packets * value(Feature::BytesPerPacket).unwrap_or(FRAME),
            connections: packets * value(Feature::SynShare).unwrap_or(1.0),
        },
        finding,
        // Nobody asks whom a step would hit where none is thought of.
        normal: if attacked {
            detector.normal().clone()
        } else {
            Normal::default()
        },
    }
}
