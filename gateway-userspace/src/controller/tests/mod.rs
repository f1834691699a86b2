//! The controller over a fake kernel: its rules, and its socket with real HTTP.

mod access;
mod actions;
mod events;
mod faults;
mod guards;
mod heartbeat;
mod pending;
mod rules;
mod samples;
mod socket;
mod starts;

use std::{fs, path::Path, sync::Arc};

use super::{
    backend::Clock,
    engine::{Engine, Parts},
    fake::{Fake, FakeClock},
    prepare::Prepared,
    start::Choice,
};
use crate::{
    api::types::{BanRequest, BansRequest},
    guard::{Guarded, Neighbours},
    kernel::XdpModeChoice,
    state::Store,
};

pub(super) const POLICY: &str = r#"version = 1
interfaces = ["lan0"]

[[protect]]
sources = ["10.9.0.0/28"]
[[protect]]
sources = ["10.8.0.0/28"]
protocol = "tcp"
ports = [22]

[lists.blocklist]
action = "drop"
prefixes = ["198.51.100.0/24"]
max_prefixes = 5
[lists.cdn]
action = "trust"
prefixes = ["192.0.2.0/24"]

[[service]]
name = "storefront"
protocol = "tcp"
ports = [80, 443]
"#;

/// A controller in a directory, with its fake kernel and clock.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) kernel: Fake,
    pub(super) clock: FakeClock,
    pub(super) guarded: Vec<Guarded>,
}

/// Those whom a test names, and nobody else.
struct Nobody(Vec<Guarded>);

impl Neighbours for Nobody {
    fn look(&mut self) -> Vec<Guarded> {
        self.0.clone()
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: Fake::default(),
            clock: FakeClock::default(),
            guarded: Vec::new(),
        };
        bench.kernel.0.lock().unwrap().clock = bench.clock.clone();
        bench.write_policy(POLICY);
        bench
    }

    pub(super) fn policy_file(&self) -> std::path::PathBuf {
        self.dir.path().join("policy.toml")
    }

    pub(super) fn write_policy(&self, text: &str) {
        fs::write(self.policy_file(), text).unwrap();
    }

    /// Starts a controller as `weir run` does. The one before must be gone.
    pub(super) fn start(&self) -> Engine {
        let store = Arc::new(Store::open(&self.dir.path().join("state")).unwrap());
        let choice = Choice::of(&store, Prepared::from_file(&self.policy_file()).unwrap()).unwrap();
        let parts = Parts {
            backend: Box::new(self.kernel.clone()),
            clock: Arc::new(self.clock.clone()) as Arc<dyn Clock>,
            store,
            policy_file: self.policy_file(),
        };
        let mut engine = Engine::start(parts, choice).unwrap();
        engine.neighbours = Box::new(Nobody(self.guarded.clone()));
        engine.attach(&["lan0".to_owned()], XdpModeChoice::Auto).unwrap();
        engine.save_policy().unwrap();
        engine
    }
}

pub(super) fn prepared(text: &str) -> Prepared {
    Prepared::from_text(text, "/elsewhere/other.toml").unwrap()
}

pub(super) fn save(engine: &mut Engine) {
    if let Some(pending) = engine.take_unsaved() {
        let result = pending.write();
        assert!(result.is_ok(), "{result:?}");
        engine.saved(pending, result);
    }
}

pub(super) fn bans(list: &[(&str, Option<u64>)]) -> BansRequest {
    let bans = list.iter().map(|(prefix, for_seconds)| BanRequest {
        prefix: (*prefix).to_owned(),
        for_seconds: *for_seconds,
        ..BanRequest::default()
    });
    BansRequest {
        bans: bans.collect(),
        force: false,
    }
}

pub(super) fn corrupt(path: &Path) {
    fs::write(path, b"{\"half").unwrap();
}
