//! What traffic is made of, in numbers that do not depend on how much there is.

/// The features.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Feature {
    /// Handshakes completed, of SYNs.
    Completion,
    /// SYNs, of all packets.
    SynShare,
    /// Packets from networks that were not met in seven days.
    NewSources,
    /// Packets a source.
    PacketsPerSource,
    /// Concentration of sources (the probability that two packets have the same source).
    Concentration,
    /// Similarity of the rates of sources.
    Similarity,
    /// Divergence of the frame lengths from the learned ones.
    SizeDivergence,
    /// Divergence of the TTLs from the learned ones.
    TtlDivergence,
    /// Concentration of source ports.
    PortConcentration,
    /// UDP packets from ports that reflect, and fragments.
    ReflectedShare,
    /// UDP, of all packets.
    UdpShare,
    /// Bytes a packet.
    BytesPerPacket,
    /// Packets a connection.
    PacketsPerConnection,
    /// Response times.
    ResponseTime,
    /// Divergence of the countries from the learned ones.
    CountryDivergence,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Completion,
        Self::SynShare,
        Self::NewSources,
        Self::PacketsPerSource,
        Self::Concentration,
        Self::Similarity,
        Self::SizeDivergence,
        Self::TtlDivergence,
        Self::PortConcentration,
        Self::ReflectedShare,
        Self::UdpShare,
        Self::BytesPerPacket,
        Self::PacketsPerConnection,
        Self::ResponseTime,
        Self::CountryDivergence,
    ];

    /// Its name, as in labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::SynShare => "syn_share",
            Self::NewSources => "new_sources",
            Self::PacketsPerSource => "packets_per_source",
            Self::Concentration => "concentration",
            Self::Similarity => "similarity",
            Self::SizeDivergence => "size_divergence",
            Self::TtlDivergence => "ttl_divergence",
            Self::PortConcentration => "port_concentration",
            Self::ReflectedShare => "reflected_share",
            Self::UdpShare => "udp_share",
            Self::BytesPerPacket => "bytes_per_packet",
            Self::PacketsPerConnection => "packets_per_connection",
            Self::ResponseTime => "response_time",
            Self::CountryDivergence => "country_divergence",
        }
    }
}
