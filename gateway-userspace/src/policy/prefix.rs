//! Prefixes as operators write them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

/// Why a text is not a prefix. Each message begins with what was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PrefixError {
    /// Not an address, with or without a length.
    #[error("expected an address or a prefix, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48")]
    Form,
    /// The length is beyond the address family's.
    #[error("expected a prefix length from 0 to {0}")]
    Length(u8),
    /// Bits below the length are set.
    #[error("expected no bits set beyond the prefix length: the network is {0}, the single address {1}")]
    HostBits(IpNet, IpAddr),
    /// An IPv4-mapped IPv6 address, which no packet carries.
    #[error("expected no IPv4-mapped IPv6 address: write it as IPv4")]
    Mapped,
}

/// Reads a prefix, or a bare address as a prefix of its full length. The result is canonical.
pub fn parse_prefix(text: &str) -> Result<IpNet, PrefixError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| PrefixError::Form)?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => full,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(PrefixError::Form);
        }
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|&l| l <= full)
            .ok_or(PrefixError::Length(full))?,
    };
    let prefix = IpNet::new(address, length).map_err(|_| PrefixError::Length(full))?;
    if let IpNet::V6(prefix) = prefix
        && is_mapped(prefix)
    {
        return Err(PrefixError::Mapped);
    }
    if prefix.trunc() == prefix {
        Ok(prefix)
    } else {
        Err(PrefixError::HostBits(prefix.trunc(), address))
    }
}

/// Whether every address of the prefix is in `::ffff:0:0/96`.
fn is_mapped(prefix: Ipv6Net) -> bool {
    prefix.prefix_len() >= 96 && prefix.addr().to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_prefixes() {
        for (text, canonical) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8:0::/48", "2001:db8::/48"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(
                parse_prefix(text).map(|p| p.to_string()),
                Ok(canonical.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_prefixes() {
        for text in [
            "",
            "/",
            "/24",
            "1.2.3",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "01.2.3.4",
            "fe80::1%eth0",
            "example.org",
            "1.2.3.4 ",
        ] {
            assert_eq!(parse_prefix(text), Err(PrefixError::Form), "{text}");
        }
        assert_eq!(parse_prefix("1.2.3.4/33"), Err(PrefixError::Length(32)));
        assert_eq!(parse_prefix("::/999"), Err(PrefixError::Length(128)));
        assert_eq!(parse_prefix("::ffff:1.2.3.4"), Err(PrefixError::Mapped));
        assert_eq!(parse_prefix("::ffff:0:0/96"), Err(PrefixError::Mapped));
        let error = parse_prefix("192.0.2.7/24").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the network is 192.0.2.0/24, the single address 192.0.2.7")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f:./]{0,30}") {
            if let Ok(prefix) = parse_prefix(&text) {
                prop_assert_eq!(parse_prefix(&prefix.to_string()), Ok(prefix));
            }
        }
    }
}
