//! Limits by source, network, class and service, for IPv4 and IPv6, with and without tags. Rates are so low that
//! nothing refills while a test sends, but for the one packet that a second brings.

use anyhow::{Result, ensure};
use weir_tests::{
    frame::{ACK, Frame, SYN, TPID_8021AD, TPID_8021Q},
    site::{Site, counts, datagram, reason},
};

fn policy(limits: &str) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = [\"tcp\", \"udp\"]\nports = [80]\n{limits}\n"
    )
}

/// Whether a count is what a burst gives, or one or two more that were refilled.
fn about(what: &str, got: u64, burst: u64) -> Result<()> {
    ensure!((burst..=burst + 2).contains(&got), "{what}: {got}, not {burst}");
    Ok(())
}

#[test]
fn each_source_has_its_own_buckets() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\npackets = { rate = 1, burst = 20 }",
    ))?;
    site.send(&[datagram("10.77.0.10", 60)], 200)?;
    about("one source", counts(&weir.metrics()?, "web", &[]).pass, 20)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    let many: Vec<Vec<u8>> = (0..50).map(|n| datagram(&format!("10.77.1.{n}"), 60)).collect();
    site.send(&many, 50 * 40)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        (1_000..=1_100).contains(&after.pass),
        "fifty sources with twenty each: {after:?}"
    );
    Ok(())
}

#[test]
fn an_ipv6_source_is_its_64() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\npackets = { rate = 1, burst = 20 }",
    ))?;
    let one: Vec<Vec<u8>> = (1..40)
        .map(|n| datagram(&format!("2001:db8:1:1::{n:x}"), 80))
        .collect();
    site.send(&one, 400)?;
    about(
        "one /64 of many addresses",
        counts(&weir.metrics()?, "web", &[]).pass,
        20,
    )?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("2001:db8:1:2::1", 80)], 100)?;
    about(
        "another /64",
        counts(&weir.metrics()?, "web", &[]).since(before).pass,
        20,
    )
}

#[test]
fn what_a_source_is_follows_the_policy() -> Result<()> {
    let site = Site::new()?;
    let text = policy("[service.per_source]\npackets = { rate = 1, burst = 20 }");
    let weir = site.weir(&text.replace("[[service]]", "[source]\nipv4_prefix = 24\n[[service]]"))?;
    let frames: Vec<Vec<u8>> = (1..30).map(|n| datagram(&format!("192.0.2.{n}"), 60)).collect();
    site.send(&frames, 300)?;
    about(
        "a /24 is one source",
        counts(&weir.metrics()?, "web", &[]).pass,
        20,
    )
}

#[test]
fn a_network_shares_a_bucket() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\npackets = { rate = 1, burst = 10 }\n[service.per_network]\nipv4_prefix = 24\npackets = { rate = 1, burst = 55 }",
    ))?;
    let frames: Vec<Vec<u8>> = (1..=20).map(|n| datagram(&format!("192.0.2.{n}"), 60)).collect();
    site.send(&frames, 20 * 30)?;
    let metrics = weir.metrics()?;
    about("twenty sources of one /24", counts(&metrics, "web", &[]).pass, 55)?;
    ensure!(
        reason(&metrics, "web", "network_packets") > 0,
        "some met the network's bucket"
    );
    let before = counts(&metrics, "web", &[]);
    site.send(&[datagram("192.0.3.1", 60)], 30)?;
    about(
        "another /24",
        counts(&weir.metrics()?, "web", &[]).since(before).pass,
        10,
    )
}

#[test]
fn a_source_over_its_own_limit_does_not_charge_the_total() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\npackets = { rate = 1, burst = 10 }\n[service.total]\npackets = { rate = 1, burst = 100 }",
    ))?;
    site.send(&[datagram("192.0.2.66", 60)], 5_000)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    about("the flooding source", before.pass, 10)?;
    let others: Vec<Vec<u8>> = (1..=20).map(|n| datagram(&format!("10.1.0.{n}"), 60)).collect();
    site.send(&others, 20 * 10)?;
    let metrics = weir.metrics()?;
    let after = counts(&metrics, "web", &[]).since(before);
    ensure!(
        (88..=94).contains(&after.pass),
        "the rest of the total is theirs: {after:?}"
    );
    ensure!(
        reason(&metrics, "web", "total_packets") > 0,
        "then the total is empty"
    );
    Ok(())
}

#[test]
fn tags_do_not_make_another_source() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\npackets = { rate = 1, burst = 30 }",
    ))?;
    let on = |frame: Frame| {
        frame
            .ip("192.0.2.1", "10.77.0.2")
            .udp(4000, 80)
            .payload(&[0; 20])
            .build()
    };
    let frames = [
        on(Frame::new()),
        on(Frame::new().vlan(TPID_8021Q, 100)),
        on(Frame::new().vlan(TPID_8021AD, 5).vlan(TPID_8021Q, 100)),
        on(Frame::new().vlan(TPID_8021Q, 100).mpls(17)),
    ];
    site.send(&frames, 400)?;
    about(
        "one source in four framings",
        counts(&weir.metrics()?, "web", &[]).pass,
        30,
    )
}

#[test]
fn bytes_count_from_the_ethernet_header() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\nbytes = { rate = 1000, burst = 100_000 }",
    ))?;
    site.send(&[datagram("192.0.2.1", 1_000)], 500)?;
    let metrics = weir.metrics()?;
    about(
        "a hundred frames of a thousand bytes",
        counts(&metrics, "web", &[]).pass,
        100,
    )?;
    let counted = metrics.sum("weir_bytes_total", &[("service", "web")]) as u64;
    ensure!(counted == 500_000, "{counted} bytes counted");
    Ok(())
}

#[test]
fn only_new_connections_charge_their_bucket() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\nconnections = { rate = 1, burst = 5 }",
    ))?;
    let tcp = |flags| {
        Frame::new()
            .ip("192.0.2.1", "10.77.0.2")
            .tcp(4000, 80, flags)
            .build()
    };
    site.send(&[tcp(SYN), tcp(ACK)], 200)?;
    let metrics = weir.metrics()?;
    about("ACKs, and five SYNs", counts(&metrics, "web", &[]).pass, 105)?;
    ensure!(
        reason(&metrics, "web", "source_connections") >= 93,
        "the other SYNs"
    );
    Ok(())
}

/// Of a source that has proven nothing; `proofs.rs` has the others.
#[test]
fn a_block_starts_with_its_last_drop_and_ends() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy(
        "[service.per_source]\nconnections = { rate = 1, burst = 5 }\nblock = { for = \"2s\", drops = 50, within = \"10s\" }",
    ))?;
    let tcp = |source: &str, flags| Frame::new().ip(source, "10.77.0.2").tcp(4000, 80, flags).build();
    let blocked = || -> Result<u64> { Ok(reason(&weir.metrics()?, "web", "block")) };
    site.send(&[tcp("192.0.2.1", SYN)], 54)?;
    ensure!(blocked()? == 0, "49 drops do not block");
    site.send(&[tcp("192.0.2.1", SYN)], 15)?;
    // One or two more may have passed with what refilled.
    let many = blocked()?;
    ensure!((12..=14).contains(&many), "the 50th does: {many}");
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[tcp("192.0.2.1", ACK)], 10)?;
    site.send(&[tcp("192.0.2.2", SYN)], 5)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        (after.pass, after.drop) == (15, 0),
        "what is not blocked: {after:?}"
    );
    std::thread::sleep(std::time::Duration::from_millis(2_200));
    site.send(&[tcp("192.0.2.1", SYN)], 10)?;
    ensure!(blocked()? == many, "it ends by itself");
    Ok(())
}

#[test]
fn services_are_found_by_address_and_ports() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(
        r#"
version = 1
[[service]]
name = "all"
protocol = "udp"
[[service]]
name = "web"
protocol = "udp"
ports = ["80-90"]
[[service]]
name = "vip"
protocol = "udp"
ports = [80]
addresses = ["10.77.0.0/16"]
[[service]]
name = "host"
protocol = "udp"
addresses = ["10.77.0.2/32"]
[[service]]
name = "dns"
protocol = "udp"
source_ports = [53]
"#,
    )?;
    let udp = |target: &str, from, to| {
        Frame::new()
            .ip("192.0.2.1", target)
            .udp(from, to)
            .payload(&[0; 20])
            .build()
    };
    for (count, target, from, to) in [
        (1, "10.77.0.2", 9, 80),
        (2, "10.77.5.5", 9, 80),
        (4, "10.77.5.5", 9, 85),
        (8, "10.78.0.1", 9, 99),
        (16, "10.78.0.1", 53, 99),
        (32, "10.78.0.1", 53, 80),
    ] {
        site.send(&[udp(target, from, to)], count)?;
    }
    let metrics = weir.metrics()?;
    for (service, expected) in [("host", 1), ("vip", 2), ("web", 4 + 32), ("all", 8), ("dns", 16)] {
        let got = counts(&metrics, service, &[]).pass;
        ensure!(got == expected, "{service}: {got}, not {expected}");
    }
    Ok(())
}
