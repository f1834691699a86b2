//! Attacks of every kind.

use gateway_detect::Kind;

use super::{
    population::{Botnet, Host, Senders},
    random::{Random, mix},
    service::conversations,
    tally::{ACK, PSH, Port, SYN, Shape, Tally, one, two},
};

/// Attacks, as the table names them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Form {
    SynSpoofed,
    SynBotnet,
    UdpSpoofed,
    UdpBotnet,
    Ntp,
    Dns,
    Snmp,
    Cldap,
    MixedReflection,
    FewSources,
    ManySources,
    Scan,
    Slow,
}

impl Form {
    pub(crate) const ALL: [Self; 13] = [
        Self::SynSpoofed,
        Self::SynBotnet,
        Self::UdpSpoofed,
        Self::UdpBotnet,
        Self::Ntp,
        Self::Dns,
        Self::Snmp,
        Self::Cldap,
        Self::MixedReflection,
        Self::FewSources,
        Self::ManySources,
        Self::Scan,
        Self::Slow,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SynSpoofed => "syn_flood, spoofed",
            Self::SynBotnet => "syn_flood, botnet",
            Self::UdpSpoofed => "udp_flood, spoofed",
            Self::UdpBotnet => "udp_flood, botnet",
            Self::Ntp => "reflection, NTP",
            Self::Dns => "reflection, DNS",
            Self::Snmp => "reflection, SNMP",
            Self::Cldap => "reflection, CLDAP",
            Self::MixedReflection => "reflection, mixed",
            Self::FewSources => "few_sources",
            Self::ManySources => "many_sources",
            Self::Scan => "scan",
            Self::Slow => "slow",
        }
    }

    /// Whether it can be done to a service: connections can only be held where there are some.
    pub(crate) fn suits(self, datagrams: bool) -> bool {
        !(datagrams && self == Self::Slow)
    }

    /// What it may be called as well: datagrams from many bots are a UDP flood, however much they look like questions.
    pub(crate) fn also(self, datagrams: bool) -> Option<Kind> {
        (datagrams && self == Self::ManySources).then_some(Kind::UdpFlood)
    }

    /// What it is to be called.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::SynSpoofed | Self::SynBotnet => Kind::SynFlood,
            Self::UdpSpoofed | Self::UdpBotnet => Kind::UdpFlood,
            Self::Ntp | Self::Dns | Self::Snmp | Self::Cldap | Self::MixedReflection => Kind::Reflection,
            Self::FewSources => Kind::FewSources,
            Self::ManySources => Kind::ManySources,
            Self::Scan => Kind::Scan,
            Self::Slow => Kind::Slow,
        }
    }
}

/// An attack.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    pub(crate) form: Form,
    pub(crate) begins: f64,
    pub(crate) ends: f64,
    /// Packets a second; of [`Form::Slow`], connections a second.
    pub(crate) rate: f64,
    /// Whether the service speaks UDP only, so that requests are datagrams.
    pub(crate) datagrams: bool,
    pub(crate) seed: u64,
    /// Connections that are held.
    held: f64,
}

impl Attack {
    pub(crate) fn new(form: Form, begins: f64, lasts: f64, rate: f64, datagrams: bool, seed: u64) -> Self {
        Self {
            form,
            begins,
            ends: begins + lasts,
            rate,
            datagrams,
            seed,
            held: 0.0,
        }
    }

    fn host(&self, number: u64) -> Host {
        // A botnet of one is always the same.
        let alone = Botnet {
            seed: mix(self.seed ^ number),
            hosts: 1,
        };
        let (source, network) = alone.draw(&mut Random::new(0));
        Host {
            source,
            network,
            ttl: 45 + (mix(number ^ self.seed) % 10) as u8,
            timestamps: true,
        }
    }

    /// An interval of it; how many sources came that had not come in this minute, roughly.
    pub(crate) fn step(
        &mut self,
        random: &mut Random,
        at: f64,
        seconds: f64,
        port: u16,
        tally: &mut Tally,
    ) -> f64 {
        if at < self.begins - 1e-6 || at >= self.ends - 1e-6 {
            return 0.0;
        }
        let sent = random.poisson(self.rate * seconds);
        let botnet = |hosts: u64| Botnet {
            seed: self.seed,
            hosts,
        };
        // Within a minute a host of a botnet sends many packets, of which one is the first.
        let firsts = |hosts: f64| hosts * (1.0 - (-sent / hosts).exp()) * (seconds / 60.0).max(0.2);
        match self.form {
            Form::SynSpoofed => {
                let shape = Shape {
                    source_port: Port::Any,
                    ..Shape::tcp(SYN, port, one(60, 60))
                };
                tally.add(random, sent, shape, Senders::Spoofed(246));
                tally.seen.syn_ack += sent;
                sent
            }
            Form::SynBotnet => {
                let from = Senders::Botnet(botnet(8_000));
                tally.add(random, sent, Shape::tcp(SYN, port, one(74, 74)), from);
                tally.seen.syn_ack += sent;
                firsts(8_000.0)
            }
            Form::UdpSpoofed => {
                let shape = Shape {
                    source_port: Port::Any,
                    destination_port: Port::Any,
                    ..Shape::udp(port, one(1_042, 1_066))
                };
                tally.add(random, sent, shape, Senders::Spoofed(118));
                sent
            }
            Form::UdpBotnet => {
                let shape = Shape::udp(port, one(554, 554));
                tally.add(random, sent, shape, Senders::Botnet(botnet(3_000)));
                firsts(3_000.0)
            }
            Form::Ntp | Form::Dns | Form::Snmp | Form::Cldap | Form::MixedReflection => {
                let vectors: &[Vector] = match self.form {
                    Form::Ntp => &[NTP],
                    Form::Dns => &[DNS],
                    Form::Snmp => &[SNMP],
                    Form::Cldap => &[CLDAP],
                    _ => &[NTP, DNS, SNMP, CLDAP],
                };
                let from = Senders::Reflectors(botnet(4_000));
                let weights = [1.0; 4];
                random
                    .clone()
                    .distribute(sent, &weights[..vectors.len()], |which, part| {
                        vectors[which].add(random, part, from, tally);
                    });
                firsts(4_000.0)
            }
            Form::FewSources => {
                let mut each = [0.0; 5];
                random.distribute(sent, &[1.0, 0.9, 1.1, 0.8, 1.2], |host, part| each[host] = part);
                for (number, part) in each.into_iter().enumerate() {
                    let from = Senders::Host(self.host(number as u64));
                    self.ask(random, part, port, from, 10.0, tally);
                }
                5.0 * seconds / 60.0
            }
            Form::ManySources => {
                let from = Senders::Botnet(botnet(10_000));
                self.ask(random, sent, port, from, 4.0, tally);
                firsts(10_000.0)
            }
            Form::Scan => {
                let half = random.binomial(sent, 0.5);
                let shape = Shape {
                    destination_port: Port::Any,
                    ..Shape::tcp(SYN, port, one(60, 60))
                };
                for (number, part) in [half, sent - half].into_iter().enumerate() {
                    tally.add(random, part, shape, Senders::Host(self.host(number as u64)));
                }
                2.0 * seconds / 60.0
            }
            Form::Slow => {
                let from = Senders::Botnet(botnet(150));
                tally.add(random, sent, Shape::tcp(SYN, port, one(74, 74)), from);
                tally.seen.syn_ack += sent;
                tally.seen.first_ack += sent;
                tally.add(random, sent, Shape::tcp(ACK, port, one(66, 66)), from);
                tally.add(random, sent, Shape::tcp(ACK | PSH, port, one(560, 620)), from);
                self.held += sent;
                // A line of a header every ten seconds.
                let lines = random.poisson(self.held * seconds / 10.0);
                tally.add(random, lines, Shape::tcp(ACK | PSH, port, one(100, 120)), from);
                firsts(150.0)
            }
        }
    }

    /// Requests, as a program sends them: all alike.
    fn ask(
        &self,
        random: &mut Random,
        packets: f64,
        port: u16,
        from: Senders,
        requests: f64,
        tally: &mut Tally,
    ) {
        if self.datagrams {
            tally.add(random, packets, Shape::udp(port, one(76, 84)), from);
        } else {
            conversations(random, tally, port, packets, from, requests, false);
        }
    }
}

/// A service that amplifies.
#[derive(Clone, Copy, Debug)]
struct Vector {
    port: u16,
    /// Lengths of answers, or of their first fragments.
    lengths: [(u16, u16, f64); 4],
    /// Later fragments for each.
    fragments: f64,
    fragment_lengths: [(u16, u16, f64); 4],
}

const NTP: Vector = Vector {
    port: 123,
    lengths: one(482, 482),
    fragments: 0.0,
    fragment_lengths: one(60, 60),
};
const DNS: Vector = Vector {
    port: 53,
    lengths: two((1_514, 1_514, 0.8), (520, 900, 0.2)),
    fragments: 1.6,
    fragment_lengths: two((1_514, 1_514, 0.6), (600, 1_020, 0.4)),
};
const SNMP: Vector = Vector {
    port: 161,
    lengths: two((70, 128, 0.6), (1_100, 1_500, 0.4)),
    fragments: 0.3,
    fragment_lengths: one(600, 1_000),
};
const CLDAP: Vector = Vector {
    port: 389,
    lengths: one(1_514, 1_514),
    fragments: 1.0,
    fragment_lengths: one(1_200, 1_500),
};

impl Vector {
    fn add(&self, random: &mut Random, packets: f64, from: Senders, tally: &mut Tally) {
        let later = random.binomial(packets, self.fragments / (1.0 + self.fragments));
        let shape = Shape {
            source_port: Port::Fixed(self.port),
            destination_port: Port::Any,
            ..Shape::udp(0, self.lengths)
        };
        tally.add(random, packets - later, shape, from);
        let shape = Shape {
            source_port: Port::None,
            destination_port: Port::None,
            ..Shape::udp(0, self.fragment_lengths)
        };
        tally.add(random, later, shape, from);
    }
}
