//! The server process a module runs in, and the server calls a module may make.
//!
//! A [`Process`] is the permission to call the server: only the boundary makes one, on the main thread, and it
//! cannot be sent to another. Every call is guarded: an ERROR becomes a [`ServerError`] or, where a report
//! could not be made, is dropped with the report.

use super::guard::{ServerError, guard};
use super::speech::Speech;
use crate::{Failure, Report};
use abi::latch::{
    NO_SOCKET, PG_WAIT_EXTENSION, WL_LATCH_SET, WL_POSTMASTER_DEATH, WL_SOCKET_READABLE, WL_TIMEOUT,
};
use abi::process::MOCK_AUTH_NONCE_LEN;
use core::ffi::{CStr, c_int, c_long};
use core::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wal::{Lsn, SegmentSize, SystemIdentifier};

/// The permission to call the server: exists on the main thread of a server process only.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    owns_its_resources: bool,
    _main_thread_only: PhantomData<*const ()>,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// What was waited for has happened.
    Event,
    /// The deadline has passed.
    Deadline,
    /// The process was told to end: stop working, keep nothing.
    Shutdown,
    /// A reload was asked for and has not been carried out yet.
    Reload,
    /// The postmaster is gone.
    PostmasterGone,
}

/// The longest single sleep on the latch. Signals set the latch, so this is a safety net only.
const SLICE_MAX: Duration = Duration::from_secs(60);

impl Process {
    /// Inside a callback of the archiver or in a worker of ours: after an ERROR the process is put in order.
    ///
    /// # Safety
    /// On the main thread of a server process that runs outside any transaction.
    pub(crate) unsafe fn in_callback() -> Self {
        Self {
            owns_its_resources: true,
            _main_thread_only: PhantomData,
        }
    }

    /// In a callback of a base backup. What a caught ERROR leaves behind is the server's to put in order, when the backup
    /// has failed of it: it holds files of its own meanwhile.
    ///
    /// # Safety
    /// On the main thread of a walsender.
    pub(crate) unsafe fn in_walsender() -> Self {
        Self {
            owns_its_resources: false,
            _main_thread_only: PhantomData,
        }
    }

    /// While the library is being loaded, possibly by a session with a transaction of its own.
    ///
    /// # Safety
    /// On the main thread of a server process.
    pub(crate) unsafe fn loading() -> Self {
        Self {
            owns_its_resources: false,
            _main_thread_only: PhantomData,
        }
    }

    pub(crate) fn owns_its_resources(self) -> bool {
        self.owns_its_resources
    }

    /// Writes a report to the server's log, if the server's settings want it there.
    pub fn report(self, report: &Report) {
        let speech = Speech::of_report(report);
        let speech = &speech;
        // SAFETY: below ERROR, under the guard. If even that fails there is no way to report it.
        let _ = guard(self, move || unsafe { speech.speak() });
    }

    /// The server's `wal_segment_size`.
    #[must_use]
    pub fn segment_size(self) -> SegmentSize {
        // SAFETY: a plain variable, set before any module runs (xlog.c, LocalProcessControlFile).
        let bytes = unsafe { abi::process::wal_segment_size };
        u64::try_from(bytes)
            .ok()
            .and_then(|b| SegmentSize::new(b).ok())
            .unwrap_or(SegmentSize::DEFAULT)
    }

    /// The system identifier in the server's control file.
    ///
    /// # Errors
    /// What the server raises.
    pub fn system_identifier(self) -> Result<SystemIdentifier, ServerError> {
        // SAFETY: reads the control file's copy in shared memory (xlog.c, GetSystemIdentifier).
        guard(self, || unsafe { abi::process::GetSystemIdentifier() }).map(SystemIdentifier)
    }

    /// The random bytes that initdb has made for this cluster: the same on its standbys, and a secret. `None` without a
    /// control file.
    ///
    /// # Errors
    /// What the server raises.
    pub fn cluster_nonce(self) -> Result<Option<[u8; MOCK_AUTH_NONCE_LEN]>, ServerError> {
        // SAFETY: returns a place in the control file's copy in shared memory (xlog.c, GetMockAuthenticationNonce).
        let nonce = guard(self, || unsafe {
            abi::process::GetMockAuthenticationNonce()
        })?;
        if nonce.is_null() {
            return Ok(None);
        }
        // SAFETY: that many bytes, which do not change while the server runs (catalog/pg_control.h).
        Ok(Some(unsafe { *nonce.cast::<[u8; MOCK_AUTH_NONCE_LEN]>() }))
    }

    /// Whether the server is still in recovery.
    ///
    /// # Errors
    /// What the server raises.
    pub fn in_recovery(self) -> Result<bool, ServerError> {
        // SAFETY: reads shared memory (xlog.c, RecoveryInProgress).
        guard(self, || unsafe { abi::process::RecoveryInProgress() })
    }

    /// The end of the last replayed record.
    ///
    /// # Errors
    /// What the server raises.
    pub fn replayed_to(self) -> Result<Lsn, ServerError> {
        // SAFETY: reads shared memory; a null timeline pointer is allowed (xlogrecovery.c).
        guard(self, || unsafe {
            abi::process::GetXLogReplayRecPtr(core::ptr::null_mut())
        })
        .map(Lsn)
    }

    /// A parameter's value as text; `None` when the server knows no such parameter.
    ///
    /// # Errors
    /// What the server raises.
    pub fn parameter(self, name: &CStr) -> Result<Option<String>, ServerError> {
        self.look_up(name, true)
    }

    /// A parameter's value as text, where the parameter has to exist.
    ///
    /// # Errors
    /// That the server knows no such parameter, in its own words, or what else it raises.
    pub fn required_parameter(self, name: &CStr) -> Result<String, ServerError> {
        self.look_up(name, false).map(Option::unwrap_or_default)
    }

    fn look_up(self, name: &CStr, missing_ok: bool) -> Result<Option<String>, ServerError> {
        // SAFETY: the name is NUL-terminated; a missing parameter is answered with null or raised.
        let value = guard(self, move || unsafe {
            abi::guc::GetConfigOption(name.as_ptr(), missing_ok, false)
        })?;
        if value.is_null() {
            return Ok(None);
        }
        // SAFETY: a NUL-terminated string of the server, valid until the next change of parameters, and none
        // happens between the call above and this copy.
        let value = unsafe { CStr::from_ptr(value) };
        Ok(Some(value.to_string_lossy().into_owned()))
    }

    /// The server program's own path.
    #[must_use]
    pub fn server_program(self) -> PathBuf {
        let path = &raw const abi::process::my_exec_path;
        // SAFETY: NUL-terminated within its size, written once at server start (find_my_exec).
        let path = unsafe { CStr::from_ptr(path.cast()) };
        PathBuf::from(path.to_string_lossy().into_owned())
    }

    /// Carries out a reload: reads the configuration file again. For a worker's main loop; the archiver does
    /// this itself, between files.
    ///
    /// # Errors
    /// What the server raises.
    pub fn reload_configuration(self) -> Result<(), ServerError> {
        // SAFETY: a plain flag that signal handlers set; cleared before the file is read, so that a reload
        // asked for meanwhile is seen again.
        unsafe { abi::process::ConfigReloadPending = 0 };
        // SAFETY: the call of every main loop on SIGHUP (guc-file.l, ProcessConfigFile).
        guard(self, || unsafe {
            abi::guc::ProcessConfigFile(abi::guc::PGC_SIGHUP)
        })
    }

    /// Whether the process was told to end.
    #[must_use]
    pub fn shutdown_requested(self) -> bool {
        // Handlers change these at any time, hence the volatile reads.
        // SAFETY: a plain flag of the server.
        let archiver = unsafe { (&raw const abi::process::ShutdownRequestPending).read_volatile() };
        // SAFETY: as above.
        let worker = unsafe { (&raw const abi::process::ProcDiePending).read_volatile() };
        archiver != 0 || worker != 0
    }

    /// Whether a reload was asked for and is still to be carried out.
    #[must_use]
    pub fn reload_requested(self) -> bool {
        let flag = &raw const abi::process::ConfigReloadPending;
        // SAFETY: a plain flag of the server, changed by a signal handler, hence the volatile read.
        unsafe { flag.read_volatile() != 0 }
    }

    /// Waits on the process latch until `event` is readable, the deadline passes, or the process has
    /// something else to do; interrupts (DROP DATABASE's barrier among them) are served meanwhile.
    ///
    /// A wait without a deadline is for main loops only. A reload ends the wait when `heed_reload` is set. The
    /// latch is given back: the next wait finds it set if it was set meanwhile.
    ///
    /// # Errors
    /// What the server raises while waiting.
    pub fn wait(
        self,
        event: BorrowedFd<'_>,
        deadline: Option<Instant>,
        heed_reload: bool,
    ) -> Result<Woken, ServerError> {
        self.wait_for(Some(event), deadline, heed_reload)
    }

    /// Waits for nothing but the deadline and what the process has to do: the main loop of a worker that does
    /// something every so often. Without a deadline it ends on a reload or at the end of the server only.
    ///
    /// # Errors
    /// What the server raises while waiting.
    pub fn idle(self, deadline: Option<Instant>) -> Result<Woken, ServerError> {
        self.wait_for(None, deadline, true)
    }

    fn wait_for(
        self,
        event: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
        heed_reload: bool,
    ) -> Result<Woken, ServerError> {
        let mut consumed = false;
        let woken = loop {
            if self.shutdown_requested() {
                break Woken::Shutdown;
            }
            if heed_reload && self.reload_requested() {
                break Woken::Reload;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break Woken::Deadline;
            }
            let slice = left.map_or(SLICE_MAX, |left| left.min(SLICE_MAX));
            let events = self.wait_once(event, slice)?;
            if events & WL_LATCH_SET != 0 {
                consumed = true;
                self.reset_latch()?;
                self.serve_interrupts()?;
            }
            if events & WL_POSTMASTER_DEATH != 0 {
                break Woken::PostmasterGone;
            }
            if events & WL_SOCKET_READABLE != 0 {
                break Woken::Event;
            }
        };
        if consumed {
            self.set_latch()?;
        }
        Ok(woken)
    }

    /// Serves interrupts: for long work on the main thread that waits for nothing.
    ///
    /// # Errors
    /// That the process was told to end, or what the server raises: a cancelled command, say.
    pub fn check_interrupts(self) -> Result<(), Failure> {
        if self.shutdown_requested() {
            return Err(Failure::new("the server is shutting down"));
        }
        Ok(self.serve_interrupts()?)
    }

    /// Sleeps on the latch without an event of its own: for pauses between tries.
    ///
    /// # Errors
    /// What the server raises while waiting.
    pub fn pause(self, how_long: Duration) -> Result<Woken, ServerError> {
        self.wait_for(None, Some(Instant::now() + how_long), false)
    }

    fn wait_once(
        self,
        event: Option<BorrowedFd<'_>>,
        slice: Duration,
    ) -> Result<c_int, ServerError> {
        let slice_ms = c_long::try_from(slice.as_millis())
            .unwrap_or(c_long::MAX)
            .max(1);
        let wanted = WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH;
        let (fd, events) = match event {
            Some(event) => (event.as_raw_fd(), wanted | WL_SOCKET_READABLE),
            None => (NO_SOCKET, wanted),
        };
        guard(self, move || {
            // SAFETY: the process's own latch, set up before any module runs.
            let latch = unsafe { abi::latch::MyLatch };
            // SAFETY: the descriptor is open for the duration of the call: it is borrowed by the caller.
            unsafe { abi::latch::WaitLatchOrSocket(latch, events, fd, slice_ms, PG_WAIT_EXTENSION) }
        })
    }

    fn reset_latch(self) -> Result<(), ServerError> {
        guard(self, || {
            // SAFETY: the process's own latch.
            let latch = unsafe { abi::latch::MyLatch };
            // SAFETY: as above; only the owner resets it, and this is the owner.
            unsafe { abi::latch::ResetLatch(latch) };
        })
    }

    fn set_latch(self) -> Result<(), ServerError> {
        guard(self, || {
            // SAFETY: the process's own latch.
            let latch = unsafe { abi::latch::MyLatch };
            // SAFETY: as above.
            unsafe { abi::latch::SetLatch(latch) };
        })
    }

    /// What `CHECK_FOR_INTERRUPTS` does.
    fn serve_interrupts(self) -> Result<(), ServerError> {
        // A request to end is answered by the caller in an orderly way, not by the FATAL this would raise.
        if self.shutdown_requested() {
            return Ok(());
        }
        // SAFETY: a plain flag of the server, changed by signal handlers.
        let pending = unsafe { (&raw const abi::process::InterruptPending).read_volatile() };
        if pending == 0 {
            return Ok(());
        }
        // SAFETY: the server's own function at a place where nothing is held; `copy_file` calls it from
        // archive callbacks likewise (15 to 18).
        guard(self, || unsafe { abi::process::ProcessInterrupts() })
    }
}
