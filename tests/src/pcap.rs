//! Whole captures in memory, read and written, and where those beside the project are.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use weir::capture::{CaptureError, Direction, Reader};

/// One captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was captured, in nanoseconds since 1970, where the file says so.
    pub time_ns: Option<u64>,
    /// The kind of link ([`weir::capture::ETHERNET`]).
    pub link_type: u16,
    /// What was captured of it.
    pub data: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub wire_len: u32,
}

/// A whole capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The packets, in the file's order.
    pub records: Vec<Record>,
}

/// Reads a capture file.
pub fn read(path: &Path) -> Result<Capture> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    collect(file).with_context(|| path.display().to_string())
}

/// Reads a capture from memory.
pub fn parse(bytes: &[u8]) -> Result<Capture> {
    Ok(collect(bytes)?)
}

fn collect(source: impl Read) -> Result<Capture, CaptureError> {
    let mut reader = Reader::new(source)?;
    let mut records = Vec::new();
    while let Some(packet) = reader.next()? {
        records.push(Record {
            time_ns: packet.time_ns,
            link_type: packet.link_type,
            data: packet.data.to_vec(),
            wire_len: packet.wire_len,
        });
    }
    Ok(Capture { records })
}

/// A packet to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Which way; not written where nobody is to know.
    pub direction: Option<Direction>,
    /// What was captured of it.
    pub data: Vec<u8>,
    /// Its length on the wire, in bytes.
    pub wire_len: u32,
}

impl Sent {
    /// A frame that arrived, wholly captured.
    pub fn arrived(time_ns: u64, data: Vec<u8>) -> Self {
        Self {
            time_ns,
            direction: None,
            wire_len: data.len() as u32,
            data,
        }
    }
}

/// Writes a pcapng file with one interface of this link type, whose clock counts nanoseconds.
pub fn pcapng(link_type: u16, packets: &[Sent]) -> Vec<u8> {
    fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let length = body.len().next_multiple_of(4) as u32 + 12;
        file.extend([kind, length].map(u32::to_le_bytes).concat());
        file.extend(body);
        file.resize(file.len().next_multiple_of(4), 0);
        file.extend(length.to_le_bytes());
    }
    let mut file = Vec::new();
    let section = [0x1a2b_3c4d_u32, 1, u32::MAX, u32::MAX]
        .map(u32::to_le_bytes)
        .concat();
    block(&mut file, 0x0a0d_0d0a, &section);
    // The clock's resolution is option 9: ten to the minus ninth.
    let interface = [u32::from(link_type), 0, 9 | 1 << 16, 9]
        .map(u32::to_le_bytes)
        .concat();
    block(&mut file, 1, &interface);
    let mut body = Vec::new();
    for packet in packets {
        let (high, low) = ((packet.time_ns >> 32) as u32, packet.time_ns as u32);
        let head = [0, high, low, packet.data.len() as u32, packet.wire_len];
        body.clear();
        body.extend(head.map(u32::to_le_bytes).concat());
        body.extend(&packet.data);
        if let Some(direction) = packet.direction {
            body.resize(body.len().next_multiple_of(4), 0);
            let flags = if direction == Direction::In { 1 } else { 2 };
            body.extend([2 | 4 << 16, flags, 0].map(u32::to_le_bytes).concat());
        }
        block(&mut file, 6, &body);
    }
    file
}

/// Writes a pcap file of Ethernet frames, with nanoseconds.
pub fn pcap(packets: &[Sent]) -> Vec<u8> {
    let head = [0xa1b2_3c4d_u32, 2 | 4 << 16, 0, 0, 65_535, 1];
    let mut file = head.map(u32::to_le_bytes).concat();
    for packet in packets {
        let (seconds, fraction) = (packet.time_ns / 1_000_000_000, packet.time_ns % 1_000_000_000);
        let head = [
            seconds as u32,
            fraction as u32,
            packet.data.len() as u32,
            packet.wire_len,
        ];
        file.extend(head.map(u32::to_le_bytes).concat());
        file.extend(&packet.data);
    }
    file
}

/// The shared captures' folder beside the repository, where this machine has it.
pub fn shared_captures() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    path.is_dir().then_some(path)
}

#[cfg(test)]
mod tests {
    use weir::capture::ETHERNET;

    use super::*;

    /// Packets, bytes captured of them, and how many are not whole, counted with other tools.
    const FILES: [(&str, usize, usize, usize); 21] = [
        ("attacks/amp.UDP.snmp.src161.pcapng", 4_373, 1_055_847, 0),
        ("attacks/amp.dns.RRSIG.fragmented.pcap", 4_412, 2_017_662, 0),
        ("attacks/pkt.TCP.synflood.spoofed.pcap", 37_841, 2_270_460, 0),
        ("frames/fragmented-1.pcap", 3, 548, 0),
        ("frames/fragmented-3.pcap", 5, 7_570, 0),
        ("frames/fragmented-syn.pcap", 2, 108, 0),
        ("frames/http-qinq-0.pcap", 14, 6_199, 0),
        ("frames/http-vlan-0.pcap", 14, 6_143, 0),
        ("frames/ip-bogus-header-len.pcap", 1, 60, 0),
        ("frames/ip6-route0-tcp-good-chksum.pcap", 1, 114, 0),
        ("frames/ipv6-fragmented-dns.pcap", 8, 4_620, 0),
        ("frames/ipv6-hbh-routing0.pcap", 1, 113, 0),
        ("frames/ipv6-http-atomic-frag.pcap", 38, 3_408, 0),
        ("frames/ipv6-mobility-dst-opts.pcap", 3, 286, 0),
        ("frames/ipv6.pcap", 136, 16_479, 0),
        ("frames/ipv6_zero_len_ah.pcap", 10, 1_136, 0),
        ("frames/mixed-vlan-mpls.pcap", 47, 16_403, 0),
        ("frames/mpls-in-vlan.pcap", 3, 2_533, 0),
        ("frames/pppoe-over-qinq.pcap", 86, 40_864, 0),
        ("frames/tcp-http-with-padding.pcap", 25, 1_881, 0),
        ("frames/truncated-header.pcap", 24, 1_314, 24),
    ];

    #[test]
    fn what_is_written_is_read_again() -> Result<()> {
        let mut packets = vec![
            Sent::arrived(1_700_000_000_123_456_789, vec![1; 61]),
            Sent::arrived(1_700_000_000_123_456_790, vec![2; 64]),
        ];
        packets[1].wire_len = 1500;
        for file in [pcap(&packets), pcapng(ETHERNET, &packets)] {
            let records = parse(&file)?.records;
            assert_eq!(records.len(), 2);
            for (record, packet) in records.iter().zip(&packets) {
                assert_eq!(record.time_ns, Some(packet.time_ns));
                assert_eq!((&record.data, record.wire_len), (&packet.data, packet.wire_len));
                assert_eq!(record.link_type, ETHERNET);
            }
        }
        Ok(())
    }

    #[test]
    fn the_captures_beside_the_project_are_read_whole() -> Result<()> {
        let Some(folder) = shared_captures() else {
            println!("captures: not beside the project, nothing read");
            return Ok(());
        };
        for (name, packets, bytes, truncated) in FILES {
            let records = read(&folder.join(name))?.records;
            let captured = records.iter().map(|record| record.data.len());
            let cut = records
                .iter()
                .filter(|record| record.data.len() < record.wire_len as usize);
            assert_eq!(
                (records.len(), captured.sum(), cut.count()),
                (packets, bytes, truncated),
                "{name}"
            );
            assert!(
                records.iter().all(|record| record.link_type == ETHERNET),
                "{name}"
            );
            // All of this century.
            let century = 946_684_800_000_000_000..4_102_444_800_000_000_000;
            assert!(
                records
                    .iter()
                    .all(|record| record.time_ns.is_some_and(|time| century.contains(&time))),
                "{name}"
            );
        }
        Ok(())
    }
}
