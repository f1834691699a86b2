//! One try to deliver one message: a connection of its own, one request, the head of the answer. Redirects are not followed:
//! a signed message goes where the policy says.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::sign::{SecretError, signature};
use crate::policy::webhook::Url;

/// An address that does not answer gives way to the next one after so long.
const CONNECT: Duration = Duration::from_secs(3);
/// The most addresses of a host that are tried.
const ADDRESSES: usize = 4;
/// Bytes of an answer's head, and its headers; what has more is no answer to this.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Secret(#[from] SecretError),
    #[error("its host cannot be looked up: {0}")]
    Lookup(io::Error),
    #[error("its host has no address")]
    NoAddress,
    #[error("{0}")]
    Connect(io::Error),
    #[error("this machine has no certificates of authorities (install ca-certificates)")]
    NoRoots,
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("its host is no name that a certificate can have")]
    Name,
    #[error("what it answers is not HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("it does not answer within {} s", .0.as_secs_f64())]
    Late(Duration),
    #[error("it answers with a redirect ({}), and redirects are not followed", .0.as_u16())]
    Redirect(StatusCode),
    #[error("it answers {}", .status.as_u16())]
    Status {
        status: StatusCode,
        /// It asks to be left alone for so long.
        after: Option<Duration>,
    },
}

impl Failed {
    /// Whether it says that this message will never do.
    pub(super) fn is_final(&self) -> bool {
        const FINAL: [StatusCode; 3] = [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        matches!(self, Self::Status { status, .. } if FINAL.contains(status))
    }

    /// For how long it asks to be left alone.
    pub(super) fn after(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            _ => None,
        }
    }
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    pub(super) url: &'a Url,
    pub(super) delivery: &'a str,
    pub(super) body: Bytes,
    /// Signs it.
    pub(super) secret: Option<&'a [u8]>,
    /// The time that is signed, in seconds since 1970.
    pub(super) at: i64,
}

/// The client's side of TLS, with the authorities that this machine trusts. Reading them takes a moment: not on the loop.
pub(super) fn connector() -> Result<TlsConnector, Failed> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failed::NoRoots);
    }
    trusting(roots)
}

/// The client's side of TLS that trusts these authorities.
pub(super) fn trusting(roots: RootCertStore) -> Result<TlsConnector, Failed> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failed::Tls(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Looks hosts up. The system's resolver may take half a minute, and the threads of this process are few and for other work: so
/// a lookup has a thread of its own, of which there is one at a time, whatever is tried meanwhile.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pending: Option<Pending>,
}

/// A lookup that goes on.
#[derive(Debug)]
struct Pending {
    host: String,
    found: oneshot::Receiver<io::Result<Vec<SocketAddr>>>,
}

impl Lookups {
    /// The addresses of a host. Whoever gives up waiting finds the answer at the next try.
    async fn of(&mut self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failed> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let pending = match self.pending.take().filter(|pending| pending.host == host) {
            Some(pending) => pending,
            None => Pending::start(host)?,
        };
        let pending = self.pending.insert(pending);
        let found = (&mut pending.found).await;
        self.pending = None;
        let found = found.unwrap_or_else(|_| Err(io::Error::other("the lookup ended without an answer")));
        let mut found = found.map_err(Failed::Lookup)?;
        for address in &mut found {
            address.set_port(port);
        }
        Ok(found)
    }
}

impl Pending {
    fn start(host: &str) -> Result<Self, Failed> {
        let (tell, found) = oneshot::channel();
        let asked = host.to_owned();
        let thread = thread::Builder::new().name("lookup".to_owned());
        let begun = thread.spawn(move || {
            let addresses = (asked.as_str(), 0).to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more.
            let _ = tell.send(addresses);
        });
        begun.map_err(Failed::Lookup)?;
        Ok(Self {
            host: host.to_owned(),
            found,
        })
    }
}

/// Sends it, and hears whether it was taken, within so long.
pub(super) async fn post(
    parcel: &Parcel<'_>,
    tls: Option<&TlsConnector>,
    lookups: &mut Lookups,
    within: Duration,
) -> Result<(), Failed> {
    timeout(within, send(parcel, tls, lookups))
        .await
        .unwrap_or(Err(Failed::Late(within)))
}

async fn send(parcel: &Parcel<'_>, tls: Option<&TlsConnector>, lookups: &mut Lookups) -> Result<(), Failed> {
    let url = parcel.url;
    let request = request(parcel)?;
    let stream = connect(&lookups.of(&url.host, url.port).await?).await?;
    // It is one small message: nothing to wait for.
    let _ = stream.set_nodelay(true);
    let answer = match tls {
        None => exchange(stream, request).await?,
        Some(tls) => {
            let name = ServerName::try_from(url.host.clone()).map_err(|_| Failed::Name)?;
            let stream = tls.connect(name, stream).await.map_err(Failed::Tls)?;
            exchange(stream, request).await?
        }
    };
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(Failed::Redirect(status))
    } else {
        let after = answer.headers().get(RETRY_AFTER);
        let after = after.and_then(|after| after.to_str().ok()?.trim().parse().ok());
        Err(Failed::Status {
            status,
            after: after.map(Duration::from_secs),
        })
    }
}

fn request(parcel: &Parcel<'_>) -> Result<Request<Full<Bytes>>, Failed> {
    let mut request = Request::post(parcel.url.target.as_str())
        .header(HOST, parcel.url.authority())
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .header("weir-delivery", parcel.delivery);
    let signed = parcel
        .secret
        .and_then(|secret| signature(secret, parcel.at, &parcel.body));
    if let Some(signed) = signed {
        request = request.header("weir-signature", signed);
    }
    Ok(request.body(Full::new(parcel.body.clone()))?)
}

/// Connects to the first of these addresses that answers.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Failed> {
    let mut failed = Failed::NoAddress;
    for address in addresses.iter().take(ADDRESSES) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = Failed::Connect(error),
            Err(_) => failed = Failed::Late(CONNECT),
        }
    }
    Err(failed)
}

/// Sends a request and reads the answer's head. What the answer says besides is nobody's business: the connection ends here.
async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<hyper::Response<hyper::body::Incoming>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?),
        ended = &mut connection => {
            ended?;
            // It has ended well: the answer is there, or never comes.
            Ok(answer.await?)
        }
    }
}
