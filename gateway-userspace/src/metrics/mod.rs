//! `/metrics`: Prometheus' text format, from one reading of everything.
//!
//! Cardinality is bounded by the policy: interfaces × (services and classes) × verdict and reason, and only series that
//! are not zero; what a service's traffic looks like has series of its own for [`MOST`] services ([`Series`]).

mod anomaly;
mod profile;
mod proto;
mod series;

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{MetricFamily, MetricType},
};

use self::proto::{counter_of, family, gauge};
pub use self::{
    anomaly::{Active, Anomalies, Scored},
    profile::Profiled,
    series::{MOST, OTHER, Series},
};
use crate::kernel::{Attachment, Counter, Losses, SourceSlots, XdpMode};

/// One list's gauges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListGauge {
    /// Its name.
    pub list: String,
    /// Prefixes in force.
    pub prefixes: u64,
    /// Seconds since its content last changed.
    pub age_seconds: u64,
}

/// Everything that `/metrics` shows, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The packet counters.
    pub counters: Vec<Counter>,
    /// The attached interfaces.
    pub attachments: Vec<Attachment>,
    /// 1 while the policy in force waits for confirmation, else 0.
    pub pending: u64,
    /// Levers in force.
    pub levers: u64,
    /// The policy's lists.
    pub lists: Vec<ListGauge>,
    /// How full the source table is.
    pub slots: SourceSlots,
    /// What was lost.
    pub losses: Losses,
    /// Events above the rate, which were only counted.
    pub lost_events: u64,
    /// Bans in force.
    pub bans: u64,
    /// The policy's revision.
    pub revision: u64,
    /// SHA-256 of the policy in force, in hexadecimal.
    pub sha256: String,
    /// Datagrams of samples that did not reach the collector.
    pub lost_exports: u64,
    /// Messages of the webhook that were not delivered.
    pub lost_webhooks: u64,
    /// What the services' traffic looks like.
    pub profiles: Vec<Profiled>,
    /// What departs from the usual.
    pub anomalies: Anomalies,
}

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Writes the text.
pub fn render(observed: &Observed) -> Result<String, prometheus::Error> {
    let families: Vec<MetricFamily> = families(observed)
        .into_iter()
        .filter(|f| !f.get_metric().is_empty())
        .collect();
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

fn families(observed: &Observed) -> Vec<MetricFamily> {
    let mut families = traffic(observed);
    families.extend(control(observed));
    families.extend(table(observed));
    families.extend(profile::families(&observed.profiles));
    families.extend(anomaly::families(&observed.anomalies));
    families
}

/// What was judged, and where.
fn traffic(observed: &Observed) -> Vec<MetricFamily> {
    let series = |count: fn(&Counter) -> u64| {
        let counted = observed.counters.iter().filter(move |counter| count(counter) > 0);
        counted
            .map(move |counter| counter_of(count(counter), &packet_labels(counter)))
            .collect()
    };
    let attached = observed
        .attachments
        .iter()
        .filter(|attachment| attachment.ifindex != 0);
    let attached = attached.map(|a| gauge(1, &[("interface", &a.interface), ("xdp_mode", mode(a.xdp_mode))]));
    vec![
        family(
            "weir_packets_total",
            "Packets judged.",
            MetricType::COUNTER,
            series(|counter| counter.packets),
        ),
        family(
            "weir_bytes_total",
            "Bytes judged, from the Ethernet header on.",
            MetricType::COUNTER,
            series(|counter| counter.bytes),
        ),
        family(
            "weir_attached",
            "Interfaces under enforcement.",
            MetricType::GAUGE,
            attached.collect(),
        ),
    ]
}

/// What the operator put in force.
fn control(observed: &Observed) -> Vec<MetricFamily> {
    let single = |name, help, value| family(name, help, MetricType::GAUGE, vec![gauge(value, &[])]);
    let per_list = |value: fn(&ListGauge) -> u64| {
        observed
            .lists
            .iter()
            .map(move |list| gauge(value(list), &[("list", &list.list)]))
            .collect()
    };
    let policy = [
        ("revision", &*observed.revision.to_string()),
        ("sha256", &observed.sha256),
    ];
    vec![
        single(
            "weir_policy_pending",
            "1 while the policy in force waits for confirmation.",
            observed.pending,
        ),
        single("weir_lever_active", "Emergency levers in force.", observed.levers),
        family(
            "weir_list_prefixes",
            "Prefixes in a list.",
            MetricType::GAUGE,
            per_list(|list| list.prefixes),
        ),
        family(
            "weir_list_age_seconds",
            "Time since a list's content last changed.",
            MetricType::GAUGE,
            per_list(|list| list.age_seconds),
        ),
        single("weir_bans", "Bans in force.", observed.bans),
        family(
            "weir_policy_info",
            "The policy in force.",
            MetricType::GAUGE,
            vec![gauge(1, &policy)],
        ),
    ]
}

/// How full the source table is, and what was lost.
fn table(observed: &Observed) -> Vec<MetricFamily> {
    let Observed { slots, losses, .. } = observed;
    vec![
        family(
            "weir_source_slots",
            "Slots of the source table.",
            MetricType::GAUGE,
            vec![
                gauge(slots.in_debt, &[("state", "in_debt")]),
                gauge(slots.free, &[("state", "free")]),
            ],
        ),
        family(
            "weir_source_overflow_total",
            "Packets judged by a shared overflow bucket.",
            MetricType::COUNTER,
            vec![counter_of(losses.overflow, &[])],
        ),
        family(
            "weir_samples_total",
            "Samples of packets that were taken.",
            MetricType::COUNTER,
            vec![counter_of(losses.sampled, &[])],
        ),
        family(
            "weir_samples_suppressed_total",
            "Samples over the cap of [sampling] max_per_second, which were not taken.",
            MetricType::COUNTER,
            vec![counter_of(losses.sample_suppressed, &[])],
        ),
        family(
            "weir_lost_total",
            "What was lost: packets refused because every try at a bucket lost its race, packets not counted, notices of blocks and samples that did not fit their ring, events above the rate, sFlow datagrams that could not be sent, and messages of the webhook that were not delivered.",
            MetricType::COUNTER,
            vec![
                counter_of(losses.lost_race, &[("what", "lost_race")]),
                counter_of(losses.uncounted, &[("what", "uncounted")]),
                counter_of(losses.notice, &[("what", "notice")]),
                counter_of(observed.lost_events, &[("what", "event")]),
                counter_of(losses.sample, &[("what", "sample")]),
                counter_of(observed.lost_exports, &[("what", "sflow")]),
                counter_of(observed.lost_webhooks, &[("what", "webhook")]),
            ],
        ),
    ]
}

fn packet_labels(counter: &Counter) -> [(&'static str, &str); 5] {
    [
        ("interface", &counter.interface),
        ("service", &counter.service),
        ("class", &counter.class),
        ("verdict", counter.verdict),
        ("reason", counter.reason),
    ]
}

fn mode(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(verdict: &'static str, reason: &'static str, packets: u64) -> Counter {
        Counter {
            interface: "eth0".into(),
            service: "storefront".into(),
            class: String::new(),
            verdict,
            reason,
            packets,
            bytes: packets * 64,
        }
    }

    #[test]
    fn names_and_labels_are_the_designs() {
        let observed = Observed {
            counters: vec![
                counter("drop", "source_packets", 9_007_199_254_740_991),
                counter("pass", "pass", 0),
            ],
            attachments: vec![Attachment {
                interface: "eth0".into(),
                ifindex: 2,
                xdp_mode: XdpMode::Native,
                fallback: None,
                reused: false,
                renamed: None,
            }],
            pending: 1,
            levers: 1,
            lists: vec![ListGauge {
                list: "blocklist".into(),
                prefixes: 3,
                age_seconds: 7,
            }],
            slots: SourceSlots { in_debt: 5, free: 95 },
            losses: Losses {
                overflow: 1,
                lost_race: 2,
                uncounted: 0,
                notice: 3,
                sample: 5,
                sampled: 8,
                sample_suppressed: 6,
            },
            lost_events: 4,
            bans: 4,
            revision: 12,
            sha256: "ab".into(),
            profiles: Vec::new(),
            anomalies: Anomalies::default(),
            lost_exports: 7,
            lost_webhooks: 8,
        };
        let text = render(&observed).unwrap();
        for line in [
            r#"weir_packets_total{interface="eth0",service="storefront",class="",verdict="drop",reason="source_packets"} 9007199254740991"#,
            r#"weir_attached{interface="eth0",xdp_mode="native"} 1"#,
            "weir_policy_pending 1",
            "weir_lever_active 1",
            r#"weir_list_prefixes{list="blocklist"} 3"#,
            r#"weir_list_age_seconds{list="blocklist"} 7"#,
            r#"weir_source_slots{state="in_debt"} 5"#,
            r#"weir_source_slots{state="free"} 95"#,
            "weir_source_overflow_total 1",
            "weir_samples_total 8",
            "weir_samples_suppressed_total 6",
            "weir_bans 4",
            r#"weir_policy_info{revision="12",sha256="ab"} 1"#,
            r#"weir_lost_total{what="lost_race"} 2"#,
            r#"weir_lost_total{what="uncounted"} 0"#,
            r#"weir_lost_total{what="notice"} 3"#,
            r#"weir_lost_total{what="event"} 4"#,
            r#"weir_lost_total{what="sample"} 5"#,
            "# TYPE weir_packets_total counter",
            "# TYPE weir_bans gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(text.contains("weir_bytes_total{"));
        assert!(
            !text.contains(r#"reason="pass""#),
            "a series that is zero is left out:\n{text}"
        );
    }

    #[test]
    fn families_without_series_are_left_out() {
        let text = render(&Observed::default()).unwrap();
        assert!(
            !text.contains("weir_packets_total") && !text.contains("weir_list_prefixes"),
            "{text}"
        );
    }
}
