//! Customers of a storefront: each has an address of its own, opens a new connection for each page,
//! and waits so long and no longer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{http, netns::Netns, tcp};

/// How a crowd of shoppers behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// One address each.
    pub sources: Vec<IpAddr>,
    /// Where they shop.
    pub target: SocketAddr,
    /// From the start of one page to the start of the next.
    pub every: Duration,
    /// When a shopper gives a page up.
    pub timeout: Duration,
}

/// A running crowd; it goes home when dropped.
#[derive(Debug)]
pub struct Shoppers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    visits: Mutex<Vec<Visit>>,
}

/// One page that a shopper asked for.
#[derive(Debug, Clone, Copy)]
struct Visit {
    took: Duration,
    served: bool,
}

/// What a crowd went through in one span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Experience {
    /// Pages asked for.
    pub visits: usize,
    /// Pages that came whole and in time.
    pub served: usize,
    sorted: Vec<Duration>,
}

impl Shoppers {
    /// Sends the crowd shopping from inside `netns`, whose interface must have their addresses.
    pub fn start(netns: &Netns, habits: &Habits) -> Result<Self> {
        let mut shoppers = Self {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        for (number, &source) in habits.sources.iter().enumerate() {
            let (shared, habits) = (Arc::clone(&shoppers.shared), habits.clone());
            // Spread over the interval, so that they do not come in step.
            let delay = habits.every * number as u32 / habits.sources.len().max(1) as u32;
            shoppers
                .threads
                .push(netns.spawn(move || shared.shop(source, &habits, delay))?);
        }
        Ok(shoppers)
    }

    /// Takes the visits that ended since the last call.
    pub fn take(&self) -> Experience {
        let visits = std::mem::take(&mut *self.shared.visits.lock().unwrap_or_else(PoisonError::into_inner));
        Experience::of(&visits)
    }
}

impl Drop for Shoppers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn shop(&self, source: IpAddr, habits: &Habits, delay: Duration) {
        let mut next = Instant::now() + delay;
        while self.sleep_until(next) {
            let start = Instant::now();
            let served = visit(source, habits).is_ok_and(|code| code == 200);
            let visit = Visit {
                took: start.elapsed(),
                served,
            };
            self.visits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(visit);
            // A shopper who waited does not ask twice to make up for it.
            next = (next + habits.every).max(Instant::now());
        }
    }

    /// Sleeps in short steps, so that the end is heard; says whether to go on.
    fn sleep_until(&self, until: Instant) -> bool {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

fn visit(source: IpAddr, habits: &Habits) -> std::io::Result<u16> {
    let deadline = Instant::now() + habits.timeout;
    let mut stream = tcp::connect_from(SocketAddr::new(source, 0), habits.target, habits.timeout)?;
    // The timeout is for the whole page. Zero would mean no timeout at all.
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    http::get(&mut stream)
}

impl Experience {
    fn of(visits: &[Visit]) -> Self {
        let mut sorted: Vec<_> = visits.iter().map(|visit| visit.took).collect();
        sorted.sort_unstable();
        Self {
            visits: visits.len(),
            served: visits.iter().filter(|visit| visit.served).count(),
            sorted,
        }
    }

    /// The share of pages served, in percent; 0 when none was asked for.
    pub fn success_percent(&self) -> f64 {
        if self.visits == 0 {
            0.0
        } else {
            self.served as f64 * 100.0 / self.visits as f64
        }
    }

    /// How long `percent` of the pages took at most. One that was given up counts with the time that
    /// the shopper waited for it.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_failures_with_their_wait() {
        let visits: Vec<_> = (1..=100)
            .map(|n| Visit {
                took: Duration::from_millis(n),
                served: n <= 97,
            })
            .rev()
            .collect();
        let experience = Experience::of(&visits);
        assert!((experience.success_percent() - 97.0).abs() < 1e-9);
        assert_eq!(experience.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(experience.percentile(99), Some(Duration::from_millis(99)));
        assert_eq!(experience.percentile(100), Some(Duration::from_millis(100)));
        assert_eq!(Experience::of(&[]).percentile(50), None);
        assert!(Experience::of(&[]).success_percent().abs() < f64::EPSILON);
    }
}
