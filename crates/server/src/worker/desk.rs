//! The worker's front desk: a thread that takes requests and gives answers back, while the main thread alone
//! talks to modules.
//!
//! Guarantees: every client gets an answer within the deadline, even when a module hangs; a request whose
//! client has gone or was answered otherwise is marked as no longer wanted; at most [`CLIENTS_MAX`] are served
//! at once.  The threads have all signals blocked and never call the server.

use module::Failure;
use module::boundary::signals::spawn_with_signals_blocked;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::{
    Accepted, Answer, Connection, Listener, REQUEST_READ_WAIT_MAX, Request, SOCKET_PATH, Stop,
};

/// The startup process and the checkpointer each have one client at a time; the rest is for people.
const CLIENTS_MAX: usize = 16;
/// What a module may take beyond the time its retries have, before its client is told that nobody can tell.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// A pause after the socket failed (no descriptors left, say), so that the thread does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A wait for clients that never ends by itself is cut into hours.
const ACCEPT_WAIT: Duration = Duration::from_secs(3600);

/// One request, on its way to the module.
pub(crate) struct Asked {
    pub(crate) request: Request,
    reply: SyncSender<Answer>,
    client: Arc<Mutex<Connection>>,
    answered: Arc<AtomicBool>,
}

impl Asked {
    /// Whether somebody still waits for this answer.
    pub(crate) fn is_wanted(&self) -> bool {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        !self.answered.load(Ordering::Acquire) && !client.client_gone()
    }

    /// Gives the answer.
    pub(crate) fn answer(self, answer: Answer) {
        // The client's thread may have answered by itself already; then this one comes too late.
        let _ = self.reply.send(answer);
    }
}

/// The desk, as the main thread sees it.
pub(crate) struct Desk {
    asked: Receiver<Asked>,
    bell: Arc<OwnedFd>,
    time_limit_ms: Arc<AtomicU64>,
    stop: Stop,
}

impl Desk {
    /// Listens on the socket and starts the thread.
    pub(crate) fn open(time_limit: Duration) -> Result<Self, Failure> {
        let listener =
            Listener::bind(SOCKET_PATH).map_err(|error| Failure::new(error.to_string()))?;
        let stop = listener.stop_handle();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            Failure::new(format!("could not create an event descriptor: {error}"))
        })?;
        let (ask, asked) = channel();
        let bell = Arc::new(bell);
        let desk = Self {
            asked,
            bell: Arc::clone(&bell),
            time_limit_ms: Arc::default(),
            stop,
        };
        desk.set_time_limit(time_limit);
        let clerk = Clerk {
            ask,
            bell,
            time_limit_ms: Arc::clone(&desk.time_limit_ms),
            clients: Arc::default(),
        };
        spawn_with_signals_blocked("walden desk", move || clerk.serve(&listener))
            .map_err(|error| Failure::new(format!("could not start a thread: {error}")))?;
        Ok(desk)
    }

    /// How long a client waits before it is told that nobody can tell.
    pub(crate) fn set_time_limit(&self, time_limit: Duration) {
        let limit = time_limit.saturating_add(ANSWER_GRACE).as_millis();
        self.time_limit_ms
            .store(u64::try_from(limit).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Readable when there is something to do.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next request, if there is one.  To be called until there is none: the bell rings for new ones only.
    pub(crate) fn next(&self) -> Option<Asked> {
        // Silenced before looking, so that a request that arrives in between rings again.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.asked.try_recv().ok()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

#[derive(Clone)]
struct Clerk {
    ask: Sender<Asked>,
    bell: Arc<OwnedFd>,
    time_limit_ms: Arc<AtomicU64>,
    clients: Arc<AtomicUsize>,
}

impl Clerk {
    fn serve(&self, listener: &Listener) {
        loop {
            match listener.accept(Instant::now() + ACCEPT_WAIT) {
                Ok(Accepted::Connection(client)) => self.take(client),
                Ok(Accepted::TimedOut) => {}
                Ok(Accepted::Stopped) => return,
                // Clients keep trying; there is no way to tell the log from here.
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    fn take(&self, mut client: Connection) {
        if self.clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            let busy = format!("the recovery worker serves {CLIENTS_MAX} clients already");
            let _ = client.answer(&Answer::CouldNotTell(busy));
            return;
        }
        let clerk = self.clone();
        // The new thread inherits the blocked signals of this one.
        let started = std::thread::Builder::new()
            .name("walden client".to_owned())
            .spawn(move || {
                clerk.attend(client);
                clerk.clients.fetch_sub(1, Ordering::AcqRel);
            });
        if started.is_err() {
            // The connection is closed unanswered, and the client asks again.
            self.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn attend(&self, mut client: Connection) {
        // A client that sends nonsense has been told so by the connection itself.
        let Ok(request) = client.read_request(Instant::now() + REQUEST_READ_WAIT_MAX) else {
            return;
        };
        let client = Arc::new(Mutex::new(client));
        let (reply, answer) = sync_channel(1);
        let answered = Arc::new(AtomicBool::new(false));
        let asked = Asked {
            request,
            reply,
            client: Arc::clone(&client),
            answered: Arc::clone(&answered),
        };
        if self.ask.send(asked).is_err() {
            // The worker is leaving: closed unanswered, the client decides.
            return;
        }
        ring(&self.bell);
        let limit = Duration::from_millis(self.time_limit_ms.load(Ordering::Relaxed));
        let answer = match answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Answer::CouldNotTell(format!(
                "the recovery module has not answered within {} s",
                limit.as_secs()
            )),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        answered.store(true, Ordering::Release);
        let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = client.answer(&answer);
    }
}
