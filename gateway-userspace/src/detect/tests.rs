//! Detection over profiles that tests count, with the real detectors.

use std::time::{Duration, Instant};

use gateway_core::{
    profile::{SIZE_COUNTS, TTL_COUNTS},
    verdict::Reason,
};
use gateway_detect::Settings;
use jiff::Timestamp;

use super::*;
use crate::{
    api::anomalies::AnomaliesQuery,
    metrics::Series,
    traffic::{Batch, tests::named},
};

const SECOND_NS: u64 = 1_000_000_000;

/// A node whose kernel counts what a test says.
struct Node {
    dir: tempfile::TempDir,
    now: Moment,
    services: Vec<&'static str>,
    profiles: Vec<Arc<ServiceProfile>>,
}

/// What comes to a service in a second.
#[derive(Clone, Copy, Default)]
struct Traffic {
    packets: u64,
    syn: u64,
    first_ack: u64,
}

/// Customers who get what they ask for.
const CUSTOMERS: Traffic = Traffic {
    packets: 1_000,
    syn: 80,
    first_ack: 79,
};

/// The same with SYNs that nobody completes.
const FLOOD: Traffic = Traffic {
    packets: 21_000,
    syn: 20_080,
    first_ack: 79,
};

impl Node {
    fn new(services: &[&'static str]) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            now: Moment {
                ns: 1_000 * SECOND_NS,
                wall: Timestamp::from_second(1_800_000_000).unwrap(),
            },
            services: services.to_vec(),
            profiles: services.iter().map(|name| Arc::new(empty(name))).collect(),
        }
    }

    fn start(&self) -> Detection {
        let store = Arc::new(Store::open(self.dir.path()).unwrap());
        let events = Arc::new(EventLog::open(self.dir.path()));
        let detection = Detection::open(store, events, self.now);
        detection.tick(Look {
            roster: Some(roster(&self.services)),
            ..self.look()
        });
        detection
    }

    fn look(&self) -> Look {
        Look {
            now: self.now,
            roster: None,
            profiles: Arc::new(self.profiles.clone()),
            minute: None,
        }
    }

    /// Lets time go by and traffic come.
    fn pass(&mut self, ms: u64, service: &str, traffic: Traffic) {
        self.now.ns += ms * 1_000_000;
        self.now.wall += Duration::from_millis(ms);
        let profile = self
            .profiles
            .iter_mut()
            .find(|one| one.service == service)
            .unwrap();
        let mut counted = ServiceProfile::clone(profile);
        counted.sizes[0] += traffic.packets;
        counted.ttls[7] += traffic.packets;
        counted.syn += traffic.syn;
        counted.syn_ack += traffic.syn;
        counted.first_ack += traffic.first_ack;
        *profile = Arc::new(counted);
    }

    fn seconds(&mut self, detection: &Detection, seconds: u32, service: &str, traffic: Traffic) {
        for _ in 0..seconds {
            self.pass(1_000, service, traffic);
            detection.tick(self.look());
        }
    }
}

/// What a controller has saved that has seen customers of the first service for so many seconds.
pub(crate) fn saved(services: &[&'static str], seconds: u32) -> (tempfile::TempDir, Vec<u8>) {
    let mut node = Node::new(services);
    let detection = node.start();
    node.seconds(&detection, seconds, services[0], CUSTOMERS);
    detection.save(node.now).unwrap();
    let bytes = std::fs::read(node.dir.path().join(FILE)).unwrap();
    (node.dir, bytes)
}

fn events(detection: &Detection, kind: Kind) -> Vec<Entry> {
    let events = detection.events.last(4_096, None).events.into_iter();
    events
        .map(|event| event.entry)
        .filter(|entry| entry.kind == kind)
        .collect()
}

fn empty(service: &str) -> ServiceProfile {
    ServiceProfile {
        service: service.into(),
        sizes: vec![0; SIZE_COUNTS],
        ttls: vec![0; TTL_COUNTS],
        ..ServiceProfile::default()
    }
}

fn roster(services: &[&str]) -> Roster {
    Roster {
        key: services.join(" "),
        enabled: true,
        sensitivity: "1/week".into(),
        sampled: true,
        source: (32, 64),
        services: services
            .iter()
            .map(|service| Watched {
                service: Arc::from(*service),
                settings: Settings::default(),
                network: (24, 48),
            })
            .collect(),
    }
}

fn verdict(detection: &Detection, service: &str) -> String {
    detection.verdicts()[service].to_string()
}

#[test]
fn a_flood_begins_and_ends_and_everybody_hears_of_it() {
    let mut node = Node::new(&["shop", "web"]);
    let detection = node.start();
    let mut turns = detection.follow();
    node.seconds(&detection, 30, "shop", CUSTOMERS);
    assert_eq!(verdict(&detection, "shop"), "learning");
    assert_eq!(detection.summary().learning, 2);
    node.seconds(&detection, 3, "shop", FLOOD);
    assert_eq!(verdict(&detection, "shop"), "attack (syn_flood)");
    assert_eq!(verdict(&detection, "web"), "learning");

    let turn = turns.try_recv().unwrap();
    assert_eq!((&*turn.service, turn.change), ("shop", Change::Began));
    assert_eq!(turn.anomaly.title(), "attack (syn_flood)");
    let began = events(&detection, Kind::AnomalyBegan);
    assert_eq!(began.len(), 1);
    assert_eq!(
        began[0].anomaly.as_ref().unwrap().kind.as_deref(),
        Some("syn_flood")
    );
    let told = |all| {
        let query = AnomaliesQuery {
            all: Some(all),
            ..AnomaliesQuery::default()
        };
        detection.answer(&query, node.now).unwrap().services
    };
    assert_eq!(told(false).len(), 1);
    let all = told(true);
    assert_eq!(
        (all[0].service.as_str(), all[1].service.as_str()),
        ("shop", "web")
    );
    assert!(all[0].anomaly.packets_per_second > 20_000.0);

    let mut series = Series::default();
    series.admit(node.profiles.iter().map(AsRef::as_ref));
    let shown = detection.observe(&series, node.now);
    assert!(
        shown
            .active
            .iter()
            .any(|active| active.kind == "syn_flood" && active.lasts)
    );
    assert!(
        shown
            .scored
            .iter()
            .any(|scored| scored.service == "shop" && !scored.features.is_empty())
    );

    node.seconds(&detection, 20, "shop", CUSTOMERS);
    assert_eq!(verdict(&detection, "shop"), "learning");
    assert!(matches!(turns.try_recv().unwrap().change, Change::Ended(_)));
    let ended = events(&detection, Kind::AnomalyEnded);
    assert!(ended[0].anomaly.as_ref().unwrap().duration_seconds >= 3);
    let answer = detection.answer(&AnomaliesQuery::default(), node.now).unwrap();
    assert_eq!(answer.ended[0].anomaly.kind.as_deref(), Some("syn_flood"));
    assert!(
        answer.ended[0].anomaly.packets_per_second > 20_000.0,
        "as it was at its worst"
    );
    let shown = detection.observe(&series, node.now);
    assert!(
        shown
            .active
            .iter()
            .any(|active| active.kind == "syn_flood" && !active.lasts)
    );
    node.now.ns += 700 * SECOND_NS;
    node.now.wall += Duration::from_secs(700);
    assert!(detection.observe(&series, node.now).active.is_empty());
}

#[test]
fn what_begins_within_a_second_is_seen_in_between() {
    let mut node = Node::new(&["shop"]);
    let detection = node.start();
    node.seconds(&detection, 10, "shop", CUSTOMERS);
    let sample = |source| named(source, 0x02, 1_000, Reason::Pass);
    // As much as ever: nobody is suspected.
    detection.see(&Batch {
        samples: vec![sample(1)],
    });
    assert!(detection.suspects(1.0).is_empty());
    detection.see(&Batch {
        samples: (0..5).map(sample).collect(),
    });
    let suspects = detection.suspects(0.1);
    assert_eq!(suspects, [Arc::from("shop")]);
    let flood = Traffic {
        packets: 5_000,
        syn: 5_000,
        first_ack: 0,
    };
    node.pass(300, "shop", flood);
    assert!(detection.glance(node.now, &node.profiles));
    assert_eq!(verdict(&detection, "shop"), "attack (syn_flood)");
    // What was looked at is not looked at again, but belongs to the second.
    assert!(!detection.glance(node.now, &node.profiles));
    node.pass(700, "shop", Traffic::default());
    detection.tick(node.look());
    let finding = detection
        .with("shop", |detector| detector.finding().clone())
        .unwrap();
    assert!((finding.packets_per_second - 5_000.0).abs() < 1.0, "{finding:?}");
}

#[test]
fn without_samples_few_services_are_looked_at_in_between() {
    let node = Node::new(&["shop", "web"]);
    let detection = node.start();
    detection.tick(Look {
        roster: Some(Roster {
            sampled: false,
            ..roster(&node.services)
        }),
        ..node.look()
    });
    assert_eq!(detection.suspects(0.1).len(), 2);
}

#[test]
fn what_was_learned_outlives_the_controller_and_a_service_that_goes() {
    let mut node = Node::new(&["shop", "web"]);
    let detection = node.start();
    node.seconds(&detection, 100, "shop", CUSTOMERS);
    node.seconds(&detection, 2, "shop", FLOOD);
    let learned = |detection: &Detection, service: &str| {
        detection
            .with(service, |detector| detector.finding().learned)
            .unwrap()
    };
    let before = learned(&detection, "shop");
    assert!(before > 0.1, "{before}");
    detection.save(node.now).unwrap();
    drop(detection);

    // What lasted is told as over; what was learned is there.
    let detection = node.start();
    let ended = events(&detection, Kind::AnomalyEnded);
    assert_eq!(ended[0].why.as_deref(), Some("the controller ended"));
    node.seconds(&detection, 1, "shop", CUSTOMERS);
    assert!(learned(&detection, "shop") >= before);
    let answer = detection.answer(&AnomaliesQuery::default(), node.now).unwrap();
    assert_eq!(answer.ended[0].why.as_deref(), Some("the controller ended"));

    // The policy loses the service for a while, over a restart.
    let only_web = roster(&["web"]);
    let gone = |roster: &Roster| Look {
        roster: Some(roster.clone()),
        ..node.look()
    };
    detection.tick(gone(&only_web));
    assert!(detection.with("shop", |_| ()).is_none());
    detection.save(node.now).unwrap();
    drop(detection);
    let detection = node.start();
    node.seconds(&detection, 2, "shop", CUSTOMERS);
    assert!(learned(&detection, "shop") >= before);

    // A week later it is forgotten.
    let gone = Look {
        roster: Some(only_web),
        ..node.look()
    };
    detection.tick(gone);
    node.now.wall += Duration::from_hours(8 * 24);
    node.now.ns += 8 * 86_400 * SECOND_NS;
    detection.save(node.now).unwrap();
    let again = Look {
        roster: Some(roster(&["shop", "web"])),
        ..node.look()
    };
    detection.tick(again);
    node.seconds(&detection, 2, "shop", CUSTOMERS);
    assert!(learned(&detection, "shop") < 0.1);
}

#[test]
fn an_anomaly_ends_with_the_service_that_has_it() {
    let mut node = Node::new(&["shop", "web"]);
    let detection = node.start();
    node.seconds(&detection, 2, "shop", FLOOD);
    assert_eq!(verdict(&detection, "shop"), "attack (syn_flood)");
    detection.tick(Look {
        roster: Some(roster(&["web"])),
        ..node.look()
    });
    let ended = events(&detection, Kind::AnomalyEnded);
    assert_eq!(ended.len(), 1);
    let answer = detection.answer(&AnomaliesQuery::default(), node.now).unwrap();
    assert!(answer.ended[0].why.as_deref().unwrap().contains("not watched"));
    assert_eq!(answer.summary.attack, 0);
}

#[test]
fn what_the_operator_accepts_is_over() {
    let mut node = Node::new(&["shop"]);
    let detection = node.start();
    let refused = |service: &str| detection.accept(service, node.now, None).unwrap_err().to_string();
    assert!(refused("nobody").contains("not looked at"));
    assert!(refused("shop").contains("no anomaly"));
    node.seconds(&detection, 3, "shop", FLOOD);
    let accepted = detection.accept("shop", node.now, None).unwrap();
    assert_eq!(accepted.ended.anomaly.title(), "attack (syn_flood)");
    assert_eq!(verdict(&detection, "shop"), "learning");
    let ended = events(&detection, Kind::AnomalyEnded);
    assert_eq!(ended[0].why.as_deref(), Some(ACCEPTED));
    let answer = detection.answer(&AnomaliesQuery::default(), node.now).unwrap();
    assert_eq!(answer.ended[0].why.as_deref(), Some(ACCEPTED));
}

#[test]
fn another_boot_and_a_clock_that_is_set_back_do_no_harm() {
    let mut node = Node::new(&["shop"]);
    let detection = node.start();
    node.seconds(&detection, 5, "shop", CUSTOMERS);
    node.now.wall -= Duration::from_hours(1);
    node.seconds(&detection, 5, "shop", CUSTOMERS);
    // Two looks in one moment.
    detection.tick(node.look());
    detection.tick(node.look());
    // Counters that begin anew.
    node.profiles[0] = Arc::new(empty("shop"));
    node.seconds(&detection, 5, "shop", CUSTOMERS);
    assert_eq!(verdict(&detection, "shop"), "learning");
    let finding = detection
        .with("shop", |detector| detector.finding().clone())
        .unwrap();
    assert!((finding.packets_per_second - 1_000.0).abs() < 1.0, "{finding:?}");
}

/// Ten thousand services, a thousand of them with traffic, ten samples a second each: under a tenth of a core, and what that
/// takes of memory and disk. Run in release: `cargo test --release -p gateway-userspace --lib ten_thousand -- --ignored --nocapture`.
#[test]
#[ignore = "it measures, and takes a release build"]
fn ten_thousand_services_cost_less_than_a_tenth_of_a_core() {
    const SERVICES: usize = 10_000;
    const BUSY: usize = 1_000;
    const SECONDS: u32 = 700;
    let names: Vec<&'static str> = (0..SERVICES)
        .map(|number| &*Box::leak(format!("service-{number:05}").into_boxed_str()))
        .collect();
    let mut node = Node::new(&names);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap()
    };
    let before = resident();
    let detection = node.start();
    let (mut spent, mut dearest) = (Duration::ZERO, Duration::ZERO);
    for second in 0..SECONDS {
        for profile in &mut node.profiles[..BUSY] {
            let mut counted = ServiceProfile::clone(profile);
            counted.sizes[second as usize % 4] += 1_000;
            counted.ttls[7] += 1_000;
            counted.syn += 80;
            counted.syn_ack += 80;
            counted.first_ack += 79;
            *profile = Arc::new(counted);
        }
        let samples = (0..BUSY * 10).map(|number| {
            let mut sample = named(
                0x0a00_0000 + (number as u32 * 7 + second) % 5_000,
                0x10,
                100,
                Reason::Pass,
            );
            sample.service = Arc::from(names[number % BUSY]);
            sample
        });
        let batch = Batch {
            samples: samples.collect(),
        };
        node.now.ns += SECOND_NS;
        node.now.wall += Duration::from_secs(1);
        let begun = Instant::now();
        detection.see(&batch);
        detection.tick(node.look());
        let took = begun.elapsed();
        spent += took;
        dearest = dearest.max(took);
    }
    let a_second = spent / SECONDS;
    println!("a second takes {a_second:?}, the dearest {dearest:?}");
    println!("memory: {} kB more", resident() - before);
    let begun = Instant::now();
    detection.save(node.now).unwrap();
    println!("saved in {:?}", begun.elapsed());
    let bytes = std::fs::metadata(node.dir.path().join(saved::FILE))
        .unwrap()
        .len();
    let largest = detection.with(names[0], |detector| {
        dormant::write_down(names[0], detector).unwrap().len()
    });
    println!("on disk: {bytes} bytes, a busy service {largest:?}");
    assert!(a_second.as_millis() < 100, "{a_second:?}");
    assert_eq!(detection.summary().attack, 0);
}
