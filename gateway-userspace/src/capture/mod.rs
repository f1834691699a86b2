//! Capture files, read and written. Reading: pcap and pcapng, compressed with gzip or not, one packet at a time, from anything that can be read.
//!
//! The memory is bounded whatever a file claims: the longest packet ([`MAX_PACKET`]), the interfaces of one section
//! ([`MAX_INTERFACES`]) and buffers of 64 kB. What is no packet is passed over without being held. A file that ends too early gives
//! every packet before that, then an error that says where. What a frame means is not this module's business.
//!
//! No library, for those looked at hold whole blocks whatever their size, know no obsolete packet blocks, and say neither
//! where a file is damaged nor what was expected there.

mod error;
mod input;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod write;

use std::io::Read;

pub use self::error::CaptureError;
use self::input::Input;
pub use self::write::{Recorded, Writer};

/// The longest packet that is believed, in bytes: as long as the longest that tcpdump takes. A longer one means that the
/// file is damaged.
pub const MAX_PACKET: u32 = 256 * 1024;

/// The most interfaces that one section of a pcapng file may have.
pub const MAX_INTERFACES: usize = 4096;

/// The link type of Ethernet.
pub const ETHERNET: u16 = 1;

/// Which way a packet went, at the host that captured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It arrived.
    In,
    /// It left.
    Out,
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured, in nanoseconds since 1970; nothing in a pcapng file's simple packet blocks.
    pub time_ns: Option<u64>,
    /// What kind of link it was captured on ([`ETHERNET`]; others as tcpdump numbers them).
    pub link_type: u16,
    /// Which way it went, where a pcapng file says so.
    pub direction: Option<Direction>,
    /// Its length on the wire, in bytes.
    pub wire_len: u32,
    /// What was captured of it: all, or its beginning.
    pub data: &'a [u8],
}

impl Packet<'_> {
    /// Whether less of it was captured than there was on the wire.
    pub fn is_truncated(&self) -> bool {
        (self.data.len() as u64) < u64::from(self.wire_len)
    }
}

/// What a file says of a packet beside its bytes.
struct About {
    time_ns: Option<u64>,
    link_type: u16,
    direction: Option<Direction>,
    wire_len: u32,
}

/// Compressions that are known and not read here: how their files begin, their names, and what unpacks them.
const COMPRESSIONS: [(&[u8], &str, &str); 5] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -dc"),
    (&[0xfd, b'7', b'z', b'X'], "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", "lz4 -dc"),
    (&input::GZIP, "gzip twice", "gunzip -c"),
];

/// A capture that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    form: Form,
    data: Vec<u8>,
    over: bool,
}

#[derive(Debug)]
enum Form {
    Pcap(pcap::File),
    Pcapng(pcapng::Section),
}

impl<R: Read> Reader<R> {
    /// Reads the header. The source is buffered here; it need not be.
    ///
    /// # Errors
    /// Where it cannot be read, or does not begin as a pcap or pcapng file does.
    pub fn new(source: R) -> Result<Self, CaptureError> {
        let mut input = Input::new(source)?;
        input.begin("the file's header");
        if input.has_ended()? {
            return Err(CaptureError::Empty);
        }
        let magic = input.array::<4>()?;
        let form = if magic == pcapng::SECTION {
            Form::Pcapng(pcapng::Section::read(&mut input)?)
        } else if let Some(file) = pcap::File::read(&mut input, magic)? {
            Form::Pcap(file)
        } else if let Some((_, with, unpack)) = COMPRESSIONS
            .iter()
            .find(|(magic_of, ..)| magic.starts_with(magic_of))
        {
            return Err(CaptureError::Compressed { with, unpack });
        } else {
            return Err(CaptureError::NoCapture { found: magic });
        };
        Ok(Self {
            input,
            form,
            data: Vec::new(),
            over: false,
        })
    }

    /// The next packet, in the file's order; nothing at the end, and after an error.
    ///
    /// # Errors
    /// Where the file cannot be read, ends within a packet or a block, or is damaged. What comes after that is not looked
    /// for: a capture has no marks to find it by.
    #[allow(clippy::should_implement_trait, reason = "a packet borrows the reader")]
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        if self.over {
            return Ok(None);
        }
        // An error ends it, too.
        self.over = true;
        self.data.clear();
        let about = match &mut self.form {
            Form::Pcap(file) => file.next(&mut self.input, &mut self.data)?,
            Form::Pcapng(section) => section.next(&mut self.input, &mut self.data)?,
        };
        Ok(about.map(|about| {
            self.over = false;
            Packet {
                time_ns: about.time_ns,
                link_type: about.link_type,
                direction: about.direction,
                wire_len: about.wire_len,
                data: &self.data,
            }
        }))
    }
}
