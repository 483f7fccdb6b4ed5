//! Whether a backup is what its manifest says: every part decodes and is what was stored, every file is there with its length
//! and checksum, and no page is corrupt by the server's rule but those that were when it was stored. Such a backup is what was
//! stored: that those pages are corrupt is for the caller to say.
//!
//! Guarantees that each part is read once, several at a time, in bounded memory but for the manifest; that what could not be
//! looked at is told apart from what is wrong; and that nothing is written anywhere. Whether its WAL is there is asked of the
//! caller's listing (`catalogue.rs`); whether that can be replayed is `audit`'s.

mod files;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use archive::{Archive, Cancel, Error, ErrorKind, Packed};

use crate::document::{Committed, PageState, Part};
use crate::layout::TarName;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::path::SafePath;
use crate::restore::Tree;
use crate::tar::Parser;
use files::Files;

/// How many complaints about one backup are kept.
const COMPLAINTS_MAX: usize = 1000;

/// How a backup is verified.
pub struct Request<'a> {
    /// The archive that it is in.
    pub archive: &'a Archive,
    /// How many parts are read at a time, at least one.
    pub readers: usize,
    /// Told of progress.
    pub told: &'a (dyn Fn(Told) + Sync),
    /// Ends it early.
    pub cancel: &'a Cancel,
}

/// Progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// So many parts of so many have been read.
    Parts(u64, u64),
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many parts were read to their ends.
    pub parts: u64,
    /// How many files were in them.
    pub files: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// How many pages were checked.
    pub pages: u64,
    /// How many of those are corrupt. Those that were so when the backup was stored are no complaint: the backup names the
    /// files that they are in.
    pub corrupt_pages: u64,
    /// What is wrong, the first thousand of it.
    pub complaints: Vec<Complaint>,
    /// How many more there are.
    pub more: u64,
}

/// Something that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Whether it is not wrong, as far as is known, but could not be looked at.
    pub is_unknown: bool,
    /// What, in words.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
}

impl Complaint {
    fn wrong(message: impl Into<String>) -> Complaint {
        Complaint {
            is_unknown: false,
            message: message.into(),
            hint: None,
        }
    }

    /// What could not be read is wrong only if it is damaged, or not there.
    fn of(error: &Error) -> Complaint {
        Complaint {
            is_unknown: !matches!(error.kind(), ErrorKind::Damaged),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// Verifies a committed backup. Everything that is wrong is in the report.
#[must_use]
pub fn verify(backup: &Committed, request: &Request<'_>) -> Verified {
    verify_into(backup, request, None)
}

/// The same, and writes the files into a tree, if there is one. Then it ends with the first part of which something is wrong.
pub(crate) fn verify_into(
    backup: &Committed,
    request: &Request<'_>,
    tree: Option<&Tree>,
) -> Verified {
    let verifying = Verifying {
        backup,
        request,
        tree,
        named: backup.pages.files.iter().map(String::as_str).collect(),
        manifest: None,
        state: Mutex::new(Seen::default()),
    };
    let manifest = verifying.manifest();
    let verifying = Verifying {
        manifest,
        ..verifying
    };
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let total = backup.parts.len();
    thread::scope(|scope| {
        for _ in 0..request.readers.clamp(1, total.max(1)) {
            scope.spawn(|| {
                let mut reading = request.archive.reading();
                while let Some(part) = backup.parts.get(next.fetch_add(1, Ordering::Relaxed))
                    && !verifying.gives_up()
                {
                    verifying.part(part, &mut reading);
                    let done = done.fetch_add(1, Ordering::AcqRel) + 1;
                    (request.told)(Told::Parts(done as u64, total as u64));
                }
            });
        }
    });
    verifying.finish()
}

struct Verifying<'a> {
    backup: &'a Committed,
    request: &'a Request<'a>,
    /// Where the files are written, if they are.
    tree: Option<&'a Tree>,
    /// The files that had corrupt pages when the backup was stored, as far as they were named.
    named: HashSet<&'a str>,
    /// `None` if there is none, or it cannot be read.
    manifest: Option<Manifest>,
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    verified: Verified,
    files: HashSet<SafePath>,
    /// Those files with corrupt pages that were named.
    corrupt: HashSet<String>,
}

impl Seen {
    fn complain(&mut self, complaint: Complaint) {
        if self.verified.complaints.len() < COMPLAINTS_MAX {
            self.verified.complaints.push(complaint);
        } else {
            self.verified.more += 1;
        }
    }

    /// Complains where pages are corrupt that were not when the backup was stored, or the other way round.
    fn compare_pages(&mut self, backup: &Committed, named: HashSet<&str>) {
        if backup.pages.state == PageState::Unchecked {
            return;
        }
        let (was, is) = (backup.pages.corrupt, self.verified.corrupt_pages);
        if was != is {
            self.complain(Complaint::wrong(format!(
                "{is} pages are corrupt, and {was} were when the backup was stored"
            )));
        }
        for file in named {
            if !self.corrupt.contains(file) {
                self.complain(Complaint::wrong(format!(
                    "file \"{}\" has no corrupt pages, and had some when the backup was stored",
                    archive::printable(file)
                )));
            }
        }
    }
}

impl Verifying<'_> {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more is to be read.
    fn gives_up(&self) -> bool {
        self.tree.is_some() && !self.seen().verified.complaints.is_empty()
    }

    /// Reads the manifest, if there is one.
    fn manifest(&self) -> Option<Manifest> {
        let part = self.backup.manifest.as_ref()?;
        let mut bytes = Vec::new();
        let mut is_long = false;
        let read = self.read(part, &mut self.request.archive.reading(), &mut |piece| {
            is_long = (bytes.len() + piece.len()) as u64 > MANIFEST_BYTES_MAX;
            if is_long {
                return ControlFlow::Break(());
            }
            bytes.extend_from_slice(piece);
            ControlFlow::Continue(())
        });
        let shown = self.shown(part);
        let parsed = match read {
            _ if is_long => Err(Error::new(
                ErrorKind::Damaged,
                format!("manifest \"{shown}\" has more than {MANIFEST_BYTES_MAX} bytes"),
            )),
            Err(error) => Err(error),
            Ok(()) => manifest::parse(&bytes, &shown),
        };
        match parsed {
            Ok(manifest) => {
                let own = self.backup.system;
                if let Some(other) = manifest.system.filter(|system| *system != own) {
                    let what = format!(
                        "manifest \"{shown}\" is of system identifier {other}, not of {own}"
                    );
                    self.seen().complain(Complaint::wrong(what));
                }
                Some(manifest)
            }
            Err(error) => {
                self.seen().complain(Complaint::of(&error));
                None
            }
        }
    }

    fn shown(&self, part: &Part) -> String {
        let key = self.backup.id.key(&part.name);
        format!("{}/{key}", self.request.archive.place())
    }

    /// Reads an object, which has to be what was stored.
    fn read(
        &self,
        part: &Part,
        reading: &mut archive::Reading<'_>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let key = self.backup.id.key(&part.name);
        let mut has_broken = false;
        let read = reading.read_summed(&key, self.request.cancel, &mut |piece| {
            let flow = visit(piece);
            has_broken = flow.is_break();
            flow
        })?;
        let damaged = |what: String| Err(Error::new(ErrorKind::Damaged, what));
        let stored = Packed {
            bytes: part.bytes,
            stored_bytes: part.stored_bytes,
            stored_digest: part.stored_digest,
        };
        match read {
            None => damaged(format!("archive file \"{}\" is missing", self.shown(part))),
            Some(_) if has_broken => Ok(()),
            Some(read) if read != stored => damaged(format!(
                "archive file \"{}\" is not what was stored: its length or its digest has changed",
                self.shown(part)
            )),
            Some(_) => Ok(()),
        }
    }

    /// Verifies one part.
    fn part(&self, part: &Part, reading: &mut archive::Reading<'_>) {
        let Some((tar, _)) = TarName::of_part(&part.name) else {
            return;
        };
        let mut parser = Parser::new(self.shown(part));
        let mut files = Files::new(self, tar);
        let mut failed = None;
        let read = self.read(
            part,
            reading,
            &mut |piece| match parser.feed(piece, &mut files) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            },
        );
        let done = match failed {
            Some(error) => Err(error),
            None => read.and_then(|()| parser.finish()),
        };
        match done {
            Ok(()) => files.count(),
            // What it showed before is to be forgotten.
            Err(error) => {
                self.seen().complain(Complaint::of(&error));
            }
        }
    }

    /// What is known once all parts have been read.
    fn finish(self) -> Verified {
        let Verifying {
            backup,
            manifest,
            state,
            named,
            ..
        } = self;
        let mut seen = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Of a part that could not be read it is not known what was in it.
        if seen.verified.parts == backup.parts.len() as u64 {
            let files = manifest.iter().flat_map(|manifest| manifest.files.keys());
            let mut missing: Vec<SafePath> = files
                .filter(|path| !seen.files.contains(*path))
                .cloned()
                .collect();
            missing.sort();
            for path in missing {
                seen.complain(Complaint::wrong(format!(
                    "file \"{path}\" is in the manifest and in no part"
                )));
            }
            seen.compare_pages(backup, named);
        }
        seen.verified.complaints.sort();
        seen.verified
    }
}
