//! Handshakes, where they can be seen: in the host's own TCP, and in SYN-ACKs that leave.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG,
    },
    helpers::generated::bpf_get_netns_cookie,
    programs::{SockOpsContext, TcContext},
};
use gateway_core::{
    frame::{Frame as _, Window as _},
    image::{Active, Control, flags, uses},
    judge, limit, proof,
    wire::{ethernet, ipv4, ipv6, tcp},
};

use crate::{
    PARSED, PacketPlace, blank, clock,
    environment::{self, Environment},
    frame::PacketFrame,
    parse_into, profiles,
    proofs::{self, Proofs},
};

/// Longer frames are no SYN-ACKs: 18 bytes of Ethernet, two tags, 40 of IPv6 and 60 of TCP make 126, and some extension headers fit.
const LONGEST: u32 = 256;
/// `AF_INET` (include/linux/socket.h).
const INET: u32 = 2;
/// `AF_INET6`.
const INET6: u32 = 10;

/// A frame leaves.
#[inline(always)]
pub(crate) fn leaving(context: &TcContext) {
    let now_ns = clock::now_ns();
    let number = Active::from_word(environment::control(Control::Active)).in_force(now_ns) & 1;
    let Some(generation) = proofs::generation(number) else {
        return;
    };
    let timed = generation.flags & flags::TIMES != 0;
    if !timed && context.len() > LONGEST || says_nothing(&PacketFrame::leaving(context), timed) {
        return;
    }
    // Headers that are not in the linear part yet are pulled there; those of what this host makes are.
    let length = context.len();
    let _ = context.pull_data(if length < LONGEST { length } else { LONGEST });
    let mut place = MaybeUninit::uninit();
    blank(&mut place);
    if weir_parse_leaving(context.as_ptr().cast(), place.as_mut_ptr()) == PARSED {
        weir_leaving(place.as_ptr(), number, now_ns);
    }
}

/// Whether a frame is, at a first look, TCP in its plainest framing with nothing in it for [`weir_leaving`]: neither a SYN nor,
/// where answers are timed, data. So nearly every frame ends here when nothing is timed.
#[inline(always)]
fn says_nothing(frame: &PacketFrame, timed: bool) -> bool {
    const V4: usize = ethernet::HEADER;
    const V4_TCP: usize = V4 + ipv4::HEADER;
    const V6: usize = ethernet::HEADER;
    const V6_TCP: usize = V6 + ipv6::HEADER;
    let (flags, header, payload) = if let Some(header) = frame.window::<{ V4_TCP + tcp::HEADER }>(0)
        && header.be16::<{ ethernet::TYPE }>() == ethernet::IPV4
        && header.byte::<{ V4 + ipv4::VERSION_IHL }>() == 0x45
        && header.byte::<{ V4 + ipv4::PROTOCOL }>() == ipv4::TCP
    {
        let total = header.be16::<{ V4 + ipv4::TOTAL_LENGTH }>();
        (
            header.byte::<{ V4_TCP + tcp::FLAGS }>(),
            header.byte::<{ V4_TCP + tcp::DATA_OFFSET }>(),
            total.wrapping_sub(ipv4::HEADER as u16),
        )
    } else if let Some(header) = frame.window::<{ V6_TCP + tcp::HEADER }>(0)
        && header.be16::<{ ethernet::TYPE }>() == ethernet::IPV6
        && header.byte::<{ V6 + ipv6::NEXT_HEADER }>() == ipv4::TCP
    {
        (
            header.byte::<{ V6_TCP + tcp::FLAGS }>(),
            header.byte::<{ V6_TCP + tcp::DATA_OFFSET }>(),
            header.be16::<{ V6 + ipv6::PAYLOAD_LENGTH }>(),
        )
    } else {
        return false;
    };
    let bare = payload == u16::from(header >> 4) * 4;
    flags & tcp::SYN == 0 && (bare || !timed)
}

/// Parses a frame that leaves. A global function, like the parsing in the XDP programs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_parse_leaving(context: *mut __sk_buff, place: *mut PacketPlace) -> u32 {
    parse_into(&PacketFrame::leaving(&TcContext::new(context)), place)
}

/// Remembers what a SYN-ACK offers, counts it, and times first answers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_leaving(place: *const PacketPlace, number: u32, now_ns: u64) -> u32 {
    let (Some(packet), Some(generation)) = (proofs::packet(place), proofs::generation(number)) else {
        return 0;
    };
    let syn_ack = packet.protocol == ipv4::TCP
        && packet.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK;
    if syn_ack && generation.flags & flags::OFFERS != 0 {
        proofs::offer(packet, now_ns);
    }
    profiles::leaving(
        packet,
        || profiles::subject(number, weir_answers_for(place, number)),
        syn_ack && generation.flags & flags::PROFILES != 0,
        generation.flags & flags::TIMES != 0,
        now_ns,
    );
    0
}

/// The service that a packet on its way out comes from: the one that its answer would belong to.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_answers_for(place: *const PacketPlace, number: u32) -> u32 {
    let (Some(packet), Some(environment)) = (
        proofs::packet(place),
        Environment::<{ uses::ALL }>::leaving(number),
    ) else {
        return 0;
    };
    judge::service(&environment, &packet.reversed())
}

/// Something happened to a TCP connection of this host.
#[inline(always)]
pub(crate) fn of_this_host(context: &SockOpsContext) {
    match context.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            if !is_ours(context) {
                return;
            }
            // From now on every round trip that is measured shows that the peer still receives at its address.
            let _ = context.set_cb_flags(BPF_SOCK_OPS_RTT_CB_FLAG.cast_signed());
            prove(context);
        }
        // Only connections of ours have the flag set.
        BPF_SOCK_OPS_RTT_CB => prove(context),
        _ => {}
    }
}

/// Whether a connection is in the network namespace that Weir serves.
#[inline(always)]
fn is_ours(context: &SockOpsContext) -> bool {
    let wanted = environment::control(Control::Namespace);
    // SAFETY: reads the namespace of the context's socket (kernel 5.15 for socket operations).
    wanted == 0 || wanted == unsafe { bpf_get_netns_cookie(context.as_ptr()) }
}

/// Proves the peer of a connection.
#[inline(always)]
fn prove(context: &SockOpsContext) {
    let ops = context.ops;
    let (v6, address) = match context.family() {
        // Word by word: the verifier allows no wider reads of this context.
        // SAFETY: the context that the kernel gave us.
        INET => (
            false,
            [unsafe { (&raw const (*ops).remote_ip4).read_volatile() }, 0, 0, 0],
        ),
        INET6 => {
            // SAFETY: as above.
            let words = unsafe {
                [
                    (&raw const (*ops).remote_ip6[0]).read_volatile(),
                    (&raw const (*ops).remote_ip6[1]).read_volatile(),
                    (&raw const (*ops).remote_ip6[2]).read_volatile(),
                    (&raw const (*ops).remote_ip6[3]).read_volatile(),
                ]
            };
            match limit::unmapped(words) {
                Some(v4) => (false, [v4, 0, 0, 0]),
                None => (true, words),
            }
        }
        _ => return,
    };
    let now_ns = clock::now_ns();
    let active = Active::from_word(environment::control(Control::Active)).in_force(now_ns) & 1;
    let Some(generation) = proofs::generation(active) else {
        return;
    };
    let hash = limit::hash_of_address(&proofs::key(), generation, v6, &address);
    proof::give(&Proofs, hash, now_ns);
}
