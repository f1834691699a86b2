//! The format of blocks: sections with byte orders of their own, interfaces with clocks of their own.

use std::io::Read;

use super::{
    About, CaptureError, Direction, MAX_INTERFACES,
    input::{Input, Order},
};

/// The type of a section header: the same in both byte orders.
pub(super) const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;

pub(super) const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const PACKET: u32 = 6;

const END_OF_OPTIONS: u16 = 0;
pub(super) const TIME_RESOLUTION: u16 = 9;
const TIME_OFFSET: u16 = 14;
/// Of a packet: flags, whose two lowest bits say which way it went.
pub(super) const PACKET_FLAGS: u16 = 2;

/// What every block has around its body: its type and twice its length.
const AROUND: u32 = 12;

/// The section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<Interface>,
}

#[derive(Debug)]
struct Interface {
    link_type: u16,
    /// The most that was captured of a packet; 0: all.
    snap_len: u32,
    /// Units of its clock in a second; 0: more than any time stamp has.
    units: u128,
    /// What its time stamps count from, in seconds since 1970.
    offset: i64,
}

impl Section {
    /// Reads a section's header after the block's type.
    pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<Self, CaptureError> {
        let length = input.array()?;
        let magic = input.array()?;
        let order = [Order::Little, Order::Big]
            .into_iter()
            .find(|order| order.u32(magic) == BYTE_ORDER)
            .ok_or_else(|| input.damaged(4, format!("{magic:02x?}"), "a section's byte order"))?;
        let mut block = Block::new(input, order, order.u32(length), 8)?;
        block.claim(4)?;
        let major = block.u16()?;
        if major != 1 {
            let found = format!("version {major}");
            return Err(block.input.damaged(2, found, "version 1"));
        }
        block.finish()?;
        Ok(Self {
            order,
            interfaces: Vec::new(),
        })
    }

    /// The next packet, its bytes in `data`; nothing at the end. Other blocks are taken in or passed over.
    pub(super) fn next<R: Read>(
        &mut self,
        input: &mut Input<R>,
        data: &mut Vec<u8>,
    ) -> Result<Option<About>, CaptureError> {
        while !input.has_ended()? {
            input.begin("a block");
            let kind = input.array()?;
            if kind == SECTION {
                *self = Self::read(input)?;
                continue;
            }
            let length = self.order.u32(input.array()?);
            let mut block = Block::new(input, self.order, length, 4)?;
            let about = match self.order.u32(kind) {
                INTERFACE => {
                    self.interface(&mut block)?;
                    None
                }
                PACKET => Some(self.packet(&mut block, data, false)?),
                OBSOLETE_PACKET => Some(self.packet(&mut block, data, true)?),
                SIMPLE_PACKET => Some(self.simple_packet(&mut block, data)?),
                _ => None,
            };
            block.finish()?;
            if about.is_some() {
                return Ok(about);
            }
        }
        Ok(None)
    }

    fn interface<R: Read>(&mut self, block: &mut Block<'_, R>) -> Result<(), CaptureError> {
        if self.interfaces.len() == MAX_INTERFACES {
            let found = "one more interface".to_owned();
            return Err(block.input.damaged(8, found, "at most 4,096 in a section"));
        }
        let link_type = block.u16()?;
        block.skip(2)?;
        let mut interface = Interface {
            link_type,
            snap_len: block.u32()?,
            units: 1_000_000,
            offset: 0,
        };
        while block.left >= 4 {
            let (code, len) = (block.u16()?, block.u16()?);
            match (code, len) {
                (END_OF_OPTIONS, _) => break,
                (TIME_RESOLUTION, 1) => interface.units = units(block.array::<4>()?[0]),
                (TIME_OFFSET, 8) => interface.offset = block.u64()?.cast_signed(),
                (TIME_RESOLUTION | TIME_OFFSET, _) => {
                    let found = format!("{len} bytes");
                    let expected = "1 for a clock's resolution or 8 for its offset";
                    return Err(block.input.damaged(2, found, expected));
                }
                _ => block.skip(u64::from(len).next_multiple_of(4))?,
            }
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn packet<R: Read>(
        &self,
        block: &mut Block<'_, R>,
        data: &mut Vec<u8>,
        obsolete: bool,
    ) -> Result<About, CaptureError> {
        let number = if obsolete {
            let number = block.u16()?;
            // How many were lost before it.
            block.skip(2)?;
            u32::from(number)
        } else {
            block.u32()?
        };
        let interface = self.of(number, block)?;
        let stamp = u64::from(block.u32()?) << 32 | u64::from(block.u32()?);
        let Some(time_ns) = interface.time_ns(stamp) else {
            let found = format!(
                "time {stamp} in units of 1/{} s, {} s after 1970",
                interface.units, interface.offset
            );
            return Err(block.input.damaged(8, found, "a time between 1970 and 2554"));
        };
        let len = block.u32()?;
        block.input.check_len(len)?;
        let wire_len = block.u32()?;
        block.packet(len, data)?;
        let direction = direction(len, block)?;
        Ok(About {
            time_ns: Some(time_ns),
            link_type: interface.link_type,
            direction,
            wire_len,
        })
    }

    fn simple_packet<R: Read>(
        &self,
        block: &mut Block<'_, R>,
        data: &mut Vec<u8>,
    ) -> Result<About, CaptureError> {
        let wire_len = block.u32()?;
        let interface = self.of(0, block)?;
        let len = match interface.snap_len {
            0 => wire_len,
            most => wire_len.min(most),
        };
        block.input.check_len(len)?;
        block.packet(len, data)?;
        Ok(About {
            time_ns: None,
            link_type: interface.link_type,
            direction: None,
            wire_len,
        })
    }

    fn of<R: Read>(&self, number: u32, block: &Block<'_, R>) -> Result<&Interface, CaptureError> {
        self.interfaces.get(number as usize).ok_or_else(|| {
            let found = format!("a packet of interface {number}");
            let expected = "an interface that the section has described before";
            block.input.damaged(4, found, expected)
        })
    }
}

impl Interface {
    /// A time stamp in nanoseconds since 1970; nothing where that is before then, or does not fit.
    fn time_ns(&self, stamp: u64) -> Option<u64> {
        const SECOND: i128 = 1_000_000_000;
        // 2^64 × 10^9 is below 2^94, and so is what the offset makes: nothing overflows here.
        let scaled = u128::from(stamp) * SECOND.unsigned_abs();
        let since = scaled.checked_div(self.units).unwrap_or(0).cast_signed();
        u64::try_from(since + i128::from(self.offset) * SECOND).ok()
    }
}

/// Looks in the options behind a packet of `len` bytes for which way it went. Options that do not fit the block say nothing: they
/// are not needed to judge the packet.
fn direction<R: Read>(len: u32, block: &mut Block<'_, R>) -> Result<Option<Direction>, CaptureError> {
    let padding = u64::from(len.next_multiple_of(4) - len);
    block.skip(padding.min(block.left))?;
    while block.left >= 4 {
        match (block.u16()?, block.u16()?) {
            (END_OF_OPTIONS, _) => break,
            (PACKET_FLAGS, 4) if block.left >= 4 => {
                return Ok(match block.u32()? & 3 {
                    1 => Some(Direction::In),
                    2 => Some(Direction::Out),
                    _ => None,
                });
            }
            (_, len) => block.skip(u64::from(len).next_multiple_of(4).min(block.left))?,
        }
    }
    Ok(None)
}

/// Units in a second of a clock with this `if_tsresol`: a negative power of ten, or with the highest bit set, of two.
fn units(resolution: u8) -> u128 {
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(resolution & 0x7f)).unwrap_or(0)
}

/// A block after its length: nothing is read past its end.
struct Block<'a, R> {
    input: &'a mut Input<R>,
    order: Order,
    length: u32,
    left: u64,
}

impl<'a, R: Read> Block<'a, R> {
    /// `since`: how many bytes were read from the length's beginning on.
    fn new(input: &'a mut Input<R>, order: Order, length: u32, since: u64) -> Result<Self, CaptureError> {
        if length < AROUND || !length.is_multiple_of(4) {
            let found = format!("a block of {length} bytes");
            return Err(input.damaged(since, found, "a multiple of 4 from 12 on"));
        }
        Ok(Self {
            input,
            order,
            length,
            left: u64::from(length - AROUND),
        })
    }

    /// Takes so many bytes from what is left of the body.
    fn claim(&mut self, len: u64) -> Result<(), CaptureError> {
        self.left = self.left.checked_sub(len).ok_or_else(|| {
            let found = format!("{} bytes up to the end of the block", self.left);
            self.input.damaged(0, found, "a longer block")
        })?;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        self.claim(N as u64)?;
        self.input.array()
    }

    fn u16(&mut self) -> Result<u16, CaptureError> {
        Ok(self.order.u16(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, CaptureError> {
        Ok(self.order.u32(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, CaptureError> {
        Ok(self.order.u64(self.array()?))
    }

    fn packet(&mut self, len: u32, data: &mut Vec<u8>) -> Result<(), CaptureError> {
        self.claim(u64::from(len))?;
        self.input.packet(len, data)
    }

    fn skip(&mut self, len: u64) -> Result<(), CaptureError> {
        self.claim(len)?;
        self.input.skip(len)
    }

    /// Passes over the rest of it. The length behind it must be the one before it: otherwise it did not end here.
    fn finish(self) -> Result<(), CaptureError> {
        self.input.skip(self.left)?;
        let again = self.order.u32(self.input.array()?);
        if again != self.length {
            let found = format!("length {again} behind a block of {}", self.length);
            return Err(self.input.damaged(4, found, "the same length"));
        }
        Ok(())
    }
}
