//! IPv6 headers and extension headers (RFC 8200, RFC 4302, RFC 6275, RFC 7401, RFC 5533).

/// Length of the fixed header.
pub const HEADER: usize = 40;
/// Version, in the high four bits.
pub const VERSION: usize = 0;
/// Payload length in bytes.
pub const PAYLOAD_LENGTH: usize = 4;
/// Next header.
pub const NEXT_HEADER: usize = 6;
/// Hop limit.
pub const HOP_LIMIT: usize = 7;
/// Source address.
pub const SOURCE: usize = 8;
/// Destination address.
pub const DESTINATION: usize = 24;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Authentication header, whose length counts in words, minus two (RFC 4302, section 2.2).
pub const AUTHENTICATION: u8 = 51;
/// `ICMPv6`.
pub const ICMPV6: u8 = 58;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Mobility header.
pub const MOBILITY: u8 = 135;
/// Host identity protocol.
pub const HOST_IDENTITY: u8 = 139;
/// Shim6.
pub const SHIM6: u8 = 140;

/// Length of a fragment header.
pub const FRAGMENT_HEADER: usize = 8;
/// Place of the offset and the "more fragments" bit in a fragment header.
pub const FRAGMENT_OFFSET: usize = 2;
/// The offset's bits (in units of eight bytes, shifted left by three).
pub const OFFSET: u16 = 0xfff8;
/// "More fragments".
pub const MORE_FRAGMENTS: u16 = 0x0001;
/// Shortest authentication header: the fixed part without a check value (RFC 4302, section 2).
pub const MIN_AUTHENTICATION: usize = 12;

/// Whether a header has the common form: next header, length in units of eight bytes without the first, then data.
#[inline(always)]
pub const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6
    )
}
