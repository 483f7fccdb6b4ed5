//! A parameter that nobody sets: its value is made each time it is shown, in the session that shows it.
//!
//! So a module can answer `SHOW` and `current_setting` without a function in SQL, on standbys too. `pg_settings` calls it
//! with all the others, so it has to be quick and must not wait for anything.

use super::{About, Context, Setting};
use crate::boundary::panics;
use abi::Major;
use abi::guc::{PGC_INTERNAL, ShowHook, read_only_flags};
use core::ffi::c_char;
use core::ptr;
use std::cell::UnsafeCell;
use std::sync::atomic::AtomicPtr;

/// Makes the value of a [`ShownSetting`].
pub trait Show {
    /// The value as text. It is cut at the first NUL byte.
    fn show() -> String;
}

/// Which roles are shown a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// All roles.
    All,
    /// Superusers and members of `pg_read_all_settings`, so those of `pg_monitor` too (`ConfigOptionIsVisible`, guc_funcs.c,
    /// 16 and later; guc.c, 15).
    Monitors,
}

/// A parameter that is only shown.
#[derive(Debug)]
pub struct ShownSetting {
    about: About,
    readers: Readers,
    hook: ShowHook,
    /// The server wants a variable; the hook is asked instead of it.
    value: AtomicPtr<c_char>,
}

impl ShownSetting {
    /// A parameter that shows what `S` makes. The context of `about` is not looked at: nothing sets it.
    #[must_use]
    pub const fn new<S: Show>(about: About, readers: Readers) -> Self {
        Self {
            about: About {
                context: Context::Reload,
                ..about
            },
            readers,
            hook: shown::<S>,
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl Setting for ShownSetting {
    fn about(&self) -> &About {
        &self.about
    }

    unsafe fn define(&'static self, major: Major) {
        let about = &self.about;
        let flags = read_only_flags(self.readers == Readers::Monitors, major);
        // SAFETY: all strings and the variable are static.
        unsafe {
            abi::guc::DefineCustomStringVariable(
                about.name.as_ptr(),
                about.short.as_ptr(),
                about.long_or_null(),
                self.value.as_ptr(),
                c"".as_ptr(),
                PGC_INTERNAL,
                flags,
                None,
                None,
                Some(self.hook),
            );
        }
    }
}

/// Where the shown value waits for the server, which copies it before it shows the next one.
static SHOWN: Shown = Shown(UnsafeCell::new(Vec::new()));
struct Shown(UnsafeCell<Vec<u8>>);
// SAFETY: parameters are shown on the main thread only.
unsafe impl Sync for Shown {}

unsafe extern "C-unwind" fn shown<S: Show>() -> *const c_char {
    let text = panics::caught(S::show).unwrap_or_default();
    let mut bytes = text.into_bytes();
    bytes.push(0);
    // SAFETY: on the main thread, see `SHOWN`.
    let place = unsafe { &mut *SHOWN.0.get() };
    *place = bytes;
    place.as_ptr().cast()
}
