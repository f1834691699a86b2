//! A TCP port that leads to a Unix socket, for programs that speak HTTP over TCP only.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};

use crate::netns::Netns;

/// A port of a namespace's loopback; every connection to it becomes one to the socket. Closed on drop.
#[derive(Debug)]
pub struct Bridge<'n> {
    netns: &'n Netns,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<Result<()>>>,
}

impl<'n> Bridge<'n> {
    /// Opens one.
    pub fn open(netns: &'n Netns, socket: &Path) -> Result<Self> {
        let listener = netns
            .run(|| TcpListener::bind("127.0.0.1:0"))?
            .context("cannot listen on the namespace's loopback")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, stopped) = (socket.to_owned(), Arc::clone(&stop));
        let accepting = netns.spawn(move || accept(&listener, &socket, &stopped))?;
        Ok(Self {
            netns,
            address,
            stop,
            accepting: Some(accepting),
        })
    }

    /// Where it listens, inside the namespace.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Bridge<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The connection wakes the thread that waits for one.
        let address = self.address;
        let _ = self.netns.run(|| TcpStream::connect(address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, socket: &Path, stop: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        if let Ok(server) = UnixStream::connect(socket) {
            let _ = join(client, server);
        }
    }
}

/// Copies both ways until both are at their end.
fn join(client: TcpStream, server: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}
