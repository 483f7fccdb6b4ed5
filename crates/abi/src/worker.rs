//! Background workers (`postmaster/bgworker.h`).
//!
//! The struct grew in 17, where `bgw_library_name` became `MAXPGPATH` bytes long and every later field moved.

use crate::Datum;
use core::ffi::{c_char, c_int};
use core::mem::{offset_of, size_of};

/// `BGW_MAXLEN`, bytes.
pub const BGW_MAXLEN: usize = 96;
/// `BGW_EXTRALEN`, bytes.
pub const BGW_EXTRALEN: usize = 128;
/// `BGWORKER_SHMEM_ACCESS`: required of every worker.
pub const BGWORKER_SHMEM_ACCESS: c_int = 0x0001;
/// `BgWorkerStart_PostmasterStart`: as soon as the postmaster runs, before recovery.
pub const BG_WORKER_START_POSTMASTER_START: c_int = 0;

/// `BackgroundWorker`, with the length of the library's name as in 15 and 16 (96) or 17 and later (1024).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackgroundWorker<const LIBRARY_NAME: usize> {
    /// Shown in `ps` and the log.
    pub bgw_name: [c_char; BGW_MAXLEN],
    /// Shown in `pg_stat_activity.backend_type`.
    pub bgw_type: [c_char; BGW_MAXLEN],
    /// `BGWORKER_*`.
    pub bgw_flags: c_int,
    /// `BgWorkerStart_*`.
    pub bgw_start_time: c_int,
    /// Seconds until a crashed worker is started again.
    pub bgw_restart_time: c_int,
    /// Library, found by the server's search.
    pub bgw_library_name: [c_char; LIBRARY_NAME],
    /// Name of the worker's main function in that library.
    pub bgw_function_name: [c_char; BGW_MAXLEN],
    /// Argument of the main function.
    pub bgw_main_arg: Datum,
    /// Bytes that the main function finds in `MyBgworkerEntry`.
    pub bgw_extra: [c_char; BGW_EXTRALEN],
    /// Who is told about start and stop.
    pub bgw_notify_pid: c_int,
}

/// The struct of 15 and 16.
pub type BackgroundWorker15 = BackgroundWorker<96>;
/// The struct of 17 and later.
pub type BackgroundWorker17 = BackgroundWorker<1024>;

const _: () = assert!(size_of::<BackgroundWorker15>() == 544);
const _: () = assert!(offset_of!(BackgroundWorker15, bgw_function_name) == 300);
const _: () = assert!(offset_of!(BackgroundWorker15, bgw_main_arg) == 400);
const _: () = assert!(offset_of!(BackgroundWorker15, bgw_notify_pid) == 536);
const _: () = assert!(size_of::<BackgroundWorker17>() == 1472);
const _: () = assert!(offset_of!(BackgroundWorker17, bgw_function_name) == 1228);
const _: () = assert!(offset_of!(BackgroundWorker17, bgw_main_arg) == 1328);
const _: () = assert!(offset_of!(BackgroundWorker17, bgw_notify_pid) == 1464);

unsafe extern "C-unwind" {
    /// Registers a worker while `shared_preload_libraries` are loaded. The struct is the running major's:
    /// [`BackgroundWorker15`] or [`BackgroundWorker17`].
    pub fn RegisterBackgroundWorker(worker: *mut core::ffi::c_void);
    /// Lets signals in, once the worker's handlers are set.
    pub fn BackgroundWorkerUnblockSignals();
}
