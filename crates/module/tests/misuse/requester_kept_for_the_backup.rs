//! Looking at a role ends a transaction, and with it the server's open files of a backup: only before it may one look.
// says: lifetime may not live long enough
// says: must outlive `'static`

use module::{BackupSink, BackupStart, BackupTarget, Failure, Process, Requester};
use std::ffi::CStr;

struct Curious;

impl BackupTarget for Curious {
    const NAME: &'static CStr = c"curious";
    type Detail = Requester<'static>;

    fn check_detail(_: Process, requester: Requester<'_>, _: Option<&str>) -> Result<Self::Detail, Failure> {
        Ok(requester)
    }

    fn begin(_: Process, _: Self::Detail, _: &BackupStart) -> Result<Box<dyn BackupSink>, Failure> {
        Err(Failure::new("keeps no base backups"))
    }
}
