//! Weir's kernel half: the XDP entry points. What they decide, [`gateway_core`] decides; this crate gives it packet
//! bytes, maps, the clock and the compare-and-swap.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(
    internal_features,
    reason = "the BPF target has no atomic types; its compare-and-swap is an intrinsic"
)]

mod atomic;
mod buckets;
mod clock;
mod connections;
mod environment;
mod frame;
mod functions;
mod groups;
#[cfg(feature = "lru")]
mod lru;
mod maps;
mod profiles;
mod proofs;
mod samples;
mod sockets;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
        xdp_md,
    },
    macros::{classifier, sock_ops, xdp},
    programs::{SockOpsContext, TcContext, XdpContext},
};
use gateway_core::{
    frame::Frame as _,
    image::uses,
    judge,
    packet::{Fragment, Malformed, Network, Packet},
    parse::follow_into,
    plain::plain_into,
    verdict::Verdict,
};

use crate::{environment::Environment, frame::PacketFrame};

/// Frames in one buffer: every MTU up to what the driver takes without fragments. For every policy.
#[xdp]
#[inline(always)]
fn weir(context: XdpContext) -> u32 {
    of_one_buffer::<{ uses::ALL }>(&context)
}

/// The same, for policies of [`uses::FULL`].
#[xdp]
#[inline(always)]
fn weir_full(context: XdpContext) -> u32 {
    of_one_buffer::<{ uses::FULL }>(&context)
}

/// The same, for policies of [`uses::BASE`].
#[xdp]
#[inline(always)]
fn weir_base(context: XdpContext) -> u32 {
    of_one_buffer::<{ uses::BASE }>(&context)
}

/// The same, for policies of [`uses::LEAN`].
#[xdp]
#[inline(always)]
fn weir_lean(context: XdpContext) -> u32 {
    of_one_buffer::<{ uses::LEAN }>(&context)
}

/// Frames in several buffers (jumbo MTUs). Apart, because a driver that sees a program able to take such frames may
/// stop splitting super-frames for it.
#[xdp(frags)]
#[inline(always)]
fn weir_frags(context: XdpContext) -> u32 {
    of_several::<{ uses::ALL }>(&context)
}

/// The same, for policies of [`uses::FULL`].
#[xdp(frags)]
#[inline(always)]
fn weir_full_frags(context: XdpContext) -> u32 {
    of_several::<{ uses::FULL }>(&context)
}

/// The same, for policies of [`uses::BASE`].
#[xdp(frags)]
#[inline(always)]
fn weir_base_frags(context: XdpContext) -> u32 {
    of_several::<{ uses::BASE }>(&context)
}

/// The same, for policies of [`uses::LEAN`].
#[xdp(frags)]
#[inline(always)]
fn weir_lean_frags(context: XdpContext) -> u32 {
    of_several::<{ uses::LEAN }>(&context)
}

/// On the way out: what proves a source is the ACK that answers a SYN-ACK seen here. It decides nothing.
#[classifier]
fn weir_egress(context: TcContext) -> i32 {
    connections::leaving(&context);
    TC_ACT_UNSPEC
}

/// The host's own TCP: connections established, and round trips measured.
#[sock_ops]
fn weir_connections(context: SockOpsContext) -> u32 {
    connections::of_this_host(&context);
    1
}

/// Where a parsed packet is put: memory of a size that the verifier can read off the type.
pub(crate) type PacketPlace = [u64; 8];
const _: () = assert!(size_of::<Packet>() <= size_of::<PacketPlace>() && align_of::<Packet>() <= 8);

/// Zeros are a packet, the empty one but for its VLAN, and the words that a packet does not fill are zeros as well.
const _: () = {
    // SAFETY: evaluated by the compiler, which refuses zeros that are no packet.
    let zeros = unsafe { core::mem::zeroed::<Packet>() };
    assert!(matches!(zeros.network, Network::Other(0)) && matches!(zeros.fragment, Fragment::Whole));
};

/// What the parsing functions return besides the packet.
pub(crate) const PARSED: u32 = 0;

/// Parses a frame in one buffer. A global function, as those of [`functions`]: the verifier follows every framing once,
/// and what comes after starts from a packet that it knows nothing of, instead of from each of the framings.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_parse(context: *mut xdp_md, packet: *mut PacketPlace) -> u32 {
    parse_into(&PacketFrame::single(&XdpContext::new(context)), packet)
}

/// Parses a frame in several buffers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_parse_frags(context: *mut xdp_md, packet: *mut PacketPlace) -> u32 {
    parse_into(&PacketFrame::multiple(&XdpContext::new(context)), packet)
}

#[inline(always)]
pub(crate) fn parse_into(frame: &PacketFrame, place: *mut PacketPlace) -> u32 {
    if place.is_null() {
        return 1;
    }
    // SAFETY: not null, and of the size and alignment asserted above.
    let packet = unsafe {
        place.cast::<Packet>().write(Packet::EMPTY);
        &mut *place.cast::<Packet>()
    };
    match follow_into(frame, packet) {
        Ok(()) => PARSED,
        Err(malformed) => 1 + malformed as u32,
    }
}

/// Writes zeros into memory that a function is given, which kernels before 6.3 demand. Word by word and unseen by LLVM, which
/// would make a call of `memset` of it: that goes byte by byte, and was a fifth of all that a packet cost.
#[inline(always)]
pub(crate) fn blank(place: &mut MaybeUninit<PacketPlace>) {
    let words = place.as_mut_ptr().cast::<u64>();
    for at in 0..size_of::<PacketPlace>() / size_of::<u64>() {
        // SAFETY: a word of the place.
        unsafe { words.add(at).write_volatile(0) };
    }
}

#[inline(always)]
fn of_one_buffer<const MADE_FOR: u64>(context: &XdpContext) -> u32 {
    run::<MADE_FOR>(context, || PacketFrame::single(context), weir_parse)
}

#[inline(always)]
fn of_several<const MADE_FOR: u64>(context: &XdpContext) -> u32 {
    run::<MADE_FOR>(context, || PacketFrame::multiple(context), weir_parse_frags)
}

#[inline(always)]
fn run<const MADE_FOR: u64>(
    context: &XdpContext,
    frame: impl Fn() -> PacketFrame,
    parse: extern "C" fn(*mut xdp_md, *mut PacketPlace) -> u32,
) -> u32 {
    let mut place = MaybeUninit::uninit();
    blank(&mut place);
    let Some(mut environment) = Environment::<MADE_FOR>::new(context) else {
        // No policy is in force yet: Weir is attached only after one is, so this is nobody's packet.
        return XDP_PASS;
    };
    // Nearly every packet is spared a call.
    // SAFETY: of the size and alignment asserted above, and zeros, which are a packet.
    let packet = unsafe { &mut *place.as_mut_ptr().cast::<Packet>() };
    let plain = plain_into(&frame(), packet, uses::observed(MADE_FOR));
    let parsed = plain || parse(context.ctx, place.as_mut_ptr()) == PARSED;
    let (judgement, subject) = if parsed {
        // SAFETY: the function has written a packet.
        let packet = unsafe { &mut *place.as_mut_ptr().cast::<Packet>() };
        if maps::spread() != 0 {
            // Of a benchmark: the word that names an IPv4 source, and the /64 of an IPv6 one.
            let word = if matches!(packet.network, Network::V6) {
                1
            } else {
                0
            };
            packet.source[word] ^= frame().draw() & maps::spread();
        }
        if environment.expect(packet).is_none() {
            environment::note(judge::Event::Uncounted);
            return XDP_PASS;
        }
        judge::judge_for(&environment, packet)
    } else {
        let judgement = judge::judge_malformed(&environment, Malformed::BadHeader);
        (judgement, judge::Environment::subject(&environment, 0))
    };
    // Asked for only now: kept over the judgement it would take stack that kernel 6.1 does not have.
    let length = frame().length();
    environment.count(judgement, subject, length);
    environment.look_back(judgement, subject, length);
    match judgement.verdict {
        Verdict::Drop => XDP_DROP,
        Verdict::Pass | Verdict::WouldDrop => XDP_PASS,
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that read the clock and look up sockets are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
