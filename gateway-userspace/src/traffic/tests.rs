//! The tables over batches that tests make.

use std::sync::Arc;

use gateway_core::{
    sample::Sample as Head,
    verdict::{Reason, Verdict},
};
use jiff::Timestamp;

use super::{tables::SOURCES, *};
use crate::kernel::Sample;

/// A TCP segment from an IPv4 source, as a sample of one in `one_in`.
pub(crate) fn named(source: u32, flags: u8, one_in: u32, reason: Reason) -> Named {
    let mut bytes = vec![0_u8; 60];
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&40_u16.to_be_bytes());
    bytes[22] = 64;
    bytes[23] = 6;
    bytes[26..30].copy_from_slice(&source.to_be_bytes());
    bytes[30..34].copy_from_slice(&[203, 0, 113, 10]);
    bytes[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
    bytes[36..38].copy_from_slice(&443_u16.to_be_bytes());
    bytes[46] = 0x50;
    bytes[47] = flags;
    let dropped = reason.drops();
    Named {
        sample: Sample {
            head: Head {
                one_in,
                length: 1_000,
                captured: 60,
                ..Head::default()
            },
            bytes,
        },
        at: Timestamp::UNIX_EPOCH,
        verdict: if dropped { Verdict::Drop } else { Verdict::Pass },
        reason,
        service: Arc::from("shop"),
        class: Arc::from(""),
        interface: Arc::from("eth0"),
        ifindex: 2,
    }
}

fn query(limit: usize) -> Query {
    Query {
        limit,
        ..Query::default()
    }
}

#[test]
fn sources_flows_ports_and_networks_of_a_few_samples() {
    let mut tables = Tables::default();
    let mut samples: Vec<Named> = (0..60)
        .map(|_| named(0xc000_0201, 0x10, 100, Reason::Pass))
        .collect();
    samples.extend((0..30).map(|_| named(0xc000_0202, 0x02, 100, Reason::SourceConnections)));
    tables.add(&Batch { samples }, 1.0);
    let sources = tables.sources(&query(10), 1.0);
    let shown: Vec<String> = sources.iter().map(|row| row.source.to_string()).collect();
    assert_eq!(shown, ["192.0.2.1/32", "192.0.2.2/32"]);
    let ratio = sources[0].estimate.packets_per_second / sources[1].estimate.packets_per_second;
    assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
    assert_eq!(
        sources[1].reasons.keys().collect::<Vec<_>>(),
        ["source_connections"]
    );
    assert_eq!(sources[1].services.keys().collect::<Vec<_>>(), ["shop"]);
    let by_drops = Query {
        by: By::Dropped,
        ..query(10)
    };
    let dropped = tables.sources(&by_drops, 1.0);
    assert_eq!(dropped.len(), 1, "who is never dropped is not among them");
    let networks = Query {
        networks: true,
        ..query(10)
    };
    let networks = tables.sources(&networks, 1.0);
    assert_eq!(
        (networks.len(), networks[0].source.to_string().as_str()),
        (1, "192.0.2.0/24")
    );
    let flows = tables.flows(&query(1), 1.0);
    assert_eq!(
        (flows.len(), flows[0].packets, flows[0].tcp_flags.as_str()),
        (1, 6_000, "ACK")
    );
    assert_eq!((flows[0].destination_port, flows[0].bytes), (443, 6_000_000));
    let ports = tables.ports(1.0);
    assert_eq!((ports[0].protocol, ports[0].port), (6, 443));
    assert_eq!(ports[0].top_source.unwrap().to_string(), "192.0.2.1/32");
    let other = Query {
        service: Some("other".into()),
        ..query(10)
    };
    assert!(tables.sources(&other, 1.0).is_empty() && tables.flows(&other, 1.0).is_empty());
}

#[test]
fn what_samples_missed_weights_those_that_came() {
    let mut tables = Tables::default();
    let batch = |missed: u64| {
        let mut samples: Vec<Named> = (0..10).map(|_| named(1, 0x10, 100, Reason::Pass)).collect();
        samples[9].sample.head.missed = missed;
        Batch { samples }
    };
    // What was missed before anybody listened is nobody's.
    tables.add(&batch(5_000), 0.0);
    let packets = |tables: &Tables| tables.flows(&query(1), 0.0)[0].packets;
    assert_eq!(packets(&tables), 1_000);
    tables.add(&batch(8_000), 0.0);
    assert_eq!(packets(&tables), 1_000 + 4_000);
}

#[test]
fn a_million_sources_take_no_more_room_and_hide_no_heavy_one() {
    let mut tables = Tables::default();
    for at in 0..200_u32 {
        let mut samples: Vec<Named> = (0..5_000)
            .map(|source| named(0x0a00_0000 + at * 5_000 + source, 0x02, 10, Reason::Pass))
            .collect();
        samples.extend((0..200).map(|_| named(0xc633_6401, 0x10, 10, Reason::Pass)));
        tables.add(&Batch { samples }, f64::from(at) / 10.0);
        assert!(tables.sources.len() <= SOURCES);
    }
    let top = &tables.sources(&query(1), 19.9)[0];
    assert_eq!(top.source.to_string(), "198.51.100.1/32");
    let rate = top.estimate.packets_per_second;
    assert!((rate / 20_000.0 - 1.0).abs() < 0.1, "{rate}");
    let all = tables.all(None, 19.9).packets_per_second;
    assert!((all / 520_000.0 - 1.0).abs() < 0.1, "{all}");
}

mod recent {
    use std::time::Duration;

    use tokio::time::{self, Instant};

    use super::*;

    fn batch(reasons: &[Reason]) -> Batch {
        let samples = reasons
            .iter()
            .map(|reason| named(0xc000_0201, 0x10, 100, *reason));
        Batch {
            samples: samples.collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn samples_are_kept_in_order_for_who_asks_and_nobody_else() {
        let traffic = Traffic::default();
        let all = Selection::default();
        traffic.take_in(batch(&[Reason::Pass; 3]));
        let recent = traffic.recent();
        assert_eq!(recent.newest(), 3);
        assert_eq!(recent.after(0, 10, &all).missed, 3, "nobody had asked");
        traffic.take_in(batch(&[Reason::Pass, Reason::SourcePackets, Reason::Ban]));
        let page = recent.after(3, 2, &all);
        assert_eq!((page.samples.len(), page.next, page.missed), (2, 5, 0));
        let page = recent.after(page.next, 2, &all);
        assert_eq!((page.samples[0].reason, page.next), (Reason::Ban, 6));
        assert_eq!(recent.after(99, 2, &all).next, 6, "another controller's number");
        time::advance(Duration::from_secs(61)).await;
        traffic.take_in(batch(&[Reason::Pass]));
        assert_eq!(recent.after(6, 10, &all).missed, 1, "nobody asked any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_is_told_how_many_are_gone() {
        let traffic = Traffic::default();
        let recent = traffic.recent();
        recent.newest();
        for _ in 0..20 {
            traffic.take_in(batch(&[Reason::Pass; 1_000]));
        }
        let page = recent.after(0, 100_000, &Selection::default());
        assert_eq!(
            (page.missed, page.samples.len(), page.next),
            (4_000, 16_000, 20_000)
        );
    }

    #[test]
    fn a_selection_takes_what_agrees_with_all_of_it() {
        let dropped = named(0xc000_0201, 0x10, 100, Reason::SourcePackets);
        let passed = named(0xc000_0201, 0x10, 100, Reason::Pass);
        let chosen = |change: fn(&mut Selection)| {
            let mut selection = Selection::default();
            change(&mut selection);
            (selection.takes(&dropped), selection.takes(&passed))
        };
        assert_eq!(chosen(|_| {}), (true, true));
        assert_eq!(chosen(|all| all.dropped = true), (true, false));
        assert_eq!(chosen(|all| all.reasons = vec![Reason::Pass]), (false, true));
        assert_eq!(chosen(|all| all.service = Some("shop".into())), (true, true));
        assert_eq!(chosen(|all| all.service = Some("other".into())), (false, false));
        assert_eq!(chosen(|all| all.interface = Some("eth1".into())), (false, false));
        assert_eq!(
            chosen(|all| all.source = "192.0.2.0/24".parse().ok()),
            (true, true)
        );
        assert_eq!(
            chosen(|all| all.source = "192.0.2.2/32".parse().ok()),
            (false, false)
        );
        assert_eq!(
            chosen(|all| all.source = "2001:db8::/32".parse().ok()),
            (false, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_a_sample_the_time_or_the_end() {
        let traffic = Traffic::default();
        let recent = traffic.recent();
        let begin = Instant::now();
        recent.wait(0, begin + Duration::from_secs(5)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        traffic.take_in(batch(&[Reason::Pass]));
        recent.wait(0, Instant::now() + Duration::from_secs(5)).await;
        recent.close();
        recent.wait(1, Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        assert!(recent.is_closed());
        let places: Vec<_> = (0..8).map(|_| recent.place().unwrap()).collect();
        assert!(recent.place().is_none());
        drop(places);
    }
}
