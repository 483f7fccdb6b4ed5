//! The files of one part of a backup as they are read: each compared with the manifest, its pages checked, and written where
//! files are.
//!
//! Guarantees that what a part showed counts only once it has been read to its end. Left to others: reading it (`verify.rs`).

use archive::{Error, ErrorKind};

use super::{Complaint, Seen, Verified, Verifying};
use crate::document::{CORRUPT_NAMED_MAX, PageState};
use crate::layout::TarName;
use crate::manifest::Summing;
use crate::pages::{Checker, PageRule};
use crate::path::SafePath;
use crate::restore::Output;
use crate::tar::{Member, Visitor, What};

/// The files of one part.
pub(super) struct Files<'a> {
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
    pub(super) fn new(verifying: &'a Verifying<'a>, tar: TarName) -> Files<'a> {
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
    pub(super) fn count(mut self) {
        let pages = self.pages.report();
        let named = &self.verifying.named;
        let (known, new): (Vec<_>, Vec<_>) = pages
            .files
            .into_iter()
            .partition(|file| named.contains(file.as_str()));
        // Of more files than are named it is not known which had corrupt pages.
        for file in new.iter().filter(|_| named.len() < CORRUPT_NAMED_MAX) {
            self.complain(format!(
                "file \"{file}\" has corrupt pages, and had none when the backup was stored"
            ));
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
        seen.corrupt.extend(known);
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
