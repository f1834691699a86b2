//! What `--listen` serves, read-only: `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Semaphore;

use crate::{
    api::error::Failure,
    controller::{Handle, engine::Engine},
    metrics,
};

/// How many requests ask the engine at once: whoever may connect here may ask as often as it likes, and must not keep those
/// waiting who change things.
const AT_ONCE: usize = 1;

/// The engine, and whose turn it is to ask it.
#[derive(Clone)]
struct Turns {
    handle: Handle,
    free: Arc<Semaphore>,
}

impl Turns {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _turn = self.free.acquire().await;
        self.handle.call(work).await
    }
}

/// The router of `--listen`.
pub(crate) fn router(handle: Handle) -> Router {
    let turns = Turns {
        handle,
        free: Arc::new(Semaphore::new(AT_ONCE)),
    };
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
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n")
        })
        .with_state(turns)
}

async fn show_metrics(State(turns): State<Turns>) -> Response {
    let observed = match turns.call(Engine::observe).await {
        Ok(observed) => observed,
        Err(failure) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")).into_response(),
    };
    match metrics::render(&observed) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(turns): State<Turns>) -> Response {
    match turns.call(|engine| Ok(engine.not_ready())).await {
        Ok(None) => "ready\n".into_response(),
        Ok(Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response(),
    }
}
