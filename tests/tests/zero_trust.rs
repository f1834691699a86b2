//! `[default] action = "drop"`: only named services are reachable, and what the node itself began goes on.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    frame::{ACK, Frame, SYN},
    site::{Site, counts, reason},
};

const SECONDS: Duration = Duration::from_secs(2);

fn policy(replies: &str) -> String {
    format!(
        "version = 1\n[[protect]]\nsources = [\"10.77.0.1/32\"]\nprotocol = \"tcp\"\nports = [9100]\n[default]\naction = \"drop\"\nreplies = \"{replies}\"\n"
    )
}

/// A TCP exchange that the node begins; what came back.
fn outbound(site: &Site) -> Result<std::io::Result<Vec<u8>>> {
    let listener = site.client.run(|| TcpListener::bind("10.77.0.1:7000"))??;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        for _ in 0..400 {
            if let Ok((mut stream, _)) = listener.accept() {
                return stream.write_all(b"hello");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    });
    let answer = site.node.run(|| {
        let address: SocketAddr = "10.77.0.1:7000".parse().map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, SECONDS)?;
        stream.set_read_timeout(Some(SECONDS))?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    })?;
    server.join().ok().context("the server panicked")??;
    Ok(answer)
}

#[test]
fn replies_to_its_own_sockets_pass() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("socket"))?;
    ensure!(outbound(&site)?? == b"hello", "a connection that the node opened");
    let echo = site.client.run(|| UdpSocket::bind("10.77.0.1:7001"))??;
    echo.set_read_timeout(Some(SECONDS))?;
    let asked = site.node.run(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind("10.77.0.2:0")?;
        socket.connect("10.77.0.1:7001")?;
        socket.set_read_timeout(Some(SECONDS))?;
        socket.send(b"ask")?;
        Ok(socket)
    })??;
    let mut bytes = [0; 16];
    let (_, from) = echo.recv_from(&mut bytes)?;
    echo.send_to(b"answer", from)?;
    ensure!(asked.recv(&mut bytes)? == 6, "a connected UDP socket is answered");
    ensure!(
        reason(&weir.metrics()?, "default", "reply") >= 2,
        "counted as replies"
    );
    Ok(())
}

#[test]
fn strangers_are_dropped_also_where_a_socket_listens() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("socket"))?;
    let _listener = site.node.run(|| TcpListener::bind("10.77.0.2:8000"))??;
    let _socket = site.node.run(|| UdpSocket::bind("10.77.0.2:8001"))??;
    let before = counts(&weir.metrics()?, "default", &[]);
    let to = || Frame::new().ip("10.77.0.1", "10.77.0.2");
    site.send(
        &[
            to().tcp(4000, 8000, SYN).build(),
            to().tcp(4000, 8000, ACK).build(),
            to().udp(4000, 8001).build(),
        ],
        30,
    )?;
    let metrics = weir.metrics()?;
    ensure!(
        reason(&metrics, "default", "default_drop") >= 30,
        "{:?}",
        counts(&metrics, "default", &[]).since(before)
    );
    site.send(&[to().tcp(4000, 9100, SYN).build()], 5)?;
    ensure!(
        reason(&weir.metrics()?, "default", "protect") == 5,
        "protect comes before everything"
    );
    Ok(())
}

#[test]
fn without_replies_nothing_comes_back() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("none"))?;
    ensure!(outbound(&site)?.is_err(), "the SYN-ACK is dropped");
    ensure!(
        reason(&weir.metrics()?, "default", "default_drop") > 0,
        "and counted"
    );
    Ok(())
}

#[test]
fn the_network_goes_on_working() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("none"))?;
    // ARP and neighbour discovery: the client learns the node's address though nothing else passes.
    site.client.ip(&["neigh", "flush", "dev", "eth0"])?;
    let frame = |target: &str| {
        site.client.run(|| {
            let socket = UdpSocket::bind(if target.contains(':') {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            })?;
            socket.send_to(b"x", (target, 9))
        })
    };
    for target in ["10.77.0.2", "fd77::2"] {
        frame(target)??;
        let mut known = String::new();
        for _ in 0..100 {
            known = site.client.ip(&["neigh", "show", target, "dev", "eth0"])?;
            if known.contains("REACHABLE") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(known.contains("REACHABLE"), "{target}: {known}");
    }
    ensure!(
        reason(&weir.metrics()?, "default", "essential") > 0,
        "counted as essential"
    );
    Ok(())
}
