//! Departures from the usual: samples and the kernel's profiles become observations, a detector looks at each service's
//! once a second, and what it finds is told.
//!
//! [`Detection`] is shared by whoever feeds it, asks it or acts on it. It has locks of its own, never the engine's, and holds
//! them for one service at a time: a slow look delays neither a policy nor a question.
//!
//! - [`Detection::see`] takes samples in (`sightings`), as `controller/samples.rs` reads them
//! - [`Detection::tick`] and [`Detection::glance`] take readings of the kernel's profiles in (`reading`), as
//!   `controller/detect_ops.rs` makes them: every second, and ten times a second of those that [`Detection::suspects`] names
//! - `roster` says who is watched under a policy
//! - `book` holds the detectors and what they found; who is watched follows from the policy ([`Roster`])
//! - `dormant` keeps what was learned of services that went, `saved` the file that outlives the controller
//! - `telling` puts findings into the words of the API and of events
//!
//! Whoever acts on anomalies or tells of them elsewhere listens to [`Detection::follow`], which has a [`Turn`] for each beginning
//! and each end, and asks a detector itself with [`Detection::with`], as for [`gateway_detect::Detector::normal`]:
//!
//! ```ignore
//! let mut turns = detection.follow();
//! while let Ok(turn) = turns.recv().await {
//!     let hit = detection.with(&turn.service, |detector| detector.normal().hit_by_rate(200.0));
//! }
//! ```

mod book;
mod dormant;
mod reading;
mod roster;
mod saved;
mod show;
mod sightings;
mod telling;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gateway_detect::{Change, Detector, Verdict};
use tokio::sync::broadcast;

use self::{
    book::{At, Book},
    saved::{Lasting, Loaded, Notes},
    sightings::{Cuts, Sightings},
};
pub use self::{
    book::{Roster, Turn, Watched},
    dormant::{KEPT_SECONDS, MOST, MOST_BYTES},
    saved::{FILE, Unreadable, learned},
    sightings::{A_SECOND, IN_BETWEEN, Lengths},
    telling::{figure, label, time as moment},
};
pub(crate) use self::{
    dormant::restarted,
    sightings::{Reservoir, sighting},
};
use crate::{
    api::peer::Peer,
    controller::backend::Moment,
    events::{Entry, EventLog, Kind},
    geo::Geo,
    kernel::ServiceProfile,
    state::{StateError, Store},
    traffic::Batch,
};

/// Turns that a slow follower may be behind before it loses the oldest.
const BEHIND: usize = 1_024;
/// Packets a second, by the samples, from which a service is looked at between the seconds.
const SUSPECT_RATE: f64 = 1_000.0;
/// And how many times its recent level that must be.
const SUSPECT_TIMES: f64 = 3.0;
/// The most services that are looked at in between at once; without samples, all are if they are no more.
const SUSPECTS: usize = 512;

/// Readings of the kernel's profiles.
#[derive(Clone, Debug)]
pub struct Look {
    /// When they were read.
    pub now: Moment,
    /// Who is watched from now on, if that has changed.
    pub roster: Option<Roster>,
    /// The profiles; a service that has none is not looked at.
    pub profiles: Arc<Vec<Arc<ServiceProfile>>>,
    /// Different sources of each service in the last whole minute, once there was one.
    pub minute: Option<Arc<BTreeMap<String, u64>>>,
}

/// Everything about departures from the usual.
#[derive(Debug)]
pub struct Detection {
    store: Arc<Store>,
    events: Arc<EventLog>,
    sightings: Mutex<Sightings>,
    book: Mutex<Book>,
    turns: broadcast::Sender<Arc<Turn>>,
    /// Where countries are looked up.
    geo: Arc<Geo>,
    /// Held while the file is written: two writers would share one file on its way.
    saving: Mutex<()>,
    /// Why the last write failed, until one succeeds.
    fault: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Detection {
    /// Reads what was learned from the state directory. What cannot be read back is no obstacle: it is learned anew.
    pub fn open(store: Arc<Store>, events: Arc<EventLog>, now: Moment) -> Self {
        let mut book = Book::default();
        let loaded = saved::load(&store).unwrap_or_else(|error| Loaded::Anew(error.to_string()));
        match loaded {
            Loaded::Nothing => {}
            Loaded::Saved(saved) => {
                book.dormant = saved.learned;
                book.ended = saved.notes.ended.into();
                for Lasting { service, mut anomaly } in saved.notes.active {
                    // Whether it still lasts is found out anew.
                    anomaly.duration_seconds = telling::duration(telling::seconds(anomaly.since), saved.at);
                    let why = "the controller ended".to_owned();
                    events.record(now, telling::ended(&service, &anomaly, Some(why.clone())));
                    book.keep(&service, anomaly, saved.at, Some(why));
                }
            }
            Loaded::Anew(why) => {
                tracing::warn!(
                    why,
                    "what was learned of the services' traffic cannot be used; it is learned anew"
                );
                let what = "what was learned of the services' traffic cannot be used; it is learned anew";
                events.record(now, Entry::new(Kind::Fault, what).why(Some(why)));
            }
        }
        Self {
            store,
            events,
            sightings: Mutex::default(),
            book: Mutex::new(book),
            turns: broadcast::Sender::new(BEHIND),
            geo: Arc::default(),
            saving: Mutex::default(),
            fault: Mutex::default(),
        }
    }

    /// Hears of every beginning and every end from now on; who is more than 1,024 behind is told how many it lost.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Turn>> {
        self.turns.subscribe()
    }

    /// Asks the detector of a service; nothing if it is not watched. Nobody else is answered meanwhile.
    pub fn with<T>(&self, service: &str, ask: impl FnOnce(&Detector) -> T) -> Option<T> {
        let book = lock(&self.book);
        book.services.get(service).map(|watch| ask(&watch.detector))
    }

    /// Where countries are looked up.
    pub(crate) fn geo(&self) -> Arc<Geo> {
        Arc::clone(&self.geo)
    }

    /// Takes samples in.
    pub fn see(&self, batch: &Batch) {
        let countries = self.geo.now();
        lock(&self.sightings).add(batch, countries.as_deref());
    }

    /// What the present roster was made from.
    pub fn roster_key(&self) -> Option<String> {
        lock(&self.book).key.clone()
    }

    /// Looks at a second of every service. Returns whether anything began or ended.
    pub fn tick(&self, look: Look) -> bool {
        let Look {
            now,
            roster,
            profiles,
            minute,
        } = look;
        let at = at(now);
        let mut any = false;
        if let Some(roster) = roster {
            lock(&self.sightings).set(cuts(&roster));
            let turns = lock(&self.book).set(roster, at.wall);
            any |= !turns.is_empty();
            for turn in turns {
                self.tell(turn, now);
            }
        }
        let mut seen = lock(&self.sightings).take_second();
        for profile in profiles.iter() {
            let name = profile.service.as_str();
            let sightings = seen.remove(name).unwrap_or_default();
            let sources = minute
                .as_ref()
                .map(|minute| minute.get(name).copied().unwrap_or(0) as f64);
            // One service at a time: others ask meanwhile.
            let turn = lock(&self.book).tick(name, profile, at, sightings, sources);
            if let Some(turn) = turn {
                any = true;
                self.tell(turn, now);
            }
        }
        any
    }

    /// The services whose samples since the last call suggest far more than usual. `seconds`: how long that is ago.
    pub fn suspects(&self, seconds: f64) -> Vec<Arc<str>> {
        let lately = lock(&self.sightings).lately();
        let book = lock(&self.book);
        if book.enabled && !book.sampled && book.services.len() <= SUSPECTS {
            return book.services.keys().cloned().collect();
        }
        let suspect = |(service, packets): (Arc<str>, f64)| {
            let rate = packets / seconds;
            let (level, unusual) = book.level(&service)?;
            (rate >= SUSPECT_RATE && (unusual || rate >= SUSPECT_TIMES * level)).then_some(service)
        };
        lately.into_iter().filter_map(suspect).take(SUSPECTS).collect()
    }

    /// Looks at some services between the seconds. Returns whether anything began or ended.
    pub fn glance(&self, now: Moment, profiles: &[Arc<ServiceProfile>]) -> bool {
        let mut any = false;
        for profile in profiles {
            let sightings = lock(&self.sightings).take_between(&profile.service);
            let turn = lock(&self.book).glance(&profile.service, profile, at(now), sightings);
            if let Some(turn) = turn {
                any = true;
                self.tell(turn, now);
            }
        }
        any
    }

    /// Tells of a turn: in the log, as an event, and those who follow.
    fn tell(&self, turn: Turn, now: Moment) {
        let Turn { service, anomaly, .. } = &turn;
        let entry = match turn.change {
            Change::Began => {
                tracing::warn!(%service, verdict = anomaly.title(), score = anomaly.score, "an anomaly began");
                telling::began(service, anomaly, turn.before.as_ref())
            }
            Change::Ended(_) => {
                tracing::info!(%service, verdict = anomaly.title(), "an anomaly is over");
                telling::ended(service, anomaly, None)
            }
        };
        self.publish(turn, now, entry);
    }

    /// Tells of a turn that the operator brought about.
    fn tell_accepted(&self, turn: Turn, now: Moment, peer: Option<Peer>) {
        let Turn { service, anomaly, .. } = &turn;
        tracing::info!(%service, verdict = anomaly.title(), by = %Peer::show(peer), "an anomaly was accepted");
        let entry = telling::ended(service, anomaly, Some(ACCEPTED.to_owned())).by(peer);
        self.publish(turn, now, entry);
    }

    fn publish(&self, turn: Turn, now: Moment, entry: Entry) {
        self.events.record(now, entry);
        // Nobody may be listening.
        let _ = self.turns.send(Arc::new(turn));
    }

    /// What is said of every service that is watched.
    pub fn verdicts(&self) -> BTreeMap<String, Verdict> {
        lock(&self.book).verdicts()
    }

    /// Writes what was learned and found to the state directory. It may take a while: call it where nobody waits.
    pub fn save(&self, now: Moment) -> Result<(), StateError> {
        let _one_at_a_time = lock(&self.saving);
        let at = at(now).wall;
        let (names, notes) = {
            let mut book = lock(&self.book);
            book.dormant.prune(at);
            let names: Vec<Arc<str>> = book.services.keys().cloned().collect();
            let lasting = book.services.iter().filter_map(|(service, watch)| {
                Some(Lasting {
                    service: service.to_string(),
                    anomaly: watch.active()?.clone(),
                })
            });
            let notes = Notes {
                active: lasting.collect(),
                ended: book.ended.iter().cloned().collect(),
            };
            (names, notes)
        };
        let dormant: Vec<String> = lock(&self.book).dormant.services.keys().cloned().collect();
        let watched = names.into_iter().filter_map(|service| {
            let book = lock(&self.book);
            let watch = book.services.get(&service)?;
            let bytes = dormant::write_down(&service, &watch.detector)?;
            Some((service.to_string(), dormant::Record { seen: at, bytes }))
        });
        let dormant = dormant.into_iter().filter_map(|service| {
            let record = lock(&self.book).dormant.services.get(&service)?.clone();
            Some((service, record))
        });
        let saved = saved::save(&self.store, at, &notes, watched.chain(dormant));
        let mut fault = lock(&self.fault);
        match &saved {
            Ok(()) => *fault = None,
            Err(error) => {
                if fault.is_none() {
                    tracing::error!(%error, "what was learned of the services' traffic cannot be saved; weir goes on trying");
                }
                *fault = Some(error.to_string());
            }
        }
        saved
    }

    /// Why what was learned is not saved, if it is not.
    pub fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }
}

/// Why an anomaly ended that the operator took for normal.
const ACCEPTED: &str = "accepted as normal";

fn at(now: Moment) -> At {
    At {
        ns: now.ns,
        wall: telling::seconds(now.wall),
    }
}

fn cuts(roster: &Roster) -> Cuts {
    let services = roster.services.iter();
    let networks: HashMap<Arc<str>, Lengths> = services
        .map(|watched| (Arc::clone(&watched.service), watched.network))
        .collect();
    Cuts {
        source: roster.source,
        networks,
    }
}
