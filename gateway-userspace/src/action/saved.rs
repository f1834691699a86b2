//! `actions.json`: what is being done, on disk.
//!
//! A controller that starts again must know which levers and bans are its own, so that it takes them back when asked, and
//! what the operator has undone, so that it does not do it again.

use serde::{Deserialize, Serialize};

use super::{
    Book,
    book::{Standing, What},
};
use crate::controller::backend::Moment;

/// The state file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedActions {
    /// The version of this format.
    pub schema: u32,
    /// The boot that every `until_ns` belongs to.
    pub boot_id: String,
    /// What is done about which service.
    pub services: Vec<(String, Standing)>,
}

impl SavedActions {
    /// The name of the state file.
    pub const FILE: &str = "actions.json";
    /// The present version.
    const SCHEMA: u32 = 1;

    /// What to write to disk.
    pub fn of(book: &Book, boot_id: &str) -> Self {
        let services = book.standings.iter();
        Self {
            schema: Self::SCHEMA,
            boot_id: boot_id.to_owned(),
            services: services
                .map(|(service, standing)| (service.clone(), standing.clone()))
                .collect(),
        }
    }

    /// What is still in force, or undone. Of another version nothing is known, so nothing is touched: everything in force ends by
    /// itself.
    pub fn restore(self, boot_id: &str, now: Moment) -> Book {
        if self.schema != Self::SCHEMA {
            return Book::default();
        }
        let same_boot = self.boot_id == boot_id && !boot_id.is_empty();
        let standings = self.services.into_iter().map(|(service, mut standing)| {
            // Whether the attack goes on is found out anew.
            standing.set_seen(now.ns);
            if !same_boot {
                // Levers went with the kernel that they were in; bans are back, with ends by the wall clock.
                standing.after_reboot(now);
            }
            (service, standing)
        });
        Book {
            standings: standings.collect(),
        }
    }
}

impl Standing {
    fn after_reboot(&mut self, now: Moment) {
        let Some(step) = &mut self.step else { return };
        let left = u64::try_from(step.until.duration_since(now.wall).as_nanos()).unwrap_or(0);
        match &mut step.what {
            What::Ban { bans } if left > 0 => {
                step.until_ns = now.ns.saturating_add(left);
                for until_ns in bans.values_mut() {
                    *until_ns = step.until_ns;
                }
            }
            _ => self.step = None,
        }
    }
}
