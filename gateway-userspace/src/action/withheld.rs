//! Why nothing is done.

use std::fmt;

/// Why a step is not taken, in the words of an event and of `weir status`.
#[derive(Clone, Debug, PartialEq)]
pub enum Withheld {
    /// Too little is known of normal traffic to say whom a step would hit.
    Unknown,
    /// The mildest step would hit more than may be.
    Impact {
        /// The step: `limits at 80 %`.
        step: String,
        /// The share of normal sources that it may hit, 0 to 1.
        share: f64,
        /// What the policy allows, 0 to 1.
        budget: f64,
    },
    /// Even the strongest step would not touch those who carry the attack.
    Untouched {
        /// The scale, in per cent.
        percent: u32,
        /// What the heaviest of them sends, in packets a second.
        heaviest: f64,
    },
    /// The service has no limit that a scale could tighten.
    NoLimit,
    /// Nobody who carries it may be banned.
    Nobody(Reasons),
    /// The operator has pulled a lever of this service.
    Lever(&'static str),
    /// A policy waits for confirmation.
    Pending,
    /// It was tried, and refused.
    Failed(String),
}

/// How many carriers may not be banned, and why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reasons {
    /// Single sources of a kind of attack whose packets prove nothing about who sent them.
    pub forgeable: u32,
    /// Sources without a completed handshake.
    pub unproven: u32,
    /// Protected, trusted, or many clients behind an address.
    pub spared: u32,
    /// They are banned already, though not by this step.
    pub banned: u32,
    /// A ban would hit more normal sources than may be.
    pub costly: u32,
    /// There are `max_bans` already.
    pub beyond: u32,
    /// A ban would cut off somebody who is guarded, or do nothing.
    pub refused: u32,
}

impl Withheld {
    /// A word for it, the same for as long as the reason is the same.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Impact { .. } => "impact",
            Self::Untouched { .. } => "untouched",
            Self::NoLimit => "no_limit",
            Self::Nobody(_) => "nobody",
            Self::Lever(_) => "lever",
            Self::Pending => "pending",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("too little is known of normal traffic to say whom a step would hit")
            }
            Self::Impact { step, share, budget } => write!(
                f,
                "{step} would hit up to {} of normal sources, and max_impact allows {}",
                percent(*share),
                percent(*budget)
            ),
            Self::Untouched {
                percent: scale,
                heaviest,
            } => write!(
                f,
                "even limits at {scale} % would touch none of those who carry it: the heaviest sends {heaviest:.0} packets/s"
            ),
            Self::NoLimit => f.write_str("the service has no limit to tighten"),
            Self::Nobody(reasons) => write!(f, "nobody who carries it may be banned: {reasons}"),
            Self::Lever(lever) => write!(
                f,
                "{lever} of this service is in force, which an operator has pulled"
            ),
            Self::Pending => {
                f.write_str("a policy waits for confirmation, and no lever may be pulled until then")
            }
            Self::Failed(why) => write!(f, "it was tried and refused: {why}"),
        }
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = [
            (
                self.forgeable,
                "of a kind that anybody's address can be written into",
            ),
            (self.unproven, "without a completed handshake"),
            (self.spared, "protected, trusted or behind a proxy"),
            (self.banned, "banned already"),
            (self.costly, "with too many normal sources"),
            (self.beyond, "beyond max_bans"),
            (self.refused, "refused"),
        ];
        let told: Vec<String> = told
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        if told.is_empty() {
            return f.write_str("no source or network stands out");
        }
        f.write_str(&told.join(", "))
    }
}

/// A share in per cent, with two figures that count: `0.76 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 {
        format!("{percent:.0} %")
    } else if percent >= 1.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.2} %")
    }
}
