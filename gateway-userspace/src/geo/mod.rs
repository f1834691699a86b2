//! Countries of addresses, from a MaxMind database (`[geo]`).
//!
//! The database is read into memory whole and takes as much as its file; while a new one is taken in, both are there. It is not mapped: a file that is truncated while it is mapped ends the process that
//! looks into it.

mod database;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

pub use self::database::{Database, GeoError};
use crate::stamp::Stamp;

/// The database that is looked into, which follows its file.
#[derive(Debug, Default)]
pub(crate) struct Geo {
    state: RwLock<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    path: Option<PathBuf>,
    database: Option<Arc<Database>>,
    /// The file as it was when it was last tried.
    tried: Option<Stamp>,
    /// Why the file cannot be used, until it can.
    fault: Option<String>,
}

impl Geo {
    /// Follows a file from now on, or none. It is read if it is another one or has changed since it was last tried; where it cannot
    /// be used, what was read before stays. It may take a while: call it where nobody waits.
    pub(crate) fn follow(&self, path: Option<&Path>) {
        let mut state = self.state();
        if state.path.as_deref() != path {
            // Of another file nothing stays.
            state = State {
                path: path.map(Path::to_owned),
                ..State::default()
            };
        }
        let Some(path) = state.path.clone() else {
            self.put(state);
            return;
        };
        let stamp = fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata));
        if state.tried.is_some() && state.tried == stamp {
            return;
        }
        state.tried = stamp;
        // Outside the lock, for others look into the old one meanwhile.
        match Database::open(&path) {
            Ok(database) => {
                tracing::info!(
                    database = %path.display(), kind = database.kind(), built = %database.built(), bytes = database.bytes(),
                    "countries are looked up"
                );
                (state.database, state.fault) = (Some(Arc::new(database)), None);
            }
            Err(error) => {
                let held = if state.database.is_some() {
                    "the one that was read before stays in use"
                } else {
                    "countries are not looked up"
                };
                let fault = format!("{error}; {held}");
                if state.fault.as_ref() != Some(&fault) {
                    tracing::warn!("{fault}");
                }
                state.fault = Some(fault);
            }
        }
        self.put(state);
    }

    /// The database as it is now.
    pub(crate) fn now(&self) -> Option<Arc<Database>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.database.clone()
    }

    /// Why the file cannot be used, if it cannot.
    pub(crate) fn fault(&self) -> Option<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.fault.clone()
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
