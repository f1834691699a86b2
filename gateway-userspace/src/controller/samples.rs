//! From the kernel's ring of samples to the tables of traffic and those who follow.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    backend::{Moment, SampleSource},
    engine::Engine,
    handle::Handle,
};
use crate::{
    api::error::Failure,
    detect::Detection,
    kernel::KernelError,
    traffic::{Batch, Names, Traffic},
};

/// Samples that are taken at once, before others have their turn.
const BATCH: usize = 4_096;
/// Few samples make no wake-up, so the ring is looked into so often.
const LOOK: Duration = Duration::from_millis(100);
/// How long names hold before they are asked for again.
const NAMES: Duration = Duration::from_secs(1);
/// How long new names are waited for: an engine that is at work on a large policy would let the ring run full, which holds
/// two seconds of samples.
const PATIENCE: Duration = Duration::from_millis(200);

impl Engine {
    /// Opens the ring of samples.
    pub fn samples(&self) -> Result<Box<dyn SampleSource>, KernelError> {
        self.backend.samples()
    }

    /// What samples say of the traffic.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// The names behind the numbers of samples.
    pub(super) fn sample_names(&self) -> Names {
        let mut names = Names::default();
        let policy = &self.in_force.prepared.policy;
        for (name, number) in self.backend.service_numbers() {
            let name: Arc<str> = Arc::from(name);
            if let Some(service) = policy.services.iter().find(|service| *service.name == *name) {
                let classes = service.classes.iter().map(|class| Arc::from(class.name.as_str()));
                names.classes.insert(number, classes.collect());
            }
            names.services.insert(number, name);
        }
        for number in 0..gateway_core::image::INTERFACES {
            if let Some(name) = self.backend.interface_name(number) {
                let index = nix::net::if_::if_nametoindex(name.as_str()).unwrap_or(0);
                names.interfaces.insert(number, (Arc::from(name), index));
            }
        }
        names
    }
}

/// What the engine knows of samples.
type Known = (Names, Moment);

/// The names that are known, and those that are asked for.
struct Book {
    handle: Handle,
    known: Option<(Known, Instant)>,
    asked: Option<JoinHandle<Result<Known, Failure>>>,
}

impl Book {
    /// The names: new ones if a second has passed and the engine answers soon, else those from before. The first ones are
    /// waited for. Nothing when the engine has gone.
    async fn open(&mut self) -> Option<&Known> {
        let due = self.known.as_ref().is_none_or(|(_, at)| at.elapsed() >= NAMES);
        if due {
            let handle = self.handle.clone();
            // Who was waited for in vain is only looked at.
            let patience = if self.asked.is_some() {
                Duration::ZERO
            } else {
                PATIENCE
            };
            let asked = self.asked.get_or_insert_with(|| {
                tokio::spawn(async move {
                    let known = |engine: &mut Engine| {
                        engine.cut_sources();
                        Ok((engine.sample_names(), engine.clock.now()))
                    };
                    handle.call(known).await
                })
            });
            let answer = match self.known {
                None => Some(asked.await),
                Some(_) => timeout(patience, asked).await.ok(),
            };
            if let Some(answer) = answer {
                self.asked = None;
                self.known = Some((answer.ok()?.ok()?, Instant::now()));
            }
        }
        self.known.as_ref().map(|(known, _)| known)
    }
}

/// Takes samples until `stop` changes.
pub(super) async fn follow(
    handle: Handle,
    mut source: Box<dyn SampleSource>,
    traffic: Arc<Traffic>,
    detection: Arc<Detection>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let descriptor: OwnedFd = source.descriptor().try_clone_to_owned()?;
    // SAFETY: the descriptor is this value's own, and stays open until it is dropped.
    let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    let mut book = Book {
        handle,
        known: None,
        asked: None,
    };
    loop {
        loop {
            let samples = source.take(BATCH);
            if samples.is_empty() {
                break;
            }
            let more = samples.len() == BATCH;
            let Some((names, now)) = book.open().await else {
                return Ok(());
            };
            let samples: Vec<_> = samples
                .into_iter()
                .filter_map(|sample| {
                    let at = now.wall_at(sample.head.at_ns);
                    names.name(sample, at)
                })
                .collect();
            let batch = Batch { samples };
            detection.see(&batch);
            traffic.take_in(batch);
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        tokio::select! {
            woken = ready.readable() => woken?.clear_ready(),
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.changed() => return Ok(()),
        }
    }
}
