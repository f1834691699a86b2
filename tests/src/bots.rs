//! Bots that speak real TCP: each opens new connections at a steady rate, whatever becomes of the
//! earlier ones. Some ask for pages, some connect and stay silent, holding a worker each.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{netns::Netns, tcp};

/// How often the bots look at their connections.
const TICK: Duration = Duration::from_millis(5);

/// How a botnet behaves.
#[derive(Debug, Clone)]
pub struct Orders {
    /// One address each.
    pub sources: Vec<IpAddr>,
    /// The victim.
    pub target: SocketAddr,
    /// New connections a second, over all of them.
    pub connections_per_second: u64,
    /// Of every ten connections, how many stay silent instead of asking for a page.
    pub silent_in_ten: u64,
    /// When a connection is dropped, answered or not.
    pub hold: Duration,
    /// Connections open at once, at most; beyond it the oldest are dropped.
    pub open_at_once: usize,
}

/// A running botnet; it ends when dropped.
#[derive(Debug)]
pub struct Botnet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    attempts: AtomicU64,
    answered: AtomicU64,
}

/// A connection of a bot.
struct Attempt {
    stream: TcpStream,
    ends: Instant,
    /// Whether it will hold the connection instead of asking for a page.
    silent: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    AwaitingAnswer,
    Silent,
    Done,
}

impl Botnet {
    /// Sets the bots going inside `netns`, whose interface must have their addresses.
    pub fn start(netns: &Netns, orders: Orders) -> Result<Self> {
        tcp::allow_many_sockets().context("cannot raise the limit of open files")?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = netns.spawn(move || theirs.attack(&orders))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Connections begun so far.
    pub fn attempts(&self) -> u64 {
        self.shared.attempts.load(Ordering::Relaxed)
    }

    /// Pages that the victim answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Botnet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn attack(&self, orders: &Orders) {
        let start = Instant::now();
        let mut begun = 0_u64;
        let mut open: VecDeque<Attempt> = VecDeque::with_capacity(orders.open_at_once);
        while !self.stop.load(Ordering::Relaxed) {
            let due = u128::from(orders.connections_per_second) * start.elapsed().as_millis() / 1000;
            while u128::from(begun) < due {
                let source = orders.sources[begun as usize % orders.sources.len()];
                if open.len() >= orders.open_at_once {
                    open.pop_front();
                }
                // A failed attempt is an attempt: the bots do not care why.
                if let Ok(stream) = tcp::begin(SocketAddr::new(source, 0), orders.target) {
                    let _ = tcp::abort_on_close(&stream);
                    let (ends, silent) = (Instant::now() + orders.hold, begun % 10 < orders.silent_in_ten);
                    open.push_back(Attempt {
                        stream,
                        ends,
                        silent,
                        state: State::Connecting,
                    });
                }
                begun += 1;
            }
            self.attempts.store(begun, Ordering::Relaxed);
            self.attend(&mut open);
            thread::sleep(TICK);
        }
    }

    /// Moves every open connection on, and drops those that are done or have lasted long enough.
    fn attend(&self, open: &mut VecDeque<Attempt>) {
        let now = Instant::now();
        let ready: Vec<bool> = {
            let wanted = |state| match state {
                State::Connecting => PollFlags::POLLOUT,
                State::AwaitingAnswer => PollFlags::POLLIN,
                State::Silent | State::Done => PollFlags::empty(),
            };
            let mut polled: Vec<_> = open
                .iter()
                .map(|attempt| PollFd::new(attempt.stream.as_fd(), wanted(attempt.state)))
                .collect();
            if poll(&mut polled, PollTimeout::ZERO).is_err() {
                return;
            }
            polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        for (attempt, ready) in open.iter_mut().zip(ready) {
            if ready {
                attempt.advance().unwrap_or_else(|_| attempt.state = State::Done);
                if attempt.state == State::AwaitingAnswer && attempt.has_answer() {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    attempt.state = State::Done;
                }
            }
        }
        open.retain(|attempt| attempt.state != State::Done && attempt.ends > now);
    }
}

impl Attempt {
    fn advance(&mut self) -> io::Result<()> {
        match self.state {
            State::Connecting => {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                if self.silent {
                    self.state = State::Silent;
                } else {
                    self.stream
                        .write_all(b"GET /search?q=everything HTTP/1.1\r\nHost: storefront\r\n\r\n")?;
                    self.state = State::AwaitingAnswer;
                }
            }
            // Ready without being asked: the victim closed it.
            State::Silent => self.state = State::Done,
            State::AwaitingAnswer | State::Done => {}
        }
        Ok(())
    }

    fn has_answer(&mut self) -> bool {
        let mut answer = [0; 512];
        !matches!(self.stream.read(&mut answer), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
