//! Verdicts and the reasons for them.

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Verdict {
    /// It passes.
    Pass = 0,
    /// It is dropped.
    Drop = 1,
    /// It passes, and would be dropped were the mode not `monitor` (or its source outside `enforce_share`).
    WouldDrop = 2,
}

impl Verdict {
    /// Its name in metrics and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why: every packet has one of these and no other.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])* $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in metrics and output.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Admitted by every bucket it met, or no service and the default is to pass.
    Pass = 0, "pass";
    /// Not in the policy's `[scope]`.
    OutOfScope = 1, "out_of_scope";
    /// Management traffic.
    Protect = 2, "protect";
    /// The source is in a list with `action = "trust"`.
    Trust = 3, "trust";
    /// What a network needs to work.
    Essential = 4, "essential";
    /// It answers a socket of this host.
    Reply = 5, "reply";
    /// The emergency lever is pulled.
    Bypass = 6, "bypass";
    /// It cannot be parsed.
    Malformed = 7, "malformed";
    /// A dynamic ban.
    Ban = 8, "ban";
    /// A list with `action = "drop"`, or not in the service's `only` lists.
    List = 9, "list";
    /// The source is blocked whole for a while.
    Block = 10, "block";
    /// The source's packets.
    SourcePackets = 11, "source_packets";
    /// The source's bytes.
    SourceBytes = 12, "source_bytes";
    /// The source's new connections.
    SourceConnections = 13, "source_connections";
    /// Its network's packets.
    NetworkPackets = 14, "network_packets";
    /// Its network's bytes.
    NetworkBytes = 15, "network_bytes";
    /// Its network's new connections.
    NetworkConnections = 16, "network_connections";
    /// The class's packets.
    ClassPackets = 17, "class_packets";
    /// The class's bytes.
    ClassBytes = 18, "class_bytes";
    /// The class's new connections.
    ClassConnections = 19, "class_connections";
    /// The service's packets.
    TotalPackets = 20, "total_packets";
    /// The service's bytes.
    TotalBytes = 21, "total_bytes";
    /// The service's new connections.
    TotalConnections = 22, "total_connections";
    /// A stranger met the reserve of the service's packets.
    ReservePackets = 23, "reserve_packets";
    /// A stranger met the reserve of the service's bytes.
    ReserveBytes = 24, "reserve_bytes";
    /// A stranger met the reserve of the service's new connections.
    ReserveConnections = 25, "reserve_connections";
    /// No service, and the default is to drop.
    DefaultDrop = 26, "default_drop";
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether it drops (or would).
    pub const fn drops(self) -> bool {
        self as u8 >= Self::Malformed as u8
    }

    /// The reason of a reserve, by kind.
    pub const fn of_reserve(kind: usize) -> Self {
        match kind {
            0 => Self::ReservePackets,
            1 => Self::ReserveBytes,
            _ => Self::ReserveConnections,
        }
    }

    /// The reason of a bucket: `tier` 0 to 3 (source, network, class, total), `kind` 0 to 2 (packets, bytes,
    /// connections).
    pub const fn of_bucket(tier: usize, kind: usize) -> Self {
        match (tier, kind) {
            (0, 0) => Self::SourcePackets,
            (0, 1) => Self::SourceBytes,
            (0, _) => Self::SourceConnections,
            (1, 0) => Self::NetworkPackets,
            (1, 1) => Self::NetworkBytes,
            (1, _) => Self::NetworkConnections,
            (2, 0) => Self::ClassPackets,
            (2, 1) => Self::ClassBytes,
            (2, _) => Self::ClassConnections,
            (_, 0) => Self::TotalPackets,
            (_, 1) => Self::TotalBytes,
            (_, _) => Self::TotalConnections,
        }
    }
}
