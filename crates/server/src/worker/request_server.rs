//! The worker's request server: a thread that takes requests and gives answers back, while the main thread alone
//! talks to modules.
//!
//! Guarantees: every client gets an answer within a deadline, even when a module hangs, counted from the moment
//! its request is taken up: a healthy restore is not punished for the slow job in front of it. While a module
//! does not come back from a call, even from one that ignores all interrupts, every request is answered "could
//! not tell" at once; the worker itself goes on when the module does. A request whose client has gone or was
//! answered otherwise is no longer wanted; at most [`CLIENTS_MAX`] are served at once. What the worker is doing is
//! told at once, whatever it does. The threads have all signals blocked and never call the server.

use crate::status;
use module::spawn_with_signals_blocked;
use module::{Failure, Notifier};
use recovery::Phase;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wire::{
    Accepted, Answer, Connection, Listener, REQUEST_READ_WAIT_MAX, Request, SOCKET_PATH,
    ServeError, Stop,
};

/// The startup process and the checkpointer each have one client at a time; the rest is for people.
const CLIENTS_MAX: usize = 16;
/// What the main thread may take beyond a job's time to say that it has failed, before the client is told by
/// the request server. A promotion waits for it, so it is short.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// How long the main thread may take to take up a request while no other is being served.
const TAKING_UP_WAIT_MAX: Duration = Duration::from_secs(5);
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
    /// Whether the client still waits for this answer.
    pub(crate) fn is_wanted(&self) -> bool {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        !self.answered.load(Ordering::Acquire) && !client.client_gone()
    }

    /// Takes the request up, for at most `time_limit`: from now on its client's clock runs. `patience` is how
    /// long a restore may be kept waiting where nothing is lost by giving up.
    pub(crate) fn take_up(&self, time_limit: Duration, patience: Duration) {
        let until = Instant::now() + time_limit.saturating_add(ANSWER_GRACE);
        self.front.change(|job| {
            job.until = Some(until);
            job.patience = Some(patience);
        });
        let _ = self.reply.send(Reply::TakenUp { until });
    }

    /// Gives the answer to the thread that serves the client.
    pub(crate) fn answer(self, answer: Answer) {
        // The client's thread may have answered by itself already; then this one comes too late.
        let _ = self.reply.send(Reply::Answer(answer));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.front.change(|job| {
            job.until = None;
            job.free_since = Some(Instant::now());
        });
    }
}

/// From the main thread to a client's.
enum Reply {
    TakenUp { until: Instant },
    Answer(Answer),
}

/// The job in front, for those who wait behind it. The first one is to load the libraries.
struct Front(Mutex<Job>);

#[derive(Clone, Copy, Default)]
struct Job {
    /// Until when it may take; `None` between two jobs.
    until: Option<Instant>,
    free_since: Option<Instant>,
    patience: Option<Duration>,
    /// The libraries are not loaded yet.
    loading: bool,
    /// A client has been told that they are not.
    reported: bool,
}

impl Front {
    /// The main thread loads the libraries, for which requests wait as long as for a job.
    fn loading(time_limit: Duration) -> Self {
        Self(Mutex::new(Job {
            until: Some(Instant::now() + time_limit.saturating_add(ANSWER_GRACE)),
            loading: true,
            ..Job::default()
        }))
    }

    fn change(&self, change: impl FnOnce(&mut Job)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn job(&self) -> Job {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said of a module that does not come back. Once is enough where the same is asked again and again.
    fn not_answered(&self, arrived: Instant, itself: bool) -> Answer {
        let Job {
            loading, reported, ..
        } = self.job();
        let news = itself || (loading && !reported);
        if !news && !Phase::of(Path::new(".")).stops() {
            return Answer::Reported;
        }
        if loading {
            self.change(|job| job.reported = true);
        }
        let waited = arrived.elapsed().as_secs();
        Answer::CouldNotTell(match (itself, loading) {
            (true, _) => format!("the recovery module has not answered within {waited} s"),
            (_, true) => "the recovery modules are still being loaded".to_owned(),
            (_, false) => "the recovery module has not answered an earlier request yet".to_owned(),
        })
    }
}

/// The request server, as the main thread sees it.
pub(crate) struct RequestServer {
    asked: Receiver<Asked>,
    notifier: Notifier,
    front: Arc<Front>,
    stop: Stop,
}

impl RequestServer {
    /// Listens on the socket and starts the thread. Libraries are loaded behind its back: a client that asks meanwhile
    /// is told after `time_limit` that they are not, for one may hang in that, too.
    pub(crate) fn open(time_limit: Duration) -> Result<Self, Failure> {
        let listener = Listener::bind(SOCKET_PATH).map_err(|error| {
            let failure = Failure::new(error.to_string());
            match error {
                ServeError::NoDirectory(_) => failure.hint(
                    "The directory belongs to every data directory: make it again, with mode 0700, as the server's user.",
                ),
                _ => failure,
            }
        })?;
        let stop = listener.stop_handle();
        let notifier = Notifier::new()?;
        let (ask, asked) = channel();
        let front = Arc::new(Front::loading(time_limit));
        let handler = Handler {
            ask,
            notifier: notifier.clone(),
            front: Arc::clone(&front),
            clients: Arc::default(),
        };
        spawn_with_signals_blocked("walden requests", move || handler.serve(&listener))
            .map_err(|error| Failure::new(format!("could not start a thread: {error}")))?;
        Ok(Self {
            asked,
            notifier,
            front,
            stop,
        })
    }

    /// The libraries are loaded, or it is known that they cannot be: from now on requests are taken up.
    pub(crate) fn is_ready(&self) {
        self.front.change(|job| {
            *job = Job {
                free_since: Some(Instant::now()),
                ..Job::default()
            };
        });
    }

    /// Readable when there is something to do.
    pub(crate) fn notifier(&self) -> BorrowedFd<'_> {
        self.notifier.as_fd()
    }

    /// The next request, if there is one. To be called until there is none: the notifier tells of new ones only.
    pub(crate) fn next(&self) -> Option<Asked> {
        // Reset before looking, so that a request that arrives in between notifies again.
        self.notifier.reset();
        self.asked.try_recv().ok()
    }
}

impl Drop for RequestServer {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

#[derive(Clone)]
struct Handler {
    ask: Sender<Asked>,
    notifier: Notifier,
    front: Arc<Front>,
    clients: Arc<AtomicUsize>,
}

/// One client less when dropped, also when its thread panics.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Handler {
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
        let slot = Slot(Arc::clone(&self.clients));
        if others >= CLIENTS_MAX {
            let busy = format!("the recovery worker serves {CLIENTS_MAX} clients already");
            let _ = client.answer(&Answer::CouldNotTell(busy));
            return;
        }
        let handler = self.clone();
        // The new thread inherits the blocked signals of this one. If it cannot be started the connection is
        // closed unanswered, and the client asks again.
        let _ = std::thread::Builder::new()
            .name("walden client".to_owned())
            .spawn(move || {
                let _slot = slot;
                handler.attend(client);
            });
    }

    fn attend(&self, mut client: Connection) {
        // A client that sends nonsense has been told so by the connection itself.
        let Ok(request) = client.read_request(Instant::now() + REQUEST_READ_WAIT_MAX) else {
            return;
        };
        if request == Request::Status {
            // Here and not on the main thread: it is wanted most while a module does not come back.
            let _ = client.answer(&Answer::Status(status::document()));
            return;
        }
        let client = Arc::new(Mutex::new(client));
        let (reply, replies) = sync_channel(2);
        let restores = matches!(request, Request::Restore { .. });
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
        self.notifier.notify();
        // Dropped unanswered by a worker that is leaving: closed unanswered too.
        let Some(answer) = self.wait_for_answer(&replies, restores) else {
            return;
        };
        answered.store(true, Ordering::Release);
        let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = client.answer(&answer);
    }

    /// Waits for the turn, then for the answer; each for no longer than it may take.
    fn wait_for_answer(&self, replies: &Receiver<Reply>, restores: bool) -> Option<Answer> {
        let arrived = Instant::now();
        let mut taken_up_until = None;
        loop {
            let job = self.front.job();
            let until = taken_up_until.or(job.until).unwrap_or_else(|| {
                // No request in front: the main thread is about to take this one up.
                job.free_since.map_or(arrived, |free| free.max(arrived)) + TAKING_UP_WAIT_MAX
            });
            let wait = until
                .saturating_duration_since(Instant::now())
                .min(LOOK_EVERY);
            match replies.recv_timeout(wait) {
                Ok(Reply::TakenUp { until }) => taken_up_until = Some(until),
                Ok(Reply::Answer(answer)) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => {
                    return Some(self.front.not_answered(arrived, taken_up_until.is_some()));
                }
                // A standby asks again, and the end of a recovery has its own copy: neither must be held up by
                // another request's slow job. Targeted recovery can wait, and would be stopped otherwise.
                Err(RecvTimeoutError::Timeout) => {
                    let impatient = job.patience.is_some_and(|most| arrived.elapsed() > most);
                    let behind = restores && taken_up_until.is_none();
                    if behind && impatient && !Phase::of(Path::new(".")).stops() {
                        return Some(self.front.not_answered(arrived, false));
                    }
                }
            }
        }
    }
}
