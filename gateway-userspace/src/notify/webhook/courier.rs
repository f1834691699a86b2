//! The tries: one message after the other, again after a while that grows, until it is delivered or too old.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsConnector;

use super::{
    Delivery, Settings, Webhook, lock,
    post::{self, Failed, Lookups, Parcel},
    sign::read_secret,
};

/// How long things are tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One try.
    pub(crate) within: Duration,
    /// Until the first try that follows a failure.
    pub(crate) first: Duration,
    /// The longest until the next: it doubles with each failure.
    pub(crate) most: Duration,
    /// All tries of a message.
    pub(crate) whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(15),
            first: Duration::from_secs(1),
            most: Duration::from_mins(5),
            whole: Duration::from_hours(1),
        }
    }
}

impl Patience {
    /// How long to wait after so many failures in a row, the first being 1: between half of it and all of it, so that many
    /// nodes do not come back together.
    fn pause(self, failures: u32, random: u64) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.first.saturating_mul(doubled).min(self.most);
        let share = 0.5 + (random >> 11) as f64 / (1_u64 << 53) as f64 / 2.0;
        longest.mul_f64(share)
    }
}

/// What it goes on with: the place that everything goes to, and how that went.
struct Way {
    to: Arc<Settings>,
    /// The client's side of TLS, once there was a need for it.
    tls: Option<TlsConnector>,
    lookups: Lookups,
    failures: u32,
}

impl Webhook {
    /// Delivers what is queued, until `stop` changes.
    pub(crate) async fn deliver(self: Arc<Self>, patience: Patience, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.go(patience) => {}
            _ = stop.changed() => {}
        }
        let left = lock(&self.queue).len() as u64;
        if left > 0 {
            self.lost.fetch_add(left, Ordering::Relaxed);
            tracing::warn!(messages = left, "the webhook was not told of everything");
        }
    }

    async fn go(&self, patience: Patience) {
        let mut settings = self.settings.subscribe();
        let mut way: Option<Way> = None;
        loop {
            // Asked for before the queue is looked at: who comes meanwhile wakes this at once.
            let filled = self.filled.notified();
            let to = settings.borrow_and_update().clone();
            let (Some(to), Some(delivery)) = (to, self.first()) else {
                tokio::select! {
                    () = filled => {}
                    // The sender is this webhook's own: it does not go away.
                    _ = settings.changed() => {}
                }
                continue;
            };
            if way.as_ref().is_none_or(|way| way.to != to) {
                way = Some(Way {
                    to,
                    tls: None,
                    lookups: Lookups::default(),
                    failures: 0,
                });
            }
            let Some(way) = &mut way else { continue };
            if delivery.queued.elapsed() >= patience.whole {
                self.give_up(
                    &delivery,
                    &format!("it was tried for {} s", patience.whole.as_secs()),
                );
                continue;
            }
            let Err(failed) = way.send(&delivery, patience.within).await else {
                way.failures = 0;
                self.delivered(&delivery, &way.to);
                continue;
            };
            let is_final = failed.is_final();
            self.failed(&failed, &way.to);
            if is_final {
                self.give_up(&delivery, &failed.to_string());
                continue;
            }
            way.failures = way.failures.saturating_add(1);
            let pause = patience.pause(way.failures, RandomState::new().hash_one(0));
            let asked = failed.after().unwrap_or_default().min(patience.most);
            // No longer than the message has.
            let until = (Instant::now() + pause.max(asked)).min(delivery.queued + patience.whole);
            tokio::select! {
                () = sleep_until(until) => {}
                // Another place may take it at once.
                _ = settings.changed() => {}
            }
        }
    }

    fn delivered(&self, delivery: &Delivery, to: &Settings) {
        self.done(delivery);
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.losing.store(false, Ordering::Relaxed);
        if lock(&self.fault).take().is_some() {
            tracing::info!(webhook = %to.url, "the webhook takes messages again");
        }
    }

    fn give_up(&self, delivery: &Delivery, why: &str) {
        // One that is gone already was counted then, or nobody wants it any more.
        if self.done(delivery) {
            self.lose(1, why);
        }
    }

    /// Tells of the first failure, and nothing of those that follow until it works again.
    fn failed(&self, failed: &Failed, to: &Settings) {
        let mut fault = lock(&self.fault);
        if fault.is_none() {
            tracing::warn!(
                webhook = %to.url, error = %failed,
                "the webhook cannot be told of an anomaly; weir status names this until a message is delivered"
            );
        }
        *fault = Some(format!("the webhook {} cannot be told: {failed}", to.url));
    }
}

impl Way {
    async fn send(&mut self, delivery: &Delivery, within: Duration) -> Result<(), Failed> {
        let secret = match &self.to.secret_file {
            // Read anew each time: it may be changed while this runs. A file on a disk does not keep the loop waiting.
            Some(path) => Some(read_secret(path)?),
            None => None,
        };
        if self.to.url.https && self.tls.is_none() {
            let made = spawn_blocking(post::connector).await;
            self.tls = Some(made.unwrap_or(Err(Failed::NoRoots))?);
        }
        let parcel = Parcel {
            url: &self.to.url,
            delivery: &delivery.id,
            body: delivery.body.clone(),
            secret: secret.as_deref(),
            at: Timestamp::now().as_second(),
        };
        let sent = post::post(&parcel, self.tls.as_ref(), &mut self.lookups, within).await;
        if matches!(sent, Err(Failed::Tls(_))) {
            // The authorities may have changed since.
            self.tls = None;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_have_bounds() {
        let patience = Patience::default();
        let between = |failures: u32| {
            let (least, most) = (patience.pause(failures, 0), patience.pause(failures, u64::MAX));
            (least.as_secs_f64(), most.as_secs_f64())
        };
        for (failures, longest) in [(1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (99, 300.0)] {
            let (least, most) = between(failures);
            assert!((least - longest / 2.0).abs() < 1e-6, "{failures}: {least}");
            assert!((most - longest).abs() < 1e-6, "{failures}: {most}");
        }
        // Eleven failures fill an hour no sooner than their pauses let them: at most 1 + 2 + … + 256 + 300 × n.
        let tries: f64 = (1..=20).map(|failures| between(failures).0).sum();
        assert!(
            tries < 3_600.0,
            "within the hour it is tried at least twenty times"
        );
    }
}
