//! A small HTTP storefront with a fixed number of workers, as plain application servers have them:
//! each worker serves one connection at a time, a short queue holds the connections that wait, and
//! a client that says nothing holds its worker until a timeout. It suffers from floods as they do.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt,
    socket, sockopt,
};

use crate::netns::Netns;

/// How the storefront is sized.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Connections served at the same time.
    pub workers: usize,
    /// Finished handshakes that may wait for a worker.
    pub backlog: i32,
    /// What a request waits for its data store.
    pub lookup: Duration,
    /// Rounds of hashing a request costs; a thousand are a few microseconds.
    pub render_rounds: u32,
    /// How long a client may take to send its request.
    pub patience: Duration,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            workers: 32,
            backlog: 64,
            lookup: Duration::from_millis(5),
            render_rounds: 20_000,
            patience: Duration::from_secs(1),
        }
    }
}

/// A running storefront; it stops when dropped.
#[derive(Debug)]
pub struct Storefront {
    address: SocketAddr,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: TcpListener,
    size: Size,
    stop: AtomicBool,
    served: AtomicU64,
    given_up: AtomicU64,
}

impl Storefront {
    /// Opens a storefront on `address` inside `netns`. Port 0 takes any free one.
    pub fn open(netns: &Netns, address: SocketAddr, size: Size) -> Result<Self> {
        let listener = netns
            .run(|| bounded_listener(address, size.backlog))?
            .with_context(|| format!("the storefront cannot listen on {address} in {}", netns.name()))?;
        Self::serve(listener, size)
    }

    fn serve(listener: TcpListener, size: Size) -> Result<Self> {
        let address = listener.local_addr()?;
        let (stop, served, given_up) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared {
            listener,
            size,
            stop,
            served,
            given_up,
        });
        let mut storefront = Self {
            address,
            shared,
            workers: Vec::with_capacity(size.workers),
        };
        for number in 0..size.workers {
            let shared = Arc::clone(&storefront.shared);
            // Accepted sockets live in the listener's namespace, so the workers need not enter it.
            let worker = thread::Builder::new()
                .name(format!("storefront-{number}"))
                .spawn(move || shared.work())?;
            storefront.workers.push(worker);
        }
        Ok(storefront)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests answered so far.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Connections given up so far, because the client sent no request in time or went away.
    pub fn given_up(&self) -> u64 {
        self.shared.given_up.load(Ordering::Relaxed)
    }
}

impl Drop for Storefront {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the workers that wait in `accept`.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.shared.listener),
            nix::sys::socket::Shutdown::Both,
        );
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = self.listener.accept() else {
                // Out of descriptors, or stopping: neither may spin.
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            let counter = if self.answer(&mut stream).is_ok() {
                &self.served
            } else {
                &self.given_up
            };
            counter.fetch_add(1, Ordering::Relaxed);
            // Only now is it closed: whoever has read its end finds it counted.
            drop(stream);
        }
    }

    fn answer(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(self.size.patience))?;
        stream.set_write_timeout(Some(self.size.patience))?;
        let mut request = [0; 2048];
        let mut len = 0;
        while !request[..len].windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut request[len..])? {
                // The client went away, or its request does not fit.
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => len += more,
            }
        }
        thread::sleep(self.size.lookup);
        let body = render(&request[..len], self.size.render_rounds);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes())
    }
}

/// The page: a checksum over the request, worked for as long as a template engine would.
fn render(request: &[u8], rounds: u32) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for round in 0..rounds {
        let byte = request[round as usize % request.len()];
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("Welcome to the storefront. Your basket is {hash:016x}.\n")
}

fn bounded_listener(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let socket: OwnedFd = socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Tcp,
    )?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrStorage::from(address),
    )?;
    listen(&socket, Backlog::new(backlog)?)?;
    Ok(TcpListener::from(socket))
}

/// Fetches `/` over an open connection and returns the status code. The stream's own timeouts
/// bound it.
pub fn get(stream: &mut TcpStream) -> io::Result<u16> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: storefront\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::with_capacity(512);
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let line = answer.split(|&byte| byte == b'\r').next().ok_or_else(bad)?;
    let line = std::str::from_utf8(line).map_err(|_| bad())?;
    line.strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(size: Size) -> Result<Storefront> {
        Storefront::serve(bounded_listener(([127, 0, 0, 1], 0).into(), size.backlog)?, size)
    }

    #[test]
    fn it_serves_and_stops() -> Result<()> {
        let storefront = local(Size {
            workers: 2,
            ..Size::default()
        })?;
        for _ in 0..5 {
            assert_eq!(get(&mut TcpStream::connect(storefront.address())?)?, 200);
        }
        assert_eq!(storefront.served(), 5);
        let address = storefront.address();
        drop(storefront);
        assert!(TcpStream::connect(address).is_err());
        Ok(())
    }

    #[test]
    fn silent_clients_hold_its_only_worker_until_its_patience_ends() -> Result<()> {
        let storefront = local(Size {
            workers: 1,
            patience: Duration::from_millis(300),
            ..Size::default()
        })?;
        let silent = TcpStream::connect(storefront.address())?;
        let mut shopper = TcpStream::connect(storefront.address())?;
        shopper.set_read_timeout(Some(Duration::from_millis(20)))?;
        assert!(get(&mut shopper).is_err(), "the worker should be held");
        shopper.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = String::new();
        shopper.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!((storefront.served(), storefront.given_up()), (1, 1));
        drop(silent);
        Ok(())
    }
}
