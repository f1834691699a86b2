//! The command line's side of the control socket: one HTTP/1.1 request over a Unix socket, and its answer.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime, time};

use crate::{
    api::{
        server::SESSION,
        types::{ErrorAnswer, ErrorBody, SCHEMA},
    },
    guard::Session,
};

/// How long a request may take in all. The longest is a list of a million prefixes, which the controller compiles
/// before it answers.
const PATIENCE: Duration = Duration::from_mins(2);
/// The largest answer that is read, in bytes: a list of a million prefixes is some 25 MB.
const LARGEST_ANSWER: usize = 256 << 20;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no controller answers at {}", socket.display())]
    NoController {
        /// The socket.
        socket: PathBuf,
    },
    /// This user may not use the socket.
    #[error("not permitted to use {}", socket.display())]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
    },
    /// The controller accepted the connection and then did not answer in time.
    #[error("the controller at {} did not answer within {} s", socket.display(), after.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The controller answered that it cannot.
    #[error("{}", body.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: ErrorBody,
    },
    /// The answer is not what a controller of this version says.
    #[error("the answer from {} makes no sense: {why}", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What is odd about it.
        why: String,
    },
    /// The connection could not be made or kept.
    #[error("cannot talk to the controller at {}: {source}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// What every answer has.
#[derive(serde::Deserialize)]
struct Envelope {
    schema: u32,
}

/// A controller, by its socket. Each request opens a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
    session: Option<Session>,
}

impl Client {
    /// A client of the controller that listens on `socket`. Nothing is sent yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            patience: PATIENCE,
            session: None,
        }
    }

    /// The same client that waits at most `patience` for a whole answer.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same client that says in which SSH session it runs, so that the controller does not cut that off.
    #[must_use]
    pub fn in_session(mut self, session: Option<Session>) -> Self {
        self.session = session;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads `path` (such as `/v1/status`).
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.request(Method::GET, path, Bytes::new())
    }

    /// Sends `body` to `path`.
    pub fn post<B: Serialize, A: DeserializeOwned>(&self, path: &str, body: &B) -> Result<A, ClientError> {
        let body = self.encode(body)?;
        self.request(Method::POST, path, body)
    }

    /// Deletes what `path` and `body` name.
    pub fn delete<B: Serialize, A: DeserializeOwned>(&self, path: &str, body: &B) -> Result<A, ClientError> {
        let body = self.encode(body)?;
        self.request(Method::DELETE, path, body)
    }

    fn encode<B: Serialize>(&self, body: &B) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body)
            .map(Bytes::from)
            .map_err(|error| self.protocol(error.to_string()))
    }

    fn request<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<A, ClientError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ClientError::Io {
                socket: self.socket.clone(),
                source,
            })?;
        let (status, answer) = runtime
            .block_on(async { time::timeout(self.patience, self.exchange(method, path, body)).await })
            .map_err(|_| ClientError::Timeout {
                socket: self.socket.clone(),
                after: self.patience,
            })??;
        self.decode(status, &answer)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.connect_error(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.http_error(&error))?;
        // Ends by itself when the answer is read and `sender` is gone.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "weir")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(session) = &self.session {
            request = request.header(SESSION, session.to_string());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.protocol(error.to_string()))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.http_error(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                self.protocol(format!("it is longer than {LARGEST_ANSWER} bytes"))
            } else {
                self.broken(error.to_string())
            }
        })?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    fn decode<A: DeserializeOwned>(&self, status: StatusCode, answer: &[u8]) -> Result<A, ClientError> {
        if !status.is_success() {
            return Err(match serde_json::from_slice::<ErrorAnswer>(answer) {
                Ok(answer) => ClientError::Refused {
                    status: status.as_u16(),
                    body: answer.error,
                },
                Err(_) => self.protocol(format!("HTTP status {status} without an explanation")),
            });
        }
        match serde_json::from_slice::<Envelope>(answer) {
            Ok(Envelope { schema: SCHEMA }) => {}
            Ok(Envelope { schema }) => {
                return Err(self.protocol(format!(
                    "it has schema {schema}, and this weir reads schema {SCHEMA}; use the weir of the controller's version"
                )));
            }
            Err(error) => return Err(self.protocol(error.to_string())),
        }
        serde_json::from_slice(answer).map_err(|error| self.protocol(error.to_string()))
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            // No file, a file that nobody listens on any more, or no socket at all.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ClientError::NoController { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { socket },
            _ => ClientError::Io { socket, source },
        }
    }

    fn http_error(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            self.protocol(error.to_string())
        } else {
            self.broken(error.to_string())
        }
    }

    fn broken(&self, why: String) -> ClientError {
        ClientError::Io {
            socket: self.socket.clone(),
            source: io::Error::other(why),
        }
    }

    fn protocol(&self, why: String) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        thread::{self, JoinHandle},
    };

    use super::*;
    use crate::api::types::{DetachRequest, Detached};

    /// Answers one connection with `answer` and returns what was asked.
    fn serve(directory: &Path, answer: &'static str) -> (PathBuf, JoinHandle<String>) {
        let socket = directory.join("weir.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut buffer = [0; 4096];
            // The bodies of these tests all end in a brace; requests without one end in an empty line.
            while !asked.ends_with(b"}") && !asked.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                asked.extend_from_slice(&buffer[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (socket, server)
    }

    fn ok(body: &str) -> &'static str {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        Box::leak(answer.into_boxed_str())
    }

    fn detach(socket: &Path) -> Result<Detached, ClientError> {
        Client::new(socket).post(
            "/v1/detach",
            &DetachRequest {
                interfaces: vec!["eth0".into()],
            },
        )
    }

    #[test]
    fn a_request_goes_out_and_its_answer_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, server) = serve(
            directory.path(),
            ok(r#"{"schema":1,"detached":["eth0"],"remaining":[]}"#),
        );
        assert_eq!(detach(&socket).unwrap().detached, ["eth0"]);
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /v1/detach HTTP/1.1\r\n"), "{asked}");
        assert!(asked.ends_with(r#"{"interfaces":["eth0"]}"#), "{asked}");
    }

    #[test]
    fn an_error_keeps_what_the_controller_said() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _server) = serve(
            directory.path(),
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
             {\"schema\":1,\"error\":{\"code\":\"not_found\",\"message\":\"no such thing\",\"hint\":\"look again\"}}",
        );
        // `connection: close` without a length: the body ends with the connection, which the server closes.
        let ClientError::Refused { status, body } = detach(&socket).unwrap_err() else {
            panic!()
        };
        assert_eq!(
            (status, body.code.as_str(), body.hint.as_deref()),
            (404, "not_found", Some("look again"))
        );
    }

    #[test]
    fn nonsense_is_told_from_an_answer() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
            ok("not json"),
            ok("{}"),
            ok(r#"{"schema":1}"#),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (socket, _server) = serve(directory.path(), answer);
            let error = detach(&socket).unwrap_err();
            assert!(
                matches!(error, ClientError::Protocol { .. }),
                "{answer}: {error:?}"
            );
        }
    }

    #[test]
    fn another_schema_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, _server) = serve(
            directory.path(),
            ok(r#"{"schema":2,"detached":[],"remaining":[]}"#),
        );
        assert!(detach(&socket).unwrap_err().to_string().contains("schema 2"));
    }

    #[test]
    fn nobody_there_is_its_own_error() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("weir.sock");
        assert!(matches!(detach(&socket), Err(ClientError::NoController { .. })));
        drop(UnixListener::bind(&socket).unwrap());
        assert!(
            matches!(detach(&socket), Err(ClientError::NoController { .. })),
            "a stale socket"
        );
    }

    #[test]
    fn a_controller_that_hangs_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("weir.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let client = Client::new(&socket).with_patience(Duration::from_millis(50));
        let error = client.get::<Detached>("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    }
}
