//! A hosted archive module, in the running server's dialect (pgarch.c, `LoadArchiveLibrary`, 15 to 18): in 15
//! it fills a zeroed struct and its callbacks carry no state; from 16 on it returns a pointer, and each callback
//! gets a state of its own.
//!
//! Guarantees: init and startup run once, in memory of the process's lifetime; shutdown runs once on any
//! orderly exit of the archiver, the end of a callback by FATAL included, in the reverse order of startup; an
//! ERROR of any other callback is a value. A library stays for the life of the process and is found again by
//! its name, so that a host that starts afresh does not start it twice.

use super::{Memory, call_for_good, end_with_process, find};
use abi::archive_module::{
    ArchiveModuleCallbacks15, ArchiveModuleCallbacks16, ArchiveModuleInit15, ArchiveModuleInit16,
    ArchiveModuleState,
};
use abi::{Datum, Major};
use core::ffi::{CStr, c_int, c_void};
use module::{Failure, Process};
use std::cell::RefCell;
use std::ptr;

/// The symbol every archive module has.
const INIT: &CStr = c"_PG_archive_module_init";

/// A module's callbacks in its dialect.
#[derive(Clone, Copy)]
enum Callbacks {
    Of15(ArchiveModuleCallbacks15),
    Of16(ArchiveModuleCallbacks16),
}

/// A loaded archive module.
pub(crate) struct Library {
    name: String,
    /// Tells two names of one file.
    init: *mut c_void,
    callbacks: Callbacks,
    state: *mut ArchiveModuleState,
    memory: Memory,
}

thread_local! {
    /// Those of this process, which calls modules on its main thread only.
    static LOADED: RefCell<Vec<&'static Library>> = const { RefCell::new(Vec::new()) };
}

impl Library {
    /// The library of this name: loaded, initialised and started now, unless it has been before.
    ///
    /// Fails when it cannot be loaded, is no archive module, is in use under another name, or raises ERROR. Then
    /// its shutdown will not be called, as in the server.
    pub(crate) fn load(process: Process, name: &str) -> Result<&'static Self, Failure> {
        if let Some(known) = loaded(|library| library.name == name) {
            return Ok(known);
        }
        let found = find(process, name, INIT, "archive")?;
        let init = found.init;
        if let Some(twin) = loaded(|library| library.init == init) {
            return Err(Failure::new(format!(
                "it is the same file as library \"{}\"",
                twin.name
            )));
        }
        let callbacks = Callbacks::of(process, init)?;
        if !callbacks.archive_files() {
            return Err(Failure::new(
                "archive modules must register an archive callback",
            ));
        }
        let state = found.fresh_state();
        if let Callbacks::Of16(ArchiveModuleCallbacks16 {
            startup_cb: Some(startup),
            ..
        }) = callbacks
        {
            // SAFETY: the module's own callback with the state made for it.
            call_for_good(process, move || unsafe { startup(state) })?;
        }
        let memory = Memory::new(process, c"walden archive module")?;
        // Leaked: libraries are never unloaded, and shutdown runs while the process ends.
        let library: &'static Self = Box::leak(Box::new(Self {
            name: name.to_owned(),
            init,
            callbacks,
            state,
            memory,
        }));
        end_with_process(process, library, shut_down)?;
        LOADED.with(|all| all.borrow_mut().push(library));
        Ok(library)
    }

    /// Whether it is configured; a module without this callback always is. Runs in memory of the process's
    /// lifetime, as in the server.
    ///
    /// Fails with the reason, where the server has a place for one (17 and later) or the callback raised ERROR.
    pub(crate) fn check_configured(&self, process: Process) -> Result<(), Failure> {
        let place = abi::versioned::arch_module_check_errdetail_string();
        if let Some(place) = place {
            // SAFETY: the server's variable, cleared before each check as by the server (pgarch.c, 17).
            unsafe { *place = ptr::null_mut() };
        }
        let (callbacks, state) = (self.callbacks, self.state);
        let configured = call_for_good(process, move || match callbacks {
            // SAFETY: the module's own callback.
            Callbacks::Of15(of) => of
                .check_configured_cb
                .is_none_or(|check| unsafe { check() }),
            Callbacks::Of16(of) => of
                .check_configured_cb
                // SAFETY: the module's own callback with its state.
                .is_none_or(|check| unsafe { check(state) }),
        })?;
        if configured {
            return Ok(());
        }
        // SAFETY: the server's variable, on its main thread.
        let reason = place.map_or(ptr::null_mut(), |place| unsafe { *place });
        if reason.is_null() {
            return Err(Failure::new("the module gives no reason"));
        }
        // SAFETY: NUL-terminated, and nothing has freed it since the callback set it.
        let reason = unsafe { CStr::from_ptr(reason) };
        Err(Failure::new(reason.to_string_lossy()))
    }

    /// One attempt at one file, in memory that is freed afterwards, in every major: 15 and 16 leave it in memory of the
    /// process's lifetime, and a module that is fit for 17 does not notice the difference.
    ///
    /// Fails with what the callback raised.
    pub(crate) fn archive_file(
        &self,
        process: Process,
        file: &CStr,
        path: &CStr,
    ) -> Result<bool, Failure> {
        let (callbacks, state) = (self.callbacks, self.state);
        let archived = self.memory.call(process, move || match callbacks {
            Callbacks::Of15(of) => of
                .archive_file_cb
                // SAFETY: the module's own callback; the strings outlive the call.
                .is_some_and(|archive| unsafe { archive(file.as_ptr(), path.as_ptr()) }),
            Callbacks::Of16(of) => of
                .archive_file_cb
                // SAFETY: as above, with the module's state.
                .is_some_and(|archive| unsafe { archive(state, file.as_ptr(), path.as_ptr()) }),
        })?;
        Ok(archived)
    }
}

impl Callbacks {
    /// Asks the library for them.
    fn of(process: Process, init: *mut c_void) -> Result<Self, Failure> {
        let version = process.required_parameter(c"server_version_num")?;
        let version = version
            .parse()
            .map_err(|_| Failure::new(format!("{version:?} is not a version")))?;
        if Major::of_version_num(version) == Major(15) {
            let mut callbacks = ArchiveModuleCallbacks15 {
                check_configured_cb: None,
                archive_file_cb: None,
                shutdown_cb: None,
            };
            let to_fill = &raw mut callbacks;
            // SAFETY: the symbol of that name has this type in 15 (postmaster/pgarch.h).
            let init = unsafe { core::mem::transmute::<*mut c_void, ArchiveModuleInit15>(init) };
            // SAFETY: the module's own function, with a zeroed struct that outlives the call.
            call_for_good(process, move || unsafe { init(to_fill) })?;
            return Ok(Self::Of15(callbacks));
        }
        // SAFETY: the symbol of that name has this type from 16 on (archive/archive_module.h).
        let init = unsafe { core::mem::transmute::<*mut c_void, ArchiveModuleInit16>(init) };
        // SAFETY: the module's own function.
        let callbacks = call_for_good(process, move || unsafe { init() })?;
        // SAFETY: null, or a struct of the server's lifetime, by the interface.
        unsafe { callbacks.as_ref() }
            .copied()
            .map(Self::Of16)
            .ok_or_else(|| {
                Failure::new(format!("{} returned no callbacks", INIT.to_string_lossy()))
            })
    }

    fn archive_files(&self) -> bool {
        match self {
            Self::Of15(of) => of.archive_file_cb.is_some(),
            Self::Of16(of) => of.archive_file_cb.is_some(),
        }
    }
}

fn loaded(is_wanted: impl Fn(&Library) -> bool) -> Option<&'static Library> {
    LOADED.with(|all| all.borrow().iter().copied().find(|one| is_wanted(one)))
}

/// Lets a library end. Called by the server while the archiver exits.
unsafe extern "C-unwind" fn shut_down(_status: c_int, library: Datum) {
    let library = ptr::with_exposed_provenance::<Library>(library);
    // SAFETY: given to the server together with this function by `load`; never freed.
    let library = unsafe { &*library };
    match library.callbacks {
        Callbacks::Of15(of) => {
            if let Some(shutdown) = of.shutdown_cb {
                // SAFETY: the module's own callback; this frame owns nothing.
                unsafe { shutdown() };
            }
        }
        Callbacks::Of16(of) => {
            if let Some(shutdown) = of.shutdown_cb {
                // SAFETY: as above, with the module's state.
                unsafe { shutdown(library.state) };
            }
        }
    }
}
