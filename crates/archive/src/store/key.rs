//! Keys of stored objects: a file is stored under the server's own name, in whatever form (`form.rs`).
//!
//! Pure: nothing here looks into a store. What stands beside a name, and is none, is told by [`beside`].

use wal::WalFileName;

/// The key of a file.
pub(crate) fn key_of(name: &WalFileName) -> String {
    name.to_string()
}

/// Which file a key holds; `None` for anything that is not a WAL file's.
pub(crate) fn parse_key(key: &str) -> Option<WalFileName> {
    key.parse().ok()
}

/// The file that a key looks like, where it is not that file's key: `NAME.gz`, `NAME.zst`, `NAME.ZST`, `NAME.partial.lz4`,
/// `00000002.history.old`. The longest name that it begins with counts. `None` for a file's own key (a partial segment is
/// one, and so is a backup history file), and for all that does not begin like one.
///
/// Such an object cannot be restored as that file, and that file must not be called absent while it is there.
pub fn beside(key: &str) -> Option<WalFileName> {
    if parse_key(key).is_some() {
        return None;
    }
    let dots = key.rmatch_indices('.');
    let mut fronts = dots.filter_map(|(dot, _)| key.get(..dot));
    fronts.find_map(|front| front.parse().ok())
}

/// What to do about an object that stands [`beside`] a file's name.
pub fn rename_hint(key: &str, name: &WalFileName) -> String {
    let suffix = key.get(name.to_string().len()..).unwrap_or_default();
    match suffix.to_ascii_lowercase().as_str() {
        ".zst" | ".lz4" | ".age" | ".zst.age" | ".lz4.age" => format!(
            "A file is stored under its own name in any form. If \"{key}\" is whole, rename it to \"{name}\" (mv -n)."
        ),
        _ => format!(
            "Walden does not read \"{suffix}\". If \"{key}\" is whole, unpack it and give the contents the name \"{name}\"."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "0000000100000000000000A4",
        "0000000100000000000000A4.partial",
        "00000002.history",
        "0000000100000000000000A4.00000028.backup",
    ];

    #[test]
    fn a_key_is_the_name_and_stands_beside_nothing() {
        for text in NAMES {
            let name: WalFileName = text.parse().unwrap();
            assert_eq!(key_of(&name), text);
            assert_eq!(parse_key(text), Some(name));
            assert_eq!(beside(text), None);
        }
    }

    #[test]
    fn a_name_with_something_behind_a_dot_stands_beside_that_name() {
        for text in NAMES {
            for suffix in [
                ".gz",
                ".zst",
                ".ZST",
                ".lz4.age",
                ".",
                ".tmp.1234",
                ".partial2",
            ] {
                let key = format!("{text}{suffix}");
                assert_eq!(parse_key(&key), None, "{key}");
                assert_eq!(beside(&key).unwrap().to_string(), text, "{key}");
            }
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for key in [
            "walden.json",
            "walden.staged.0000000100000000000000A4.12",
            "archtemp.0000000100000000000000A4.1.2",
            "0000000100000000000000A4zst",
            "0000000100000000000000a4.gz",
            "x",
            ".zst",
            "",
            "lost+found",
        ] {
            assert_eq!(parse_key(key), None, "{key}");
            assert_eq!(beside(key), None, "{key}");
        }
    }

    #[test]
    fn the_hint_says_rename_where_the_form_can_be_read_and_unpack_where_not() {
        let name = NAMES[0].parse().unwrap();
        assert!(rename_hint(&format!("{name}.zst"), &name).contains("(mv -n)"));
        assert!(rename_hint(&format!("{name}.gz"), &name).contains("unpack"));
    }
}
