//! The one place that touches packet memory.

use core::{arch::asm, cell::Cell};

use aya_ebpf::{
    helpers::generated::bpf_xdp_get_buff_len,
    programs::{TcContext, XdpContext},
};
use gateway_core::frame::{Frame, MAX_OFFSET, Window};

/// The frame under a program.
pub(crate) struct PacketFrame {
    data: usize,
    end: usize,
    length: u32,
}

impl PacketFrame {
    /// A frame in one buffer.
    #[inline(always)]
    pub(crate) fn single(context: &XdpContext) -> Self {
        let (data, end) = (context.data(), context.data_end());
        // The difference of two packet pointers must be taken in 64 bits; narrowed before, it would spill half a pointer.
        Self {
            data,
            end,
            length: opaque(end - data) as u32,
        }
    }

    /// A frame that may continue in further buffers, which only its length shows.
    #[inline(always)]
    pub(crate) fn multiple(context: &XdpContext) -> Self {
        // SAFETY: the helper reads the context that the kernel gave us (kernel 5.18).
        let length = unsafe { bpf_xdp_get_buff_len(context.ctx) } as u32;
        Self {
            data: context.data(),
            end: context.data_end(),
            length,
        }
    }

    /// A frame on its way out, of which the linear part shows.
    #[inline(always)]
    pub(crate) fn leaving(context: &TcContext) -> Self {
        Self {
            data: context.data(),
            end: context.data_end(),
            length: context.len(),
        }
    }
}

impl PacketFrame {
    /// The window at a place, if the frame reaches so far.
    #[inline(always)]
    fn at<const N: usize>(&self, place: usize) -> Option<PacketWindow<N>> {
        // The compiler must not see that two windows are the same memory: it would compare one register with the end
        // and read through another, which the verifier has not seen compared.
        let place = opaque(place);
        if place + N > self.end {
            None
        } else {
            Some(PacketWindow(place))
        }
    }

    /// Of a benchmark: a number that looks random, from where the frame keeps the last one, four bytes of its Ethernet source, of which
    /// nothing else takes notice (xorshift, Marsaglia 2003: any but 0 comes once in 2³² − 1). A call of the kernel's random numbers
    /// costs as much as half of what is measured.
    #[inline(always)]
    pub(crate) fn draw(&self) -> u32 {
        const STATE: usize = 6;
        let Some(place) = self.head::<{ STATE + 4 }>() else {
            return 0;
        };
        let mut state = place.word::<STATE>();
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        place.put::<STATE>(state);
        state
    }
}

/// A value that the compiler knows nothing about. (An empty template would do, but breaks the BTF line info.)
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// Tells the compiler that somebody else may look at a value and change it, so that it is in memory from then on.
#[inline(always)]
pub(crate) fn in_memory<T>(value: &Cell<T>) {
    // SAFETY: moves a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value => _, options(nostack, preserves_flags)) };
}

/// `N` bytes of the packet that were compared with its end.
pub(crate) struct PacketWindow<const N: usize>(usize);

impl Frame for PacketFrame {
    type Window<const N: usize> = PacketWindow<N>;

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<PacketWindow<N>> {
        // Likewise the offset: the register that is bounded must be the one that is added.
        let offset = opaque(offset);
        if offset > MAX_OFFSET {
            return None;
        }
        self.at(self.data + offset)
    }

    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<PacketWindow<N>> {
        self.at(self.data)
    }

    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        weir_forget(offset as u64) as usize
    }
}

/// Its argument. What a global function returns, the verifier knows nothing of.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_forget(value: u64) -> u64 {
    opaque(value as usize) as u64
}

impl<const N: usize> PacketWindow<N> {
    /// Writes four bytes as they lie in memory.
    #[inline(always)]
    fn put<const AT: usize>(&self, value: u32) {
        const { assert!(AT + 4 <= N) };
        // SAFETY: `AT` and the three bytes behind it lie inside the `N` bytes that were compared with the packet's end.
        unsafe {
            asm!("*(u32 *)({place} + {at}) = {value}", value = in(reg) u64::from(value), place = in(reg) self.0, at = const AT,
                options(nostack, preserves_flags));
        }
    }
}

impl<const N: usize> Window for PacketWindow<N> {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        let value: u64;
        // SAFETY: `AT` lies inside the `N` bytes that were compared with the packet's end. A plain load would do for
        // one byte; the wider ones must not become byte loads, for packets are not aligned and the CPU does not mind.
        unsafe {
            asm!("{value} = *(u8 *)({place} + {at})", value = out(reg) value, place = in(reg) self.0, at = const AT,
                options(pure, readonly, nostack, preserves_flags));
        }
        value as u8
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N) };
        let value: u64;
        // SAFETY: as above.
        unsafe {
            asm!("{value} = *(u16 *)({place} + {at})", value = out(reg) value, place = in(reg) self.0, at = const AT,
                options(pure, readonly, nostack, preserves_flags));
        }
        u16::from_be(value as u16)
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N) };
        let value: u64;
        // SAFETY: as above.
        unsafe {
            asm!("{value} = *(u32 *)({place} + {at})", value = out(reg) value, place = in(reg) self.0, at = const AT,
                options(pure, readonly, nostack, preserves_flags));
        }
        value as u32
    }
}
