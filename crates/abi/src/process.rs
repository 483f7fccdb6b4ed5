//! The process a module finds itself in: interrupts, memory, clean-up after an ERROR, what the server knows.

use crate::{Datum, Major};
use core::ffi::{c_char, c_int, c_void};

/// The server's `MemoryContextData`: only pointers to it are passed on.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryContextData {
    _private: [u8; 0],
}
/// `MemoryContext`.
pub type MemoryContext = *mut MemoryContextData;

/// `Oid`.
pub type Oid = u32;

/// `pg_on_exit_callback`: the exit status, and what was given with the function (`storage/ipc.h`).
pub type ExitCallback = unsafe extern "C-unwind" fn(c_int, Datum);

/// `ALLOCSET_DEFAULT_MINSIZE`, bytes.
pub const ALLOCSET_DEFAULT_MINSIZE: usize = 0;
/// `ALLOCSET_DEFAULT_INITSIZE`, bytes.
pub const ALLOCSET_DEFAULT_INITSIZE: usize = 8 * 1024;
/// `ALLOCSET_DEFAULT_MAXSIZE`, bytes.
pub const ALLOCSET_DEFAULT_MAXSIZE: usize = 8 * 1024 * 1024;
/// `MOCK_AUTH_NONCE_LEN`, bytes (`catalog/pg_control.h`).
pub const MOCK_AUTH_NONCE_LEN: usize = 32;
/// `MAXPGPATH`, bytes: the size of `my_exec_path`.
pub const MAXPGPATH: usize = 1024;

/// `pg_signal_info` (19): who has sent a signal; zeros if that is not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalInfo {
    /// Process id of the sender.
    pub pid: u32,
    /// User id of the sender.
    pub uid: u32,
}
const _: () = assert!(size_of::<SignalInfo>() == 8 && core::mem::offset_of!(SignalInfo, uid) == 4);

/// A signal handler of the server, as a name for it only: what arguments it takes depends on the major.
pub type SignalHandler = unsafe extern "C-unwind" fn();
/// `SIGNAL_ARGS` up to 18.
type SignalHandler15 = unsafe extern "C-unwind" fn(c_int);
/// `SIGNAL_ARGS` from 19 on.
type SignalHandler19 = unsafe extern "C-unwind" fn(c_int, *const SignalInfo);

/// Calls one of the server's signal handlers as this major declares it; 19 is told that the sender is not known.
///
/// # Safety
/// From a signal handler on the main thread of a server of this major.
pub unsafe fn handle_signal(handler: SignalHandler, major: Major, signal: c_int) {
    if major < Major(19) {
        // SAFETY: `SIGNAL_ARGS` of 15 to 18, compared with their headers; pointers to functions have one size.
        let handler: SignalHandler15 = unsafe { core::mem::transmute(handler) };
        // SAFETY: promised by the caller.
        unsafe { handler(signal) };
    } else {
        let info = SignalInfo::default();
        // SAFETY: `SIGNAL_ARGS` of 19, compared with its headers; pointers to functions have one size.
        let handler: SignalHandler19 = unsafe { core::mem::transmute(handler) };
        // SAFETY: promised by the caller; the handler reads the information before it returns (c.h, `pg_signal_info`).
        unsafe { handler(signal, &raw const info) };
    }
}

unsafe extern "C-unwind" {
    /// What `CHECK_FOR_INTERRUPTS` runs when [`InterruptPending`] is set.
    pub fn ProcessInterrupts();
    /// Ends the process in an orderly way.
    pub fn proc_exit(code: c_int) -> !;
    /// Has a function called while the process ends in an orderly way; the last one named is called first.
    pub fn before_shmem_exit(function: ExitCallback, arg: Datum);
    /// Loads a library by the server's search and finds a function in it.
    pub fn load_external_function(
        filename: *const c_char,
        funcname: *const c_char,
        signal_not_found: bool,
        filehandle: *mut *mut c_void,
    ) -> *mut c_void;

    /// Makes a memory context.
    pub fn AllocSetContextCreateInternal(
        parent: MemoryContext,
        name: *const c_char,
        min_context_size: usize,
        init_block_size: usize,
        max_block_size: usize,
    ) -> MemoryContext;
    /// Frees all that was allocated in a context.
    pub fn MemoryContextReset(context: MemoryContext);

    /// Releases all lightweight locks.
    pub fn LWLockReleaseAll();
    /// Ends a wait on a condition variable.
    pub fn ConditionVariableCancelSleep();
    /// Cancels all timeouts.
    pub fn disable_all_timeouts(keep_indicators: bool);
    /// Releases what the auxiliary process's resource owner holds.
    pub fn ReleaseAuxProcessResources(is_commit: bool);
    /// Gives the process a resource owner outside any transaction.
    pub fn CreateAuxProcessResourceOwner();
    /// Closes files opened through the server's transient file calls.
    pub fn AtEOXact_Files(is_commit: bool);
    /// Ends hash table scans.
    pub fn AtEOXact_HashTables(is_commit: bool);

    /// Begins a transaction, where there is none.
    pub fn StartTransactionCommand();
    /// Ends it. In 15 and 16 the current memory context is another one afterwards.
    pub fn CommitTransactionCommand();
    /// Ends it after an ERROR.
    pub fn AbortCurrentTransaction();
    /// The role that the session runs as.
    pub fn GetUserId() -> Oid;
    /// A role's id; raises ERROR for one that is not there, or answers 0. In a transaction.
    pub fn get_role_oid(rolname: *const c_char, missing_ok: bool) -> Oid;
    /// Whether the first role has the privileges of the second; a superuser has all. In a transaction.
    pub fn has_privs_of_role(member: Oid, role: Oid) -> bool;

    /// The system identifier in the control file.
    pub fn GetSystemIdentifier() -> u64;
    /// [`MOCK_AUTH_NONCE_LEN`] random bytes in the control file, made by initdb: the cluster's own, and secret.
    pub fn GetMockAuthenticationNonce() -> *mut c_char;
    /// Whether the server is still in recovery; asks shared memory.
    pub fn RecoveryInProgress() -> bool;
    /// The end of the last replayed record.
    pub fn GetXLogReplayRecPtr(replay_tli: *mut u32) -> u64;

    /// Signal handler: remember that a reload was asked for. Its arguments differ: see [`handle_signal`].
    pub fn SignalHandlerForConfigReload();
    /// Signal handler: remember that the process should end, as a regular interrupt. Its arguments differ, too.
    pub fn die();
}

unsafe extern "C" {
    /// Something waits for `CHECK_FOR_INTERRUPTS`.
    pub static InterruptPending: c_int;
    /// SIGTERM came, in processes whose handler is `SignalHandlerForShutdownRequest`: the archiver.
    pub static ShutdownRequestPending: c_int;
    /// Nonzero after SIGHUP, until the configuration has been read again.
    pub static mut ConfigReloadPending: c_int;
    /// SIGTERM came, in processes whose handler is `die`: the recovery worker.
    pub static ProcDiePending: c_int;
    /// Where `palloc` allocates.
    pub static mut CurrentMemoryContext: MemoryContext;
    /// The current one while an ERROR is on its way to where it is handled (elog.c, `errfinish`, 15 to 19).
    pub static ErrorContext: MemoryContext;
    /// Memory of the process's lifetime.
    pub static TopMemoryContext: MemoryContext;
    /// True in a postmaster and its children, false in single-user mode.
    pub static IsPostmasterEnvironment: bool;
    /// True while `shared_preload_libraries` are being loaded.
    pub static process_shared_preload_libraries_in_progress: bool;
    /// The server program's own path, NUL-terminated.
    pub static my_exec_path: [c_char; MAXPGPATH];
    /// What the process waits for, as `pg_stat_activity` shows it; 0 for nothing.
    pub static mut my_wait_event_info: *mut u32;
    /// Segment size in bytes.
    pub static wal_segment_size: c_int;
}
