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
    image::{Active, Control},
    limit,
    packet::Packet,
    parse::parse,
    proof::{self, Tables as _},
};

use crate::{
    PacketPlace, environment,
    frame::PacketFrame,
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
    if context.len() <= LONGEST {
        // Headers that are not in the linear part yet are pulled there; those of a SYN-ACK that this host makes are.
        let _ = context.pull_data(context.len());
        let now_ns = environment::now_ns();
        weir_offer(context.as_ptr().cast(), now_ns);
    }
}

/// Remembers what a SYN-ACK offers. A global function, like the parsing in the XDP programs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_offer(context: *mut __sk_buff, now_ns: u64) -> u32 {
    let mut place = MaybeUninit::<PacketPlace>::zeroed();
    let frame = PacketFrame::leaving(&TcContext::new(context));
    if let Ok(packet) = parse(&frame) {
        // SAFETY: of the size and alignment asserted where the type is defined.
        unsafe { place.as_mut_ptr().cast::<Packet>().write(packet) };
        // SAFETY: written just above.
        let packet = unsafe { &*place.as_ptr().cast::<Packet>() };
        proof::offer(&Proofs, &proofs::key(), now_ns, packet);
    }
    0
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
    let now_ns = environment::now_ns();
    let active = Active::from_word(environment::control(Control::Active)).in_force(now_ns) & 1;
    let Some(generation) = proofs::generation(active) else {
        return;
    };
    let hash = limit::hash_of_address(&proofs::key(), generation, v6, &address);
    if let Some(line) = Proofs.proofs(hash) {
        proof::prove(&line, hash, now_ns);
    }
}
