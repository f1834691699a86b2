//! Who may do what on the control socket, and what clients cannot do to each other.

use std::time::{Duration, Instant};

use axum::{body::Body, http::Request};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::socket::Served;
use crate::api::{self, peer::Peer};

/// How long an answer may take while others misbehave: long against an answer, short against every limit of the server.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn asked_by(served: &Served, uid: u32, method: &str, path: &str) -> u16 {
    let router = TowerToHyperService::new(api::router(served.handle.clone()));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from("{}"))
        .unwrap();
    request.extensions_mut().insert(Peer::new(uid, None));
    router.call(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_path_that_is_not_a_get_takes_root_or_the_controllers_user() {
    let served = Served::start().await;
    let (mut reads, mut changes) = (0, 0);
    for (method, path) in api::methods_and_paths() {
        let path = path.replace("{name}", "blocklist");
        let stranger = asked_by(&served, 54_321, &method.to_uppercase(), &path).await;
        if method == "get" {
            assert_ne!(stranger, 403, "{method} {path}");
            reads += 1;
        } else {
            assert_eq!(stranger, 403, "{method} {path}");
            assert_ne!(
                asked_by(&served, 0, &method.to_uppercase(), &path).await,
                403,
                "{method} {path}"
            );
            changes += 1;
        }
    }
    assert!(reads > 5 && changes > 8, "{reads} {changes}");
    let own = nix::unistd::geteuid().as_raw();
    assert_ne!(asked_by(&served, own, "DELETE", "/v1/levers").await, 403);
}

/// Asks both listeners, and returns how long the slower answer took.
async fn answers(served: &Served) -> Duration {
    let began = Instant::now();
    let (status, _) = served.ask("GET", "/v1/bans", serde_json::Value::Null).await;
    assert_eq!(status, 200);
    assert_eq!(served.web("GET", "/healthz").await.0, 200);
    assert_eq!(served.web("GET", "/metrics").await.0, 200);
    began.elapsed()
}

#[tokio::test]
async fn a_thousand_idle_connections_and_half_heads_stall_nobody() {
    let served = Served::start().await;
    let mut open: (Vec<UnixStream>, Vec<TcpStream>) = (Vec::new(), Vec::new());
    for at in 0..500 {
        let mut unix = UnixStream::connect(served.socket()).await.unwrap();
        let mut tcp = TcpStream::connect(served.web).await.unwrap();
        if at % 2 == 0 {
            let _ = unix.write_all(b"GET /v1/status HTTP/1.1\r\nx: ").await;
            let _ = tcp.write_all(b"GET /metrics HTTP/1.1\r\nx: ").await;
        }
        open.0.push(unix);
        open.1.push(tcp);
    }
    let took = answers(&served).await;
    assert!(took < AT_ONCE, "{took:?}");
    // Those who only sat there have given way, the oldest first.
    let mut end = [0; 1];
    let first = tokio::time::timeout(AT_ONCE, open.0[0].read(&mut end)).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "{first:?}");
}

#[tokio::test]
async fn slow_bodies_deaf_clients_and_garbage_stall_nobody() {
    let served = Served::start().await;
    let mut open = Vec::new();
    for at in 0..20 {
        let mut client = UnixStream::connect(served.socket()).await.unwrap();
        // Each waits for a body of which one byte comes.
        let head = "POST /v1/levers HTTP/1.1\r\nhost: w\r\ncontent-length: 1000\r\n\r\n{";
        client.write_all(head.as_bytes()).await.unwrap();
        open.push(client);
        // Each asks far more than it will read.
        let mut deaf = UnixStream::connect(served.socket()).await.unwrap();
        let many = "GET /v1/openapi.json HTTP/1.1\r\nhost: w\r\n\r\n".repeat(200);
        let _ = tokio::time::timeout(Duration::from_millis(20), deaf.write_all(many.as_bytes())).await;
        open.push(deaf);
        let mut garbage = UnixStream::connect(served.socket()).await.unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|n| ((n * (at + 7)) >> 3) as u8).collect();
        let _ = tokio::time::timeout(Duration::from_millis(20), garbage.write_all(&bytes)).await;
        open.push(garbage);
    }
    let took = answers(&served).await;
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn large_heads_long_paths_and_large_bodies_are_refused() {
    let served = Served::start().await;
    let refused = async |head: String| {
        let mut client = UnixStream::connect(served.socket()).await.unwrap();
        // The end of the connection may come before all is written.
        let _ = client.write_all(head.as_bytes()).await;
        // And the answer is all that can be read before the connection's end is an error.
        let mut answer = [0; 100];
        let read = tokio::time::timeout(AT_ONCE, client.read(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer[..read.unwrap().unwrap_or(0)]).into_owned();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let long = "x".repeat(5_000);
    let large = "x".repeat(100_000);
    let many: String = (0..100)
        .map(|n| format!("h{n}: 1\r\n"))
        .collect::<Vec<_>>()
        .concat();
    let ask = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n{headers}\r\n")
    };
    assert_eq!(refused(ask("/v1/bans", "")).await, "200");
    assert_eq!(refused(ask(&format!("/v1/bans?{long}"), "")).await, "413");
    assert_eq!(refused(ask("/v1/bans", &format!("x: {large}\r\n"))).await, "431");
    assert_eq!(refused(ask("/v1/bans", &many)).await, "431");
    // Refused by what is announced, before a byte of it is sent.
    let body = "POST /v1/policy/apply HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n";
    assert_eq!(refused(body.to_owned()).await, "413");
}

/// Reads all that comes, and returns it with how long it took on the paused clock.
async fn until_the_end(mut client: UnixStream) -> (Vec<u8>, u64) {
    let began = tokio::time::Instant::now();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = client.read(&mut piece).await {
        bytes.extend_from_slice(&piece[..read]);
    }
    (bytes, began.elapsed().as_secs())
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let served = Served::start().await;
    for begun in ["", "GET /v1/bans HTTP/1.1\r\nx"] {
        let mut client = UnixStream::connect(served.socket()).await.unwrap();
        client.write_all(begun.as_bytes()).await.unwrap();
        tokio::time::pause();
        let (_, seconds) = until_the_end(client).await;
        tokio::time::resume();
        assert!((9..=11).contains(&seconds), "{begun:?}: {seconds}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_so() {
    let served = Served::start().await;
    let mut client = UnixStream::connect(served.socket()).await.unwrap();
    let begun = "POST /v1/levers HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n{";
    client.write_all(begun.as_bytes()).await.unwrap();
    tokio::time::pause();
    let (answer, seconds) = until_the_end(client).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"timeout\""),
        "{answer}"
    );
    assert!((59..=75).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_the_connection() {
    let served = Served::start().await;
    let mut client = UnixStream::connect(served.socket()).await.unwrap();
    let ask = "GET /v1/openapi.json HTTP/1.1\r\nhost: w\r\n\r\n";
    let asked = 100;
    client.write_all(ask.repeat(asked).as_bytes()).await.unwrap();
    tokio::time::pause();
    // Long enough for the patience with one who does not read, too short for the end of every connection.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (answers, seconds) = until_the_end(client).await;
    let whole = answers.windows(8).filter(|bytes| bytes == b"HTTP/1.1").count();
    assert!(whole >= 1 && whole < asked, "{whole} answers");
    assert!(seconds < 5, "{seconds}");
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let served = Served::start().await;
    let stream = UnixStream::connect(served.socket()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        for _ in 0..1_010 {
            if writer
                .write_all(b"GET /v1/none HTTP/1.1\r\nhost: w\r\n\r\n")
                .await
                .is_err()
            {
                break;
            }
        }
        writer
    });
    let mut bytes = Vec::new();
    let mut piece = [0; 16_384];
    while let Ok(read @ 1..) = reader.read(&mut piece).await {
        bytes.extend_from_slice(&piece[..read]);
    }
    drop(sending.await);
    let answers = bytes
        .windows(13)
        .filter(|bytes| bytes == b"HTTP/1.1 404 ")
        .count();
    assert_eq!(answers, 1_000);
}
