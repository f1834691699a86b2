//! TCP connections from a chosen source address, with a timeout.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, getsockopt,
            setsockopt, socket, sockopt,
        },
    },
};

use crate::netns::Netns;

/// Accepts connections to port 80 of a namespace, of both families, and closes them, for as long as the test lives.
pub fn serve(netns: &Netns) -> Result<()> {
    let listener = netns.run(|| TcpListener::bind("[::]:80"))??;
    thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
        }
    });
    Ok(())
}

/// Begins a connection from `source` (its port may be 0) to `target` without waiting for it. The
/// stream does not block; it becomes writable when the connection stands or has failed.
///
/// Acts in the network namespace of the calling thread.
pub fn begin(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    // Leaves the port to `connect`, which may then use one port towards many targets.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let (fd, storage) = (std::os::fd::AsRawFd::as_raw_fd(&socket), SockaddrStorage::from);
    bind(fd, &storage(source))?;
    match connect(fd, &storage(target)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Connects from `source` to `target` within `timeout`. The stream blocks.
pub fn connect_from(source: SocketAddr, target: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = begin(source, target)?;
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is not a busy one.
        let left = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], left) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match getsockopt(&stream, sockopt::SocketError)? {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Makes closing the stream abort the connection, so that it leaves nothing waiting behind.
pub fn abort_on_close(stream: &TcpStream) -> io::Result<()> {
    setsockopt(
        stream,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )?;
    Ok(())
}

/// Lets this process open as many descriptors as it may.
pub fn allow_many_sockets() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_source_address_is_the_one_asked_for() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let source = SocketAddr::from(([127, 0, 0, 9], 0));
        let stream = connect_from(source, listener.local_addr()?, Duration::from_secs(5))?;
        assert_eq!(stream.local_addr()?.ip(), source.ip());
        assert_eq!(listener.accept()?.1.ip(), source.ip());
        Ok(())
    }

    #[test]
    fn a_closed_port_refuses() -> io::Result<()> {
        // Bound but not listening, so nobody else can take the port meanwhile.
        let held = TcpListener::bind("127.0.0.1:0")?;
        let target = held.local_addr()?;
        drop(held);
        let error = connect_from(([127, 0, 0, 1], 0).into(), target, Duration::from_secs(5))
            .expect_err("nothing listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        Ok(())
    }
}
