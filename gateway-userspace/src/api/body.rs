//! Request bodies: bounded in size and time, JSON, and refused in one clear sentence.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{error::Failure, types::code};

/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_mins(1);
/// Bodies up to this size are parsed on the spot; larger ones off the event loop.
const PARSED_AT_ONCE: usize = 64 << 10;

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
    match tokio::time::timeout(ARRIVES_WITHIN, Limited::new(body, mib << 20).collect()).await {
        Err(_) => Err(Failure::new(
            code::TIMEOUT,
            "the request's body did not arrive within 60 s",
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            code::TOO_LARGE,
            format!("the request's body is larger than the {mib} MiB allowed here"),
        )),
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
