//! Request bodies: bounded in size and time, JSON, and refused in one clear sentence.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::{error::Failure, types::code};

/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_mins(1);
/// Bodies up to this size are parsed on the spot; larger ones off the event loop.
const PARSED_AT_ONCE: usize = 64 << 10;
/// Bodies that may be large (larger than this, or of unknown length) are taken a few at a time: they are held in memory.
const LARGE: u64 = 1 << 20;
/// How many of those.
static LARGE_AT_ONCE: Semaphore = Semaphore::const_new(4);

/// A JSON body of at most `MIB` mebibytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonBody<T, const MIB: usize>(pub T);

impl<S: Sync, T: DeserializeOwned + Send + 'static, const MIB: usize> FromRequest<S> for JsonBody<T, MIB> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = collect(request.into_body(), MIB).await?;
        let value = if bytes.len() <= PARSED_AT_ONCE {
            parse(&bytes)?
        } else {
            tokio::task::spawn_blocking(move || parse(&bytes))
                .await
                .map_err(|_| Failure::internal("the controller is stopping"))??
        };
        Ok(Self(value))
    }
}

async fn collect(body: Body, mib: usize) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure::new(
            code::TOO_LARGE,
            format!("the request's body is larger than the {mib} MiB allowed here"),
        )
    };
    let announced = body.size_hint();
    if announced.lower() > (mib as u64) << 20 {
        return Err(too_large());
    }
    let large = announced.upper().is_none_or(|most| most > LARGE);
    let arrive = async {
        // It is never closed; and to wait for it is part of the time that a body has.
        let _turn = if large {
            LARGE_AT_ONCE.acquire().await.ok()
        } else {
            None
        };
        Limited::new(body, mib << 20).collect().await
    };
    match tokio::time::timeout(ARRIVES_WITHIN, arrive).await {
        Err(_) => Err(Failure::new(
            code::TIMEOUT,
            "the request's body did not arrive within 60 s",
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Failure::invalid(format!(
            "the request's body did not arrive whole: {error}"
        ))),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::invalid(format!("the request's body is not what this path takes: {error}"))
            .hint("GET /v1/openapi.json describes every request")
    })
}
