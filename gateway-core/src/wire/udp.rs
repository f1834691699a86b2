//! UDP headers, and the first bytes of QUIC (RFC 768, RFC 9000, RFC 9369).

/// Length.
pub const HEADER: usize = 8;
/// Source port.
pub const SOURCE_PORT: usize = 0;
/// Destination port.
pub const DESTINATION_PORT: usize = 2;
/// Length of header and data.
pub const LENGTH: usize = 4;

/// Bytes of a QUIC long header that tell an Initial: the first byte and the version.
pub const QUIC_LONG: usize = 5;
/// QUIC version 1 (RFC 9000, section 15).
const QUIC_V1: u32 = 0x0000_0001;
/// QUIC version 2 (RFC 9369, section 3.1).
const QUIC_V2: u32 = 0x6b33_43cf;

/// Whether a datagram that begins so is a QUIC Initial, which asks for a new connection. The high two bits mark a long
/// header, the next two its type, which version 2 numbers differently (RFC 9369, section 3.2).
#[inline(always)]
pub const fn is_quic_initial(first: u8, version: u32) -> bool {
    let kind = first & 0xf0;
    (version == QUIC_V1 && kind == 0xc0) || (version == QUIC_V2 && kind == 0xd0)
}
