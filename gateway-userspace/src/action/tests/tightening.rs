//! How far limits are scaled.

use super::*;

const ATTACKERS: [(&str, f64); 2] = [("203.0.113.1/32", 50_000.0), ("203.0.113.2/32", 30_000.0)];

fn plan_of(section: &str, settings: &str, finding: &Finding, truth: &Truth) -> Result<TightenPlan, Withheld> {
    let service = service(&format!(
        "{section}\n[service.on_attack]\naction = \"tighten\"\n{settings}"
    ));
    let limits = Bounded::of(&service, |_| vec![net("10.0.128.0/17")]);
    tighten(&service.on_attack, &limits, finding, load(finding), truth)
}

fn plan(section: &str, settings: &str) -> Result<TightenPlan, Withheld> {
    let finding = attack(Kind::FewSources, &ATTACKERS);
    plan_of(section, settings, &finding, &Truth::default())
}

const PACKETS: &str = "[service.per_source]\npackets = { rate = 2000, burst = 4000 }";

#[test]
fn the_strongest_step_under_the_budget_is_taken() {
    // 40 % is 800: one in a thousand has sent that much; 20 % is 400: one in fifty.
    let taken = plan(PACKETS, "").unwrap();
    assert_eq!((taken.percent, taken.share), (40, 0.001));
    assert_eq!(taken.refused, Some((20, 0.02)));
    assert_eq!(
        taken.why(0.01),
        "at most 0.10 % of normal sources are hit, max_impact is 1.0 %; limits at 20 % might hit 2.0 %"
    );
    assert_eq!(plan(PACKETS, "max_impact = \"2%\"").unwrap().percent, 20);
    assert_eq!(plan(PACKETS, "max_impact = \"0.05%\"").unwrap().percent, 60);
    // The least is a step of its own, wherever it lies.
    assert_eq!(plan(PACKETS, "least = \"70%\"").unwrap().percent, 70);
    assert_eq!(
        plan(PACKETS, "least = \"5%\"\nmax_impact = \"100%\"")
            .unwrap()
            .percent,
        5
    );
    assert_eq!(plan(PACKETS, "least = \"90%\"").unwrap().percent, 90);
}

#[test]
fn nothing_is_done_beyond_the_budget_or_without_knowledge() {
    let tight = "[service.per_source]\npackets = { rate = 200, burst = 400 }";
    let refused = plan(tight, "").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "limits at 80 % would hit up to 100 % of normal sources, and max_impact allows 1.0 %"
    );
    let finding = attack(Kind::FewSources, &ATTACKERS);
    let unknown = Truth {
        known: false,
        ..Truth::default()
    };
    assert_eq!(plan_of(PACKETS, "", &finding, &unknown), Err(Withheld::Unknown));
    let settings = OnAttack::default();
    let none = tighten(&settings, &[], &finding, load(&finding), &Truth::default());
    assert_eq!(none, Err(Withheld::NoLimit));
}

#[test]
fn a_small_burst_counts_as_a_small_rate() {
    // Half of the burst of 400 is 200: at 80 % that is 160, which one in fifty exceeds, and more.
    let bursty = "[service.per_source]\npackets = { rate = 2000, burst = 400 }";
    assert!(matches!(plan(bursty, ""), Err(Withheld::Impact { share, .. }) if share > 0.99));
}

#[test]
fn what_several_limits_hit_adds_up() {
    let both = "[service.per_source]\npackets = { rate = 2000, burst = 4000 }\nconnections = { rate = 40, burst = 80 }";
    // At 40 %: 0.1 % by packets and 0.5 % by connections (16).
    let taken = plan(both, "").unwrap();
    assert_eq!(taken.percent, 40);
    assert!((taken.share - 0.006).abs() < 1e-12, "{taken:?}");
    assert_eq!(plan(both, "max_impact = \"0.55%\"").unwrap().percent, 60);
    let network = "[service.per_network]\npackets = { rate = 2000, burst = 4000 }";
    // 80 % of 2,000 for four sources is 400 for each, which one in fifty exceeds.
    assert!(plan(network, "").is_err());
    assert_eq!(plan(network, "max_impact = \"3%\"").unwrap().percent, 40);
}

#[test]
fn a_class_counts_for_its_members_at_most() {
    let class = |rate: u32| {
        format!(
            "{PACKETS}\n[[service.class]]\nname = \"mobile\"\nlists = [\"mobile\"]\n[service.class.per_source]\npackets = {{ rate = {rate} }}"
        )
    };
    // Half of the normal sources are in the list: a class that is too tight hits as many.
    let finding = attack(Kind::FewSources, &ATTACKERS);
    let tight = plan_of(&class(10), "", &finding, &Truth::default());
    assert!(
        matches!(tight, Err(Withheld::Impact { share, .. }) if (0.45..0.55).contains(&share)),
        "{tight:?}"
    );
    let few = Truth {
        sources: (0..1_000_u32)
            .map(|n| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + n * 32).into(), 32).unwrap())
            .collect(),
        ..Truth::default()
    };
    let taken = plan_of(&class(10), "", &finding, &few).unwrap();
    assert_eq!((taken.percent, taken.share), (40, 0.001));
    assert_eq!(plan(&class(100_000), "").unwrap().percent, 40);
}

#[test]
fn a_total_must_hold_what_arrives_once_the_carriers_are_held() {
    // 90,000 arrive; at 40 % two carriers keep 800 each, so 11,600 are left, and 20,000 have been usual: 24,000 hold that.
    let total =
        |rate: &str| format!("{PACKETS}\n[service.total]\npackets = {{ rate = {rate}, burst = \"1M\" }}");
    assert_eq!(plan(&total("60000"), "").unwrap().percent, 40);
    // 45,000 hold it at 60 %, and at 40 % no more.
    let taken = plan(&total("45000"), "").unwrap();
    assert_eq!((taken.percent, taken.refused), (60, Some((40, 1.0))));
    // A total that is full of an attack by many hits everybody, however little each sends.
    let many: Vec<(String, f64)> = (0..200).map(|n| (format!("203.0.113.{n}/32"), 400.0)).collect();
    let many: Vec<(&str, f64)> = many
        .iter()
        .map(|(prefix, rate)| (prefix.as_str(), *rate))
        .collect();
    let finding = attack(Kind::ManySources, &many);
    let refused = plan_of(&total("60000"), "", &finding, &Truth::default());
    assert!(
        matches!(refused, Err(Withheld::Impact { share, .. }) if share >= 1.0),
        "{refused:?}"
    );
    let bytes = format!("{PACKETS}\n[service.total]\nbytes = {{ rate = \"30MB\", burst = \"60MB\" }}");
    assert!(
        plan(&bytes, "").is_err(),
        "36 MB arrive, and who sends them is not known"
    );
    let connections = format!("{PACKETS}\n[service.total]\nconnections = {{ rate = 1000 }}");
    assert_eq!(plan(&connections, "").unwrap().percent, 60, "500 are usual");
}

#[test]
fn a_step_that_would_touch_nobody_is_not_taken() {
    let finding = attack(
        Kind::ManySources,
        &[("203.0.113.1/32", 300.0), ("203.0.113.2/32", 200.0)],
    );
    let refused = plan_of(PACKETS, "", &finding, &Truth::default());
    assert_eq!(
        refused,
        Err(Withheld::Untouched {
            percent: 40,
            heaviest: 300.0
        })
    );
    // New connections may be what they are many of, and a network is more than one source.
    let both = "[service.per_source]\npackets = { rate = 2000, burst = 4000 }\nconnections = { rate = 100, burst = 200 }";
    assert!(plan_of(both, "", &finding, &Truth::default()).is_ok());
    let networks = attack(Kind::ManySources, &[("203.0.113.0/24", 300.0)]);
    assert!(plan_of(PACKETS, "", &networks, &Truth::default()).is_ok());
}
