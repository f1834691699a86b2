//! Captures of attacks, played into modelled traffic.

use std::{fs::File, net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use gateway_core::{
    frame::Slice,
    packet::{Fragment, Network, Packet},
    parse::parse,
    profile::reflects,
};
use gateway_detect::{Kind, Sighting};
use ipnet::IpNet;
use weir::capture::{ETHERNET, Reader};

use super::{
    random::Random,
    tally::{TCP, Tally, UDP},
};

/// What an attack sends to get amplified answers, and everything that follows from it, is UDP or ICMP.
const ICMP: u8 = 1;

/// A frame of a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    sighting: Sighting,
    ttl: u8,
    later: bool,
}

/// A capture of an attack.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    /// The file's name.
    pub(crate) name: String,
    /// What it is to be called.
    pub(crate) kind: Kind,
    pub(crate) frames: Vec<Frame>,
    /// Frames that are not of the attack: other conversations of the host, which the model stands for.
    pub(crate) others: usize,
    /// How long it is, on its own clock.
    pub(crate) seconds: f64,
}

/// An address as it lies in the packet.
fn address(packet: &Packet) -> Option<IpAddr> {
    let bytes = packet.source.map(u32::to_ne_bytes);
    match packet.network {
        Network::V4 => Some(IpAddr::from(bytes[0])),
        Network::V6 => {
            let mut all = [0; 16];
            for (to, from) in all.chunks_exact_mut(4).zip(bytes) {
                to.copy_from_slice(&from);
            }
            Some(IpAddr::from(all))
        }
        Network::Other(_) => None,
    }
}

fn cut(address: IpAddr, v4: u8, v6: u8) -> Option<IpNet> {
    let prefix = if address.is_ipv4() { v4 } else { v6 };
    IpNet::new(address, prefix).ok().map(|net| net.trunc())
}

/// Reads a capture. What it is an attack of is told by what most of its frames are: SYNs, UDP from ports that reflect (with
/// the fragments), or other UDP; the frames of other kinds are left out.
pub(crate) fn read(path: &Path) -> Result<Captured> {
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut reader = Reader::new(file).with_context(|| format!("{name}"))?;
    let mut frames = Vec::new();
    let (mut first, mut last) = (None, 0_u64);
    while let Some(captured) = reader.next().with_context(|| name.clone())? {
        if captured.link_type != ETHERNET {
            continue;
        }
        let frame = Slice {
            bytes: captured.data,
            wire_length: captured.wire_len.max(captured.data.len() as u32),
        };
        let Ok(packet) = parse(&frame) else { continue };
        let Some(address) = address(&packet) else { continue };
        let (Some(source), Some(network)) = (cut(address, 32, 64), cut(address, 24, 48)) else {
            continue;
        };
        last = captured.time_ns.unwrap_or(last);
        first = first.or(captured.time_ns);
        frames.push(Frame {
            sighting: Sighting {
                weight: 1.0,
                source,
                network,
                protocol: packet.protocol,
                source_port: packet.source_port,
                destination_port: packet.destination_port,
                length: packet.length,
                tcp_flags: packet.tcp_flags,
                connection: packet.connection,
                dropped: false,
                country: None,
            },
            ttl: packet.ttl,
            later: matches!(packet.fragment, Fragment::Later),
        });
    }
    let all = frames.len();
    let of = |test: &dyn Fn(&Frame) -> bool| frames.iter().filter(|frame| test(frame)).count();
    let syn = |frame: &Frame| frame.sighting.protocol == TCP && frame.sighting.connection;
    let udp = |frame: &Frame| matches!(frame.sighting.protocol, UDP | ICMP);
    let reflected = |frame: &Frame| {
        frame.sighting.protocol == UDP && (frame.later || reflects(frame.sighting.source_port))
    };
    let (syns, udps, reflecteds) = (of(&syn), of(&udp), of(&reflected));
    let kind = if syns >= udps {
        Kind::SynFlood
    } else if 2 * reflecteds >= udps {
        Kind::Reflection
    } else {
        Kind::UdpFlood
    };
    frames.retain(|frame| {
        if kind == Kind::SynFlood {
            syn(frame)
        } else {
            udp(frame)
        }
    });
    if frames.is_empty() {
        bail!("{name} holds neither SYNs nor UDP packets: give a capture of a flood, inbound only");
    }
    Ok(Captured {
        name,
        kind,
        others: all - frames.len(),
        seconds: last.saturating_sub(first.unwrap_or(last)) as f64 / 1e9,
        frames,
    })
}

/// A capture that is played at another pace, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Playback {
    pub(crate) frames: std::sync::Arc<[Frame]>,
    pub(crate) begins: f64,
    pub(crate) ends: f64,
    pub(crate) packets_per_second: f64,
    pub(crate) next: usize,
}

impl Playback {
    /// An interval of it; how many sources came, roughly.
    pub(crate) fn step(&mut self, random: &mut Random, at: f64, seconds: f64, tally: &mut Tally) -> f64 {
        if at < self.begins - 1e-6 || at >= self.ends - 1e-6 {
            return 0.0;
        }
        let count = random.poisson(self.packets_per_second * seconds) as usize;
        let mut syns = 0.0;
        for _ in 0..count {
            let frame = &self.frames[self.next];
            self.next = (self.next + 1) % self.frames.len();
            syns += f64::from(frame.sighting.protocol == TCP);
            tally.add_frame(frame.sighting, frame.ttl, frame.later);
        }
        // The host answers SYNs, and nobody hears it.
        tally.seen.syn_ack += syns;
        count as f64
    }
}
