//! A reader for classic pcap files: both byte orders, microseconds and nanoseconds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// The link type of Ethernet.
pub const ETHERNET: u32 = 1;

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// The largest record believed; a larger one means that the file is damaged.
const MAX_RECORD: usize = 256 * 1024;

/// One captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was captured, in nanoseconds since 1970.
    pub time_ns: u64,
    /// What was captured of it.
    pub data: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub wire_len: u32,
}

/// A whole capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The link type ([`ETHERNET`]).
    pub link_type: u32,
    /// The packets, in the file's order.
    pub records: Vec<Record>,
}

/// Reads a capture file.
pub fn read(path: &Path) -> Result<Capture> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is not a whole pcap file", path.display()))
}

/// Reads a capture from memory.
pub fn parse(bytes: &[u8]) -> Result<Capture> {
    ensure!(
        bytes.len() >= FILE_HEADER,
        "it has {} bytes, fewer than the file header",
        bytes.len()
    );
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    let (big_endian, fraction_ns) = match u32::from_le_bytes(word) {
        0xa1b2_c3d4 => (false, 1000),
        0xa1b2_3c4d => (false, 1),
        0xd4c3_b2a1 => (true, 1000),
        0x4d3c_b2a1 => (true, 1),
        other => bail!("its first four bytes are {other:#010x}, which is no pcap magic (pcapng is not read)"),
    };
    let u32_at = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        if big_endian {
            u32::from_be_bytes(word)
        } else {
            u32::from_le_bytes(word)
        }
    };
    // The upper bits hold a checksum's length in some captures.
    let link_type = u32_at(20) & 0x0fff_ffff;
    let mut records = Vec::new();
    let mut at = FILE_HEADER;
    while at < bytes.len() {
        let number = records.len() + 1;
        ensure!(
            bytes.len() - at >= RECORD_HEADER,
            "record {number} ends within its header"
        );
        let len = u32_at(at + 8) as usize;
        ensure!(len <= MAX_RECORD, "record {number} claims {len} bytes");
        let start = at + RECORD_HEADER;
        ensure!(
            bytes.len() - start >= len,
            "record {number} ends before its {len} bytes"
        );
        records.push(Record {
            time_ns: u64::from(u32_at(at)) * 1_000_000_000 + u64::from(u32_at(at + 4)) * fraction_ns,
            data: bytes[start..start + len].to_vec(),
            wire_len: u32_at(at + 12),
        });
        at = start + len;
    }
    Ok(Capture { link_type, records })
}

/// The shared captures' folder beside the repository, where this machine has it.
pub fn shared_captures() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    path.is_dir().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(big_endian: bool, magic: u32) -> Vec<u8> {
        let word = |value: u32| {
            if big_endian {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let mut bytes = word(magic).to_vec();
        bytes.extend([0; 16]);
        bytes.extend(word(ETHERNET));
        for (seconds, fraction, data) in [(5, 7, &[1_u8, 2, 3][..]), (6, 0, &[])] {
            for value in [seconds, fraction, data.len() as u32, 60] {
                bytes.extend(word(value));
            }
            bytes.extend(data);
        }
        bytes
    }

    #[test]
    fn both_byte_orders_and_both_precisions_are_read() -> Result<()> {
        for big_endian in [false, true] {
            for (magic, first) in [(0xa1b2_c3d4, 5_000_007_000), (0xa1b2_3c4d, 5_000_000_007)] {
                let capture = parse(&file(big_endian, magic))?;
                assert_eq!(capture.link_type, ETHERNET);
                let [a, b] = &capture.records[..] else {
                    panic!("{capture:?}")
                };
                assert_eq!((a.time_ns, &a.data[..], a.wire_len), (first, &[1, 2, 3][..], 60));
                assert_eq!((b.time_ns, b.data.len()), (6_000_000_000, 0));
            }
        }
        Ok(())
    }

    #[test]
    fn a_damaged_file_is_refused_at_every_length() {
        let whole = file(false, 0xa1b2_c3d4);
        let ends = [FILE_HEADER, FILE_HEADER + RECORD_HEADER + 3, whole.len()];
        for len in 0..=whole.len() {
            assert_eq!(parse(&whole[..len]).is_ok(), ends.contains(&len), "{len} bytes");
        }
        assert!(parse(&[0; 64]).is_err());
    }
}
