//! What would happen to a packet: the kernel's answer, and what the books know about it.

use ipnet::IpNet;

use super::{backend::Moment, engine::Engine};
use crate::{
    api::{
        error::Failure,
        explain::{ExplainAnswer, ExplainQuery, ExplainedBy, ExplainedPacket},
        types::SCHEMA,
    },
    explain::{
        Explained, Seen,
        question::{flag_names, protocol_name},
        story::{self, Background, Banned},
    },
};
use gateway_core::{
    packet::{Fragment, Packet, UNTAGGED},
    proof::Standing,
    wire::{ipv4, ipv6},
};

/// What the engine has found; [`Finding::answer`] makes words of it, which takes a parse of the policy and no engine.
pub struct Finding {
    query: ExplainQuery,
    packet: Packet,
    explained: Explained,
    background: Background,
    revision: u64,
    remarks: Vec<String>,
}

impl Engine {
    /// `GET /v1/explain`.
    pub fn explain(&mut self, query: ExplainQuery) -> Result<Finding, Failure> {
        let packet = query
            .packet()
            .map_err(|error| Failure::invalid(error.to_string()))?;
        self.look_after_pins();
        let mut remarks = Vec::new();
        let attached: Vec<String> = self
            .backend
            .attachments()?
            .into_iter()
            .map(|attachment| attachment.interface)
            .collect();
        if let Some(interface) = &query.interface
            && !attached.contains(interface)
        {
            let names = if attached.is_empty() {
                "nothing".to_owned()
            } else {
                attached.join(", ")
            };
            return Err(Failure::not_found(format!(
                "weir is not attached to {interface}, so it judges no packet there"
            ))
            .hint(format!("it is attached to: {names}")));
        }
        if attached.is_empty() {
            remarks.push("weir is attached to no interface: no packet is judged at all".to_owned());
        }
        let moment = self.clock.now();
        let explained = self.backend.explain(&packet, moment.ns)?;
        self.remark(&query, &packet, &explained, moment, &mut remarks);
        let in_force = &self.in_force;
        let background = Background {
            policy: in_force.prepared.policy.clone(),
            text: in_force.prepared.text.clone(),
            path: in_force.prepared.path.clone(),
            listed: self.listed(&query, &explained),
            ban: self.banned(&query, &explained, moment),
            levers: self.backend.levers()?,
            automatic: self.automatic(&explained.service),
            moment,
        };
        Ok(Finding {
            revision: in_force.revision,
            query,
            packet,
            explained,
            background,
            remarks,
        })
    }

    fn remark(
        &self,
        query: &ExplainQuery,
        packet: &Packet,
        explained: &Explained,
        moment: Moment,
        remarks: &mut Vec<String>,
    ) {
        let ported = matches!(packet.protocol, ipv4::TCP | ipv4::UDP) && packet.fragment != Fragment::Later;
        if ported && query.dport.is_none() {
            remarks.push("no dport was given: port 0 stands for one that no service names".to_owned());
        }
        if let Some(waiting) = &self.waiting {
            remarks.push(format!(
                "policy revision {} waits for confirmation; revision {} is in force again from {:.0} on",
                self.in_force.revision,
                waiting.before.revision,
                moment.wall_at(waiting.until_ns)
            ));
        }
        let stranger = Seen::Standing(Standing::Stranger);
        if packet.connection && packet.protocol == ipv4::TCP && explained.seen.contains(&stranger) {
            remarks.push(
                "this SYN is taken for a first one; one that was refused and comes again has more room"
                    .to_owned(),
            );
        }
    }

    /// The longest prefix that covers the source in each list that the kernel found it in.
    fn listed(&self, query: &ExplainQuery, explained: &Explained) -> Vec<(String, IpNet)> {
        let bits = explained.seen.iter().find_map(|seen| match seen {
            Seen::Lists(entry) => Some(entry.mask()),
            _ => None,
        });
        let lists = self.in_force.prepared.policy.lists.iter().enumerate();
        lists
            .filter(|(at, _)| bits.unwrap_or(0) >> at & 1 == 1)
            .filter_map(|(_, list)| {
                let base = self.in_force.prepared.base.get(&list.name)?;
                let longest = |content: &[IpNet]| {
                    let covering = content.iter().filter(|net| net.contains(&query.src));
                    covering.max_by_key(|net| net.prefix_len()).copied()
                };
                let net = match self.lists.overlay(&list.name) {
                    Some(overlay) => longest(&overlay.content(base)),
                    None => longest(base),
                };
                Some((list.name.clone(), net?))
            })
            .collect()
    }

    fn banned(&self, query: &ExplainQuery, explained: &Explained, moment: Moment) -> Option<Banned> {
        let scope = (explained.subject.service != 0).then(|| explained.service.clone());
        let (prefix, _, record) = self.bans.covering(&IpNet::from(query.src), &scope)?;
        (record.until_ns > moment.ns).then(|| Banned {
            prefix,
            until: record.until,
            reason: record.reason.clone(),
        })
    }
}

impl Finding {
    /// The answer in words.
    pub fn answer(self) -> ExplainAnswer {
        let Self {
            query,
            packet,
            explained,
            background,
            revision,
            remarks,
        } = self;
        let (steps, decided_by) = story::tell(&packet, &explained, &background);
        let judgement = explained.judgement;
        ExplainAnswer {
            schema: SCHEMA,
            at: background.moment.wall,
            packet: show(&query, &packet),
            policy: ExplainedBy {
                revision,
                path: background.path,
                mode: background.policy.mode,
            },
            verdict: judgement.verdict.name().to_owned(),
            reason: judgement.reason.name().to_owned(),
            service: explained.service,
            class: explained.class,
            decided_by,
            steps,
            remarks,
        }
    }
}

/// The packet in words.
fn show(query: &ExplainQuery, packet: &Packet) -> ExplainedPacket {
    let whole = packet.fragment != Fragment::Later;
    let ported = whole && matches!(packet.protocol, ipv4::TCP | ipv4::UDP);
    let icmp = whole && matches!(packet.protocol, ipv4::ICMP | ipv6::ICMPV6);
    ExplainedPacket {
        src: query.src,
        dst: query.dst,
        proto: protocol_name(packet.protocol, query.src.is_ipv6()),
        sport: ported.then_some(packet.source_port),
        dport: ported.then_some(packet.destination_port),
        flags: (whole && packet.protocol == ipv4::TCP).then(|| flag_names(packet.tcp_flags)),
        icmp_type: icmp.then_some(packet.icmp_type),
        len: packet.length,
        vlan: (packet.vlan != UNTAGGED).then_some(packet.vlan),
        fragment: query.fragment,
        connection: packet.connection,
    }
}
