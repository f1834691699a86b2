//! Who of those that carry an attack is banned.

use gateway_detect::{Finding, Kind};
use ipnet::IpNet;

use super::{Remembered, Spared, Withheld, percent, withheld::Reasons};
use crate::policy::model::{OnAttack, Source};

/// What is known of possible culprits.
pub struct Suspects<'a> {
    /// What one source is.
    pub source: &'a Source,
    /// Whom no ban may touch.
    pub spared: &'a Spared,
    /// Whether a source has completed a handshake lately.
    pub proven: &'a dyn Fn(&IpNet) -> bool,
    /// Whether a ban that is not of this step covers a prefix.
    pub banned: &'a dyn Fn(&IpNet) -> bool,
    /// What this step has banned already.
    pub ours: &'a [IpNet],
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub struct BanPlan {
    /// Whom to ban besides those who are; may be nobody.
    pub prefixes: Vec<IpNet>,
    /// The share of normal sources that all bans of the step together hit at most, 0 to 1.
    pub share: f64,
    /// Who is not banned, and why.
    pub left_out: Reasons,
}

impl BanPlan {
    /// Why these and no others.
    pub fn why(&self, budget: f64) -> String {
        let taken = format!(
            "at most {} of normal sources are hit, max_impact is {}",
            percent(self.share),
            percent(budget)
        );
        if self.left_out == Reasons::default() {
            taken
        } else {
            format!("{taken}; left out: {}", self.left_out)
        }
    }
}

/// Whether the packets of an attack show who sent them: those of a SYN flood, of other datagrams and of answers that nobody
/// asked for do not, even where the address in them is that of somebody proven.
fn attributable(kind: Option<Kind>) -> bool {
    match kind {
        Some(Kind::FewSources | Kind::ManySources | Kind::Scan | Kind::Slow) => true,
        Some(Kind::SynFlood | Kind::UdpFlood | Kind::Reflection) | None => false,
    }
}

/// The carriers that may be banned, the heaviest first, as long as no more normal sources are hit than the policy allows.
pub fn ban<R: Remembered>(
    settings: &OnAttack,
    suspects: &Suspects<'_>,
    finding: &Finding,
    normal: &R,
) -> Result<BanPlan, Withheld> {
    let budget = f64::from(settings.max_impact_ppm) / 1e6;
    let mut all = suspects.ours.to_vec();
    let mut share = normal.within(&all).ok_or(Withheld::Unknown)?;
    let (mut prefixes, mut left_out) = (Vec::new(), Reasons::default());
    let mut dearest: Option<f64> = None;
    for carrier in &finding.carriers {
        let prefix = carrier.prefix.trunc();
        if all.iter().any(|held| held.contains(&prefix)) {
            continue;
        }
        let network = is_network(&prefix, suspects.source);
        let count = if suspects.spared.touches(&prefix) {
            &mut left_out.spared
        } else if (suspects.banned)(&prefix) {
            &mut left_out.banned
        } else if !network && !attributable(finding.verdict.kind()) {
            &mut left_out.forgeable
        } else if !network && !(suspects.proven)(&prefix) {
            &mut left_out.unproven
        } else if all.len() >= settings.max_bans as usize {
            &mut left_out.beyond
        } else {
            all.push(prefix);
            let with = normal.within(&all).ok_or(Withheld::Unknown)?;
            if with <= budget {
                share = with;
                prefixes.push(prefix);
                continue;
            }
            all.pop();
            dearest = Some(dearest.map_or(with, |least: f64| least.min(with)));
            &mut left_out.costly
        };
        *count += 1;
    }
    if all.is_empty() {
        return Err(match dearest {
            Some(share) => Withheld::Impact {
                step: "the mildest ban".to_owned(),
                share,
                budget,
            },
            None => Withheld::Nobody(left_out),
        });
    }
    Ok(BanPlan {
        prefixes,
        share,
        left_out,
    })
}

/// Whether a prefix is more than one source.
fn is_network(prefix: &IpNet, source: &Source) -> bool {
    match prefix {
        IpNet::V4(net) => net.prefix_len() < source.ipv4_prefix,
        IpNet::V6(net) => net.prefix_len() < source.ipv6_prefix,
    }
}
