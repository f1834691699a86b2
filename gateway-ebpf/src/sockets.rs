//! Whether a packet answers a socket of this host (`[default] replies = "socket"`).

use core::mem::zeroed;

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    programs::XdpContext,
};
use gateway_core::{
    packet::{Fragment, Network, Packet},
    wire::ipv4,
};

/// `TCP_LISTEN` (include/net/tcp_states.h): a listener asks for packets of strangers, it is not answered by them.
const TCP_LISTEN: u32 = 10;

/// Whether a packet belongs to a connection of this host: a TCP socket that is not a listener, or a UDP socket that is
/// connected to the sender. An unconnected UDP socket cannot be told from a server.
#[inline(always)]
pub(crate) fn answers(context: &XdpContext, packet: &Packet) -> bool {
    if matches!(packet.fragment, Fragment::Later) {
        return false;
    }
    // SAFETY: plain integers in a union of two plain structures; all zeros is a value of each.
    let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
    let size = if matches!(packet.network, Network::V6) {
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: packet.source,
            daddr: packet.destination,
            sport: packet.source_port.to_be(),
            dport: packet.destination_port.to_be(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    } else {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: packet.source[0],
            daddr: packet.destination[0],
            sport: packet.source_port.to_be(),
            dport: packet.destination_port.to_be(),
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } as u32;
    let namespace = BPF_F_CURRENT_NETNS as u64;
    let context = context.ctx.cast();
    // SAFETY: the helpers read the tuple, and every socket that they give is released before we return (kernel 4.20).
    unsafe {
        match packet.protocol {
            ipv4::TCP => {
                let socket: *mut bpf_sock = bpf_sk_lookup_tcp(context, &raw mut tuple, size, namespace, 0);
                if socket.is_null() {
                    return false;
                }
                let state = (&raw const (*socket).state).read_volatile();
                bpf_sk_release(socket.cast());
                state != TCP_LISTEN
            }
            ipv4::UDP => {
                let socket: *mut bpf_sock = bpf_sk_lookup_udp(context, &raw mut tuple, size, namespace, 0);
                if socket.is_null() {
                    return false;
                }
                // A lookup matches a connected socket only for its peer; unconnected ones have no peer port.
                let peer = (&raw const (*socket).dst_port).read_volatile();
                bpf_sk_release(socket.cast());
                peer != 0
            }
            _ => false,
        }
    }
}
