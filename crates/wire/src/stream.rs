//! Reading and writing a non-blocking socket against a deadline.
//!
//! Guarantees: no call waits beyond its deadline; a signal only makes a wait start again; a write to a
//! socket whose peer has gone is an error, never a SIGPIPE, whatever the process does about that
//! signal (the worker lives in a server process whose signal settings are not ours to change).
//! Left to others: what the bytes mean, in `frame.rs`.

use crate::frame::{self, FrameError, HEADER_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Why a frame could not be read or written.
#[derive(Debug)]
pub(crate) enum StreamError {
    /// The peer has gone; `begun` says whether any byte of the frame had passed.
    Gone { begun: bool },
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

/// Writes one whole frame.
pub(crate) fn write_frame(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    deadline: Instant,
) -> Result<(), StreamError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(socket, PollFlags::OUT, deadline)?,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                return Err(StreamError::Gone {
                    begun: rest.len() < bytes.len(),
                });
            }
            Err(error) => return Err(StreamError::Io(error)),
        }
    }
    Ok(())
}

/// Reads one whole frame, header included.
pub(crate) fn read_frame(
    socket: BorrowedFd<'_>,
    deadline: Instant,
) -> Result<Vec<u8>, StreamError> {
    let mut header = [0u8; HEADER_BYTES];
    read_exactly(socket, &mut header, false, deadline)?;
    let payload = frame::payload_bytes(&header).map_err(StreamError::Frame)?;
    let mut whole = header.to_vec();
    whole.resize(HEADER_BYTES + payload, 0);
    read_exactly(
        socket,
        whole.get_mut(HEADER_BYTES..).unwrap_or_default(),
        true,
        deadline,
    )?;
    Ok(whole)
}

fn read_exactly(
    socket: BorrowedFd<'_>,
    mut room: &mut [u8],
    mut begun: bool,
    deadline: Instant,
) -> Result<(), StreamError> {
    while !room.is_empty() {
        match recv(socket, &mut *room, RecvFlags::empty()) {
            Ok((0, _)) => return Err(StreamError::Gone { begun }),
            Ok((read, _)) => {
                begun = true;
                room = room.get_mut(read..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(socket, PollFlags::IN, deadline)?,
            Err(Errno::CONNRESET | Errno::PIPE) => return Err(StreamError::Gone { begun }),
            Err(error) => return Err(StreamError::Io(error)),
        }
    }
    Ok(())
}

fn wait_for(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Instant,
) -> Result<(), StreamError> {
    let mut fds = [PollFd::from_borrowed_fd(socket, events)];
    match wait(&mut fds, deadline) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StreamError::TimedOut),
        Err(error) => Err(StreamError::Io(error)),
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
