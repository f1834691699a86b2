//! Wire formats, one a file: field places, sizes and numbers with their sources. They say what bytes mean; what Weir
//! does about it is [`crate::parse`]'s and [`crate::judge`]'s business.

pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mpls;
pub mod pppoe;
pub mod tcp;
pub mod udp;
