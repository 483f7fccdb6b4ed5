//! Sending and receiving whole frames over a non-blocking socket of type SEQPACKET, against a deadline.
//!
//! Guarantees: a frame arrives whole or not at all, which the kernel sees to; no call waits beyond its
//! deadline; a signal only makes a wait start again; a write to a socket whose peer has gone is an
//! error, never a SIGPIPE, whatever the process does about that signal (the worker lives in a server
//! process whose signal settings are not ours to change).
//! Left to others: what the bytes mean, in `frame.rs`.

use crate::frame::{FRAME_BYTES_MAX, FrameError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Why a frame could not be read or written.
#[derive(Debug)]
pub(crate) enum PacketError {
    /// The peer has gone.
    Gone,
    /// The deadline has passed.
    TimedOut,
    /// The bytes are no frame of ours.
    Frame(FrameError),
    /// Anything else the kernel says.
    Io(Errno),
}

/// Waits until one of `fds` has an event, and returns whether that was before the deadline.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(fds, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => return Ok(false),
            // The clock behind poll() is coarser than Instant: look again.
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

fn timespec(wait: Duration) -> Timespec {
    // A day is longer than any deadline here and within every kernel's range.
    const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
    let wait = wait.min(WAIT_MAX);
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    }
}

/// Sends one frame.
pub(crate) fn write_frame(
    socket: BorrowedFd<'_>,
    frame: &[u8],
    deadline: Instant,
) -> Result<(), PacketError> {
    until(socket, PollFlags::OUT, deadline, || {
        send(socket, frame, SendFlags::NOSIGNAL).map(drop)
    })
}

/// Receives one frame.
pub(crate) fn read_frame(
    socket: BorrowedFd<'_>,
    deadline: Instant,
) -> Result<Vec<u8>, PacketError> {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let bytes = until(socket, PollFlags::IN, deadline, || {
        // With this flag the length is the message's, also where it does not fit.
        recv(socket, frame.as_mut_slice(), RecvFlags::TRUNC).map(|(_, bytes)| bytes)
    })?;
    match bytes {
        0 => Err(PacketError::Gone),
        1..=FRAME_BYTES_MAX => {
            frame.truncate(bytes);
            Ok(frame)
        }
        _ => Err(PacketError::Frame(FrameError::TooLong {
            what: "the frame",
            bytes,
            bytes_max: FRAME_BYTES_MAX,
        })),
    }
}

/// Makes a call until it succeeds, waiting whenever the socket is not ready for it.
fn until<T>(
    socket: BorrowedFd<'_>,
    ready: PollFlags,
    deadline: Instant,
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, PacketError> {
    loop {
        match call() {
            Ok(done) => return Ok(done),
            // A peer that closed before it had read everything is said to have done so once, even before what it sent.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(socket, ready)];
                if !wait(&mut fds, deadline).map_err(PacketError::Io)? {
                    return Err(PacketError::TimedOut);
                }
            }
            Err(Errno::PIPE | Errno::NOTCONN | Errno::CONNREFUSED) => {
                return Err(PacketError::Gone);
            }
            Err(error) => return Err(PacketError::Io(error)),
        }
    }
}

/// Whether the peer has closed its side, without waiting and without taking bytes away.
pub(crate) fn peer_gone(socket: impl AsFd) -> bool {
    let mut byte = [0u8; 1];
    loop {
        match recv(&socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((read, _)) => return read == 0,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}
