//! A policy that waits for confirmation: in force until a time, after which the kernel goes back by itself.
//!
//! Both generations stay whole while one waits. The word [`Control::Active`] alone says what is in force: it is written
//! after the pinned state when a policy begins to wait, and before it when the policy is confirmed or taken back, so
//! that whoever opens the maps after a crash reads from the word what became of it and brings the books up to date.

use gateway_core::image::{Active, Control};
use serde::{Deserialize, Serialize};

use super::{Dataplane, KernelError, Lever, Pending};
use crate::compile::registry::Usage;

/// What the pinned state says about a policy that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The half of the tables that it lies in.
    pub(super) generation: u32,
    /// Its text.
    pub(super) text: String,
    /// Its levers.
    pub(super) levers: Vec<Lever>,
    /// What the policy before it uses.
    pub(super) before: Usage,
}

impl Dataplane {
    pub(super) fn active(&self) -> Result<Active, KernelError> {
        Ok(Active::from_word(self.control(Control::Active)?))
    }

    /// Writes what is in force; what is banned stays as the books have it.
    pub(super) fn set_active(&self, active: Active) -> Result<(), KernelError> {
        self.set_control(Control::Active, active.banning(self.bans.flags()).word())
    }

    /// The policy that waits for confirmation, if there is one whose time is not over.
    pub fn pending(&self) -> Result<Option<Pending>, KernelError> {
        let Some(waiting) = &self.state.waiting else {
            return Ok(None);
        };
        let until_ns = self.active()?.until_ns();
        Ok(until_ns
            .filter(|until_ns| *until_ns > Self::now_ns())
            .map(|until_ns| Pending {
                text: waiting.text.clone(),
                until_ns,
            }))
    }

    /// Keeps the policy that waits, for good: one write.
    ///
    /// # Errors
    /// `NotPending` where none waits, or its time is over.
    pub fn confirm(&mut self) -> Result<(), KernelError> {
        self.settle()?;
        let Some(waiting) = &self.state.waiting else {
            return Err(KernelError::NotPending);
        };
        self.decide(Active::for_good(waiting.generation))
    }

    /// Goes back to the policy before the one that waits: one write.
    ///
    /// # Errors
    /// `NotPending` where none waits, or its time is over.
    pub fn revert(&mut self) -> Result<(), KernelError> {
        self.settle()?;
        let Some(waiting) = &self.state.waiting else {
            return Err(KernelError::NotPending);
        };
        self.decide(Active::for_good(1 - waiting.generation))
    }

    /// Writes the word; that decides it. Books that cannot be brought up to date now are so by the next change or start.
    fn decide(&mut self, active: Active) -> Result<(), KernelError> {
        self.set_active(active)?;
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "the policy is switched, but the pinned books are not up to date yet");
        }
        Ok(())
    }

    /// Brings the books up to date with what the kernel has in force; where the time of a policy is over, what it went back
    /// to is made permanent. True if the policy that waited waits no more.
    pub fn settle(&mut self) -> Result<bool, KernelError> {
        if self.gone {
            return Ok(false);
        }
        let active = self.active()?;
        let now_ns = Self::now_ns();
        if active.until_ns().is_some_and(|until_ns| now_ns < until_ns) && self.state.waiting.is_some() {
            return Ok(false);
        }
        let generation = active.in_force(now_ns);
        if active.until_ns().is_some() {
            self.set_active(Active::for_good(generation))?;
        }
        let Some(waiting) = self.state.waiting.clone() else {
            return Ok(false);
        };
        // What goes from the kernel's tables goes before the books forget its numbers: a crash in between repeats it.
        let mut next = self.state.clone();
        next.waiting = None;
        let (gone, cleared) = if generation == waiting.generation {
            let gone = waiting.before.services_not_in(&next.registry);
            let cleared = super::apply::retire_series(&mut next.registry, &waiting.text);
            next.text = Some(waiting.text);
            next.levers = waiting.levers;
            (gone, cleared)
        } else {
            next.registry.back_to(&waiting.before, now_ns)
        };
        self.slim(self.needed_by_both()?);
        self.drop_bans_of(&gone)?;
        self.clear_series(&cleared)?;
        next.write(&self.set)?;
        self.state = next;
        if let Err(error) = self.watch_handshakes(false) {
            // More of them than the policy needs do no harm.
            tracing::warn!(%error, "the programs that see handshakes are not yet those that the policy needs");
        }
        Ok(true)
    }

    /// An error while a policy waits: whatever would change the tables would overwrite the one to go back to.
    pub(super) fn none_waits(&mut self) -> Result<(), KernelError> {
        self.settle()?;
        match self.state.waiting {
            None => Ok(()),
            Some(_) => Err(KernelError::Pending),
        }
    }

    /// A service's number, by the policy in force or the one that it may go back to.
    pub(super) fn number_of(&self, service: &str) -> Option<u32> {
        let before = self.state.waiting.as_ref().map(|waiting| &waiting.before);
        self.state
            .registry
            .service(service)
            .or_else(|| before.and_then(|before| before.service(service)))
    }

    /// A service's name, by the policy in force or the one that it may go back to.
    pub(super) fn name_of(&self, number: u32) -> Option<&str> {
        let before = self.state.waiting.as_ref().map(|waiting| &waiting.before);
        self.state
            .registry
            .service_name(number)
            .or_else(|| before.and_then(|before| before.service_name(number)))
    }
}
