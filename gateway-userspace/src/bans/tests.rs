use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn record(until_ns: u64) -> BanRecord {
    BanRecord {
        until_ns,
        until: None,
        created_at: Timestamp::UNIX_EPOCH,
        reason: None,
    }
}

fn ban(prefix: &str, until_ns: u64) -> Change {
    Change {
        prefix: net(prefix),
        scope: None,
        record: Some(record(until_ns)),
    }
}

fn entry(prefix: &str, until_ns: u64) -> BanEntry {
    BanEntry {
        prefix: net(prefix),
        service: None,
        until_ns,
    }
}

fn change(book: &mut BanBook, changes: Vec<Change>) -> KernelChanges {
    book.change(changes).kernel
}

#[test]
fn a_covered_entry_carries_the_end_of_the_wider_ban() {
    let mut book = BanBook::default();
    assert_eq!(
        change(&mut book, vec![ban("192.0.2.7/32", 10)]).set,
        [entry("192.0.2.7/32", 10)]
    );
    let both = change(&mut book, vec![ban("192.0.2.0/24", 50)]).set;
    assert_eq!(both, [entry("192.0.2.0/24", 50), entry("192.0.2.7/32", 50)]);
    // Taking the wider one back lowers it again, and says so to the kernel.
    let back = Change {
        prefix: net("192.0.2.0/24"),
        scope: None,
        record: None,
    };
    let changes = change(&mut book, vec![back]);
    assert_eq!(changes.delete, [(net("192.0.2.0/24"), None)]);
    assert_eq!(changes.set, [entry("192.0.2.7/32", 10)]);
}

#[test]
fn services_are_scopes_of_their_own() {
    let mut book = BanBook::default();
    let web = Some("web".to_owned());
    change(&mut book, vec![ban("10.0.0.0/8", 100)]);
    let own = Change {
        prefix: net("10.1.0.0/16"),
        scope: web.clone(),
        record: Some(record(20)),
    };
    let changes = change(&mut book, vec![own]);
    assert_eq!(
        changes.set,
        [BanEntry {
            prefix: net("10.1.0.0/16"),
            service: web.clone(),
            until_ns: 20
        }]
    );
    let (prefix, scope, _) = book.covering(&net("10.1.2.3/32"), &web).unwrap();
    assert_eq!(
        (prefix, scope),
        (net("10.0.0.0/8"), None),
        "the one for all services lasts longer"
    );
    assert!(book.covering(&net("11.0.0.1/32"), &web).is_none());
    assert_eq!(
        book.covering(&net("10.1.2.3/32"), &None).unwrap().0,
        net("10.0.0.0/8")
    );
}

#[test]
fn bans_lapse_in_order_and_leave_the_others() {
    let mut book = BanBook::default();
    change(
        &mut book,
        vec![
            ban("10.0.0.1/32", 30),
            ban("10.0.0.2/32", 10),
            ban("10.0.0.3/32", NEVER),
        ],
    );
    assert_eq!(book.next_end(), Some(10));
    assert_eq!(book.prune(9), []);
    assert_eq!(book.prune(10), [(net("10.0.0.2/32"), None)]);
    // A renewal moves the end; the old one must not strike it out.
    change(&mut book, vec![ban("10.0.0.1/32", 99)]);
    assert_eq!(book.prune(30), []);
    assert_eq!(book.prune(99), [(net("10.0.0.1/32"), None)]);
    assert_eq!((book.len(), book.next_end()), (1, None));
}

#[test]
fn undo_restores_the_book() {
    let mut book = BanBook::default();
    change(&mut book, vec![ban("10.0.0.0/8", 5), ban("10.0.0.1/32", 9)]);
    let before: Vec<_> = book.entries().collect();
    let back = Change {
        prefix: net("10.0.0.0/8"),
        scope: None,
        record: None,
    };
    let changes = vec![
        ban("10.0.0.0/8", 70),
        ban("10.0.0.0/8", 80),
        ban("10.0.0.2/32", 3),
        back,
    ];
    let undo = book.change(changes).undo;
    change(&mut book, undo);
    assert_eq!(book.entries().collect::<Vec<_>>(), before);
    assert_eq!(book.next_end(), Some(5));
}

#[test]
fn a_restart_keeps_ends_and_a_reboot_works_them_out() {
    let wall = Timestamp::from_second(1_000_000).unwrap();
    let mut book = BanBook::default();
    let until = Some(Timestamp::from_second(1_000_060).unwrap());
    let timed = BanRecord {
        until_ns: 61_000_000_123,
        until,
        ..record(0)
    };
    change(
        &mut book,
        vec![
            Change {
                prefix: net("2001:db8::/32"),
                scope: Some("web".into()),
                record: Some(timed),
            },
            ban("10.0.0.0/8", NEVER),
        ],
    );
    let saved = SavedBans::of(&book, "boot-1");
    let text = serde_json::to_string(&saved).unwrap();
    let saved: SavedBans = serde_json::from_str(&text).unwrap();

    let same = saved.clone().restore("boot-1", 5_000_000_000, wall);
    assert_eq!(
        same.entries().collect::<Vec<_>>(),
        book.entries().collect::<Vec<_>>()
    );

    let rebooted = saved.clone().restore("boot-2", 7_000_000_000, wall);
    let ends: Vec<u64> = rebooted.entries().map(|entry| entry.until_ns).collect();
    assert_eq!(ends, [NEVER, 67_000_000_000]);

    let late = Timestamp::from_second(1_000_060).unwrap();
    assert_eq!(
        saved.restore("boot-2", 7_000_000_000, late).len(),
        1,
        "the timed one has ended meanwhile"
    );
}

#[test]
fn a_wrong_clock_after_a_reboot_makes_no_ban_longer() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut book = BanBook::default();
    let hour = BanRecord {
        until_ns: 3_600_000_000_000,
        until: Some(at(1_003_600)),
        created_at: at(1_000_000),
        reason: None,
    };
    change(
        &mut book,
        vec![Change {
            prefix: net("10.0.0.0/8"),
            scope: None,
            record: Some(hour),
        }],
    );
    let left = |boot: &str, saved_in: &str, wall| {
        let restored = SavedBans::of(&book, saved_in).restore(boot, 1_000, at(wall));
        restored
            .entries()
            .next()
            .map(|entry| (entry.until_ns - 1_000) / 1_000_000_000)
    };
    assert_eq!(
        left("boot-2", "boot-1", 1_000_600),
        Some(3_000),
        "ten minutes later"
    );
    assert_eq!(
        left("boot-2", "boot-1", 0),
        Some(3_600),
        "no battery: the clock starts in 1970"
    );
    assert_eq!(
        left("boot-2", "boot-1", 2_000_000),
        None,
        "it has ended meanwhile"
    );
    assert_eq!(
        left("boot-1", "boot-1", 2_000_000),
        Some(3_599),
        "within a boot the wall clock says nothing"
    );
    assert_eq!(
        left("", "", 1_000_600),
        Some(3_000),
        "boots without a name are not the same"
    );
}

/// The naive model: a plain list of bans; an entry's end is found by looking at every one.
#[derive(Default)]
struct Model(HashMap<(IpNet, Scope), u64>);

impl Model {
    fn effective(&self) -> HashMap<(IpNet, Scope), u64> {
        let end = |prefix: &IpNet, scope: &Scope| {
            self.0
                .iter()
                .filter(|((p, s), _)| s == scope && p.contains(prefix))
                .map(|(_, end)| *end)
                .max()
        };
        self.0
            .keys()
            .map(|(p, s)| ((*p, s.clone()), end(p, s).unwrap_or(0)))
            .collect()
    }
}

fn prefixes() -> impl Strategy<Value = IpNet> {
    // Few addresses and many lengths: nesting is what matters.
    prop_oneof![
        (0_u32..4, 0_u8..=32).prop_map(|(a, l)| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 | (a << 30) | a);
            ipnet::Ipv4Net::new(address, l).unwrap().trunc().into()
        }),
        (0_u128..4, 0_u8..=128).prop_map(|(a, l)| {
            let address = std::net::Ipv6Addr::from((0x2001_u128 << 112) | (a << 60) | a);
            ipnet::Ipv6Net::new(address, l).unwrap().trunc().into()
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<(IpNet, bool, Option<u64>)>),
    Prune(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = (
        prefixes(),
        any::<bool>(),
        prop::option::weighted(0.7, prop_oneof![1_u64..200, Just(NEVER)]),
    );
    let step = prop_oneof![
        8 => prop::collection::vec(one, 1..6).prop_map(Step::Batch),
        1 => (0_u64..200).prop_map(Step::Prune),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn the_kernel_holds_what_the_model_says(steps in steps()) {
        let mut book = BanBook::default();
        let mut model = Model::default();
        let mut kernel: HashMap<(IpNet, Scope), u64> = HashMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Batch(batch) => {
                    let changes: Vec<Change> = batch
                        .into_iter()
                        .map(|(prefix, scoped, end)| Change {
                            prefix,
                            scope: scoped.then(|| "web".to_owned()),
                            // A ban is always made for a time to come.
                            record: end.map(|end| record(end.saturating_add(now).max(now + 1))),
                        })
                        .collect();
                    for c in &changes {
                        match &c.record {
                            Some(r) => { model.0.insert((c.prefix, c.scope.clone()), r.until_ns); }
                            None => { model.0.remove(&(c.prefix, c.scope.clone())); }
                        }
                    }
                    let result = change(&mut book, changes);
                    for (prefix, scope) in result.delete {
                        kernel.remove(&(prefix, scope));
                    }
                    for e in result.set {
                        kernel.insert((e.prefix, e.service), e.until_ns);
                    }
                }
                Step::Prune(by) => {
                    now += by;
                    model.0.retain(|_, end| *end > now);
                    for key in book.prune(now) {
                        kernel.remove(&key);
                    }
                }
            }
            let expected = model.effective();
            prop_assert_eq!(&kernel, &expected);
            let listed: HashMap<_, _> = book.entries().map(|e| ((e.prefix, e.service), e.until_ns)).collect();
            prop_assert_eq!(&listed, &expected);
            prop_assert_eq!(book.len(), model.0.len());
            prop_assert_eq!(book.next_end(), model.0.values().copied().filter(|end| *end != NEVER).min());
        }
    }
}
