//! Writing pcapng files (draft-ietf-opsawg-pcapng): one section, an interface block for every interface at its first packet,
//! an enhanced packet block with a comment for every packet.
//!
//! No library: the one there is (pcap-file) has had no release for years, and this needs four fixed layouts.

use std::io::{self, Write};

use super::{
    ETHERNET,
    pcapng::{BYTE_ORDER, INTERFACE, PACKET, PACKET_FLAGS, SECTION, TIME_RESOLUTION},
};

/// `opt_comment`, of every block.
const COMMENT: u16 = 1;
/// Of a section: the program that wrote it.
const USER_APPLICATION: u16 = 4;
/// Of an interface: its name.
const INTERFACE_NAME: u16 = 2;
/// Nanoseconds, as `if_tsresol` says it.
const NANOSECONDS: u8 = 9;
/// In the flags of a packet: it arrived.
const INBOUND: u32 = 1;

/// A packet to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recorded<'a> {
    /// The interface that it arrived on.
    pub interface: &'a str,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Its length on the wire, in bytes.
    pub wire_len: u32,
    /// Its first bytes.
    pub data: &'a [u8],
    /// What to say of it.
    pub comment: &'a str,
}

/// Writes packets to `out`, whole blocks only, and no more than so many bytes in all.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    snap_len: u32,
    interfaces: Vec<String>,
    /// Whole blocks that are not written yet.
    waiting: Vec<u8>,
    /// Bytes that `out` took.
    written: u64,
    /// The most bytes there may be.
    most: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file of at most `most` bytes of packets of which at most `snap_len` bytes are known. Nothing is written
    /// before [`Self::flush`].
    pub fn new(out: W, snap_len: u32, most: u64) -> Self {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0; how long the section will be is not known.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        let program = concat!("weir ", env!("CARGO_PKG_VERSION"));
        option(&mut body, USER_APPLICATION, program.as_bytes());
        end_of_options(&mut body);
        let mut waiting = Vec::new();
        block(&mut waiting, u32::from_le_bytes(SECTION), &body);
        Self {
            out,
            snap_len,
            interfaces: Vec::new(),
            waiting,
            written: 0,
            most,
        }
    }

    /// Adds a packet; false: it would not fit, and nothing was added.
    pub fn add(&mut self, packet: &Recorded<'_>) -> bool {
        let mut blocks = Vec::new();
        let known = self.interfaces.iter().position(|name| name == packet.interface);
        let number = known.unwrap_or(self.interfaces.len());
        if known.is_none() {
            let mut body = Vec::new();
            body.extend(ETHERNET.to_le_bytes());
            body.extend([0, 0]);
            body.extend(self.snap_len.to_le_bytes());
            option(&mut body, INTERFACE_NAME, packet.interface.as_bytes());
            option(&mut body, TIME_RESOLUTION, &[NANOSECONDS]);
            end_of_options(&mut body);
            block(&mut blocks, INTERFACE, &body);
        }
        let mut body = Vec::new();
        let captured = packet.data.len() as u32;
        let (high, low) = ((packet.time_ns >> 32) as u32, packet.time_ns as u32);
        for word in [number as u32, high, low, captured, packet.wire_len] {
            body.extend(word.to_le_bytes());
        }
        body.extend(packet.data);
        pad(&mut body);
        option(&mut body, COMMENT, packet.comment.as_bytes());
        option(&mut body, PACKET_FLAGS, &INBOUND.to_le_bytes());
        end_of_options(&mut body);
        block(&mut blocks, PACKET, &body);
        if self.bytes() + blocks.len() as u64 > self.most {
            return false;
        }
        if known.is_none() {
            self.interfaces.push(packet.interface.to_owned());
        }
        self.waiting.append(&mut blocks);
        true
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// Where `out` does not take it. Then the file is whole up to [`Self::written`], and may have part of a block behind that.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.waiting)?;
        self.out.flush()?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Bytes of whole blocks, written or not.
    pub fn bytes(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// Bytes of whole blocks that are written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Where it is written to.
    pub fn out(&self) -> &W {
        &self.out
    }
}

/// A block around its body, which is a multiple of four bytes.
fn block(into: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = (body.len() as u32 + 12).to_le_bytes();
    into.extend(kind.to_le_bytes());
    into.extend(length);
    into.extend(body);
    into.extend(length);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Names and comments are short; what would not fit its length field is cut.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Direction, Reader};

    fn packet(number: u64) -> Recorded<'static> {
        Recorded {
            interface: if number.is_multiple_of(2) { "eth0" } else { "wan" },
            time_ns: 1_795_600_000_123_456_789 + number,
            wire_len: 1_514,
            data: &[7; 61],
            comment: "verdict=drop reason=source_packets",
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, 128, 1 << 20);
        for number in 0..5 {
            assert!(writer.add(&packet(number)));
        }
        writer.flush().unwrap();
        assert_eq!(writer.written(), writer.bytes());
        let mut reader = Reader::new(&file[..]).unwrap();
        for number in 0..5 {
            let read = reader.next().unwrap().unwrap();
            assert_eq!(read.time_ns, Some(packet(number).time_ns));
            assert_eq!((read.wire_len, read.data), (1_514, &[7_u8; 61][..]));
            assert_eq!((read.link_type, read.direction), (ETHERNET, Some(Direction::In)));
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn the_size_is_never_exceeded_and_every_block_is_whole() {
        for most in 0..1_000 {
            let mut file = Vec::new();
            let mut writer = Writer::new(&mut file, 128, most);
            let added = (0..20).take_while(|number| writer.add(&packet(*number))).count();
            writer.flush().unwrap();
            assert!(added == 0 || file.len() as u64 <= most);
            let mut reader = Reader::new(&file[..]).unwrap();
            for _ in 0..added {
                assert!(reader.next().unwrap().is_some());
            }
            assert_eq!(reader.next().unwrap(), None);
        }
    }

    #[test]
    fn a_comment_and_a_name_are_options_by_the_specification() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, 128, 1 << 20);
        writer.add(&Recorded {
            interface: "eth0",
            time_ns: 0x0102_0304_0506_0708,
            wire_len: 64,
            data: &[1, 2, 3],
            comment: "abcde",
        });
        writer.flush().unwrap();
        let section = u32::from_le_bytes(*file[4..].first_chunk().unwrap()) as usize;
        let expected: Vec<u8> = [
            // Interface: type, length, Ethernet, 128 bytes, name, resolution, end, length.
            &[1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 128, 0, 0, 0][..],
            &[
                2, 0, 4, 0, b'e', b't', b'h', b'0', 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[40, 0, 0, 0],
            // Packet: type, length, interface, time (high, low), captured, original, data, comment, flags, end, length.
            &[
                6, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 3, 0, 0, 0, 64, 0, 0, 0,
            ],
            &[1, 2, 3, 0, 1, 0, 5, 0, b'a', b'b', b'c', b'd', b'e', 0, 0, 0],
            &[2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0],
        ]
        .concat();
        assert_eq!(&file[section..], expected);
    }
}
