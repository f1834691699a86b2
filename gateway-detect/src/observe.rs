//! What is seen of a service in an interval.

use gateway_core::profile::{SIZE_COUNTS, TTL_COUNTS};
use ipnet::IpNet;

/// A sampled packet of the service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sighting {
    /// The packets that it stands for.
    pub weight: f64,
    /// Its source, cut as `[source]` says.
    pub source: IpNet,
    /// Its source's network (/24 and /48 unless the service says otherwise).
    pub network: IpNet,
    /// The IP protocol.
    pub protocol: u8,
    /// The source port; 0 where there is none.
    pub source_port: u16,
    /// The destination port; 0 where there is none.
    pub destination_port: u16,
    /// Bytes of the frame.
    pub length: u32,
    /// TCP flags, or 0.
    pub tcp_flags: u8,
    /// It asks for a connection.
    pub connection: bool,
    /// It was, or would have been, dropped.
    pub dropped: bool,
    /// The country of the source, where a database says so: two letters.
    pub country: Option<[u8; 2]>,
}

/// What is seen of a service in an interval: counts of the kernel's profile, which are exact, and samples.
///
/// What `weir` itself let pass as an answer to a socket of this host is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// How long the interval was: a second, or a tenth of one.
    pub seconds: f64,
    /// Packets that arrived, whatever became of them.
    pub packets: f64,
    /// Bytes of those.
    pub bytes: f64,
    /// Packets by frame length ([`gateway_core::profile::SIZES`]).
    pub sizes: [f64; SIZE_COUNTS],
    /// Packets by TTL.
    pub ttls: [f64; TTL_COUNTS],
    /// TCP SYNs without ACK.
    pub syn: f64,
    /// SYN-ACKs that left; only where the host terminates the connections, or they pass through it both ways.
    pub syn_ack: f64,
    /// ACKs that answered one of those.
    pub first_ack: f64,
    /// TCP FINs.
    pub fin: f64,
    /// TCP RSTs.
    pub rst: f64,
    /// UDP packets, later fragments included.
    pub udp: f64,
    /// UDP packets from a port that reflects ([`gateway_core::profile::reflects`]).
    pub reflected: f64,
    /// IP fragments without ports (all but the first).
    pub fragments: f64,
    /// Packets that were dropped or would have been.
    pub dropped: f64,
    /// The mean handshake round trip of the interval, in seconds.
    pub handshake_seconds: Option<f64>,
    /// The mean time to the first byte of the response, in seconds.
    pub first_byte_seconds: Option<f64>,
    /// Different sources of the last whole minute, where they are counted.
    pub sources_per_minute: Option<f64>,
    /// Sampled packets.
    pub sightings: Vec<Sighting>,
}

impl Observation {
    /// Adds the packets of another interval to what invariants look at; its samples, sizes, TTLs and times are not joined.
    pub(crate) fn add_counts(&mut self, other: &Self) {
        let pairs = [
            (&mut self.seconds, other.seconds),
            (&mut self.packets, other.packets),
            (&mut self.bytes, other.bytes),
            (&mut self.syn, other.syn),
            (&mut self.syn_ack, other.syn_ack),
            (&mut self.first_ack, other.first_ack),
            (&mut self.fin, other.fin),
            (&mut self.rst, other.rst),
            (&mut self.udp, other.udp),
            (&mut self.reflected, other.reflected),
            (&mut self.fragments, other.fragments),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }

    /// Packets a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.packets / self.seconds
        } else {
            0.0
        }
    }
}
