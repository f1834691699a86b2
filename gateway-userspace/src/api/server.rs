//! Serving HTTP/1.1 on the control socket and on `--listen`, with a bound on everything that a client decides: times, sizes,
//! connections and requests.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
    response::{IntoResponse as _, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    crowd::{Crowd, Guest, Place, Places},
    error::Failure,
    patience::Patience,
    peer::Peer,
    types::code,
};

/// The header in which a caller names the SSH session that it runs in, as `SSH_CONNECTION` does.
pub(crate) const SESSION: &str = "weir-session";
/// How long a request's head may take; also how long a connection may idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head (with what hyper reads at once); a larger one is answered with 431.
const HEAD_BYTES: usize = 32 << 10;
/// Headers of a request; more are answered with 431.
const HEADERS: usize = 64;
/// Bytes of a request's path and query.
const URI_BYTES: usize = 4 << 10;
/// How long an answer may wait for its reader without any progress.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Requests on one connection, which is then closed.
const REQUESTS: u32 = 1_000;
/// How long a connection may live before it is closed after the request at hand.
const LIVES_FOR: Duration = Duration::from_mins(2);
/// How long the request at hand may then take.
const GRACE: Duration = Duration::from_secs(5);
/// Connections to the control socket.
const CONTROL: Places = Places {
    open: 64,
    per_user: 32,
    kept: 64,
};
/// Connections to `--listen`, whose users are not known.
const WEB: Places = Places {
    open: 64,
    per_user: 64,
    kept: 0,
};
/// How long to wait after a failed accept (as a rule, out of descriptors).
const PAUSE: Duration = Duration::from_millis(100);
/// What is said where all places are taken by requests at work.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves the control socket until `stop` changes, and then the requests at hand.
pub(crate) async fn serve_unix(listener: UnixListener, router: Router, stop: watch::Receiver<bool>) {
    serve(listener, router, CONTROL, stop).await;
}

/// Serves `--listen` until `stop` changes, and then the requests at hand.
pub(crate) async fn serve_tcp(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    serve(listener, router, WEB, stop).await;
}

/// Where connections come from.
trait Listener: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and who is at its other end.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<Peer>)>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Option<Peer>)> {
        let (stream, _) = self.accept().await?;
        let credentials = stream.peer_cred()?;
        let peer = Peer::new(credentials.uid(), credentials.pid());
        Ok((stream, Some(peer)))
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Option<Peer>)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, None))
    }
}

async fn serve(listener: impl Listener, router: Router, places: Places, mut stop: watch::Receiver<bool>) {
    let crowd = Crowd::new(places);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.changed() => break,
        };
        let (mut stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let guest = Guest {
            user: peer.map(|peer| peer.uid),
            trusted: peer.is_some_and(Peer::may_change),
        };
        if let Some(place) = crowd.admit(guest) {
            connections.spawn(connection(
                stream,
                router.clone(),
                peer,
                Arc::new(place),
                stop.clone(),
            ));
        } else {
            // It fits into the socket's buffer; who does not read it learns as much from the end of the connection.
            let _ = tokio::time::timeout(Duration::ZERO, stream.write_all(BUSY)).await;
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("some connections did not end in time; they are cut");
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    peer: Option<Peer>,
    place: Arc<Place>,
    mut stop: watch::Receiver<bool>,
) {
    let paths = TowerToHyperService::new(router);
    let asked = AtomicU32::new(0);
    let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
        let work = place.work();
        let last = asked.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS;
        let long = request
            .uri()
            .path_and_query()
            .is_some_and(|uri| uri.as_str().len() > URI_BYTES);
        if let Some(mut peer) = peer {
            // What the caller says only guards itself; a lie can do no more than have its request refused.
            let said = request.headers().get(SESSION).and_then(|said| said.to_str().ok());
            peer.session = said.and_then(|said| said.parse().ok());
            request.extensions_mut().insert(peer);
        }
        let answer = (!long).then(|| paths.call(request.map(Body::new)));
        async move {
            let mut response: Response = match answer {
                Some(answer) => answer.await?,
                None => too_long(),
            };
            if last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            drop(work);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        // One request at a time: what a client sends ahead waits in its socket.
        .pipeline_flush(false);
    let stream = TokioIo::new(Patience::new(stream, READ_WITHIN));
    let mut connection = pin!(builder.serve_connection(stream, service));
    tokio::select! {
        // A broken connection is the caller's business; whatever it asked for is done or not, and logged where it is.
        _ = connection.as_mut() => return,
        () = place.lost() => return,
        _ = stop.changed() => {}
        () = tokio::time::sleep(LIVES_FOR) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = place.lost() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
}

fn too_long() -> Response {
    Failure::new(
        code::TOO_LARGE,
        format!("the request's path and query are longer than the {URI_BYTES} bytes allowed"),
    )
    .into_response()
}
