//! The paths that show the traffic.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{answer, error::Failure, traffic::TrafficQuery};
use crate::controller::{Handle, engine::Engine};

/// What a query was read as.
type Asked = Result<Query<TrafficQuery>, QueryRejection>;

/// `GET /v1/sources`.
pub(super) async fn sources(State(at): State<Handle>, query: Asked) -> Response {
    look(at, query, Engine::heaviest_sources).await
}

/// `GET /v1/flows`.
pub(super) async fn flows(State(at): State<Handle>, query: Asked) -> Response {
    look(at, query, Engine::heaviest_flows).await
}

async fn look<T: Serialize + Send + 'static>(
    at: Handle,
    query: Asked,
    find: fn(&Engine, &TrafficQuery) -> Result<T, Failure>,
) -> Response {
    match query {
        Ok(Query(query)) => answer(at.call(move |engine| find(engine, &query)).await),
        Err(error) => Failure::invalid(error.body_text()).into_response(),
    }
}
