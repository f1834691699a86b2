//! The log of events in memory: a rate, numbers, and the last events for whoever asks.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use super::{
    Actor, Entry, Event, Kind,
    file::{Bounds, Writer, read_last, write_all},
};
use crate::controller::backend::Moment;

/// Events that are kept in memory for whoever asks.
const KEPT: usize = 4096;
/// Events a second that are told; the others are counted.
const PER_SECOND: u64 = 100;
/// Of these, how many the kernel may have: a flood of blocks must not hide what an operator does.
const PER_SECOND_OF_KERNEL: u64 = 80;
/// Lines that may wait for the disk.
const WAITING: usize = 1024;
/// Who may wait for events at once.
const FOLLOWERS: usize = 32;
/// How long the end of the controller waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);
const SECOND_NS: u64 = 1_000_000_000;

/// The log. Recording never waits for the disk or for a reader.
#[derive(Debug)]
pub struct EventLog {
    inner: Mutex<Inner>,
    disk: Arc<Mutex<Disk>>,
    /// The number of the newest event, and whether the log is closed.
    newest: watch::Sender<(u64, bool)>,
    followers: Arc<Semaphore>,
    written: Mutex<Option<Receiver<()>>>,
}

#[derive(Debug)]
struct Inner {
    kept: VecDeque<Event>,
    next: u64,
    second: u64,
    told: u64,
    told_of_kernel: u64,
    suppressed: u64,
    lost: u64,
    lines: Option<SyncSender<String>>,
}

/// What became of the writes.
#[derive(Debug, Default)]
struct Disk {
    fault: Option<String>,
    unwritten: u64,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The number to go on after.
    pub next: u64,
    /// Events after the reader's number that are not in memory any more.
    pub missed: u64,
    /// No more will come: the controller is stopping.
    pub ended: bool,
}

impl EventLog {
    /// Opens the log of a state directory. A damaged or unreadable file is no obstacle: a warning says so.
    pub fn open(dir: &Path) -> Self {
        Self::with_bounds(dir, Bounds::default())
    }

    fn with_bounds(dir: &Path, bounds: Bounds) -> Self {
        let kept = match read_last(dir, bounds, KEPT) {
            Ok((events, damaged)) => {
                if damaged > 0 {
                    tracing::warn!(damaged, dir = %dir.display(), "lines of the event log are damaged and passed over");
                }
                events
            }
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "cannot read the event log; it goes on from here");
                Vec::new()
            }
        };
        let next = kept.iter().map(|event| event.number).max().unwrap_or(0) + 1;
        let (lines, waiting) = sync_channel(WAITING);
        let (done, written) = channel();
        let disk = Arc::new(Mutex::new(Disk::default()));
        let told = Arc::clone(&disk);
        let writer = Writer::new(dir, bounds);
        let spawned = thread::Builder::new().name("weir-events".into()).spawn(move || {
            write_all(writer, &waiting, |result| lock(&told).tell(result));
            // Nobody waits for it unless the controller is ending.
            let _ = done.send(());
        });
        if let Err(error) = spawned {
            lock(&disk).tell(Err(error));
        }
        Self {
            inner: Mutex::new(Inner {
                kept: kept.into(),
                next,
                second: 0,
                told: 0,
                told_of_kernel: 0,
                suppressed: 0,
                lost: 0,
                lines: Some(lines),
            }),
            disk,
            newest: watch::Sender::new((next - 1, false)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            written: Mutex::new(Some(written)),
        }
    }

    /// Takes an event in that happened now.
    pub fn record(&self, now: Moment, entry: Entry) {
        self.record_at(now, now.wall, entry);
    }

    /// Takes an event in that happened at another time.
    pub fn record_at(&self, now: Moment, at: Timestamp, entry: Entry) {
        let mut inner = lock(&self.inner);
        self.turn(&mut inner, now);
        let kernel = entry.by == Actor::Kernel;
        if inner.told >= PER_SECOND || kernel && inner.told_of_kernel >= PER_SECOND_OF_KERNEL {
            inner.suppressed += 1;
            inner.lost += 1;
            return;
        }
        inner.told += 1;
        inner.told_of_kernel += u64::from(kernel);
        self.put(&mut inner, at, entry);
    }

    /// Says how many events were suppressed, when their second is over.
    pub fn tick(&self, now: Moment) {
        self.turn(&mut lock(&self.inner), now);
    }

    /// When [`Self::tick`] has something to say, on the kernel's clock; nothing while no event is suppressed.
    pub fn due_ns(&self) -> Option<u64> {
        let inner = lock(&self.inner);
        (inner.suppressed > 0).then_some((inner.second + 1) * SECOND_NS)
    }

    fn turn(&self, inner: &mut Inner, now: Moment) {
        let second = now.ns / SECOND_NS;
        if second == inner.second {
            return;
        }
        inner.second = second;
        (inner.told, inner.told_of_kernel) = (0, 0);
        self.say_suppressed(inner, now);
    }

    fn say_suppressed(&self, inner: &mut Inner, now: Moment) {
        let suppressed = std::mem::take(&mut inner.suppressed);
        if suppressed > 0 {
            let what = format!("{suppressed} events above {PER_SECOND} a second were only counted");
            let mut entry = Entry::new(Kind::Suppressed, what);
            entry.count = Some(suppressed);
            self.put(inner, now.wall, entry);
        }
    }

    fn put(&self, inner: &mut Inner, at: Timestamp, entry: Entry) {
        let event = Event {
            number: inner.next,
            at,
            entry,
        };
        inner.next += 1;
        if let Ok(line) = serde_json::to_string(&event) {
            let sent = inner
                .lines
                .as_ref()
                .is_some_and(|lines| lines.try_send(line).is_ok());
            if !sent {
                lock(&self.disk).tell(Err(io::Error::other("the disk does not keep up")));
            }
        }
        if inner.kept.len() >= KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event);
        self.newest.send_modify(|newest| newest.0 = inner.next - 1);
    }

    /// The events after a number, at most so many.
    pub fn after(&self, number: u64, most: usize) -> Page {
        let inner = lock(&self.inner);
        let newest = inner.next - 1;
        // A number from another state directory says nothing here: such a reader begins with what is there.
        let number = if number > newest { 0 } else { number };
        let oldest = inner.kept.front().map_or(inner.next, |event| event.number);
        let fresh = inner.kept.iter().filter(|event| event.number > number);
        let events: Vec<Event> = fresh.take(most).cloned().collect();
        let next = events.last().map_or(newest, |event| event.number);
        Page {
            next,
            missed: (oldest - 1).saturating_sub(number),
            ended: self.newest.borrow().1 && next == newest,
            events,
        }
    }

    /// The last events, at most so many, from a time on.
    pub fn last(&self, most: usize, since: Option<Timestamp>) -> Page {
        let inner = lock(&self.inner);
        let wanted = inner.kept.iter().rev();
        let wanted = wanted.filter(|event| since.is_none_or(|since| event.at >= since));
        let mut events: Vec<Event> = wanted.take(most).cloned().collect();
        events.reverse();
        Page {
            events,
            next: inner.next - 1,
            missed: 0,
            ended: self.newest.borrow().1,
        }
    }

    /// Waits until there is an event after a number, the log is closed, or the time is over. False: too many wait.
    pub async fn wait(&self, number: u64, patience: Duration) -> bool {
        let Ok(_place) = Arc::clone(&self.followers).try_acquire_owned() else {
            return false;
        };
        let mut newest = self.newest.subscribe();
        let waited = newest.wait_for(|(newest, closed)| *newest != number || *closed);
        let _ = tokio::time::timeout(patience, waited).await;
        true
    }

    /// Events that were only counted.
    pub fn lost(&self) -> u64 {
        lock(&self.inner).lost
    }

    /// Why events are not written, and how many have not been; nothing while they are.
    pub fn fault(&self) -> Option<(String, u64)> {
        let disk = lock(&self.disk);
        disk.fault.clone().map(|fault| (fault, disk.unwritten))
    }

    /// Says what was suppressed and the last event, lets followers go, and waits a little for the disk.
    pub fn close(&self, now: Moment, last: Entry) {
        let mut inner = lock(&self.inner);
        self.say_suppressed(&mut inner, now);
        self.put(&mut inner, now.wall, last);
        inner.lines = None;
        // Under the lock: whoever sees the last event also sees that it is the last.
        self.newest.send_modify(|newest| newest.1 = true);
        drop(inner);
        let written = lock(&self.written).take();
        if let Some(written) = written
            && written.recv_timeout(PATIENCE).is_err()
        {
            tracing::warn!("the last events may be missing from the event log: the disk takes too long");
        }
    }
}

impl Disk {
    fn tell(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {
                if self.fault.take().is_some() {
                    tracing::info!(unwritten = self.unwritten, "events are written again");
                }
            }
            Err(error) => {
                self.unwritten += 1;
                if self.fault.is_none() {
                    tracing::error!(%error, "events are kept in memory but cannot be written");
                }
                self.fault = Some(error.to_string());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
