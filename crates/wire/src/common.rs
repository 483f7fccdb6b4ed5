//! What both sides must think alike about: which module is Walden's own.

/// The name of Walden's own recovery module, which needs no host: the client can do its jobs itself.
pub const OWN_LIBRARY: &str = "walden";

/// Whether a library's name means Walden's own, in any of the spellings that the server's search accepts
/// (`expand_dynamic_library_name`, `dfmgr.c`, 15 to 18).
#[must_use]
pub fn is_own_library(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.strip_suffix(".so").unwrap_or(file) == OWN_LIBRARY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_library_is_known_by_any_spelling_and_no_other_is() {
        for own in [
            "walden",
            "walden.so",
            "$libdir/walden",
            "/usr/lib/walden.so",
        ] {
            assert!(is_own_library(own), "{own}");
        }
        for other in [
            "",
            "walden2",
            "basic_archive",
            "walden/other",
            "/x/walden.so/y",
        ] {
            assert!(!is_own_library(other), "{other}");
        }
    }
}
