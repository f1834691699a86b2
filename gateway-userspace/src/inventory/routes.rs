//! The interfaces that face the world.

use std::{collections::BTreeSet, fs};

/// An IPv4 route that is up, in `/proc/net/route`.
const UP: u32 = 1;

/// The interfaces of the default routes of both families; empty where there is none.
pub fn default_interfaces() -> Vec<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut found = ipv4(&read("/proc/net/route"));
    found.extend(ipv6(&read("/proc/net/ipv6_route")));
    found.into_iter().collect()
}

fn ipv4(table: &str) -> BTreeSet<String> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let up = u32::from_str_radix(words.get(3)?, 16).ok()? & UP != 0;
        let whole = *words.get(1)? == "00000000" && *words.get(7)? == "00000000";
        words
            .first()
            .filter(|_| up && whole)
            .map(|name| (*name).to_owned())
    });
    lines.collect()
}

fn ipv6(table: &str) -> BTreeSet<String> {
    let lines = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let whole = words.first()?.bytes().all(|byte| byte == b'0') && *words.get(1)? == "00";
        let name = *words.get(9)?;
        // The kernel's own entry for what has no route stands on the loopback.
        (whole && name != "lo").then(|| name.to_owned())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_name_their_interfaces() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth1\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                     broken\n";
        assert_eq!(ipv4(table), BTreeSet::from(["eth0".to_owned()]));
        let zeros = "0".repeat(32);
        let table = format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000064 1 0 00000003 eth2\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo\n\
             20010db8000000000000000000000000 40 {zeros} 00 {zeros} 00000100 1 0 00000001 eth3\n"
        );
        assert_eq!(ipv6(&table), BTreeSet::from(["eth2".to_owned()]));
    }
}
