//! Real HTTP over a real Unix socket.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
};

use super::*;
use crate::{
    api::{
        router,
        server::{serve_tcp, serve_unix},
        web,
    },
    controller::Handle,
    kernel::Counter,
};

/// A served controller.
pub(super) struct Served {
    bench: Bench,
    pub(super) handle: Handle,
    stop: watch::Sender<bool>,
    pub(super) web: std::net::SocketAddr,
}

impl Served {
    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.bench.dir.path().join("weir.sock")
    }

    pub(super) async fn start() -> Self {
        let bench = Bench::new();
        let handle = Handle::new(bench.start());
        let (stop, stopping) = watch::channel(false);
        let control = UnixListener::bind(bench.dir.path().join("weir.sock")).unwrap();
        tokio::spawn(serve_unix(control, router(handle.clone()), stopping.clone()));
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = web.local_addr().unwrap();
        tokio::spawn(serve_tcp(web, web::router(handle.clone()), stopping));
        Self {
            bench,
            handle,
            stop,
            web: address,
        }
    }

    async fn raw(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let stream = UnixStream::connect(self.bench.dir.path().join("weir.sock"))
            .await
            .unwrap();
        send(TokioIo::new(stream), method, path, body.into()).await
    }

    pub(super) async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, bytes) = self.raw(method, path, body).await;
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        if path != "/v1/openapi.json" {
            assert_eq!(value["schema"], 1, "{method} {path}: {value}");
        }
        (status.as_u16(), value)
    }

    async fn code(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, value) = self.ask(method, path, body).await;
        (
            status,
            value["error"]["code"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub(super) async fn web(&self, method: &str, path: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.web).await.unwrap();
        let (status, bytes) = send(TokioIo::new(stream), method, path, Bytes::new()).await;
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

async fn send<T>(io: TokioIo<T>, method: &str, path: &str, body: Bytes) -> (StatusCode, Bytes)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "weir")
        .body(Full::new(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    (
        response.status(),
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn a_policy_goes_in_and_comes_out() {
    let served = Served::start().await;
    let text = format!("{POLICY}\n[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nports = [53]\n");
    let apply = json!({"text": text, "path": "/etc/weir/new.toml"});
    let (status, applied) = served.ask("POST", "/v1/policy/apply", apply).await;
    assert_eq!(
        (status, &applied["revision"], &applied["services"]),
        (200, &json!(2), &json!(2)),
        "{applied}"
    );
    let (_, policy) = served.ask("GET", "/v1/policy", Value::Null).await;
    assert_eq!(policy["text"], text);
    assert_eq!(policy["differs_from_file"], true);
    assert_eq!(policy["path"], "/etc/weir/new.toml");

    for half in ["", "version = 1\nmode = \"enf", "version = 1\nnonsense = 3\n"] {
        let apply = json!({"text": half, "path": "/etc/weir/new.toml"});
        let (status, answer) = served.ask("POST", "/v1/policy/apply", apply).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (422, &json!("invalid_policy")),
            "{answer}"
        );
        assert!(
            answer["error"]["details"][0]
                .as_str()
                .unwrap()
                .contains("/etc/weir/new.toml"),
            "{answer}"
        );
    }
    let (_, after) = served.ask("GET", "/v1/policy", Value::Null).await;
    assert_eq!(after["revision"], 2, "what was in force stays");
}

#[tokio::test]
async fn bans_lists_and_levers_make_the_round() {
    let served = Served::start().await;
    let request = json!({"bans": [{"prefix": "203.0.113.7", "for_seconds": 60, "reason": "flood"}]});
    let (status, added) = served.ask("POST", "/v1/bans", request.clone()).await;
    assert_eq!((status, &added["added"]), (200, &json!(1)), "{added}");
    assert_eq!(
        served.code("POST", "/v1/bans", request).await,
        (422, "no_effect".into())
    );
    let (_, bans) = served.ask("GET", "/v1/bans", Value::Null).await;
    assert_eq!(bans["bans"][0]["prefix"], "203.0.113.7/32");
    assert_eq!(bans["bans"][0]["seconds_left"], 60);
    assert_eq!(bans["bans"][0]["until"], "2027-01-15T08:01:00Z");
    assert!(bans["bans"][0].get("service").is_none());
    let (status, _) = served
        .ask("DELETE", "/v1/bans", json!({"prefix": "203.0.113.7"}))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        served
            .code("DELETE", "/v1/bans", json!({"prefix": "203.0.113.7"}))
            .await,
        (404, "not_found".into())
    );

    let (_, changed) = served
        .ask(
            "POST",
            "/v1/lists/blocklist/add",
            json!({"prefixes": ["2001:db8::/32"]}),
        )
        .await;
    assert_eq!(
        (&changed["added"], &changed["list"]["prefixes"]),
        (&json!(1), &json!(2)),
        "{changed}"
    );
    let (_, list) = served.ask("GET", "/v1/lists/blocklist", Value::Null).await;
    assert_eq!(list["prefixes"], json!(["198.51.100.0/24", "2001:db8::/32"]));
    assert_eq!(
        served.code("GET", "/v1/lists/nets", Value::Null).await,
        (404, "not_found".into())
    );
    let empty = json!({"prefixes": []});
    assert_eq!(
        served.code("POST", "/v1/lists/blocklist/replace", empty).await,
        (422, "refused".into())
    );
    let (_, lists) = served.ask("GET", "/v1/lists", Value::Null).await;
    assert_eq!(lists["lists"].as_array().unwrap().len(), 2);

    let scale = json!({"lever": "scale", "service": "storefront", "percent": 50, "for_seconds": 900});
    let (_, levers) = served.ask("POST", "/v1/levers", scale).await;
    assert_eq!(levers["levers"][0]["lever"], "scale");
    assert_eq!(levers["levers"][0]["seconds_left"], 900);
    let (_, cleared) = served.ask("DELETE", "/v1/levers", Value::Null).await;
    assert_eq!(cleared["cleared"].as_array().unwrap().len(), 1);

    let (_, status) = served.ask("GET", "/v1/status", Value::Null).await;
    assert_eq!(status["ok"], true, "{status}");
    assert_eq!(status["attachments"][0]["interface"], "lan0");
    let (_, detached) = served.ask("POST", "/v1/detach", json!({})).await;
    assert_eq!(detached["detached"], json!(["lan0"]));
}

#[tokio::test]
async fn bad_requests_get_clear_answers() {
    let served = Served::start().await;
    let (status, error) = served.code("GET", "/v1/lists/b%ad", Value::Null).await;
    assert_eq!(
        (status, error.as_str()),
        (400, "invalid"),
        "a name in broken percent encoding"
    );
    for (method, path, body, expected) in [
        ("GET", "/v1/nothing", "", (404, "not_found")),
        ("DELETE", "/v1/status", "", (405, "method_not_allowed")),
        ("POST", "/v1/bans", "{\"bans\": [", (400, "invalid_request")),
        ("POST", "/v1/bans", "", (400, "invalid_request")),
        (
            "POST",
            "/v1/bans",
            "{\"bans\": [], \"forse\": true}",
            (400, "invalid_request"),
        ),
        (
            "POST",
            "/v1/bans",
            "{\"bans\": [{\"prefix\": \"10.0.0.1/8\"}]}",
            (400, "invalid_request"),
        ),
        (
            "POST",
            "/v1/levers",
            "{\"lever\": \"pull\", \"for_seconds\": 3}",
            (400, "invalid_request"),
        ),
        (
            "POST",
            "/v1/policy/apply",
            "{\"text\": \"version = 1\", \"path\": \"p.toml\"}",
            (400, "invalid_request"),
        ),
    ] {
        let (status, bytes) = served.raw(method, path, body).await;
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (status.as_u16(), answer["error"]["code"].as_str().unwrap()),
            expected,
            "{method} {path}: {answer}"
        );
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    let large = vec![b' '; (1 << 20) + 1];
    let (status, bytes) = served.raw("POST", "/v1/levers", large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["error"]["code"], "too_large");
    let (status, document) = served.ask("GET", "/v1/openapi.json", Value::Null).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[tokio::test]
async fn metrics_health_and_readiness_are_read_only() {
    let served = Served::start().await;
    served.bench.kernel.0.lock().unwrap().counters = vec![Counter {
        interface: "lan0".into(),
        service: "storefront".into(),
        class: String::new(),
        verdict: "drop",
        reason: "total_packets",
        packets: 12,
        bytes: 1200,
    }];
    let (status, text) = served.web("GET", "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let series = r#"weir_packets_total{interface="lan0",service="storefront",class="",verdict="drop",reason="total_packets"} 12"#;
    assert!(text.contains(series), "{text}");
    assert!(
        text.contains("weir_list_prefixes{list=\"blocklist\"} 1")
            && text.contains("weir_policy_info{revision=\"1\"")
    );
    assert_eq!(
        served.web("GET", "/healthz").await,
        (StatusCode::OK, "ok\n".into())
    );
    assert_eq!(served.web("GET", "/readyz").await.0, StatusCode::OK);
    for path in ["/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(
                served.web(method, path).await.0,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
        }
    }
    assert_eq!(
        served.web("GET", "/v1/status").await.0,
        StatusCode::NOT_FOUND,
        "control is not on this port"
    );
    served.bench.kernel.0.lock().unwrap().attached.clear();
    let (status, why) = served.web("GET", "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.contains("lan0"), "{why}");
}

#[tokio::test]
async fn a_reload_of_a_half_written_file_keeps_what_is_in_force() {
    let served = Served::start().await;
    served.bench.write_policy("version = 1\n[[serv");
    assert!(served.handle.reload().await.is_err());
    served.bench.write_policy("");
    assert!(served.handle.reload().await.is_err());
    let (_, policy) = served.ask("GET", "/v1/policy", Value::Null).await;
    assert_eq!(
        (&policy["revision"], &policy["text"]),
        (&json!(1), &json!(POLICY))
    );
    assert_eq!(policy["differs_from_file"], true);
    served.bench.write_policy(&format!("{POLICY}# mended\n"));
    assert_eq!(served.handle.reload().await.unwrap().revision, 2);
}

#[tokio::test]
async fn changes_are_saved_by_themselves_and_serving_ends_when_told() {
    let served = Served::start().await;
    let upkeep = tokio::spawn(served.handle.clone().upkeep(served.stop.subscribe()));
    served
        .ask("POST", "/v1/bans", json!({"bans": [{"prefix": "203.0.113.7"}]}))
        .await;
    served.stop.send(true).unwrap();
    upkeep.await.unwrap();
    served.handle.save().await;
    let saved = std::fs::read_to_string(served.bench.dir.path().join("state/bans.json")).unwrap();
    assert!(saved.contains("203.0.113.7/32"), "{saved}");
}
