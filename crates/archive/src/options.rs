//! What an archive is told about its work beyond its place: compression, checks, and when to stop.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::compression::Compression;
use crate::error::{Error, ErrorKind};

/// How thoroughly segments are checked before they are archived and before they are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verify {
    /// The first page's long header and the file's size, for segments and partial segments.
    #[default]
    Header,
    /// No look at WAL contents. Compressed objects are still checked against their checksums.
    Off,
}

impl FromStr for Verify {
    type Err = Error;

    /// Accepts `header` and `off` in any case; anything else is [`ErrorKind::Unusable`].
    fn from_str(text: &str) -> Result<Verify, Error> {
        match text.to_ascii_lowercase().as_str() {
            "header" => Ok(Verify::Header),
            "off" => Ok(Verify::Off),
            _ => Err(
                Error::unusable(format!("verification \"{text}\" is not known"))
                    .with_hint("Available values: header, off."),
            ),
        }
    }
}

impl fmt::Display for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verify::Header => "header",
            Verify::Off => "off",
        })
    }
}

/// How an archive does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How new segments are stored. Whatever is stored already is read, however it is compressed.
    pub compression: Compression,
    /// How segments are checked, on the way in and on the way out.
    pub verify: Verify,
}

/// Asks a running operation, from any thread, to stop at its next chunk. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
}

impl Cancel {
    /// One that nobody has asked yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks. There is no way back: start the next operation with a new [`Cancel`].
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// True once somebody has asked.
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// An [`ErrorKind::Cancelled`] once somebody has asked; `what` names the work that is given up.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        if self.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                format!("{what} was cancelled"),
            ));
        }
        Ok(())
    }
}
