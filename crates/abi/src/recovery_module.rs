//! The recovery module interface: Walden's own, in the shape of the server's archive modules of 16 and later.
//!
//! The C face of the same is `include/walden/recovery_module.h`; `tests/headers.rs` holds the two together.
//! A library exports `_PG_recovery_module_init`. All callbacks run in one process, the recovery worker, with
//! the data directory as working directory.

use core::ffi::{c_char, c_void};
use core::mem::{offset_of, size_of};

/// `RecoveryModuleState`: one per loaded library, owned by the host.
#[repr(C)]
#[derive(Debug)]
pub struct RecoveryModuleState {
    /// Belongs to the module; null at first.
    pub private_data: *mut c_void,
}

/// `RecoveryStartupCB`.
pub type RecoveryStartupCb = unsafe extern "C-unwind" fn(*mut RecoveryModuleState);
/// `RecoveryRestoreCB`: state, file name, path to create, `lastRestartPointFileName`. False means *not in
/// the archive*; "could not tell" is an ERROR.
pub type RecoveryRestoreCb = unsafe extern "C-unwind" fn(
    *mut RecoveryModuleState,
    *const c_char,
    *const c_char,
    *const c_char,
) -> bool;
/// `RecoveryArchiveCleanupCB`: state, `lastRestartPointFileName`, the oldest file to keep.
pub type RecoveryArchiveCleanupCb =
    unsafe extern "C-unwind" fn(*mut RecoveryModuleState, *const c_char);
/// `RecoveryRecoveryEndCB`: state, `lastRestartPointFileName`.
pub type RecoveryRecoveryEndCb =
    unsafe extern "C-unwind" fn(*mut RecoveryModuleState, *const c_char);
/// `RecoveryShutdownCB`.
pub type RecoveryShutdownCb = unsafe extern "C-unwind" fn(*mut RecoveryModuleState);

/// `RecoveryModuleCallbacks`. A library is asked only for the job it was named for, so each is optional.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RecoveryModuleCallbacks {
    /// Right after the library was loaded.
    pub startup_cb: Option<RecoveryStartupCb>,
    /// For a library named in `walden.restore_library`.
    pub restore_cb: Option<RecoveryRestoreCb>,
    /// For a library named in `walden.archive_cleanup_library`.
    pub archive_cleanup_cb: Option<RecoveryArchiveCleanupCb>,
    /// For a library named in `walden.recovery_end_library`.
    pub recovery_end_cb: Option<RecoveryRecoveryEndCb>,
    /// When the worker leaves in an orderly way.
    pub shutdown_cb: Option<RecoveryShutdownCb>,
}

/// `_PG_recovery_module_init`: returns callbacks of server lifetime.
pub type RecoveryModuleInit = unsafe extern "C-unwind" fn() -> *const RecoveryModuleCallbacks;

const _: () = assert!(size_of::<RecoveryModuleState>() == 8);
const _: () = assert!(size_of::<RecoveryModuleCallbacks>() == 40);
const _: () = assert!(offset_of!(RecoveryModuleCallbacks, restore_cb) == 8);
const _: () = assert!(offset_of!(RecoveryModuleCallbacks, archive_cleanup_cb) == 16);
const _: () = assert!(offset_of!(RecoveryModuleCallbacks, recovery_end_cb) == 24);
const _: () = assert!(offset_of!(RecoveryModuleCallbacks, shutdown_cb) == 32);
