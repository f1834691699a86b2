//! Which drivers run XDP programs themselves, for kernels that do not say it (before 6.3).
//!
//! From the kernel's sources: a driver is here when its `ndo_bpf` handles `XDP_SETUP_PROG`, with the release that first
//! did (as the projects BCC and Cilium list them too). A driver that is not here may still be able to: then `auto` finds out.

use super::system::Version;

/// Driver, as ethtool names it, and the first kernel in which it runs XDP programs.
const NATIVE: [(&str, Version); 37] = [
    ("am65-cpsw-nuss", (6, 10)),
    ("atlantic", (5, 19)),
    ("bnxt_en", (4, 11)),
    ("bonding", (5, 15)),
    ("cpsw", (5, 3)),
    ("ena", (5, 6)),
    ("fec", (6, 2)),
    ("fsl_dpa", (5, 11)),
    ("fsl_dpaa2_eth", (5, 0)),
    ("fsl_enetc", (5, 13)),
    ("gve", (6, 4)),
    ("hv_netvsc", (5, 6)),
    ("i40e", (4, 13)),
    ("iavf", (6, 14)),
    ("ice", (5, 5)),
    ("igb", (5, 10)),
    ("igc", (5, 13)),
    ("ixgbe", (4, 12)),
    ("ixgbevf", (4, 17)),
    ("mana", (5, 17)),
    ("mlx4_en", (4, 8)),
    ("mlx5_core", (4, 9)),
    ("mvneta", (5, 5)),
    ("mvpp2", (5, 9)),
    ("nfp", (4, 10)),
    ("nicvf", (4, 12)),
    ("qede", (4, 10)),
    ("rvu_nicpf", (5, 16)),
    ("sfc", (5, 5)),
    ("st_gmac", (5, 13)),
    ("tsnep", (6, 3)),
    ("tun", (4, 14)),
    ("veth", (4, 19)),
    ("vif", (5, 9)),
    ("virtio_net", (4, 10)),
    ("vmxnet3", (6, 6)),
    ("mtk_eth_soc", (6, 0)),
];

/// What the table knows of a driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// It runs XDP programs on this kernel.
    Native,
    /// It does from that kernel on, and this one is older.
    Since(Version),
    /// The table does not have it.
    Unknown,
}

/// Looks a driver up.
pub(super) fn lookup(driver: &str, kernel: Option<Version>) -> Known {
    match NATIVE.iter().find(|(name, _)| *name == driver) {
        None => Known::Unknown,
        Some((_, since)) if kernel.is_some_and(|kernel| kernel < *since) => Known::Since(*since),
        Some(_) => Known::Native,
    }
}

/// The largest MTU at which the driver still puts a frame into one buffer next to XDP's headroom, on 4 KiB pages.
/// Intel's drivers use 3 KiB of a page; the others what headroom (256) and the trailer (some 320 bytes) leave.
pub(super) fn single_buffer_mtu(driver: &str) -> u32 {
    match driver {
        "i40e" | "ice" | "ixgbe" | "ixgbevf" | "igb" | "igc" | "iavf" => 3046,
        _ => 3498,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_by_the_kernel_that_has_them() {
        assert_eq!(lookup("ixgbe", Some((5, 15))), Known::Native);
        assert_eq!(lookup("gve", Some((5, 15))), Known::Since((6, 4)));
        assert_eq!(lookup("gve", Some((6, 4))), Known::Native);
        assert_eq!(lookup("r8169", Some((6, 18))), Known::Unknown);
        assert_eq!(lookup("ena", None), Known::Native);
    }

    #[test]
    fn no_driver_stands_twice() {
        let mut names: Vec<_> = NATIVE.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), NATIVE.len());
    }
}
