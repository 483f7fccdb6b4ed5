//! Base backup targets (`backup/basebackup_target.h`, `backup/basebackup_sink.h`).
//!
//! The same in all supported majors, which install neither header: `include/walden/backup_target.h` declares this for
//! modules in C, `tests/headers.rs` holds the two together, and a scenario on each major has a target compare what it is
//! given with what the server tells its client (`tests/tests/server/backup_target_c.rs`).

use core::ffi::{c_char, c_int, c_void};
use core::mem::{offset_of, size_of};

/// The server's `List`: only pointers to it are passed on. Its elements differ between majors.
#[repr(C)]
#[derive(Debug)]
pub struct List {
    _private: [u8; 0],
}

/// `bbsink_state`: what all sinks of one backup share; kept by the server.
#[repr(C)]
#[derive(Debug)]
pub struct BbsinkState {
    /// The tablespaces, the data directory last.
    pub tablespaces: *mut List,
    /// Index in [`Self::tablespaces`] of the one that is being sent.
    pub tablespace_num: c_int,
    /// Bytes read so far.
    pub bytes_done: u64,
    /// An estimate of all bytes.
    pub bytes_total: u64,
    /// Whether there is an estimate: the client asked for progress.
    pub bytes_total_is_valid: bool,
    /// Where the backup starts.
    pub startptr: u64,
    /// The timeline that it starts on.
    pub starttli: u32,
}

/// `bbsink`: what every sink begins with.
#[repr(C)]
#[derive(Debug)]
pub struct Bbsink {
    /// The callbacks.
    pub bbs_ops: *const BbsinkOps,
    /// Where contents are put before a callback is told of them.
    pub bbs_buffer: *mut c_char,
    /// Bytes in [`Self::bbs_buffer`].
    pub bbs_buffer_length: usize,
    /// The sink that everything is forwarded to.
    pub bbs_next: *mut Bbsink,
    /// Null before the backup begins.
    pub bbs_state: *mut BbsinkState,
}

/// A callback that is told nothing but the sink.
pub type BbsinkCb = unsafe extern "C-unwind" fn(*mut Bbsink);
/// A callback that is told how many bytes are in the buffer.
pub type BbsinkContentsCb = unsafe extern "C-unwind" fn(*mut Bbsink, usize);

/// `bbsink_ops`: all are required.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BbsinkOps {
    /// Once, at the start; has to set `bbs_buffer`.
    pub begin_backup: BbsinkCb,
    /// With the name of the archive.
    pub begin_archive: unsafe extern "C-unwind" fn(*mut Bbsink, *const c_char),
    /// Some of the archive.
    pub archive_contents: BbsinkContentsCb,
    /// The archive is complete.
    pub end_archive: BbsinkCb,
    /// Behind all archives, if a manifest was asked for.
    pub begin_manifest: BbsinkCb,
    /// Some of the manifest.
    pub manifest_contents: BbsinkContentsCb,
    /// The manifest is complete.
    pub end_manifest: BbsinkCb,
    /// With the place and the timeline where the backup ends.
    pub end_backup: unsafe extern "C-unwind" fn(*mut Bbsink, u64, u32),
    /// Last, also behind an ERROR; not called when the process ends.
    pub cleanup: BbsinkCb,
}

/// Looks at a target's detail (null: none) and answers with what [`GetSink`] is to be given.
pub type CheckDetail = unsafe extern "C-unwind" fn(*mut c_char, *mut c_char) -> *mut c_void;
/// Makes the sink in front of the given one.
pub type GetSink = unsafe extern "C-unwind" fn(*mut Bbsink, *mut c_void) -> *mut Bbsink;

const _: () = assert!(size_of::<BbsinkState>() == 56);
const _: () = assert!(offset_of!(BbsinkState, tablespace_num) == 8);
const _: () = assert!(offset_of!(BbsinkState, bytes_done) == 16);
const _: () = assert!(offset_of!(BbsinkState, bytes_total) == 24);
const _: () = assert!(offset_of!(BbsinkState, bytes_total_is_valid) == 32);
const _: () = assert!(offset_of!(BbsinkState, startptr) == 40);
const _: () = assert!(offset_of!(BbsinkState, starttli) == 48);
const _: () = assert!(size_of::<Bbsink>() == 40);
const _: () = assert!(offset_of!(Bbsink, bbs_buffer) == 8);
const _: () = assert!(offset_of!(Bbsink, bbs_buffer_length) == 16);
const _: () = assert!(offset_of!(Bbsink, bbs_next) == 24);
const _: () = assert!(offset_of!(Bbsink, bbs_state) == 32);
const _: () = assert!(size_of::<BbsinkOps>() == 72);
const _: () = assert!(offset_of!(BbsinkOps, begin_archive) == 8);
const _: () = assert!(offset_of!(BbsinkOps, archive_contents) == 16);
const _: () = assert!(offset_of!(BbsinkOps, end_archive) == 24);
const _: () = assert!(offset_of!(BbsinkOps, begin_manifest) == 32);
const _: () = assert!(offset_of!(BbsinkOps, manifest_contents) == 40);
const _: () = assert!(offset_of!(BbsinkOps, end_manifest) == 48);
const _: () = assert!(offset_of!(BbsinkOps, end_backup) == 56);
const _: () = assert!(offset_of!(BbsinkOps, cleanup) == 64);

unsafe extern "C-unwind" {
    /// Adds a target, in place of one of the same name; copies the name.
    pub fn BaseBackupAddTarget(
        name: *mut c_char,
        check_detail: Option<CheckDetail>,
        get_sink: Option<GetSink>,
    );

    /// Begins the next sink, whose buffer becomes this one's.
    pub fn bbsink_forward_begin_backup(sink: *mut Bbsink);
    /// Forwards to the next sink.
    pub fn bbsink_forward_begin_archive(sink: *mut Bbsink, archive_name: *const c_char);
    /// Forwards to the next sink.
    pub fn bbsink_forward_archive_contents(sink: *mut Bbsink, len: usize);
    /// Forwards to the next sink.
    pub fn bbsink_forward_end_archive(sink: *mut Bbsink);
    /// Forwards to the next sink.
    pub fn bbsink_forward_begin_manifest(sink: *mut Bbsink);
    /// Forwards to the next sink.
    pub fn bbsink_forward_manifest_contents(sink: *mut Bbsink, len: usize);
    /// Forwards to the next sink.
    pub fn bbsink_forward_end_manifest(sink: *mut Bbsink);
    /// Forwards to the next sink.
    pub fn bbsink_forward_end_backup(sink: *mut Bbsink, endptr: u64, endtli: u32);
    /// Forwards to the next sink.
    pub fn bbsink_forward_cleanup(sink: *mut Bbsink);
}
