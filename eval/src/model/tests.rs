//! The model holds together: counts that say the same say the same, and every part does what its name says.

use gateway_detect::Observation;

use super::{
    attack::{Attack, Form},
    crowd::{Crowd, Curve},
    plan::{PLANS, Plan},
    season::WEEK,
    service::{Hostile, Service},
    talk::Talking,
    tally::Sampling,
};

fn service(plan: Plan) -> Service {
    Service::new(plan, 7, Sampling::default(), false)
}

/// What must hold for any interval.
fn consistent(seen: &Observation) {
    let near = |a: f64, b: f64| (a - b).abs() < 0.5;
    assert!(near(seen.sizes.iter().sum(), seen.packets), "{seen:?}");
    assert!(near(seen.ttls.iter().sum(), seen.packets), "{seen:?}");
    assert!(seen.syn + seen.udp <= seen.packets);
    assert!(seen.reflected <= seen.udp && seen.fragments <= seen.udp);
    assert!(seen.bytes >= 60.0 * seen.packets - 0.5 && seen.bytes <= 1_514.0 * seen.packets + 0.5);
    assert!(seen.sightings.iter().all(|of| of.network.contains(&of.source)));
}

#[test]
fn every_service_is_consistent_and_near_its_rate() {
    for plan in PLANS {
        let mut service = service(plan);
        let (mut packets, mut usual, mut sampled) = (0.0, 0.0, 0.0);
        for _ in 0..4 * 3600 {
            usual += service.usual();
            let seen = service.second();
            consistent(&seen);
            packets += seen.packets;
            sampled += seen.sightings.iter().map(|of| of.weight).sum::<f64>();
        }
        let share = packets / usual;
        assert!((0.6..1.6).contains(&share), "{}: {share}", plan.name);
        assert!(
            (sampled - packets).abs() < 6.0 * (1000.0 * packets).sqrt(),
            "{}: {sampled} of {packets}",
            plan.name
        );
    }
}

#[test]
fn tenths_add_up_to_the_second() {
    for plan in PLANS {
        let mut service = service(plan);
        let begins = service.at;
        for _ in 0..20 {
            let (mut packets, mut looks) = (0.0, 0);
            let whole = service.tenths(|_, part| {
                consistent(part);
                packets += part.packets;
                looks += 1;
            });
            consistent(&whole);
            assert_eq!(looks, 10);
            assert!((whole.packets - packets).abs() < 0.5);
            assert!((whole.seconds - 1.0).abs() < 1e-9);
        }
        assert!((service.at - begins - 20.0).abs() < 1e-6);
    }
}

#[test]
fn handshakes_are_completed_as_they_should() {
    let mut service = service(PLANS[0]);
    let (mut syn, mut answered, mut completed) = (0.0, 0.0, 0.0);
    for _ in 0..7_200 {
        let seen = service.second();
        syn += seen.syn;
        answered += seen.syn_ack;
        completed += seen.first_ack;
    }
    assert!(
        (0.94..0.995).contains(&(completed / answered)),
        "{completed} of {answered}"
    );
    assert!(answered <= syn + 0.5);
}

#[test]
fn a_crowd_is_as_large_as_it_says_and_made_of_the_same() {
    let mut service = service(PLANS[0]);
    let sum = |service: &mut Service| {
        let mut whole = Observation::default();
        for _ in 0..120 {
            super::tally::join(&mut whole, service.second());
        }
        whole
    };
    let before = sum(&mut service);
    service.crowd(Crowd {
        begins: service.at,
        curve: Curve::Rise {
            factor: 10.0,
            rise: 60.0,
            hold: 600.0,
            half: 60.0,
        },
        fresh: 0.1,
    });
    sum(&mut service);
    let after = sum(&mut service);
    let factor = after.packets / before.packets;
    assert!((7.0..13.0).contains(&factor), "{factor}");
    let share = |of: &Observation| of.syn / of.packets;
    assert!((share(&after) / share(&before) - 1.0).abs() < 0.35);
}

#[test]
fn attacks_are_as_strong_as_asked_and_of_their_kind() {
    for form in Form::ALL {
        let mut service = service(PLANS[0]);
        let begins = service.at + 1.0;
        let attack = Attack::new(form, begins, 10.0, 20_000.0, false, 3);
        let quiet = service.second();
        service.hostile.push(Hostile::Modelled(attack));
        let mut whole = Observation::default();
        for _ in 0..10 {
            let seen = service.second();
            consistent(&seen);
            super::tally::join(&mut whole, seen);
        }
        let more = whole.packets / 10.0 - quiet.packets;
        let expected = if form == Form::Slow {
            3.0 * 20_000.0
        } else {
            20_000.0
        };
        assert!((0.85..1.9).contains(&(more / expected)), "{form:?}: {more}");
        match form {
            Form::SynSpoofed | Form::SynBotnet => {
                assert!(whole.syn > 150_000.0 && whole.first_ack < 0.1 * whole.syn_ack);
            }
            Form::Ntp | Form::Dns | Form::Snmp | Form::Cldap | Form::MixedReflection => {
                assert!(whole.reflected + whole.fragments > 150_000.0, "{form:?}");
            }
            Form::UdpSpoofed | Form::UdpBotnet => {
                assert!(whole.udp > 150_000.0 && whole.reflected < 0.01 * whole.udp);
            }
            Form::FewSources | Form::ManySources | Form::Slow => {
                assert!(whole.first_ack > 0.9 * whole.syn_ack, "{form:?}");
            }
            Form::Scan => assert!(whole.syn > 150_000.0 && whole.syn_ack < 0.1 * whole.syn),
        }
        assert!(
            service.second().packets < 3.0 * quiet.packets,
            "{form:?} is not over"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_traffic() {
    let run = |seed| {
        let mut service = Service::new(PLANS[0], seed, Sampling::default(), true);
        (0..600).map(|_| service.second().bytes).sum::<f64>()
    };
    assert!((run(5) - run(5)).abs() < f64::EPSILON);
    assert!((run(5) - run(6)).abs() > 1.0);
}

#[test]
fn a_week_has_its_mean() {
    for plan in PLANS {
        let service = service(plan);
        let connections = Talking::packets_per_connection(&plan);
        assert!(connections >= 1.0, "{}", plan.name);
        let season = service.season();
        let begins = super::season::BEGIN;
        let mean = (0..168)
            .map(|hour| season.expected(begins + f64::from(hour) * WEEK / 168.0))
            .sum::<f64>()
            / 168.0;
        assert!((mean - 1.0).abs() < 0.06, "{}: {mean}", plan.name);
    }
}
