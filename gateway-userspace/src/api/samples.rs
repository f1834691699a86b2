//! The sampled packets themselves.

use std::{fmt::Write as _, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    LONGEST_WAIT, answer,
    error::Failure,
    types::{SCHEMA, code},
};
use crate::{controller::Handle, traffic::Named};

/// The most samples in one answer.
const SAMPLES: usize = 1_000;

/// The query of `GET /v1/samples`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesQuery {
    /// Only samples after this number; absent: none yet, only the number to begin at.
    pub after: Option<u64>,
    /// At most so many, 1 to 1000; absent: 100.
    pub limit: Option<usize>,
    /// How long to wait while there is none, 0 to 20; absent: 0.
    pub wait_seconds: Option<u64>,
    /// Only of packets that were dropped, or would have been under `monitor`.
    pub dropped: Option<bool>,
    /// Only with one of these reasons, separated by commas.
    pub reason: Option<String>,
    /// Only of this service (`default` for none).
    pub service: Option<String>,
    /// Only from within this address or prefix.
    pub source: Option<String>,
    /// Only of this interface.
    pub interface: Option<String>,
}

/// `GET /v1/samples`: oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SamplesAnswer {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One packet in so many is sampled at present; 0: sampling is off.
    pub one_in: u32,
    /// The samples.
    pub samples: Vec<SampleTold>,
    /// What to ask for as `after` next.
    pub next: u64,
    /// Samples, wanted or not, that came after `after` and are not kept any more.
    pub missed: u64,
    /// True when the controller is stopping: there will be no more.
    pub ended: bool,
}

/// A sampled packet.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SampleTold {
    /// When it came.
    pub at: Timestamp,
    /// The interface.
    pub interface: String,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// The service; `default` for none.
    pub service: String,
    /// The class; empty for none.
    pub class: String,
    /// How many packets it stands for.
    pub one_in: u32,
    /// The frame's length from the Ethernet header on, in bytes.
    pub length: u32,
    /// The frame's first bytes, at most 128, in hexadecimal.
    pub bytes: String,
}

impl SampleTold {
    fn of(named: &Named) -> Self {
        let head = &named.sample.head;
        let mut bytes = String::with_capacity(named.sample.bytes.len() * 2);
        for byte in &named.sample.bytes {
            let _ = write!(bytes, "{byte:02x}");
        }
        Self {
            at: named.at,
            interface: named.interface.to_string(),
            verdict: named.verdict.name().to_owned(),
            reason: named.reason.name().to_owned(),
            service: named.service.to_string(),
            class: named.class.to_string(),
            one_in: head.one_in,
            length: head.length,
            bytes,
        }
    }

    /// The frame's first bytes; nothing where `bytes` is not hexadecimal.
    pub fn frame(&self) -> Option<Vec<u8>> {
        let digits = self.bytes.as_bytes();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits
            .len()
            .is_multiple_of(2)
            .then(|| digits.chunks(2).map(pair).collect())?
    }
}

/// `GET /v1/samples`.
pub(super) async fn samples(
    State(at): State<Handle>,
    query: Result<Query<SamplesQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => answer(find(&at, query).await),
        Err(error) => Failure::invalid(error.body_text()).into_response(),
    }
}

async fn find(at: &Handle, query: SamplesQuery) -> Result<SamplesAnswer, Failure> {
    let limit = query.limit.unwrap_or(100);
    let wait = query.wait_seconds.unwrap_or(0);
    if !(1..=SAMPLES).contains(&limit) || wait > LONGEST_WAIT {
        let message = format!("limit must be 1 to {SAMPLES}, and wait_seconds 0 to {LONGEST_WAIT}");
        return Err(Failure::invalid(message));
    }
    let after = query.after;
    let (wanted, traffic, one_in) = at.call(move |engine| engine.select_samples(&query)).await?;
    let recent = traffic.recent();
    let mut found = SamplesAnswer {
        schema: SCHEMA,
        one_in,
        ..SamplesAnswer::default()
    };
    let Some(after) = after else {
        (found.next, found.ended) = (recent.newest(), recent.is_closed());
        return Ok(found);
    };
    let until = Instant::now() + Duration::from_secs(wait);
    let _place = match wait {
        0 => None,
        _ => Some(recent.place().ok_or_else(|| {
            Failure::new(code::CONFLICT, "too many follow the samples already")
                .hint("end one of them, or ask without wait_seconds")
        })?),
    };
    found.next = after;
    loop {
        // Before the look: what came before the end is looked at.
        found.ended = recent.is_closed();
        let page = recent.after(found.next, limit, &wanted);
        found.next = page.next;
        found.missed += page.missed;
        found.samples = page.samples.iter().map(SampleTold::of).collect();
        let done = !found.samples.is_empty() || found.missed > 0 || found.ended;
        if done || Instant::now() >= until {
            return Ok(found);
        }
        recent.wait(found.next, until).await;
    }
}
