//! The same trouble is said once in a while: a standby asks every few seconds.

use std::time::{Duration, Instant};

/// How long the same words are not said again.
const PAUSE: Duration = Duration::from_secs(60);
/// How many different words are remembered. A standby asks for a few names in turn.
const REMEMBERED_MAX: usize = 32;

/// What was said lately.
#[derive(Debug, Default)]
pub(crate) struct Once {
    said: Vec<(String, Instant)>,
}

impl Once {
    /// Whether these words have not been said for a minute; they count as said from now on.
    pub(crate) fn is_news(&mut self, words: &str) -> bool {
        self.said.retain(|(_, when)| when.elapsed() < PAUSE);
        if self.said.iter().any(|(said, _)| said == words) {
            return false;
        }
        if self.said.len() < REMEMBERED_MAX {
            self.said.push((words.to_owned(), Instant::now()));
        }
        true
    }
}
