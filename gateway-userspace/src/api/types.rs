//! What the controller's socket says and hears: one type for every request and every answer.
//!
//! HTTP/1.1 over a Unix socket, JSON bodies. Every answer is one object with `"schema": 1`. Keys are the policy's keys
//! and the metrics' labels (`service`, `list`, `interface`, `xdp_mode`, …); times are RFC 3339 in UTC, durations are
//! whole seconds, prefixes are canonical. An error answers `{"schema": 1, "error": {"code", "message", "hint"}}`
//! ([`ErrorAnswer`]) with a matching HTTP status. Keys without a value are left out.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`StatusAnswer`] |
//! | `GET /v1/policy` | | [`PolicyAnswer`] |
//! | `POST /v1/policy/apply` | [`PolicyApplyRequest`] | [`PolicyApplied`] |
//! | `POST /v1/policy/confirm` | [`PolicyConfirmRequest`] | [`PolicyConfirmed`] |
//! | `POST /v1/policy/rollback` | [`PolicyRollbackRequest`] | [`PolicyRolledBack`] |
//! | `GET /v1/policy/history` | | [`HistoryAnswer`] |
//! | `GET /v1/bans` | | [`BansAnswer`] |
//! | `POST /v1/bans` | [`BansRequest`] | [`BansAdded`] |
//! | `DELETE /v1/bans` | [`UnbanRequest`] | [`Unbanned`] |
//! | `GET /v1/lists` | | [`ListsAnswer`] |
//! | `GET /v1/lists/{name}` | | [`ListAnswer`] |
//! | `POST /v1/lists/{name}/replace` | [`ListReplaceRequest`] | [`ListChanged`] |
//! | `POST /v1/lists/{name}/add` | [`ListAddRequest`] | [`ListChanged`] |
//! | `POST /v1/lists/{name}/remove` | [`ListRemoveRequest`] | [`ListChanged`] |
//! | `GET /v1/levers` | | [`LeversAnswer`] |
//! | `POST /v1/levers` | [`LeverRequest`] | [`LeversAnswer`] |
//! | `DELETE /v1/levers` | | [`LeversCleared`] |
//! | `POST /v1/detach` | [`DetachRequest`] | [`Detached`] |
//! | `GET /v1/events` | | [`EventsAnswer`] |
//! | `GET /v1/sources` | | [`super::traffic::SourcesAnswer`] |
//! | `GET /v1/flows` | | [`super::traffic::FlowsAnswer`] |
//! | `GET /v1/explain` | | [`super::explain::ExplainAnswer`] |
//! | `GET /v1/samples` | | [`super::samples::SamplesAnswer`] |
//! | `GET /v1/services` | | [`super::traffic::ServicesAnswer`] |
//! | `GET /v1/anomalies` | | [`super::anomalies::AnomaliesAnswer`] |
//! | `POST /v1/anomalies/accept` | [`super::anomalies::AnomalyAcceptRequest`] | [`super::anomalies::AnomalyAccepted`] |
//! | `POST /v1/anomalies/undo` | [`super::actions::UndoRequest`] | [`super::actions::ActionsUndone`] |
//! | `GET /v1/openapi.json` | | the OpenAPI document |

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    events::Event,
    kernel::{Losses, SourceSlots, XdpMode},
    policy::model::{ListAction, Mode, OnLoss},
};

use super::actions::ActionStatus;
use super::anomalies::AnomalySummary;
pub use super::revisions::{
    HistoryAnswer, PolicyConfirmRequest, PolicyConfirmed, PolicyPending, PolicyRollbackRequest,
    PolicyRolledBack, RevisionStatus,
};

/// The version of every body on this page; it changes when a key changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// The values of [`ErrorBody::code`].
pub mod code {
    /// The policy does not validate (422); `details` has one line an error.
    pub const INVALID_POLICY: &str = "invalid_policy";
    /// The request's body or one of its values is wrong (400).
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// The caller may read and not change (403).
    pub const FORBIDDEN: &str = "forbidden";
    /// No such path, service, list or ban (404).
    pub const NOT_FOUND: &str = "not_found";
    /// The path exists, this method on it does not (405).
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// What is asked contradicts what is in force (409).
    pub const CONFLICT: &str = "conflict";
    /// It would change nothing, and the message says why (422).
    pub const NO_EFFECT: &str = "no_effect";
    /// The body, a list or the policy is larger than allowed (413).
    pub const TOO_LARGE: &str = "too_large";
    /// A safety check refused it (422); the hint says how to insist.
    pub const REFUSED: &str = "refused";
    /// The request took too long to arrive (408).
    pub const TIMEOUT: &str = "timeout";
    /// The kernel or the disk refused, and the message says what (500).
    pub const INTERNAL: &str = "internal";
}

/// An error.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong and what to do next.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One of [`code`], for programs.
    pub code: String,
    /// One sentence, for people.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// One line for each single fault, where there are several (`invalid_policy`, a feed of prefixes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// False when [`Self::problems`] is not empty.
    pub ok: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Weir's version.
    pub version: String,
    /// When this controller started.
    pub started_at: Timestamp,
    /// For how long it has run.
    pub uptime_seconds: u64,
    /// The interfaces under enforcement.
    pub attachments: Vec<AttachmentStatus>,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The span that the rates of [`Self::services`] were measured over, in seconds; 0 when there is no rate yet.
    pub rates_over_seconds: f64,
    /// The services in the order of the policy, then `default` (traffic to no service).
    pub services: Vec<ServiceStatus>,
    /// The levers in force.
    pub levers: Vec<LeverStatus>,
    /// What is done, or not done, about attacks.
    #[serde(default)]
    pub actions: Vec<ActionStatus>,
    /// Bans in force.
    pub bans: u64,
    /// Lists that the policy declares.
    pub lists: u64,
    /// Events that the kernel could only count, since its maps were created.
    pub losses: Losses,
    /// How full the source table is (read at most every 10 s).
    pub source_slots: SourceSlots,
    /// What is said of how many services: anomalies.
    #[serde(default)]
    pub anomalies: AnomalySummary,
    /// What this start could not take over from the one before, and what was lost by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// What happens without this controller, and who may talk to it.
    pub controller: ControllerStatus,
}

/// `[controller]` of the policy in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// What the kernel does when no controller has reported for a while.
    pub on_loss: OnLoss,
    /// After how many seconds of silence, with `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<u64>,
    /// The group whose members may connect to the control socket, where the policy names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_group: Option<String>,
}

/// One interface under enforcement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// Its name.
    pub interface: String,
    /// Its index; 0 when it has vanished.
    pub ifindex: u32,
    /// The mode it is attached in.
    pub xdp_mode: XdpMode,
    /// False when the interface has vanished.
    pub present: bool,
    /// Why native mode was not possible, when `auto` fell back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// What the mode means for the policy, where it means something (generic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The policy in force, without its text.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Counts the applies, from 1, across restarts.
    pub revision: u64,
    /// SHA-256 of the text in force, in hexadecimal.
    pub sha256: String,
    /// The file that the text came from.
    pub path: String,
    /// When it was put in force.
    pub applied_at: Timestamp,
    /// That it waits for confirmation, and until when; absent: it is in force for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PolicyPending>,
    /// The mode of the whole node.
    pub mode: Mode,
    /// True when the controller's policy file says something else than what is in force (or cannot be read).
    pub differs_from_file: bool,
    /// Why, in one sentence, when it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// The counters of one service, over all interfaces and classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The service; `default` for none.
    pub service: String,
    /// Its own mode (of this and the policy's, the safer wins); for `default` the policy's.
    pub mode: Mode,
    /// What passed.
    pub pass: Volume,
    /// What was dropped.
    pub drop: Volume,
    /// What would have been dropped, and passed.
    pub would_drop: Volume,
    /// Packets received a second, lately.
    pub packets_per_second: f64,
    /// Bytes received a second, lately.
    pub bytes_per_second: f64,
    /// Packets dropped a second, lately.
    pub drops_per_second: f64,
    /// Packets that would have been dropped a second, lately.
    pub would_drops_per_second: f64,
    /// What was dropped, by reason.
    pub drops: BTreeMap<String, Volume>,
    /// What would have been dropped, by reason.
    pub would_drops: BTreeMap<String, Volume>,
    /// What is said of its traffic: `quiet`, `crowd`, `attack`, `stealth` or `learning`; absent where it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The kind of an attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// `GET /v1/policy`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PolicyAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its revision, place and state.
    #[serde(flatten)]
    pub policy: PolicyStatus,
    /// The text in force.
    pub text: String,
}

/// `POST /v1/policy/apply`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyApplyRequest {
    /// The policy file's text, at most 16 MiB.
    pub text: String,
    /// Its absolute path: errors name it, and list files are relative to its folder.
    pub path: String,
    /// Go back to the policy before it unless it is confirmed within so many seconds, 1 to 3,600; absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_seconds: Option<u64>,
    /// Also when that cuts off an SSH session, an address of the host or its default gateway.
    #[serde(default)]
    pub force: bool,
}

/// The policy is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyApplied {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its new revision.
    pub revision: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// Services in force.
    pub services: u64,
    /// Prefixes in lists, after merging.
    pub prefixes: u64,
    /// How long the compilation and the switch took, in seconds (a fraction).
    pub took_seconds: f64,
    /// That it waits for confirmation, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PolicyPending>,
    /// What is allowed and probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// A ban.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// The banned sources.
    pub prefix: IpNet,
    /// The service it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// When it was made (or last renewed).
    pub created_at: Timestamp,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The time left; absent: it never ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why, as whoever made it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/bans`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BansAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Every ban, by prefix and service.
    pub bans: Vec<Ban>,
}

/// `POST /v1/bans`. One wrong prefix or service refuses the whole request; nothing is banned then.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BansRequest {
    /// The bans, in order.
    pub bans: Vec<BanRequest>,
    /// Also make those that would do nothing now (protected, or covered by a ban that lasts at least as long), and those
    /// that cut off an SSH session, an address of the host or its default gateway.
    #[serde(default)]
    pub force: bool,
}

/// One ban to make.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// An address or a prefix, without host bits.
    pub prefix: String,
    /// The service it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How long it lasts, 1 to 315,360,000 (ten years); absent: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Why, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of the bans. When every single one would do nothing the answer is the error `no_effect` instead.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BansAdded {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Bans that are new.
    pub added: u64,
    /// Bans of a prefix that had one already and now lasts longer.
    pub renewed: u64,
    /// Bans that were not made because they would do nothing.
    pub ineffective: Vec<IneffectiveBan>,
    /// What to know about those that were made (`monitor`, partly protected), one sentence each.
    pub warnings: Vec<String>,
}

/// A ban that was not made.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct IneffectiveBan {
    /// The sources.
    pub prefix: IpNet,
    /// The service it was for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Why it would do nothing, in one sentence.
    pub why: String,
}

/// `DELETE /v1/bans` (with a body).
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbanRequest {
    /// The ban's own prefix.
    pub prefix: String,
    /// The service it is for; absent: the ban for all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// The ban is gone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Unbanned {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it was.
    pub ban: Ban,
    /// A ban that still holds all of this prefix, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still_covered_by: Option<Ban>,
}

/// Where a list's content comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListOrigin {
    /// The policy's prefixes and files, with what was added and removed since.
    Policy,
    /// A live replacement.
    Live,
}

/// One list, without its prefixes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListStatus {
    /// Its name.
    pub list: String,
    /// What it does by itself; absent: only classes and `only` use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ListAction>,
    /// Many clients behind each address.
    pub proxy: bool,
    /// Prefixes in force.
    pub prefixes: u64,
    /// The most prefixes it may hold.
    pub max_prefixes: u64,
    /// Counts the live changes; 0: never changed live.
    pub revision: u64,
    /// When its content last changed: a live change, an expiry or the apply of the policy.
    pub changed_at: Timestamp,
    /// Where the content comes from.
    pub source: ListOrigin,
    /// Prefixes that were added with an expiry.
    pub temporary: u64,
}

/// `GET /v1/lists`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListsAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The lists that the policy declares, in its order.
    pub lists: Vec<ListStatus>,
}

/// `GET /v1/lists/{name}`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The list.
    pub list: ListStatus,
    /// Every prefix in force, in order.
    pub prefixes: Vec<IpNet>,
    /// Those that expire.
    pub temporary: Vec<TemporaryPrefix>,
}

/// A prefix that leaves its list by itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TemporaryPrefix {
    /// The prefix.
    pub prefix: IpNet,
    /// When it leaves.
    pub until: Timestamp,
    /// The time left.
    pub seconds_left: u64,
}

/// `POST /v1/lists/{name}/replace`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListReplaceRequest {
    /// The whole new content: addresses and prefixes, without host bits.
    pub prefixes: Vec<String>,
    /// The largest change allowed: prefixes added and removed, over the prefixes before, in per cent. Absent: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_change_percent: Option<f64>,
    /// Take it even when it is empty, changes more than that, or cuts off an SSH session, an address of the host or its
    /// default gateway.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/lists/{name}/add`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAddRequest {
    /// Addresses and prefixes, without host bits.
    pub prefixes: Vec<String>,
    /// How long they stay, 1 to 315,360,000 (ten years); absent: until they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u64>,
    /// Also when that cuts off an SSH session, an address of the host or its default gateway.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/lists/{name}/remove`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRemoveRequest {
    /// Addresses and prefixes, as they stand in the list.
    pub prefixes: Vec<String>,
    /// Also when that cuts off an SSH session, an address of the host or its default gateway.
    #[serde(default)]
    pub force: bool,
}

/// The list is changed, and in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ListChanged {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The list as it is now.
    pub list: ListStatus,
    /// Prefixes that were not in it before.
    pub added: u64,
    /// Prefixes that are no longer in it.
    pub removed: u64,
}

/// `POST /v1/levers`: takes the place of a running lever of the same kind for the same service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "lever", rename_all = "lowercase", deny_unknown_fields)]
pub enum LeverRequest {
    /// Pass everything.
    Bypass {
        /// Only this service; absent: the whole node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Also what bans and drop lists name.
        #[serde(default)]
        all: bool,
        /// How long, 1 to 86,400.
        for_seconds: u64,
    },
    /// Multiply every rate and burst of a service.
    Scale {
        /// The service.
        service: String,
        /// The factor in per cent, 1 to 10,000.
        percent: u32,
        /// How long, 1 to 86,400.
        for_seconds: u64,
    },
}

/// A lever in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "lever", rename_all = "lowercase")]
pub enum LeverStatus {
    /// Everything passes.
    Bypass {
        /// Only this service; absent: the whole node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Also what bans and drop lists name.
        all: bool,
        /// When it ends.
        until: Timestamp,
        /// The time left.
        seconds_left: u64,
    },
    /// Every rate and burst of a service is multiplied.
    Scale {
        /// The service.
        service: String,
        /// The factor in per cent.
        percent: u32,
        /// When it ends.
        until: Timestamp,
        /// The time left.
        seconds_left: u64,
    },
}

/// `GET /v1/levers`, and the answer to `POST`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LeversAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The levers in force.
    pub levers: Vec<LeverStatus>,
    /// What else was done for it, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `DELETE /v1/levers`: every lever is off.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LeversCleared {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The levers that were in force.
    pub cleared: Vec<LeverStatus>,
}

/// `POST /v1/detach`: this controller does not attach them again.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// The interfaces; empty: every one.
    #[serde(default)]
    pub interfaces: Vec<String>,
}

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this number, oldest first; absent: the newest ones.
    pub after: Option<u64>,
    /// At most so many, 1 to 1000; absent: 100.
    pub limit: Option<usize>,
    /// Without `after`: only events from this time on.
    pub since: Option<Timestamp>,
    /// With `after`: how long to wait for one when there is none, at most 20; absent: 0.
    pub wait_seconds: Option<u64>,
}

/// `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The number to ask on `after`.
    pub next: u64,
    /// Events after the number asked for that the controller does not have in memory any more.
    pub missed: u64,
    /// True when the controller is stopping: no more will come.
    pub ended: bool,
}

/// Enforcement is off there.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Detached {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The interfaces that were attached and no longer are.
    pub detached: Vec<String>,
    /// The interfaces that are still attached.
    pub remaining: Vec<String>,
}
