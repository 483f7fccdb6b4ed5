//! How threads are started: by a function that the caller gives, since inside a server process they must not take its signals.

use std::io;
use std::thread::JoinHandle;

/// Starts a thread of this name. In a server process: with all signals blocked.
pub type Spawn = fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// A [`Spawn`] for processes that leave their signals as they are: a command, a test.
///
/// Fails as [`std::thread::Builder::spawn`] does.
pub fn spawn_plainly(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
}
