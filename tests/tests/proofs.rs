//! Handshakes prove a source, packets do not: reserves, blocks, and newcomers in a flood of SYNs.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    daemon::Daemon,
    frame::{ACK, Frame, SYN},
    link,
    netns::Netns,
    site::{Site, counts, datagram, reason},
    tcp,
};

/// A burst of a hundred that hardly refills, of which half is kept: strangers have 38 of them, those who ask again 50.
const RESERVED: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = [\"tcp\", \"udp\"]\nports = [80]\n\
                        [service.total]\npackets = { rate = 1, burst = 100 }\nreserve = \"50%\"\n";

fn connect(netns: &Netns, source: &str, target: &str, within: Duration) -> Result<()> {
    let source = SocketAddr::new(source.parse::<IpAddr>()?, 0);
    let target = SocketAddr::new(target.parse::<IpAddr>()?, 80);
    let connected = netns.run(|| tcp::connect_from(source, target, within).map(drop))?;
    connected.with_context(|| format!("{source} does not get through"))
}

/// Strangers stop at the reserve; the source with a handshake goes on to the bottom.
fn strangers_stop_before(site: &Site, weir: &Daemon<'_>, proven: &str) -> Result<()> {
    let strangers: Vec<Vec<u8>> = (1..=200).map(|n| datagram(&format!("192.0.2.{n}"), 60)).collect();
    site.send(&strangers, 200)?;
    let before = weir.metrics()?;
    let stopped = counts(&before, "web", &[]);
    ensure!(
        (38..=42).contains(&stopped.pass),
        "strangers and a handshake have 38 and what refills: {stopped:?}"
    );
    ensure!(
        reason(&before, "web", "reserve_packets") == stopped.drop,
        "{stopped:?}"
    );
    site.send(&[datagram(proven, 80)], 100)?;
    let after = weir.metrics()?;
    let more = counts(&after, "web", &[]).since(stopped);
    ensure!((60..=66).contains(&more.pass), "{proven} has the rest: {more:?}");
    ensure!(reason(&after, "web", "total_packets") == more.drop, "{more:?}");
    Ok(())
}

#[test]
fn a_connection_of_this_host_proves_its_peer() -> Result<()> {
    for (peer, node) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
        let site = Site::new()?;
        tcp::serve(&site.node)?;
        let weir = site.weir(RESERVED)?;
        connect(&site.client, peer, node, Duration::from_secs(5))?;
        strangers_stop_before(&site, &weir, peer)?;
    }
    Ok(())
}

#[test]
fn a_connection_from_before_weir_proves_its_peer() -> Result<()> {
    let site = Site::new()?;
    let listener = site.node.run(|| TcpListener::bind("[::]:80"))??;
    let target: SocketAddr = "10.77.0.2:80".parse()?;
    let connected = site.client.run(|| {
        tcp::connect_from(
            SocketAddr::from(([10, 77, 0, 1], 0)),
            target,
            Duration::from_secs(5),
        )
    })??;
    let accepted = listener.accept()?;
    let weir = site.weir(RESERVED)?;
    strangers_stop_before(&site, &weir, "10.77.0.1")?;
    drop((connected, accepted));
    Ok(())
}

#[test]
fn packets_alone_prove_nobody() -> Result<()> {
    let site = Site::new()?;
    tcp::serve(&site.node)?;
    let weir = site.weir(RESERVED)?;
    // What looks like the middle of a connection, and like the end of a handshake.
    let frames: Vec<Vec<u8>> = [SYN, ACK, ACK, ACK]
        .iter()
        .enumerate()
        .map(|(at, flags)| {
            let mut frame = Frame::new()
                .ip("10.77.0.9", "10.77.0.2")
                .tcp(4_000, 80, *flags)
                .build();
            // Its sequence and acknowledgement numbers.
            frame[38..46].fill(at as u8);
            frame
        })
        .collect();
    site.send(&frames, 20)?;
    site.send(&[datagram("192.0.2.1", 60)], 100)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&frames, 20)?;
    let after = weir.metrics()?;
    let pretended = counts(&after, "web", &[]).since(before);
    ensure!(pretended.pass <= 1 && pretended.drop >= 19, "{pretended:?}");
    ensure!(
        reason(&after, "web", "total_packets") == 0,
        "a stranger got below the reserve"
    );
    Ok(())
}

/// The server is another host: only what passes through the node shows the handshake.
#[test]
fn a_handshake_that_passes_through_proves_its_source() -> Result<()> {
    let site = Site::new()?;
    let server = Netns::create("server")?;
    link::veth((&site.node, "eth1"), (&server, "eth0"))?;
    site.node.address("eth1", "10.78.0.1/24")?;
    server.address("eth0", "10.78.0.2/24")?;
    site.node.sysctl("net/ipv4/ip_forward", "1")?;
    site.client.route("10.78.0.0/24", "10.77.0.2".parse()?)?;
    server.route("10.77.0.0/24", "10.78.0.1".parse()?)?;
    tcp::serve(&server)?;
    let weir = site.weir(RESERVED)?;
    connect(&site.client, "10.77.0.1", "10.78.0.2", Duration::from_secs(5))?;
    strangers_stop_before(&site, &weir, "10.77.0.1")
}

fn blocking(drops: u32) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = [\"tcp\", \"udp\"]\nports = [80]\n[service.per_source]\n\
         packets = {{ rate = 1000, burst = 1000 }}\nblock = {{ for = \"1m\", drops = {drops}, within = \"10s\" }}\n"
    )
}

#[test]
fn only_a_proven_source_is_blocked_whole() -> Result<()> {
    let site = Site::new()?;
    tcp::serve(&site.node)?;
    let weir = site.weir(&blocking(100))?;
    connect(&site.client, "10.77.0.1", "10.77.0.2", Duration::from_secs(5))?;
    for (source, whole) in [("10.77.0.1", true), ("10.77.0.8", false)] {
        site.send(&[datagram(source, 60)], 3_000)?;
        let before = weir.metrics()?;
        // Its bucket is full again; what is refused now, the block refuses.
        thread::sleep(Duration::from_millis(1_100));
        site.send(&[datagram(source, 60)], 50)?;
        let syn = Frame::new().ip(source, "10.77.0.2").tcp(4_000, 80, SYN).build();
        site.send(&[syn], 50)?;
        let after = weir.metrics()?;
        let now = counts(&after, "web", &[]).since(counts(&before, "web", &[]));
        let blocked = reason(&after, "web", "block") - reason(&before, "web", "block");
        let expected = if whole { (0, 100) } else { (50, 50) };
        ensure!(
            (now.pass, now.drop) == expected && blocked == now.drop,
            "{source}: {now:?}"
        );
    }
    Ok(())
}

#[test]
fn a_proxy_is_never_blocked() -> Result<()> {
    let site = Site::new()?;
    let list = "[lists.cdn]\nprefixes = [\"10.77.0.0/24\"]\nproxy = true\n";
    let weir = site.weir(&format!("{}{list}", blocking(1)))?;
    site.send(&[datagram("10.77.0.5", 60)], 5_000)?;
    let counted = counts(&weir.metrics()?, "web", &[]);
    ensure!((counted.pass, counted.drop) == (5_000, 0), "{counted:?}");
    Ok(())
}
