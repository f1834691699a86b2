//! The classic format: one header, then records, all of one link type.

use std::io::Read;

use super::{
    About, CaptureError,
    input::{Input, Order},
};

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// What the header says.
#[derive(Debug)]
pub(super) struct File {
    order: Order,
    /// Nanoseconds in one unit of a record's fraction of a second.
    fraction_ns: u64,
    link_type: u16,
}

impl File {
    /// Reads the header after its first four bytes; nothing where these are of another format.
    pub(super) fn read<R: Read>(input: &mut Input<R>, magic: [u8; 4]) -> Result<Option<Self>, CaptureError> {
        let Some((order, fraction_ns)) =
            [Order::Little, Order::Big]
                .into_iter()
                .find_map(|order| match order.u32(magic) {
                    MICROSECONDS => Some((order, 1000)),
                    NANOSECONDS => Some((order, 1)),
                    _ => None,
                })
        else {
            return Ok(None);
        };
        let major = order.u16(input.array()?);
        if major != 2 {
            return Err(input.damaged(2, format!("version {major}"), "version 2"));
        }
        // The minor version, two fields that nobody fills in, and the longest packet that was to be captured.
        input.skip(2 + 4 + 4 + 4)?;
        // The upper half tells of checksums behind the frames.
        let link_type = order.u32(input.array()?) as u16;
        Ok(Some(Self {
            order,
            fraction_ns,
            link_type,
        }))
    }

    /// The next record, its bytes in `data`; nothing at the end.
    pub(super) fn next<R: Read>(
        &self,
        input: &mut Input<R>,
        data: &mut Vec<u8>,
    ) -> Result<Option<About>, CaptureError> {
        if input.has_ended()? {
            return Ok(None);
        }
        input.begin("a packet");
        let seconds = self.order.u32(input.array()?);
        let fraction = self.order.u32(input.array()?);
        let len = self.order.u32(input.array()?);
        input.check_len(len)?;
        let wire_len = self.order.u32(input.array()?);
        input.packet(len, data)?;
        // Below 2^32 × 10^9 + 2^32 × 10^3, which fits.
        let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.fraction_ns;
        Ok(Some(About {
            time_ns: Some(time_ns),
            link_type: self.link_type,
            direction: None,
            wire_len,
        }))
    }
}
