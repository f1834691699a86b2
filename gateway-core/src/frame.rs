//! Where packet bytes come from.
//!
//! A parser asks for a window of fixed size at an offset and then reads fields at constant places inside it: one bounds
//! check a header, which is also the shape that the BPF verifier follows (compute a bounded pointer, compare it with
//! the end, read at constant offsets).

/// A received frame, starting at its Ethernet header.
pub trait Frame {
    /// A window of `N` bytes.
    type Window<const N: usize>: Window;

    /// The frame's whole length in bytes, from the Ethernet header on, also where only its beginning is readable.
    fn length(&self) -> u32;

    /// The `N` bytes at `offset`, or nothing if the frame ends before or `offset` is beyond [`MAX_OFFSET`].
    fn window<const N: usize>(&self, offset: usize) -> Option<Self::Window<N>>;

    /// The first `N` bytes, or nothing if there are fewer.
    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<Self::Window<N>> {
        self.window(0)
    }

    /// The same offset. The kernel half makes its verifier forget what it knows of it, or it would follow every sum of
    /// header lengths apart.
    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        offset
    }
}

/// Bytes at constant places. A place that does not lie inside the window is a programming error: the host's
/// implementation panics on it, and every place is a constant that the tests reach.
pub trait Window {
    /// The byte at `AT`.
    fn byte<const AT: usize>(&self) -> u8;

    /// The big-endian 16-bit number at `AT`.
    fn be16<const AT: usize>(&self) -> u16;

    /// The four bytes at `AT` as they lie in memory; addresses are kept so, because tables are keyed by them.
    fn word<const AT: usize>(&self) -> u32;

    /// The big-endian 32-bit number at `AT`.
    #[inline(always)]
    fn be32<const AT: usize>(&self) -> u32 {
        u32::from_be(self.word::<AT>())
    }
}

/// No header that Weir reads begins beyond this offset: eight encapsulations, and eight extension headers of up to 2 kB
/// would end far beyond, but a chain that long is malformed.
pub const MAX_OFFSET: usize = 2047;

/// The host's frame: a slice, and the length that the frame had on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The bytes that are there.
    pub bytes: &'a [u8],
    /// The length on the wire, at least `bytes.len()`.
    pub wire_length: u32,
}

impl<'a> Slice<'a> {
    /// A frame that is wholly there.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            wire_length: bytes.len() as u32,
        }
    }
}

/// A window into a [`Slice`].
#[derive(Clone, Copy, Debug)]
pub struct SliceWindow<'a, const N: usize>(&'a [u8; N]);

impl<'a> Frame for Slice<'a> {
    type Window<const N: usize> = SliceWindow<'a, N>;

    fn length(&self) -> u32 {
        self.wire_length
    }

    fn window<const N: usize>(&self, offset: usize) -> Option<SliceWindow<'a, N>> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.bytes
            .get(offset..offset.checked_add(N)?)?
            .try_into()
            .ok()
            .map(SliceWindow)
    }
}

impl<const N: usize> Window for SliceWindow<'_, N> {
    fn byte<const AT: usize>(&self) -> u8 {
        self.0[AT]
    }

    fn be16<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes([self.0[AT], self.0[AT + 1]])
    }

    fn word<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]])
    }
}
