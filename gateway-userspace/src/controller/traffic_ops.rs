//! What is asked of the traffic: the heaviest sources and flows.

use std::{collections::BTreeMap, sync::Arc};

use gateway_core::verdict::Verdict;
use ipnet::IpNet;

use super::engine::Engine;
use crate::{
    api::{
        error::Failure,
        prefix::parse_prefix,
        traffic::{FlowsAnswer, SourcesAnswer, TrafficQuery},
        types::SCHEMA,
    },
    export::{Counters, Stand},
    policy::model::{Policy, Sflow},
    traffic::{Cut, Query},
};

/// The rows of an answer that does not say how many it wants.
const ROWS: usize = 20;
/// The most rows of one answer.
const MOST_ROWS: usize = 1_000;
/// Rows for which it is also looked up what is left in their buckets.
const WITH_BUCKETS: usize = 100;

impl Engine {
    /// The heaviest sources, or networks.
    pub fn heaviest_sources(&self, asked: &TrafficQuery) -> Result<SourcesAnswer, Failure> {
        let query = self.query_of(asked)?;
        let mut sources = self.traffic.sources(&query);
        for row in &mut sources {
            row.banned = self.is_banned(&row.source);
        }
        if !query.networks {
            for row in sources.iter_mut().take(WITH_BUCKETS) {
                let most = row
                    .services
                    .iter()
                    .max_by(|(_, left), (_, right)| left.total_cmp(right));
                if let Some((service, _)) = most {
                    // A service may have gone since; then there is nothing to show.
                    row.buckets = self.backend.left(row.source.addr(), service).unwrap_or_default();
                }
            }
        }
        Ok(SourcesAnswer {
            schema: SCHEMA,
            span_seconds: self.traffic.span_seconds(),
            one_in: self.one_in(),
            all: self.traffic.all(query.service.as_deref()),
            sources,
        })
    }

    /// The heaviest flows.
    pub fn heaviest_flows(&self, asked: &TrafficQuery) -> Result<FlowsAnswer, Failure> {
        let query = self.query_of(asked)?;
        Ok(FlowsAnswer {
            schema: SCHEMA,
            span_seconds: self.traffic.span_seconds(),
            one_in: self.one_in(),
            flows: self.traffic.flows(&query),
        })
    }

    fn query_of(&self, asked: &TrafficQuery) -> Result<Query, Failure> {
        let limit = asked.limit.unwrap_or(ROWS);
        if !(1..=MOST_ROWS).contains(&limit) {
            return Err(Failure::invalid(format!("limit must be 1 to {MOST_ROWS}")));
        }
        if let Some(service) = asked.service.as_deref().filter(|service| *service != "default") {
            self.need_service(service)?;
        }
        let source = asked
            .source
            .as_deref()
            .map(parse_prefix)
            .transpose()
            .map_err(Failure::invalid)?;
        Ok(Query {
            service: asked.service.clone(),
            source,
            by: asked.by.unwrap_or_default(),
            limit,
            networks: asked.networks.unwrap_or(false),
        })
    }

    /// Whether a ban covers all of a prefix, everywhere.
    fn is_banned(&self, prefix: &IpNet) -> bool {
        self.bans.covering(prefix, &None).is_some()
    }

    /// One packet in so many is sampled now; 0: none, the policy says.
    pub(super) fn one_in(&self) -> u32 {
        match self.in_force.prepared.policy.sampling.one_in {
            0 => 0,
            least => self.traffic.one_in().unwrap_or(least),
        }
    }

    /// Where the policy in force wants samples exported to.
    pub(crate) fn sflow(&self) -> Option<Sflow> {
        self.in_force.prepared.policy.sflow.clone()
    }

    /// How the export of samples stands.
    pub(super) fn export(&self) -> Arc<Stand> {
        Arc::clone(&self.export)
    }

    /// What each interface received, by its index.
    pub(crate) fn interface_counters(&self) -> Result<BTreeMap<u32, Counters>, Failure> {
        let attached = self.backend.attachments()?;
        let index = |name: &str| {
            let attachment = attached.iter().find(|attachment| attachment.interface == name);
            attachment
                .map(|attachment| attachment.ifindex)
                .filter(|index| *index != 0)
        };
        let mut found: BTreeMap<u32, Counters> = BTreeMap::new();
        for counter in self.backend.counters()? {
            let Some(ifindex) = index(&counter.interface) else {
                continue;
            };
            let counters = found.entry(ifindex).or_insert(Counters {
                ifindex,
                ..Counters::default()
            });
            counters.bytes += counter.bytes;
            if counter.verdict == Verdict::Drop.name() {
                counters.dropped += counter.packets;
            } else {
                counters.passed += counter.packets;
            }
        }
        Ok(found)
    }

    /// Tells the tables how the policy in force cuts sources.
    pub(super) fn cut_sources(&self) {
        self.traffic.set_cut(cut(&self.in_force.prepared.policy));
    }
}

/// How a policy cuts sources, and how tables of networks do.
fn cut(policy: &Policy) -> Cut {
    let source = (policy.source.ipv4_prefix, policy.source.ipv6_prefix);
    let Cut { network, .. } = Cut::default();
    Cut {
        source,
        // A network is never smaller than a source.
        network: (network.0.min(source.0), network.1.min(source.1)),
    }
}
