//! What dead writers leave behind: objects that never got an archive's name, and uploads in parts that will not be finished.
//!
//! Guarantees that nothing goes which may still be in the making, and nothing under another name than Walden's own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Error;

use super::asking::limit_for;
use super::pages::From;
use super::probe::PROBE_PREFIX;
use super::requests::Shared;
use super::staged::STAGED_PREFIX;
use super::unfinished::{Marker, Page, Unfinished, Upload};

/// How old an unfinished object must be to count as left behind: older than any upload, whatever the clocks say.
pub(super) const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the names of unfinished objects begin with.
const LEFTOVER_PREFIXES: [&str; 2] = [STAGED_PREFIX, PROBE_PREFIX];

/// Pages of unfinished uploads that are looked at, each of up to a thousand.
const UPLOAD_PAGES_MAX: usize = 100;

impl Shared {
    /// Removes objects that have no archive's name yet and are older than this.
    pub(super) fn remove_unfinished(&self, age: Duration) -> Result<u64, Error> {
        let mut old = Vec::new();
        self.each("walden.", From::Start, &mut |entry| {
            if is_leftover(&entry.key, entry.modified, age) {
                old.push(entry.key);
            }
            ControlFlow::Continue(())
        })?;
        for key in &old {
            self.remove(key)?;
        }
        Ok(old.len() as u64)
    }

    /// Gives up uploads in parts, for such names, that were begun longer ago than this. A store that does not list them,
    /// or not to us, has none as far as we know.
    pub(super) fn give_up_uploads(&self, age: Duration) -> Result<u64, Error> {
        let connection = self.connection()?;
        let Some(unfinished) = &connection.unfinished else {
            return Ok(0);
        };
        let mut count = 0;
        let mut after = None;
        for _ in 0..UPLOAD_PAGES_MAX {
            let page = self.page_of_uploads(unfinished, after)?;
            let Some((uploads, next)) = page else {
                break;
            };
            for upload in uploads {
                count += u64::from(self.give_up_old(upload, age)?);
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(count)
    }

    fn page_of_uploads(
        &self,
        unfinished: &Arc<Unfinished>,
        after: Option<Marker>,
    ) -> Result<Option<Page>, Error> {
        let prefix = self.path("walden.").to_string();
        let unfinished = Arc::clone(unfinished);
        let page = self.ask(limit_for(0), move |_| {
            let (unfinished, prefix, after) =
                (Arc::clone(&unfinished), prefix.clone(), after.clone());
            async move { unfinished.page(&prefix, after.as_ref()).await }
        })?;
        match page {
            Ok(page) => Ok(Some(page)),
            Err(failure) if failure.is_refusal() => Ok(None),
            Err(failure) => Err(failure.error(&format!(
                "could not list unfinished uploads to \"{}\"",
                self.address.place()
            ))),
        }
    }

    /// Gives an upload up if it is left behind; tells whether it was.
    fn give_up_old(&self, upload: Upload, age: Duration) -> Result<bool, Error> {
        let key = upload
            .name
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let path = self.path(&key);
        let is_ours = path.as_ref() == upload.name;
        let is_old = upload
            .begun
            .is_some_and(|begun| is_leftover(&key, begun, age));
        if !is_ours || !is_old {
            return Ok(false);
        }
        let aborted = self.ask(limit_for(0), move |client| {
            let (path, id) = (path.clone(), upload.id.clone());
            async move { client.abort_multipart(&path, &id).await }
        })?;
        match aborted {
            Ok(()) => Ok(true),
            // Another was faster, or it is not for us to do.
            Err(failure) if failure.is_refusal() => Ok(false),
            Err(failure) => Err(failure.error(&format!(
                "could not give up the upload of object \"{}\"",
                self.shown(&key)
            ))),
        }
    }
}

/// Whether such an object, or upload, has lost its writer.
fn is_leftover(key: &str, begun: SystemTime, age: Duration) -> bool {
    let is_meant = LEFTOVER_PREFIXES
        .iter()
        .any(|prefix| key.starts_with(prefix));
    is_meant && begun.elapsed().is_ok_and(|elapsed| elapsed > age)
}
