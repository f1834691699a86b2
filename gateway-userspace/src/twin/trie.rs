//! Longest-prefix match in memory: a table for each prefix length, asked from the longest down.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use gateway_core::packet::Address;
use ipnet::IpNet;

use crate::compile::prefix;

/// Values by prefix.
#[derive(Debug)]
pub(super) struct Trie<V> {
    /// By family and length.
    tables: [BTreeMap<u8, HashMap<IpAddr, V>>; 2],
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            tables: [BTreeMap::new(), BTreeMap::new()],
        }
    }
}

impl<V: Copy> Trie<V> {
    /// Sets a prefix's value.
    pub(super) fn insert(&mut self, net: IpNet, value: V) {
        let family = usize::from(net.addr().is_ipv6());
        self.tables[family]
            .entry(net.prefix_len())
            .or_default()
            .insert(net.network(), value);
    }

    /// The value of the longest prefix that covers an address.
    pub(super) fn get(&self, v6: bool, address: &Address) -> Option<V> {
        let address = prefix::address(v6, address);
        self.tables[usize::from(v6)]
            .iter()
            .rev()
            .find_map(|(length, table)| {
                let network = IpNet::new(address, *length).ok()?.network();
                table.get(&network).copied()
            })
    }
}

impl<V: Copy> FromIterator<(IpNet, V)> for Trie<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(entries: I) -> Self {
        let mut trie = Self::default();
        for (net, value) in entries {
            trie.insert(net, value);
        }
        trie
    }
}
