//! Bytes in order, with the place where they stand in the file, and numbers in either byte order.

use std::io::{BufReader, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use super::{CaptureError, MAX_PACKET};

/// How much is read at once.
const BUFFER: usize = 64 * 1024;
/// What a gzip file begins with (RFC 1952, 2.3.1).
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The order of a number's bytes, as the capturing machine had it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }
}

/// The source after the first bytes that were looked at.
type Whole<R> = std::io::Chain<Cursor<Vec<u8>>, R>;

/// Where the bytes come from.
#[derive(Debug)]
enum Source<R> {
    Plain(Whole<R>),
    /// Compressed, in one member or several.
    Gzip(Box<MultiGzDecoder<BufReader<Whole<R>>>>),
}

/// A file's bytes, read once and in order. Of a compressed file, the unpacked ones.
#[derive(Debug)]
pub(super) struct Input<R> {
    source: Source<R>,
    buffer: Box<[u8]>,
    /// What of the buffer is read from the source and not yet taken.
    from: usize,
    to: usize,
    at: u64,
    within: &'static str,
    began: u64,
}

impl<R: Read> Input<R> {
    /// Looks at the first two bytes to tell whether they are compressed.
    pub(super) fn new(mut source: R) -> Result<Self, CaptureError> {
        let mut head = Vec::with_capacity(GZIP.len());
        let read = (&mut source).take(GZIP.len() as u64).read_to_end(&mut head);
        read.map_err(|error| CaptureError::Io { at: 0, error })?;
        let packed = head == GZIP;
        let whole = Cursor::new(head).chain(source);
        let source = if packed {
            let buffered = BufReader::with_capacity(BUFFER, whole);
            Source::Gzip(Box::new(MultiGzDecoder::new(buffered)))
        } else {
            Source::Plain(whole)
        };
        Ok(Self {
            source,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            from: 0,
            to: 0,
            at: 0,
            within: "the file",
            began: 0,
        })
    }

    /// Says what begins at the next byte, for the error if the file ends within it.
    pub(super) fn begin(&mut self, what: &'static str) {
        (self.within, self.began) = (what, self.at);
    }

    /// Whether there are no more bytes.
    pub(super) fn has_ended(&mut self) -> Result<bool, CaptureError> {
        Ok(self.held()?.is_empty())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        // Nearly always they are all in the buffer.
        if let Some(bytes) = self.buffer[self.from..self.to].first_chunk() {
            let array = *bytes;
            self.take(N);
            return Ok(array);
        }
        let (mut array, mut filled) = ([0; N], 0);
        self.pass(N as u64, |bytes| {
            array[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        })?;
        Ok(array)
    }

    /// Appends a packet's bytes to `data`, which grows no faster than they come.
    pub(super) fn packet(&mut self, len: u32, data: &mut Vec<u8>) -> Result<(), CaptureError> {
        self.pass(u64::from(len), |bytes| data.extend_from_slice(bytes))
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), CaptureError> {
        self.pass(len, |_| ())
    }

    /// The error for a field of `len` bytes that has just been read.
    pub(super) fn damaged(&self, len: u64, found: String, expected: &'static str) -> CaptureError {
        CaptureError::Damaged {
            at: self.at - len,
            found,
            expected,
        }
    }

    /// Fails for a packet's length, just read, that is not believed.
    pub(super) fn check_len(&self, len: u32) -> Result<(), CaptureError> {
        if len > MAX_PACKET {
            let found = format!("a packet of {len} bytes");
            return Err(self.damaged(4, found, "one of at most 262,144"));
        }
        Ok(())
    }

    /// What the buffer holds, filled anew where that is nothing; nothing at the end.
    fn held(&mut self) -> Result<&[u8], CaptureError> {
        while self.from == self.to {
            let (read, packed) = match &mut self.source {
                Source::Plain(source) => (source.read(&mut self.buffer), false),
                Source::Gzip(source) => (source.read(&mut self.buffer), true),
            };
            match read {
                Ok(0) => break,
                Ok(len) => (self.from, self.to) = (0, len),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if packed && is_of_gzip(&error) => {
                    return Err(CaptureError::Gzip { at: self.at, error });
                }
                Err(error) => return Err(CaptureError::Io { at: self.at, error }),
            }
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn take(&mut self, len: usize) {
        self.from += len;
        self.at += len as u64;
    }

    fn pass(&mut self, mut len: u64, mut sink: impl FnMut(&[u8])) -> Result<(), CaptureError> {
        while len > 0 {
            let held = self.held()?;
            if held.is_empty() {
                return Err(CaptureError::Truncated {
                    at: self.at,
                    within: self.within,
                    began: self.began,
                });
            }
            let now = held.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            sink(&held[..now]);
            self.take(now);
            len -= now as u64;
        }
        Ok(())
    }
}

/// Whether an error says that what is compressed is damaged or ends too early, not that reading failed.
fn is_of_gzip(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof
    )
}
