//! The order of judgement, as rows of {what it shows, policy, frame, verdict, reason}, in a world of a few cells.

#[path = "common/frames.rs"]
mod frames;
#[path = "common/world.rs"]
mod world;

use frames::*;
use gateway_core::{
    frame::Slice,
    image::{bans, flags, list_flags, subject_flags},
    judge::{Event, judge},
    parse::parse,
    verdict::{Reason, Verdict},
};
use world::{OVERFLOW_LINES, SECOND, World};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn web() -> Vec<u8> {
    ethernet(0x0800, &ipv4(TCP, &tcp(40_000, 443, ACK)))
}

/// Whatever becomes of it, a packet that can be parsed is looked at once, for whom it is counted.
fn verdict(world: &World, frame: &[u8]) -> (Verdict, Reason) {
    world.looked_at.take();
    let judgement = judge(&world, &Slice::whole(frame));
    if judgement.reason == Reason::OutOfScope {
        assert_eq!(judgement.subject, 0, "no service's");
    }
    let counted = parse(&Slice::whole(frame)).map(|_| u32::from(judgement.subject != 0));
    assert_eq!(world.looked_at.take(), Vec::from_iter(counted), "{judgement:?}");
    (judgement.verdict, judgement.reason)
}

/// A world in which everything that can refuse a packet of the test's source refuses it, but for scope and protection.
fn hostile() -> World {
    let mut world = World::new();
    world.lists.flags = list_flags::DROP;
    world.generation.flags |= flags::LISTS;
    world.banned_until_ns = u64::MAX;
    world.limit_everything();
    world
}

#[test]
fn the_order_of_judgement_is_the_designs() {
    let mut world = hostile();
    assert_eq!(verdict(&world, &web()[..20]), (Verdict::Drop, Reason::Malformed));
    world.generation.flags |= flags::SCOPE_VLANS;
    assert_eq!(verdict(&world, &web()[..20]), (Verdict::Drop, Reason::Malformed));
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::OutOfScope));
    world.generation.flags &= !flags::SCOPE_VLANS;
    world.lists.protect = [1, 0];
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Protect));
    world.lists.protect = [0, 0];
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Ban));
    world.banned_until_ns = world.now_ns;
    assert_eq!(
        verdict(&world, &web()),
        (Verdict::Drop, Reason::List),
        "a ban that has just ended"
    );
    world.lists.flags = 0;
    world.service.only = 2;
    assert_eq!(
        verdict(&world, &web()),
        (Verdict::Drop, Reason::List),
        "in none of the only lists"
    );
    world.lists.lists = [2, 0];
    world.block_source();
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Block));
    world.forget();
    // Each bucket holds nothing that a packet needs: the tiers refuse from the outside in as the inner ones are taken away.
    let connection = ethernet(0x0800, &ipv4(TCP, &tcp(40_000, 443, SYN)));
    for tier in 0..4 {
        for kind in 0..3 {
            assert_eq!(
                verdict(&world, &connection),
                (Verdict::Drop, Reason::of_bucket(tier, kind)),
                "tier {tier}, kind {kind}"
            );
            world.open(tier, kind);
            world.forget();
        }
    }
    assert_eq!(verdict(&world, &connection), (Verdict::Pass, Reason::Pass));
}

#[test]
fn a_packet_that_asks_for_no_connection_skips_connection_buckets() {
    let mut world = World::new();
    world.limit(0, 2, 1);
    for _ in 0..3 {
        assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    }
    let connection = ethernet(0x0800, &ipv4(TCP, &tcp(40_000, 443, SYN)));
    assert_eq!(verdict(&world, &connection), (Verdict::Pass, Reason::Pass));
    assert_eq!(
        verdict(&world, &connection),
        (Verdict::Drop, Reason::SourceConnections)
    );
}

#[test]
fn what_refuses_is_not_charged_and_what_admitted_before_it_is() {
    let mut world = World::new();
    world.limit(0, 0, 2);
    world.limit(3, 0, 1);
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::TotalPackets));
    // The source's bucket was charged for the refused packet; now it refuses first, and the total is spared.
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::SourcePackets));
    let total = world.shared_word(3, 0);
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::SourcePackets));
    assert_eq!(world.shared_word(3, 0), total);
}

#[test]
fn monitor_counts_what_would_be_dropped_and_blocks_nobody() {
    for (global, service) in [(flags::MONITOR, 0), (0, subject_flags::MONITOR)] {
        let mut world = World::new();
        world.limit(0, 0, 2);
        world.block_after(2);
        world.generation.flags |= global;
        world.service.flags |= service;
        for _ in 0..2 {
            assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
        }
        // Far more drops than a block needs.
        for _ in 0..10 {
            assert_eq!(
                verdict(&world, &web()),
                (Verdict::WouldDrop, Reason::SourcePackets)
            );
        }
        assert_eq!(world.noted(Event::Blocked), 0);
    }
}

#[test]
fn malformed_lists_and_bans_follow_the_global_mode_only() {
    let mut world = hostile();
    world.service.flags |= subject_flags::MONITOR;
    assert_eq!(verdict(&world, &web()[..20]), (Verdict::Drop, Reason::Malformed));
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Ban));
    world.banned_until_ns = 0;
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::List));
    world.generation.flags |= flags::MONITOR;
    assert_eq!(
        verdict(&world, &web()[..20]),
        (Verdict::WouldDrop, Reason::Malformed)
    );
    assert_eq!(verdict(&world, &web()), (Verdict::WouldDrop, Reason::List));
    world.banned_until_ns = u64::MAX;
    assert_eq!(verdict(&world, &web()), (Verdict::WouldDrop, Reason::Ban));
}

#[test]
fn drops_start_a_block_that_ends_by_itself() {
    let mut world = World::new();
    world.limit(0, 0, 1);
    world.block_after(3);
    world.prove_source();
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    for _ in 0..3 {
        assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::SourcePackets));
    }
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Block));
    assert_eq!(world.noted(Event::Blocked), 1);
    world.now_ns += 29 * SECOND;
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Block));
    world.now_ns += SECOND;
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
}

#[test]
fn drops_by_shared_buckets_start_no_block() {
    let mut world = World::new();
    world.limit(0, 0, 1_000);
    world.limit(1, 0, 2);
    world.block_after(1);
    for _ in 0..2 {
        assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    }
    for _ in 0..5 {
        assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::NetworkPackets));
    }
    assert_eq!(world.noted(Event::Blocked), 0);
}

#[test]
fn trusted_sources_skip_their_own_limits_but_neither_bans_nor_totals() {
    let mut world = World::new();
    world.lists.flags = list_flags::TRUST;
    world.generation.flags |= flags::LISTS;
    world.limit(0, 0, 1);
    world.limit(1, 0, 1);
    world.limit(3, 0, 3);
    for _ in 0..3 {
        assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Trust));
    }
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::TotalPackets));
    world.banned_until_ns = u64::MAX;
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Ban));
}

#[test]
fn proxies_skip_their_own_limits_but_not_their_networks() {
    let mut world = World::new();
    world.lists.flags = list_flags::PROXY;
    world.generation.flags |= flags::LISTS;
    world.limit(0, 0, 1);
    world.block_after(1);
    world.limit(1, 0, 3);
    for _ in 0..3 {
        assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    }
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::NetworkPackets));
}

#[test]
fn the_first_class_whose_lists_match_decides() {
    let mut world = World::new();
    world.generation.flags |= flags::LISTS;
    world.limit(0, 0, 1);
    world.add_class(0b01, 3);
    world.add_class(0b11, 5);
    let passed = |world: &World| {
        (0..10)
            .filter(|_| verdict(world, &web()).0 == Verdict::Pass)
            .count()
    };
    assert_eq!(passed(&world), 1, "in no list: the service's own limit");
    world.lists.lists = [0b01, 0];
    assert_eq!(passed(&world), 3, "in both classes: the first");
    world.lists.lists = [0b10, 0];
    assert_eq!(passed(&world), 5, "in the second class only");
}

#[test]
fn the_bypass_lever_passes_all_but_bans_and_drop_lists() {
    let mut world = hostile();
    world.generation.bypass_until_ns = world.now_ns + SECOND;
    assert_eq!(verdict(&world, &web()[..20]), (Verdict::Pass, Reason::Bypass));
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Ban));
    world.banned_until_ns = 0;
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::List));
    world.lists.flags = 0;
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Bypass));
    world.lists.flags = list_flags::DROP;
    world.banned_until_ns = u64::MAX;
    world.generation.flags |= flags::BYPASS_ALL;
    assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Bypass));
    // It ends by itself.
    world.now_ns += SECOND;
    assert_eq!(verdict(&world, &web()), (Verdict::Drop, Reason::Ban));
    world.generation.bypass_until_ns = 0;
    world.generation.flags &= !flags::BYPASS_ALL;
    world.banned_until_ns = 0;
    world.lists.flags = 0;
    world.service.bypass_until_ns = world.now_ns + 1;
    assert_eq!(
        verdict(&world, &web()),
        (Verdict::Pass, Reason::Bypass),
        "of one service"
    );
}

#[test]
fn enforce_share_enforces_its_share_of_the_sources() {
    let mut world = World::new();
    world.limit(0, 0, 1);
    // A quarter of all hashes.
    world.service.enforce_share = 1 << 30;
    world.service.flags |= subject_flags::SHARE;
    let (mut dropped, mut watched) = (0, 0);
    for source in 0..2_000u32 {
        let mut frame = web();
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        world.forget();
        assert_eq!(verdict(&world, &frame), (Verdict::Pass, Reason::Pass));
        let second = verdict(&world, &frame);
        assert_eq!(second.1, Reason::SourcePackets);
        match second.0 {
            Verdict::Drop => dropped += 1,
            _ => watched += 1,
        }
        world.forget();
        verdict(&world, &frame);
        assert_eq!(verdict(&world, &frame), second, "a source changes sides");
    }
    assert_eq!(dropped + watched, 2_000);
    // 500 expected, standard deviation 19.
    assert!((400..600).contains(&dropped), "{dropped} of 2000");
}

#[test]
fn a_full_line_is_judged_by_the_overflow_bucket() {
    let mut world = World::new();
    world.limit(0, 0, 4);
    world.lines = OVERFLOW_LINES;
    // Five debtors fill what a line has for everybody; those who come after them share one bucket of four, of which half is
    // for those who ask again.
    let from = |source: u8| {
        let mut frame = web();
        frame[29] = source;
        frame
    };
    for source in 10..15 {
        assert_eq!(verdict(&world, &from(source)), (Verdict::Pass, Reason::Pass));
    }
    assert_eq!(world.noted(Event::Overflow), 0);
    for source in 100..102 {
        assert_eq!(verdict(&world, &from(source)), (Verdict::Pass, Reason::Pass));
    }
    for source in 102..110 {
        assert_eq!(
            verdict(&world, &from(source)),
            (Verdict::Drop, Reason::SourcePackets)
        );
    }
    assert_eq!(world.noted(Event::Overflow), 10);
    // The debtors still have what is left of their own.
    assert_eq!(verdict(&world, &from(10)), (Verdict::Pass, Reason::Pass));
    // A proven source has cells that are kept.
    world.prove_source();
    for _ in 0..4 {
        assert_eq!(verdict(&world, &web()), (Verdict::Pass, Reason::Pass));
    }
    assert_eq!(world.noted(Event::Overflow), 10);
}

/// A shared cell that always loses its race refuses: nothing passes unjudged.
#[test]
fn a_lost_race_never_passes() {
    for (tier, reason) in [(0, Reason::SourcePackets), (3, Reason::TotalPackets)] {
        let mut world = World::new();
        world.limit(tier, 0, 1_000);
        world.lose_races = true;
        assert_eq!(verdict(&world, &web()), (Verdict::Drop, reason));
        assert_eq!(world.noted(Event::LostRace), 1);
    }
}

#[test]
fn without_a_service_essential_then_reply_then_the_default() {
    let v4 = |protocol, payload: &[u8]| ethernet(0x0800, &ipv4(protocol, payload));
    let v6 = |next, payload: &[u8]| ethernet(0x86dd, &ipv6(next, payload));
    let later = ethernet(0x0800, &ipv4_with(1, &[], 0x0005, &icmp(3)));
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("ARP", ethernet(0x0806, &[0; 28]), true),
        ("LACP", ethernet(0x8809, &[1; 110]), true),
        ("LLDP", ethernet(0x88cc, &[1; 50]), true),
        ("another type", ethernet(0x1234, &[1; 50]), false),
        ("spanning tree", ethernet(38, &[0x42; 38]), false),
        ("ICMP unreachable", v4(1, &icmp(3)), true),
        ("ICMP time exceeded", v4(1, &icmp(11)), true),
        ("ICMP parameter problem", v4(1, &icmp(12)), true),
        ("ICMP echo", v4(1, &icmp(8)), false),
        ("ICMP echo reply", v4(1, &icmp(0)), false),
        ("ICMP redirect", v4(1, &icmp(5)), false),
        ("a later fragment of ICMP", later, false),
        ("DHCP to a client", v4(UDP, &udp(67, 68, &[0; 20])), true),
        ("DHCP to a server", v4(UDP, &udp(68, 67, &[0; 20])), true),
        ("DHCP between relays", v4(UDP, &udp(67, 67, &[0; 20])), true),
        ("port 68 from elsewhere", v4(UDP, &udp(53, 68, &[0; 20])), false),
        ("DHCPv6 to a client", v6(UDP, &udp(547, 546, &[0; 20])), true),
        ("DHCPv6 to a server", v6(UDP, &udp(9, 547, &[0; 20])), true),
        ("packet too big", v6(58, &icmp(2)), true),
        ("router solicitation", v6(58, &icmp(133)), true),
        ("router advertisement", v6(58, &icmp(134)), true),
        ("neighbour solicitation", v6(58, &icmp(135)), true),
        ("neighbour advertisement", v6(58, &icmp(136)), true),
        ("ICMPv6 echo", v6(58, &icmp(128)), false),
        ("ICMPv6 of no assigned error", v6(58, &icmp(100)), false),
        ("TCP", web(), false),
    ];
    for (what, frame, essential) in rows {
        let mut world = World::new();
        world.no_service();
        let other = !matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]);
        // `action = "pass"`: a frame without IP is essential whatever it is.
        world.generation.flags |= flags::ESSENTIAL;
        let expected = if essential || other {
            Reason::Essential
        } else {
            Reason::Pass
        };
        assert_eq!(verdict(&world, &frame), (Verdict::Pass, expected), "{what}, pass");

        world.generation.flags |= flags::DEFAULT_DROP;
        let expected = if essential {
            (Verdict::Pass, Reason::Essential)
        } else {
            (Verdict::Drop, Reason::DefaultDrop)
        };
        assert_eq!(verdict(&world, &frame), expected, "{what}, drop");

        world.generation.flags |= flags::REPLIES;
        world.answers = true;
        let expected = match (essential, other) {
            (true, _) => (Verdict::Pass, Reason::Essential),
            (false, true) => (Verdict::Drop, Reason::DefaultDrop),
            (false, false) => (Verdict::Pass, Reason::Reply),
        };
        assert_eq!(verdict(&world, &frame), expected, "{what}, drop, replies");

        world.generation.flags &= !(flags::ESSENTIAL | flags::REPLIES);
        assert_eq!(
            verdict(&world, &frame),
            (Verdict::Drop, Reason::DefaultDrop),
            "{what}, drop, nothing passes"
        );
        world.generation.flags |= flags::MONITOR;
        assert_eq!(
            verdict(&world, &frame),
            (Verdict::WouldDrop, Reason::DefaultDrop),
            "{what}, monitor"
        );
    }
}

#[test]
fn a_levers_limits_end_when_it_does() {
    let mut world = World::new();
    world.limit(0, 0, 10);
    world.scale_until(world.now_ns + SECOND, 2);
    let passed = |world: &World| {
        (0..20)
            .filter(|_| verdict(world, &web()).0 == Verdict::Pass)
            .count()
    };
    assert_eq!(passed(&world), 2);
    world.forget();
    world.now_ns += SECOND;
    assert_eq!(passed(&world), 10);
}

#[test]
fn of_the_tables_of_bans_only_those_with_entries_are_asked() {
    let mut world = World::new();
    world.banned_until_ns = u64::MAX;
    let v6 = ethernet(0x86dd, &ipv6(TCP, &tcp(40_000, 443, ACK)));
    // The world's ban is for its service alone, of whatever family.
    for (tables, of_v4, of_v6) in [
        (0, Reason::Pass, Reason::Pass),
        (bans::V4 | bans::V6, Reason::Pass, Reason::Pass),
        (bans::SERVICE_V4, Reason::Ban, Reason::Pass),
        (bans::SERVICE_V6, Reason::Pass, Reason::Ban),
        (bans::ALL, Reason::Ban, Reason::Ban),
    ] {
        world.ban_tables = tables;
        assert_eq!(verdict(&world, &web()).1, of_v4, "{tables:#b}");
        assert_eq!(verdict(&world, &v6).1, of_v6, "{tables:#b}");
    }
    world.banned_everywhere = true;
    for (tables, of_v4, of_v6) in [
        (bans::V4, Reason::Ban, Reason::Pass),
        (bans::V6, Reason::Pass, Reason::Ban),
        (bans::SERVICE_V4 | bans::SERVICE_V6, Reason::Pass, Reason::Pass),
    ] {
        world.ban_tables = tables;
        assert_eq!(verdict(&world, &web()).1, of_v4, "{tables:#b}");
        assert_eq!(verdict(&world, &v6).1, of_v6, "{tables:#b}");
    }
}

#[test]
fn every_reason_has_its_place_and_name() {
    for (number, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, number);
    }
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), 27);
    let passing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !reason.drops())
        .map(|reason| reason.name())
        .collect();
    assert_eq!(
        passing,
        [
            "pass",
            "out_of_scope",
            "protect",
            "trust",
            "essential",
            "reply",
            "bypass"
        ]
    );
}
