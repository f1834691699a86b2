//! Telling what a judgement looked at, in the order of judgement, with the policy's lines.

mod buckets;
mod source;

use std::net::IpAddr;

use gateway_core::{
    image::{flags, subject_flags},
    line::{Blocked, Strike},
    packet::{Fragment, Packet, UNTAGGED},
    proof::Standing,
    verdict::{Reason, Verdict},
    wire::ipv4,
};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{Explained, Seen, question::protocol_name};
use crate::{
    api::explain::{BucketStep, Step},
    controller::backend::Moment,
    kernel::Lever,
    policy::{
        model::{Class, DefaultAction, Mode, Policy, PortRange, Protocol, Service},
        places::{Place, Places},
        units,
    },
};

/// What the controller knows of a judgement besides what the maps say.
#[derive(Clone, Debug)]
pub struct Background {
    /// The policy in force.
    pub policy: Policy,
    /// Its text.
    pub text: String,
    /// The file that it came from.
    pub path: String,
    /// The longest prefix of each list that covers the source.
    pub listed: Vec<(String, IpNet)>,
    /// The ban that holds the source for longest.
    pub ban: Option<Banned>,
    /// The levers in force.
    pub levers: Vec<Lever>,
    /// What is to be said of a scale that an automatic step set.
    pub automatic: Option<String>,
    /// The moment of the judgement on both clocks.
    pub moment: Moment,
}

/// A ban that covers a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Banned {
    /// The prefix.
    pub prefix: IpNet,
    /// When it ends; `None`: when it is taken back.
    pub until: Option<Timestamp>,
    /// Why, as whoever made it said.
    pub reason: Option<String>,
}

/// The steps of a judgement, and where the policy says what decided.
pub fn tell(packet: &Packet, explained: &Explained, known: &Background) -> (Vec<Step>, Option<Place>) {
    let policy = &known.policy;
    let service = policy
        .services
        .iter()
        .find(|service| service.name == explained.service);
    let mut teller = Teller {
        packet,
        explained,
        known,
        places: Places::of(&known.text, &known.path),
        service,
        class: service.and_then(|service| service.classes.iter().find(|class| class.name == explained.class)),
        steps: Vec::new(),
        decided: None,
    };
    teller.all();
    (teller.steps, teller.decided)
}

struct Teller<'a> {
    packet: &'a Packet,
    explained: &'a Explained,
    known: &'a Background,
    places: Places<'a>,
    service: Option<&'a Service>,
    class: Option<&'a Class>,
    steps: Vec<Step>,
    decided: Option<Place>,
}

impl Teller<'_> {
    fn step(&mut self, step: &str, what: String, key: &[&str]) {
        self.step_with(step, what, key, None);
    }

    fn step_with(&mut self, step: &str, what: String, key: &[&str], bucket: Option<BucketStep>) {
        let policy = if key.is_empty() {
            None
        } else {
            self.places.of_key(key)
        };
        self.steps.push(Step {
            step: step.to_owned(),
            what,
            policy,
            bucket,
        });
    }

    /// The last step is the one that decides.
    fn decides(&mut self) {
        self.decided = self.steps.last().and_then(|step| step.policy.clone());
    }

    fn reason(&self) -> Reason {
        self.explained.judgement.reason
    }

    fn source(&self) -> IpAddr {
        crate::compile::prefix::address(self.v6(), &self.packet.source)
    }

    fn destination(&self) -> IpAddr {
        crate::compile::prefix::address(self.v6(), &self.packet.destination)
    }

    fn v6(&self) -> bool {
        matches!(self.packet.network, gateway_core::packet::Network::V6)
    }

    fn all(&mut self) {
        self.scope();
        if self.reason() == Reason::OutOfScope {
            return;
        }
        self.its_service();
        self.lists();
        self.its_class();
        self.levers();
        if self.protect() || self.ban() || self.shut_out() || self.bypass() {
            return self.mode();
        }
        if self.explained.subject.flags & subject_flags::DEFAULT != 0 {
            self.without_service();
        } else {
            self.trusted();
            self.share();
            self.buckets();
        }
        self.mode();
    }

    fn scope(&mut self) {
        let generation = &self.explained.generation;
        let out = self.reason() == Reason::OutOfScope;
        let vlan_out = self.explained.seen.contains(&Seen::Vlan(false)) || self.packet.vlan == UNTAGGED;
        if generation.flags & flags::SCOPE_VLANS != 0 {
            let (who, verb) = match self.packet.vlan {
                UNTAGGED => ("an untagged frame".to_owned(), "is"),
                vlan => (format!("VLAN {vlan}"), "is"),
            };
            let not = if vlan_out { " not" } else { "" };
            self.step(
                "scope",
                format!("{who} {verb}{not} in scope"),
                &["scope", "vlans"],
            );
            if out && vlan_out {
                return self.decides();
            }
        }
        if generation.flags & flags::SCOPE_ADDRESSES != 0 {
            let not = if out { " not" } else { "" };
            let what = format!("destination {} is{not} in scope", self.destination());
            self.step("scope", what, &["scope", "addresses"]);
            if out {
                self.decides();
            }
        }
    }

    /// Which service, and why.
    fn its_service(&mut self) {
        let packet = self.packet;
        let mut asked = protocol_name(packet.protocol, self.v6());
        let ported = matches!(packet.protocol, ipv4::TCP | ipv4::UDP) && packet.fragment != Fragment::Later;
        if ported {
            asked = format!("{asked} port {}", packet.destination_port);
        } else if packet.fragment == Fragment::Later {
            asked = format!("a later fragment of {asked}");
        }
        let destination = self.destination();
        let Some(service) = self.service else {
            let what = format!("none takes {asked} at {destination}: the default judges it");
            return self.step("service", what, &["default"]);
        };
        let mut why = Vec::new();
        let network = service.addresses.iter().filter(|net| net.contains(&destination));
        if let Some(net) = network.max_by_key(|net| net.prefix_len()) {
            why.push(format!("destination in {net}"));
        }
        if ported && let Some(range) = range_of(&service.ports, packet.destination_port) {
            why.push(format!("port {range}"));
        }
        if ported && let Some(range) = range_of(&service.source_ports, packet.source_port) {
            why.push(format!("source port {range}"));
        }
        let protocols: Vec<&str> = service
            .protocols
            .iter()
            .map(|protocol| protocol_word(*protocol))
            .collect();
        why.push(format!("protocol {}", protocols.join(", ")));
        let name = &service.name;
        let what = format!("{name} ({}) takes {asked} at {destination}", why.join("; "));
        self.step("service", what, &["service", name]);
    }

    /// Which class of it.
    fn its_class(&mut self) {
        let Some(service) = self.service else { return };
        if let Some(class) = self.class {
            let of: Vec<&str> = class
                .lists
                .iter()
                .filter(|list| self.known.listed.iter().any(|(name, _)| name == *list))
                .map(String::as_str)
                .collect();
            let what = format!("{}: the source is in {}", class.name, of.join(", "));
            self.step("class", what, &["service", &service.name, "class", &class.name]);
        }
    }

    fn levers(&mut self) {
        if let Some(until_ns) = self.explained.scaled_until_ns {
            let percent = self.known.levers.iter().rev().find_map(|lever| match lever {
                Lever::Scale { service, percent, .. } if *service == self.explained.service => Some(*percent),
                _ => None,
            });
            let by = percent.map_or_else(String::new, |percent| format!(" to {percent} %"));
            let automatic = self.known.automatic.as_ref();
            let automatic = automatic.map_or_else(String::new, |automatic| format!(": {automatic}"));
            let what = format!(
                "its limits are scaled{by} until {}{automatic}",
                self.wall(until_ns)
            );
            self.step("lever", what, &[]);
        }
    }

    fn wall(&self, ns: u64) -> String {
        format!("{:.0}", self.known.moment.wall_at(ns))
    }

    fn bypass(&mut self) -> bool {
        if self.reason() != Reason::Bypass {
            return false;
        }
        let (node, service) = (
            self.explained.generation.bypass_until_ns,
            self.explained.subject.bypass_until_ns,
        );
        let until = self.wall(node.max(service));
        let what = format!("the lever is pulled until {until}: no limit holds");
        self.step("bypass", what, &[]);
        self.decides();
        true
    }

    fn without_service(&mut self) {
        let generation = self.explained.generation.flags;
        let dropping = self.known.policy.default.action == DefaultAction::Drop;
        if generation & flags::ESSENTIAL != 0 {
            let is = self.reason() == Reason::Essential;
            let what = if is {
                "what a network needs to work passes"
            } else {
                "it is none of what a network needs to work"
            };
            if is || dropping {
                self.step("essential", what.to_owned(), &["default", "essential"]);
            }
            if is {
                return self.decides();
            }
        }
        let socket = self.explained.seen.iter().find_map(|seen| match seen {
            Seen::Socket(answers) => Some(*answers),
            _ => None,
        });
        if let Some(answers) = socket {
            let table = if self.packet.protocol == ipv4::UDP {
                "udp"
            } else {
                "tcp"
            };
            let what = match (self.packet.protocol, answers) {
                (ipv4::TCP | ipv4::UDP, true) => {
                    format!("it answers a socket of this host (/proc/net/{table}, {table}6)")
                }
                (ipv4::TCP | ipv4::UDP, false) => {
                    format!(
                        "no connected socket of this host is between these ends (/proc/net/{table}, {table}6)"
                    )
                }
                _ => "only TCP and UDP answer sockets".to_owned(),
            };
            self.step("reply", what, &["default", "replies"]);
            if answers {
                return self.decides();
            }
        }
        let action = if self.reason() == Reason::DefaultDrop {
            "drop"
        } else {
            "pass"
        };
        let what = format!("what no service takes is to {action}");
        self.step("default", what, &["default", "action"]);
        self.decides();
    }

    fn share(&mut self) {
        if let (Some(enforced), Some(service)) = (self.explained.enforced, self.service) {
            let share = units::format_share(service.enforce_share_ppm);
            let what = if enforced {
                format!("the source is among the {share} that are enforced")
            } else {
                format!("the source is not among the {share} that are enforced: it is only counted")
            };
            self.step(
                "enforce_share",
                what,
                &["service", &service.name, "enforce_share"],
            );
        }
    }

    /// Handshakes, blocks and buckets, as they come.
    fn buckets(&mut self) {
        for at in 0..self.explained.seen.len() {
            match self.explained.seen[at].clone() {
                Seen::Answer(true) => {
                    let what = "it completes a handshake that was seen on its way: the source is proven";
                    self.step("handshake", what.to_owned(), &[]);
                }
                Seen::Block { blocked, until_ns } => self.block(blocked, until_ns),
                Seen::Standing(standing) => {
                    let what = match standing {
                        Standing::Stranger => "the source has shown nothing for itself: a stranger",
                        Standing::Retry => "the source asks again for a connection that it was refused",
                        Standing::Proven => "the source is proven: it has completed a handshake",
                    };
                    self.step("standing", what.to_owned(), &[]);
                }
                Seen::Bucket(met) => self.bucket(&met, self.explained.limits[at]),
                Seen::Strike(strike) => {
                    let what = match strike {
                        Strike::Started => "this drop would start the block",
                        Strike::Counted | Strike::Lost => "this drop would count towards the block",
                    };
                    let key = self.own_key("per_source", "block");
                    self.step("strike", what.to_owned(), &as_key(&key));
                }
                _ => {}
            }
        }
    }

    fn block(&mut self, blocked: Blocked, until_ns: u64) {
        let until = if until_ns == 0 {
            String::new()
        } else {
            format!(" until {}", self.wall(until_ns))
        };
        let what = match blocked {
            Blocked::Nothing => "the source is not blocked".to_owned(),
            Blocked::Connections if self.packet.connection => {
                format!("new connections of the source are blocked{until}")
            }
            Blocked::Connections => format!("new connections of the source are blocked{until}; this is none"),
            Blocked::Whole => format!("the source is blocked{until}"),
        };
        let key = self.own_key("per_source", "block");
        self.step("block", what, &as_key(&key));
        if self.reason() == Reason::Block {
            self.decides();
        }
    }

    /// The way to a key of a tier: in the class, if one judges.
    fn own_key(&self, tier: &str, key: &str) -> Vec<String> {
        let mut path = vec!["service".to_owned(), self.explained.service.clone()];
        if let Some(class) = self.class {
            path.extend(["class".to_owned(), class.name.clone()]);
        }
        path.extend([tier.to_owned(), key.to_owned()]);
        path
    }

    /// What became of a drop that is only counted.
    fn mode(&mut self) {
        if self.explained.judgement.verdict != Verdict::WouldDrop {
            return;
        }
        let counted = "what would be dropped is only counted, and passes";
        if self.known.policy.mode == Mode::Monitor {
            return self.step(
                "mode",
                format!("the whole node only watches: {counted}"),
                &["mode"],
            );
        }
        if self.explained.opened {
            let what = format!("no controller had reported for too long: {counted}");
            return self.step("mode", what, &["controller", "on_loss"]);
        }
        let Some(service) = self.service else { return };
        if service.mode == Mode::Monitor {
            let what = format!("{} only watches: {counted}", service.name);
            self.step("mode", what, &["service", &service.name, "mode"]);
        } else if let Some(class) = self.class.filter(|class| class.mode == Mode::Monitor) {
            let what = format!("class {} only watches: {counted}", class.name);
            self.step(
                "mode",
                what,
                &["service", &service.name, "class", &class.name, "mode"],
            );
        }
    }
}

fn as_key(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// The range of a service's ports that has a port, as the policy writes it.
fn range_of(ranges: &[PortRange], port: u16) -> Option<String> {
    let range = ranges
        .iter()
        .find(|range| (range.first..=range.last).contains(&port))?;
    Some(if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    })
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Any => "any",
    }
}
