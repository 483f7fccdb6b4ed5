//! For whom the files are that this command makes: as the cluster's own are, for their owner or for its group too
//! (`initdb -g`).
//!
//! Guarantees: nothing that the umask forbids is allowed; without a cluster to go by, files are for their owner alone.
//! The mode that a file is asked for is left to `archive`.

use rustix::fs::Mode;
use rustix::process::umask;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What its group may read is `initdb -g`'s (`PG_MODE_MASK_GROUP`, `file_perm.h`, 15 to 18).
const NOT_FOR_OTHERS: u32 = 0o027;
/// What only its owner may (`PG_MODE_MASK_OWNER`).
const FOR_OWNER_ALONE: u32 = 0o077;
/// The bit by which a file or a directory tells the one from the other.
const GROUP_READS: u32 = 0o040;

/// From now on files are made as this file or directory of the cluster is. To be called before there are other threads.
pub(crate) fn like(example: Option<&Path>) {
    let mode = example.and_then(|path| path.metadata().ok());
    let for_group = mode.is_some_and(|found| found.permissions().mode() & GROUP_READS != 0);
    let forbidden = if for_group {
        NOT_FOR_OTHERS
    } else {
        FOR_OWNER_ALONE
    };
    let given = umask(Mode::from_raw_mode(FOR_OWNER_ALONE));
    umask(given | Mode::from_raw_mode(forbidden));
}
