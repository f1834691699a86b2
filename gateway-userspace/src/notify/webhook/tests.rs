//! Messages to a server that these tests play: one that takes them, and one that does all that servers do wrong.

mod server;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::server::{Answer, ERROR, OK, Server, answer, read};
use super::{sign::tests::by_definition, *};
use crate::policy::webhook::Url;

/// Short, but for the whole: these tests do not wait an hour.
const PATIENCE: Patience = Patience {
    within: Duration::from_millis(500),
    first: Duration::from_millis(20),
    most: Duration::from_millis(100),
    whole: Duration::from_mins(1),
};
/// For whatever must happen.
const SOON: Duration = Duration::from_secs(20);

fn settings(url: &str) -> Settings {
    Settings {
        url: Url::parse(url).unwrap(),
        secret_file: None,
        verdicts: vec![Told::Attack, Told::Stealth],
    }
}

/// A webhook at work, until it is dropped.
struct Working {
    webhook: Arc<Webhook>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Working {
    fn start(settings: Settings, patience: Patience) -> Self {
        let webhook = Arc::new(Webhook::default());
        webhook.set(Some(settings));
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(&webhook).deliver(patience, stopping));
        Self { webhook, stop, task }
    }

    async fn until(&self, what: &str, done: impl Fn(&Webhook) -> bool) {
        let waited = timeout(SOON, async {
            while !done(&self.webhook) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:?}", self.webhook);
    }
}

fn anomaly(verdict: &str, kind: Option<&str>) -> Anomaly {
    Anomaly {
        verdict: verdict.to_owned(),
        kind: kind.map(str::to_owned),
        score: 12.5,
        since: Timestamp::from_millisecond(1_800_000_000_250).unwrap(),
        duration_seconds: 7,
        ..Anomaly::default()
    }
}

fn message(service: &str, now: Option<Anomaly>, before: Option<Anomaly>) -> Message {
    Message {
        node: "edge-1".to_owned(),
        service: service.to_owned(),
        at: Timestamp::from_second(1_800_000_001).unwrap(),
        now,
        before,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as messages have it")]
fn attack() -> Option<Anomaly> {
    Some(anomaly("attack", Some("syn_flood")))
}

#[tokio::test]
async fn a_message_is_delivered_as_it_is_documented() {
    let mut server = Server::start(&[]).await;
    let working = Working::start(server.settings(), PATIENCE);
    working.webhook.send(&message("shop", attack(), None));
    let asked = server.next().await;
    assert!(
        asked.head.starts_with("POST /hook/T0KEN?key=T0KEN HTTP/1.1\r\n"),
        "{}",
        asked.head
    );
    assert_eq!(
        asked.header("host"),
        Some(format!("127.0.0.1:{}", server.port).as_str())
    );
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert!(asked.header("user-agent").unwrap().starts_with("weir/"));
    assert_eq!(asked.header("weir-signature"), None, "there is no secret");
    let json = asked.json();
    for (key, expected) in [
        ("schema", Value::from(1)),
        ("event", "began".into()),
        ("id", "shop-1800000000250".into()),
        ("delivery", asked.header("weir-delivery").unwrap().into()),
        ("at", "2027-01-15T08:00:01Z".into()),
        ("node", "edge-1".into()),
        ("service", "shop".into()),
        ("verdict", "attack".into()),
        ("kind", "syn_flood".into()),
        ("score", 12.5.into()),
        ("since", "2027-01-15T08:00:00.25Z".into()),
        ("duration_seconds", 7.into()),
        ("features", Value::Array(Vec::new())),
        ("carriers", Value::Array(Vec::new())),
    ] {
        assert_eq!(json[key], expected, "{key}");
    }
    working.until("sent", |webhook| webhook.sent() == 1).await;
    assert_eq!((working.webhook.lost(), working.webhook.fault()), (0, None));
}

#[tokio::test]
async fn whoever_has_the_secret_can_check_who_sent_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let mut server = Server::start(&[ERROR]).await;
    let working = Working::start(
        Settings {
            secret_file: Some(file.clone()),
            ..server.settings()
        },
        PATIENCE,
    );
    working.webhook.send(&message("shop", attack(), None));
    let (first, again) = (server.next().await, server.next().await);
    for asked in [&first, &again] {
        let (time, sum) = asked
            .header("weir-signature")
            .unwrap()
            .split_once(",v1=")
            .unwrap();
        let time = time.strip_prefix("t=").unwrap();
        let signed = [time.as_bytes(), b".", &asked.body].concat();
        assert_eq!(sum, by_definition(b"correct horse battery staple", &signed));
        let age = Timestamp::now().as_second() - time.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age}");
    }
    assert_eq!(first.header("weir-delivery"), again.header("weir-delivery"));
    assert_eq!(first.body, again.body);

    // One that everybody may read now: nothing is sent that is not signed.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    working.until("sent", |webhook| webhook.sent() == 1).await;
    working.webhook.send(&message("shop", None, attack()));
    working
        .until("a fault", |webhook| webhook.fault().is_some())
        .await;
    assert!(working.webhook.fault().unwrap().contains("chmod o-rwx"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(server.next().await.json()["event"], "ended");
}

#[tokio::test]
async fn it_is_tried_until_it_is_taken_and_told_once() {
    let bad = [
        ERROR,
        Answer::Close,
        Answer::Silence,
        Answer::Flood,
        Answer::Say("what?\r\n\r\n"),
        Answer::Say("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        Answer::Say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        Answer::Say("HTTP/1.1 503 Busy\r\nRetry-After: 99999\r\nContent-Length: 0\r\n\r\n"),
    ];
    let mut server = Server::start(&bad).await;
    let working = Working::start(server.settings(), PATIENCE);
    working.webhook.send(&message("shop", attack(), None));
    working.webhook.send(&message("shop", None, attack()));
    let first = server.next().await;
    for _ in &bad {
        let again = server.next().await;
        assert_eq!(again.header("weir-delivery"), first.header("weir-delivery"));
    }
    let next = server.next().await;
    assert_eq!(next.json()["event"], "ended", "in their order");
    assert_ne!(next.header("weir-delivery"), first.header("weir-delivery"));
    working.until("sent", |webhook| webhook.sent() == 2).await;
    assert_eq!((working.webhook.lost(), working.webhook.fault()), (0, None));
}

#[tokio::test]
async fn each_failure_has_its_reason_and_none_shows_the_token() {
    for (answer, expected) in [
        (ERROR, "it answers 500"),
        (Answer::Silence, "does not answer within 0.5 s"),
        (
            Answer::Say("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            "a redirect (302), and redirects are not followed",
        ),
        (Answer::Say("what?\r\n\r\n"), "is not HTTP"),
        (Answer::Close, "is not HTTP"),
        (Answer::Flood, "is not HTTP"),
    ] {
        let server = Server::start(&[answer; 100]).await;
        let working = Working::start(server.settings(), PATIENCE);
        working.webhook.send(&message("shop", attack(), None));
        working
            .until("a fault", |webhook| webhook.fault().is_some())
            .await;
        let fault = working.webhook.fault().unwrap();
        assert!(fault.contains(expected), "{answer:?}: {fault}");
        assert!(
            fault.contains("http://127.0.0.1:") && !fault.contains("T0KEN"),
            "{fault}"
        );
    }
    // Nobody listens, and nobody has that name.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, expected) in [
        (format!("http://{free}/T0KEN"), "refused"),
        ("http://weir.invalid/T0KEN".to_owned(), "looked up"),
    ] {
        let patience = Patience {
            within: SOON,
            ..PATIENCE
        };
        let working = Working::start(settings(&url), patience);
        working.webhook.send(&message("shop", attack(), None));
        working
            .until("a fault", |webhook| webhook.fault().is_some())
            .await;
        let fault = working.webhook.fault().unwrap();
        assert!(fault.contains(expected) && !fault.contains("T0KEN"), "{fault}");
    }
}

#[tokio::test]
async fn what_is_refused_or_too_old_is_lost_and_counted() {
    let refuse = Answer::Say("HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n");
    let mut server = Server::start(&[refuse]).await;
    let working = Working::start(server.settings(), PATIENCE);
    working.webhook.send(&message("shop", attack(), None));
    working.webhook.send(&message("shop", None, attack()));
    assert_eq!(server.next().await.json()["event"], "began");
    assert_eq!(
        server.next().await.json()["event"],
        "ended",
        "it was not tried again"
    );
    working.until("sent", |webhook| webhook.sent() == 1).await;
    assert_eq!(working.webhook.lost(), 1);

    let server = Server::start(&[ERROR; 100]).await;
    let short = Patience {
        whole: Duration::from_millis(300),
        ..PATIENCE
    };
    let working = Working::start(server.settings(), short);
    working.webhook.send(&message("shop", attack(), None));
    working.until("lost", |webhook| webhook.lost() == 1).await;
    assert!(lock(&working.webhook.queue).is_empty());
}

#[tokio::test]
async fn the_queue_is_bounded_and_the_oldest_goes() {
    let webhook = Webhook::default();
    webhook.set(Some(settings("http://127.0.0.1:9/")));
    for number in 0..QUEUED + 10 {
        webhook.send(&message(&format!("s{number}"), attack(), None));
    }
    assert_eq!((lock(&webhook.queue).len(), webhook.lost()), (QUEUED, 10));
    let first = webhook.first().unwrap();
    let first: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(first["service"], "s10");
    // Whoever does not want to be told any more misses nothing.
    webhook.set(None);
    assert_eq!((lock(&webhook.queue).len(), webhook.lost()), (0, 10));
    webhook.send(&message("s", attack(), None));
    assert!(lock(&webhook.queue).is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_before_the_end_is_lost_and_counted() {
    let server = Server::start(&[Answer::Silence; 9]).await;
    let working = Working::start(server.settings(), PATIENCE);
    working.webhook.send(&message("shop", attack(), None));
    working.stop.send(true).unwrap();
    timeout(SOON, working.task).await.unwrap().unwrap();
    assert_eq!(working.webhook.lost(), 1);
}

#[tokio::test]
async fn another_place_is_headed_for_at_once() {
    let bad = Server::start(&[ERROR; 100]).await;
    let mut good = Server::start(&[]).await;
    let slow = Patience {
        first: Duration::from_mins(10),
        most: Duration::from_mins(10),
        whole: Duration::from_hours(1),
        ..PATIENCE
    };
    let working = Working::start(bad.settings(), slow);
    working.webhook.send(&message("shop", attack(), None));
    working
        .until("a fault", |webhook| webhook.fault().is_some())
        .await;
    working.webhook.set(Some(good.settings()));
    assert_eq!(working.webhook.fault(), None, "that was the other place");
    assert_eq!(good.next().await.json()["service"], "shop");
}

#[test]
fn only_what_is_wanted_is_told_from_beginning_to_end() {
    let webhook = Webhook::default();
    webhook.set(Some(settings("http://127.0.0.1:9/")));
    let crowd = || Some(anomaly("crowd", None));
    let stealth = || Some(anomaly("stealth", None));
    let told = |now: Option<Anomaly>, before: Option<Anomaly>| {
        webhook.send(&message("shop", now, before));
        let delivery = lock(&webhook.queue).pop_front()?;
        let body: Value = serde_json::from_slice(&delivery.body).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        Some((text("event"), text("verdict"), text("id")))
    };
    let id = "shop-1800000000250".to_owned();
    let as_told = |event: &str, verdict: &str| Some((event.to_owned(), verdict.to_owned(), id.clone()));
    assert_eq!(told(crowd(), None), None, "crowds are not told");
    assert_eq!(told(attack(), crowd()), as_told("began", "attack"));
    let mut later = anomaly("stealth", None);
    later.since = Timestamp::from_second(1_900_000_000).unwrap();
    assert_eq!(
        told(Some(later), attack()),
        as_told("changed", "stealth"),
        "it is the same"
    );
    assert_eq!(told(crowd(), stealth()), as_told("ended", "stealth"));
    assert_eq!(told(None, crowd()), None);
    assert_eq!(told(attack(), None), as_told("began", "attack"));
    assert_eq!(told(None, attack()), as_told("ended", "attack"));
    assert_eq!(told(None, attack()), None, "it was told already");
}

#[tokio::test]
async fn https_is_spoken_with_whom_the_authorities_know() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![cert.der().clone()], key.into())
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust this certificate hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            if let Some(asked) = read(&mut stream).await {
                answer(&mut stream, OK).await;
                let _ = stream.shutdown().await;
                return asked;
            }
        }
    });
    let url = Url::parse(&format!("https://localhost:{port}/T0KEN")).unwrap();
    let parcel = post::Parcel {
        url: &url,
        delivery: "1",
        body: Bytes::from_static(b"{}"),
        secret: None,
        at: 0,
    };
    let trusting = |authorities: &[&rcgen::Certificate]| {
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.der().clone()).unwrap();
        }
        post::trusting(roots).unwrap()
    };
    let mut lookups = post::Lookups::default();
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let refused = post::post(&parcel, Some(&trusting(&[&stranger.cert])), &mut lookups, SOON).await;
    assert!(matches!(refused, Err(post::Failed::Tls(_))), "{refused:?}");
    // The name must be the certificate's, too.
    let other = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let elsewhere = post::Parcel {
        url: &other,
        ..parcel
    };
    let refused = post::post(&elsewhere, Some(&trusting(&[&cert])), &mut lookups, SOON).await;
    assert!(matches!(refused, Err(post::Failed::Tls(_))), "{refused:?}");
    let parcel = post::Parcel {
        url: &url,
        body: Bytes::from_static(b"{}"),
        ..elsewhere
    };
    post::post(&parcel, Some(&trusting(&[&cert])), &mut lookups, SOON)
        .await
        .unwrap();
    let asked = timeout(SOON, server).await.unwrap().unwrap();
    assert!(asked.head.starts_with("POST /T0KEN HTTP/1.1"), "{asked:?}");
}

#[test]
fn a_secret_is_never_in_what_is_shown() {
    let webhook = Webhook::default();
    webhook.set(Some(settings("https://hooks.example.com/T0KEN")));
    let shown = format!("{webhook:?} {:?}", settings("https://hooks.example.com/T0KEN"));
    assert!(
        !shown.contains("T0KEN") && shown.contains("hooks.example.com"),
        "{shown}"
    );
    assert!(read_secret(Path::new("/nonexistent")).is_err());
}
