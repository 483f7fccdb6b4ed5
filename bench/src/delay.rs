//! A relay that makes a network out of loopback: bytes pass as they are, later by a fixed time.
//!
//! Guarantees that each direction is late by half a round trip, that bytes which are on their way do not hold up those
//! behind them (it delays, and does not throttle), and that what a client sends first is late by a whole round trip more,
//! which is what a connection takes to be made. Without a delay the bytes pass through it just the same. Leaves out what
//! else a long way does: lost packets, and a connection that has to learn how much the way can carry (slow start).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many bytes are taken at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How many bytes may be on their way in one direction of one connection: more than loopback brings in 25 ms.
const ON_THE_WAY_BYTES_MAX: usize = 64 << 20;

/// How long a connection may be idle before it is looked whether the relay is over.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// How long a receiver may take no bytes: longer than any contender waits for an answer.
const STUCK_MAX: Duration = Duration::from_secs(120);

/// A port of 127.0.0.1 behind which another one is, at a distance.
pub(crate) struct Relay {
    port: u16,
    way: Arc<Way>,
    accepting: Option<JoinHandle<()>>,
}

/// What all connections share.
struct Way {
    /// Where they lead to.
    upstream: u16,
    /// A round trip, in microseconds.
    round_trip_us: AtomicU64,
    is_over: AtomicBool,
}

impl Way {
    fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip_us.load(Ordering::Relaxed))
    }
}

impl Relay {
    /// Leads to this port of 127.0.0.1, without a delay at first.
    ///
    /// # Errors
    ///
    /// When there is no port to listen on.
    pub(crate) fn to(upstream: u16) -> Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port to be had")?;
        let port = listener.local_addr()?.port();
        let way = Arc::new(Way {
            upstream,
            round_trip_us: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&way);
        let accepting = thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || accept(&listener, &shared))
            .context("could not start a thread")?;
        Ok(Relay {
            port,
            way,
            accepting: Some(accepting),
        })
    }

    /// Where clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a round trip takes from now on.
    pub(crate) fn set_round_trip(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.way.round_trip_us.store(us, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.way.is_over.store(true, Ordering::Relaxed);
        // Wakes the one who accepts; without a connection there is no thread to join.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, way: &Arc<Way>) {
    for client in listener.incoming() {
        if way.is_over.load(Ordering::Relaxed) {
            return;
        }
        // One that cannot be led on is closed, which its client sees.
        if let Ok(client) = client {
            let _ = lead_on(client, way);
        }
    }
}

/// Two threads, one for each direction.
fn lead_on(client: TcpStream, way: &Arc<Way>) -> std::io::Result<()> {
    let made = Instant::now() + way.round_trip();
    let store = TcpStream::connect((Ipv4Addr::LOCALHOST, way.upstream))?;
    for stream in [&client, &store] {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STUCK_MAX))?;
    }
    let back = (store.try_clone()?, client.try_clone()?);
    for (name, (from, to)) in [("relay out", (client, store)), ("relay back", back)] {
        let way = Arc::clone(way);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if carry(&from, &to, &way, made).is_err() {
                    // Torn down on one side is torn down on the other.
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                }
            })?;
    }
    Ok(())
}

/// What is on its way in one direction, and when each piece of it arrives.
#[derive(Default)]
struct Line {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Line {
    fn push(&mut self, due: Instant, piece: &[u8]) {
        self.bytes += piece.len();
        self.pieces.push_back((due, piece.to_vec()));
    }

    /// The next piece, if it has arrived.
    fn arrived(&mut self) -> Option<Vec<u8>> {
        let (due, _) = self.pieces.front()?;
        if *due > Instant::now() {
            return None;
        }
        let (_, piece) = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// How long until the next piece arrives.
    fn next(&self) -> Duration {
        self.pieces.front().map_or(IDLE_MAX, |(due, _)| {
            due.saturating_duration_since(Instant::now())
        })
    }
}

/// Carries one direction to its end: a piece without bytes.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    way: &Way,
    made: Instant,
) -> std::io::Result<()> {
    let mut line = Line::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut is_ended = false;
    loop {
        while let Some(piece) = line.arrived() {
            if piece.is_empty() {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&piece)?;
        }
        let takes_more = !is_ended && line.bytes < ON_THE_WAY_BYTES_MAX;
        if !wait(from, takes_more, line.next())? {
            if way.is_over.load(Ordering::Relaxed) {
                return Err(ErrorKind::Interrupted.into());
            }
            continue;
        }
        let count = from.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        let now = Instant::now();
        // The answer to what came late is late by itself; before the client has spoken there is none.
        let due = now.max(made) + way.round_trip() / 2;
        if due <= now && line.pieces.is_empty() && count > 0 {
            to.write_all(piece)?;
        } else {
            line.push(due, piece);
        }
        is_ended = count == 0;
    }
}

/// Waits for bytes, if they are wanted, for at most this long; whether there are any.
fn wait(from: &TcpStream, is_wanted: bool, most: Duration) -> std::io::Result<bool> {
    let most = most.min(IDLE_MAX);
    let timeout = Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or_default(),
        tv_nsec: most.subsec_nanos().into(),
    };
    let mut wanted = [PollFd::new(from, PollFlags::IN)];
    let asked = if is_wanted {
        wanted.as_mut_slice()
    } else {
        &mut []
    };
    match poll(asked, Some(&timeout)) {
        Ok(found) => Ok(found > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives back what it gets, on one connection.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut back = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut back).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
        });
        port
    }

    fn ask(stream: &mut TcpStream, question: &[u8]) -> Duration {
        let begun = Instant::now();
        let mut answer = vec![0; question.len()];
        stream.write_all(question).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, question);
        begun.elapsed()
    }

    #[test]
    fn a_question_takes_a_round_trip_and_the_first_one_another_for_the_connection() {
        let round_trip = Duration::from_millis(200);
        let relay = Relay::to(echo()).unwrap();
        relay.set_round_trip(round_trip);
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
        let first = ask(&mut stream, b"first");
        assert!(first >= 2 * round_trip, "{first:?}");
        let second = ask(&mut stream, b"second");
        assert!(second >= round_trip, "{second:?}");
        relay.set_round_trip(Duration::ZERO);
        let near = ask(&mut stream, b"third");
        assert!(near < round_trip, "{near:?}");
    }

    #[test]
    fn what_is_on_its_way_does_not_hold_up_what_follows_and_the_end_comes_last() {
        let round_trip = Duration::from_millis(100);
        let relay = Relay::to(echo()).unwrap();
        relay.set_round_trip(round_trip);
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port())).unwrap();
        let begun = Instant::now();
        // At least 64 pieces each way: one after the other they would take six seconds.
        let sent: Vec<u8> = (0..(64 * CHUNK_BYTES)).map(|at| (at % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(
            got == sent,
            "{} bytes came back, others than sent",
            got.len()
        );
        let took = begun.elapsed();
        assert!(took >= 2 * round_trip, "{took:?}");
        assert!(took < 20 * round_trip, "{took:?}");
    }
}
