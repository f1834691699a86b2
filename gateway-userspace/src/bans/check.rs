//! Whether a ban would do anything: management traffic passes before every ban.

use ipnet::IpNet;

use crate::policy::model::{Policy, Protocol};

/// What the policy's `[[protect]]` rules keep from being banned.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Sources that pass whatever they send, merged.
    whole: Vec<IpNet>,
    /// Sources of every rule, also those that only protect some ports.
    any: Vec<IpNet>,
}

/// How much of a prefix is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protected {
    /// All of it: a ban would do nothing.
    Whole(IpNet),
    /// Some of it, or some of its traffic.
    Partly(IpNet),
    /// Nothing.
    No,
}

impl Protection {
    /// Reads the rules of a policy.
    pub fn of(policy: &Policy) -> Self {
        let whole = policy
            .protect
            .iter()
            .filter(|rule| rule.protocol == Protocol::Any && rule.ports.is_empty());
        let whole: Vec<IpNet> = whole.flat_map(|rule| rule.sources.iter().copied()).collect();
        let any = policy
            .protect
            .iter()
            .flat_map(|rule| rule.sources.iter().copied())
            .collect();
        Self {
            whole: IpNet::aggregate(&whole),
            any,
        }
    }

    /// How much of `prefix` is protected, and by which rule's sources.
    pub fn of_prefix(&self, prefix: &IpNet) -> Protected {
        if let Some(rule) = self.whole.iter().find(|rule| rule.contains(prefix)) {
            return Protected::Whole(*rule);
        }
        match self
            .any
            .iter()
            .find(|rule| rule.contains(prefix) || prefix.contains(*rule))
        {
            Some(rule) => Protected::Partly(*rule),
            None => Protected::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ports_make_the_difference_between_all_and_some() {
        let text = "version = 1\n[[protect]]\nsources = [\"10.9.0.0/29\", \"10.9.0.8/29\"]\n\
                    [[protect]]\nsources = [\"10.8.0.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n";
        let policy = crate::policy::parse(text, Path::new("/p.toml")).unwrap().policy;
        let protection = Protection::of(&policy);
        let of = |text: &str| protection.of_prefix(&text.parse().unwrap());
        assert!(
            matches!(of("10.9.0.0/28"), Protected::Whole(_)),
            "two halves make a whole"
        );
        assert!(matches!(of("10.9.0.7/32"), Protected::Whole(_)));
        assert!(matches!(of("10.9.0.0/24"), Protected::Partly(_)));
        assert!(matches!(of("10.8.0.1/32"), Protected::Partly(_)));
        assert_eq!(of("10.7.0.0/24"), Protected::No);
        assert_eq!(of("2001:db8::/32"), Protected::No);
    }
}
