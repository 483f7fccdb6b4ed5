//! The client's side: one request, one answer, against all the ways in which a worker can be late.
//!
//! The worker is a background worker of the same server. It is forked after the startup process and
//! loses the race to the first request in a few of a hundred starts; it may also die and be started
//! again by the postmaster. So a missing socket, a refused connection and a connection that closes
//! before an answer all mean "not now", and the request is made again. Asking again
//! is safe: a restore writes the same file again, and cleaning up twice removes nothing more.
//!
//! Guarantees: [`ask`] returns within its bounds; an [`Answer`] is returned only if the worker sent
//! it. Left to others: the exit status.

use crate::frame::{Answer, FrameError, Request};
use crate::packet::{self, PacketError};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a restore waits for a worker to be there. Starting one takes milliseconds, but its
/// modules may have connections to make, and after a crash the postmaster starts it again only
/// after some seconds. Beyond a minute something is wrong, and the log should say so.
pub const WORKER_START_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a request may take in all. `walden.restore_timeout` is at most 3600 s, so the worker
/// answers before; the rest is for its own bookkeeping.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3700);

/// How often a request is made again after the worker died over it. A worker that dies each time is
/// likely killed by the very request, which should come to a person's attention.
pub const ASK_AGAIN_COUNT_MAX: u32 = 5;

/// The first pause between two attempts to connect: too short to be noticed.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest pause: it doubles up to here, so that waiting costs no processor.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How long sending the request may take; it fits into the socket's buffer.
const REQUEST_WRITE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No worker listened within the time given.
    #[error("no recovery worker answered on \"{}\" within {} s", .socket.display(), .waited.as_secs())]
    NoWorker {
        /// Where the worker should have been.
        socket: PathBuf,
        /// For how long it was looked for.
        waited: Duration,
    },
    /// The worker was there, but died over the request, as often as it may.
    #[error("the recovery worker died during the request ({times} times)")]
    Lost {
        /// Number of times that it died, at most [`ASK_AGAIN_COUNT_MAX`] and one.
        times: u32,
    },
    /// The worker was asked and did not answer in time.
    #[error("the recovery worker did not answer within {} s", .waited.as_secs())]
    TimedOut {
        /// How long it was given.
        waited: Duration,
    },
    /// The other side is of another version or no Walden, or the request does not fit into a frame.
    #[error(transparent)]
    Protocol(#[from] FrameError),
    /// A system call failed.
    #[error("could not connect to \"{}\": {source}", .socket.display())]
    Io {
        /// The worker's socket.
        socket: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Asks the worker that listens on `socket`, and returns its answer.
///
/// Waits at most `wait_for_worker` for a worker to listen (zero: one attempt), each time anew after a
/// worker died, which may happen [`ASK_AGAIN_COUNT_MAX`] times. The whole takes at most
/// `wait_for_answer_max`, or `wait_for_worker` if that is longer.
pub fn ask(
    socket: &Path,
    request: &Request,
    wait_for_worker: Duration,
    wait_for_answer_max: Duration,
) -> Result<Answer, AskError> {
    let frame = request.encode()?;
    let address = SocketAddrUnix::new(socket).map_err(|e| AskError::Io {
        socket: socket.into(),
        source: e.into(),
    })?;
    let answer_deadline = Instant::now() + wait_for_answer_max.max(wait_for_worker);
    let mut times_lost = 0;
    loop {
        let worker_deadline = answer_deadline.min(Instant::now() + wait_for_worker);
        let connected = connect_until(&address, worker_deadline).map_err(|e| AskError::Io {
            socket: socket.into(),
            source: e.into(),
        })?;
        let Some(connection) = connected else {
            return Err(match times_lost {
                0 => AskError::NoWorker {
                    socket: socket.into(),
                    waited: wait_for_worker,
                },
                times => AskError::Lost { times },
            });
        };
        match converse(&connection, &frame, answer_deadline) {
            Ok(answer) => return Ok(answer),
            Err(PacketError::Gone) => {
                times_lost += 1;
                if times_lost > ASK_AGAIN_COUNT_MAX {
                    return Err(AskError::Lost { times: times_lost });
                }
                // A worker that is about to die may still hold its socket open.
                sleep(PAUSE_MAX.min(wait_for_worker));
            }
            Err(PacketError::TimedOut) => {
                return Err(AskError::TimedOut {
                    waited: wait_for_answer_max,
                });
            }
            Err(PacketError::Frame(error)) => return Err(AskError::Protocol(error)),
            Err(PacketError::Io(error)) => {
                return Err(AskError::Io {
                    socket: socket.into(),
                    source: error.into(),
                });
            }
        }
    }
}

/// Connects, trying again until the deadline while no worker listens. None: there was none.
fn connect_until(address: &SocketAddrUnix, deadline: Instant) -> Result<Option<OwnedFd>, Errno> {
    let mut pause = PAUSE_MIN;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match connect(&socket, address) {
            Ok(()) => return Ok(Some(socket)),
            // No socket yet, a dead worker's socket, a full queue, a signal.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Sends the request and reads the answer.
fn converse(socket: &OwnedFd, frame: &[u8], deadline: Instant) -> Result<Answer, PacketError> {
    let write_deadline = deadline.min(Instant::now() + REQUEST_WRITE_WAIT_MAX);
    match packet::write_frame(socket.as_fd(), frame, write_deadline) {
        // A worker that will not listen may have said why before it closed: read on.
        Ok(()) | Err(PacketError::Gone) => {}
        Err(error) => return Err(error),
    }
    let answer = packet::read_frame(socket.as_fd(), deadline)?;
    Answer::decode(&answer).map_err(PacketError::Frame)
}
