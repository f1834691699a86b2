//! MPLS label stack entries (RFC 3032).

/// Length of an entry.
pub const ENTRY: usize = 4;
/// Place of the byte whose lowest bit marks the bottom of the stack.
pub const BOTTOM: usize = 2;
/// The bottom-of-stack bit.
pub const BOTTOM_BIT: u8 = 0x01;
