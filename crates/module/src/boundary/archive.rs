//! The archive module callbacks, in both dialects, over one [`ArchiveModule`].
//!
//! Each callback has an inner function that does the work under a panic barrier and answers with plain data,
//! and an outer one that reports and returns. No ERROR leaves these callbacks in any major: 15 and 16 would
//! make it FATAL, and a failure has to be counted as "not archived" instead.

use super::guard::guard;
use super::process::Process;
use super::speech::{Speech, Text};
use super::{alleged, load, panics};
use crate::{ArchiveModule, Archived, Failure, Level, Report};
use abi::Major;
use abi::archive_module::{ArchiveModuleCallbacks15, ArchiveModuleCallbacks16, ArchiveModuleState};
use core::ffi::{c_char, c_void};
use core::marker::PhantomData;
use core::ptr;
use std::cell::{RefCell, UnsafeCell};
use std::sync::atomic::AtomicPtr;

/// A module's state between callbacks. `None` before it was started and after a panic, which may have left
/// it half changed: the next callback starts it afresh.
pub(super) struct Hosted<M>(RefCell<Option<M>>);

/// Where the pointer to it is kept: `private_data`, or a variable of ours in 15.
pub(super) type Slot = *mut *mut c_void;

/// The slot in a state: its one field, at offset 0.
fn slot_of(state: *mut ArchiveModuleState) -> Slot {
    const { assert!(core::mem::offset_of!(ArchiveModuleState, private_data) == 0) };
    state.cast()
}

/// In 15 callbacks carry no state; a process loads one archive module, so one variable does.
static SLOT15: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

impl<M: crate::Module> Hosted<M> {
    /// # Safety
    /// `slot` is null-initialised and used for this `M` only, on the main thread.
    pub(super) unsafe fn at(slot: Slot) -> &'static Self {
        // SAFETY: promised by the caller.
        let found = unsafe { *slot };
        if !found.is_null() {
            // SAFETY: put there below, never freed.
            return unsafe { &*found.cast::<Self>() };
        }
        // Leaked on purpose: it must outlive every callback, the last of which runs while the process exits.
        let made: &'static Self = Box::leak(Box::new(Self(RefCell::new(None))));
        // SAFETY: promised by the caller.
        unsafe { *slot = ptr::from_ref(made).cast_mut().cast() };
        made
    }

    /// Runs `work` on the module, which is started first if need be.
    pub(super) fn with<T>(
        &'static self,
        process: Process,
        work: impl FnOnce(&mut M) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outcome = panics::caught(|| {
            // Borrowed already: the process is exiting from within an earlier callback.
            let mut held = self
                .0
                .try_borrow_mut()
                .map_err(|_| Failure::new("the module is busy"))?;
            let module = match &mut *held {
                Some(module) => module,
                empty => empty.insert(M::startup(process)?),
            };
            work(module)
        });
        outcome.unwrap_or_else(|panic| {
            let broken = self
                .0
                .try_borrow_mut()
                .ok()
                .and_then(|mut held| held.take());
            let _ = panics::caught(|| drop(broken));
            Err(panic)
        })
    }

    /// Ends the module, unless it is in the middle of something or was never started.
    pub(super) fn end(&'static self, process: Process) {
        let ended = panics::caught(|| {
            let module = self
                .0
                .try_borrow_mut()
                .ok()
                .and_then(|mut held| held.take());
            if let Some(module) = module {
                module.shutdown(process);
            }
        });
        if let Err(panic) = ended {
            process.report(&Report::of(Level::Warning, panic));
        }
    }
}

/// What an outer frame needs: plain data.
#[derive(Clone, Copy)]
struct Verdict {
    archived: bool,
    speech: Option<Speech>,
}

unsafe fn archive_file<M: ArchiveModule>(
    process: Process,
    slot: Slot,
    file: *const c_char,
    path: *const c_char,
) -> Verdict {
    let outcome = {
        // SAFETY: the slot belongs to this module.
        let hosted = unsafe { Hosted::<M>::at(slot) };
        hosted.with(process, |module| {
            // SAFETY: the archiver passes a NUL-terminated name that outlives this call
            // (pgarch.c, pgarch_archiveXlog).
            let name = unsafe { alleged::wal_file_name(file) }?;
            // SAFETY: as above.
            let path = unsafe { alleged::path(path) }?;
            module.archive_file(process, &name, &path)
        })
    };
    match outcome {
        Ok(Archived::Durably) => Verdict {
            archived: true,
            speech: None,
        },
        Ok(Archived::NotYet) => Verdict {
            archived: false,
            speech: None,
        },
        Err(failure) => {
            let speech = Speech::of_failure(abi::elog::WARNING, &failure);
            Verdict {
                archived: false,
                speech: Some(speech),
            }
        }
    }
}

unsafe fn archive_and_report<M: ArchiveModule>(
    slot: Slot,
    file: *const c_char,
    path: *const c_char,
) -> bool {
    // SAFETY: the archiver calls on its main thread, outside any transaction.
    let process = unsafe { Process::in_callback() };
    // SAFETY: the archiver's arguments, unchanged; see SAFETY.md, "archive_file_cb".
    let verdict = unsafe { archive_file::<M>(process, slot, file, path) };
    if let Some(speech) = verdict.speech {
        let speech = &speech;
        // SAFETY: below ERROR and under the guard. A report that cannot be made must not lose the answer.
        let _ = guard(process, move || unsafe { speech.speak() });
    }
    verdict.archived
}

/// Where the reason for "not configured" waits for the server (17 and later).
static REASON: Reason = Reason(UnsafeCell::new(Text::EMPTY));
struct Reason(UnsafeCell<Text<1024>>);
// SAFETY: written by the check, read by the server right after it, both on the main thread.
unsafe impl Sync for Reason {}

unsafe fn check_configured<M: ArchiveModule>(slot: Slot) -> bool {
    // SAFETY: the archiver calls on its main thread, outside any transaction.
    let process = unsafe { Process::in_callback() };
    // SAFETY: the slot belongs to this module.
    let hosted = unsafe { Hosted::<M>::at(slot) };
    let checked = check(process, hosted);
    if let Some(speech) = checked.restart {
        let speech = &speech;
        // SAFETY: below ERROR and under the guard.
        let _ = guard(process, move || unsafe { speech.speak() });
        // SAFETY: this frame owns nothing, nor does the archiver's, which ends like this itself (pgarch.c).
        unsafe { abi::process::proc_exit(0) };
    }
    checked.configured
}

/// What an outer frame needs of a check: plain data.
#[derive(Clone, Copy)]
struct Checked {
    configured: bool,
    restart: Option<Speech>,
}

/// Asks the module whether it wants another process, and if not, whether it is configured; explains why not.
fn check<M: ArchiveModule>(process: Process, hosted: &'static Hosted<M>) -> Checked {
    let restart = hosted.with(process, |module| match module.restart(process) {
        Some(reason) => Ok(Some(Speech::of_report(&reason))),
        None => module.check_configured(process).map(|()| None),
    });
    match restart {
        Ok(restart) => Checked {
            configured: restart.is_none(),
            restart,
        },
        Err(failure) => {
            explain(process, &failure);
            Checked {
                configured: false,
                restart: None,
            }
        }
    }
}

/// Tells the administrator why: as detail of the server's own WARNING where it has room for one (17 and
/// later), as a WARNING just before it otherwise.
fn explain(process: Process, failure: &Failure) {
    let Some(detail) = abi::versioned::arch_module_check_errdetail_string() else {
        let speech = Speech::of_failure(abi::elog::WARNING, failure);
        let speech = &speech;
        // SAFETY: below ERROR and under the guard.
        let _ = guard(process, move || unsafe { speech.speak() });
        return;
    };
    let text = failure.hint.as_ref().map_or_else(
        || failure.message.clone(),
        |hint| format!("{}. {hint}", failure.message),
    );
    // SAFETY: on the main thread, see `Reason`.
    unsafe { *REASON.0.get() = Text::of(&text) };
    // SAFETY: the buffer is static; the server reads it before the next check (pgarch.c, 17 and later).
    unsafe { *detail = REASON.0.get().cast() };
}

unsafe fn shutdown<M: ArchiveModule>(slot: Slot) {
    // SAFETY: the archiver calls while it exits, on its main thread.
    let process = unsafe { Process::in_callback() };
    // SAFETY: the slot belongs to this module.
    unsafe { Hosted::<M>::at(slot) }.end(process);
}

/// The callbacks of a module in both dialects.
#[derive(Debug)]
pub struct Table<M>(PhantomData<M>);

impl<M: ArchiveModule> Table<M> {
    const DIALECT15: ArchiveModuleCallbacks15 = ArchiveModuleCallbacks15 {
        check_configured_cb: Some(Self::check_configured15),
        archive_file_cb: Some(Self::archive_file15),
        shutdown_cb: Some(Self::shutdown15),
    };
    const DIALECT16: ArchiveModuleCallbacks16 = ArchiveModuleCallbacks16 {
        startup_cb: Some(Self::startup16),
        check_configured_cb: Some(Self::check_configured16),
        archive_file_cb: Some(Self::archive_file16),
        shutdown_cb: Some(Self::shutdown16),
    };

    /// `_PG_archive_module_init` for the running server.
    ///
    /// # Safety
    /// Called by the server: in 15 with the struct to fill, in 16 and later with nothing.
    pub unsafe fn init(to_fill: *mut ArchiveModuleCallbacks15) -> *const ArchiveModuleCallbacks16 {
        // SAFETY: the archiver calls on its main thread.
        let process = unsafe { Process::in_callback() };
        if let Err(panic) = panics::caught(|| M::loaded(process)) {
            process.report(&Report::of(Level::Warning, panic));
        }
        if load::major(process) == Major(15) {
            // SAFETY: 15 passes its own zeroed struct (pgarch.c, LoadArchiveLibrary).
            unsafe { *to_fill = Self::DIALECT15 };
            return ptr::null();
        }
        // The argument register holds anything here and is not looked at.
        &Self::DIALECT16
    }

    unsafe extern "C-unwind" fn check_configured15() -> bool {
        // SAFETY: the slot of 15.
        unsafe { check_configured::<M>(SLOT15.as_ptr()) }
    }

    unsafe extern "C-unwind" fn archive_file15(file: *const c_char, path: *const c_char) -> bool {
        // SAFETY: the slot of 15; the archiver's arguments, unchanged.
        unsafe { archive_and_report::<M>(SLOT15.as_ptr(), file, path) }
    }

    unsafe extern "C-unwind" fn shutdown15() {
        // SAFETY: the slot of 15.
        unsafe { shutdown::<M>(SLOT15.as_ptr()) };
    }

    /// The module itself starts at the first check: a failure here would be FATAL, there it is "not
    /// configured" and polled again.
    unsafe extern "C-unwind" fn startup16(state: *mut ArchiveModuleState) {
        // SAFETY: the archiver's own state (pgarch.c, LoadArchiveLibrary).
        unsafe { (*state).private_data = ptr::null_mut() };
    }

    unsafe extern "C-unwind" fn check_configured16(state: *mut ArchiveModuleState) -> bool {
        // SAFETY: the archiver's own state, of process lifetime.
        unsafe { check_configured::<M>(slot_of(state)) }
    }

    unsafe extern "C-unwind" fn archive_file16(
        state: *mut ArchiveModuleState,
        file: *const c_char,
        path: *const c_char,
    ) -> bool {
        // SAFETY: the archiver's own state and arguments.
        unsafe { archive_and_report::<M>(slot_of(state), file, path) }
    }

    unsafe extern "C-unwind" fn shutdown16(state: *mut ArchiveModuleState) {
        // SAFETY: the archiver's own state.
        unsafe { shutdown::<M>(slot_of(state)) };
    }
}
