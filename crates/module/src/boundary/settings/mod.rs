//! Parameters of a module, declared once as data and defined in the server.
//!
//! A setting is a `static`. The server writes the value there, on the main thread, and `get` reads it there:
//! it asks for a [`Process`](crate::Process), which exists on that thread only. Everything else is the
//! server's own business and works as for its own parameters: units, bounds and spellings are checked when a
//! value is set, and `SHOW` and `pg_settings` show them. An invalid value in the configuration file is
//! reported; on a reload the old value is kept, and when the library is loaded the default is used, with a
//! WARNING (guc.c, `reapply_stacked_values` and `define_custom_variable`, 15 to 18). So the default has to
//! be harmless: "not set" rather than some place.
//!
//! | kind | value | in `pg_settings` |
//! |---|---|---|
//! | [`StringSetting`] | `String` | `string` |
//! | [`BoolSetting`] | `bool` | `bool` |
//! | [`EnumSetting`] | any `Copy` type | `enum`, `enumvals` |
//! | [`IntSetting`] | `i32` | `integer`, `unit`, `min_val`, `max_val` |
//! | [`DurationSetting`] | `Duration` | `integer`, `unit` a unit of time |
//! | [`SizeSetting`] | bytes, `u64` | `integer`, `unit` a unit of memory |
//! | [`ShownSetting`] | made when it is shown | `string`, context `internal` |
//!
//! Contradictions, such as a default that is out of bounds, do not compile. What this leaves to the module:
//! what to do when a value changes, which it notices by reading it again.

mod checks;
mod choice;
mod number;
mod shown;
mod text;

pub use abi::guc::Unit;
pub use checks::Check;
pub use choice::{BoolSetting, EnumSetting};
pub use number::{DurationSetting, IntSetting, MemoryUnit, SizeSetting, TimeUnit};
pub use shown::{Readers, Show, ShownSetting};
pub use text::StringSetting;

use abi::Major;
use abi::guc::{PGC_POSTMASTER, PGC_SIGHUP};
use core::ffi::{CStr, c_char, c_int};
use core::ptr;

/// When a parameter may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// On reload (`sighup`).
    Reload,
    /// At server start only (`postmaster`). Exists only when the library is preloaded: elsewhere the server
    /// refuses to define such parameters (guc.c, `init_custom_variable`, 15 to 18), so the setting keeps its
    /// default there.
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
    /// More, shown in `pg_settings.extra_desc`; empty for nothing.
    pub long: &'static CStr,
    /// When it may change.
    pub context: Context,
}

impl About {
    /// A parameter that may change on reload.
    #[must_use]
    pub const fn reload(name: &'static CStr, short: &'static CStr) -> Self {
        Self {
            name,
            short,
            long: c"",
            context: Context::Reload,
        }
    }

    /// A parameter that is read at server start only; the library has to be preloaded.
    #[must_use]
    pub const fn restart(name: &'static CStr, short: &'static CStr) -> Self {
        Self {
            name,
            short,
            long: c"",
            context: Context::Restart,
        }
    }

    /// The same with more to say.
    #[must_use]
    pub const fn long(mut self, long: &'static CStr) -> Self {
        self.long = long;
        self
    }

    /// The description below the first sentence: null where there is none.
    fn long_or_null(&self) -> *const c_char {
        if self.long.is_empty() {
            ptr::null()
        } else {
            self.long.as_ptr()
        }
    }
}

/// A parameter of any kind.
pub trait Setting: Sync {
    /// Name, texts and context.
    fn about(&self) -> &About;
    /// Defines it in the server. May raise ERROR; owns nothing.
    ///
    /// # Safety
    /// While the library is being loaded, on the main thread.
    unsafe fn define(&'static self, major: Major);
}
