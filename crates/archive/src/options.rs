//! What an archive is told about its work beyond its place: compression, encryption, checks, and when to stop.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::compression::Compression;
use crate::error::{Error, ErrorKind};
use crate::identity::IdentityFile;
use crate::recipients::Recipients;

/// How thoroughly segments are checked before they are archived and before they are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verify {
    /// Every record of segments and partial segments up to the end of WAL, and what [`Verify::Header`] checks. WAL of a
    /// format that is not known is checked as with [`Verify::Header`], unless it is from a server whose major version is
    /// known ([`Options::server_major`]): that is an error.
    #[default]
    Records,
    /// The first page's long header and the file's size, for segments and partial segments.
    Header,
    /// No look at WAL contents. Compressed objects are still checked against their checksums.
    Off,
}

impl FromStr for Verify {
    type Err = Error;

    /// Accepts `records`, `header` and `off` in any case; anything else is [`ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<Verify, Error> {
        match text.to_ascii_lowercase().as_str() {
            "records" => Ok(Verify::Records),
            "header" => Ok(Verify::Header),
            "off" => Ok(Verify::Off),
            _ => Err(
                Error::unusable(format!("verification \"{text}\" is not known"))
                    .with_hint("Available values: records, header, off."),
            ),
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verify::Records => "records",
            Verify::Header => "header",
            Verify::Off => "off",
        })
    }
}

/// How an archive does its work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// How new segments are stored. Whatever is stored already is read as its first bytes say.
    pub compression: Compression,
    /// Whom new files are encrypted for.
    pub recipients: Recipients,
    /// What opens encrypted files.
    pub identity_file: Option<IdentityFile>,
    /// How segments are checked, on the way in and on the way out.
    pub verify: Verify,
    /// The major version of the server that this is done for, where that can be told.
    pub server_major: Option<u32>,
}

/// How long an operation stands still for another that goes first: longer than any deadline, which is an hour.
const HELD_MAX: Duration = Duration::from_secs(3700);

/// Asks a running operation, from any thread, to stop at its next chunk, and ends its pauses at once. Cheap to
/// clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug)]
struct State {
    asked: bool,
    /// Something else goes first.
    held: bool,
    alive: Instant,
}

impl Default for Shared {
    fn default() -> Shared {
        let state = State {
            asked: false,
            held: false,
            alive: Instant::now(),
        };
        Shared {
            state: Mutex::new(state),
            bell: Condvar::new(),
        }
    }
}

impl Cancel {
    /// One that nobody has asked yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks. There is no way back: start the next operation with a new [`Cancel`].
    pub fn cancel(&self) {
        self.state().asked = true;
        self.shared.bell.notify_all();
    }

    /// Lets the operation stand still at its next chunk, or go on again.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.shared.bell.notify_all();
    }

    /// True once somebody has asked.
    pub fn is_cancelled(&self) -> bool {
        self.state().asked
    }

    /// Pauses for so long, or until somebody asks; true if somebody has asked.
    pub fn wait(&self, pause: Duration) -> bool {
        let (state, _) = self
            .shared
            .bell
            .wait_timeout_while(self.state(), pause, |state| !state.asked)
            .unwrap_or_else(PoisonError::into_inner);
        state.asked
    }

    /// When the operation last looked whether it should stop, which it does at every chunk that it moves.
    pub fn last_alive(&self) -> Instant {
        self.state().alive
    }

    /// An [`ErrorKind::Cancelled`] once somebody has asked; `what` names the work that is given up.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        let mut state = self.state();
        if state.held {
            (state, _) = self
                .shared
                .bell
                .wait_timeout_while(state, HELD_MAX, |state| state.held && !state.asked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.alive = Instant::now();
        if state.asked {
            return Err(Error::new(
                ErrorKind::Cancelled,
                format!("{what} was cancelled"),
            ));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stands_still_until_it_may_go_on_or_is_cancelled() {
        for release in [Cancel::cancel, |cancel: &Cancel| cancel.hold(false)] {
            let cancel = Cancel::new();
            cancel.hold(true);
            let other = cancel.clone();
            let (tell, told) = std::sync::mpsc::channel();
            let working = std::thread::spawn(move || {
                let outcome = other.check("x");
                tell.send(()).unwrap();
                outcome
            });
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
            release(&cancel);
            assert_eq!(working.join().unwrap().is_err(), cancel.is_cancelled());
        }
    }

    #[test]
    fn a_cancellation_ends_a_pause_at_once() {
        let (cancel, asked) = (Cancel::new(), Cancel::new());
        let shared = asked.clone();
        assert!(!cancel.wait(Duration::from_millis(1)));
        let begun = Instant::now();
        let pausing = std::thread::spawn(move || shared.wait(Duration::from_secs(60)));
        asked.cancel();
        assert!(pausing.join().unwrap());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
