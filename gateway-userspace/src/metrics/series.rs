//! Which services have series of their own.

use std::collections::BTreeSet;

use crate::kernel::ServiceProfile;

/// The most services with series of their own; the others are one, [`OTHER`].
pub const MOST: usize = 100;
/// The label of all others together.
pub const OTHER: &str = "other";

/// The services with series of their own: the first hundred that have traffic. A service that is in stays in, so that no
/// counter ever goes back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Series {
    names: BTreeSet<String>,
}

impl Series {
    /// Lets services in while there is room.
    pub fn admit<'a>(&mut self, profiles: impl IntoIterator<Item = &'a ServiceProfile>) {
        for profile in profiles {
            if self.names.len() >= MOST {
                return;
            }
            if !self.has(&profile.service) && profile.service != OTHER {
                self.names.insert(profile.service.clone());
            }
        }
    }

    /// Whether a service has series of its own.
    pub fn has(&self, service: &str) -> bool {
        self.names.contains(service)
    }

    /// The services.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}
