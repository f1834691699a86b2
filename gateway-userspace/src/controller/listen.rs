//! Taking the control socket and the `--listen` address, before anything in the kernel is touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    os::unix::{
        fs::{
            DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::AtFlags,
    sys::{
        socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr},
        stat::{Mode, fchmod},
    },
    unistd::{self, Group},
};

use super::access::Door;

/// Owner and group may connect.
const MODE: u32 = 0o660;
/// Only the owner may: until the group is set, and where it cannot be.
const NARROW: u32 = 0o600;

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
    #[error(
        "--listen {address} is not a loopback address, and whoever reaches it could read what weir counts; listen on \
         127.0.0.1 or [::1], or add --listen-public if that is meant"
    )]
    Public { address: SocketAddr },
}

/// The control socket. Dropping it removes the file, unless that is another's by now.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    /// The socket file itself: while it is open its inode number cannot become another file's.
    file: Arc<File>,
}

impl ControlSocket {
    /// Binds `path` for its owner alone; a socket that nobody answers on is replaced.
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
                file: Arc::new(file.map_err(fail)?),
            },
            listener,
        ))
    }

    /// What lets a group in.
    pub(super) fn door(&self) -> SocketDoor {
        SocketDoor {
            path: self.path.clone(),
            file: Arc::clone(&self.file),
        }
    }
}

/// The control socket's file: its group and mode.
#[derive(Debug)]
pub(super) struct SocketDoor {
    path: PathBuf,
    file: Arc<File>,
}

impl SocketDoor {
    fn chmod(&self, mode: u32) -> io::Result<()> {
        // The descriptor is a mere name (O_PATH), which `fchmod` does not take.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

impl Door for SocketDoor {
    fn let_in(&self, group: Option<&str>) -> Result<(), String> {
        let path = self.path.display();
        let only_owner = |why: String| format!("only its owner may use the control socket {path}: {why}");
        let found = match group {
            None => Ok(Some(unistd::getegid())),
            Some(name) => Group::from_name(name).map(|found| found.map(|group| group.gid)),
        };
        let name = group.unwrap_or("the controller's own");
        let gid = match found {
            Ok(Some(gid)) => gid,
            Ok(None) => {
                self.chmod(NARROW)
                    .map_err(|error| only_owner(error.to_string()))?;
                return Err(only_owner(format!(
                    "there is no group {name} ([controller] socket_group); make it with `groupadd --system {name}` and apply \
                     the policy again"
                )));
            }
            Err(error) => {
                self.chmod(NARROW)
                    .map_err(|error| only_owner(error.to_string()))?;
                return Err(only_owner(format!(
                    "the group {name} cannot be looked up: {error}"
                )));
            }
        };
        let settled = self
            .file
            .metadata()
            .is_ok_and(|found| found.gid() == gid.as_raw() && found.permissions().mode() & 0o7777 == MODE);
        if settled {
            return Ok(());
        }
        // Closed first: the members of neither group are to slip in as the other's.
        self.chmod(NARROW)
            .map_err(|error| only_owner(error.to_string()))?;
        unistd::fchownat(&*self.file, "", None, Some(gid), AtFlags::AT_EMPTY_PATH).map_err(|error| {
            only_owner(format!(
                "it cannot be given to the group {name} ({error}); add the controller's user to that group \
                 (SupplementaryGroups={name} in its unit) and restart it"
            ))
        })?;
        self.chmod(MODE).map_err(|error| only_owner(error.to_string()))
    }
}

/// Binds without ever being open to more than the owner: the file takes the mode of the unbound socket, less the umask.
fn bind_narrow(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let unbound = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&unbound, Mode::from_bits_truncate(NARROW))?;
    socket::bind(unbound.as_raw_fd(), &UnixAddr::new(path)?)?;
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

/// Binds the address of `/metrics`; one that other machines can reach only where that is `public`ly meant.
pub(super) fn bind_web(address: SocketAddr, public: bool) -> Result<TcpListener, ListenError> {
    if !public && !address.ip().to_canonical().is_loopback() {
        return Err(ListenError::Public { address });
    }
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
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600, "nobody is let in before the policy says who");
        socket.door().let_in(None).unwrap();
        assert_eq!(mode(), 0o660);
        let error = socket.door().let_in(Some("no-such-group")).unwrap_err();
        assert!(error.contains("groupadd --system no-such-group"), "{error}");
        assert_eq!(mode(), 0o600, "a wrong group lets nobody in");
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
    fn only_loopback_unless_it_is_meant() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9464", "[::ffff:192.0.2.1]:0"] {
            let error = bind_web(address.parse().unwrap(), false).unwrap_err().to_string();
            assert!(error.contains("--listen-public"), "{error}");
        }
        for address in ["127.0.0.1:0", "127.9.9.9:0", "[::ffff:127.0.0.1]:0"] {
            bind_web(address.parse().unwrap(), false).unwrap();
        }
        bind_web("0.0.0.0:0".parse().unwrap(), true).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_web(address, false).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
    }
}
