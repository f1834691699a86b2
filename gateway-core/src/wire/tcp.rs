//! TCP headers (RFC 9293).

/// Length without options.
pub const HEADER: usize = 20;
/// Source port.
pub const SOURCE_PORT: usize = 0;
/// Destination port.
pub const DESTINATION_PORT: usize = 2;
/// Sequence number.
pub const SEQUENCE: usize = 4;
/// Acknowledgement number.
pub const ACKNOWLEDGEMENT: usize = 8;
/// Data offset in words, in the high four bits.
pub const DATA_OFFSET: usize = 12;
/// Flags.
pub const FLAGS: usize = 13;
/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;
