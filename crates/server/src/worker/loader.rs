//! Loads recovery modules by the server's own search and calls them: the host's side of the C interface.
//!
//! Guarantees: an ERROR raised by a module comes back as a value; each call has a memory context of its own
//! that is reset afterwards; a library is asked only for callbacks it has.  This is the third and last place
//! of `unsafe` in the project (STYLE U1): the callbacks belong to somebody else's library.

#![allow(unsafe_code)]

use abi::process::{
    ALLOCSET_DEFAULT_INITSIZE, ALLOCSET_DEFAULT_MAXSIZE, ALLOCSET_DEFAULT_MINSIZE, MemoryContext,
};
use abi::recovery_module::{RecoveryModuleCallbacks, RecoveryModuleInit, RecoveryModuleState};
use module::guard;
use module::{Failure, Process, ServerError};
use std::ffi::{CStr, CString};
use std::ptr;

/// The symbol every recovery module has.
const INIT: &CStr = c"_PG_recovery_module_init";

/// A loaded recovery module.
pub(crate) struct Library {
    name: String,
    callbacks: RecoveryModuleCallbacks,
    /// Leaked: libraries are never unloaded, and the state must outlive every callback.
    state: *mut RecoveryModuleState,
    context: MemoryContext,
}

impl Library {
    /// Loads the library, initialises it and calls its startup callback.
    pub(crate) fn load(process: Process, name: &str) -> Result<Self, Failure> {
        let c_name = CString::new(name)
            .map_err(|_| Failure::new(format!("library name {name:?} contains a NUL byte")))?;
        let callbacks = callbacks(process, &c_name)?;
        let context = guard(process, || {
            // SAFETY: the parent lives as long as the process, the name is static.
            unsafe {
                abi::process::AllocSetContextCreateInternal(
                    abi::process::TopMemoryContext,
                    c"walden recovery module".as_ptr(),
                    ALLOCSET_DEFAULT_MINSIZE,
                    ALLOCSET_DEFAULT_INITSIZE,
                    ALLOCSET_DEFAULT_MAXSIZE,
                )
            }
        })?;
        let state = Box::into_raw(Box::new(RecoveryModuleState {
            private_data: ptr::null_mut(),
        }));
        let library = Self {
            name: name.to_owned(),
            callbacks,
            state,
            context,
        };
        if let Some(startup) = callbacks.startup_cb {
            // What a module keeps for good it allocates at startup, in memory of the process's lifetime.
            // SAFETY: a plain variable of the server, written once at its start.
            let lasting = unsafe { abi::process::TopMemoryContext };
            // SAFETY: the module's own callback with the state made for it.
            library.call_in(process, lasting, move || unsafe { startup(state) })?;
        }
        Ok(library)
    }

    /// The name it was loaded by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for a file; true when the module says it is there, false when it is not in the archive.
    pub(crate) fn restore(
        &self,
        process: Process,
        file: &CStr,
        path: &CStr,
        last: &CStr,
    ) -> Result<bool, Failure> {
        let callback = self
            .callbacks
            .restore_cb
            .ok_or_else(|| self.lacks("restore"))?;
        let state = self.state;
        // SAFETY: the module's own callback with its state; the strings outlive the call.
        let restored = self.call(process, move || unsafe {
            callback(state, file.as_ptr(), path.as_ptr(), last.as_ptr())
        })?;
        Ok(restored)
    }

    /// Tells that files before `last` may go.
    pub(crate) fn archive_cleanup(&self, process: Process, last: &CStr) -> Result<(), Failure> {
        let callback = self
            .callbacks
            .archive_cleanup_cb
            .ok_or_else(|| self.lacks("archive cleanup"))?;
        let state = self.state;
        // SAFETY: as in `restore`.
        self.call(process, move || unsafe { callback(state, last.as_ptr()) })?;
        Ok(())
    }

    /// Tells that recovery has ended.
    pub(crate) fn recovery_end(&self, process: Process, last: &CStr) -> Result<(), Failure> {
        let callback = self
            .callbacks
            .recovery_end_cb
            .ok_or_else(|| self.lacks("recovery end"))?;
        let state = self.state;
        // SAFETY: as in `restore`.
        self.call(process, move || unsafe { callback(state, last.as_ptr()) })?;
        Ok(())
    }

    /// Tells that the worker is leaving.
    pub(crate) fn shutdown(&self, process: Process) -> Result<(), Failure> {
        if let Some(shutdown) = self.callbacks.shutdown_cb {
            let state = self.state;
            // SAFETY: as in `restore`; nothing calls the module afterwards.
            self.call(process, move || unsafe { shutdown(state) })?;
        }
        Ok(())
    }

    fn lacks(&self, callback: &str) -> Failure {
        Failure::new(format!(
            "recovery module \"{}\" has no {callback} callback",
            self.name
        ))
    }

    fn call<T: Copy, F: FnOnce() -> T + Copy>(
        &self,
        process: Process,
        callback: F,
    ) -> Result<T, ServerError> {
        self.call_in(process, self.context, callback)
    }

    /// Runs a callback in a memory context, and frees what it left in the library's own.
    fn call_in<T: Copy, F: FnOnce() -> T + Copy>(
        &self,
        process: Process,
        context: MemoryContext,
        callback: F,
    ) -> Result<T, ServerError> {
        let answer = guard(process, move || {
            // SAFETY: a plain variable of the server, on its main thread.
            let before = unsafe { abi::process::CurrentMemoryContext };
            // SAFETY: as above; the context is alive.
            unsafe { abi::process::CurrentMemoryContext = context };
            let answer = callback();
            // SAFETY: as above.  After an ERROR the guard does the same.
            unsafe { abi::process::CurrentMemoryContext = before };
            answer
        });
        let own = self.context;
        // SAFETY: made by `load`, not current any more; startup's allocations are elsewhere.
        let _ = guard(process, move || unsafe {
            abi::process::MemoryContextReset(own)
        });
        answer
    }
}

/// Opens the library and asks it for its callbacks.
fn callbacks(process: Process, name: &CStr) -> Result<RecoveryModuleCallbacks, Failure> {
    // SAFETY: NUL-terminated strings; the library stays loaded for good (dfmgr.c).
    let init = guard(process, move || unsafe {
        abi::process::load_external_function(name.as_ptr(), INIT.as_ptr(), false, ptr::null_mut())
    })?;
    if init.is_null() {
        return Err(Failure::new(format!(
            "recovery modules have to define the symbol {}",
            INIT.to_string_lossy()
        )));
    }
    // SAFETY: the symbol of that name has this type, by the interface (recovery_module.h).
    let init = unsafe { core::mem::transmute::<*mut core::ffi::c_void, RecoveryModuleInit>(init) };
    // SAFETY: the module's own function.
    let callbacks = guard(process, move || unsafe { init() })?;
    // SAFETY: null, or a struct of the process's lifetime, by the interface.
    unsafe { callbacks.as_ref() }
        .copied()
        .ok_or_else(|| Failure::new(format!("recovery module {name:?} returned no callbacks")))
}
