//! The worker's side: a socket that only the server's own user can reach, and its connections.
//!
//! Guarantees: the socket has mode 0600 before it has its name, whatever the umask; a socket left
//! behind by a dead worker is replaced in one step; a client that connects is asked for its user ID by way
//! of the kernel, and only the server's user and root are served; accepting can be stopped from
//! another thread; the socket is removed at the end only if it is still this listener's.
//!
//! `rename` and `unlink` appear here for the socket alone. The rule that only `archive`'s
//! `durable.rs` may call them (STYLE D1) is about WAL: a socket holds no data and need not survive a
//! power cut.
//!
//! Left to others: threads, signals, and what to answer.

use crate::frame::{Answer, FrameError, Request};
use crate::packet::{self, PacketError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{accept_with, bind, listen, socket_with, sockopt};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client may take to send its request: it is one small frame that the client has ready
/// before it connects, so only a stopped or hostile client takes longer.
pub const REQUEST_READ_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long writing an answer may take: it fits into the socket's buffer, so a wait means trouble.
pub const ANSWER_WRITE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How many clients may wait to be accepted: the server runs its recovery commands one at a time.
const BACKLOG_MAX: i32 = 128;

/// Why the worker could not listen to, or finish with, a client.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file system or socket call failed.
    #[error("could not {action} \"{path}\": {source}")]
    Socket {
        /// What was tried: `bind`, `rename`, ...
        action: &'static str,
        /// The socket or directory that it failed on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket's name is taken by something that is not a socket.
    #[error("cannot listen on \"{}\": it exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The directory of the socket's name is missing.
    #[error("cannot listen on \"{}\": directory \"{}\" is missing", .0.display(), directory_of(.0).display())]
    NoDirectory(PathBuf),
    /// The client has gone. The server kills its commands when it shuts down, so this is ordinary.
    #[error("the client has gone")]
    ClientGone,
    /// The deadline has passed.
    #[error("the client took too long")]
    TimedOut,
    /// The client sent something that is not a request of this version. It has been told.
    #[error("could not read the client's request: {0}")]
    Frame(#[from] FrameError),
    /// Talking to a connected client failed otherwise.
    #[error("could not talk to the client: {0}")]
    Connection(#[source] io::Error),
}

impl From<PacketError> for ServeError {
    fn from(error: PacketError) -> ServeError {
        match error {
            PacketError::Gone => ServeError::ClientGone,
            PacketError::TimedOut => ServeError::TimedOut,
            PacketError::Frame(error) => ServeError::Frame(error),
            PacketError::Io(error) => ServeError::Connection(error.into()),
        }
    }
}

/// What [`Listener::accept`] came back with.
#[derive(Debug)]
pub enum Accepted {
    /// A client that may ask.
    Connection(Connection),
    /// [`Stop::stop`] was called; every later call returns this too.
    Stopped,
    /// No client came before the deadline.
    TimedOut,
}

/// The worker's socket. Dropping it removes the socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the socket's name, by which it is known to be still ours.
    identity: (u64, u64),
    stop: Stop,
}

/// Ends a [`Listener::accept`] from another thread. Clones end the same listener.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    fn new() -> Result<Stop, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(fd)))
    }

    /// Makes every present and future `accept` return [`Accepted::Stopped`].
    pub fn stop(&self) {
        // The counter is never read, so it stays above zero; it would take 2^64 calls to fail.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Listener {
    /// Listens on `path`, which is usually [`SOCKET_PATH`](crate::SOCKET_PATH) with the data directory
    /// as current directory. A dead worker's socket of that name is replaced.
    ///
    /// The socket is made in a directory of mode 0700 beside its final name, given mode 0600 there and
    /// renamed into place: neither the process's umask nor the moment between two calls can show it
    /// wider. The umask itself is left alone, since it belongs to the whole process.
    ///
    /// Fails when a call fails, or when the name belongs to something other than a socket.
    pub fn bind(path: impl AsRef<Path>) -> Result<Listener, ServeError> {
        let path = path.as_ref();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Socket {
                action,
                path,
                source,
            }
        };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServeError::NotASocket(path.to_owned()));
            }
            _ => {}
        }

        if !directory_of(path).is_dir() {
            return Err(ServeError::NoDirectory(path.to_owned()));
        }
        let mut private = path.as_os_str().to_owned();
        private.push(".d");
        let private = PathBuf::from(private);
        let unnamed = private.join("s");
        // Left behind by a worker that died right here, if at all.
        let _ = fs::remove_file(&unnamed);
        let _ = fs::remove_dir(&private);

        DirBuilder::new()
            .mode(0o700)
            .create(&private)
            .map_err(failed("create directory", &private))?;
        let bound = bind_in_private(&unnamed, path);
        let _ = fs::remove_file(&unnamed);
        let _ = fs::remove_dir(&private);
        let (socket, identity) = bound?;

        let stop = Stop::new().map_err(|e| failed("create an eventfd for", path)(e.into()))?;
        Ok(Listener {
            socket,
            path: path.to_owned(),
            identity,
            stop,
        })
    }

    /// A handle that ends `accept`, for another thread.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Waits for a client until `deadline`, or for [`Stop::stop`].
    ///
    /// A client of another user is told that it may not ask, closed, and the wait goes on. Fails when
    /// the kernel refuses a socket (out of descriptors, say): worth a log line and another try after a
    /// pause.
    pub fn accept(&self, deadline: Instant) -> Result<Accepted, ServeError> {
        let failed = |source| ServeError::Socket {
            action: "accept on",
            path: self.path.clone(),
            source,
        };
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.stop.0.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
            ];
            if !packet::wait(&mut fds, deadline).map_err(|e| failed(e.into()))? {
                return Ok(Accepted::TimedOut);
            }
            let [stop, _] = &fds;
            if !stop.revents().is_empty() {
                return Ok(Accepted::Stopped);
            }
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    if let Some(connection) = Connection::admit(socket) {
                        return Ok(Accepted::Connection(connection));
                    }
                }
                // The client went away between poll() and here.
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Binds under the private name, narrows the mode, and gives the socket its final name.
fn bind_in_private(unnamed: &Path, path: &Path) -> Result<(OwnedFd, (u64, u64)), ServeError> {
    let failed = |action| {
        let path = path.to_owned();
        move |source| ServeError::Socket {
            action,
            path,
            source,
        }
    };
    let bound = || -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(unnamed)?)?;
        listen(&socket, BACKLOG_MAX)?;
        Ok(socket)
    };
    let socket = bound().map_err(|error| failed("bind socket")(error.into()))?;
    fs::set_permissions(unnamed, Permissions::from_mode(0o600))
        .map_err(failed("set permissions of socket"))?;
    let found = fs::symlink_metadata(unnamed).map_err(failed("look at socket"))?;
    fs::rename(unnamed, path).map_err(failed("rename into place socket"))?;
    Ok((socket, (found.dev(), found.ino())))
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A successor may have put its own socket there; that one must stay.
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One client: one request, one answer. Dropping it closes it, which the client takes for a worker
/// that died unless an answer was sent.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Lets the server's own user and root in, and tells other users why not.
    fn admit(socket: OwnedFd) -> Option<Connection> {
        let ours = rustix::process::geteuid();
        let connection = Connection { socket };
        match sockopt::socket_peercred(&connection.socket) {
            Ok(peer) if peer.uid == ours || peer.uid.is_root() => Some(connection),
            Ok(peer) => {
                let message = format!(
                    "user ID {} may not ask the recovery worker of user ID {}",
                    peer.uid.as_raw(),
                    ours.as_raw()
                );
                // At once or not at all: a stranger is not waited for.
                let frame = Answer::CouldNotTell(message).encode();
                let _ = packet::write_frame(connection.socket.as_fd(), &frame, Instant::now());
                None
            }
            Err(_) => None,
        }
    }

    /// Reads the client's request; [`REQUEST_READ_WAIT_MAX`] from now is a sensible deadline.
    ///
    /// A client of another version, or bytes that are no request, are answered here with "could not
    /// tell" and then reported, so that the caller only has to log.
    pub fn read_request(&mut self, deadline: Instant) -> Result<Request, ServeError> {
        let decoded = match packet::read_frame(self.socket.as_fd(), deadline) {
            Ok(frame) => Request::decode(&frame),
            Err(PacketError::Frame(error)) => Err(error),
            Err(error) => return Err(error.into()),
        };
        decoded.map_err(|error| {
            let _ = self.answer(&Answer::CouldNotTell(error.to_string()));
            ServeError::Frame(error)
        })
    }

    /// Sends the answer, within [`ANSWER_WRITE_WAIT_MAX`].
    pub fn answer(&mut self, answer: &Answer) -> Result<(), ServeError> {
        let deadline = Instant::now() + ANSWER_WRITE_WAIT_MAX;
        Ok(packet::write_frame(
            self.socket.as_fd(),
            &answer.encode(),
            deadline,
        )?)
    }

    /// Whether the client has closed its side, so that it no longer waits for the answer. Does not
    /// wait.
    #[must_use]
    pub fn client_gone(&self) -> bool {
        packet::peer_gone(&self.socket)
    }
}
