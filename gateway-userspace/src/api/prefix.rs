//! Prefixes in requests: read as in the policy file, with every fault of a feed told at once.

use ipnet::IpNet;

use super::{error::Failure, types::code};
use crate::policy::prefix::{PrefixError, parse_prefix as read};

/// The most faults that one answer spells out.
const SHOWN: usize = 20;

/// Reads an address (a prefix of full length) or a prefix without host bits.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    read(text).map_err(|error| match error {
        PrefixError::HostBits(network, address) => {
            format!("{text} has bits set beyond its length; did you mean the network {network}, or the address {address}?")
        }
        other => format!("\"{text}\": {other}"),
    })
}

/// Reads many; on any fault the failure names every one (the first twenty in full).
pub fn parse_prefixes<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<IpNet>, Failure> {
    let mut prefixes = Vec::new();
    let mut faults = Vec::new();
    let mut count = 0_usize;
    for text in texts {
        match parse_prefix(text) {
            Ok(prefix) => prefixes.push(prefix),
            Err(fault) => {
                count += 1;
                if count <= SHOWN {
                    faults.push(fault);
                }
            }
        }
    }
    match (count, faults.first()) {
        (1, Some(fault)) => Err(Failure::invalid(fault.clone())),
        (several, Some(_)) => {
            if several > SHOWN {
                faults.push(format!("and {} more", several - SHOWN));
            }
            Err(Failure::new(
                code::INVALID_REQUEST,
                format!("{several} prefixes are wrong; nothing was changed"),
            )
            .details(faults))
        }
        (_, None) => Ok(prefixes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_name_the_network_meant() {
        let fault = parse_prefix("192.0.2.7/24").unwrap_err();
        assert!(
            fault.contains("192.0.2.7/24") && fault.contains("192.0.2.0/24"),
            "{fault}"
        );
    }

    #[test]
    fn every_fault_of_a_feed_is_counted() {
        let texts: Vec<String> = (0..30).map(|i| format!("bad{i}")).collect();
        let failure = parse_prefixes(texts.iter().map(String::as_str)).unwrap_err();
        assert!(failure.message.starts_with("30 prefixes"), "{failure}");
        assert_eq!(failure.details.len(), SHOWN + 1);
        assert_eq!(failure.details.last().unwrap(), "and 10 more");
    }
}
