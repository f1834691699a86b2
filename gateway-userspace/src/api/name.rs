//! The name in a path such as `/v1/lists/{name}`.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use super::error::Failure;

/// A name; what cannot be one is refused as every wrong request is.
#[derive(Debug)]
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(_) => Err(Failure::invalid(
                "the name in the path is not UTF-8 in percent encoding",
            )),
        }
    }
}
