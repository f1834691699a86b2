//! IPv4 headers (RFC 791).

/// Length without options.
pub const HEADER: usize = 20;
/// Version and header length in words.
pub const VERSION_IHL: usize = 0;
/// Total length in bytes.
pub const TOTAL_LENGTH: usize = 2;
/// Flags and fragment offset.
pub const FRAGMENT: usize = 6;
/// Time to live.
pub const TTL: usize = 8;
/// Protocol.
pub const PROTOCOL: usize = 9;
/// Source address.
pub const SOURCE: usize = 12;
/// Destination address.
pub const DESTINATION: usize = 16;
/// "More fragments".
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in units of eight bytes.
pub const OFFSET: u16 = 0x1fff;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
