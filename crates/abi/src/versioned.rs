//! Symbols that only some majors have, found at run time.
//!
//! A library is loaded with all its references resolved at once (`RTLD_NOW`), so a reference that one major
//! lacks would make that major refuse the library.

use core::ffi::{c_char, c_void};

/// `arch_module_check_errdetail_string` (17 and later): the reason for "not configured". `None` where the
/// server has no such variable.
#[must_use]
pub fn arch_module_check_errdetail_string() -> Option<*mut *mut c_char> {
    lookup(c"arch_module_check_errdetail_string").map(|found| found.cast::<*mut c_char>())
}

fn lookup(name: &core::ffi::CStr) -> Option<*mut c_void> {
    // SAFETY: the name is NUL-terminated and RTLD_DEFAULT searches the loaded objects only (dlsym(3)).
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
