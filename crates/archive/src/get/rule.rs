//! Who asks for a file decides what follows from its being stored, or not: a [`Rule`], which is asked on the thread that asks the
//! archive.
//!
//! Guarantees that a file which the rule withholds is never given its name, and that "absent" is said by a rule only, after
//! it could look at the archive. The rule of recovery is the crate `recovery`; [`AsStored`] is for all others.

use std::fmt;
use std::io::Read;

use crate::archive::Archive;
use crate::cancel::Cancel;
use crate::error::Error;

/// Something to say beside an answer, as a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// One line in the server's style.
    pub message: String,
    /// Advice, if there is any.
    pub hint: Option<String>,
}

/// The answer about a file that was wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is at its destination.
    Restored {
        /// Size of the restored file in bytes.
        bytes: u64,
        /// It had been fetched, or begun to be, before it was asked for.
        ahead: bool,
    },
    /// It is absent, by its rule; and what to say beside that.
    Absent(Vec<Notice>),
}

/// What follows from a file's not being stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStored {
    /// The file is absent; and what to say beside that.
    Absent(Vec<Notice>),
    /// It may have been stored meanwhile: fetch it once more.
    LookAgain,
}

/// What follows from what the archive has. Called from any thread; it may take as long as the archive takes.
pub trait Rule: Send + Sync + fmt::Debug {
    /// Whether the contents of a stored file have to be looked at, so that it is fetched anew and [`Rule::stored`] is asked.
    fn examines(&self) -> bool {
        false
    }

    /// The file is stored, whole and checked, and these are its contents. `None`: it may be handed over; else it is withheld, and
    /// to the caller it is absent.
    ///
    /// Fails when it must not be handed over, nor called absent.
    fn stored(
        &self,
        archive: &Archive,
        contents: &mut dyn Read,
    ) -> Result<Option<Vec<Notice>>, Error> {
        let _ = (archive, contents);
        Ok(None)
    }

    /// The store has looked and there is no such file. To call it absent takes proof that this is the archive at all: see
    /// [`Archive::prove_present`].
    ///
    /// Fails when it must not be called absent.
    fn not_stored(&self, archive: &Archive, cancel: &Cancel) -> Result<NotStored, Error>;
}

/// The rule of those who want one file and draw no conclusions: absent is what the archive does not have.
#[derive(Debug, Clone, Copy)]
pub struct AsStored;

impl Rule for AsStored {
    fn not_stored(&self, archive: &Archive, _: &Cancel) -> Result<NotStored, Error> {
        archive.prove_present()?;
        Ok(NotStored::Absent(Vec::new()))
    }
}
