use std::io::{self, Read, Write as _};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::{CaptureError, Direction, ETHERNET, MAX_INTERFACES, MAX_PACKET, Reader};

const SECTION: u32 = 0x0a0d_0d0a;
/// Offsets in the files below, where every section header has 28 bytes.
const AFTER_SECTION: u64 = 28;

type Seen = (Option<u64>, u16, u32, Vec<u8>);

/// Everything that a file gives: its packets, and how it ended.
fn read(source: impl Read) -> (Vec<Seen>, Result<(), CaptureError>) {
    let mut packets = Vec::new();
    let mut reader = match Reader::new(source) {
        Ok(reader) => reader,
        Err(error) => return (packets, Err(error)),
    };
    let end = loop {
        match reader.next() {
            Ok(Some(packet)) => {
                let truncated = packet.data.len() < packet.wire_len as usize;
                assert_eq!(packet.is_truncated(), truncated);
                packets.push((
                    packet.time_ns,
                    packet.link_type,
                    packet.wire_len,
                    packet.data.to_vec(),
                ));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(
        matches!(reader.next(), Ok(None)),
        "after the end there is nothing"
    );
    (packets, end)
}

fn packets(bytes: &[u8]) -> Vec<Seen> {
    let (packets, end) = read(bytes);
    end.unwrap();
    packets
}

fn error(bytes: &[u8]) -> String {
    let (_, end) = read(bytes);
    end.unwrap_err().to_string()
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy, Debug)]
struct Writer {
    big: bool,
}

const BOTH: [Writer; 2] = [Writer { big: false }, Writer { big: true }];
const LITTLE: Writer = BOTH[0];

impl Writer {
    fn u16(self, value: u16) -> Vec<u8> {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        bytes.to_vec()
    }

    fn u32s(self, values: &[u32]) -> Vec<u8> {
        let bytes = |value: &u32| {
            if self.big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        values.iter().flat_map(bytes).collect()
    }

    fn pcap(self, magic: u32, records: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = self.u32s(&[magic]);
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        // A checksum of four bytes behind each frame, said in the upper half of the link type.
        file.extend(self.u32s(&[0, 0, 65_535, 0x4400_0001]));
        for (seconds, fraction, wire_len, data) in records {
            file.extend(self.u32s(&[*seconds, *fraction, data.len() as u32, *wire_len]));
            file.extend_from_slice(data);
        }
        file
    }

    fn block(self, kind: u32, mut body: Vec<u8>) -> Vec<u8> {
        body.resize(body.len().next_multiple_of(4), 0xee);
        let length = body.len() as u32 + 12;
        let mut block = self.u32s(&[kind, length]);
        block.extend(body);
        block.extend(self.u32s(&[length]));
        block
    }

    fn section(self) -> Vec<u8> {
        let mut body = self.u32s(&[0x1a2b_3c4d]);
        body.extend(self.u16(1));
        body.extend(self.u16(0));
        body.extend(self.u32s(&[u32::MAX, u32::MAX]));
        self.block(SECTION, body)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = self.u16(code);
        option.extend(self.u16(value.len() as u16));
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn interface(self, link_type: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = self.u16(link_type);
        body.extend(self.u16(0));
        body.extend(self.u32s(&[snap_len]));
        for (code, value) in options {
            body.extend(self.option(*code, value));
        }
        self.block(1, body)
    }

    fn packet(self, interface: u32, stamp: u64, wire_len: u32, data: &[u8]) -> Vec<u8> {
        let (high, low) = ((stamp >> 32) as u32, stamp as u32);
        let mut body = self.u32s(&[interface, high, low, data.len() as u32, wire_len]);
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0xee);
        // A comment behind the packet is no part of it.
        body.extend(self.option(1, b"a comment"));
        self.block(6, body)
    }
}

#[test]
fn pcap_in_both_byte_orders_and_both_precisions() {
    for writer in BOTH {
        for (magic, time_ns) in [(0xa1b2_c3d4, 5_000_007_000), (0xa1b2_3c4d, 5_000_000_007)] {
            let file = writer.pcap(magic, &[(5, 7, 60, &[1, 2, 3]), (u32::MAX, 0, 0, &[])]);
            let expected = [
                (Some(time_ns), ETHERNET, 60, vec![1, 2, 3]),
                (Some(4_294_967_295_000_000_000), ETHERNET, 0, vec![]),
            ];
            assert_eq!(packets(&file), expected);
        }
    }
}

#[test]
fn pcapng_sections_of_both_byte_orders_with_interfaces_of_their_own() {
    let (little, big) = (BOTH[0], BOTH[1]);
    let file = [
        little.section(),
        little.interface(ETHERNET, 0, &[(2, b"eth0")]),
        little.interface(113, 0, &[]),
        little.packet(1, 1, 3, &[1, 2, 3]),
        // Names, statistics, and what nobody knows.
        little.block(4, vec![0; 8]),
        little.block(5, vec![0xff; 64]),
        little.block(0x7777_7777, vec![0; 100_000]),
        little.packet(0, 1 << 32, 1500, &[4; 5]),
        big.section(),
        big.interface(101, 0, &[]),
        big.packet(0, 2, 1, &[9]),
    ]
    .concat();
    let expected = [
        (Some(1000), 113, 3, vec![1, 2, 3]),
        (Some((1 << 32) * 1000), ETHERNET, 1500, vec![4; 5]),
        (Some(2000), 101, 1, vec![9]),
    ];
    assert_eq!(packets(&file), expected);
}

#[test]
fn clocks_of_every_resolution_and_offset() {
    let offset = (-3i64).to_le_bytes();
    for (options, stamp, time_ns) in [
        (&[][..], 7, 7_000),
        (&[(9, &[9][..])], 7, 7),
        (&[(9, &[0])], 7, 7_000_000_000),
        (&[(9, &[3])], 7, 7_000_000),
        // Finer than a nanosecond, and finer than any stamp.
        (&[(9, &[12])], 7_999, 7),
        (&[(9, &[0x7f])], u64::MAX, 0),
        (&[(9, &[0x80 | 1])], 3, 1_500_000_000),
        (&[(9, &[0x80 | 32])], 3 << 31, 1_500_000_000),
        (&[(9, &[0xff])], u64::MAX, 0),
        (&[(14, &offset[..])], 5_000_000, 2_000_000_000),
        (&[(9, &[9]), (14, &offset[..])], 3_000_000_001, 1),
        // What comes behind the end of the options is not looked at.
        (&[(0, &[]), (9, &[9])], 7, 7_000),
    ] {
        let file = [
            LITTLE.section(),
            LITTLE.interface(ETHERNET, 0, options),
            LITTLE.packet(0, stamp, 0, &[]),
        ]
        .concat();
        assert_eq!(packets(&file)[0].0, Some(time_ns), "{options:?}");
    }
}

#[test]
fn times_before_1970_and_after_2554_are_damage() {
    let before = (-1i64).to_le_bytes();
    for (option, stamp) in [((14, &before[..]), 999_999), ((9, &[0][..]), u64::MAX)] {
        let interface = LITTLE.interface(ETHERNET, 0, &[option]);
        let at = AFTER_SECTION + interface.len() as u64 + 12;
        let file = [LITTLE.section(), interface, LITTLE.packet(0, stamp, 0, &[])].concat();
        let said = error(&file);
        assert!(
            said.starts_with(&format!("is damaged at byte {at}: time {stamp} in units of")),
            "{said}"
        );
    }
}

#[test]
fn simple_packets_have_no_time_and_end_at_the_snap_length() {
    for writer in BOTH {
        let simple = |wire_len, data: &[u8]| {
            let mut body = writer.u32s(&[wire_len]);
            body.extend(data);
            writer.block(3, body)
        };
        let file = [
            writer.section(),
            writer.interface(ETHERNET, 4, &[]),
            simple(1500, &[1, 2, 3, 4]),
            simple(3, &[5, 6, 7]),
        ]
        .concat();
        let expected = [
            (None, ETHERNET, 1500, vec![1, 2, 3, 4]),
            (None, ETHERNET, 3, vec![5, 6, 7]),
        ];
        assert_eq!(packets(&file), expected);
    }
}

#[test]
fn obsolete_packets_are_packets() {
    for writer in BOTH {
        let mut body = writer.u16(0);
        // Packets lost before it.
        body.extend(writer.u16(9));
        body.extend(writer.u32s(&[0, 8, 2, 60]));
        body.extend([1, 2]);
        let file = [
            writer.section(),
            writer.interface(ETHERNET, 0, &[]),
            writer.block(2, body),
        ]
        .concat();
        assert_eq!(packets(&file), [(Some(8_000), ETHERNET, 60, vec![1, 2])]);
    }
}

#[test]
fn damage_is_named_with_its_place() {
    let interface = LITTLE.interface(ETHERNET, 0, &[]);
    let head = [LITTLE.section(), interface.clone()].concat();
    let block_at = head.len();
    let with = |block: Vec<u8>| [head.clone(), block].concat();
    let patched = |mut block: Vec<u8>, at: usize, value: u32| {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
        with(block)
    };
    let packet = LITTLE.packet(0, 0, 4, &[1, 2, 3, 4]);
    let long = MAX_PACKET + 1;
    let mut version = LITTLE.pcap(0xa1b2_c3d4, &[]);
    version[4] = 3;
    let mut section = LITTLE.section();
    section[8] = 0;
    let mut next_version = LITTLE.section();
    next_version[12] = 2;
    for (file, at, found) in [
        (version, 4, "version 3"),
        (section, 8, "[00, 3c, 2b, 1a]"),
        (next_version, 12, "version 2"),
        (
            LITTLE.pcap(0xa1b2_c3d4, &[(0, 0, 0, &vec![0; long as usize])]),
            32,
            "a packet of 262145 bytes",
        ),
        (patched(packet.clone(), 4, 8), block_at + 4, "a block of 8 bytes"),
        (
            patched(packet.clone(), 4, 61),
            block_at + 4,
            "a block of 61 bytes",
        ),
        (
            patched(packet.clone(), 8, 1),
            block_at + 8,
            "a packet of interface 1",
        ),
        (
            patched(packet.clone(), 20, long),
            block_at + 20,
            "a packet of 262145 bytes",
        ),
        (
            patched(packet.clone(), 20, 21),
            block_at + 28,
            "20 bytes up to the end of the block",
        ),
        (
            patched(packet.clone(), packet.len() - 4, 7),
            block_at + packet.len() - 4,
            "length 7 behind a block of 52",
        ),
        (
            with(LITTLE.interface(1, 0, &[(9, &[1, 2])])),
            block_at + 18,
            "2 bytes",
        ),
        (
            [LITTLE.section(), LITTLE.block(3, vec![0; 8])].concat(),
            36,
            "a packet of interface 0",
        ),
    ] {
        let said = error(&file);
        let start = format!("is damaged at byte {at}: {found}, where ");
        assert!(said.starts_with(&start), "{said:?}, not {start:?}");
    }
}

#[test]
fn what_is_no_capture_is_said() {
    assert_eq!(
        error(b"GET / HTTP/1.1"),
        "is neither a pcap nor a pcapng file: it begins with [47, 45, 54, 20]"
    );
    assert_eq!(error(&[]), "is empty");
    assert_eq!(
        error(&[0xa1, 0xb2]),
        "ends at byte 2, within the file's header that begins at byte 0; what is before that was read"
    );
    for (head, with) in [
        (
            &b"\x28\xb5\x2f\xfdrest"[..],
            "zstd: unpack it first, or through a pipe, as in `zstd -dc FILE |",
        ),
        (b"\xfd7zXZ\0rest", "xz: "),
        (b"BZh9rest", "bzip2: "),
    ] {
        let said = error(head);
        assert!(said.starts_with(&format!("is compressed with {with}")), "{said}");
    }
    let twice = gzipped(&gzipped(&LITTLE.pcap(0xa1b2_c3d4, &[])));
    assert!(
        error(&twice).starts_with("is compressed with gzip twice: "),
        "{}",
        error(&twice)
    );
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_is_unpacked_in_one_member_or_several() {
    let file = LITTLE.pcap(0xa1b2_c3d4, &[(1, 2, 60, &[1, 2, 3]), (2, 3, 60, &[4; 40])]);
    let expected = packets(&file);
    assert_eq!(packets(&gzipped(&file)), expected);
    let (slow, end) = read(Slow(&gzipped(&file), false));
    end.unwrap();
    assert_eq!(slow, expected);
    for at in 0..file.len() {
        let members = [gzipped(&file[..at]), gzipped(&[]), gzipped(&file[at..])].concat();
        assert_eq!(packets(&members), expected, "{at}");
    }
}

#[test]
fn damage_to_gzip_is_said_and_what_is_before_was_read() {
    let records: Vec<_> = (0..10_000u32)
        .map(|at| (at, at % 97, 60, at.to_le_bytes()))
        .collect();
    let records: Vec<_> = records
        .iter()
        .map(|(a, b, c, data)| (*a, *b, *c, &data[..]))
        .collect();
    let whole = gzipped(&LITTLE.pcap(0xa1b2_c3d4, &records));
    let (seen, end) = read(&whole[..whole.len() / 2]);
    assert!(seen.len() > 1000 && seen.len() < 10_000, "{}", seen.len());
    let said = end.unwrap_err().to_string();
    assert!(said.starts_with("is damaged in its compression ("), "{said}");
    assert!(
        said.ends_with("unpacked bytes; what is before that was read"),
        "{said}"
    );
    // The check sum stands in the last eight bytes.
    let mut wrong = whole.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    let (seen, end) = read(&wrong[..]);
    assert_eq!(seen.len(), 10_000);
    assert!(matches!(end, Err(CaptureError::Gzip { .. })), "{end:?}");
    // What stands behind the last member is no gzip.
    let (seen, end) = read(&[&whole[..], b"rubbish"].concat()[..]);
    assert_eq!(seen.len(), 10_000);
    assert!(end.is_err());
}

#[test]
fn a_packets_way_is_read_from_its_flags() {
    for writer in BOTH {
        let packet = |options: &[(u16, &[u8])]| {
            let mut body = writer.u32s(&[0, 0, 8, 2, 60]);
            body.extend([1, 2, 0xee, 0xee]);
            for (code, value) in options {
                body.extend(writer.option(*code, value));
            }
            writer.block(6, body)
        };
        let flags = |flags: u32| writer.u32s(&[flags]);
        let file = [
            writer.section(),
            writer.interface(ETHERNET, 0, &[]),
            packet(&[(1, b"a comment"), (2, &flags(0x0000_0001))]),
            packet(&[(2, &flags(0x0000_0106)), (0, b"")]),
            packet(&[(2, &flags(0))]),
            packet(&[(0, b""), (2, &flags(1))]),
            packet(&[(2, b"")]),
            // An option that is longer than its block.
            packet(&[(1, &flags(0x0001_0002)), (2, &flags(2))]),
            // The obsolete block has the same option.
            writer.block(
                2,
                [writer.u32s(&[0, 0, 8, 0, 60]), writer.option(2, &flags(2))].concat(),
            ),
        ]
        .concat();
        let mut reader = Reader::new(&file[..]).unwrap();
        let mut ways = Vec::new();
        while let Some(packet) = reader.next().unwrap() {
            ways.push(packet.direction);
        }
        let (arrived, left) = (Some(Direction::In), Some(Direction::Out));
        assert_eq!(ways, [arrived, left, None, None, None, left, left]);
    }
    let mut body = LITTLE.u32s(&[0, 0, 8, 0, 60]);
    body.extend(LITTLE.u16(2));
    body.extend(LITTLE.u16(4));
    let file = [
        LITTLE.section(),
        LITTLE.interface(ETHERNET, 0, &[]),
        LITTLE.block(6, body),
    ]
    .concat();
    assert_eq!(
        packets(&file).len(),
        1,
        "an option without its value is no damage"
    );
}

#[test]
fn a_section_has_a_bounded_number_of_interfaces() {
    let interface = LITTLE.interface(ETHERNET, 0, &[]);
    let mut file = LITTLE.section();
    file.extend(interface.repeat(MAX_INTERFACES));
    assert_eq!(packets(&file), []);
    // Another section begins anew.
    let again = [file.clone(), file.clone()].concat();
    assert_eq!(packets(&again), []);
    let at = file.len();
    file.extend(interface);
    assert!(error(&file).starts_with(&format!("is damaged at byte {at}: one more interface")));
}

#[test]
fn a_claimed_length_takes_no_memory() {
    // The packet claims as much as is believed, and the file has none of it.
    let mut file = LITTLE.pcap(0xa1b2_c3d4, &[]);
    file.extend(LITTLE.u32s(&[0, 0, MAX_PACKET, 0]));
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(matches!(
        reader.next(),
        Err(CaptureError::Truncated {
            at: 40,
            began: 24,
            ..
        })
    ));
    assert!(reader.data.capacity() < 64);
    // A block of four gigabytes that is no packet is passed over: as far as the file goes.
    let file = [LITTLE.section(), LITTLE.u32s(&[0x7777, 0xffff_fff0])].concat();
    let mut reader = Reader::new((&file[..]).chain(io::repeat(0).take(10_000_000))).unwrap();
    assert!(matches!(
        reader.next(),
        Err(CaptureError::Truncated {
            at: 10_000_036,
            began: 28,
            ..
        })
    ));
    assert_eq!(reader.data.capacity(), 0);
}

/// Gives one byte at a time, and is interrupted before each.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = into.len().min(1);
        self.0.read(&mut into[..len])
    }
}

#[test]
fn a_source_that_fails_is_said_with_the_place() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let file = LITTLE.pcap(0xa1b2_c3d4, &[(0, 0, 1, &[1])]);
    let (seen, end) = read((&file[..]).chain(Broken));
    assert_eq!(seen.len(), 1);
    assert_eq!(
        end.unwrap_err().to_string(),
        "cannot be read at byte 41: the disk is gone"
    );
}

/// A file with every kind of block, or a pcap file.
fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let writer = any::<bool>().prop_map(|big| Writer { big });
    let data = proptest::collection::vec(any::<u8>(), 0..40);
    let parts = proptest::collection::vec((0..7u8, any::<u32>(), data), 0..12);
    (writer, any::<bool>(), parts).prop_map(|(writer, ng, parts)| {
        if !ng {
            let records: Vec<_> = parts
                .iter()
                .map(|(_, word, data)| (*word, 0, 60, &data[..]))
                .collect();
            return writer.pcap(0xa1b2_3c4d, &records);
        }
        let mut file = [writer.section(), writer.interface(ETHERNET, 30, &[])].concat();
        for (kind, word, data) in parts {
            file.extend(match kind {
                0 => [writer.section(), writer.interface(2, 0, &[(9, &[9])])].concat(),
                1 => writer.interface(word as u16, word, &[(2, &data), (9, &[6])]),
                2 => writer.block(word | 0x100, data),
                _ => writer.packet(0, u64::from(word), word, &data),
            });
        }
        file
    })
}

proptest! {
    #[test]
    fn a_file_cut_anywhere_gives_what_is_before(file in any_file(), cut in any::<prop::sample::Index>()) {
        let whole = packets(&file);
        let at = cut.index(file.len() + 1);
        let (before, end) = read(&file[..at]);
        prop_assert_eq!(&before[..], &whole[..before.len()]);
        match end {
            Ok(()) => (),
            Err(CaptureError::Truncated { at: said, .. }) => prop_assert_eq!(said, at as u64),
            Err(CaptureError::Empty) => prop_assert_eq!(at, 0),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn how_a_source_gives_its_bytes_does_not_matter(
        file in any_file(),
        byte in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut file = file;
        let at = byte.index(file.len());
        file[at] = value;
        let (fast, end) = read(&file[..]);
        let (slow, slow_end) = read(Slow(&file, false));
        prop_assert_eq!(&fast, &slow);
        prop_assert_eq!(format!("{end:?}"), format!("{slow_end:?}"));
        let held: usize = fast.iter().map(|packet| packet.3.len()).sum();
        prop_assert!(held <= file.len());
    }

    #[test]
    fn noise_is_survived(magic in 0..6usize, noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let heads = [
            vec![],
            LITTLE.pcap(0xa1b2_c3d4, &[]),
            BOTH[1].pcap(0xa1b2_3c4d, &[]),
            LITTLE.section(),
            [LITTLE.section(), LITTLE.interface(1, 0, &[])].concat(),
            LITTLE.u32s(&[SECTION]),
        ];
        let file = [&heads[magic][..], &noise].concat();
        let (seen, _) = read(&file[..]);
        let held: usize = seen.iter().map(|packet| packet.3.len()).sum();
        prop_assert!(held <= file.len());
    }
}
