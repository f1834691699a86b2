//! Who may stay connected when more want to than a listener serves.
//!
//! A listener never stops accepting: a newcomer takes the place of the connection that has been without a request for
//! longest, so that connections which only sit there (or send their head byte by byte, or do not read) cost others nothing.
//! A user has a share of the places, and some places are kept for those who may change things.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// How many may stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// For everybody.
    pub(super) open: usize,
    /// For one user among them.
    pub(super) per_user: usize,
    /// For those who may change things, besides.
    pub(super) kept: usize,
}

/// Who wants to come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Guest {
    /// The user, where it is known.
    pub(super) user: Option<u32>,
    /// Whether the kept places are for them.
    pub(super) trusted: bool,
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Places,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// By arrival; a request makes a connection arrive anew.
    waiting: BTreeMap<u64, Member>,
    working: BTreeMap<u64, Member>,
}

#[derive(Clone, Debug)]
struct Member {
    guest: Guest,
    leave: Arc<Notify>,
}

impl Crowd {
    pub(super) fn new(places: Places) -> Arc<Self> {
        Arc::new(Self {
            places,
            inside: Mutex::default(),
        })
    }

    /// Lets a guest in, in the place of one that has no request where there is no other; `None` when all are at work.
    pub(super) fn admit(self: &Arc<Self>, guest: Guest) -> Option<Place> {
        let mut inside = self.inside();
        let of_trusted = |member: &Member| member.guest.trusted == guest.trusted;
        let of_user = |member: &Member| of_trusted(member) && member.guest.user == guest.user;
        let most = if guest.trusted {
            self.places.kept
        } else {
            self.places.open
        };
        if !guest.trusted && guest.user.is_some() && inside.count(of_user) >= self.places.per_user {
            inside.send_away(of_user)?;
        } else if inside.count(of_trusted) >= most {
            inside.send_away(of_trusted)?;
        }
        let leave = Arc::new(Notify::new());
        let member = Member {
            guest,
            leave: Arc::clone(&leave),
        };
        let id = inside.enter(member);
        Some(Place {
            crowd: Arc::clone(self),
            id: Mutex::new(id),
            leave,
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn count(&self, which: impl Fn(&Member) -> bool) -> usize {
        let all = self.waiting.values().chain(self.working.values());
        all.filter(|member| which(member)).count()
    }

    /// Sends the one away that has waited for longest.
    fn send_away(&mut self, which: impl Fn(&Member) -> bool) -> Option<()> {
        let id = self
            .waiting
            .iter()
            .find_map(|(id, member)| which(member).then_some(*id))?;
        let member = self.waiting.remove(&id)?;
        // Kept until it looks, should it not be waiting for the word right now.
        member.leave.notify_one();
        Some(())
    }

    fn enter(&mut self, member: Member) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, member);
        self.next
    }
}

/// One connection's place; dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    id: Mutex<u64>,
    leave: Arc<Notify>,
}

impl Place {
    /// Ends when the place is another's.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }

    /// A request is at work until the returned value is dropped; meanwhile the place is safe.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        let id = *self.id();
        let mut inside = self.crowd.inside();
        if let Some(member) = inside.waiting.remove(&id) {
            inside.working.insert(id, member);
        }
        Work(Arc::clone(self))
    }

    fn id(&self) -> MutexGuard<'_, u64> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let id = *self.id();
        let mut inside = self.crowd.inside();
        inside.waiting.remove(&id);
        inside.working.remove(&id);
    }
}

/// See [`Place::work`].
#[derive(Debug)]
pub(super) struct Work(Arc<Place>);

impl Drop for Work {
    fn drop(&mut self) {
        let mut id = self.0.id();
        let mut inside = self.0.crowd.inside();
        if let Some(member) = inside.working.remove(&id) {
            *id = inside.enter(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places {
        open: 3,
        per_user: 2,
        kept: 1,
    };

    fn guest(user: u32) -> Guest {
        Guest {
            user: Some(user),
            trusted: user == 0,
        }
    }

    async fn is_lost(place: &Place) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), place.lost())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_its_own_users_oldest() {
        let crowd = Crowd::new(PLACES);
        let other = crowd.admit(guest(2)).unwrap();
        let first = crowd.admit(guest(1)).unwrap();
        let second = crowd.admit(guest(1)).unwrap();
        let third = crowd.admit(guest(1)).unwrap();
        assert!(is_lost(&first).await);
        for place in [&other, &second, &third] {
            assert!(!is_lost(place).await);
        }
    }

    #[tokio::test]
    async fn a_full_house_loses_its_oldest_that_is_not_at_work() {
        let crowd = Crowd::new(PLACES);
        let places: Vec<_> = (1..=3)
            .map(|user| Arc::new(crowd.admit(guest(user)).unwrap()))
            .collect();
        let work = places[0].work();
        let fourth = crowd.admit(guest(4)).unwrap();
        assert!(!is_lost(&places[0]).await && is_lost(&places[1]).await);
        drop(fourth);
        drop(work);
        // The request made it the youngest.
        let _fifth = crowd.admit(guest(5)).unwrap();
        let _sixth = crowd.admit(guest(6)).unwrap();
        assert!(is_lost(&places[2]).await && !is_lost(&places[0]).await);
    }

    #[tokio::test]
    async fn when_all_are_at_work_others_wait_outside_but_not_the_trusted() {
        let crowd = Crowd::new(PLACES);
        let places: Vec<_> = (1..=3)
            .map(|user| Arc::new(crowd.admit(guest(user)).unwrap()))
            .collect();
        let work: Vec<_> = places.iter().map(Place::work).collect();
        assert!(crowd.admit(guest(4)).is_none());
        let root = crowd.admit(guest(0)).unwrap();
        let again = crowd.admit(guest(0)).unwrap();
        assert!(is_lost(&root).await && !is_lost(&again).await);
        drop(work);
        assert!(crowd.admit(guest(4)).is_some());
        drop((places, root, again));
        let inside = crowd.inside();
        assert!(
            inside.waiting.is_empty() && inside.working.is_empty(),
            "{inside:?}"
        );
    }
}
