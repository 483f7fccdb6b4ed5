//! Parameters of a module, declared once as data and defined in the server.
//!
//! A setting is a `static`: the server writes its value there, on the main thread, and [`Process`]-bearing
//! code reads it there.

use super::process::Process;
use abi::Major;
use abi::guc::{ConfigEnumEntry, PGC_POSTMASTER, PGC_SIGHUP, StringCheckHook, Unit};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// When a parameter may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// On reload (`sighup`).
    Reload,
    /// At server start only (`postmaster`).  Exists only when the library is preloaded: elsewhere the server
    /// refuses to define such parameters (guc.c, `init_custom_variable`).
    Restart,
}

impl Context {
    fn as_guc(self) -> c_int {
        match self {
            Self::Reload => PGC_SIGHUP,
            Self::Restart => PGC_POSTMASTER,
        }
    }
}

/// Name, texts and context: what all kinds share.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// `prefix.name`; a dotless name cannot stand in a configuration file.
    pub name: &'static CStr,
    /// One sentence, shown in `pg_settings.short_desc`.
    pub short: &'static CStr,
    /// More, shown in `pg_settings.extra_desc`.
    pub long: &'static CStr,
    /// When it may change.
    pub context: Context,
}

/// A parameter of any kind.
pub trait Setting: Sync {
    /// When it may change.
    fn context(&self) -> Context;
    /// Defines it in the server.  May raise ERROR; owns nothing.
    ///
    /// # Safety
    /// While the library is being loaded, on the main thread.
    unsafe fn define(&'static self, major: Major);
}

/// Decides whether a text is a valid value.
pub trait Check {
    /// The reason why it is not, to be shown as the detail of the server's message.
    ///
    /// # Errors
    /// The reason.
    fn check(value: &str) -> Result<(), String>;
}

/// A text.
#[derive(Debug)]
pub struct StringSetting {
    about: About,
    default: &'static CStr,
    check: Option<StringCheckHook>,
    value: AtomicPtr<c_char>,
}

impl StringSetting {
    /// A text without a check.
    #[must_use]
    pub const fn new(about: About, default: &'static CStr) -> Self {
        Self {
            about,
            default,
            check: None,
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A text with a check.
    #[must_use]
    pub const fn checked<C: Check>(about: About, default: &'static CStr) -> Self {
        let check: StringCheckHook = string_check::<C>;
        Self {
            about,
            default,
            check: Some(check),
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The present value; empty before the parameter is defined.
    #[must_use]
    pub fn get(&self, _: Process) -> String {
        let value = self.value.load(Ordering::Relaxed);
        if value.is_null() {
            return String::new();
        }
        // SAFETY: the server keeps a NUL-terminated string here and changes it on this thread only.
        unsafe { CStr::from_ptr(value) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Setting for StringSetting {
    fn context(&self) -> Context {
        self.about.context
    }

    unsafe fn define(&'static self, _: Major) {
        let About {
            name,
            short,
            long,
            context,
        } = self.about;
        // SAFETY: all strings and the variable are static.
        unsafe {
            abi::guc::DefineCustomStringVariable(
                name.as_ptr(),
                short.as_ptr(),
                long.as_ptr(),
                self.value.as_ptr(),
                self.default.as_ptr(),
                context.as_guc(),
                0,
                self.check,
                None,
                None,
            );
        }
    }
}

/// A whole number with bounds.
#[derive(Debug)]
pub struct IntSetting {
    about: About,
    default: i32,
    min: i32,
    max: i32,
    unit: Unit,
    value: AtomicI32,
}

impl IntSetting {
    /// A number from `min` to `max`, in `unit`.
    #[must_use]
    pub const fn new(about: About, default: i32, min: i32, max: i32, unit: Unit) -> Self {
        Self {
            about,
            default,
            min,
            max,
            unit,
            value: AtomicI32::new(default),
        }
    }

    /// The present value.
    #[must_use]
    pub fn get(&self, _: Process) -> i32 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Setting for IntSetting {
    fn context(&self) -> Context {
        self.about.context
    }

    unsafe fn define(&'static self, major: Major) {
        let About {
            name,
            short,
            long,
            context,
        } = self.about;
        // SAFETY: all strings and the variable are static.
        unsafe {
            abi::guc::DefineCustomIntVariable(
                name.as_ptr(),
                short.as_ptr(),
                long.as_ptr(),
                self.value.as_ptr(),
                self.default,
                self.min,
                self.max,
                context.as_guc(),
                abi::guc::unit_flags(self.unit, major),
                None,
                None,
                None,
            );
        }
    }
}

/// The most spellings an enumerated parameter may have.
const CHOICES_MAX: usize = 8;

/// One of several words.
#[derive(Debug)]
pub struct EnumSetting {
    about: About,
    choices: &'static [&'static CStr],
    entries: Entries,
    value: AtomicI32,
}

#[derive(Debug)]
struct Entries(UnsafeCell<[ConfigEnumEntry; CHOICES_MAX + 1]>);
// SAFETY: written once, by `define`, on the main thread while the library is loaded; read by the server on
// the same thread.
unsafe impl Sync for Entries {}

const END: ConfigEnumEntry = ConfigEnumEntry {
    name: ptr::null(),
    val: 0,
    hidden: false,
};

impl EnumSetting {
    /// One of `choices` (at most eight); the first is the default.
    #[must_use]
    pub const fn new(about: About, choices: &'static [&'static CStr]) -> Self {
        assert!(!choices.is_empty() && choices.len() <= CHOICES_MAX);
        let entries = Entries(UnsafeCell::new([END; CHOICES_MAX + 1]));
        Self {
            about,
            choices,
            entries,
            value: AtomicI32::new(0),
        }
    }

    /// The present choice's place in the list.
    #[must_use]
    pub fn get(&self, _: Process) -> usize {
        usize::try_from(self.value.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

impl Setting for EnumSetting {
    fn context(&self) -> Context {
        self.about.context
    }

    unsafe fn define(&'static self, _: Major) {
        let About {
            name,
            short,
            long,
            context,
        } = self.about;
        // SAFETY: nobody else looks at the list yet, see `Entries`.
        let entries = unsafe { &mut *self.entries.0.get() };
        for ((entry, choice), val) in entries.iter_mut().zip(self.choices).zip(0..) {
            *entry = ConfigEnumEntry {
                name: choice.as_ptr(),
                val,
                hidden: false,
            };
        }
        // SAFETY: all strings, the list and the variable are static; the list ends with a null name.
        unsafe {
            abi::guc::DefineCustomEnumVariable(
                name.as_ptr(),
                short.as_ptr(),
                long.as_ptr(),
                self.value.as_ptr(),
                0,
                self.entries.0.get().cast(),
                context.as_guc(),
                0,
                None,
                None,
                None,
            );
        }
    }
}

/// Where the reason for a refused value waits for the server, which reads it right after the hook returned.
static REASON: Reason = Reason(UnsafeCell::new(super::speech::Text::EMPTY));
struct Reason(UnsafeCell<super::speech::Text<1024>>);
// SAFETY: check hooks run on the main thread only.
unsafe impl Sync for Reason {}

unsafe extern "C-unwind" fn string_check<C: Check>(
    new_value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: c_int,
) -> bool {
    // SAFETY: the server passes the place of the new value (guc.c, call_string_check_hook).
    let value = unsafe { *new_value };
    let verdict = super::panics::caught(|| {
        if value.is_null() {
            return Ok(());
        }
        // SAFETY: NUL-terminated by the server.
        let value = unsafe { CStr::from_ptr(value) };
        C::check(&value.to_string_lossy())
    });
    let reason = match verdict {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(panic) => panic.message,
    };
    // SAFETY: on the main thread, see `Reason`.
    unsafe { *REASON.0.get() = super::speech::Text::of(&reason) };
    // SAFETY: the buffer is static, and its pointer is read by the server before the next hook runs.
    unsafe { abi::guc::GUC_check_errdetail_string = REASON.0.get().cast() };
    false
}
