//! What the services' traffic looks like, as series: histograms from the kernel's own counts.

use std::{borrow::Borrow, collections::BTreeMap};

use gateway_core::profile::{SIZES, TIME_COUNTS, TTL_COUNTS, TTL_STEP, time_bound_ns};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{
    proto::{counter_of, family, gauge, histogram},
    series::{OTHER, Series},
};
use crate::kernel::ServiceProfile;

/// A service's profile, or that of all services without series of their own together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Profiled {
    /// The service, or [`OTHER`].
    pub service: String,
    /// Its counts.
    pub profile: ServiceProfile,
    /// Bytes of all its packets.
    pub bytes: u64,
    /// Different sources in the last whole minute.
    pub minute: u64,
    /// Different sources in the last whole ten minutes.
    pub ten_minutes: u64,
}

impl Profiled {
    /// Sums the profiles of services without series of their own; a service without any count has no series at all. The bytes
    /// are `bytes`' by service; the different sources are the caller's to fill in.
    pub fn of(
        profiles: &[impl Borrow<ServiceProfile>],
        series: &Series,
        bytes: &BTreeMap<String, u64>,
    ) -> Vec<Self> {
        let mut found: BTreeMap<&str, Self> = series.names().map(|name| (name, Self::default())).collect();
        for profile in profiles.iter().map(Borrow::borrow) {
            let name = if series.has(&profile.service) {
                &profile.service
            } else {
                OTHER
            };
            let sum = found.entry(name).or_default();
            add(&mut sum.profile, profile);
            sum.bytes += bytes.get(&profile.service).copied().unwrap_or(0);
        }
        let found = found
            .into_iter()
            .filter(|(name, sum)| *name != OTHER || packets(sum) > 0);
        found
            .map(|(name, mut sum)| {
                name.clone_into(&mut sum.service);
                sum
            })
            .collect()
    }
}

fn packets(profiled: &Profiled) -> u64 {
    profiled.profile.sizes.iter().sum()
}

fn add(sum: &mut ServiceProfile, more: &ServiceProfile) {
    sum.syn += more.syn;
    sum.syn_ack += more.syn_ack;
    sum.first_ack += more.first_ack;
    sum.fin += more.fin;
    sum.rst += more.rst;
    sum.handshake_ns += more.handshake_ns;
    sum.first_byte_ns += more.first_byte_ns;
    for (sum, more) in [
        (&mut sum.sizes, &more.sizes),
        (&mut sum.ttls, &more.ttls),
        (&mut sum.handshake, &more.handshake),
        (&mut sum.first_byte, &more.first_byte),
    ] {
        sum.resize(sum.len().max(more.len()), 0);
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
}

/// The families. A histogram that has counted nothing is left out.
pub(super) fn families(profiles: &[Profiled]) -> Vec<MetricFamily> {
    let each = |metric: &dyn Fn(&Profiled) -> Vec<Metric>| profiles.iter().flat_map(metric).collect();
    vec![
        family(
            "weir_tcp_packets_total",
            "TCP packets that open and end connections: syn, fin and rst as they arrive, syn_ack as they leave, first_ack the ACKs that answer them.",
            MetricType::COUNTER,
            each(&tcp),
        ),
        family(
            "weir_frame_bytes",
            "Packets by frame length, from the Ethernet header on.",
            MetricType::HISTOGRAM,
            each(&|profiled| {
                let bounds = SIZES.iter().map(|size| f64::from(*size));
                counted(profiled, &profiled.profile.sizes, bounds, profiled.bytes as f64)
            }),
        ),
        family(
            "weir_ttl",
            "Packets by TTL or hop limit; the sum is from the middles of the buckets.",
            MetricType::HISTOGRAM,
            each(&ttls),
        ),
        family(
            "weir_distinct_sources",
            "Different sources in the last whole window, within 5 %.",
            MetricType::GAUGE,
            each(&distinct),
        ),
        family(
            "weir_handshake_seconds",
            "TCP handshakes by the time from SYN-ACK to ACK.",
            MetricType::HISTOGRAM,
            each(&|profiled| {
                times(
                    profiled,
                    &profiled.profile.handshake,
                    profiled.profile.handshake_ns,
                )
            }),
        ),
        family(
            "weir_first_byte_seconds",
            "First answers by the time since the first request.",
            MetricType::HISTOGRAM,
            each(&|profiled| {
                times(
                    profiled,
                    &profiled.profile.first_byte,
                    profiled.profile.first_byte_ns,
                )
            }),
        ),
    ]
}

fn tcp(profiled: &Profiled) -> Vec<Metric> {
    let ServiceProfile {
        syn,
        syn_ack,
        first_ack,
        fin,
        rst,
        ..
    } = profiled.profile;
    let counts = [
        ("syn", syn),
        ("syn_ack", syn_ack),
        ("first_ack", first_ack),
        ("fin", fin),
        ("rst", rst),
    ];
    if counts.iter().all(|(_, count)| *count == 0) {
        // A service without TCP.
        return Vec::new();
    }
    let labelled = counts
        .map(|(what, count)| counter_of(count, &[("service", profiled.service.as_str()), ("what", what)]));
    labelled.into()
}

fn ttls(profiled: &Profiled) -> Vec<Metric> {
    let counts = &profiled.profile.ttls;
    let bounds = (1..TTL_COUNTS as u32).map(|at| f64::from(at * TTL_STEP - 1));
    let middle = f64::from(TTL_STEP - 1) / 2.0;
    let sum = counts
        .iter()
        .zip(0_u32..)
        .map(|(count, at)| *count as f64 * (f64::from(at * TTL_STEP) + middle))
        .sum();
    counted(profiled, counts, bounds, sum)
}

fn distinct(profiled: &Profiled) -> Vec<Metric> {
    let windows = [("1m", profiled.minute), ("10m", profiled.ten_minutes)];
    let labelled = windows.map(|(window, sources)| {
        gauge(
            sources,
            &[("service", profiled.service.as_str()), ("window", window)],
        )
    });
    labelled.into()
}

fn times(profiled: &Profiled, counts: &[u64], ns: u64) -> Vec<Metric> {
    let bounds = (0..TIME_COUNTS).filter_map(|at| Some(time_bound_ns(at)? as f64 / 1e9));
    counted(profiled, counts, bounds, ns as f64 / 1e9)
}

fn counted(profiled: &Profiled, counts: &[u64], bounds: impl Iterator<Item = f64>, sum: f64) -> Vec<Metric> {
    if counts.iter().all(|count| *count == 0) {
        return Vec::new();
    }
    vec![histogram(
        counts,
        bounds,
        sum,
        &[("service", profiled.service.as_str())],
    )]
}

#[cfg(test)]
mod tests {
    use super::super::{MOST, Observed, render};
    use super::*;

    fn profile(service: &str, packets: u64) -> ServiceProfile {
        let mut profile = ServiceProfile {
            service: service.into(),
            syn: packets,
            syn_ack: 1,
            first_ack: 1,
            sizes: vec![0; SIZES.len() + 1],
            ttls: vec![0; TTL_COUNTS],
            ..ServiceProfile::default()
        };
        profile.sizes[1] = packets;
        profile.sizes[SIZES.len()] = 1;
        profile.ttls[7] = packets + 1;
        profile
    }

    fn text(profiles: Vec<Profiled>) -> String {
        render(&Observed {
            profiles,
            ..Observed::default()
        })
        .unwrap()
    }

    #[test]
    fn histograms_are_the_kernels_counts() {
        let mut web = profile("web", 10);
        web.handshake = vec![0; TIME_COUNTS];
        web.handshake[10] = 3;
        web.handshake[TIME_COUNTS - 1] = 1;
        web.handshake_ns = 9_500_000_000;
        let mut series = Series::default();
        series.admit([&web]);
        let bytes = BTreeMap::from([("web".to_owned(), 12_000)]);
        let mut profiled = Profiled::of(&[web], &series, &bytes);
        profiled[0].minute = 7;
        let text = text(profiled);
        for line in [
            r#"weir_tcp_packets_total{service="web",what="syn"} 10"#,
            r#"weir_tcp_packets_total{service="web",what="rst"} 0"#,
            r#"weir_frame_bytes_bucket{service="web",le="64"} 0"#,
            r#"weir_frame_bytes_bucket{service="web",le="128"} 10"#,
            r#"weir_frame_bytes_bucket{service="web",le="9018"} 10"#,
            r#"weir_frame_bytes_bucket{service="web",le="+Inf"} 11"#,
            r#"weir_frame_bytes_sum{service="web"} 12000"#,
            r#"weir_frame_bytes_count{service="web"} 11"#,
            r#"weir_ttl_bucket{service="web",le="55"} 0"#,
            r#"weir_ttl_bucket{service="web",le="63"} 11"#,
            r#"weir_ttl_sum{service="web"} 654.5"#,
            r#"weir_distinct_sources{service="web",window="1m"} 7"#,
            r#"weir_handshake_seconds_bucket{service="web",le="0.001048576"} 0"#,
            r#"weir_handshake_seconds_bucket{service="web",le="0.002097152"} 3"#,
            r#"weir_handshake_seconds_bucket{service="web",le="+Inf"} 4"#,
            r#"weir_handshake_seconds_sum{service="web"} 9.5"#,
            "# TYPE weir_handshake_seconds histogram",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(
            !text.contains("weir_first_byte_seconds"),
            "nothing was timed:\n{text}"
        );
    }

    #[test]
    fn a_hundred_services_have_series_and_the_others_are_one_for_good() {
        let all: Vec<_> = (0..250).map(|n| profile(&format!("s{n}"), 2)).collect();
        let bytes: BTreeMap<_, _> = all.iter().map(|one| (one.service.clone(), 100)).collect();
        let mut series = Series::default();
        series.admit(&all[100..]);
        series.admit(&all);
        let profiled = Profiled::of(&all, &series, &bytes);
        assert_eq!(profiled.len(), MOST + 1);
        let other = profiled.iter().find(|one| one.service == OTHER).unwrap();
        assert_eq!((other.profile.syn, other.bytes), (300, 15_000));
        assert!(series.has("s100") && !series.has("s0"));
        let lines = text(profiled).lines().count();
        assert!(lines < 101 * 60, "{lines}");
    }
}
