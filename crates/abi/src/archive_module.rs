//! The archive module interface in its two dialects.
//!
//! 15 (`postmaster/pgarch.h`): the library fills a struct that the server gives, callbacks carry no state.
//! 16 and later (`archive/archive_module.h`): the library returns a pointer to a struct of server lifetime
//! and every callback gets the state first. Only `archive_file_cb` is required.

use core::ffi::{c_char, c_void};
use core::mem::{offset_of, size_of};

/// `ArchiveModuleState` (16 and later): one per loaded module, owned by the server.
#[repr(C)]
#[derive(Debug)]
pub struct ArchiveModuleState {
    /// Belongs to the module; null at first.
    pub private_data: *mut c_void,
}

/// `ArchiveStartupCB` (16 and later).
pub type ArchiveStartupCb = unsafe extern "C-unwind" fn(*mut ArchiveModuleState);
/// `ArchiveCheckConfiguredCB` (16 and later).
pub type ArchiveCheckConfiguredCb = unsafe extern "C-unwind" fn(*mut ArchiveModuleState) -> bool;
/// `ArchiveFileCB` (16 and later): state, file name, path relative to the data directory.
pub type ArchiveFileCb =
    unsafe extern "C-unwind" fn(*mut ArchiveModuleState, *const c_char, *const c_char) -> bool;
/// `ArchiveShutdownCB` (16 and later).
pub type ArchiveShutdownCb = unsafe extern "C-unwind" fn(*mut ArchiveModuleState);

/// `ArchiveModuleCallbacks` of 16 and later.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArchiveModuleCallbacks16 {
    /// Right after the library was loaded; optional.
    pub startup_cb: Option<ArchiveStartupCb>,
    /// Before every attempt; missing means always configured.
    pub check_configured_cb: Option<ArchiveCheckConfiguredCb>,
    /// One attempt at one file.
    pub archive_file_cb: Option<ArchiveFileCb>,
    /// When the archiver leaves in an orderly way; optional.
    pub shutdown_cb: Option<ArchiveShutdownCb>,
}

/// `ArchiveCheckConfiguredCB` of 15.
pub type ArchiveCheckConfiguredCb15 = unsafe extern "C-unwind" fn() -> bool;
/// `ArchiveFileCB` of 15.
pub type ArchiveFileCb15 = unsafe extern "C-unwind" fn(*const c_char, *const c_char) -> bool;
/// `ArchiveShutdownCB` of 15.
pub type ArchiveShutdownCb15 = unsafe extern "C-unwind" fn();

/// `ArchiveModuleCallbacks` of 15; the server zeroes it and the library fills it in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArchiveModuleCallbacks15 {
    /// Optional: whether archiving can begin. As in 16, without a state.
    pub check_configured_cb: Option<ArchiveCheckConfiguredCb15>,
    /// Required: archives one file. As in 16, without a state.
    pub archive_file_cb: Option<ArchiveFileCb15>,
    /// Optional: runs while the archiver exits. As in 16, without a state.
    pub shutdown_cb: Option<ArchiveShutdownCb15>,
}

/// `_PG_archive_module_init`, of either dialect. 15 passes the struct to fill and ignores the answer; 16 and
/// later pass nothing (the argument is whatever stood in the register: not to be read) and use the answer.
pub type ArchiveModuleInit =
    unsafe extern "C-unwind" fn(*mut ArchiveModuleCallbacks15) -> *const ArchiveModuleCallbacks16;

/// `_PG_archive_module_init` as 15 declares it: fills the struct, which its host has zeroed.
pub type ArchiveModuleInit15 = unsafe extern "C-unwind" fn(*mut ArchiveModuleCallbacks15);
/// `_PG_archive_module_init` as 16 and later declare it: returns callbacks of server lifetime.
pub type ArchiveModuleInit16 = unsafe extern "C-unwind" fn() -> *const ArchiveModuleCallbacks16;

const _: () = assert!(size_of::<ArchiveModuleState>() == 8);
const _: () = assert!(size_of::<ArchiveModuleCallbacks15>() == 24);
const _: () = assert!(offset_of!(ArchiveModuleCallbacks15, archive_file_cb) == 8);
const _: () = assert!(offset_of!(ArchiveModuleCallbacks15, shutdown_cb) == 16);
const _: () = assert!(size_of::<ArchiveModuleCallbacks16>() == 32);
const _: () = assert!(offset_of!(ArchiveModuleCallbacks16, check_configured_cb) == 8);
const _: () = assert!(offset_of!(ArchiveModuleCallbacks16, archive_file_cb) == 16);
const _: () = assert!(offset_of!(ArchiveModuleCallbacks16, shutdown_cb) == 24);
