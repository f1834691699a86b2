//! Who is watched under a policy, and how.

use std::sync::Arc;

use gateway_detect::Settings;

use super::{Lengths, Roster, Watched};
use crate::{
    compile::DEFAULT,
    policy::model::{Policy, Service},
};

impl Roster {
    /// Who is watched under a policy.
    pub fn of(key: String, policy: &Policy) -> Self {
        let sensitivity = policy.anomaly.sensitivity;
        let source = (policy.source.ipv4_prefix, policy.source.ipv6_prefix);
        let settings = |source_ports| Settings {
            sensitivity: sensitivity.per_second(),
            source_ports,
        };
        let watched = |service: &Service| Watched {
            service: Arc::from(service.name.as_str()),
            settings: settings(
                service
                    .source_ports
                    .iter()
                    .map(|range| range.first..=range.last)
                    .collect(),
            ),
            network: match service.per_network {
                Some(tier) => (tier.ipv4_prefix, tier.ipv6_prefix),
                None => networks(source),
            },
        };
        let services = policy.services.iter();
        let services = services.filter(|service| service.profile && service.anomaly);
        let rest = policy.default.profile.then(|| Watched {
            service: Arc::from(DEFAULT),
            settings: settings(Vec::new()),
            network: networks(source),
        });
        Self {
            enabled: policy.anomaly.enabled,
            sensitivity: sensitivity.to_string(),
            sampled: policy.sampling.one_in != 0,
            source,
            services: if policy.anomaly.enabled {
                services.map(watched).chain(rest).collect()
            } else {
                Vec::new()
            },
            key,
        }
    }
}

/// Networks as they are cut where nobody says otherwise; one is never smaller than a source.
fn networks(source: Lengths) -> Lengths {
    let (v4, v6) = crate::traffic::Cut::default().network;
    (v4.min(source.0), v6.min(source.1))
}
