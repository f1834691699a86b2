//! Prefixes in an order in which each comes before all that it covers, and as keys of the kernel's tries.

use std::{cmp::Ordering, net::IpAddr};

use ipnet::IpNet;

/// Orders by family, address, and then the shorter prefix first.
pub fn order(left: &IpNet, right: &IpNet) -> Ordering {
    left.addr()
        .is_ipv6()
        .cmp(&right.addr().is_ipv6())
        .then_with(|| left.network().cmp(&right.network()))
        .then_with(|| left.prefix_len().cmp(&right.prefix_len()))
}

/// An address as packets carry it: words in memory order, IPv4 in the first.
pub fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bytes = v6.octets();
            let word =
                |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            [word(0), word(4), word(8), word(12)]
        }
    }
}

/// The mask of a prefix length, in memory order.
pub fn mask(v6: bool, length: u8) -> [u32; 4] {
    let bits = u32::from(length);
    if v6 {
        words(IpAddr::V6(u128::MAX.checked_shl(128 - bits).unwrap_or(0).into()))
    } else {
        words(IpAddr::V4(u32::MAX.checked_shl(32 - bits).unwrap_or(0).into()))
    }
}

/// An address of a packet.
pub fn address(v6: bool, words: &[u32; 4]) -> IpAddr {
    if v6 {
        let mut bytes = [0; 16];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(bytes.into())
    } else {
        IpAddr::V4(words[0].to_ne_bytes().into())
    }
}
