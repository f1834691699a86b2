//! From the kernel's ring of samples to the tables of traffic and those who follow.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::Instant,
};

use super::{backend::SampleSource, engine::Engine, handle::Handle};
use crate::{
    kernel::KernelError,
    traffic::{Batch, Names, Traffic},
};

/// Samples that are taken at once, before others have their turn.
const BATCH: usize = 4_096;
/// Few samples make no wake-up, so the ring is looked into so often.
const LOOK: Duration = Duration::from_millis(100);
/// How long names hold before they are asked for again.
const NAMES: Duration = Duration::from_secs(1);

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

/// Takes samples until `stop` changes.
pub(super) async fn follow(
    handle: Handle,
    mut source: Box<dyn SampleSource>,
    traffic: Arc<Traffic>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let descriptor: OwnedFd = source.descriptor().try_clone_to_owned()?;
    // SAFETY: the descriptor is this value's own, and stays open until it is dropped.
    let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    let mut names = Names::default();
    let mut named_at: Option<Instant> = None;
    let mut clock = None;
    loop {
        loop {
            let samples = source.take(BATCH);
            if samples.is_empty() {
                break;
            }
            let more = samples.len() == BATCH;
            if named_at.is_none_or(|at| at.elapsed() >= NAMES) {
                let asked = handle
                    .call(|engine| {
                        engine.cut_sources();
                        Ok((engine.sample_names(), engine.clock.now()))
                    })
                    .await;
                let Ok((fresh, now)) = asked else { return Ok(()) };
                (names, named_at, clock) = (fresh, Some(Instant::now()), Some(now));
            }
            let Some(now) = clock else { break };
            let samples = samples
                .into_iter()
                .filter_map(|sample| {
                    let at = now.wall_at(sample.head.at_ns);
                    names.name(sample, at)
                })
                .collect();
            traffic.take_in(Batch { samples });
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
