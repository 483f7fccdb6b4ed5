//! A server that follows a script: it checks each request against what is to be asked, and answers as no store should.
//!
//! It speaks to the socket itself, since no HTTP library would send what is tried here: bodies and headers that never end,
//! answers that break off, pages that lead to themselves. What its script does not name goes to the store behind it, or is
//! refused and noted as unexpected where there is none.
//!
//! Guarantees that a connection serves one request, that everything ends when it is dropped, and that the memory that it
//! takes does not grow with what it sends. Leaves what a client should make of it to tests.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::stores::Store;
use crate::stores::ports::Port;

/// How long a connection may be silent before it is looked whether all is over.
const SLICE: Duration = Duration::from_millis(200);

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How much is sent at once of what never ends.
const PIECE_BYTES: usize = 64 * 1024;

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status and a body, as they should be.
    Whole(u16, String),
    /// A status and a body that begins so and goes on with this, for ever.
    Endless(u16, String, String),
    /// A status, and headers for ever.
    EndlessHeaders(u16),
    /// A status, and so many headers.
    Headers(u16, usize),
    /// A status and an object of this many bytes, all of them zero, which come as fast as they can.
    Zeros(u16, u64),
    /// A body that is announced to be twice as long, and a reset.
    Cut(u16, String),
    /// Pages of a listing, each with this in it, and each with a next one: of its own, or always the same.
    Pages(String, Tokens),
    /// What the store behind answers.
    Store,
}

/// Where pages say that the next one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// At a token that has not been given before.
    New,
    /// At one of two, by turns.
    ByTurns,
}

/// A part of a script: which requests, and what they are answered with.
#[derive(Clone, Debug)]
pub struct Step {
    method: &'static str,
    part: &'static str,
    reply: Reply,
}

impl Step {
    /// Requests with this method, `*` for any, whose path and query hold this.
    #[must_use]
    pub fn on(method: &'static str, part: &'static str, reply: Reply) -> Step {
        Step {
            method,
            part,
            reply,
        }
    }

    /// What they are answered with.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    fn is_for(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && path.contains(self.part)
    }
}

/// The server. It listens as long as it lives.
pub struct Script {
    port: Port,
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    upstream: Option<u16>,
    is_over: AtomicBool,
    play: Mutex<Play>,
}

#[derive(Default)]
struct Play {
    steps: Vec<Step>,
    /// How often each of the steps was taken.
    taken: Vec<u64>,
    asked: Vec<String>,
    unexpected: Vec<String>,
    pages: u64,
}

impl Script {
    /// A server with no store behind it: what its script does not name is unexpected.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn alone() -> Result<Script> {
        Script::new(None)
    }

    /// A server before a store, which gets what the script does not name.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn before(store: &Store<'_>) -> Result<Script> {
        Script::new(Some(store.port()))
    }

    fn new(upstream: Option<u16>) -> Result<Script> {
        let port = Port::take()?;
        let listener = port.listen()?;
        listener.set_nonblocking(false)?;
        let inner = Arc::new(Inner {
            upstream,
            is_over: AtomicBool::new(false),
            play: Mutex::default(),
        });
        let serving = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("script".to_owned())
            .spawn(move || serving.listen(&listener))
            .context("could not start a thread")?;
        Ok(Script {
            port,
            inner,
            thread: Some(thread),
        })
    }

    /// The TCP port of 127.0.0.1 that the script listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Follows this from now on. The first step that is for a request is taken.
    pub fn follow(&self, steps: Vec<Step>) {
        let mut play = self.inner.play();
        *play = Play {
            taken: vec![0; steps.len()],
            steps,
            ..Play::default()
        };
    }

    /// How often each step of the script was taken.
    #[must_use]
    pub fn taken(&self) -> Vec<u64> {
        self.inner.play().taken.clone()
    }

    /// Methods and paths of all requests since it follows this script.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.inner.play().asked.clone()
    }

    /// Those that the script does not name.
    #[must_use]
    pub fn unexpected(&self) -> Vec<String> {
        self.inner.play().unexpected.clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Release);
        // Wakes the thread.
        drop(TcpStream::connect(("127.0.0.1", self.port())));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn play(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        let mut connections = Vec::new();
        for connection in listener.incoming() {
            if self.is_over() {
                break;
            }
            let Ok(stream) = connection else {
                continue;
            };
            let serving = Arc::clone(self);
            // What goes wrong with a connection is the client's to see.
            connections.push(std::thread::spawn(move || drop(serving.converse(stream))));
            connections.retain(|thread| !thread.is_finished());
        }
        for thread in connections {
            let _ = thread.join();
        }
    }

    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        stream.set_nodelay(true)?;
        let request = self.request(&mut stream)?;
        let mut words = request.line().split(' ').map(str::to_owned);
        let method = words.next().unwrap_or_default();
        let path = words.next().unwrap_or_default();
        let reply = self.reply(&method, &path);
        match (reply, self.upstream) {
            (Some(Reply::Store) | None, Some(port)) => self.pass(&request, &mut stream, port)?,
            (Some(Reply::Store) | None, None) => {
                self.play().unexpected.push(format!("{method} {path}"));
                let refusal = Reply::Whole(501, "not in the script".to_owned());
                self.send(&mut stream, &refusal)?;
            }
            (Some(reply), _) => self.send(&mut stream, &reply)?,
        }
        stream.shutdown(Shutdown::Write)
    }

    fn reply(&self, method: &str, path: &str) -> Option<Reply> {
        let mut play = self.play();
        play.asked.push(format!("{method} {path}"));
        let index = play
            .steps
            .iter()
            .position(|step| step.is_for(method, path))?;
        if let Some(taken) = play.taken.get_mut(index) {
            *taken += 1;
        }
        play.steps.get(index).map(|step| step.reply.clone())
    }

    /// A request with its body.
    fn request(&self, stream: &mut TcpStream) -> io::Result<Request> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head that does not end"));
            }
            self.more(stream, &mut bytes)?;
        };
        let mut request = Request { bytes, head };
        let is_chunked = request.header("transfer-encoding").is_some();
        let length: usize = match request.header("content-length") {
            Some(length) => length.parse().map_err(io::Error::other)?,
            None => 0,
        };
        let is_whole = |bytes: &[u8]| {
            if is_chunked {
                bytes.ends_with(b"\r\n0\r\n\r\n")
            } else {
                bytes.len() >= head + length
            }
        };
        while !is_whole(&request.bytes) {
            self.more(stream, &mut request.bytes)?;
        }
        Ok(request)
    }

    fn more(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if is_silence(&error) && !self.is_over() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the store answer.
    fn pass(&self, request: &Request, client: &mut TcpStream, port: u16) -> io::Result<()> {
        let mut store = TcpStream::connect(("127.0.0.1", port))?;
        store.set_read_timeout(Some(SLICE))?;
        // Without a connection that is kept, so that the answer ends with it.
        let (head, body) = request.bytes.split_at(request.head - 2);
        store.write_all(head)?;
        store.write_all(b"Connection: close\r\n")?;
        store.write_all(body)?;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            match self.more(&mut store, &mut piece) {
                Ok(()) => self.write(client, &piece)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&self, stream: &mut TcpStream, reply: &Reply) -> io::Result<()> {
        match reply {
            Reply::Whole(status, body) => {
                let head = head(*status, &format!("Content-Length: {}\r\n", body.len()));
                self.write(stream, (head + "\r\n" + body).as_bytes())
            }
            Reply::Endless(status, beginning, more) => {
                let head = head(*status, "");
                self.write(stream, (head + "\r\n" + beginning).as_bytes())?;
                let piece = more.repeat(PIECE_BYTES / more.len().max(1) + 1);
                loop {
                    self.write(stream, piece.as_bytes())?;
                }
            }
            Reply::EndlessHeaders(status) => {
                self.write(stream, head(*status, "").as_bytes())?;
                let line = format!("X-More: {}\r\n", "x".repeat(1000));
                loop {
                    self.write(stream, line.repeat(64).as_bytes())?;
                }
            }
            Reply::Headers(status, count) => {
                self.write(stream, head(*status, "Content-Length: 0\r\n").as_bytes())?;
                let line = format!("X-More: {}\r\n", "x".repeat(1000));
                for _ in 0..*count {
                    self.write(stream, line.as_bytes())?;
                }
                self.write(stream, b"\r\n")
            }
            Reply::Zeros(status, bytes) => self.zeros(stream, *status, *bytes),
            Reply::Cut(status, body) => {
                let head = head(
                    *status,
                    &format!("Content-Length: {}\r\n", 2 * body.len() + 2),
                );
                self.write(stream, (head + "\r\n" + body).as_bytes())?;
                stream.shutdown(Shutdown::Both)
            }
            Reply::Pages(inside, tokens) => {
                let body = self.page(inside, *tokens);
                let head = head(200, &format!("Content-Length: {}\r\n", body.len()));
                self.write(stream, (head + "\r\n" + &body).as_bytes())
            }
            Reply::Store => Ok(()),
        }
    }

    fn zeros(&self, stream: &mut TcpStream, status: u16, bytes: u64) -> io::Result<()> {
        let headers = format!(
            "Content-Length: {bytes}\r\nETag: \"x\"\r\nx-goog-generation: 1\r\n\
             Last-Modified: Sun, 29 Nov 2026 20:00:00 GMT\r\n\r\n"
        );
        self.write(stream, head(status, &headers).as_bytes())?;
        let piece = [0; PIECE_BYTES];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(PIECE_BYTES as u64);
            let now = usize::try_from(now).unwrap_or(PIECE_BYTES);
            self.write(stream, piece.get(..now).unwrap_or_default())?;
            left -= now as u64;
        }
        Ok(())
    }

    /// A page of a listing in the words of S3, with one after it.
    fn page(&self, inside: &str, tokens: Tokens) -> String {
        let mut play = self.play();
        play.pages += 1;
        let number = match tokens {
            Tokens::New => play.pages,
            Tokens::ByTurns => play.pages % 2,
        };
        format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>page{number}</NextContinuationToken>{inside}</ListBucketResult>"
        )
    }

    /// Writes all of it, unless all is over meanwhile.
    fn write(&self, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if is_silence(&error) && !self.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A request as it came.
struct Request {
    bytes: Vec<u8>,
    /// Where its body begins.
    head: usize,
}

impl Request {
    fn text(&self) -> &str {
        std::str::from_utf8(self.bytes.get(..self.head).unwrap_or_default()).unwrap_or_default()
    }

    fn line(&self) -> &str {
        self.text().lines().next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.text().lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A status line and headers, without the empty line behind them.
fn head(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\n{headers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(script: &Script, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", script.port())).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.take(1_000_000).read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn requests_are_checked_against_the_script_and_others_are_noted() {
        let script = Script::alone().unwrap();
        script.follow(vec![
            Step::on("GET", "list-type=2", Reply::Whole(200, "a page".to_owned())),
            Step::on("GET", "/b/", Reply::Whole(404, "none".to_owned())),
        ]);
        let answer = ask(&script, "GET /b?list-type=2 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("a page"),
            "{answer}"
        );
        assert!(ask(&script, "GET /b/x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        let put = "PUT /b/x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
        assert!(ask(&script, put).starts_with("HTTP/1.1 501 "));
        assert_eq!(script.taken(), [1, 1]);
        assert_eq!(script.unexpected(), ["PUT /b/x"]);
        assert_eq!(script.asked().len(), 3);
    }

    #[test]
    fn what_never_ends_goes_on_until_the_client_has_enough() {
        let script = Script::alone().unwrap();
        for reply in [
            Reply::Endless(200, "<a>".to_owned(), "x".to_owned()),
            Reply::EndlessHeaders(200),
            Reply::Zeros(200, u64::MAX),
        ] {
            script.follow(vec![Step::on("*", "", reply)]);
            assert_eq!(ask(&script, "GET / HTTP/1.1\r\n\r\n").len(), 1_000_000);
        }
    }
}
