//! Tells of anomalies by HTTP: JSON messages, signed, in their order, each at least once.
//!
//! [`Webhook::send`] never waits: it decides whether the policy wants a thing told, and puts the message into a bounded queue. One
//! task ([`Webhook::deliver`]) sends one after the other, over a connection of its own each, and tries again until it is
//! delivered or an hour has passed. So the whole of it is one task, at most one connection and one thread that looks a host up, and at most [`QUEUED`] messages
//! of a few kilobytes.
//!
//! - `message` is what is told, `sign` the signature and the secret, `post` one try, `courier` the tries and the waits

mod courier;
mod message;
mod post;
mod sign;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::message::{Body, Event};
pub(crate) use self::{
    courier::Patience,
    message::Message,
    sign::{SecretError, read_secret},
};
use crate::{
    api::anomalies::Anomaly,
    policy::model::{Told, Url},
};

/// The most messages that wait; beyond that the oldest is lost.
pub(crate) const QUEUED: usize = 500;

/// Where to, as the policy in force says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    /// Where messages go.
    pub(crate) url: Url,
    /// The file with the secret that signs them, wherever this process stands.
    pub(crate) secret_file: Option<PathBuf>,
    /// Of what is told.
    pub(crate) verdicts: Vec<Told>,
}

/// A message on its way.
#[derive(Debug)]
struct Delivery {
    id: String,
    body: Bytes,
    queued: Instant,
}

/// Who is told of anomalies.
#[derive(Debug)]
pub(crate) struct Webhook {
    settings: watch::Sender<Option<Arc<Settings>>>,
    queue: Mutex<VecDeque<Arc<Delivery>>>,
    filled: Notify,
    /// What was told to have begun and not to have ended: its identifier, by service.
    told: Mutex<HashMap<String, String>>,
    /// Names the deliveries of this process, and counts them.
    run: u64,
    count: AtomicU64,
    sent: AtomicU64,
    lost: AtomicU64,
    /// Why the last try failed, until one succeeds.
    fault: Mutex<Option<String>>,
    /// Whether it was logged that messages are lost, until one is delivered.
    losing: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            settings: watch::Sender::new(None),
            queue: Mutex::default(),
            filled: Notify::new(),
            told: Mutex::default(),
            // The standard library's random numbers are the system's.
            run: RandomState::new().hash_one(0),
            count: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            fault: Mutex::default(),
            losing: AtomicBool::new(false),
        }
    }
}

impl Webhook {
    /// From now on messages go there; those that wait, too. Without settings, they go nowhere, and nobody misses them.
    pub(crate) fn set(&self, settings: Option<Settings>) {
        self.settings.send_if_modified(|held| {
            if held.as_deref() == settings.as_ref() {
                return false;
            }
            if settings.is_none() {
                lock(&self.queue).clear();
            }
            // Whatever was wrong was of the other place.
            *lock(&self.fault) = None;
            *held = settings.map(Arc::new);
            true
        });
    }

    /// Tells of something, if the policy wants it told. Never waits.
    pub(crate) fn send(&self, message: &Message) {
        let settings = self.settings.borrow().clone();
        let wanted = |anomaly: &Anomaly| {
            let verdicts = settings.as_ref().map(|settings| &settings.verdicts);
            verdicts.is_some_and(|verdicts| verdicts.iter().any(|told| told.name() == anomaly.verdict))
        };
        let now = message.now.as_ref().filter(|anomaly| wanted(anomaly));
        let mut told = lock(&self.told);
        let (event, anomaly, id) = match (now, told.entry(message.service.clone())) {
            (Some(now), Entry::Occupied(held)) => (Event::Changed, now, held.get().clone()),
            (Some(now), Entry::Vacant(place)) => {
                let id = format!("{}-{}", message.service, now.since.as_millisecond());
                (Event::Began, now, place.insert(id).clone())
            }
            // What it is now is not told: what was told is over.
            (None, Entry::Occupied(held)) => {
                let id = held.remove();
                let Some(before) = &message.before else { return };
                (Event::Ended, before, id)
            }
            (None, Entry::Vacant(_)) => return,
        };
        drop(told);
        if settings.is_none() {
            return;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let delivery = format!("{:016x}-{number}", self.run);
        let body = Body::new(message, event, anomaly, &id, &delivery);
        match serde_json::to_vec(&body) {
            Ok(body) => self.queue(Delivery {
                body: Bytes::from(body),
                id: delivery,
                queued: Instant::now(),
            }),
            Err(error) => {
                self.lose(1, &format!("an anomaly cannot be written as JSON: {error}"));
            }
        }
    }

    fn queue(&self, delivery: Delivery) {
        let mut queue = lock(&self.queue);
        if queue.len() >= QUEUED {
            queue.pop_front();
            self.lose(1, &format!("{QUEUED} others wait"));
        }
        queue.push_back(Arc::new(delivery));
        drop(queue);
        self.filled.notify_one();
    }

    /// What happened came faster than it could be heard of: so many may have been messages.
    pub(crate) fn missed(&self, turns: u64) {
        self.lose(turns, "anomalies came faster than they could be taken in");
    }

    /// Counts messages that are lost, and tells of the first one until another is delivered.
    fn lose(&self, messages: u64, why: &str) {
        self.lost.fetch_add(messages, Ordering::Relaxed);
        if !self.losing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                messages,
                why,
                "a message of the webhook is lost; weir_lost_total{{what=\"webhook\"}} counts it and those that follow"
            );
        }
    }

    /// Messages that were delivered.
    #[cfg(test)]
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages that will never be: too many waited, they waited too long, they were refused, or the controller ended.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Why the last try failed, if it did.
    pub(crate) fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }

    fn first(&self) -> Option<Arc<Delivery>> {
        lock(&self.queue).front().cloned()
    }

    /// Takes a message from the queue that is done with; it may be gone already, and then nothing is done.
    fn done(&self, delivery: &Delivery) -> bool {
        let mut queue = lock(&self.queue);
        queue.pop_front_if(|first| first.id == delivery.id).is_some()
    }
}
