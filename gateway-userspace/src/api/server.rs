//! Serving HTTP/1.1 on the control socket and on `--listen`, with bounds on time and on connections.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use super::peer::Peer;

/// The header in which a caller names the SSH session that it runs in, as `SSH_CONNECTION` does.
pub(crate) const SESSION: &str = "weir-session";
/// How long a request's head may take; also how long a connection may idle.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may live before it is closed after the request at hand.
const LIVES_FOR: Duration = Duration::from_mins(5);
/// How long the request at hand may then take.
const GRACE: Duration = Duration::from_secs(5);
/// Connections served at once on one listener; others wait.
const CONNECTIONS: usize = 128;
/// How long to wait after a failed accept (as a rule, out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the control socket until `stop` changes, and then the requests at hand.
pub(crate) async fn serve_unix(listener: UnixListener, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let Some((stream, _)) = usable(stream).await else {
            continue;
        };
        let Ok(peer) = peer_of(&stream) else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            connection(stream, router, Some(peer), stop).await;
            drop(slot);
        });
    }
    finish(&slots).await;
}

/// Serves `--listen` until `stop` changes, and then the requests at hand.
pub(crate) async fn serve_tcp(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let Some((stream, _)) = usable(stream).await else {
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            connection(stream, router, None, stop).await;
            drop(slot);
        });
    }
    finish(&slots).await;
}

async fn usable<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// Waits for the connections that are left, within reason.
async fn finish(slots: &Semaphore) {
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(GRACE, slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end in time; they are cut");
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    stream.peer_cred().map(|credentials| Peer {
        uid: credentials.uid(),
        pid: credentials.pid(),
        session: None,
    })
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    peer: Option<Peer>,
    mut stop: watch::Receiver<bool>,
) {
    let paths = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(mut peer) = peer {
            // What the caller says only guards itself; a lie can do no more than have its request refused.
            let said = request.headers().get(SESSION).and_then(|said| said.to_str().ok());
            peer.session = said.and_then(|said| said.parse().ok());
            request.extensions_mut().insert(peer);
        }
        let answer = paths.call(request.map(Body::new));
        async move { answer.await as Result<Response, Infallible> }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A broken connection is the caller's business; whatever it asked for is done or not, and logged where it is.
        _ = connection.as_mut() => return,
        _ = stop.changed() => {}
        () = tokio::time::sleep(LIVES_FOR) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}
