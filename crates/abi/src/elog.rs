//! Error reporting (`utils/elog.h`).
//!
//! Any of these may leave by `longjmp` or end the process: `errfinish` runs `CHECK_FOR_INTERRUPTS` below
//! ERROR, jumps at ERROR and exits at FATAL.

use core::ffi::{c_char, c_int, c_void};
use core::mem::{offset_of, size_of};

/// Least important; shown only when asked for.
pub const DEBUG2: c_int = 13;
/// Shown only when asked for.
pub const DEBUG1: c_int = 14;
/// Goes to the server log only; for `log_min_messages` it ranks above ERROR.
pub const LOG: c_int = 15;
/// For the user, not a problem.
pub const NOTICE: c_int = 18;
/// Something the administrator should look at.
pub const WARNING: c_int = 19;
/// Ends the current operation by `longjmp`.
pub const ERROR: c_int = 21;
/// Ends the process. The next level differs between majors and is never used.
pub const FATAL: c_int = 22;

/// `ERRCODE_CONFIG_FILE_ERROR`, "F0000".
pub const ERRCODE_CONFIG_FILE_ERROR: c_int = sqlstate(*b"F0000");
/// `ERRCODE_IO_ERROR`, "58030".
pub const ERRCODE_IO_ERROR: c_int = sqlstate(*b"58030");
/// `ERRCODE_INTERNAL_ERROR`, "XX000".
pub const ERRCODE_INTERNAL_ERROR: c_int = sqlstate(*b"XX000");

/// `MAKE_SQLSTATE`: six bits for each of five characters.
#[must_use]
pub const fn sqlstate(code: [u8; 5]) -> c_int {
    let mut packed = 0;
    let mut i = 0;
    while i < 5 {
        packed |= (((code[i] - b'0') & 0x3F) as c_int) << (6 * i);
        i += 1;
    }
    packed
}

/// The part of `ErrorData` that is read: the same in all supported majors. The struct goes on behind it and
/// is only ever made and freed by the server.
#[repr(C)]
#[derive(Debug)]
pub struct ErrorData {
    /// Error level: `DEBUG5` to `PANIC`.
    pub elevel: c_int,
    /// Whether it goes to the log.
    pub output_to_server: bool,
    /// Whether it goes to the client.
    pub output_to_client: bool,
    /// Whether the statement is left out.
    pub hide_stmt: bool,
    /// Whether the context is left out.
    pub hide_ctx: bool,
    /// Source file of the report.
    pub filename: *const c_char,
    /// Line in [`Self::filename`].
    pub lineno: c_int,
    /// Function that reports.
    pub funcname: *const c_char,
    /// Domain that messages are translated in.
    pub domain: *const c_char,
    /// Message domain of the context.
    pub context_domain: *const c_char,
    /// SQLSTATE, six bits for each character (`MAKE_SQLSTATE`).
    pub sqlerrcode: c_int,
    /// Primary message; may be null.
    pub message: *mut c_char,
    /// Detail; may be null.
    pub detail: *mut c_char,
    /// Detail for the log only; may be null.
    pub detail_log: *mut c_char,
    /// Hint; may be null.
    pub hint: *mut c_char,
}

const _: () = assert!(size_of::<ErrorData>() == 88);
const _: () = assert!(offset_of!(ErrorData, filename) == 8);
const _: () = assert!(offset_of!(ErrorData, sqlerrcode) == 48);
const _: () = assert!(offset_of!(ErrorData, message) == 56);
const _: () = assert!(offset_of!(ErrorData, detail) == 64);
const _: () = assert!(offset_of!(ErrorData, hint) == 80);

unsafe extern "C-unwind" {
    /// Begins a report; false if it would not be shown anywhere.
    pub fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    /// Ends a report; may not return.
    pub fn errfinish(filename: *const c_char, lineno: c_int, funcname: *const c_char);
    /// Sets the SQLSTATE.
    pub fn errcode(sqlerrcode: c_int) -> c_int;
    /// Sets the primary message, untranslated.
    pub fn errmsg_internal(fmt: *const c_char, ...) -> c_int;
    /// Sets the detail, untranslated.
    pub fn errdetail_internal(fmt: *const c_char, ...) -> c_int;
    /// Sets the hint.
    pub fn errhint(fmt: *const c_char, ...) -> c_int;
    /// Copies the caught error into the current memory context, which must not be `ErrorContext`.
    pub fn CopyErrorData() -> *mut ErrorData;
    /// Forgets the caught error.
    pub fn FlushErrorState();
}

unsafe extern "C" {
    /// Where an ERROR jumps to (`sigjmp_buf *`); null in the archiver of 15 and 16, where ERROR is then FATAL.
    pub static mut PG_exception_stack: *mut c_void;
    /// Callbacks that add context to reports.
    pub static mut error_context_stack: *mut c_void;
}
