//! Parameters that are a choice: yes or no, or one of several words.

use super::{About, Setting};
use crate::Process;
use abi::Major;
use abi::guc::ConfigEnumEntry;
use core::ffi::CStr;
use core::ptr;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Yes or no, in all the server's spellings (`on`, `off`, `true`, ...).
#[derive(Debug)]
pub struct BoolSetting {
    about: About,
    default: bool,
    value: AtomicBool,
}

impl BoolSetting {
    /// A parameter that is yes or no, with its default.
    #[must_use]
    pub const fn new(about: About, default: bool) -> Self {
        Self {
            about,
            default,
            value: AtomicBool::new(default),
        }
    }

    /// The present value.
    #[must_use]
    pub fn get(&self, _: Process) -> bool {
        self.value.load(Ordering::Relaxed)
    }
}

impl Setting for BoolSetting {
    fn about(&self) -> &About {
        &self.about
    }

    unsafe fn define(&'static self, _: Major) {
        let about = &self.about;
        // SAFETY: all strings and the variable are static; the server writes true or false.
        unsafe {
            abi::guc::DefineCustomBoolVariable(
                about.name.as_ptr(),
                about.short.as_ptr(),
                about.long_or_null(),
                self.value.as_ptr(),
                self.default,
                about.context.as_guc(),
                0,
                None,
                None,
                None,
            );
        }
    }
}

/// The most words an enumerated parameter may have.
const CHOICES_MAX: usize = 32;

/// One of several words, each with the value it stands for.
///
/// ```
/// use module::settings::{About, EnumSetting};
///
/// #[derive(Clone, Copy)]
/// enum Pace {
///     Steady,
///     Hurried,
/// }
///
/// static PACE: EnumSetting<Pace> = EnumSetting::new(
///     About::reload(c"keeper.pace", c"Sets how fast files are archived."),
///     &[(c"steady", Pace::Steady), (c"hurried", Pace::Hurried)],
/// );
/// ```
#[derive(Debug)]
pub struct EnumSetting<T: 'static> {
    about: About,
    choices: &'static [(&'static CStr, T)],
    default: T,
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

impl<T: Copy + Sync> EnumSetting<T> {
    /// One of `choices` (at most 32); the first is the default.
    #[must_use]
    pub const fn new(about: About, choices: &'static [(&'static CStr, T)]) -> Self {
        assert!(choices.len() <= CHOICES_MAX, "too many choices");
        let [(_, default), ..] = choices else {
            #[expect(clippy::panic, reason = "while compiling, where statics are made")]
            {
                panic!("no choices")
            }
        };
        Self {
            about,
            choices,
            default: *default,
            entries: Entries(UnsafeCell::new([END; CHOICES_MAX + 1])),
            value: AtomicI32::new(0),
        }
    }

    /// The present choice's value.
    #[must_use]
    pub fn get(&self, _: Process) -> T {
        let place = usize::try_from(self.value.load(Ordering::Relaxed)).ok();
        place
            .and_then(|place| self.choices.get(place))
            .map_or(self.default, |(_, value)| *value)
    }
}

impl<T: Copy + Sync> Setting for EnumSetting<T> {
    fn about(&self) -> &About {
        &self.about
    }

    unsafe fn define(&'static self, _: Major) {
        let about = &self.about;
        // SAFETY: the list is not used elsewhere yet, see `Entries`.
        let entries = unsafe { &mut *self.entries.0.get() };
        for ((entry, (word, _)), val) in entries.iter_mut().zip(self.choices).zip(0..) {
            *entry = ConfigEnumEntry {
                name: word.as_ptr(),
                val,
                hidden: false,
            };
        }
        // SAFETY: all strings, the list and the variable are static; the list ends with a null name.
        unsafe {
            abi::guc::DefineCustomEnumVariable(
                about.name.as_ptr(),
                about.short.as_ptr(),
                about.long_or_null(),
                self.value.as_ptr(),
                0,
                self.entries.0.get().cast(),
                about.context.as_guc(),
                0,
                None,
                None,
                None,
            );
        }
    }
}
