//! The recovery module callbacks over the traits [`RestoreModule`], [`ArchiveCleanupModule`] and
//! [`RecoveryEndModule`].
//!
//! As everywhere, an inner function does the work under a panic barrier and answers with plain data. Here the
//! outer one may raise ERROR: that is how this interface says "could not tell", and its host catches it.

use super::alleged;
use super::archive::{Hosted, Slot};
use super::process::Process;
use super::speech::Speech;
use crate::{ArchiveCleanupModule, Failure, Module, RecoveryEndModule, RestoreModule, Restored};
use abi::recovery_module::{RecoveryModuleCallbacks, RecoveryModuleState};
use core::ffi::c_char;
use core::marker::PhantomData;
use core::ptr;

/// The slot in a state: its one field, at offset 0.
fn slot_of(state: *mut RecoveryModuleState) -> Slot {
    const { assert!(core::mem::offset_of!(RecoveryModuleState, private_data) == 0) };
    state.cast()
}

/// What an outer frame needs: plain data.
#[derive(Clone, Copy)]
struct Verdict {
    answer: bool,
    error: Option<Speech>,
}

impl Verdict {
    fn of(outcome: Result<bool, Failure>) -> Self {
        match outcome {
            Ok(answer) => Self {
                answer,
                error: None,
            },
            Err(failure) => Self {
                answer: false,
                error: Some(Speech::of_failure(abi::elog::ERROR, &failure)),
            },
        }
    }

    /// # Safety
    /// From a frame that owns nothing: an error does not return.
    unsafe fn speak_or_answer(self) -> bool {
        if let Some(error) = self.error {
            // SAFETY: promised by the caller.
            unsafe { error.speak() };
        }
        self.answer
    }
}

/// The callbacks of a module: those for the jobs it was exported for.
#[derive(Debug)]
pub struct Table<M> {
    callbacks: RecoveryModuleCallbacks,
    _module: PhantomData<fn() -> M>,
}

impl<M: Module> Table<M> {
    /// Without any job yet.
    #[must_use]
    pub const fn new() -> Self {
        let callbacks = RecoveryModuleCallbacks {
            startup_cb: Some(Self::startup),
            restore_cb: None,
            archive_cleanup_cb: None,
            recovery_end_cb: None,
            shutdown_cb: Some(Self::shutdown),
        };
        Self {
            callbacks,
            _module: PhantomData,
        }
    }

    /// The finished struct.
    #[must_use]
    pub const fn callbacks(self) -> RecoveryModuleCallbacks {
        self.callbacks
    }

    /// The module itself starts at its first job, so that a passing failure to start is met again there.
    unsafe extern "C-unwind" fn startup(state: *mut RecoveryModuleState) {
        // SAFETY: the host's own state.
        unsafe { (*state).private_data = ptr::null_mut() };
    }

    unsafe extern "C-unwind" fn shutdown(state: *mut RecoveryModuleState) {
        // SAFETY: the host calls on its main thread.
        let process = unsafe { Process::in_callback() };
        // SAFETY: the slot belongs to this module.
        unsafe { Hosted::<M>::at(slot_of(state)) }.end(process);
    }
}

impl<M: Module> Default for Table<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: RestoreModule> Table<M> {
    /// With the job of restoring.
    #[must_use]
    pub const fn restore(mut self) -> Self {
        self.callbacks.restore_cb = Some(Self::restore_cb);
        self
    }

    unsafe extern "C-unwind" fn restore_cb(
        state: *mut RecoveryModuleState,
        file: *const c_char,
        path: *const c_char,
        last: *const c_char,
    ) -> bool {
        // SAFETY: the host's own state and arguments, unchanged; see SAFETY.md, "restore_cb".
        let verdict = unsafe { Self::restored(slot_of(state), file, path, last) };
        // SAFETY: this frame owns nothing.
        unsafe { verdict.speak_or_answer() }
    }

    unsafe fn restored(
        slot: Slot,
        file: *const c_char,
        path: *const c_char,
        last: *const c_char,
    ) -> Verdict {
        // SAFETY: the host calls on its main thread, outside any transaction.
        let process = unsafe { Process::in_callback() };
        // SAFETY: the slot belongs to this module.
        let hosted = unsafe { Hosted::<M>::at(slot) };
        Verdict::of(hosted.with(process, |module| {
            // SAFETY: the host passes NUL-terminated strings that outlive the call.
            let file = unsafe { alleged::wal_file_name(file) }?;
            // SAFETY: as above.
            let path = unsafe { alleged::path(path) }?;
            // SAFETY: as above.
            let last = unsafe { alleged::keep_from(last) }?;
            let restored = module.restore(process, &file, &path, &last)?;
            Ok(restored == Restored::Yes)
        }))
    }
}

/// A job that gets the last restartpoint's file and answers nothing.
unsafe fn notified<M: Module>(
    slot: Slot,
    last: *const c_char,
    work: fn(&mut M, Process, &wal::KeepFrom) -> Result<(), Failure>,
) -> Verdict {
    // SAFETY: the host calls on its main thread, outside any transaction.
    let process = unsafe { Process::in_callback() };
    // SAFETY: the slot belongs to this module.
    let hosted = unsafe { Hosted::<M>::at(slot) };
    Verdict::of(hosted.with(process, |module| {
        // SAFETY: the host passes a NUL-terminated string that outlives the call.
        let last = unsafe { alleged::keep_from(last) }?;
        work(module, process, &last)?;
        Ok(true)
    }))
}

impl<M: ArchiveCleanupModule> Table<M> {
    /// With the job of archive cleanup.
    #[must_use]
    pub const fn archive_cleanup(mut self) -> Self {
        self.callbacks.archive_cleanup_cb = Some(Self::archive_cleanup_cb);
        self
    }

    unsafe extern "C-unwind" fn archive_cleanup_cb(
        state: *mut RecoveryModuleState,
        last: *const c_char,
    ) {
        // SAFETY: the host's own state and argument; see SAFETY.md, "archive_cleanup_cb".
        let verdict = unsafe { notified::<M>(slot_of(state), last, M::archive_cleanup) };
        // SAFETY: this frame owns nothing.
        unsafe { verdict.speak_or_answer() };
    }
}

impl<M: RecoveryEndModule> Table<M> {
    /// With the job of ending recovery.
    #[must_use]
    pub const fn recovery_end(mut self) -> Self {
        self.callbacks.recovery_end_cb = Some(Self::recovery_end_cb);
        self
    }

    unsafe extern "C-unwind" fn recovery_end_cb(
        state: *mut RecoveryModuleState,
        last: *const c_char,
    ) {
        // SAFETY: the host's own state and argument; see SAFETY.md, "recovery_end_cb".
        let verdict = unsafe { notified::<M>(slot_of(state), last, M::recovery_end) };
        // SAFETY: this frame owns nothing.
        unsafe { verdict.speak_or_answer() };
    }
}

/// What a library returns from `_PG_recovery_module_init`.
pub type Callbacks = RecoveryModuleCallbacks;
