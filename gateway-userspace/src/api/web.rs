//! What `--listen` serves, read-only: `/metrics`, `/healthz` and `/readyz`.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    controller::{Handle, engine::Engine},
    metrics,
};

/// The router of `--listen`.
pub(crate) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n",
            )
        })
        .with_state(handle)
}

async fn show_metrics(State(handle): State<Handle>) -> Response {
    let observed = match handle.call(Engine::observe).await {
        Ok(observed) => observed,
        Err(failure) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")).into_response(),
    };
    match metrics::render(&observed) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(handle): State<Handle>) -> Response {
    match handle.call(|engine| Ok(engine.not_ready())).await {
        Ok(None) => "ready\n".into_response(),
        Ok(Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response(),
    }
}
