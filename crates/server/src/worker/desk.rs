//! The worker's front desk: a thread that takes requests and gives answers back, while the main thread alone
//! talks to modules.
//!
//! Guarantees: every client gets an answer within a deadline, even when a module hangs, counted from the moment
//! its request is taken up: a healthy restore is not punished for the slow job in front of it.  A request whose
//! client has gone or was answered otherwise is no longer wanted; at most [`CLIENTS_MAX`] are served at once.
//! The threads have all signals blocked and never call the server.

use module::Failure;
use module::spawn_with_signals_blocked;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
/// How often a client's thread looks at the clock while it waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A pause after the socket failed (no descriptors left, say), so that the thread does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A wait for clients that never ends by itself is cut into hours.
const ACCEPT_WAIT: Duration = Duration::from_secs(3600);

/// One request, on its way to the module.
pub(crate) struct Asked {
    pub(crate) request: Request,
    reply: SyncSender<Reply>,
    front: Arc<Front>,
    client: Arc<Mutex<Connection>>,
    answered: Arc<AtomicBool>,
}

impl Asked {
    /// Whether somebody still waits for this answer.
    pub(crate) fn is_wanted(&self) -> bool {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        !self.answered.load(Ordering::Acquire) && !client.client_gone()
    }

    /// Takes the request up, for at most `time_limit`: from now on its client's clock runs.
    pub(crate) fn take_up(&self, time_limit: Duration) {
        let until = Instant::now() + time_limit.saturating_add(ANSWER_GRACE);
        self.front.set(until);
        let _ = self.reply.send(Reply::TakenUp { until });
    }

    /// Gives the answer.
    pub(crate) fn answer(self, answer: Answer) {
        // The client's thread may have answered by itself already; then this one comes too late.
        let _ = self.reply.send(Reply::Answer(answer));
    }
}

/// From the main thread to a client's.
enum Reply {
    TakenUp { until: Instant },
    Answer(Answer),
}

/// Until when the job in front may take, for those who wait behind it.
#[derive(Default)]
struct Front(Mutex<Option<Instant>>);

impl Front {
    fn set(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The desk, as the main thread sees it.
pub(crate) struct Desk {
    asked: Receiver<Asked>,
    bell: Arc<OwnedFd>,
    stop: Stop,
}

impl Desk {
    /// Listens on the socket and starts the thread.
    pub(crate) fn open() -> Result<Self, Failure> {
        let listener =
            Listener::bind(SOCKET_PATH).map_err(|error| Failure::new(error.to_string()))?;
        let stop = listener.stop_handle();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            Failure::new(format!("could not create an event descriptor: {error}"))
        })?;
        let (ask, asked) = channel();
        let bell = Arc::new(bell);
        let clerk = Clerk {
            ask,
            bell: Arc::clone(&bell),
            front: Arc::default(),
            clients: Arc::default(),
        };
        spawn_with_signals_blocked("walden desk", move || clerk.serve(&listener))
            .map_err(|error| Failure::new(format!("could not start a thread: {error}")))?;
        Ok(Self { asked, bell, stop })
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
    front: Arc<Front>,
    clients: Arc<AtomicUsize>,
}

/// One client less when dropped, also when its thread panics.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
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
        let others = self.clients.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(Arc::clone(&self.clients));
        if others >= CLIENTS_MAX {
            let busy = format!("the recovery worker serves {CLIENTS_MAX} clients already");
            let _ = client.answer(&Answer::CouldNotTell(busy));
            return;
        }
        let clerk = self.clone();
        // The new thread inherits the blocked signals of this one.  If it cannot be started the connection is
        // closed unanswered, and the client asks again.
        let _ = std::thread::Builder::new()
            .name("walden client".to_owned())
            .spawn(move || {
                let _seat = seat;
                clerk.attend(client);
            });
    }

    fn attend(&self, mut client: Connection) {
        // A client that sends nonsense has been told so by the connection itself.
        let Ok(request) = client.read_request(Instant::now() + REQUEST_READ_WAIT_MAX) else {
            return;
        };
        let client = Arc::new(Mutex::new(client));
        let (reply, replies) = sync_channel(2);
        let answered = Arc::new(AtomicBool::new(false));
        let asked = Asked {
            request,
            reply,
            front: Arc::clone(&self.front),
            client: Arc::clone(&client),
            answered: Arc::clone(&answered),
        };
        if self.ask.send(asked).is_err() {
            // The worker is leaving: closed unanswered, the client decides.
            return;
        }
        ring(&self.bell);
        // Dropped unanswered by a worker that is leaving: closed unanswered too.
        let Some(answer) = self.wait_for_answer(&replies) else {
            return;
        };
        answered.store(true, Ordering::Release);
        let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = client.answer(&answer);
    }

    /// Waits for the turn, then for the answer; each for no longer than it may take.
    fn wait_for_answer(&self, replies: &Receiver<Reply>) -> Option<Answer> {
        let arrived = Instant::now();
        let mut taken_up_until = None;
        loop {
            match replies.recv_timeout(LOOK_EVERY) {
                Ok(Reply::TakenUp { until }) => taken_up_until = Some(until),
                Ok(Reply::Answer(answer)) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Nobody in front yet: the main thread is about to take this one up.
            let until = taken_up_until
                .or_else(|| self.front.until().map(|until| until + ANSWER_GRACE))
                .unwrap_or(arrived + ANSWER_GRACE)
                .max(arrived + ANSWER_GRACE);
            if Instant::now() > until {
                let waited = arrived.elapsed().as_secs();
                return Some(Answer::CouldNotTell(format!(
                    "the recovery module has not answered within {waited} s"
                )));
            }
        }
    }
}
