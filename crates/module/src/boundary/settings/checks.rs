//! Check hooks: a module's own say in whether a value is valid.
//!
//! A hook runs whenever a value is about to be set, and once for the default, in any process of the server
//! that has the library loaded, sessions included. A panic in it is a refusal. What it leaves to the
//! module: to look at the value alone, because other parameters may not have their values yet.

use crate::boundary::panics;
use crate::boundary::speech::Text;
use core::ffi::{CStr, c_char, c_int, c_void};
use std::cell::UnsafeCell;
use std::time::Duration;

/// Decides whether a value is valid: a `str`, an `i32`, a `Duration`, or bytes as `u64`.
pub trait Check<V: ?Sized = str> {
    /// The server's message when it refuses a text, for parameters that may be given a secret by mistake: the
    /// usual one repeats the value.
    const REFUSAL: Option<&'static CStr> = None;

    /// The reason why it is not, to be shown as the detail of the server's message. The default has to be
    /// valid, or the library cannot be loaded.
    ///
    /// # Errors
    /// The reason, as a whole sentence.
    fn check(value: &V) -> Result<(), String>;
}

/// Where the reason for a refused value waits for the server, which reads it right after the hook returned.
static REASON: Reason = Reason(UnsafeCell::new(Text::EMPTY));
struct Reason(UnsafeCell<Text<1024>>);
// SAFETY: check hooks run on the main thread only.
unsafe impl Sync for Reason {}

/// Runs a check; false, and the reason left for the server, when it refuses.
fn passes(check: impl FnOnce() -> Result<(), String>) -> bool {
    let reason = match panics::caught(check) {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(panic) => panic.message,
    };
    // SAFETY: on the main thread, see `Reason`.
    unsafe { *REASON.0.get() = Text::of(&reason) };
    // SAFETY: the buffer is static, and its pointer is read by the server before the next hook runs.
    unsafe { abi::guc::GUC_check_errdetail_string = REASON.0.get().cast() };
    false
}

/// The hook of a text.
pub(super) unsafe extern "C-unwind" fn text<C: Check>(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: c_int,
) -> bool {
    // SAFETY: the server passes the place of the new value (guc.c, call_string_check_hook).
    let value = unsafe { *new_value };
    let passed = passes(|| {
        if value.is_null() {
            return Ok(());
        }
        // SAFETY: NUL-terminated by the server.
        let value = unsafe { CStr::from_ptr(value) };
        C::check(&value.to_string_lossy())
    });
    if let (false, Some(refusal)) = (passed, C::REFUSAL) {
        // SAFETY: static, and only read by the server, before the next hook runs (guc.c, call_string_check_hook).
        unsafe { abi::guc::GUC_check_errmsg_string = refusal.as_ptr().cast_mut() };
    }
    passed
}

/// The hook of a plain number.
pub(super) unsafe extern "C-unwind" fn number<C: Check<i32>>(
    new_value: *mut c_int,
    _extra: *mut *mut c_void,
    _source: c_int,
) -> bool {
    // SAFETY: the server passes the place of the new value (guc.c, call_int_check_hook).
    let value = unsafe { *new_value };
    passes(|| C::check(&value))
}

/// The hook of a duration whose unit has `MS` milliseconds.
pub(super) unsafe extern "C-unwind" fn duration<C: Check<Duration>, const MS: u64>(
    new_value: *mut c_int,
    _extra: *mut *mut c_void,
    _source: c_int,
) -> bool {
    // SAFETY: the server passes the place of the new value (guc.c, call_int_check_hook).
    let value = unsafe { *new_value };
    passes(|| C::check(&Duration::from_millis(super::number::times(value, MS))))
}

/// The hook of a size whose unit has `BYTES` bytes.
pub(super) unsafe extern "C-unwind" fn size<C: Check<u64>, const BYTES: u64>(
    new_value: *mut c_int,
    _extra: *mut *mut c_void,
    _source: c_int,
) -> bool {
    // SAFETY: the server passes the place of the new value (guc.c, call_int_check_hook).
    let value = unsafe { *new_value };
    passes(|| C::check(&super::number::times(value, BYTES)))
}
