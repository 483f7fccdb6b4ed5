//! Server parameters (`utils/guc.h`).

use crate::Major;
use core::ffi::{c_char, c_int, c_void};
use core::mem::{offset_of, size_of};

/// `PGC_INTERNAL`: shown, never set.
pub const PGC_INTERNAL: c_int = 0;
/// `PGC_POSTMASTER`: set at server start.
pub const PGC_POSTMASTER: c_int = 1;
/// `PGC_SIGHUP`: set in the configuration file, re-read on reload.
pub const PGC_SIGHUP: c_int = 2;
/// `PGC_S_OVERRIDE`: a source that no configuration file and no command line beats.
pub const PGC_S_OVERRIDE: c_int = 10;

/// Units of an integer parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number without a unit.
    None,
    /// `GUC_UNIT_MS`: the value counts milliseconds.
    Milliseconds,
    /// `GUC_UNIT_S`: the value counts seconds.
    Seconds,
    /// `GUC_UNIT_MIN`: the value counts minutes.
    Minutes,
    /// `GUC_UNIT_BYTE`: the value counts bytes.
    Bytes,
    /// `GUC_UNIT_KB`: the value counts units of 1024 bytes.
    Kilobytes,
    /// `GUC_UNIT_MB`: the value counts units of 1024 kilobytes.
    Megabytes,
}

/// The flag bits for a unit: they moved in 16.
#[must_use]
pub fn unit_flags(unit: Unit, major: Major) -> c_int {
    let moved = major >= Major(16);
    match unit {
        Unit::None => 0,
        Unit::Kilobytes if moved => 0x0100_0000,
        Unit::Megabytes if moved => 0x0400_0000,
        Unit::Bytes if moved => 0x0500_0000,
        Unit::Milliseconds if moved => 0x1000_0000,
        Unit::Seconds if moved => 0x2000_0000,
        Unit::Minutes if moved => 0x3000_0000,
        Unit::Kilobytes => 0x1000,
        Unit::Megabytes => 0x4000,
        Unit::Bytes => 0x8000,
        Unit::Milliseconds => 0x10000,
        Unit::Seconds => 0x20000,
        Unit::Minutes => 0x30000,
    }
}

/// The flag bits of a parameter that is only shown: not in the sample file, not allowed in a file, not reset; and, if so
/// wanted, `GUC_SUPERUSER_ONLY`, which admits `pg_read_all_settings` too. They moved in 16.
#[must_use]
pub fn read_only_flags(privileged: bool, major: Major) -> c_int {
    let (no_reset_all, not_in_sample, disallow_in_file, superuser_only) = if major >= Major(16) {
        (0x10, 0x80, 0x100, 0x400)
    } else {
        (0x8, 0x20, 0x40, 0x100)
    };
    let base = no_reset_all | not_in_sample | disallow_in_file;
    if privileged {
        base | superuser_only
    } else {
        base
    }
}

/// `struct config_enum_entry`; a list of them ends with a null name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ConfigEnumEntry {
    /// Spelling; null in the last entry.
    pub name: *const c_char,
    /// What the variable is set to for this word.
    pub val: c_int,
    /// Accepted but not listed.
    pub hidden: bool,
}

const _: () = assert!(size_of::<ConfigEnumEntry>() == 16);
const _: () = assert!(offset_of!(ConfigEnumEntry, val) == 8);
const _: () = assert!(offset_of!(ConfigEnumEntry, hidden) == 12);

/// `GucStringCheckHook`: new value, extra, source. A hook that replaces neither works alike in all majors.
pub type StringCheckHook =
    unsafe extern "C-unwind" fn(*mut *mut c_char, *mut *mut c_void, c_int) -> bool;

/// `GucIntCheckHook`: new value, extra, source.
pub type IntCheckHook = unsafe extern "C-unwind" fn(*mut c_int, *mut *mut c_void, c_int) -> bool;

/// `GucShowHook`: the text to show, which the server copies.
pub type ShowHook = unsafe extern "C-unwind" fn() -> *const c_char;

unsafe extern "C-unwind" {
    /// The value of a parameter as text, or null when missing and `missing_ok`.
    pub fn GetConfigOption(
        name: *const c_char,
        missing_ok: bool,
        restrict_privileged: bool,
    ) -> *const c_char;
    /// Sets a parameter.
    pub fn SetConfigOption(
        name: *const c_char,
        value: *const c_char,
        context: c_int,
        source: c_int,
    );
    /// Re-reads the configuration file.
    pub fn ProcessConfigFile(context: c_int);
    /// Defines a string parameter; the variable must live as long as the process.
    pub fn DefineCustomStringVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value_addr: *mut *mut c_char,
        boot_value: *const c_char,
        context: c_int,
        flags: c_int,
        check_hook: Option<StringCheckHook>,
        assign_hook: Option<unsafe extern "C-unwind" fn()>,
        show_hook: Option<ShowHook>,
    );
    /// Defines an integer parameter.
    pub fn DefineCustomIntVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value_addr: *mut c_int,
        boot_value: c_int,
        min_value: c_int,
        max_value: c_int,
        context: c_int,
        flags: c_int,
        check_hook: Option<IntCheckHook>,
        assign_hook: Option<unsafe extern "C-unwind" fn()>,
        show_hook: Option<unsafe extern "C-unwind" fn()>,
    );
    /// Defines a yes-or-no parameter.
    pub fn DefineCustomBoolVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value_addr: *mut bool,
        boot_value: bool,
        context: c_int,
        flags: c_int,
        check_hook: Option<unsafe extern "C-unwind" fn()>,
        assign_hook: Option<unsafe extern "C-unwind" fn()>,
        show_hook: Option<unsafe extern "C-unwind" fn()>,
    );
    /// Defines an enumerated parameter.
    pub fn DefineCustomEnumVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value_addr: *mut c_int,
        boot_value: c_int,
        options: *const ConfigEnumEntry,
        context: c_int,
        flags: c_int,
        check_hook: Option<unsafe extern "C-unwind" fn()>,
        assign_hook: Option<unsafe extern "C-unwind" fn()>,
        show_hook: Option<unsafe extern "C-unwind" fn()>,
    );
    /// Says that all parameters under a prefix are defined; others get a WARNING.
    pub fn MarkGUCPrefixReserved(class_name: *const c_char);
}

unsafe extern "C" {
    /// What a check hook has to say beyond "no" (read by the server right after the hook).
    pub static mut GUC_check_errdetail_string: *mut c_char;
    /// What a check hook has the server say in place of its message, which repeats the value.
    pub static mut GUC_check_errmsg_string: *mut c_char;
}
