//! A parameter that is a text.

use super::checks::{self, Check};
use super::{About, Setting};
use crate::Process;
use abi::Major;
use abi::guc::StringCheckHook;
use core::ffi::{CStr, c_char};
use core::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A parameter whose value is a text.
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
        let mut setting = Self::new(about, default);
        setting.check = Some(checks::text::<C>);
        setting
    }

    /// The present value; the default before the parameter is defined.
    #[must_use]
    pub fn get(&self, _: Process) -> String {
        let value = self.value.load(Ordering::Relaxed);
        if value.is_null() {
            return self.default.to_string_lossy().into_owned();
        }
        // SAFETY: the server keeps a NUL-terminated string here and changes it on this thread only.
        unsafe { CStr::from_ptr(value) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Setting for StringSetting {
    fn about(&self) -> &About {
        &self.about
    }

    unsafe fn define(&'static self, _: Major) {
        let about = &self.about;
        // SAFETY: all strings and the variable are static.
        unsafe {
            abi::guc::DefineCustomStringVariable(
                about.name.as_ptr(),
                about.short.as_ptr(),
                about.long_or_null(),
                self.value.as_ptr(),
                self.default.as_ptr(),
                about.context.as_guc(),
                0,
                self.check,
                None,
                None,
            );
        }
    }
}
