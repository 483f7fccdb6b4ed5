//! The callbacks of base backup targets, over [`BackupTarget`] and [`BackupSink`].
//!
//! Each has an inner part that does the target's work under a panic barrier and answers with plain data, and an outer one
//! that owns nothing: it raises the ERROR, or forwards to the next sink, whose functions may raise one too. The target's
//! own work comes first, so that the client is told of nothing that the target has not done.
//!
//! **Success is what the server says after `end_backup`.** If page checksums were wrong it raises ERROR behind that
//! callback, and then calls `cleanup`, as it does after success. The two differ: an ERROR on its way leaves `ErrorContext`
//! as the current memory context (elog.c, `errfinish`; basebackup.c, `SendBaseBackup`, whose `PG_FINALLY` calls `cleanup`;
//! 15 to 19). So a sink is committed in `cleanup`, and an ERROR there still reaches the client, which is told of success
//! only when the command ends. It is not called when the process ends (FATAL), nor behind the server's own compression by lz4 and
//! zstd (15 to 19) or, in 19rc1, gzip: these do not forward it. So whatever the server has compressed is refused
//! ([`BackupFile::archive`]).

use super::guard::guard;
use super::load::Loading;
use super::process::Process;
use super::requester::Requester;
use super::speech::Speech;
use super::{alleged, panics};
use crate::{BackupEnd, BackupFile, BackupSink, BackupStart, BackupTarget, Failure};
use abi::Datum;
use abi::backup_target::{self as server, Bbsink, BbsinkOps, CheckDetail};
use core::cell::{RefCell, UnsafeCell};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use wal::{Lsn, TimelineId};

/// A target as the server is told of it: made by the export line.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    name: &'static CStr,
    check_detail: CheckDetail,
}

impl Registration {
    /// Of this target.
    #[must_use]
    pub const fn of<T: BackupTarget>() -> Self {
        Self {
            name: T::NAME,
            check_detail: check_detail::<T>,
        }
    }

    /// Tells the server, in the process that preloads the library; does nothing elsewhere, where no walsender comes from.
    pub(super) fn register(self, loading: Loading) -> Result<(), Failure> {
        if !loading.preloading() {
            return Ok(());
        }
        usable(self.name)?;
        guard(loading.process(), move || {
            let name = self.name.as_ptr().cast_mut();
            // SAFETY: the server copies the name and writes to neither (basebackup_target.c, BaseBackupAddTarget, 15 to 19).
            unsafe { server::BaseBackupAddTarget(name, Some(self.check_detail), Some(get_sink)) }
        })?;
        Ok(())
    }
}

/// The server would replace its own targets without a word; `pg_basebackup` splits at the first colon.
fn usable(name: &CStr) -> Result<(), Failure> {
    let taken = [c"client", c"server", c"blackhole"].contains(&name);
    if taken || name.is_empty() || name.to_bytes().contains(&b':') {
        return Err(Failure::new(format!(
            "{name:?} cannot be the name of a base backup target"
        )));
    }
    Ok(())
}

/// A detail that was looked at, and what to do with it.
type Chosen = Box<dyn FnOnce(Process, &BackupStart) -> Result<Box<dyn BackupSink>, Failure>>;

/// What the module has of the backup.
#[derive(Default)]
struct Held {
    chosen: Option<Chosen>,
    sink: Option<Box<dyn BackupSink>>,
    ended: bool,
}

impl Held {
    fn sink(&mut self) -> Result<&mut Box<dyn BackupSink>, Failure> {
        self.sink
            .as_mut()
            .ok_or_else(|| Failure::new("the base backup has not begun"))
    }
}

/// The one backup of this process: a walsender takes one at a time, and a next one takes the place of what an ERROR between
/// `check_detail` and `begin_backup` has left here.
struct Running {
    sink: UnsafeCell<Bbsink>,
    held: RefCell<Held>,
}
// SAFETY: touched by the server's calls only, which come on the main thread.
unsafe impl Sync for Running {}

static RUNNING: Running = Running {
    sink: UnsafeCell::new(Bbsink {
        bbs_ops: &OPS,
        bbs_buffer: ptr::null_mut(),
        bbs_buffer_length: 0,
        bbs_next: ptr::null_mut(),
        bbs_state: ptr::null_mut(),
    }),
    held: RefCell::new(Held {
        chosen: None,
        sink: None,
        ended: false,
    }),
};

static OPS: BbsinkOps = BbsinkOps {
    begin_backup,
    begin_archive,
    archive_contents,
    end_archive,
    begin_manifest,
    manifest_contents,
    end_manifest,
    end_backup,
    cleanup,
};

/// Does the module's part of a callback. Whatever goes wrong ends the backup, so the sink is dropped before anybody is told.
fn attempt(
    process: Process,
    work: impl FnOnce(Process, &mut Held) -> Result<(), Failure>,
) -> Option<Speech> {
    let outcome = panics::caught(|| {
        // Borrowed already: the process is exiting from within an earlier callback.
        let mut held = RUNNING
            .held
            .try_borrow_mut()
            .map_err(|_| Failure::new("the base backup target is busy"))?;
        work(process, &mut held)
    });
    let failure = outcome.and_then(|outcome| outcome).err()?;
    abandon();
    Some(Speech::of_failure(abi::elog::ERROR, &failure))
}

/// Drops what there is of a backup.
fn abandon() {
    let _ = panics::caught(|| {
        let held = RUNNING.held.try_borrow_mut();
        let left = held.map(|mut held| core::mem::take(&mut *held));
        drop(left);
    });
}

/// The same, and the server is told: an ERROR does not return.
///
/// # Safety
/// From a frame that owns nothing, in a callback of the walsender.
unsafe fn perform(work: impl FnOnce(Process, &mut Held) -> Result<(), Failure> + Copy) {
    // SAFETY: promised by the caller.
    let process = unsafe { Process::in_walsender() };
    let Some(error) = attempt(process, work) else {
        return;
    };
    if process.shutdown_requested() {
        // The session is being ended, which is why the module gave up. The server has its own words for that.
        // SAFETY: this frame owns nothing.
        unsafe { check_for_interrupts() };
    }
    // SAFETY: as above.
    unsafe { error.speak() };
}

/// `CHECK_FOR_INTERRUPTS`: the server itself looks once for each file only, however large (basebackup.c, `sendDir`, 15 to 19).
///
/// # Safety
/// From a frame that owns nothing: it may raise ERROR, or end the process.
unsafe fn check_for_interrupts() {
    // SAFETY: a plain flag of the server, changed by signal handlers, hence the volatile read.
    let pending = unsafe { (&raw const abi::process::InterruptPending).read_volatile() };
    if pending != 0 {
        // SAFETY: promised by the caller.
        unsafe { abi::process::ProcessInterrupts() };
    }
}

unsafe extern "C-unwind" fn check_detail<T: BackupTarget>(
    _target: *mut c_char,
    detail: *mut c_char,
) -> *mut c_void {
    abandon();
    // SAFETY: this frame owns nothing. Not within a backup: there the last callback has to be the server's own.
    unsafe { end_with_the_process() };
    let work = move |process: Process, held: &mut Held| {
        // SAFETY: null, or NUL-terminated and alive for the command (basebackup.c, parse_basebackup_options).
        let detail = unsafe { alleged::optional_text(detail, "target detail") }?;
        let detail = T::check_detail(process, Requester::of(&process), detail.as_deref())?;
        held.chosen = Some(Box::new(move |process, start| {
            T::begin(process, detail, start)
        }));
        Ok(())
    };
    // SAFETY: as above.
    unsafe { perform(work) };
    ptr::null_mut()
}

/// `cleanup` is not called when the process ends in the middle of a backup; this drops the sink then.
///
/// # Safety
/// From a frame that owns nothing, outside a backup.
unsafe fn end_with_the_process() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: promised by the caller; a full table of callbacks is FATAL (ipc.c).
        unsafe { abi::process::before_shmem_exit(at_exit, 0) };
    }
}

unsafe extern "C-unwind" fn at_exit(_code: c_int, _arg: Datum) {
    abandon();
}

unsafe extern "C-unwind" fn get_sink(next: *mut Bbsink, _detail: *mut c_void) -> *mut Bbsink {
    let sink = RUNNING.sink.get();
    let made = Bbsink {
        bbs_ops: &OPS,
        bbs_buffer: ptr::null_mut(),
        bbs_buffer_length: 0,
        bbs_next: next,
        bbs_state: ptr::null_mut(),
    };
    // SAFETY: ours; no other backup of this process is running.
    unsafe { sink.write(made) };
    sink
}

unsafe extern "C-unwind" fn begin_backup(sink: *mut Bbsink) {
    let work = move |process: Process, held: &mut Held| {
        // SAFETY: the server has set the state before this call (basebackup_sink.h, bbsink_begin_backup).
        let start = unsafe { start_of(sink) }?;
        let chosen = held.chosen.take();
        let chosen = chosen.ok_or_else(|| Failure::new("no base backup was asked for"))?;
        held.sink = Some(chosen(process, &start)?);
        Ok(())
    };
    // SAFETY: this frame owns nothing.
    unsafe { perform(work) };
    // SAFETY: as above. The next sink's buffer becomes this one's.
    unsafe { server::bbsink_forward_begin_backup(sink) };
}

/// # Safety
/// `sink` is the server's, with its state set.
unsafe fn start_of(sink: *const Bbsink) -> Result<BackupStart, Failure> {
    // SAFETY: promised by the caller.
    let state = unsafe { (*sink).bbs_state };
    // SAFETY: null, or the state of the running backup, which the server does not change during a callback.
    let state = unsafe { state.as_ref() };
    let state = state.ok_or_else(|| Failure::new("the base backup has no state"))?;
    Ok(BackupStart {
        lsn: Lsn(state.startptr),
        timeline: timeline(state.starttli)?,
        bytes_estimated: state.bytes_total_is_valid.then_some(state.bytes_total),
    })
}

fn timeline(number: u32) -> Result<TimelineId, Failure> {
    TimelineId::new(number).ok_or_else(|| Failure::new("there is no timeline 0"))
}

unsafe extern "C-unwind" fn begin_archive(sink: *mut Bbsink, name: *const c_char) {
    let work = move |process: Process, held: &mut Held| {
        // SAFETY: the server's name for the archive, NUL-terminated, outlives the call.
        let name = unsafe { alleged::text(name, "archive name") }?;
        held.sink()?
            .begin_file(process, &BackupFile::archive(&name)?)
    };
    // SAFETY: this frame owns nothing.
    unsafe { perform(work) };
    // SAFETY: as above; the server's argument, unchanged.
    unsafe { server::bbsink_forward_begin_archive(sink, name) };
}

unsafe extern "C-unwind" fn archive_contents(sink: *mut Bbsink, len: usize) {
    // SAFETY: this frame owns nothing; see SAFETY.md, "archive_contents".
    unsafe { contents(sink, len) };
    // SAFETY: as above; the server's argument, unchanged.
    unsafe { server::bbsink_forward_archive_contents(sink, len) };
}

unsafe extern "C-unwind" fn end_archive(sink: *mut Bbsink) {
    // SAFETY: this frame owns nothing.
    unsafe { perform(|process, held| held.sink()?.end_file(process)) };
    // SAFETY: as above.
    unsafe { server::bbsink_forward_end_archive(sink) };
}

unsafe extern "C-unwind" fn begin_manifest(sink: *mut Bbsink) {
    // SAFETY: this frame owns nothing.
    unsafe {
        perform(|process, held| held.sink()?.begin_file(process, &BackupFile::manifest()));
    }
    // SAFETY: as above.
    unsafe { server::bbsink_forward_begin_manifest(sink) };
}

unsafe extern "C-unwind" fn manifest_contents(sink: *mut Bbsink, len: usize) {
    // SAFETY: this frame owns nothing; see SAFETY.md, "archive_contents".
    unsafe { contents(sink, len) };
    // SAFETY: as above; the server's argument, unchanged.
    unsafe { server::bbsink_forward_manifest_contents(sink, len) };
}

unsafe extern "C-unwind" fn end_manifest(sink: *mut Bbsink) {
    // SAFETY: this frame owns nothing.
    unsafe { perform(|process, held| held.sink()?.end_file(process)) };
    // SAFETY: as above.
    unsafe { server::bbsink_forward_end_manifest(sink) };
}

/// # Safety
/// In a contents callback, with its arguments, from a frame that owns nothing.
unsafe fn contents(sink: *mut Bbsink, len: usize) {
    // SAFETY: promised by the caller.
    unsafe { check_for_interrupts() };
    let work = move |process: Process, held: &mut Held| {
        // SAFETY: the server has put so many bytes into the buffer, and nobody writes there before this returns.
        let bytes = unsafe { buffered(sink, len) }?;
        held.sink()?.contents(process, bytes)
    };
    // SAFETY: as above.
    unsafe { perform(work) };
}

/// # Safety
/// `sink` is the server's, and `len` bytes of its buffer are filled, if there are so many, and stay as they are.
unsafe fn buffered<'call>(sink: *const Bbsink, len: usize) -> Result<&'call [u8], Failure> {
    // SAFETY: promised by the caller.
    let buffer = unsafe { (*sink).bbs_buffer };
    // SAFETY: as above.
    let size = unsafe { (*sink).bbs_buffer_length };
    if buffer.is_null() || len > size {
        return Err(Failure::new(format!(
            "{len} bytes are in a buffer of {size}"
        )));
    }
    // SAFETY: checked above, and promised by the caller.
    Ok(unsafe { core::slice::from_raw_parts(buffer.cast(), len) })
}

unsafe extern "C-unwind" fn end_backup(sink: *mut Bbsink, lsn: u64, tli: u32) {
    let work = move |process: Process, held: &mut Held| {
        let end = BackupEnd {
            lsn: Lsn(lsn),
            timeline: timeline(tli)?,
        };
        held.sink()?.end_backup(process, &end)?;
        held.ended = true;
        Ok(())
    };
    // SAFETY: this frame owns nothing.
    unsafe { perform(work) };
    // SAFETY: as above; the server's arguments, unchanged.
    unsafe { server::bbsink_forward_end_backup(sink, lsn, tli) };
}

unsafe extern "C-unwind" fn cleanup(sink: *mut Bbsink) {
    // SAFETY: a plain variable of the server.
    let current = unsafe { abi::process::CurrentMemoryContext };
    // SAFETY: as above.
    let behind_error = current == unsafe { abi::process::ErrorContext };
    if behind_error {
        // No call of the server that may raise: there is an ERROR on its way, and a second one caught would forget it.
        abandon();
        // SAFETY: this frame owns nothing.
        unsafe { server::bbsink_forward_cleanup(sink) };
        return;
    }
    // SAFETY: as above.
    unsafe { server::bbsink_forward_cleanup(sink) };
    let work = |process: Process, held: &mut Held| {
        let Held { sink, ended, .. } = core::mem::take(held);
        match sink {
            Some(sink) if ended => sink.commit(process),
            _ => Err(Failure::new("the base backup has not ended")),
        }
    };
    // SAFETY: as above.
    unsafe { perform(work) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_server_has_itself_or_cannot_be_asked_for_are_refused() {
        for (name, fits) in [
            (c"directory", true),
            (c"walden", true),
            (c"", false),
            (c"a:b", false),
            (c"server", false),
            (c"client", false),
            (c"blackhole", false),
        ] {
            assert_eq!(usable(name).is_ok(), fits, "{name:?}");
        }
    }
}
