//! Families and series of Prometheus' text format.

use prometheus::proto::{
    Bucket, Counter as ProtoCounter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(pairs.collect());
    metric
}

pub(super) fn gauge(value: u64, labels: &[(&str, &str)]) -> Metric {
    real(value as f64, labels)
}

/// A gauge that is no whole number.
pub(super) fn real(value: f64, labels: &[(&str, &str)]) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn counter_of(value: u64, labels: &[(&str, &str)]) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = ProtoCounter::default();
    // Exact up to 2^53: at a hundred million packets a second, nearly three years.
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

/// A histogram from counts that are not cumulative: `bounds` are the upper bounds of all but the last, which has none.
pub(super) fn histogram(
    counts: &[u64],
    bounds: impl Iterator<Item = f64>,
    sum: f64,
    labels: &[(&str, &str)],
) -> Metric {
    let mut metric = labelled(labels);
    let mut histogram = Histogram::default();
    let mut below = 0;
    let buckets = bounds.zip(counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    metric.set_histogram(histogram);
    metric
}
