//! From a live policy to the tables that the packet path reads: pure, no kernel needed.
//!
//! [`compile`] fills an [`Image`]; the kernel module copies it into the half that is not in force and switches, and
//! the host twin judges by the same image.

pub mod addresses;
pub mod lists;
pub mod ports;
pub mod prefix;
pub mod registry;

use gateway_core::{
    bucket::{
        cell,
        spec::{Home, Spec},
    },
    image::{
        AddressGroup, DestinationEntry, Generation, KINDS, ListEntry, Open, PROTECT_RULES, ProtectRule,
        SUBJECTS, Subject, TIERS, flags, subject_flags, uses,
    },
    lease,
    line::Block as CoreBlock,
    sample::Rate,
    verdict::Reason,
};
use ipnet::IpNet;

use self::registry::{BucketName, Registry};
use crate::{
    kernel::{Lever, ListContents},
    policy::model::{
        Block, DefaultAction, Essential, Limit, Limits, List, ListAction, Mode, OnLoss, Policy, Protocol,
        Replies, Service,
    },
};

/// The most prefixes of one family in the list tries.
pub const MAX_TRIE: usize = 1_048_576;
/// The name that counts traffic to no service.
pub const DEFAULT: &str = "default";

/// A policy that is valid but does not fit the kernel's tables.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum CompileError {
    #[error("too many {what}: the kernel tables hold {most}")]
    TooMany { what: &'static str, most: u32 },
    #[error("{bucket}: no unit of time fits a rate of {rate} and a burst of {burst}; lower the burst")]
    Unfit { bucket: String, rate: u64, burst: u64 },
    #[error("the prefix {prefix} is nested more than {most} deep in others; merge some of them")]
    TooDeep { prefix: IpNet, most: usize },
    #[error("no service named {0} is in the policy")]
    NoService(String),
}

/// A policy as tables.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Flags and masks; its slots are the kernel module's to fill in.
    pub generation: Generation,
    /// Services by number, then classes and what follows levers.
    pub subjects: Vec<Subject>,
    /// Classes of destination ports.
    pub port_classes: Vec<u64>,
    /// Classes of source ports.
    pub source_ports: Vec<u64>,
    /// Services without addresses by classes.
    pub port_table: Vec<u64>,
    /// Address groups.
    pub groups: Vec<AddressGroup>,
    /// Services with addresses by group and classes.
    pub group_table: Vec<(u64, u32)>,
    /// Destinations.
    pub destinations: Vec<(IpNet, DestinationEntry)>,
    /// Lists and protect rules.
    pub lists: Vec<(IpNet, ListEntry)>,
    /// VLANs in scope.
    pub vlans: Vec<u64>,
    /// Flattened protect rules.
    pub protect: Vec<ProtectRule>,
    /// Services that are gone, by number.
    pub gone: Vec<u32>,
}

/// Compiles a policy. `registry` is changed also when this fails: give it a copy.
pub fn compile(
    policy: &Policy,
    contents: &ListContents,
    levers: &[Lever],
    registry: &mut Registry,
    now_ns: u64,
) -> Result<Image, CompileError> {
    let mut image = Image::default();
    let names: Vec<&str> = policy
        .services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    let (gone, end) = registry.assign_services(&names)?;
    image.gone = gone;
    let numbers: Vec<u32> = names
        .iter()
        .map(|name| registry.service(name).unwrap_or(0))
        .collect();

    let (rules, bits) = flatten(policy);
    if rules.len() > PROTECT_RULES as usize {
        return Err(CompileError::TooMany {
            what: "protect rules (sources by port ranges)",
            most: PROTECT_RULES,
        });
    }
    image.protect = rules;
    image.lists = lists::compile(&policy.lists, contents, &policy.protect, &bits)?;

    let ports = ports::Ports::new(&policy.services)?;
    let addresses = addresses::compile(&policy.services, &numbers, &policy.scope.addresses, &ports)?;
    image.port_table = ports.table(&policy.services, &numbers);
    image.generation.source_port_classes = ports.columns() as u32;
    image.port_classes = ports.destination.words;
    image.source_ports = ports.source.words;
    image.groups = addresses.groups;
    image.group_table = addresses.table;
    image.destinations = addresses.destinations;
    image.vlans = vec![0; 64];
    for vlan in &policy.scope.vlans {
        image.vlans[usize::from(vlan >> 6)] |= 1 << (vlan & 63);
    }

    registry.begin(now_ns);
    let mut builder = Builder {
        policy,
        registry,
        levers,
        now_ns,
        subjects: vec![Subject::default(); end as usize],
    };
    builder.default_subject()?;
    for (service, number) in policy.services.iter().zip(&numbers) {
        builder.service(service, *number)?;
    }
    image.subjects = builder.subjects;
    if image.subjects.len() > SUBJECTS as usize {
        return Err(CompileError::TooMany {
            what: "services and classes",
            most: SUBJECTS - 1,
        });
    }
    registry.finish(now_ns);
    generation(policy, levers, now_ns, &mut image);
    image.generation.patience = registry.patience();
    Ok(image)
}

/// Fills in what the generation says of the whole policy.
fn generation(policy: &Policy, levers: &[Lever], now_ns: u64, image: &mut Image) {
    let mut bits = 0;
    let mut set = |condition: bool, flag: u32| bits |= if condition { flag } else { 0 };
    set(policy.mode == Mode::Monitor, flags::MONITOR);
    set(!image.lists.is_empty(), flags::LISTS);
    set(!image.destinations.is_empty(), flags::DESTINATIONS);
    set(image.groups.len() > 1, flags::ADDRESS_GROUPS);
    set(image.generation.source_port_classes > 1, flags::SOURCE_PORTS);
    set(!policy.scope.vlans.is_empty(), flags::SCOPE_VLANS);
    set(!policy.scope.addresses.is_empty(), flags::SCOPE_ADDRESSES);
    set(policy.default.action == DefaultAction::Drop, flags::DEFAULT_DROP);
    set(policy.default.replies == Replies::Socket, flags::REPLIES);
    set(policy.default.essential == Essential::Pass, flags::ESSENTIAL);
    let used = image
        .subjects
        .iter()
        .fold(0, |used, subject| used | subject.flags);
    let offers = subject_flags::RESERVE | subject_flags::BLOCK;
    set(used & (0b1111 * subject_flags::TIER) != 0, flags::LIMITS);
    set(used & ((0b11 * subject_flags::TIER) | offers) != 0, flags::PROOFS);
    // Handshakes that are completed are part of a profile.
    let handshakes = |service: &Service| service.profile && speaks_tcp(service);
    let offered = used & offers != 0 || policy.services.iter().any(handshakes);
    set(offered, flags::OFFERS);
    set(used & subject_flags::PROFILE != 0, flags::PROFILES);
    set(used & subject_flags::TIME != 0, flags::TIMES);
    for lever in levers {
        if let Lever::Bypass {
            service,
            all,
            until_ns,
        } = lever
            && *until_ns > now_ns
        {
            if service.is_none() {
                image.generation.bypass_until_ns = *until_ns;
            }
            set(*all, flags::BYPASS_ALL);
        }
    }
    set(true, flags::READY);
    set(policy.controller.on_loss == OnLoss::Open, flags::OPENS);
    set(policy.sampling.one_in != 0, flags::SAMPLES);
    let timed = used & subject_flags::TIME != 0;
    let mut shallow = buckets(&image.subjects).map(|(_, _, spec)| spec.needs_exact_clock());
    set(timed || shallow.any(|exact| exact), flags::EXACT_CLOCK);
    if bits & (flags::SOURCE_PORTS | flags::ADDRESS_GROUPS) == 0 {
        bits |= flags::DIRECT_PORTS;
        ports::resolve(&mut image.port_classes, &image.port_table);
    }
    let generation = &mut image.generation;
    generation.flags = bits;
    generation.sample = Rate::new(policy.sampling.one_in, policy.sampling.max_per_second);
    generation.subjects = image.subjects.len() as u32;
    generation.source_v4 = prefix::mask(false, policy.source.ipv4_prefix)[0];
    generation.source_v6 = prefix::mask(true, policy.source.ipv6_prefix);
    generation.uses = uses_of(policy, bits, used, &image.subjects);
}

/// What the packet path must have for a policy, whatever is done about its lists, levers and bans while it is in force.
fn uses_of(policy: &Policy, bits: u32, used: u32, subjects: &[Subject]) -> u64 {
    let mut flags = bits | flags::BYPASS_ALL;
    if !policy.lists.is_empty() || !policy.protect.is_empty() {
        flags |= flags::LISTS;
    }
    buckets(subjects).fold(uses::of(flags, used), |uses, (tier, kind, _)| {
        uses | uses::bucket(tier, kind)
    })
}

/// Every bucket of every subject, with its tier and kind.
fn buckets(subjects: &[Subject]) -> impl Iterator<Item = (usize, usize, &Spec)> {
    subjects
        .iter()
        .flat_map(|subject| subject.buckets.iter().enumerate())
        .flat_map(|(tier, kinds)| {
            kinds
                .iter()
                .enumerate()
                .map(move |(kind, spec)| (tier, kind, spec))
        })
        .filter(|(_, _, spec)| spec.exists())
}

/// Protect rules, one for each range of ports, and for each rule of the policy the bits of its flattened ones.
fn flatten(policy: &Policy) -> (Vec<ProtectRule>, Vec<u64>) {
    let mut rules = Vec::new();
    let mut bits = Vec::new();
    for rule in &policy.protect {
        let first = rules.len();
        let protocol = match rule.protocol {
            Protocol::Any => 0,
            Protocol::Tcp => 1,
            Protocol::Udp => 2,
            Protocol::Icmp => 3,
        };
        let flat = ProtectRule {
            protocol,
            ..ProtectRule::default()
        };
        if rule.ports.is_empty() {
            rules.push(flat);
        }
        rules.extend(rule.ports.iter().map(|range| ProtectRule {
            first: range.first,
            last: range.last,
            ports: 1,
            ..flat
        }));
        bits.push((first..rules.len().min(64)).fold(0u64, |all, at| all | 1 << at));
    }
    (rules, bits)
}

/// Which lists are in a set of names, as bits.
fn list_bits(lists: &[List], names: &[String]) -> u64 {
    lists
        .iter()
        .enumerate()
        .filter(|(_, list)| names.contains(&list.name))
        .fold(0, |all, (at, _)| all | 1 << at)
}

/// What a service or class limits, before numbers and levers.
#[derive(Clone, Copy, Default)]
struct Plan {
    tiers: [Limits; TIERS],
    /// Of the total's bursts, in millionths.
    reserve_ppm: u32,
    block: Option<Block>,
    networks: (u8, u8),
}

/// Fills the subject table.
struct Builder<'a> {
    policy: &'a Policy,
    registry: &'a mut Registry,
    levers: &'a [Lever],
    now_ns: u64,
    subjects: Vec<Subject>,
}

impl Builder<'_> {
    fn default_subject(&mut self) -> Result<(), CompileError> {
        let mut subject = Subject {
            until_ns: u64::MAX,
            flags: subject_flags::DEFAULT | profiled(self.policy.default.profile),
            enforce_share: u32::MAX,
            ..Subject::default()
        };
        let reasons = [
            Reason::Pass,
            Reason::OutOfScope,
            Reason::Protect,
            Reason::Essential,
            Reason::Reply,
            Reason::Bypass,
            Reason::Malformed,
            Reason::Ban,
            Reason::List,
            Reason::DefaultDrop,
        ];
        self.series(&mut subject, DEFAULT, "", &reasons)?;
        self.subjects[0] = subject;
        Ok(())
    }

    fn service(&mut self, service: &Service, number: u32) -> Result<(), CompileError> {
        let own = service.per_source.unwrap_or_default();
        let network = service.per_network;
        let total = service.total.map(|total| total.limits).unwrap_or_default();
        let reserve_ppm = service.total.and_then(|total| total.reserve_ppm).unwrap_or(0);
        let plan = Plan {
            tiers: [
                own.limits,
                network.map(|tier| tier.limits).unwrap_or_default(),
                Limits::default(),
                total,
            ],
            reserve_ppm,
            block: own.block,
            networks: network.map_or((32, 128), |tier| (tier.ipv4_prefix, tier.ipv6_prefix)),
        };
        let enforce_share = share(service.enforce_share_ppm);
        let mut base = Subject {
            until_ns: u64::MAX,
            service: number,
            only: list_bits(&self.policy.lists, &service.only),
            enforce_share,
            flags: looked_at(service)
                | if service.mode == Mode::Monitor {
                    subject_flags::MONITOR
                } else {
                    0
                }
                | if enforce_share == u32::MAX {
                    0
                } else {
                    subject_flags::SHARE
                },
            bypass_until_ns: self.bypass(&service.name),
            ..Subject::default()
        };
        let first_class = self.subjects.len() as u32;
        self.subjects
            .resize(self.subjects.len() + service.classes.len(), Subject::default());
        for (at, class) in service.classes.iter().enumerate() {
            let own = class.per_source.unwrap_or_default();
            let plan = Plan {
                tiers: [
                    own.limits,
                    class.per_network.map(|tier| tier.limits).unwrap_or_default(),
                    class.total.unwrap_or_default(),
                    total,
                ],
                reserve_ppm,
                block: own.block,
                networks: class
                    .per_network
                    .map_or((32, 128), |tier| (tier.ipv4_prefix, tier.ipv6_prefix)),
            };
            let mut subject = base;
            subject.lists = list_bits(&self.policy.lists, &class.lists);
            if class.mode == Mode::Monitor {
                subject.flags |= subject_flags::MONITOR;
            }
            self.place(
                first_class as usize + at,
                subject,
                &service.name,
                &class.name,
                &plan,
            )?;
        }
        if !service.classes.is_empty() {
            base.flags |= subject_flags::CLASSES;
            base.first_class = first_class;
            base.classes = service.classes.len() as u32;
        }
        self.place(number as usize, base, &service.name, "", &plan)
    }

    /// Puts a subject in its place; where a lever scales it, with what follows the lever behind it.
    fn place(
        &mut self,
        at: usize,
        mut subject: Subject,
        service: &str,
        class: &str,
        plan: &Plan,
    ) -> Result<(), CompileError> {
        let scale = self.levers.iter().rev().find_map(|lever| match lever {
            Lever::Scale {
                service: of,
                percent,
                until_ns,
            } if of == service && *until_ns > self.now_ns => Some((*percent, *until_ns)),
            _ => None,
        });
        let unscaled = self.limits(subject, service, class, plan, 100)?;
        match scale {
            None => self.subjects[at] = unscaled,
            Some((percent, until_ns)) => {
                subject = self.limits(subject, service, class, plan, percent)?;
                subject.until_ns = until_ns;
                subject.after = self.subjects.len() as u32;
                self.subjects[at] = subject;
                self.subjects.push(unscaled);
            }
        }
        Ok(())
    }

    /// Fills in buckets, block and series.
    fn limits(
        &mut self,
        mut subject: Subject,
        service: &str,
        class: &str,
        plan: &Plan,
        percent: u32,
    ) -> Result<Subject, CompileError> {
        // Only what can be: every series costs memory on every CPU.
        let mut reasons = vec![Reason::Pass, Reason::Bypass, Reason::Ban];
        let acts = |action| self.policy.lists.iter().any(|list| list.action == Some(action));
        if !self.policy.protect.is_empty() {
            reasons.push(Reason::Protect);
        }
        if subject.only != 0 || acts(ListAction::Drop) {
            reasons.push(Reason::List);
        }
        if acts(ListAction::Trust) {
            reasons.push(Reason::Trust);
        }
        for (tier, limits) in plan.tiers.iter().enumerate() {
            // The total belongs to the service, whatever class the packet is in.
            let owner = if tier == 3 { "" } else { class };
            for (kind, limit) in [limits.packets, limits.bytes, limits.connections]
                .into_iter()
                .enumerate()
            {
                let Some(limit) = limit else { continue };
                let name = bucket_name(service, owner, tier, kind);
                let home = if tier < 2 { Home::Tagged } else { Home::Shared };
                let limit = scaled(limit, percent, kind, home);
                subject.buckets[tier][kind] = self.registry.bucket(&name, home, limit, self.now_ns)?;
                subject.flags |= subject_flags::TIER << tier;
                reasons.push(Reason::of_bucket(tier, kind));
                if tier == 3 && plan.reserve_ppm != 0 {
                    let spec = &mut subject.buckets[tier][kind];
                    let open = open(limit.burst, spec, kind, plan.reserve_ppm);
                    spec.leased = lease::shift(spec.depth, open.stranger);
                    subject.open[kind] = open;
                    subject.flags |= subject_flags::RESERVE;
                    reasons.push(Reason::of_reserve(kind));
                }
            }
        }
        if let Some(block) = plan.block {
            let id = self.registry.block(&bucket_name(service, class, 0, KINDS))?;
            subject.block = CoreBlock {
                id,
                drops: u64::from(block.drops).min(cell::MAX_DROPS) as u32,
                within: (block.within_seconds * 1_000_000_000).div_ceil(1 << cell::STRIKE_SHIFT) as u32,
                reserved: 0,
                for_ns: block.for_seconds * 1_000_000_000,
            };
            subject.flags |= subject_flags::BLOCK;
            reasons.push(Reason::Block);
        }
        subject.network_v4 = prefix::mask(false, plan.networks.0)[0];
        subject.network_v6 = prefix::mask(true, plan.networks.1);
        self.series(&mut subject, service, class, &reasons)?;
        Ok(subject)
    }

    fn series(
        &mut self,
        subject: &mut Subject,
        service: &str,
        class: &str,
        reasons: &[Reason],
    ) -> Result<(), CompileError> {
        for reason in reasons {
            subject.series[*reason as usize] = self.registry.series_of(service, class, *reason)?;
        }
        Ok(())
    }

    fn bypass(&self, service: &str) -> u64 {
        let of = |lever: &Lever| match lever {
            Lever::Bypass {
                service: Some(of),
                until_ns,
                ..
            } if of == service && *until_ns > self.now_ns => Some(*until_ns),
            _ => None,
        };
        self.levers.iter().filter_map(of).max().unwrap_or(0)
    }
}

/// What is counted and timed of a service besides its packets and bytes.
fn looked_at(service: &Service) -> u32 {
    let time = if service.time && service.profile && speaks_tcp(service) {
        subject_flags::TIME
    } else {
        0
    };
    profiled(service.profile) | time
}

fn profiled(wanted: bool) -> u32 {
    if wanted { subject_flags::PROFILE } else { 0 }
}

fn speaks_tcp(service: &Service) -> bool {
    let tcp = |protocol: &Protocol| matches!(protocol, Protocol::Tcp | Protocol::Any);
    service.protocols.iter().any(tcp)
}

/// How deep strangers may charge a total of which a share of the burst is kept for proven sources. Of the rest a quarter
/// is for those who ask again: first SYNs, of which a flood brings any number, leave it alone.
fn open(burst: u64, spec: &Spec, kind: usize, reserve_ppm: u32) -> Open {
    let reserve = (u128::from(burst) * u128::from(reserve_ppm) / 1_000_000) as u64;
    // Never less than a packet, or nobody could come in to prove anything.
    let least = if kind == 1 { LARGEST_FRAME.min(burst) } else { 1 };
    let retry = (burst - reserve.min(burst)).max(least);
    let stranger = (retry - retry / 4).max(least);
    // A shared cell charges a whole number of units for each token, and its depth is the burst times that.
    let units = |tokens: u64| (u64::from(spec.cost) * tokens) >> spec.fraction;
    Open {
        stranger: units(stranger),
        retry: units(retry),
    }
}

/// The largest frame of an ordinary MTU, from the Ethernet header on.
const LARGEST_FRAME: u64 = 1_514;

fn bucket_name(service: &str, class: &str, tier: usize, kind: usize) -> BucketName {
    BucketName {
        service: service.to_owned(),
        class: class.to_owned(),
        tier: tier as u8,
        kind: kind as u8,
    }
}

/// A limit under the scale lever, kept within what cells can hold.
fn scaled(limit: Limit, percent: u32, kind: usize, home: Home) -> Limit {
    if percent == 100 {
        return limit;
    }
    let scale = |value: u64| (u128::from(value) * u128::from(percent) / 100).clamp(1, 1 << 62) as u64;
    let deepest = match (kind, home) {
        (1, Home::Tagged) => 250_000_000,
        (1, Home::Shared) => 1_000_000_000_000,
        (_, Home::Tagged) => 8_000_000,
        (_, Home::Shared) => 1_000_000_000,
    };
    // A byte bucket that no full frame fits into would stop the service instead of tightening it.
    let least = if kind == 1 { LARGEST_FRAME } else { 1 };
    let fastest = if kind == 1 { 50_000_000_000 } else { 100_000_000 };
    Limit {
        rate: scale(limit.rate).min(fastest),
        burst: scale(limit.burst).clamp(least, deepest),
    }
}

/// A share in millionths as the bound below which share numbers are enforced; the highest number means all.
fn share(ppm: u32) -> u32 {
    if ppm >= 1_000_000 {
        return u32::MAX;
    }
    ((u64::from(ppm) << 32) / 1_000_000) as u32
}

#[cfg(test)]
mod tests;
