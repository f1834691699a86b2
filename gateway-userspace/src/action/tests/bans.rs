//! Whom a ban may hit.

use super::*;

struct Given {
    spared: Vec<&'static str>,
    proven: Vec<&'static str>,
    banned: Vec<&'static str>,
    ours: Vec<IpNet>,
    max_bans: u32,
    max_impact_ppm: u32,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            spared: Vec::new(),
            proven: vec![
                "203.0.113.1/32",
                "203.0.113.2/32",
                "203.0.113.3/32",
                "10.0.0.0/32",
            ],
            banned: Vec::new(),
            ours: Vec::new(),
            max_bans: 100,
            max_impact_ppm: 10_000,
        }
    }
}

fn plan(given: &Given, kind: Kind, carriers: &[(&str, f64)]) -> Result<BanPlan, Withheld> {
    let source = Source {
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        max_tracked: 1_000,
    };
    let among = |list: &[&'static str], prefix: &IpNet| list.iter().any(|text| net(text) == *prefix);
    let spared: Spared = given.spared.iter().map(|text| net(text)).collect();
    let suspects = Suspects {
        source: &source,
        spared: &spared,
        proven: &|prefix| among(&given.proven, prefix),
        banned: &|prefix| among(&given.banned, prefix),
        ours: &given.ours,
    };
    let settings = OnAttack {
        max_bans: given.max_bans,
        max_impact_ppm: given.max_impact_ppm,
        ..OnAttack::default()
    };
    ban(&settings, &suspects, &attack(kind, carriers), &Truth::default())
}

fn prefixes(plan: &BanPlan) -> Vec<String> {
    plan.prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn only_proven_sources_are_banned() {
    let carriers = [
        ("203.0.113.1/32", 900.0),
        ("203.0.113.9/32", 800.0),
        ("203.0.113.2/32", 700.0),
    ];
    let taken = plan(&Given::default(), Kind::FewSources, &carriers).unwrap();
    assert_eq!(prefixes(&taken), ["203.0.113.1/32", "203.0.113.2/32"]);
    assert_eq!(taken.left_out.unproven, 1);
    assert_eq!(
        taken.why(0.01),
        "at most 0.00 % of normal sources are hit, max_impact is 1.0 %; left out: 1 without a completed handshake"
    );
    let nobody = plan(&Given::default(), Kind::FewSources, &carriers[1..2]).unwrap_err();
    assert_eq!(
        nobody.to_string(),
        "nobody who carries it may be banned: 1 without a completed handshake"
    );
    assert_eq!(
        plan(&Given::default(), Kind::Slow, &[]).unwrap_err().to_string(),
        "nobody who carries it may be banned: no source or network stands out"
    );
}

#[test]
fn floods_that_anybodys_address_can_be_written_into_ban_no_source() {
    let carriers = [("203.0.113.1/32", 900.0), ("203.0.113.2/32", 700.0)];
    for kind in [Kind::SynFlood, Kind::Reflection, Kind::UdpFlood] {
        let nobody = plan(&Given::default(), kind, &carriers);
        assert!(
            matches!(nobody, Err(Withheld::Nobody(reasons)) if reasons.forgeable == 2),
            "{nobody:?}"
        );
        // A whole network is not banned for what one of its sources has shown.
        let network = plan(&Given::default(), kind, &[("203.0.113.0/24", 900.0)]).unwrap();
        assert_eq!(prefixes(&network), ["203.0.113.0/24"]);
    }
    for kind in [Kind::FewSources, Kind::ManySources, Kind::Scan, Kind::Slow] {
        assert_eq!(
            plan(&Given::default(), kind, &carriers).unwrap().prefixes.len(),
            2
        );
    }
}

#[test]
fn the_protected_and_the_proxies_are_spared_wholly_and_in_part() {
    let given = Given {
        spared: vec![
            "203.0.113.1/32",
            "203.0.113.128/25",
            "198.51.100.0/24",
            "2001:db8::/32",
        ],
        ..Given::default()
    };
    let carriers = [
        ("203.0.113.1/32", 900.0),
        ("203.0.113.0/24", 800.0),
        ("198.51.100.7/32", 700.0),
        ("2001:db8:7::/48", 600.0),
        ("203.0.113.2/32", 500.0),
        ("203.0.114.0/24", 400.0),
    ];
    let taken = plan(&given, Kind::FewSources, &carriers).unwrap();
    assert_eq!(prefixes(&taken), ["203.0.113.2/32", "203.0.114.0/24"]);
    assert_eq!(taken.left_out.spared, 4);
}

#[test]
fn the_budget_and_the_number_of_bans_hold_for_all_bans_together() {
    // A /19 holds 128 of the 1,000 normal sources, a /24 four, a /32 one or none.
    let carriers = [
        ("10.0.0.0/19", 900.0),
        ("10.0.64.0/24", 800.0),
        ("10.0.65.0/24", 700.0),
        ("10.0.66.0/24", 600.0),
        ("10.0.0.0/32", 500.0),
        ("203.0.113.1/32", 400.0),
    ];
    let taken = plan(&Given::default(), Kind::FewSources, &carriers).unwrap();
    // Two networks and a source are 0.9 %; a third network would be 1.2 %.
    assert_eq!(
        prefixes(&taken),
        ["10.0.64.0/24", "10.0.65.0/24", "10.0.0.0/32", "203.0.113.1/32"]
    );
    assert!((taken.share - 0.009).abs() < 1e-12);
    assert_eq!(taken.left_out.costly, 2);
    // What was banned before counts.
    let before = Given {
        ours: vec![net("10.0.70.0/24"), net("10.0.71.0/24")],
        ..Given::default()
    };
    let taken = plan(&before, Kind::FewSources, &carriers).unwrap();
    assert_eq!(prefixes(&taken), ["10.0.0.0/32", "203.0.113.1/32"]);
    let few = Given {
        max_bans: 1,
        ..Given::default()
    };
    let taken = plan(&few, Kind::FewSources, &carriers[4..]).unwrap();
    assert_eq!(
        (prefixes(&taken), taken.left_out.beyond),
        (vec!["10.0.0.0/32".to_owned()], 1)
    );
    let refused = plan(&Given::default(), Kind::FewSources, &carriers[..1]).unwrap_err();
    assert!(
        matches!(refused, Withheld::Impact { share, .. } if (0.12..0.14).contains(&share)),
        "{refused:?}"
    );
}

#[test]
fn who_is_banned_already_is_not_banned_again() {
    let given = Given {
        banned: vec!["203.0.113.1/32"],
        ours: vec![net("203.0.113.2/32"), net("198.51.100.0/24")],
        ..Given::default()
    };
    let carriers = [
        ("203.0.113.1/32", 3.0),
        ("203.0.113.2/32", 2.0),
        ("198.51.100.9/32", 1.0),
    ];
    let taken = plan(&given, Kind::FewSources, &carriers).unwrap();
    assert_eq!((taken.prefixes.len(), taken.left_out.banned), (0, 1));
    let unknown = Truth {
        known: false,
        ..Truth::default()
    };
    assert_eq!(unknown.within(&[]), None);
}
