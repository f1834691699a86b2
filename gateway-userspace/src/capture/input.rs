//! Bytes in order, with the place where they stand in the file, and numbers in either byte order.

use std::io::{BufRead as _, BufReader, ErrorKind, Read};

use super::{CaptureError, MAX_PACKET};

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

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

/// A file's bytes, read once and in order.
#[derive(Debug)]
pub(super) struct Input<R> {
    source: BufReader<R>,
    at: u64,
    within: &'static str,
    began: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source: BufReader::with_capacity(BUFFER, source),
            at: 0,
            within: "the file",
            began: 0,
        }
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

    fn held(&mut self) -> Result<&[u8], CaptureError> {
        loop {
            match self.source.fill_buf() {
                // Asked again below: the borrow checker takes a borrow that is returned from a loop for one of every turn.
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(CaptureError::Io { at: self.at, error }),
            }
        }
        Ok(self.source.buffer())
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
            self.source.consume(now);
            self.at += now as u64;
            len -= now as u64;
        }
        Ok(())
    }
}
