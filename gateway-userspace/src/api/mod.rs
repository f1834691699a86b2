//! The controller's socket: its paths, what they take and answer, and how they are served.

pub mod actions;
pub mod anomalies;
mod body;
mod crowd;
pub mod error;
pub mod explain;
mod look;
mod name;
mod patience;
pub(crate) mod peer;
pub mod prefix;
mod revisions;
mod rights;
pub mod samples;
pub(crate) mod server;
pub mod traffic;
pub mod types;
pub(crate) mod web;

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::header::CONTENT_TYPE,
    middleware::from_fn,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post},
};
use serde::Serialize;

use self::{
    actions::UndoRequest,
    anomalies::{AnomaliesQuery, AnomalyAcceptRequest},
    body::JsonBody,
    error::Failure,
    explain::ExplainQuery,
    name::Name,
    peer::Peer,
    rights::Right,
    types::{
        BansRequest, DetachRequest, EventsAnswer, EventsQuery, LeverRequest, ListAddRequest,
        ListRemoveRequest, ListReplaceRequest, PolicyApplyRequest, PolicyConfirmRequest,
        PolicyRollbackRequest, SCHEMA, UnbanRequest, code,
    },
};
use crate::controller::{Handle, engine::Engine};

/// The description of every path, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// One path, its method (lower case), who may use it and what answers.
struct Route {
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the OpenAPI document is tested against it")
    )]
    method: &'static str,
    path: &'static str,
    right: Right,
    handler: MethodRouter<Handle>,
}

/// The table that the router is built from, with the right that each path takes, and that the `OpenAPI` document is tested
/// against.
fn routes() -> Vec<Route> {
    let route = |method, path, handler| Route {
        method,
        path,
        right: Right::of(method),
        handler,
    };
    vec![
        route(
            "get",
            "/v1/status",
            get(async |State(at): Get| answer(at.call(Engine::status).await)),
        ),
        route(
            "get",
            "/v1/policy",
            get(async |State(at): Get| answer(at.call(|engine| Ok(engine.policy())).await)),
        ),
        route("post", "/v1/policy/apply", post(apply)),
        route("post", "/v1/policy/confirm", post(confirm)),
        route("post", "/v1/policy/rollback", post(rollback)),
        route(
            "get",
            "/v1/policy/history",
            get(async |State(at): Get| answer(at.call(|engine| Ok(engine.show_history())).await)),
        ),
        route(
            "get",
            "/v1/bans",
            get(async |State(at): Get| answer(at.call(|engine| Ok(engine.list_bans())).await)),
        ),
        route("post", "/v1/bans", post(ban)),
        route("delete", "/v1/bans", delete(unban)),
        route(
            "get",
            "/v1/lists",
            get(async |State(at): Get| answer(at.call(|engine| Ok(engine.show_lists())).await)),
        ),
        route("get", "/v1/lists/{name}", get(show_list)),
        route("post", "/v1/lists/{name}/replace", post(list_replace)),
        route("post", "/v1/lists/{name}/add", post(list_add)),
        route("post", "/v1/lists/{name}/remove", post(list_remove)),
        route(
            "get",
            "/v1/levers",
            get(async |State(at): Get| answer(at.call(|engine| engine.show_levers()).await)),
        ),
        route("post", "/v1/levers", post(pull_lever)),
        route("delete", "/v1/levers", delete(clear_levers)),
        route("post", "/v1/detach", post(detach)),
        route("get", "/v1/events", get(events)),
        route("get", "/v1/sources", get(look::sources)),
        route("get", "/v1/flows", get(look::flows)),
        route("get", "/v1/samples", get(samples::samples)),
        route("get", "/v1/explain", get(explain)),
        route(
            "get",
            "/v1/services",
            get(async |State(at): Get| answer(at.services().await)),
        ),
        route("get", "/v1/anomalies", get(anomalies)),
        route("post", "/v1/anomalies/undo", post(undo)),
        route("post", "/v1/anomalies/accept", post(accept_anomaly)),
        route(
            "get",
            "/v1/openapi.json",
            get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)),
        ),
    ]
}

/// The router of the control socket.
pub(crate) fn router(handle: Handle) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        let handler = match route.right {
            Right::Read => route.handler,
            Right::Change => route.handler.route_layer(from_fn(rights::only_who_may_change)),
        };
        router.route(route.path, handler)
    });
    router
        .fallback(async || {
            Failure::not_found("there is nothing at this path")
                .hint("GET /v1/openapi.json describes every path")
        })
        .method_not_allowed_fallback(async || {
            Failure::new(code::METHOD_NOT_ALLOWED, "this path does not take this method")
                .hint("GET /v1/openapi.json describes every path")
        })
        .with_state(handle)
}

/// Every method (lower case) and path, for tests.
#[cfg(test)]
pub(crate) fn methods_and_paths() -> Vec<(&'static str, &'static str)> {
    let routes = routes();
    routes.iter().map(|route| (route.method, route.path)).collect()
}

type Get = State<Handle>;
type Who = Extension<Peer>;

fn answer<T: Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn apply(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<PolicyApplyRequest, 32>,
) -> Response {
    answer(at.apply(request, peer).await)
}

async fn confirm(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(PolicyConfirmRequest {}): JsonBody<PolicyConfirmRequest, 1>,
) -> Response {
    answer(at.change(move |engine| engine.confirm(Some(peer))).await)
}

async fn rollback(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<PolicyRollbackRequest, 1>,
) -> Response {
    answer(at.rollback(request, peer).await)
}

async fn ban(State(at): Get, Extension(peer): Who, JsonBody(request): JsonBody<BansRequest, 64>) -> Response {
    answer(at.change(move |engine| engine.ban(&request, Some(peer))).await)
}

async fn unban(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<UnbanRequest, 1>,
) -> Response {
    answer(at.change(move |engine| engine.unban(&request, Some(peer))).await)
}

async fn show_list(State(at): Get, Name(name): Name) -> Response {
    answer(at.call(move |engine| engine.show_list(&name)).await)
}

async fn list_replace(
    State(at): Get,
    Name(name): Name,
    Extension(peer): Who,
    JsonBody(request): JsonBody<ListReplaceRequest, 64>,
) -> Response {
    answer(
        at.change(move |engine| engine.list_replace(&name, &request, Some(peer)))
            .await,
    )
}

async fn list_add(
    State(at): Get,
    Name(name): Name,
    Extension(peer): Who,
    JsonBody(request): JsonBody<ListAddRequest, 64>,
) -> Response {
    answer(
        at.change(move |engine| engine.list_add(&name, &request, Some(peer)))
            .await,
    )
}

async fn list_remove(
    State(at): Get,
    Name(name): Name,
    Extension(peer): Who,
    JsonBody(request): JsonBody<ListRemoveRequest, 64>,
) -> Response {
    answer(
        at.change(move |engine| engine.list_remove(&name, &request, Some(peer)))
            .await,
    )
}

async fn pull_lever(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<LeverRequest, 1>,
) -> Response {
    answer(
        at.change(move |engine| engine.pull_lever(&request, Some(peer)))
            .await,
    )
}

async fn clear_levers(State(at): Get, Extension(peer): Who) -> Response {
    answer(at.change(move |engine| engine.clear_levers(Some(peer))).await)
}

async fn undo(State(at): Get, Extension(peer): Who, JsonBody(request): JsonBody<UndoRequest, 1>) -> Response {
    answer(
        at.change(move |engine| engine.undo_actions(&request, Some(peer)))
            .await,
    )
}

async fn detach(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<DetachRequest, 1>,
) -> Response {
    answer(
        at.change(move |engine| engine.detach(&request.interfaces, Some(peer)))
            .await,
    )
}

async fn explain(State(at): Get, query: Result<Query<ExplainQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => answer(at.explain(query).await),
        Err(error) => Failure::invalid(error.body_text()).into_response(),
    }
}

async fn anomalies(State(at): Get, query: Result<Query<AnomaliesQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => answer(at.anomalies(query).await),
        Err(error) => Failure::invalid(error.body_text()).into_response(),
    }
}

async fn accept_anomaly(
    State(at): Get,
    Extension(peer): Who,
    JsonBody(request): JsonBody<AnomalyAcceptRequest, 1>,
) -> Response {
    answer(at.accept_anomaly(request, peer).await)
}

/// The most events in one answer.
const EVENTS: usize = 1000;
/// The longest wait for an event or a sample, in seconds.
const LONGEST_WAIT: u64 = 20;

async fn events(State(at): Get, query: Result<Query<EventsQuery>, QueryRejection>) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(error) => return Failure::invalid(error.body_text()).into_response(),
    };
    let limit = query.limit.unwrap_or(100);
    let wait = query.wait_seconds.unwrap_or(0);
    if !(1..=EVENTS).contains(&limit) || wait > LONGEST_WAIT {
        let message = format!("limit must be 1 to {EVENTS}, and wait_seconds 0 to {LONGEST_WAIT}");
        return Failure::invalid(message).into_response();
    }
    let log = match at.call(|engine| Ok(engine.events())).await {
        Ok(log) => log,
        Err(failure) => return failure.into_response(),
    };
    if let Some(after) = query.after
        && wait > 0
        && !log.wait(after, Duration::from_secs(wait)).await
    {
        return Failure::new(code::CONFLICT, "too many follow the events already")
            .hint("end one of them, or ask without wait_seconds")
            .into_response();
    }
    let page = match query.after {
        Some(after) => log.after(after, limit),
        None => log.last(limit, query.since),
    };
    answer(Ok(EventsAnswer {
        schema: SCHEMA,
        events: page.events,
        next: page.next,
        missed: page.missed,
        ended: page.ended,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_openapi_document_describes_exactly_the_routers_paths() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|key| *key != "parameters");
                methods
                    .map(|method| (method.clone(), path.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> = routes()
            .iter()
            .map(|route| (route.method.to_owned(), route.path.to_owned()))
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_operation_says_which_statuses_it_may_answer_with() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        for route in routes() {
            let operation = &document["paths"][route.path][route.method];
            let told = operation["responses"].as_object().unwrap();
            let mut expected = vec!["200", "413"];
            if route.path != "/v1/openapi.json" {
                expected.push("500");
            }
            if route.right == Right::Change {
                expected.push("403");
            }
            if operation.get("requestBody").is_some() {
                expected.extend(["400", "408"]);
            }
            for status in expected {
                assert!(
                    told.contains_key(status),
                    "{} {}: {status}",
                    route.method,
                    route.path
                );
            }
            // What is not told apart cannot be tested.
            assert!(!told.contains_key("default"), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn every_reference_of_the_openapi_document_leads_somewhere() {
        fn references(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    for (key, value) in map {
                        match (key.as_str(), value.as_str()) {
                            ("$ref", Some(to)) => found.push(to.to_owned()),
                            _ => references(value, found),
                        }
                    }
                }
                serde_json::Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
