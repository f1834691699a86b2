//! Who must not be cut off: the operators' SSH sessions, this host's own addresses and its default gateways; and
//! whether a policy, its lists and its bans would do so.
//!
//! Who they are is read from the system ([`System`]); whether a packet of theirs would still pass is asked of the
//! decision function itself ([`cut`]), so that no rule of precedence is written down twice.

mod question;
mod sessions;
mod system;

use std::net::IpAddr;

pub(crate) use self::sessions::end as socket_address;
pub use self::{
    question::{Cut, cut},
    sessions::{Session, own_session},
    system::{System, ssh},
};
pub(crate) use self::{sessions::rows, system::socket_inode};

/// Somebody who must not be cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guarded {
    /// The SSH session that the request comes from.
    Own(Session),
    /// Another SSH session with this host.
    Other(Session),
    /// An address of this host.
    Local(IpAddr),
    /// A default gateway of this host.
    Gateway(IpAddr),
}

impl Guarded {
    /// The address whose packets must get through.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Own(session) | Self::Other(session) => session.peer.ip(),
            Self::Local(address) | Self::Gateway(address) => *address,
        }
    }

    /// What it is, in words that follow its address.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Own(_) => "the other end of your own SSH session",
            Self::Other(_) => "the other end of an SSH session with this host",
            Self::Local(_) => "an address of this host",
            Self::Gateway(_) => "a default gateway of this host",
        }
    }
}

/// Where the guarded are found; tests put their own.
pub trait Neighbours: Send {
    /// Everybody who is to be guarded now, besides the caller's own session. What cannot be found out is left out.
    fn look(&mut self) -> Vec<Guarded>;
}
