//! Events: what changed, when, who asked and why.
//!
//! - `log` takes events in, within a rate, and keeps the last of them in memory for whoever asks
//! - `file` writes them as JSON lines, in files that are rotated by size, on a thread of its own
//!
//! Recording never waits: not for the disk, not for a follower.

mod file;
mod log;

use std::{fs, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::log::{EventLog, Page};
use crate::api::{anomalies::Anomaly, peer::Peer};

/// What kind of event it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The controller started.
    Started,
    /// The controller is stopping; enforcement stays on unless a `detach` follows.
    Stopped,
    /// A policy came into force.
    Policy,
    /// A policy was refused, and what was in force stays.
    PolicyRefused,
    /// Sources were banned.
    Ban,
    /// A ban was taken back.
    Unban,
    /// Bans ended by themselves.
    BanEnded,
    /// A list changed.
    List,
    /// A lever was pulled, or all were cleared.
    Lever,
    /// The kernel began to block a source.
    Block,
    /// Enforcement is on at an interface.
    Attach,
    /// Enforcement is off at an interface.
    Detach,
    /// Something is wrong.
    Fault,
    /// It is right again.
    Mended,
    /// What was put in force cuts somebody off who is guarded.
    LockOut,
    /// A service's traffic departs from the usual, or does so in another way now.
    AnomalyBegan,
    /// It does not any more.
    AnomalyEnded,
    /// A step against an attack was taken.
    ActionTaken,
    /// None was, though the policy says so.
    ActionWithheld,
    /// A step against an attack is over.
    ActionEnded,
    /// Events above the rate were only counted.
    Suppressed,
}

impl Kind {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Policy => "policy",
            Self::PolicyRefused => "policy_refused",
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::BanEnded => "ban_ended",
            Self::List => "list",
            Self::Lever => "lever",
            Self::Block => "block",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Fault => "fault",
            Self::Mended => "mended",
            Self::LockOut => "lock_out",
            Self::AnomalyBegan => "anomaly_began",
            Self::AnomalyEnded => "anomaly_ended",
            Self::ActionTaken => "action_taken",
            Self::ActionWithheld => "action_withheld",
            Self::ActionEnded => "action_ended",
            Self::Suppressed => "suppressed",
        }
    }
}

/// Who caused an event.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "snake_case")]
pub enum Actor {
    /// A process that asked on the control socket.
    User {
        /// Its user.
        uid: u32,
        /// Its process id, where the kernel says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// The name of its program, where it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// The packet path.
    Kernel,
    /// The controller itself.
    Controller,
}

impl Actor {
    /// Whoever asked; nobody is the controller itself. The name of the program is the process's at this moment.
    pub fn of(peer: Option<Peer>) -> Self {
        let Some(Peer { uid, pid, .. }) = peer else {
            return Self::Controller;
        };
        let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        let command = command.map(|name| name.trim_end().replace(char::is_control, "?"));
        Self::User { uid, pid, command }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; they count up, also across restarts with the same state directory.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// An event on its way into the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What kind of event it is.
    pub kind: Kind,
    /// Who caused it.
    pub by: Actor,
    /// What happened, in one line.
    pub what: String,
    /// Why: the reason that was given, or the limit that was exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The sources it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The list it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// The interface it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The guarded address it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The revision of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Until when it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How many it stands for, where that is more than one or what was suppressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What departs from the usual, and how: as it began, or, when it is over, as it was at its worst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Box<Anomaly>>,
}

impl Entry {
    /// An event of this kind that the controller caused by itself.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            by: Actor::Controller,
            what: what.into(),
            why: None,
            prefix: None,
            service: None,
            list: None,
            interface: None,
            address: None,
            revision: None,
            until: None,
            count: None,
            anomaly: None,
        }
    }

    /// The same, caused by whoever asked.
    #[must_use]
    pub fn by(mut self, peer: Option<Peer>) -> Self {
        self.by = Actor::of(peer);
        self
    }

    /// The same with a reason.
    #[must_use]
    pub fn why(mut self, why: Option<String>) -> Self {
        self.why = why;
        self
    }
}
