//! The laboratory: four namespaces, three links to one switch.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use weir_tests::{
    bots::{Botnet, Orders},
    flood::Flood,
    frame::Frame,
    http::{Size, Storefront},
    link::veth,
    netns::Netns,
    sender::Plan,
    shoppers::{Habits, Shoppers},
};

/// Shoppers, each with an address of its own.
pub(crate) const SHOPPERS: u8 = 16;
/// Bots, each with an address of its own.
pub(crate) const BOTS: u8 = 32;
/// New connections a second, over all bots.
pub(crate) const BOT_CONNECTIONS: u64 = 1_600;
/// Raw UDP packets a second, over all bots.
pub(crate) const BOT_PACKETS: u64 = 20_000;
/// When a shopper gives a page up.
pub(crate) const SHOPPER_PATIENCE: Duration = Duration::from_secs(2);
/// From one page of a shopper to the next.
const PAGE_EVERY: Duration = Duration::from_millis(500);
/// The storefront's interface, which Weir holds.
pub(crate) const UPLINK: &str = "eth0";
/// The storefront's port.
const PORT: u16 = 80;

const STOREFRONT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

/// The namespaces. Fields drop in this order.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) storefront: Netns,
    pub(crate) shoppers: Netns,
    pub(crate) bots: Netns,
    // Held, because the links end with it.
    switch: Netns,
}

/// A flood from the botnet, connections and raw packets; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Attack {
    _connections: Botnet,
    _packets: Flood,
}

impl Lab {
    /// Builds the network: everybody on one switch, as at the edge of one site.
    pub(crate) fn build() -> Result<Self> {
        let lab = Self {
            storefront: Netns::create("shop")?,
            shoppers: Netns::create("crowd")?,
            bots: Netns::create("bots")?,
            switch: Netns::create("switch")?,
        };
        let switch = &lab.switch;
        let ports = ["to-shop", "to-crowd", "to-bots"];
        for (netns, port) in [&lab.storefront, &lab.shoppers, &lab.bots].into_iter().zip(ports) {
            veth((netns, UPLINK), (switch, port))?;
        }
        switch
            .bridge("br0", &ports)
            .context("the laboratory needs a kernel with bridges")?;
        lab.storefront.addresses(UPLINK, &[on_link(STOREFRONT)?])?;
        lab.shoppers.addresses(
            UPLINK,
            &addresses(1, SHOPPERS).map(on_link).collect::<Result<Vec<_>>>()?,
        )?;
        lab.bots.addresses(
            UPLINK,
            &addresses(2, BOTS).map(on_link).collect::<Result<Vec<_>>>()?,
        )?;
        Ok(lab)
    }

    /// The storefront's address and port.
    pub(crate) fn target() -> SocketAddr {
        (STOREFRONT, PORT).into()
    }

    /// The network that all bots are in, and no shopper.
    pub(crate) fn bot_network() -> &'static str {
        "10.77.2.0/24"
    }

    /// Opens the storefront.
    pub(crate) fn open_storefront(&self, size: Size) -> Result<Storefront> {
        Storefront::open(&self.storefront, Self::target(), size)
    }

    /// Sends the shoppers.
    pub(crate) fn send_shoppers(&self) -> Result<Shoppers> {
        let habits = Habits {
            sources: addresses(1, SHOPPERS).map(IpAddr::V4).collect(),
            target: Self::target(),
            every: PAGE_EVERY,
            timeout: SHOPPER_PATIENCE,
        };
        Shoppers::start(&self.shoppers, &habits)
    }

    /// Sets the bots on the storefront.
    pub(crate) fn attack(&self) -> Result<Attack> {
        let connections = Botnet::start(
            &self.bots,
            Orders {
                sources: addresses(2, BOTS).map(IpAddr::V4).collect(),
                target: Self::target(),
                connections_per_second: BOT_CONNECTIONS,
                silent_in_ten: 5,
                hold: Duration::from_secs(2),
                open_at_once: 4096,
            },
        )?;
        let (from, to) = (self.bots.mac(UPLINK)?, self.storefront.mac(UPLINK)?);
        let frames = addresses(2, BOTS)
            .map(|source| {
                let packet = Frame::new().macs(from, to).ips(source.into(), STOREFRONT.into());
                packet.udp(40_000, PORT).payload(&[0x5a; 200]).build()
            })
            .collect();
        // Only the attack's end stops it: an hour is longer than anybody keeps the laboratory up.
        let plan = Plan::rate(BOT_PACKETS, Duration::from_hours(1)).relaxed();
        let packets = Flood::start(&self.bots, UPLINK, frames, plan)?;
        Ok(Attack {
            _connections: connections,
            _packets: packets,
        })
    }
}

/// `count` hosts of the network 10.77.`third`.0.
fn addresses(third: u8, count: u8) -> impl Iterator<Item = Ipv4Addr> {
    (1..=count).map(move |host| Ipv4Addr::new(10, 77, third, host))
}

/// An address in the laboratory's one network.
fn on_link(address: Ipv4Addr) -> Result<IpNet> {
    Ok(Ipv4Net::new(address, 16)?.into())
}
