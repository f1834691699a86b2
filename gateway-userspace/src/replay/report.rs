//! What a replay found, as it is shown and as JSON: keys are the policy's keys and the metrics' labels.

use std::collections::BTreeMap;

use gateway_core::verdict::{Reason, Verdict};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    LONGEST_FRAME, Replay, STEP_NS, Side,
    compare::{self, Comparison},
    detect::{self, Detected, Detection},
    tally::{Count, SourceCounts, SourceKey},
    timeline::Timeline,
};
use crate::{
    api::types::{SCHEMA, Volume},
    policy::model::Mode,
};

/// How many intervals are shown where nobody has chosen their length: as many as fit a screen.
const INTERVALS: usize = 15;
/// With fewer samples, little is known of who sends.
const FEW_SAMPLES: u64 = 1_000;

/// By what sources are ordered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum By {
    /// Packets.
    #[default]
    Packets,
    /// Bytes.
    Bytes,
    /// Packets that were dropped, or would have been.
    Dropped,
}

/// A policy that judged.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PolicyUsed {
    /// Its file.
    pub path: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The mode of the whole node, as it judged.
    pub mode: Mode,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Verdicts {
    /// What passed.
    pub pass: Volume,
    /// What was dropped.
    pub drop: Volume,
    /// What would have been dropped, and passed (`mode = "monitor"`, `enforce_share`).
    pub would_drop: Volume,
}

impl Verdicts {
    fn new(counts: [Count; 3]) -> Self {
        let [pass, drop, would_drop] = counts.map(volume);
        Self {
            pass,
            drop,
            would_drop,
        }
    }

    /// All packets.
    pub fn packets(&self) -> u64 {
        self.pass.packets + self.drop.packets + self.would_drop.packets
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.pass.bytes + self.drop.bytes + self.would_drop.bytes
    }
}

/// Packets of one verdict and reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct ReasonCount {
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// What became of the packets of a service, or of a class of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ServiceReplayed {
    /// The service; `default` for none.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// By verdict.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// By verdict and reason.
    pub reasons: Vec<ReasonCount>,
}

/// What became of the packets of one interval.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct IntervalReplayed {
    /// When it begins.
    pub from: Timestamp,
    /// By verdict.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// What was dropped, or would have been, by reason.
    pub reasons: Vec<ReasonCount>,
    /// By service, those that received anything.
    pub services: BTreeMap<String, Verdicts>,
}

/// What became of the packets of a source.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SourceReplayed {
    /// The source, as the policy cuts it.
    pub source: IpNet,
    /// By verdict.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// Packets that were dropped, or would have been, by reason.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// What one of two policies said.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Said {
    /// The service; `default` for none.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// Packets of which the two policies said different things.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// What the policy said.
    pub policy: Said,
    /// What the other said.
    pub against: Said,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// A source that the two policies treat differently.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SourceDifference {
    /// The source, as the first policy cuts it.
    pub source: IpNet,
    /// Packets with another verdict.
    pub packets: u64,
    /// Of these, by verdict: `drop instead of pass` means that the policy drops what the other passes.
    pub changes: BTreeMap<String, u64>,
}

/// What another policy did with the same packets.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Against {
    /// The other policy.
    pub policy: PolicyUsed,
    /// What became of the packets under it.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// The same by service and class.
    pub services: Vec<ServiceReplayed>,
    /// Of so much both said the same.
    pub same: Volume,
    /// Where they differ: another verdict first, and then the most packets.
    pub differences: Vec<Difference>,
    /// Differences that were too many kinds to be told apart.
    pub other_differences: Volume,
    /// The sources with the most packets whose verdict differs.
    pub sources: Vec<SourceDifference>,
    /// The most packets that a source's figures here may lack.
    pub sources_error: u64,
}

/// What the capture's clock did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ClockReport {
    /// Packets with a time before that of a packet that came earlier: judged at that one's.
    pub backwards: u64,
    /// By how much, at most.
    pub furthest_back_seconds: f64,
    /// How often it was set back: the replay went on from where it stood.
    pub steps: u64,
    /// Packets without a time: judged at that of the packet before.
    pub untimed: u64,
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The version of this object.
    pub schema: u32,
    /// The policy that judged.
    pub policy: PolicyUsed,
    /// The captures, in the order in which they were read.
    pub captures: Vec<String>,
    /// False where a capture could not be read to its end.
    pub complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first packet's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The last moment of the replay's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Between the two.
    pub seconds: f64,
    /// Packets that were read.
    pub packets: u64,
    /// Packets that left the capturing host: not judged.
    pub left: Volume,
    /// Packets that were cut off within their headers by the capture's snap length: not judged.
    pub headers_cut: Volume,
    /// UDP packets that were cut off before it could be told whether they ask for a QUIC connection: judged as if not.
    pub quic_unknown: u64,
    /// Frames that no link carries: the capturing host had joined several.
    pub joined: u64,
    /// The clock.
    pub clock: ClockReport,
    /// What became of the packets that were judged.
    #[serde(flatten)]
    pub verdicts: Verdicts,
    /// Blocks that began.
    pub blocks: u64,
    /// Packets judged by a shared overflow bucket.
    pub overflow: u64,
    /// By service and class, in the order of the policy; those that received anything.
    pub services: Vec<ServiceReplayed>,
    /// The length of the intervals.
    pub interval_seconds: f64,
    /// Over time.
    pub intervals: Vec<IntervalReplayed>,
    /// The heaviest sources, first the heaviest.
    pub sources: Vec<SourceReplayed>,
    /// The most packets that a source's figures may lack.
    pub sources_error: u64,
    /// What another policy did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// What the detectors said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection: Option<Detected>,
    /// What to know about these figures.
    pub notes: Vec<String>,
}

/// What a report is to say besides what was counted.
#[derive(Clone, Debug)]
pub struct Heading {
    /// The policy that judged.
    pub policy: PolicyUsed,
    /// The policy it is compared with.
    pub against: Option<PolicyUsed>,
    /// The captures.
    pub captures: Vec<String>,
    /// Why a capture could not be read to its end.
    pub error: Option<String>,
    /// By what sources are ordered.
    pub by: By,
    /// How many sources at most.
    pub limit: usize,
}

impl Replay {
    /// What was found so far.
    pub fn report(&self, heading: Heading) -> Report {
        let (odd, clock) = (&self.odd, &self.clock);
        let verdicts = total(&self.policy.tally.timeline);
        let timeline = self.policy.tally.timeline.readable(INTERVALS);
        let (blocks, overflow) = self.events();
        let moment = |ns: u64| Timestamp::from_nanosecond(i128::from(ns)).ok();
        let from = clock.first_ns.and_then(moment);
        let mut report = Report {
            schema: SCHEMA,
            policy: heading.policy,
            captures: heading.captures,
            complete: heading.error.is_none(),
            error: heading.error,
            from,
            to: from.and_then(|_| moment(clock.now_ns)),
            seconds: clock
                .first_ns
                .map_or(0.0, |first| seconds(clock.now_ns.saturating_sub(first))),
            packets: odd.read,
            left: volume(odd.left),
            headers_cut: volume(odd.cut),
            quic_unknown: odd.quic_unknown,
            joined: odd.joined,
            clock: ClockReport {
                backwards: clock.backwards,
                furthest_back_seconds: seconds(clock.furthest_back_ns),
                steps: clock.steps,
                untimed: clock.untimed,
            },
            verdicts,
            blocks,
            overflow,
            services: services(&self.policy),
            interval_seconds: seconds(timeline.width_ns()),
            intervals: intervals(&timeline, &self.policy.tally.names),
            sources: sources(&self.policy, heading.by, heading.limit),
            sources_error: self.policy.tally.sources.error(),
            against: None,
            detection: self.detection.as_ref().map(Detection::detected),
            notes: Vec::new(),
        };
        if let (Some((side, comparison)), Some(policy)) = (&self.against, heading.against) {
            report.against = Some(Against {
                policy,
                verdicts: total(&side.tally.timeline),
                services: services(side),
                same: volume(comparison.same),
                differences: differences(comparison),
                other_differences: volume(comparison.others),
                sources: source_differences(comparison, heading.limit),
                sources_error: comparison.sources.error(),
            });
        }
        report.notes = self.notes(&report);
        report
    }

    fn notes(&self, report: &Report) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |holds: bool, text: String| {
            if holds {
                notes.push(text);
            }
        };
        note(
            report.headers_cut.packets > 0,
            format!(
                "{} packets were cut off within their headers when they were captured: nobody can say what they were, and they \
                 are not judged; capture with a longer snap length (tcpdump -s 256)",
                report.headers_cut.packets
            ),
        );
        note(
            report.quic_unknown > 0,
            format!(
                "{} UDP packets were cut off before the bytes that tell a QUIC Initial from other UDP: they count as no new \
                 connections",
                report.quic_unknown
            ),
        );
        note(
            report.joined > 0,
            format!(
                "{} frames are longer than {LONGEST_FRAME} bytes: the capturing host had joined several packets to each, which \
                 native XDP sees one by one; packet limits are judged too mildly (capture with GRO and TSO off)",
                report.joined
            ),
        );
        note(
            self.odd.answers > 0,
            format!(
                "{} SYN-ACKs come from ports of this policy's services and were judged as arriving; if the capture holds what \
                 the host sent too, name the host's addresses with --local",
                self.odd.answers
            ),
        );
        note(
            report.clock.backwards > 0,
            format!(
                "{} packets have a time before that of a packet that came earlier, by up to {:.6} s; they were judged at that \
                 one's time, for the kernel's clock never runs backwards",
                report.clock.backwards, report.clock.furthest_back_seconds
            ),
        );
        note(
            report.clock.steps > 0,
            format!(
                "the capture's clock was set back by more than {} s {} times; the replay went on from where it stood",
                STEP_NS / 1_000_000_000,
                report.clock.steps
            ),
        );
        note(
            report.clock.untimed > 0,
            format!(
                "{} packets have no time (simple packet blocks, or after the year 2262); they were judged at that of the packet before",
                report.clock.untimed
            ),
        );
        note(
            report.overflow > 0,
            format!(
                "{} packets were judged by shared overflow buckets: the source table was full where they fell; a larger \
                 source.max_tracked helps",
                report.overflow
            ),
        );
        if let Some(detected) = &report.detection {
            let few = !detected.every_packet && detected.sampled < FEW_SAMPLES;
            note(
                few && detected.sampled < report.packets,
                format!(
                    "the detectors were shown {} of {} packets one by one, as [sampling] says; --every-packet shows them all",
                    detected.sampled, report.packets
                ),
            );
            note(
                detected.pauses > 0,
                format!(
                    "the capture pauses {} times for more than {} s; the detectors were not told that there was nothing for so long",
                    detected.pauses,
                    detect::PAUSE_NS / 1_000_000_000
                ),
            );
        }
        let watched = report.verdicts.would_drop.packets > 0;
        note(
            watched,
            "what would have been dropped passed, for a mode is \"monitor\" or enforce_share spares its source; --enforce judges \
             as if everything were enforced"
                .to_owned(),
        );
        notes
    }
}

fn volume(count: Count) -> Volume {
    Volume {
        packets: count.packets,
        bytes: count.bytes,
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn total(timeline: &Timeline) -> Verdicts {
    let mut sum = [Count::default(); 3];
    for (_, interval) in timeline.intervals() {
        for (sum, more) in sum.iter_mut().zip(interval.verdicts(None)) {
            *sum += more;
        }
    }
    Verdicts::new(sum)
}

fn services(side: &Side) -> Vec<ServiceReplayed> {
    // By the service's place and whether it is a class, so that a service's classes stand behind it.
    let mut services = BTreeMap::<(usize, u32), (ServiceReplayed, [Count; 3])>::new();
    for (subject, verdict, reason, count) in side.tally.counts() {
        let (service, class) = side.owners.get(subject as usize).cloned().unwrap_or_default();
        // The default last, as everywhere.
        let place = side.tally.service(subject).checked_sub(1).unwrap_or(usize::MAX);
        let (entry, counts) = services.entry((place, subject)).or_insert_with(|| {
            let entry = ServiceReplayed {
                service,
                class,
                verdicts: Verdicts::default(),
                reasons: Vec::new(),
            };
            (entry, [Count::default(); 3])
        });
        counts[verdict as usize] += count;
        entry.reasons.push(ReasonCount {
            verdict: verdict.name(),
            reason: reason.name(),
            volume: volume(count),
        });
    }
    let finished = |(mut entry, counts): (ServiceReplayed, [Count; 3])| {
        entry.verdicts = Verdicts::new(counts);
        entry
    };
    services.into_values().map(finished).collect()
}

fn intervals(timeline: &Timeline, names: &[String]) -> Vec<IntervalReplayed> {
    let of = |(from, interval): (u64, &super::timeline::Interval)| {
        let reasons = Reason::ALL
            .iter()
            .zip(&interval.reasons)
            .filter(|(reason, _)| reason.drops());
        let reasons = reasons.flat_map(|(reason, counts)| {
            let verdicts = [Verdict::Drop, Verdict::WouldDrop];
            verdicts
                .into_iter()
                .zip(counts)
                .filter(|(_, count)| count.packets > 0)
                .map(|(verdict, count)| ReasonCount {
                    verdict: verdict.name(),
                    reason: reason.name(),
                    volume: volume(*count),
                })
        });
        let services = names.iter().enumerate().filter_map(|(at, name)| {
            let verdicts = Verdicts::new(interval.verdicts(Some(at)));
            (verdicts.packets() > 0).then(|| (name.clone(), verdicts))
        });
        IntervalReplayed {
            from: Timestamp::from_nanosecond(i128::from(from)).unwrap_or(Timestamp::UNIX_EPOCH),
            verdicts: Verdicts::new(interval.verdicts(None)),
            reasons: reasons.collect(),
            services: services.collect(),
        }
    };
    timeline.intervals().map(of).collect()
}

fn sources(side: &Side, by: By, limit: usize) -> Vec<SourceReplayed> {
    let weight = |counts: &SourceCounts| {
        let [pass, drop, would_drop] = counts.verdicts;
        match by {
            By::Packets => pass.packets + drop.packets + would_drop.packets,
            By::Bytes => pass.bytes + drop.bytes + would_drop.bytes,
            By::Dropped => drop.packets + would_drop.packets,
        }
    };
    let mut sources: Vec<(u64, IpNet, &SourceCounts)> = side
        .tally
        .sources
        .iter()
        .map(|(source, counts)| (weight(counts), source.net(), counts))
        .filter(|(weight, ..)| *weight > 0)
        .collect();
    // Equal ones by address, so that the same replay gives the same answer.
    sources.sort_by(|(a, net_a, _), (b, net_b, _)| b.cmp(a).then(net_a.cmp(net_b)));
    let shown = |(_, source, counts): (u64, IpNet, &SourceCounts)| SourceReplayed {
        source,
        verdicts: Verdicts::new(counts.verdicts),
        reasons: counts
            .reasons
            .iter()
            .map(|(reason, packets)| (reason.name(), *packets))
            .collect(),
    };
    sources.into_iter().take(limit).map(shown).collect()
}

/// The name of a verdict by its number.
fn verdict(number: usize) -> &'static str {
    [Verdict::Pass, Verdict::Drop, Verdict::WouldDrop]
        .get(number)
        .map_or("", |verdict| verdict.name())
}

fn differences(comparison: &Comparison) -> Vec<Difference> {
    let mut different: Vec<_> = comparison.different.iter().collect();
    different
        .sort_by_key(|([a, b], count)| (a.verdict == b.verdict, std::cmp::Reverse(count.packets), *a, *b));
    let said = |side: &compare::Side| {
        let (service, class) = comparison
            .owners
            .get(side.owner as usize)
            .cloned()
            .unwrap_or_default();
        Said {
            service,
            class,
            verdict: verdict(usize::from(side.verdict)),
            reason: Comparison::reason(side.reason),
        }
    };
    let difference = |([policy, against], count): (&[compare::Side; 2], &Count)| Difference {
        policy: said(policy),
        against: said(against),
        volume: volume(*count),
    };
    different.into_iter().map(difference).collect()
}

fn source_differences(comparison: &Comparison, limit: usize) -> Vec<SourceDifference> {
    let packets = |both: &compare::Both| both.iter().flatten().sum::<u64>();
    let mut sources: Vec<(u64, IpNet, &compare::Both)> = comparison
        .sources
        .iter()
        .map(|(source, both): (&SourceKey, _)| (packets(both), source.net(), both))
        .collect();
    sources.sort_by(|(a, net_a, _), (b, net_b, _)| b.cmp(a).then(net_a.cmp(net_b)));
    let shown = |(packets, source, both): (u64, IpNet, &compare::Both)| {
        let pairs = both.iter().enumerate().flat_map(|(policy, others)| {
            others
                .iter()
                .enumerate()
                .filter(|(_, packets)| **packets > 0)
                .map(move |(other, packets)| {
                    (
                        format!("{} instead of {}", verdict(policy), verdict(other)),
                        *packets,
                    )
                })
        });
        SourceDifference {
            source,
            packets,
            changes: pairs.collect(),
        }
    };
    sources.into_iter().take(limit).map(shown).collect()
}
