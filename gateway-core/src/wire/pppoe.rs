//! `PPPoE` session headers and the PPP protocol numbers that carry IP (RFC 2516, RFC 1661, RFC 5072).

/// Length of the `PPPoE` header, without the PPP protocol field.
pub const HEADER: usize = 6;
/// Place of version and type, which are both 1 (RFC 2516, section 4).
pub const VERSION_TYPE: usize = 0;
/// PPP protocol number of IPv4; also its compressed one-byte form (RFC 1661, section 6.5).
pub const PPP_IPV4: u16 = 0x0021;
/// PPP protocol number of IPv6; also its compressed one-byte form.
pub const PPP_IPV6: u16 = 0x0057;
