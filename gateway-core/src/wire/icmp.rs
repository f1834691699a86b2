//! ICMP and `ICMPv6` messages that a network needs to work (RFC 792, RFC 4443, RFC 4861).

/// Bytes of type and code, and of the checksum after them.
pub const HEADER: usize = 4;
/// Type.
pub const TYPE: usize = 0;

/// Whether an ICMP type reports an error: unreachable, source quench, time exceeded, parameter problem.
#[inline(always)]
pub const fn is_error_v4(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 11 | 12)
}

/// Whether an `ICMPv6` type reports an error: all of them lie below 128 (RFC 4443, section 2.1), and only 1 to 4 are
/// assigned.
#[inline(always)]
pub const fn is_error_v6(kind: u8) -> bool {
    matches!(kind, 1..=4)
}

/// Whether an `ICMPv6` type is neighbour discovery: router solicitation and advertisement, neighbour solicitation and
/// advertisement, redirect.
#[inline(always)]
pub const fn is_neighbour_discovery(kind: u8) -> bool {
    matches!(kind, 133..=137)
}
