//! The WAL files of an archive, in order.

use std::ops::ControlFlow;

use crate::archive::{Archive, Stored};
use crate::error::Error;
use crate::key::parse_key;
use crate::store::Detail;

/// See [`Archive::list`].
pub(crate) fn list(archive: &Archive) -> Result<Vec<Stored>, Error> {
    let mut files = Vec::new();
    archive.store.list("", Detail::Full, &mut |entry| {
        if let Some((name, form)) = parse_key(&entry.key) {
            files.push(Stored {
                name,
                key: entry.key,
                bytes: entry.bytes,
                modified: entry.modified,
                compression: form.compression,
                encrypted: form.sealed,
            });
        }
        ControlFlow::Continue(())
    })?;
    files.sort_by(|a: &Stored, b: &Stored| a.name.cmp(&b.name).then_with(|| a.key.cmp(&b.key)));
    Ok(files)
}
