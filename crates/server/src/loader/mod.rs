//! The hosts' side of the C interfaces: another library is opened by the server's own search, and its
//! callbacks are called. [`archive`] is for archive modules, [`recovery`] for recovery modules; here is what
//! both need.
//!
//! Guarantees: an ERROR raised by a library comes back as a value; memory that a call leaves behind is freed
//! after it; what a library allocates while it begins lives as long as the process; its shutdown runs once on any
//! orderly exit. This folder is the third and last place of `unsafe` in the project (STYLE U1): the callbacks belong
//! to other libraries. Leaves to the hosts: when a library is called, and what its answers mean.

#![allow(unsafe_code)]

pub(crate) mod archive;
pub(crate) mod recovery;

use abi::process::{
    ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE, ALLOCSET_DEFAULT_MINSIZE, ExitCallback,
    MemoryContext,
};
use core::ffi::{CStr, c_void};
use module::{Failure, Process, ServerError, guard};
use std::cell::RefCell;
use std::ffi::CString;
use std::ptr;

/// Opens a library and finds its init function; fails in the server's words when there is no such library, it
/// is not for this server, or it has no such function. What `_PG_init` allocates lives as long as the process.
fn find(
    process: Process,
    library: &str,
    symbol: &'static CStr,
    kind: &str,
) -> Result<Found, Failure> {
    let library = c_text(library)?;
    if let Some(found) = found_before(&library, symbol) {
        return Ok(found);
    }
    let name = library;
    let library = name.as_c_str();
    // SAFETY: NUL-terminated strings; the library stays loaded for good (dfmgr.c).
    let found = call_for_good(process, move || unsafe {
        abi::process::load_external_function(
            library.as_ptr(),
            symbol.as_ptr(),
            false,
            ptr::null_mut(),
        )
    })?;
    if found.is_null() {
        let symbol = symbol.to_string_lossy();
        let what = format!("{kind} modules have to define the symbol {symbol}");
        return Err(Failure::new(what));
    }
    let found = Found {
        init: found,
        state: Box::into_raw(Box::new(ptr::null_mut())),
    };
    FOUND.with(|all| all.borrow_mut().push((name, symbol, found)));
    Ok(found)
}

/// An init function, and the state for the module's callbacks.
#[derive(Clone, Copy)]
struct Found {
    init: *mut c_void,
    /// Room for a state of either kind, whose one field is `private_data`. Leaked: a module may remember it, also
    /// one whose startup raised ERROR, so the next attempt gets the same.
    state: *mut *mut c_void,
}

impl Found {
    /// The state, as for a module that was never started.
    fn fresh_state<S>(self) -> *mut S {
        const { assert!(size_of::<S>() == size_of::<*mut c_void>()) };
        // SAFETY: never freed, and used by the module's callbacks alone, none of which is running.
        unsafe { *self.state = ptr::null_mut() };
        self.state.cast()
    }
}

thread_local! {
    /// What was found, by library and symbol: libraries are never unloaded, and a module that cannot start is tried
    /// again with each request, while each search leaves some memory of the server's behind for good.
    static FOUND: RefCell<Vec<(CString, &'static CStr, Found)>> =
        const { RefCell::new(Vec::new()) };
}

fn found_before(library: &CStr, symbol: &CStr) -> Option<Found> {
    FOUND.with(|all| {
        let all = all.borrow();
        let mut all = all.iter();
        all.find(|(name, of, _)| name.as_c_str() == library && *of == symbol)
            .map(|(_, _, found)| *found)
    })
}

/// Has `end` called with the library while the process ends, also over a FATAL from within a callback; the last
/// library first. No ERROR comes back from there: it would be FATAL, after which the server goes on with the next
/// library (elog.c, `errstart`; ipc.c, `shmem_exit`; 15 to 18).
fn end_with_process<L>(
    process: Process,
    library: &'static L,
    end: ExitCallback,
) -> Result<(), ServerError> {
    let argument = ptr::from_ref(library).expose_provenance();
    // SAFETY: the argument is what `end` expects, and lives as long as the process.
    guard(process, move || unsafe {
        abi::process::before_shmem_exit(end, argument);
    })
}

/// A text for a library.
pub(crate) fn c_text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(format!("{text:?} contains a NUL byte")))
}

/// Calls into a library, in memory of the process's lifetime.
fn call_for_good<T: Copy, F: FnOnce() -> T + Copy>(
    process: Process,
    call: F,
) -> Result<T, ServerError> {
    // SAFETY: a plain variable of the server, written once at its start.
    let lasting = unsafe { abi::process::TopMemoryContext };
    call_in(process, lasting, call)
}

fn call_in<T: Copy, F: FnOnce() -> T + Copy>(
    process: Process,
    context: MemoryContext,
    call: F,
) -> Result<T, ServerError> {
    guard(process, move || {
        // SAFETY: a plain variable of the server, on its main thread.
        let before = unsafe { abi::process::CurrentMemoryContext };
        // SAFETY: as above; the context is alive.
        unsafe { abi::process::CurrentMemoryContext = context };
        let answer = call();
        // SAFETY: as above. After an ERROR the guard does the same.
        unsafe { abi::process::CurrentMemoryContext = before };
        answer
    })
}

/// Memory for the calls of one library, freed after each.
#[derive(Clone, Copy)]
struct Memory(MemoryContext);

impl Memory {
    fn new(process: Process, name: &'static CStr) -> Result<Self, ServerError> {
        let made = guard(process, move || {
            // SAFETY: the parent lives as long as the process, the name is static.
            unsafe {
                abi::process::AllocSetContextCreateInternal(
                    abi::process::TopMemoryContext,
                    name.as_ptr(),
                    ALLOCSET_DEFAULT_MINSIZE,
                    ALLOCSET_DEFAULT_INITSIZE,
                    ALLOCSET_DEFAULT_MAXSIZE,
                )
            }
        })?;
        Ok(Self(made))
    }

    /// Calls into the library, and frees what the call left here.
    fn call<T: Copy, F: FnOnce() -> T + Copy>(
        self,
        process: Process,
        call: F,
    ) -> Result<T, ServerError> {
        let answer = call_in(process, self.0, call);
        // SAFETY: made by `new`, and no longer current.
        let _ = guard(process, move || unsafe {
            abi::process::MemoryContextReset(self.0)
        });
        answer
    }
}
