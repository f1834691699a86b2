//! Ethernet II, IEEE 802.1Q tags and LLC/SNAP (IEEE 802.3, 802.1Q, RFC 1042).

/// Length of the two addresses and the type.
pub const HEADER: usize = 14;
/// Place of the type (or, below [`MIN_TYPE`], the length) in the header.
pub const TYPE: usize = 12;
/// Types begin here; smaller numbers are an 802.3 length (IEEE 802.3, 3.2.6).
pub const MIN_TYPE: u16 = 0x0600;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// Slow protocols: LACP and the marker protocol (IEEE 802.3, annex 57A).
pub const SLOW_PROTOCOLS: u16 = 0x8809;
/// LLDP (IEEE 802.1AB).
pub const LLDP: u16 = 0x88cc;
/// MPLS unicast (RFC 5332).
pub const MPLS: u16 = 0x8847;
/// MPLS with an upstream-assigned label (RFC 5332).
pub const MPLS_UPSTREAM: u16 = 0x8848;
/// `PPPoE` session stage (RFC 2516).
pub const PPPOE_SESSION: u16 = 0x8864;
/// Provider backbone bridging: a service tag and then a whole inner Ethernet header (IEEE 802.1ah).
pub const BACKBONE: u16 = 0x88e7;

/// Length of a VLAN tag: tag control information and the next type.
pub const TAG: usize = 4;
/// The VLAN identifier's bits in the tag control information.
pub const VLAN_ID: u16 = 0x0fff;

/// Length of the LLC and SNAP headers together.
pub const LLC_SNAP: usize = 8;
/// Length of the backbone service tag and the inner addresses and type.
pub const BACKBONE_TAG: usize = 18;

/// Whether a type announces a VLAN tag: 802.1Q, 802.1ad, and the three numbers used before that was agreed.
#[inline(always)]
pub const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300)
}

/// Whether a type is MPLS.
#[inline(always)]
pub const fn is_mpls(ethertype: u16) -> bool {
    matches!(ethertype, MPLS | MPLS_UPSTREAM)
}
