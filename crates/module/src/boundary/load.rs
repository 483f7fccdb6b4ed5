//! What happens when the server loads the library: the magic block, `_PG_init`, and what may be done there.
//!
//! `_PG_init` runs in the postmaster (`shared_preload_libraries`), in the archiver (`archive_library` alone),
//! in a session (`LOAD`), or in single-user mode; once per process, and children inherit what it did.

use super::backup::Registration;
use super::guard::{ServerError, guard};
use super::process::Process;
use super::settings::{Context, Setting};
use super::speech::Speech;
use crate::{Failure, Level, Report};
use abi::Major;
use abi::guc::{PGC_POSTMASTER, PGC_S_OVERRIDE};
use abi::magic::{ABI_EXTRA_BYTES, AbiValues, Magic15, Magic18};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ops::Deref;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A library's own `_PG_init`, after its settings have been defined.
pub type OnLoad = fn(Loading) -> Result<(), Failure>;

/// The permission to do what is possible during `_PG_init` only.
#[derive(Clone, Copy, Debug)]
pub struct Loading {
    process: Process,
}

impl Deref for Loading {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Loading {
    /// Whether the library is in `shared_preload_libraries` and the postmaster (or the process of
    /// single-user mode) is loading it.
    #[must_use]
    pub fn preloading(self) -> bool {
        // SAFETY: a plain variable of the server.
        unsafe { abi::process::process_shared_preload_libraries_in_progress }
    }

    /// Whether this is single-user mode: no background workers, no archiver.
    #[must_use]
    pub fn single_user(self) -> bool {
        // SAFETY: a plain variable of the server.
        unsafe { !abi::process::IsPostmasterEnvironment }
    }

    /// Gives a parameter of the server a value that neither command line nor configuration file replaces.
    ///
    /// # Errors
    /// What the server raises.
    pub fn override_parameter(self, name: &CStr, value: &str) -> Result<(), Failure> {
        let value = CString::new(value)
            .map_err(|_| Failure::new(format!("value of {name:?} contains a NUL byte")))?;
        let value = value.as_c_str();
        guard(self.process, move || {
            // SAFETY: both strings are NUL-terminated; the server copies them.
            unsafe {
                abi::guc::SetConfigOption(
                    name.as_ptr(),
                    value.as_ptr(),
                    PGC_POSTMASTER,
                    PGC_S_OVERRIDE,
                );
            }
        })?;
        Ok(())
    }

    /// Says that all parameters under the prefix are defined, so that the server warns of misspelt ones.
    ///
    /// # Errors
    /// What the server raises.
    pub fn reserve_prefix(self, prefix: &'static CStr) -> Result<(), ServerError> {
        // SAFETY: a static NUL-terminated string; the server copies it.
        guard(self.process, move || unsafe {
            abi::guc::MarkGUCPrefixReserved(prefix.as_ptr())
        })
    }

    pub(super) fn process(self) -> Process {
        self.process
    }
}

/// The file this library was loaded from.
#[must_use]
pub fn library_path() -> Option<PathBuf> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here = library_path as *const () as *const c_void;
    // SAFETY: asks which object an address of our own lies in.
    if unsafe { libc::dladdr(here, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: filled by the successful call.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: NUL-terminated, as long as the object is loaded: for good.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(path.to_string_lossy().into_owned()))
}

/// The running server's major.
#[must_use]
pub fn major(process: Process) -> Major {
    process
        .parameter(c"server_version_num")
        .ok()
        .flatten()
        .and_then(|number| number.parse().ok())
        .map_or(Major::NEWEST, Major::of_version_num)
}

struct Block(Magic18);
// SAFETY: the two pointers in it are null or static strings; the block is never changed once made.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

/// The magic block for the server that asks.
///
/// A server that is not known gets the block of the nearest known one and refuses the library itself, naming
/// both versions (dfmgr.c, `incompatible_module_error`); that this is meant is said in a WARNING just before.
///
/// # Safety
/// Called by the server right after it opened the library, on the main thread.
pub unsafe fn magic(name: &'static CStr, version: &'static CStr) -> *const c_void {
    static BLOCK: OnceLock<Block> = OnceLock::new();
    // SAFETY: promised by the caller.
    let process = unsafe { Process::loading() };
    let made = super::panics::caught(|| {
        let block = BLOCK.get_or_init(|| Block(magic_block(process, name, version)));
        if let Some(report) = unknown_major(major(process), &this_library(name)) {
            process.report(&report);
        }
        (&raw const block.0).cast()
    });
    made.unwrap_or(core::ptr::null())
}

/// What the administrator is told when this library is not for the server that loads it.
fn unknown_major(major: Major, library: &str) -> Option<Report> {
    if major.is_supported() {
        return None;
    }
    let (Major(oldest), Major(newest), Major(major)) = (Major::OLDEST, Major::NEWEST, major);
    let message = format!(
        "library \"{library}\" was tested with PostgreSQL {oldest} to {newest}, and cannot be used with {major}"
    );
    let hint = format!("Install a release of it that supports PostgreSQL {major}.");
    Some(Report::of(Level::Warning, Failure::new(message).hint(hint)))
}

/// The file this library was loaded from, or the name it was built under.
fn this_library(name: &CStr) -> String {
    library_path().map_or_else(
        || name.to_string_lossy().into_owned(),
        |path| path.display().to_string(),
    )
}

fn magic_block(process: Process, name: &'static CStr, version: &'static CStr) -> Magic18 {
    let major = major(process).clamp(Major::OLDEST, Major::NEWEST);
    let limit = |parameter: &CStr, usual: c_int| {
        let text = process.parameter(parameter).ok().flatten();
        text.and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let len = if major >= Major(18) {
        size_of::<Magic18>()
    } else {
        size_of::<Magic15>()
    };
    Magic18 {
        len: c_int::try_from(len).unwrap_or_default(),
        abi: AbiValues {
            version: c_int::try_from(major.0 * 100).unwrap_or_default(),
            funcmaxargs: limit(c"max_function_args", 100),
            indexmaxkeys: limit(c"max_index_keys", 32),
            // The parameter counts characters, NAMEDATALEN their terminator too.
            namedatalen: limit(c"max_identifier_length", 63) + 1,
            float8byval: 1,
            abi_extra: abi_extra(option_env!("WALDEN_ABI_EXTRA").unwrap_or("PostgreSQL")),
        },
        name: name.as_ptr(),
        version: version.as_ptr(),
    }
}

fn abi_extra(text: &str) -> [c_char; ABI_EXTRA_BYTES] {
    let mut padded = [0; ABI_EXTRA_BYTES];
    for (to, from) in padded
        .iter_mut()
        .take(ABI_EXTRA_BYTES - 1)
        .zip(text.bytes())
    {
        *to = c_char::from_ne_bytes([from]);
    }
    padded
}

/// `_PG_init`: defines the settings, lets the library do its own, then adds its base backup targets.
///
/// A failure is an ERROR in the process that loads the library: the postmaster does not start, as with a wrong parameter;
/// the archiver ends and is started again; a session, and the recovery worker, go on without the library and may
/// load it again.
///
/// # Safety
/// Called by the server, once per process, on the main thread.
pub unsafe fn init(
    settings: &'static [&'static dyn Setting],
    on_load: Option<OnLoad>,
    targets: &'static [Registration],
) {
    // SAFETY: promised by the caller.
    let process = unsafe { Process::loading() };
    // SAFETY: as above; an ERROR from here passes this frame, which owns nothing.
    unsafe { define(process, settings) };
    // What the frame below owned is gone by the time this one speaks.
    if let Some(speech) = loaded(process, on_load, targets) {
        // SAFETY: this frame owns nothing; ERROR does not return.
        unsafe { speech.speak() };
    }
}

unsafe fn define(process: Process, settings: &'static [&'static dyn Setting]) {
    // After an ERROR from here the library stays in the process and is initialised again when it is loaded again
    // (dfmgr.c, internal_load_library, 15 to 18), but no parameter can be defined a second time.
    static DEFINED: AtomicUsize = AtomicUsize::new(0);
    let major = major(process);
    let preloading = Loading { process }.preloading();
    for setting in settings.iter().skip(DEFINED.load(Ordering::Relaxed)) {
        if preloading || setting.about().context == Context::Reload {
            // SAFETY: the library is being loaded, promised by the caller.
            unsafe { setting.define(major) };
        }
        DEFINED.fetch_add(1, Ordering::Relaxed);
    }
}

fn loaded(
    process: Process,
    on_load: Option<OnLoad>,
    targets: &'static [Registration],
) -> Option<Speech> {
    let loading = Loading { process };
    let outcome = super::panics::caught(|| {
        on_load.map_or(Ok(()), |on_load| on_load(loading))?;
        targets
            .iter()
            .try_for_each(|target| target.register(loading))
    });
    let failure = outcome.and_then(|outcome| outcome).err()?;
    Some(Speech::of_failure(abi::elog::ERROR, &failure).about_configuration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_not_tested_is_refused_in_so_many_words_and_the_others_are_not() {
        for major in 15..=19 {
            assert!(unknown_major(Major(major), "x").is_none(), "{major}");
        }
        for major in [14, 20, 21] {
            let text = unknown_major(Major(major), "/lib/x.so").unwrap().text;
            assert_eq!(
                text.message,
                format!(
                    "library \"/lib/x.so\" was tested with PostgreSQL 15 to 19, and cannot be used with {major}"
                )
            );
            assert!(text.hint.unwrap().contains(&major.to_string()));
        }
    }
}
