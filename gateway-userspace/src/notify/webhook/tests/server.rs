//! A server that answers as it is told, well or badly.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{SOON, Settings, settings};

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Say(&'static str),
    /// Closes the connection without a word.
    Close,
    /// Says nothing and keeps the connection.
    Silence,
    /// Sends headers without end.
    Flood,
}

pub(super) const OK: Answer = Answer::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
pub(super) const ERROR: Answer = Answer::Say("HTTP/1.1 500 Oh no\r\nContent-Length: 0\r\n\r\n");

/// A request, as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| -> bool {
            line.split_once(':')
                .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let found = self.head.lines().find(|of| line(of))?;
        found.split_once(':').map(|(_, value)| value.trim())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 4_096];
        let count = stream.read(&mut some).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&some[..count]);
        let Some(end) = bytes.windows(4).position(|of| of == b"\r\n\r\n") else {
            continue;
        };
        let asked = Asked {
            head: String::from_utf8(bytes[..end].to_vec()).unwrap(),
            body: bytes[end + 4..].to_vec(),
        };
        let length: usize = asked.header("content-length").unwrap().parse().unwrap();
        if asked.body.len() >= length {
            return Some(asked);
        }
    }
}

pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), answer: Answer) {
    match answer {
        Answer::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Answer::Close => {}
        Answer::Silence => sleep(SOON).await,
        Answer::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"X: x\r\n").await.is_ok() {}
        }
    }
}

/// A server that answers as it is told, and then well; and what it was asked.
pub(super) struct Server {
    pub(super) port: u16,
    asked: mpsc::UnboundedReceiver<Asked>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = mpsc::unbounded_channel();
        let mut answers: VecDeque<Answer> = answers.iter().copied().collect();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let next = answers.pop_front().unwrap_or(OK);
                let tell = tell.clone();
                tokio::spawn(async move {
                    if let Some(asked) = read(&mut stream).await {
                        let _ = tell.send(asked);
                        answer(&mut stream, next).await;
                    }
                });
            }
        });
        Self { port, asked, task }
    }

    pub(super) fn settings(&self) -> Settings {
        settings(&format!("http://127.0.0.1:{}/hook/T0KEN?key=T0KEN", self.port))
    }

    pub(super) async fn next(&mut self) -> Asked {
        timeout(SOON, self.asked.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
