//! The value of `walden.archive_libraries`: names of libraries, separated by commas.
//!
//! Guarantees that no library is in it twice, under whichever spelling. There is no check hook that refuses a
//! bad list: at the server's start a refused value is replaced by the default (guc.c, `define_custom_variable`,
//! 15 to 18), and the default is Walden alone.

use module::Failure;

/// Each module has its end registered with the server, which has room for twenty (ipc.c, `MAX_ON_EXITS`, 15 to
/// 18), its own among them.
const LIBRARIES_MAX: usize = 8;

/// The names, in order; none for an empty list.
///
/// Fails when the list cannot be used, with the cure as hint.
pub(super) fn parse(list: &str) -> Result<Vec<String>, Failure> {
    if list.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(unusable(
                "has an empty item",
                "Remove the comma beside it, or name a library there.",
            ));
        }
        if name.contains(['"', '\'']) {
            return Err(unusable(
                &format!("has quotes in {name:?}"),
                "Put quotes around the whole list only.",
            ));
        }
        if names.iter().any(|other| stem(other) == stem(name)) {
            return Err(unusable(
                &format!("lists library \"{}\" twice", stem(name)),
                "List each library once.",
            ));
        }
        names.push(name.to_owned());
    }
    if names.len() > LIBRARIES_MAX {
        return Err(unusable(
            &format!("lists {} libraries", names.len()),
            &format!("List at most {LIBRARIES_MAX}."),
        ));
    }
    Ok(names)
}

/// A library's name without directory and suffix, which the server's search adds (dfmgr.c,
/// `expand_dynamic_library_name`, 15 to 18).
fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.strip_suffix(".so").unwrap_or(file)
}

fn unusable(what: &str, cure: &str) -> Failure {
    let name = crate::settings::archive_libraries_name();
    Failure::new(format!("\"{name}\" {what}")).hint(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_in_order_and_without_the_spaces_around_them() {
        assert_eq!(
            parse(" walden,basic_archive , /lib/mine.so").unwrap(),
            ["walden", "basic_archive", "/lib/mine.so"]
        );
        for empty in ["", "  "] {
            assert!(parse(empty).unwrap().is_empty());
        }
    }

    #[test]
    fn a_list_that_cannot_be_used_is_refused_with_the_cure() {
        for (list, what) in [
            ("a,,b", "\"walden.archive_libraries\" has an empty item"),
            ("a, b,", "has an empty item"),
            (",", "has an empty item"),
            ("a, b, a", "lists library \"a\" twice"),
            ("walden, $libdir/walden", "lists library \"walden\" twice"),
            ("/x/a.so, a", "lists library \"a\" twice"),
            ("\"a\", b", "has quotes in"),
            ("a,b,c,d,e,f,g,h,i", "lists 9 libraries"),
        ] {
            let failure = parse(list).unwrap_err();
            assert!(failure.message.contains(what), "{list:?}: {failure:?}");
            assert!(failure.hint.is_some(), "{list:?}");
        }
        assert_eq!(parse("a,b,c,d,e,f,g,h").unwrap().len(), LIBRARIES_MAX);
    }
}
