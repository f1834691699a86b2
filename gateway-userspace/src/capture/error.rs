//! Why a capture cannot be read, or not to its end.

use std::io;

/// What is wrong with a capture file, as a clause to follow the file's name. Offsets are bytes from the file's beginning; in a
/// file compressed with gzip, of what is unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source failed.
    #[error("cannot be read at byte {at}: {error}")]
    Io {
        /// How far reading came.
        at: u64,
        /// What the source said.
        error: io::Error,
    },
    /// It begins as no capture does.
    #[error("is neither a pcap nor a pcapng file: it begins with {found:02x?}")]
    NoCapture {
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// It has no bytes at all.
    #[error("is empty")]
    Empty,
    /// It is compressed in a way that is not read here.
    #[error(
        "is compressed with {with}: unpack it first, or through a pipe, as in `{unpack} FILE | weir replay … -`"
    )]
    Compressed {
        /// The program.
        with: &'static str,
        /// The command that unpacks to standard output.
        unpack: &'static str,
    },
    /// Its compression is damaged, or ends too early; everything before was read.
    #[error(
        "is damaged in its compression ({error}) after {at} unpacked bytes; what is before that was read"
    )]
    Gzip {
        /// How many bytes could be unpacked and were read.
        at: u64,
        /// What the decompressor said.
        error: io::Error,
    },
    /// It ends too early; everything before was read.
    #[error("ends at byte {at}, within {within} that begins at byte {began}; what is before that was read")]
    Truncated {
        /// Its length.
        at: u64,
        /// What is not whole.
        within: &'static str,
        /// Where that begins.
        began: u64,
    },
    /// It is damaged; everything before was read.
    #[error("is damaged at byte {at}: {found}, where {expected} was expected; what is before that was read")]
    Damaged {
        /// Where.
        at: u64,
        /// What is there.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
}
