//! Walden's parameters: their names, and what each may be set to.
//!
//! One table for the library, which declares them to the server, and for the program, which reads them in files where no server
//! does. Leaves to the library what each is for, and when it can be changed.

use crate::error::Error;
use crate::options::Verify;
use crate::options::compression::Compression;
use crate::options::identity::IdentityFile;
use crate::options::location::Location;
use crate::options::number::{Number, Unit};
use crate::options::recipients::Recipients;
use crate::options::settings::{MissingSegment, named};

/// An hour: a longer deadline would be none, and the recovery worker's client waits a little longer than it.
const TIMEOUT: Number = Number {
    default: 60,
    min: 1,
    max: 3600,
    unit: Unit::Seconds,
};

/// `walden.archive_timeout`
pub const ARCHIVE_TIMEOUT: Number = TIMEOUT;

/// `walden.restore_timeout`
pub const RESTORE_TIMEOUT: Number = TIMEOUT;

/// `walden.archive_jobs`
pub const ARCHIVE_JOBS: Number = Number {
    default: 4,
    min: 1,
    max: 64,
    unit: Unit::None,
};

/// `walden.memory_limit`
pub const MEMORY_LIMIT: Number = Number {
    default: 128,
    min: 16,
    max: 65_536,
    unit: Unit::Megabytes,
};

/// `walden.restore_prefetch`
pub const RESTORE_PREFETCH: Number = Number {
    default: 8,
    min: 0,
    max: 64,
    unit: Unit::None,
};

/// A parameter that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    check: fn(&str) -> Result<(), Error>,
}

impl Parameter {
    const fn new(name: &'static str, check: fn(&str) -> Result<(), Error>) -> Parameter {
        Parameter { name, check }
    }

    /// Whether the server takes this value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unusable`] if it does not, naming the parameter. A value that may hold a secret is not repeated.
    pub fn check(&self, value: &str) -> Result<(), Error> {
        (self.check)(value).map_err(|error| named(self.name, &error))
    }
}

/// All of them, in the order of their names.
pub static PARAMETERS: [Parameter; 15] = [
    Parameter::new("walden.archive", check_location),
    Parameter::new("walden.archive_cleanup_library", any),
    Parameter::new("walden.archive_jobs", |text| number(ARCHIVE_JOBS, text)),
    Parameter::new("walden.archive_libraries", |text| libraries(text).map(drop)),
    Parameter::new("walden.archive_timeout", |text| {
        number(ARCHIVE_TIMEOUT, text)
    }),
    Parameter::new("walden.compression", check_compression),
    Parameter::new("walden.identity_file", check_identity_file),
    Parameter::new("walden.memory_limit", |text| number(MEMORY_LIMIT, text)),
    Parameter::new("walden.missing_segment", |text| {
        text.parse::<MissingSegment>().map(drop)
    }),
    Parameter::new("walden.recipients", check_recipients),
    Parameter::new("walden.recovery_end_library", any),
    Parameter::new("walden.restore_library", any),
    Parameter::new("walden.restore_prefetch", |text| {
        number(RESTORE_PREFETCH, text)
    }),
    Parameter::new("walden.restore_timeout", |text| {
        number(RESTORE_TIMEOUT, text)
    }),
    Parameter::new("walden.verify", |text| text.parse::<Verify>().map(drop)),
];

fn any(_: &str) -> Result<(), Error> {
    Ok(())
}

fn number(number: Number, text: &str) -> Result<(), Error> {
    number.parse(text).map(drop)
}

/// Checks a value of `walden.archive`; an empty one means not set.
///
/// # Errors
/// As the parsing of a [`Location`].
pub fn check_location(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    text.parse::<Location>().map(drop)
}

/// Checks a value of `walden.compression`.
///
/// # Errors
/// As the parsing of a [`Compression`].
pub fn check_compression(text: &str) -> Result<(), Error> {
    text.parse::<Compression>().map(drop)
}

/// Checks a value of `walden.recipients`.
///
/// # Errors
/// As the parsing of [`Recipients`].
pub fn check_recipients(text: &str) -> Result<(), Error> {
    text.parse::<Recipients>().map(drop)
}

/// Checks a value of `walden.identity_file`; an empty one means none.
///
/// # Errors
/// As the parsing of an [`IdentityFile`].
pub fn check_identity_file(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    text.parse::<IdentityFile>().map(drop)
}

/// Each archive module has its end registered with the server, which has room for twenty (ipc.c, `MAX_ON_EXITS`, 15 to
/// 18), its own among them.
const LIBRARIES_MAX: usize = 8;

/// The names of `walden.archive_libraries`, in order and none twice, under whichever spelling; none for an empty list.
///
/// # Errors
/// [`crate::ErrorKind::Unusable`] when the list cannot be used, with the cure as hint.
pub fn libraries(list: &str) -> Result<Vec<String>, Error> {
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

fn unusable(what: &str, cure: &str) -> Error {
    Error::unusable(format!("it {what}")).with_hint(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_takes_its_default_and_names_itself_when_it_refuses() {
        assert!(PARAMETERS.is_sorted_by_key(|parameter| parameter.name));
        for (name, good, bad) in [
            ("walden.archive", "", "relative/path"),
            ("walden.archive_jobs", "4", "65"),
            ("walden.archive_libraries", "", "a,a"),
            ("walden.archive_timeout", "60", "2h"),
            ("walden.compression", "zstd", "brotli"),
            ("walden.identity_file", "", "relative"),
            ("walden.memory_limit", "128MB", "15MB"),
            ("walden.missing_segment", "error", "maybe"),
            ("walden.recipients", "", "nobody"),
            ("walden.restore_prefetch", "8", "-1"),
            ("walden.restore_timeout", "60s", "soon"),
            ("walden.verify", "Records", "some"),
        ] {
            let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name);
            let parameter = parameter.unwrap();
            assert!(parameter.check(good).is_ok(), "{name}");
            let error = parameter.check(bad).unwrap_err().to_string();
            let begins = format!("invalid value for parameter \"{name}\": ");
            assert!(error.starts_with(&begins), "{error}");
        }
    }

    #[test]
    fn names_are_taken_in_order_and_without_the_spaces_around_them() {
        assert_eq!(
            libraries(" walden,basic_archive , /lib/mine.so").unwrap(),
            ["walden", "basic_archive", "/lib/mine.so"]
        );
        for empty in ["", "  "] {
            assert!(libraries(empty).unwrap().is_empty());
        }
    }

    #[test]
    fn a_list_that_cannot_be_used_is_refused_with_the_cure() {
        for (list, what) in [
            ("a,,b", "it has an empty item"),
            ("a, b,", "has an empty item"),
            (",", "has an empty item"),
            ("a, b, a", "lists library \"a\" twice"),
            ("walden, $libdir/walden", "lists library \"walden\" twice"),
            ("/x/a.so, a", "lists library \"a\" twice"),
            ("\"a\", b", "has quotes in"),
            ("a,b,c,d,e,f,g,h,i", "lists 9 libraries"),
        ] {
            let error = libraries(list).unwrap_err();
            assert!(error.to_string().contains(what), "{list:?}: {error:?}");
            assert!(error.hint().is_some(), "{list:?}");
        }
        assert_eq!(libraries("a,b,c,d,e,f,g,h").unwrap().len(), LIBRARIES_MAX);
    }
}
