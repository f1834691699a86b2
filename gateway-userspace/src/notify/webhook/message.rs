//! What a message says.

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{anomalies::Anomaly, types::SCHEMA};

/// Something that happened, for the webhook to tell of if the policy wants it told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// The node.
    pub node: String,
    /// The service; `default` for none.
    pub service: String,
    /// When.
    pub at: Timestamp,
    /// What it is now; nothing when it is over.
    pub now: Option<Anomaly>,
    /// What it was before, at its worst; nothing if it begins.
    pub before: Option<Anomaly>,
}

/// What happened, as it is told: to whom only attacks are told, a crowd that turns into one begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    /// It begins.
    Began,
    /// It is of another kind now.
    Changed,
    /// It is over.
    Ended,
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Body<'a> {
    pub(super) schema: u32,
    pub(super) event: Event,
    /// Of this message, however often it is sent.
    pub(super) delivery: &'a str,
    /// Of the anomaly, from its beginning to its end.
    pub(super) id: &'a str,
    pub(super) at: Timestamp,
    pub(super) node: &'a str,
    pub(super) service: &'a str,
    /// What it is; of what is over, what it was at its worst.
    #[serde(flatten)]
    pub(super) anomaly: &'a Anomaly,
}

impl<'a> Body<'a> {
    /// The body that tells this of a message.
    pub(super) fn new(
        message: &'a Message,
        event: Event,
        anomaly: &'a Anomaly,
        id: &'a str,
        delivery: &'a str,
    ) -> Self {
        Self {
            schema: SCHEMA,
            event,
            delivery,
            id,
            at: message.at,
            node: &message.node,
            service: &message.service,
            anomaly,
        }
    }
}
