//! Taking the control socket and the `--listen` address, before anything in the kernel is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{
            DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr},
    stat::{Mode, fchmod},
};

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum ListenError {
    #[error("another weir controller answers on {path}; stop it first, or choose another --socket")]
    Answered { path: PathBuf },
    #[error(
        "{path} is in the way of the control socket and is no socket; move it, or choose another --socket"
    )]
    NoSocket { path: PathBuf },
    #[error(
        "cannot open the control socket {path}: {source}; choose another --socket, or make its directory writable"
    )]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Address { address: SocketAddr, source: io::Error },
}

/// The control socket. Dropping it removes the file, unless that is another's by now.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    /// The socket file itself: while it is open its inode number cannot become another file's.
    file: File,
}

impl ControlSocket {
    /// Binds `path` with mode 0660; a socket that nobody answers on is replaced.
    pub(super) fn bind(path: &Path) -> Result<(Self, UnixListener), ListenError> {
        let fail = |source| ListenError::Socket {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(fail)?;
        }
        clear_stale(path)?;
        let listener = bind_narrow(path).map_err(fail)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path);
        Ok((
            Self {
                path: path.to_owned(),
                file: file.map_err(fail)?,
            },
            listener,
        ))
    }
}

/// Binds without ever being open to more than [`MODE`]: the file takes the mode of the unbound socket, less the umask.
fn bind_narrow(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let unbound = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&unbound, Mode::from_bits_truncate(MODE))?;
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&unbound), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket::listen(&unbound, Backlog::new(128)?)?;
    Ok(UnixListener::from(unbound))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let ours = match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(bound)) => place(there) == place(bound),
            _ => false,
        };
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

fn clear_stale(path: &Path) -> Result<(), ListenError> {
    let fail = |source| ListenError::Socket {
        path: path.to_owned(),
        source,
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NoSocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Answered {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "removing the socket that an earlier controller left");
            fs::remove_file(path).map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

/// Binds the address of `/metrics`.
pub(super) fn bind_web(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| ListenError::Address { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_for_owner_and_group_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/weir.sock");
        let (socket, listener) = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(
            ControlSocket::bind(&path),
            Err(ListenError::Answered { .. })
        ));
        drop(listener);
        // What is left when a controller is killed: a file that nobody answers on.
        let (second, _listener) = ControlSocket::bind(&path).unwrap();
        drop(socket);
        assert!(
            path.exists(),
            "the earlier owner must not remove its successor's socket"
        );
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            ControlSocket::bind(&path),
            Err(ListenError::NoSocket { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_web(address).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
    }
}
