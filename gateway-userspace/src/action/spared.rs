//! Whom no automatic ban may touch.

use ipnet::IpNet;

use crate::{
    kernel::ListContents,
    policy::model::{ListAction, Policy},
};

/// The prefixes of `[[protect]]`, of lists that are trusted, and of those with many clients behind each address.
#[derive(Clone, Debug, Default)]
pub struct Spared {
    /// Sorted: by family, address, length.
    prefixes: Vec<IpNet>,
}

impl Spared {
    /// What a policy with these contents of its lists spares.
    pub fn of(policy: &Policy, contents: &ListContents) -> Self {
        let spared =
            |list: &&crate::policy::model::List| list.proxy || list.action == Some(ListAction::Trust);
        let listed = policy.lists.iter().filter(spared);
        let listed = listed.filter_map(|list| contents.get(&list.name)).flatten();
        let protected = policy.protect.iter().flat_map(|rule| &rule.sources);
        listed.chain(protected).copied().collect()
    }

    /// Whether any address of a prefix is spared.
    pub fn touches(&self, prefix: &IpNet) -> bool {
        let around = (0..=prefix.prefix_len()).filter_map(|length| IpNet::new(prefix.addr(), length).ok());
        let mut around = around.map(|net| net.trunc());
        if around.any(|net| self.prefixes.binary_search(&net).is_ok()) {
            return true;
        }
        // Those within it stand behind it.
        let next = self.prefixes.partition_point(|held| held < prefix);
        self.prefixes.get(next).is_some_and(|held| prefix.contains(held))
    }
}

impl FromIterator<IpNet> for Spared {
    fn from_iter<T: IntoIterator<Item = IpNet>>(prefixes: T) -> Self {
        let mut prefixes: Vec<IpNet> = prefixes.into_iter().map(|net| net.trunc()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { prefixes }
    }
}
