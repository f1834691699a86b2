//! What is said of a service.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    composition::Distance,
    features::{Feature, Features},
};

/// The kinds of attack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SYNs whose handshakes nobody completes.
    SynFlood,
    /// UDP, from ports that do not reflect.
    UdpFlood,
    /// Answers that nobody asked for: UDP from ports of services that amplify, or the fragments of such.
    Reflection,
    /// A few sources carry it.
    FewSources,
    /// Many sources carry it, none much.
    ManySources,
    /// Many ports are asked for.
    Scan,
    /// Connections that are held and little used.
    Slow,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SynFlood,
        Self::UdpFlood,
        Self::Reflection,
        Self::FewSources,
        Self::ManySources,
        Self::Scan,
        Self::Slow,
    ];

    /// Its name, as in labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynFlood => "syn_flood",
            Self::UdpFlood => "udp_flood",
            Self::Reflection => "reflection",
            Self::FewSources => "few_sources",
            Self::ManySources => "many_sources",
            Self::Scan => "scan",
            Self::Slow => "slow",
        }
    }

    /// Whether it says only how many carry it.
    pub const fn is_vague(self) -> bool {
        matches!(self, Self::ManySources | Self::FewSources)
    }

    /// Whether it is an attack at any strength that is one at all.
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::SynFlood | Self::Reflection | Self::Scan)
    }
}

/// What is said of a service.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too little is known to tell the usual from the unusual; floods that need no baseline are told from the first second.
    #[default]
    Learning,
    /// Nothing unusual.
    Quiet,
    /// Much, of the usual kind.
    Crowd,
    /// Unusual in kind, and much of it.
    Attack(Kind),
    /// Unusual in kind, and little of it.
    Stealth,
}

impl Verdict {
    /// Its name, as in labels and JSON: an attack's kind is told apart.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Quiet => "quiet",
            Self::Crowd => "crowd",
            Self::Attack(_) => "attack",
            Self::Stealth => "stealth",
        }
    }

    /// The kind of attack.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Attack(kind) => Some(kind),
            _ => None,
        }
    }

    /// Whether it is something that an operator is told of.
    pub const fn anomalous(self) -> bool {
        matches!(self, Self::Crowd | Self::Attack(_) | Self::Stealth)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "attack ({})", kind.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// A feature that speaks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speaking {
    /// The feature's name.
    pub feature: &'static str,
    /// What it is.
    pub value: f64,
    /// What it usually is.
    pub expected: f64,
    /// How much of the composition's score is its doing, 0 to 1.
    pub share: f64,
}

impl Speaking {
    /// The features that make the distance, the loudest first.
    pub fn all(features: &Features, distance: &Distance) -> Vec<Self> {
        let all: f64 = distance.parts.iter().map(|part| part.max(0.0)).sum();
        let mut speaking: Vec<Self> = Feature::ALL
            .into_iter()
            .zip(features)
            .zip(distance.parts)
            .filter_map(|((feature, measured), part)| {
                Some(Self {
                    feature: feature.name(),
                    value: measured.value?,
                    expected: measured.expected?,
                    share: part.max(0.0) / all.max(1e-9),
                })
            })
            .filter(|speaking| speaking.share >= 0.05)
            .collect();
        speaking.sort_by(|a, b| b.share.total_cmp(&a.share));
        speaking
    }
}

/// A source or a network that carries it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Carrier {
    /// Who.
    pub prefix: IpNet,
    /// Estimated packets a second.
    pub packets_per_second: f64,
    /// Of the packets that are beyond the usual, 0 to 1.
    pub share: f64,
}

/// What is found of a service now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Since when, in seconds since 1970.
    pub since: f64,
    /// When it was last looked at.
    pub at: f64,
    /// How unusual the volume is: 1 is what happens as often as `sensitivity` says, more is rarer. See [`crate::tail`].
    pub volume_score: f64,
    /// How unusual the composition is, on the same scale.
    pub composition_score: f64,
    /// Packets a second now.
    pub packets_per_second: f64,
    /// Packets a second that are usual at this time.
    pub expected_packets_per_second: f64,
    /// Packets a second that are not of the usual kind.
    pub foreign_packets_per_second: f64,
    /// The features that speak, the loudest first; every feature's value is in [`crate::Detector::features`].
    pub features: Vec<Speaking>,
    /// Who carries it, the heaviest first; empty unless anomalous.
    pub carriers: Vec<Carrier>,
    /// How much of what is needed was learned, 0 to 1.
    pub learned: f64,
}

/// What a look changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// An anomaly began, or is of another kind now.
    Began,
    /// It is over; what it was.
    Ended(Verdict),
}
