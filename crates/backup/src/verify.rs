//! Whether a backup is what its manifest says: every part decodes and is what was stored, every file is there with its length
//! and checksum, and the pages are right by the server's rule.
//!
//! Guarantees that each part is read once, several at a time, in bounded memory but for the manifest; that what could not be
//! looked at is told apart from what is wrong; and that nothing is written anywhere. Whether its WAL is there is asked of the
//! caller's listing (`catalogue.rs`); whether that can be replayed is `audit`'s.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use archive::{Archive, Cancel, Error, ErrorKind, Packed};

use crate::document::{Committed, PageState, Part};
use crate::layout::TarName;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest, Summing};
use crate::pages::{Checker, PageRule};
use crate::path::SafePath;
use crate::restore::{Output, Tree};
use crate::tar::{Member, Parser, Visitor, What};

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
    /// How many of those are corrupt.
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
    /// `None` if there is none, or it cannot be read.
    manifest: Option<Manifest>,
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    verified: Verified,
    files: HashSet<SafePath>,
}

impl Seen {
    fn complain(&mut self, complaint: Complaint) {
        if self.verified.complaints.len() < COMPLAINTS_MAX {
            self.verified.complaints.push(complaint);
        } else {
            self.verified.more += 1;
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
            let (was, is) = (backup.pages.corrupt, seen.verified.corrupt_pages);
            if backup.pages.state != PageState::Unchecked && was != is {
                seen.complain(Complaint::wrong(format!(
                    "{is} pages are corrupt, and {was} were when the backup was stored"
                )));
            }
        }
        seen.verified.complaints.sort();
        seen.verified
    }
}

/// The files of one part.
struct Files<'a> {
    verifying: &'a Verifying<'a>,
    tar: TarName,
    pages: Checker,
    file: Option<File>,
    /// What was found, which counts only once the part has been read to its end.
    found: Seen,
    paths: Vec<SafePath>,
    output: Option<Output>,
}

/// The file that is being read.
struct File {
    path: SafePath,
    bytes: u64,
    sum: Option<Summing>,
}

impl<'a> Files<'a> {
    fn new(verifying: &'a Verifying<'a>, tar: TarName) -> Files<'a> {
        let backup = verifying.backup;
        let rule = (backup.pages.state != PageState::Unchecked).then_some(PageRule {
            major: backup.major,
            start_lsn: backup.start_lsn,
            page_bytes: backup.pages.page_bytes,
            segment_pages: backup.pages.segment_pages,
        });
        Files {
            verifying,
            tar,
            pages: Checker::new(rule),
            file: None,
            found: Seen::default(),
            paths: Vec::new(),
            output: None,
        }
    }

    fn complain(&mut self, message: String) {
        self.found.complain(Complaint::wrong(message));
    }

    /// Adds what was found to what is known of the backup.
    fn count(mut self) {
        let pages = self.pages.report();
        for file in pages.files {
            self.complain(format!("file \"{file}\" has corrupt pages"));
        }
        let Verified {
            files,
            bytes,
            complaints,
            more,
            ..
        } = self.found.verified;
        let mut seen = self.verifying.seen();
        seen.verified.parts += 1;
        seen.verified.files += files;
        seen.verified.bytes = seen.verified.bytes.saturating_add(bytes);
        seen.verified.pages += pages.checked;
        seen.verified.corrupt_pages += pages.corrupt;
        seen.verified.more += more;
        for complaint in complaints {
            seen.complain(complaint);
        }
        // Without a manifest nobody asks which files there were.
        let is_asked = self.verifying.manifest.is_some();
        for path in self.paths.into_iter().filter(|_| is_asked) {
            if let Some(path) = seen.files.replace(path) {
                let what = format!("file \"{path}\" is there twice");
                seen.complain(Complaint::wrong(what));
            }
        }
    }
}

/// Whether the manifest does not list such a file: WAL that was fetched is sent behind everything else.
fn is_not_listed(path: &SafePath) -> bool {
    path.bytes().starts_with(b"pg_wal/")
}

impl Visitor for Files<'_> {
    fn member(&mut self, member: &Member, _: &[u8]) -> Result<(), Error> {
        let Some(path) = SafePath::new(&member.name) else {
            let shown = member.shown();
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("path \"{shown}\" leads out of the data directory, or is none"),
            ));
        };
        let inside = path;
        let path = match self.tar.folder() {
            Some(folder) => inside.in_folder(&folder),
            None => inside.clone(),
        };
        let tree = self.verifying.tree;
        self.file = None;
        match &member.what {
            What::Directory => {
                return tree.map_or(Ok(()), |tree| tree.folder(self.tar, &inside));
            }
            What::Link(_) => {
                // The server makes the links of tablespaces itself, from tablespace_map.
                self.complain(format!(
                    "\"{path}\" is a symbolic link, which no backup of a target has"
                ));
                return Ok(());
            }
            What::File => {
                let output = tree.map(|tree| tree.file(self.tar, &inside, member));
                self.output = output.transpose()?;
            }
        }
        self.pages.begin(&path);
        let listed = match &self.verifying.manifest {
            None => None,
            Some(manifest) => {
                let listed = manifest.files.get(&path);
                if listed.is_none() && !is_not_listed(&path) {
                    self.complain(format!("file \"{path}\" is not in the manifest"));
                }
                listed
            }
        };
        if let Some(listed) = listed
            && listed.bytes != member.bytes
        {
            self.complain(format!(
                "file \"{path}\" has {} bytes, and {} by the manifest",
                member.bytes, listed.bytes
            ));
        }
        let found = &mut self.found.verified;
        found.files += 1;
        found.bytes = found.bytes.saturating_add(member.bytes);
        self.paths.push(path.clone());
        let sum = listed.and_then(|listed| listed.checksum.as_ref());
        self.file = Some(File {
            bytes: member.bytes,
            sum: sum.map(|(algorithm, _)| algorithm.begin()),
            path,
        });
        Ok(())
    }

    fn contents(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.pages.feed(bytes);
        if let Some(sum) = self.file.as_mut().and_then(|file| file.sum.as_mut()) {
            sum.feed(bytes);
        }
        self.output
            .as_mut()
            .map_or(Ok(()), |output| output.write(bytes))
    }

    fn padding(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn member_ends(&mut self) -> Result<(), Error> {
        self.pages.end();
        if let (Some(output), Some(tree)) = (self.output.take(), self.verifying.tree) {
            output.end(tree)?;
        }
        let Some(File { path, bytes, sum }) = self.file.take() else {
            return Ok(());
        };
        let manifest = self.verifying.manifest.as_ref();
        let listed = manifest.and_then(|manifest| manifest.files.get(&path));
        let expected = listed.and_then(|listed| Some((listed.bytes, listed.checksum.as_ref()?)));
        if let (Some((expected_bytes, (_, expected))), Some(sum)) = (expected, sum)
            // Another length has been told already.
            && bytes == expected_bytes
            && sum.finish() != *expected
        {
            self.complain(format!(
                "file \"{path}\" has another checksum than by the manifest"
            ));
        }
        Ok(())
    }
}
