//! Interfaces of a [`Netns`]: veth pairs, VLANs, bonds, bridges, addresses, routes, neighbours,
//! offloads and counters.
//!
//! Interfaces are made inside their namespaces, so their names need only be unique there.

use std::{
    net::IpAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use serde_json::Value;

use crate::netns::{Netns, capture};

/// How long [`Netns::wait_up`] polls before it gives up.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// An interface's own counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received by the driver.
    pub rx_packets: u64,
    /// Packets that the driver received and could not keep.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_dropped: u64,
}

/// Makes a veth pair with one end in each namespace, both up. Duplicate address detection is off,
/// so that IPv6 addresses are usable at once.
pub fn veth(a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
    a.0.ip(&[
        "link",
        "add",
        a.1,
        "type",
        "veth",
        "peer",
        "name",
        b.1,
        "netns",
        b.0.name(),
    ])?;
    for (netns, dev) in [a, b] {
        netns.no_dad(dev)?;
        netns.up(dev)?;
    }
    a.0.wait_up(a.1)?;
    b.0.wait_up(b.1)
}

/// Whether this kernel can make interfaces of `kind` (`vlan`, `bond`, `bridge`, …): tried in a
/// namespace that is removed at once.
pub fn supports(kind: &str) -> Result<bool> {
    let netns = Netns::create("probe")?;
    let made = if kind == "vlan" {
        netns.ip(&["link", "add", "under", "type", "veth", "peer", "name", "peer"])?;
        netns.ip(&[
            "link", "add", "link", "under", "name", "probe", "type", "vlan", "id", "2",
        ])
    } else {
        netns.ip(&["link", "add", "probe", "type", kind])
    };
    match made {
        Ok(_) => Ok(true),
        Err(error) => {
            let text = format!("{error:#}");
            if text.contains("Unknown device type") || text.contains("not supported") {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

impl Netns {
    /// Brings an interface up.
    pub fn up(&self, dev: &str) -> Result<()> {
        self.ip(&["link", "set", dev, "up"]).map(drop)
    }

    /// Takes an interface down.
    pub fn down(&self, dev: &str) -> Result<()> {
        self.ip(&["link", "set", dev, "down"]).map(drop)
    }

    /// Removes an interface.
    pub fn delete_link(&self, dev: &str) -> Result<()> {
        self.ip(&["link", "delete", dev]).map(drop)
    }

    /// Waits until an interface has a carrier and its addresses are usable, for at most five seconds.
    pub fn wait_up(&self, dev: &str) -> Result<()> {
        let deadline = Instant::now() + LINK_PATIENCE;
        loop {
            let link = self.describe(dev)?;
            let state = link["operstate"].as_str().unwrap_or_default().to_owned();
            if matches!(state.as_str(), "UP" | "UNKNOWN") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{dev} in {} is still {state} after {LINK_PATIENCE:?}",
                    self.name()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Turns duplicate address detection and router solicitation off on one interface.
    pub fn no_dad(&self, dev: &str) -> Result<()> {
        for key in ["accept_dad", "router_solicitations"] {
            // A dot in an interface's name (`eth0.100`) is part of it, so the path is not built from a dotted key.
            let path = format!("/proc/sys/net/ipv6/conf/{dev}/{key}");
            self.run(|| std::fs::write(&path, "0"))?
                .with_context(|| format!("cannot turn {key} off on {dev}"))?;
        }
        Ok(())
    }

    /// Gives an interface an address with its prefix (`192.0.2.1/24`, `2001:db8::1/64`).
    pub fn address(&self, dev: &str, address: &str) -> Result<()> {
        self.addresses(
            dev,
            &[address
                .parse()
                .with_context(|| format!("{address} is no address with a prefix"))?],
        )
    }

    /// Gives an interface many addresses.
    pub fn addresses(&self, dev: &str, addresses: &[IpNet]) -> Result<()> {
        let lines: Vec<String> = addresses
            .iter()
            .map(|address| {
                let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
                format!("address add {address} dev {dev}{nodad}")
            })
            .collect();
        self.ip_batch(&lines)
    }

    /// Adds a route through a gateway.
    pub fn route(&self, destination: &str, via: IpAddr) -> Result<()> {
        let family = if via.is_ipv6() { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", destination, "via", &via.to_string()])
            .map(drop)
    }

    /// Adds a neighbour that never expires.
    pub fn neighbour(&self, dev: &str, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let (address, mac) = (address.to_string(), format_mac(mac));
        self.ip(&[
            "neighbour",
            "replace",
            &address,
            "lladdr",
            &mac,
            "dev",
            dev,
            "nud",
            "permanent",
        ])
        .map(drop)
    }

    /// Sets an interface's MAC address.
    pub fn set_mac(&self, dev: &str, mac: [u8; 6]) -> Result<()> {
        self.ip(&["link", "set", dev, "address", &format_mac(mac)])
            .map(drop)
    }

    /// Sets an interface's MTU, in bytes.
    pub fn set_mtu(&self, dev: &str, mtu: u32) -> Result<()> {
        self.ip(&["link", "set", dev, "mtu", &mtu.to_string()]).map(drop)
    }

    /// Makes a VLAN interface over `dev`, up, and returns its name.
    pub fn vlan(&self, dev: &str, id: u16) -> Result<String> {
        let name = format!("{dev}.{id}");
        self.ip(&[
            "link",
            "add",
            "link",
            dev,
            "name",
            &name,
            "type",
            "vlan",
            "id",
            &id.to_string(),
        ])?;
        self.no_dad(&name)?;
        self.up(&name)?;
        Ok(name)
    }

    /// Makes a bond of interfaces that are already there (they are taken down to join), up.
    pub fn bond(&self, name: &str, mode: &str, members: &[&str]) -> Result<()> {
        self.ip(&["link", "add", name, "type", "bond", "mode", mode, "miimon", "10"])?;
        self.no_dad(name)?;
        for member in members {
            self.down(member)?;
            self.ip(&["link", "set", member, "master", name])?;
            self.up(member)?;
        }
        self.up(name)
    }

    /// Makes a bridge of interfaces that are already there, up, without spanning tree.
    pub fn bridge(&self, name: &str, ports: &[&str]) -> Result<()> {
        self.ip(&[
            "link",
            "add",
            name,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        for port in ports {
            self.ip(&["link", "set", port, "master", name])?;
        }
        self.up(name)
    }

    /// Turns the offloads that build super-frames or leave checksums to the driver (checksums, TSO,
    /// GSO, GRO) on or off.
    pub fn offloads(&self, dev: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        self.ethtool(
            dev,
            &["rx", state, "tx", state, "tso", state, "gso", state, "gro", state],
        )
    }

    /// Turns generic receive offload on or off. On veth, `on` also makes the interface keep frames
    /// that are redirected to it while it has no XDP program.
    pub fn gro(&self, dev: &str, on: bool) -> Result<()> {
        self.ethtool(dev, &["gro", if on { "on" } else { "off" }])
    }

    fn ethtool(&self, dev: &str, features: &[&str]) -> Result<()> {
        capture(self.command("ethtool").arg("-K").arg(dev).args(features)).map(drop)
    }

    /// Turns threaded NAPI on or off: off, packets are received on the CPU that sends them.
    pub fn threaded_napi(&self, dev: &str, on: bool) -> Result<()> {
        // `/sys` shows the interfaces of the namespace that mounted it: `ip netns exec` mounts its own.
        let path = format!("/sys/class/net/{dev}/threaded");
        let script = format!("echo {} > {path}", u8::from(on));
        capture(Command::new("ip").args(["netns", "exec", self.name(), "sh", "-c", &script])).map(drop)
    }

    /// An interface's MAC address.
    pub fn mac(&self, dev: &str) -> Result<[u8; 6]> {
        let link = self.describe(dev)?;
        link["address"]
            .as_str()
            .and_then(parse_mac)
            .with_context(|| format!("{dev} has no MAC address"))
    }

    /// An interface's index, within the namespace.
    pub fn ifindex(&self, dev: &str) -> Result<u32> {
        self.describe(dev)?["ifindex"]
            .as_u64()
            .map(|index| index as u32)
            .with_context(|| format!("{dev} has no index"))
    }

    /// An interface's counters.
    pub fn stats(&self, dev: &str) -> Result<LinkStats> {
        let link = self.describe(dev)?;
        let read = |way: &str, what: &str| {
            link["stats64"][way][what]
                .as_u64()
                .with_context(|| format!("{dev} has no counter {way} {what}"))
        };
        Ok(LinkStats {
            rx_packets: read("rx", "packets")?,
            rx_dropped: read("rx", "dropped")?,
            tx_packets: read("tx", "packets")?,
            tx_dropped: read("tx", "dropped")?,
        })
    }

    /// The id of the XDP program attached to an interface, and whether it runs in native mode.
    pub fn xdp(&self, dev: &str) -> Result<Option<(u32, bool)>> {
        let link = self.describe(dev)?;
        let id = link["xdp"]["prog"]["id"]
            .as_u64()
            .or_else(|| link["xdp"]["attached"][0]["prog"]["id"].as_u64());
        // `mode` is 1 for native (driver) and 2 for generic (skb), as the kernel numbers them.
        Ok(id.map(|id| (id as u32, link["xdp"]["mode"].as_u64() == Some(1))))
    }

    fn describe(&self, dev: &str) -> Result<Value> {
        let text = self.ip(&["-j", "-s", "-d", "link", "show", "dev", dev])?;
        let mut links: Value = serde_json::from_str(&text).context("`ip -j` did not print JSON")?;
        Ok(links[0].take())
    }
}

/// A MAC address as `ip` writes it.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a MAC address as `ip` writes it.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::skip;

    #[test]
    fn macs_round_trip() {
        let mac = [2, 0, 0x5e, 0xff, 0, 1];
        assert_eq!(parse_mac(&format_mac(mac)), Some(mac));
        assert_eq!(parse_mac("02:00:00:00:00"), None);
        assert_eq!(parse_mac("02:00:00:00:00:00:00"), None);
    }

    #[test]
    fn a_veth_pair_carries_tcp_over_both_families_at_once() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&b, "eth0"))?;
        for (netns, v4, v6) in [
            (&a, "192.0.2.1/24", "2001:db8::1/64"),
            (&b, "192.0.2.2/24", "2001:db8::2/64"),
        ] {
            netns.address("eth0", v4)?;
            netns.address("eth0", v6)?;
        }
        for target in ["192.0.2.2:80", "[2001:db8::2]:80"] {
            let listener = b.run(|| TcpListener::bind(target))??;
            let mut client = a.run(|| TcpStream::connect(target))??;
            client.write_all(b"hello")?;
            let (mut server, _) = listener.accept()?;
            let mut heard = [0; 5];
            server.read_exact(&mut heard)?;
            assert_eq!(&heard, b"hello");
        }
        assert!(a.stats("eth0")?.tx_packets >= 4);
        Ok(())
    }

    #[test]
    fn a_bridge_joins_three_namespaces() -> Result<()> {
        skip::require_root();
        crate::skip_unless_link_type!("a_bridge_joins_three_namespaces", "bridge");
        let switch = Netns::create("switch")?;
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&switch, "port-a"))?;
        veth((&b, "eth0"), (&switch, "port-b"))?;
        switch.bridge("br0", &["port-a", "port-b"])?;
        a.addresses("eth0", &["10.0.0.1/24".parse()?, "10.0.0.3/24".parse()?])?;
        b.address("eth0", "10.0.0.2/24")?;
        let listener = b.run(|| TcpListener::bind("10.0.0.2:80"))??;
        let client = a.run(|| TcpStream::connect("10.0.0.2:80"))??;
        assert_eq!(listener.accept()?.1, client.local_addr()?);
        Ok(())
    }

    #[test]
    fn offloads_threads_and_identity_can_be_set_and_read() -> Result<()> {
        skip::require_root();
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "eth0"), (&b, "eth0"))?;
        a.offloads("eth0", false)?;
        a.gro("eth0", true)?;
        a.threaded_napi("eth0", false)?;
        let mac = [2, 0, 0, 0, 0, 9];
        a.set_mac("eth0", mac)?;
        assert_eq!(a.mac("eth0")?, mac);
        a.set_mtu("eth0", 3000)?;
        assert!(a.ifindex("eth0")? > 1);
        assert_eq!(a.xdp("eth0")?, None);
        b.neighbour("eth0", "192.0.2.9".parse()?, mac)?;
        Ok(())
    }

    #[test]
    fn vlans_and_bonds_come_up_where_the_kernel_has_them() -> Result<()> {
        skip::require_root();
        let name = "vlans_and_bonds_come_up_where_the_kernel_has_them";
        crate::skip_unless_link_type!(name, "vlan");
        crate::skip_unless_link_type!(name, "bond");
        let (a, b) = (Netns::create("a")?, Netns::create("b")?);
        veth((&a, "m0"), (&b, "m0"))?;
        veth((&a, "m1"), (&b, "m1"))?;
        a.bond("bond0", "active-backup", &["m0", "m1"])?;
        b.bond("bond0", "active-backup", &["m0", "m1"])?;
        let vlan = a.vlan("bond0", 100)?;
        a.wait_up("bond0")?;
        assert_eq!(vlan, "bond0.100");
        Ok(())
    }
}
