//! The services that are modelled, in their constants.

use super::{
    population::{ABROAD, Access, MACHINES, MOBILE, OFFICES, OTHER_HOMES, WINDOWS_HOMES},
    talk::Talking,
};

/// How a service's customers talk to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Talk {
    /// HTTPS; the share of connections that are QUIC.
    Web {
        quic: f64,
        /// Requests a connection.
        requests: f64,
        /// ACKs that a response takes.
        acks: f64,
        /// How long a connection lasts, in seconds.
        lasts: f64,
    },
    /// Questions to a name server.
    Names,
    /// Sessions of half an hour with so many packets a second each.
    Game { per_second: f64 },
}

/// What a service is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) talk: Talk,
    /// Packets a second, in the mean over a week.
    pub(crate) packets: f64,
    /// The port.
    pub(crate) port: u16,
    /// How deep the night is: the logarithm of the day's peak to its mean, roughly.
    pub(crate) daily: f64,
    /// What Saturday and Sunday have of a working day.
    pub(crate) weekend: f64,
    /// Where its customers are.
    pub(crate) accesses: &'static [Access],
    /// New networks among the packets, usually.
    pub(crate) fresh: f64,
    /// How restless it is; 1 is usual.
    pub(crate) noise: f64,
    /// Scanners of the whole internet, in packets a second, mean.
    pub(crate) radiation: f64,
    /// Whether oddities of customers in crowds happen (mails, sales).
    pub(crate) crowds: bool,
    /// Whether the host sees its answers (handshakes are counted).
    pub(crate) terminates: bool,
}

impl Plan {
    /// Packets that a connection, a question or a session brings, in the mean.
    pub(crate) fn packets_per_connection(&self) -> f64 {
        Talking::packets_per_connection(self)
    }
}

/// All kinds of customers.
const EVERYBODY: &[Access] = &[WINDOWS_HOMES, OTHER_HOMES, MOBILE, OFFICES, ABROAD, MACHINES];
/// Programs of partners, and some offices.
const PARTNERS: &[Access] = &[
    Access {
        day: 0.9,
        night: 0.97,
        networks: 40.0,
        hosts: 3,
        ..MACHINES
    },
    Access {
        day: 0.1,
        night: 0.03,
        networks: 200.0,
        ..OFFICES
    },
];
/// Resolvers of providers and of clouds.
const RESOLVERS: &[Access] = &[
    Access {
        day: 0.7,
        night: 0.7,
        networks: 3_000.0,
        hosts: 6,
        hops: 11.0,
        ..MACHINES
    },
    Access {
        day: 0.3,
        night: 0.3,
        networks: 40_000.0,
        hosts: 2,
        ..ABROAD
    },
];
/// Players.
const PLAYERS: &[Access] = &[WINDOWS_HOMES, OTHER_HOMES, MOBILE, ABROAD];

/// The services.
pub(crate) const PLANS: [Plan; 6] = [
    Plan {
        name: "storefront",
        talk: Talk::Web {
            quic: 0.25,
            requests: 7.0,
            acks: 2.2,
            lasts: 25.0,
        },
        packets: 5_000.0,
        port: 443,
        daily: 1.0,
        weekend: 1.15,
        accesses: EVERYBODY,
        fresh: 0.03,
        noise: 1.0,
        radiation: 0.4,
        crowds: true,
        terminates: true,
    },
    Plan {
        name: "api",
        talk: Talk::Web {
            quic: 0.0,
            requests: 40.0,
            acks: 0.7,
            lasts: 120.0,
        },
        packets: 50.0,
        port: 8443,
        daily: 0.5,
        weekend: 0.6,
        accesses: PARTNERS,
        fresh: 0.002,
        noise: 1.3,
        radiation: 0.2,
        crowds: false,
        terminates: true,
    },
    Plan {
        name: "names",
        talk: Talk::Names,
        packets: 800.0,
        port: 53,
        daily: 0.45,
        weekend: 0.9,
        accesses: RESOLVERS,
        fresh: 0.02,
        noise: 0.8,
        radiation: 0.5,
        crowds: true,
        terminates: true,
    },
    Plan {
        name: "video",
        talk: Talk::Web {
            quic: 0.9,
            requests: 20.0,
            acks: 6.0,
            lasts: 90.0,
        },
        packets: 2_000.0,
        port: 443,
        daily: 1.1,
        weekend: 1.3,
        accesses: EVERYBODY,
        fresh: 0.02,
        noise: 0.8,
        radiation: 0.3,
        crowds: true,
        terminates: true,
    },
    Plan {
        name: "intranet",
        talk: Talk::Web {
            quic: 0.0,
            requests: 12.0,
            acks: 2.5,
            lasts: 60.0,
        },
        packets: 30.0,
        port: 443,
        daily: 2.6,
        weekend: 0.08,
        accesses: &[
            OFFICES,
            Access {
                networks: 300.0,
                ..WINDOWS_HOMES
            },
        ],
        fresh: 0.004,
        noise: 1.5,
        radiation: 0.05,
        crowds: false,
        terminates: true,
    },
    Plan {
        name: "game",
        talk: Talk::Game { per_second: 30.0 },
        packets: 1_500.0,
        port: 27_015,
        daily: 1.2,
        weekend: 1.4,
        accesses: PLAYERS,
        fresh: 0.02,
        noise: 0.7,
        radiation: 0.2,
        crowds: true,
        terminates: true,
    },
];

/// A site of sport, for the World Cup's series: the requests are given, a connection has several.
pub(crate) const SPORT: Plan = Plan {
    name: "sport",
    talk: Talk::Web {
        quic: 0.0,
        requests: 8.0,
        acks: 2.0,
        lasts: 15.0,
    },
    packets: 250.0,
    port: 443,
    daily: 0.0,
    weekend: 1.0,
    accesses: EVERYBODY,
    fresh: 0.04,
    noise: 0.5,
    radiation: 0.3,
    crowds: false,
    terminates: true,
};
