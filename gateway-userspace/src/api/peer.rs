//! Who asked, as the kernel says (`SO_PEERCRED`).

use std::fmt;

use crate::guard::Session;

/// The process at the other end of the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process id, where the kernel says.
    pub pid: Option<i32>,
    /// The SSH session that it runs in, where it says so.
    pub session: Option<Session>,
}

impl Peer {
    /// For the log: `uid 0, pid 4242`, or the controller itself for a change that nobody asked for.
    pub fn show(peer: Option<Self>) -> impl fmt::Display {
        peer.map_or_else(|| "weir itself".to_owned(), |peer| peer.to_string())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        match self.pid {
            Some(pid) => write!(f, ", pid {pid}"),
            None => Ok(()),
        }
    }
}
