//! `bans.json`: the bans on disk.
//!
//! Within one boot the kernel's clock is the truth, and ends come back to the nanosecond, whatever the wall clock does.
//! After a reboot that clock has started anew, and ends are worked out from the wall clock; one that was set back meanwhile
//! makes no ban longer than it was made for.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BanBook, BanRecord, Change, NEVER, Scope};

/// The state file.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SavedBans {
    /// The boot that every `until_ns` belongs to.
    pub boot_id: String,
    /// The bans.
    pub bans: Vec<SavedBan>,
}

/// One ban on disk.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SavedBan {
    /// The banned sources.
    pub prefix: IpNet,
    /// For which service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, on the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it ends, on the kernel's monotonic clock in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ns: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SavedBans {
    /// The name of the state file.
    pub const FILE: &str = "bans.json";

    /// What to write to disk.
    pub fn of(book: &BanBook, boot_id: &str) -> Self {
        let bans = book
            .iter()
            .map(|(prefix, scope, record)| SavedBan {
                prefix: *prefix,
                service: scope.clone(),
                created_at: record.created_at,
                until: record.until,
                until_ns: (record.until_ns != NEVER).then_some(record.until_ns),
                reason: record.reason.clone(),
            })
            .collect();
        Self {
            boot_id: boot_id.to_owned(),
            bans,
        }
    }

    /// The bans that have not ended yet.
    pub fn restore(self, boot_id: &str, now_ns: u64, wall: Timestamp) -> BanBook {
        // Of a boot without a name nothing is known.
        let same_boot = self.boot_id == boot_id && !boot_id.is_empty();
        let changes = self.bans.into_iter().filter_map(|ban| {
            let until_ns = match (ban.until, ban.until_ns) {
                (None, _) => NEVER,
                (Some(_), Some(until_ns)) if same_boot => until_ns,
                (Some(until), _) => {
                    let left = until
                        .duration_since(wall)
                        .min(until.duration_since(ban.created_at));
                    u64::try_from(left.as_nanos())
                        .ok()
                        .filter(|left| *left > 0)
                        .map(|left| now_ns.saturating_add(left))?
                }
            };
            (until_ns > now_ns).then(|| Change {
                prefix: ban.prefix.trunc(),
                scope: ban.service,
                record: Some(BanRecord {
                    until_ns,
                    until: ban.until,
                    created_at: ban.created_at,
                    reason: ban.reason,
                }),
            })
        });
        let mut book = BanBook::default();
        book.change(changes);
        book
    }
}
