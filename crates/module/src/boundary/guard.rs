//! Calls into the server that may raise ERROR, made so that the ERROR becomes a value.
//!
//! `guard.c` sets the place the server jumps to. Between it and the server function there is only the
//! caller's closure, which can own nothing: it is `Copy`, and so is what it returns. Frames further out may
//! own what they like, for nothing jumps past the guard. (A server call may also end the process; then no
//! Rust frame is ever returned to.)

use super::process::Process;
use super::speech::Speech;
use abi::process::{ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE, ALLOCSET_DEFAULT_MINSIZE};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C-unwind" {
    fn walden_guard(body: unsafe extern "C-unwind" fn(*mut c_void), arg: *mut c_void) -> bool;
}

/// What a server function had to say when it raised ERROR.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// The server's primary message, as it would be logged.
    pub message: String,
    /// Detail, where there was one.
    pub detail: Option<String>,
    /// Hint, where there was one.
    pub hint: Option<String>,
}

impl From<ServerError> for crate::Failure {
    fn from(error: ServerError) -> Self {
        Self {
            message: error.message,
            detail: error.detail,
            hint: error.hint,
        }
    }
}

struct Frame<F, T> {
    body: F,
    answer: MaybeUninit<T>,
}

/// Runs `body`, whose server calls may raise ERROR.
///
/// After an ERROR the process is put in order as the server's own loops do it (locks released, files closed;
/// compare `pgarch_archiveXlog` of 17 and `basic_archive_file` of 15), unless the process is in another
/// transaction. The error is not logged.
///
/// # Errors
/// What the server function raised.
pub fn guard<T: Copy, F: FnOnce() -> T + Copy>(
    process: Process,
    body: F,
) -> Result<T, ServerError> {
    let stack = ExceptionStack::save();
    let mut frame = Frame {
        body,
        answer: MaybeUninit::uninit(),
    };
    // SAFETY: `run::<F, T>` gets the frame it expects, which outlives the call.
    let finished = unsafe { walden_guard(run::<F, T>, (&raw mut frame).cast()) };
    if finished {
        drop(stack);
        // SAFETY: `run` wrote the answer before the guard said that it finished.
        return Ok(unsafe { frame.answer.assume_init() });
    }
    stack.back_to_callers_memory();
    drop(stack);
    Err(take_error(process))
}

unsafe extern "C-unwind" fn run<F: FnOnce() -> T + Copy, T: Copy>(arg: *mut c_void) {
    let frame = arg.cast::<Frame<F, T>>();
    // SAFETY: `guard` passes its own frame; it is not seen elsewhere meanwhile.
    let body = unsafe { (*frame).body };
    let answer = body();
    // SAFETY: as above.
    unsafe { (*frame).answer = MaybeUninit::new(answer) };
}

/// Copies the caught error out, forgets it in the server, and puts the process in order.
fn take_error(process: Process) -> ServerError {
    let mut speech = Speech::silence();
    let into: *mut Speech = &raw mut speech;
    let stack = ExceptionStack::save();
    // A second ERROR (out of memory while copying the first) ends here too, with the texts taken so far.
    // SAFETY: `copy_error` gets the speech it expects, which outlives the call.
    let copied = unsafe { walden_guard(copy_error, into.cast()) };
    stack.back_to_callers_memory();
    drop(stack);
    if !copied {
        // SAFETY: forgets the pending error; frees nothing of ours (elog.c, FlushErrorState).
        unsafe { abi::elog::FlushErrorState() };
    }
    if process.owns_its_resources() {
        put_in_order();
    }
    speech.into_error()
}

unsafe extern "C-unwind" fn copy_error(arg: *mut c_void) {
    // SAFETY: `take_error` passes its own speech.
    let speech = unsafe { &mut *arg.cast::<Speech>() };
    // SAFETY: under the guard of `take_error`, on the main thread.
    let context = unsafe { error_copies() };
    // SAFETY: a plain variable of the server; the context is alive. `take_error` puts the caller's back.
    unsafe { abi::process::CurrentMemoryContext = context };
    // SAFETY: an error is pending and the current context is ours, not ErrorContext.
    let data = unsafe { abi::elog::CopyErrorData() };
    // SAFETY: the copy is ours; its strings are NUL-terminated or null (elog.c, CopyErrorData).
    unsafe { speech.take_from(data) };
    // SAFETY: the pending error has been copied.
    unsafe { abi::elog::FlushErrorState() };
    // SAFETY: nothing of the copy is used any more.
    unsafe { abi::process::MemoryContextReset(context) };
}

/// Where errors are copied to: a memory context of our own, reset after each. `FreeErrorData` leaves behind some of
/// the strings that `CopyErrorData` makes (elog.c: file, function and domain; 15.20, 16.14, 17.10), and the archiver
/// calls most callbacks in a context that it never resets.
///
/// # Safety
/// On the server's main thread, where an ERROR may be raised.
unsafe fn error_copies() -> abi::process::MemoryContext {
    static CONTEXT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
    let made = CONTEXT.load(Ordering::Relaxed);
    if !made.is_null() {
        return made.cast();
    }
    // SAFETY: a plain variable of the server, written once at its start.
    let top = unsafe { abi::process::TopMemoryContext };
    // SAFETY: the parent lives as long as the process, the name is static.
    let made = unsafe {
        abi::process::AllocSetContextCreateInternal(
            top,
            c"walden errors".as_ptr(),
            ALLOCSET_DEFAULT_MINSIZE,
            ALLOCSET_DEFAULT_INITSIZE,
            ALLOCSET_DEFAULT_MAXSIZE,
        )
    };
    CONTEXT.store(made.cast(), Ordering::Relaxed);
    made
}

/// What the server's own loops do after an ERROR outside any transaction.
fn put_in_order() {
    unsafe extern "C-unwind" fn body(_: *mut c_void) {
        // SAFETY: each is the server's own clean-up for processes without a transaction, called on its main
        // thread (pgarch.c, 17).
        unsafe { abi::process::disable_all_timeouts(false) };
        // SAFETY: as above.
        unsafe { abi::process::LWLockReleaseAll() };
        // SAFETY: as above.
        unsafe { abi::process::ConditionVariableCancelSleep() };
        // A wait that the ERROR ended must not be shown as still going on (pgstat_report_wait_end).
        // SAFETY: the server's pointer to its own word in shared memory or, before that, in the process.
        let wait_event = unsafe { abi::process::my_wait_event_info };
        // SAFETY: as above; never null (wait_event.c).
        unsafe { wait_event.write_volatile(0) };
        // SAFETY: as above; the archiver and the recovery worker have such an owner.
        unsafe { abi::process::ReleaseAuxProcessResources(false) };
        // SAFETY: as above.
        unsafe { abi::process::AtEOXact_Files(false) };
        // SAFETY: as above.
        unsafe { abi::process::AtEOXact_HashTables(false) };
    }
    let _stack = ExceptionStack::save();
    // A failure to clean up is not reported: the error that led here is, and the next one will be met again.
    // SAFETY: `body` ignores its argument.
    let _ = unsafe { walden_guard(body, core::ptr::null_mut()) };
}

/// Puts the server's idea of where to jump back when dropped, also when a panic passes by, so that no later
/// ERROR jumps into a frame that is gone.
struct ExceptionStack {
    exception: *mut c_void,
    context: *mut c_void,
    memory: abi::process::MemoryContext,
}

impl ExceptionStack {
    fn save() -> Self {
        // SAFETY: plain variables of the server, touched on its main thread only.
        let exception = unsafe { abi::elog::PG_exception_stack };
        // SAFETY: as above.
        let context = unsafe { abi::elog::error_context_stack };
        // SAFETY: as above.
        let memory = unsafe { abi::process::CurrentMemoryContext };
        Self {
            exception,
            context,
            memory,
        }
    }

    /// After an ERROR the current context is ErrorContext, where nothing may stay.
    fn back_to_callers_memory(&self) {
        // SAFETY: the context that was current when the guard was entered; contexts of a caller outlive it.
        unsafe { abi::process::CurrentMemoryContext = self.memory };
    }
}

impl Drop for ExceptionStack {
    fn drop(&mut self) {
        // SAFETY: the values found on entry; their frames are still there.
        unsafe { abi::elog::PG_exception_stack = self.exception };
        // SAFETY: as above.
        unsafe { abi::elog::error_context_stack = self.context };
    }
}
