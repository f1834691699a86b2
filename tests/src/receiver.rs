//! A small HTTP server that is told things by POST: it answers as a test says, and keeps what came.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{command::patience, netns::Netns};

/// How long a sender may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of a request.
const MOST: usize = 1 << 20;

/// A request.
#[derive(Clone, Debug)]
pub struct Posted {
    /// When it was whole.
    pub at: Instant,
    /// Request line and headers.
    pub head: String,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl Posted {
    /// A header's value; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }
}

/// A running receiver; it stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The status codes of the next answers; then 204.
    answers: Mutex<VecDeque<u16>>,
    posted: Mutex<Vec<Posted>>,
    stop: AtomicBool,
}

impl Receiver {
    /// Opens one on `address` inside `netns`, which answers with these status codes and then with 204. Port 0 takes any free one.
    pub fn open(netns: &Netns, address: SocketAddr, answers: &[u16]) -> Result<Self> {
        let listener = netns
            .run(|| TcpListener::bind(address))?
            .with_context(|| format!("nothing can listen on {address} in {}", netns.name()))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.iter().copied().collect()),
            posted: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        listener.set_nonblocking(true)?;
        let serving = Arc::clone(&shared);
        // An accepted socket lives in the listener's namespace, so the thread need not enter it.
        let thread = thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || serving.serve(&listener))?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came so far.
    pub fn posted(&self) -> Vec<Posted> {
        let posted = self.shared.posted.lock();
        posted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests came.
    pub fn wait(&self, count: usize, within: Duration) -> Result<Vec<Posted>> {
        let begun = Instant::now();
        loop {
            let posted = self.posted();
            if posted.len() >= count {
                return Ok(posted);
            }
            if begun.elapsed() > patience(within) {
                bail!(
                    "{} requests and not {count} came in {within:?}: {posted:?}",
                    posted.len()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, listener: &TcpListener) {
        while !self.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                // What a sender does wrong is its own affair; what it did is not kept.
                Ok((stream, _)) => drop(self.hear(stream)),
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn hear(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let posted = read(&mut stream)?;
        let lock = |answers: &Mutex<VecDeque<u16>>| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.pop_front()
        };
        let code = lock(&self.answers).unwrap_or(204);
        let mut kept = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(posted);
        drop(kept);
        write!(
            stream,
            "HTTP/1.1 {code} As told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }
}

fn read(stream: &mut TcpStream) -> io::Result<Posted> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut bytes = Vec::new();
    let mut some = [0; 4_096];
    let mut head = None;
    loop {
        let count = stream.read(&mut some)?;
        if count == 0 || bytes.len() + count > MOST {
            return Err(bad("it ends too early, or never"));
        }
        bytes.extend_from_slice(&some[..count]);
        if head.is_none()
            && let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n")
        {
            head = Some(end + 4);
        }
        let Some(begin) = head else { continue };
        let mut posted = Posted {
            at: Instant::now(),
            head: String::from_utf8(bytes[..begin].to_vec()).map_err(|_| bad("its head is no text"))?,
            body: Vec::new(),
        };
        let length = posted
            .header("content-length")
            .and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| bad("it has no length"))?;
        if bytes.len() >= begin + length {
            posted.body = bytes[begin..begin + length].to_vec();
            return Ok(posted);
        }
    }
}
