//! Who asked, as the kernel says (`SO_PEERCRED`).

use std::{fmt, fs, io::Read as _};

use crate::{guard::Session, state::By};

/// How many characters of a command line are kept.
const COMMAND: usize = 200;

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
    /// A process of a user.
    pub fn new(uid: u32, pid: Option<i32>) -> Self {
        Self {
            uid,
            pid,
            session: None,
        }
    }

    /// Whether it may change things: root, and the user that the controller runs as. Who may connect may read.
    pub fn may_change(self) -> bool {
        self.uid == 0 || self.uid == nix::unistd::geteuid().as_raw()
    }

    /// For the history: with the command line, where it can still be read.
    pub fn describe(self) -> By {
        By {
            uid: self.uid,
            pid: self.pid,
            command: self.pid.and_then(command),
        }
    }

    /// For the log: `uid 0, pid 4242`, or the controller itself for a change that nobody asked for.
    pub fn show(peer: Option<Self>) -> impl fmt::Display {
        peer.map_or_else(|| "weir itself".to_owned(), |peer| peer.to_string())
    }
}

/// The command line of a process, its arguments joined by blanks, on one line and cut off.
fn command(pid: i32) -> Option<String> {
    let file = fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut bytes = Vec::new();
    file.take(4 * COMMAND as u64).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    let line: String = words
        .join(" ")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(COMMAND)
        .collect();
    (!line.is_empty()).then_some(line)
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
