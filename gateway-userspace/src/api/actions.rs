//! What the controller says of the steps that it takes against attacks.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::model::AttackAction;

/// Whether something is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// A step is in force.
    InForce,
    /// None is; `why` says why.
    Withheld,
    /// The operator has undone it: nothing is done until the attack has ended.
    Undone,
}

/// What is done about an attack on a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionStatus {
    /// The service.
    pub service: String,
    /// The kind of the attack.
    pub kind: String,
    /// Since when it goes on.
    pub attack_since: Timestamp,
    /// What is done, or would be.
    pub action: AttackAction,
    /// Whether it is.
    pub state: ActionState,
    /// The scale of the service's limits, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Whom it bans from the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bans: Option<Vec<IpNet>>,
    /// The share of normal sources that it hits at most, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Seconds from now to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why this and no other, or why nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// `POST /v1/anomalies/undo`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// Only what was done about this service; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// What was undone, as it was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionsUndone {
    /// [`super::types::SCHEMA`].
    pub schema: u32,
    /// Each service's.
    pub undone: Vec<ActionStatus>,
}
