//! The WAL files of an archive, in order.

use std::ops::ControlFlow;

use crate::archive::Archive;
use crate::error::Error;
use crate::get::reading::Stored;
use crate::store::key::parse_key;
use crate::store::waist::Detail;

/// How many files may be found before their number is told once more.
const TOLD_EVERY: usize = 256;

impl Archive {
    /// Every WAL file, sorted by name; foreign names are left out.
    pub fn list(&self) -> Result<Vec<Stored>, Error> {
        self.list_with(&mut |_| ())
    }

    /// The same, telling now and then how many files have been found so far.
    pub fn list_with(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<Stored>, Error> {
        let (mut files, mut has_room) = (Vec::new(), true);
        self.store.list("", Detail::Full, &mut |entry| {
            if let Some(name) = parse_key(&entry.key) {
                // How many there are is not for us to say.
                has_room = files.try_reserve(1).is_ok();
                if !has_room {
                    return ControlFlow::Break(());
                }
                files.push(Stored {
                    name,
                    key: entry.key,
                    bytes: entry.bytes,
                    modified: entry.modified,
                });
                if files.len().is_multiple_of(TOLD_EVERY) {
                    progress(files.len() as u64);
                }
            }
            ControlFlow::Continue(())
        })?;
        if !has_room {
            let (place, count) = (self.store.place(), files.len());
            return Err(Error::unavailable(format!(
                "could not list \"{place}\": there is no memory for more than {count} files"
            )));
        }
        files.sort_by_key(|file: &Stored| file.name);
        Ok(files)
    }
}
