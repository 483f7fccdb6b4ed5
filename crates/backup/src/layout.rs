//! What the objects of a backup are called.
//!
//! Guarantees that a part's name tells which tar file it is of, and which part of it, and that what else stands in a backup's
//! folder is no part.

use archive::{Error, ErrorKind};

/// Names of the objects of a backup that are no parts.
pub(crate) const RUNNING: &str = "running.json";
pub(crate) const COMMITTED: &str = "backup.json";
pub(crate) const CONFIRMED: &str = "confirmed.json";
pub(crate) const MANIFEST: &str = "backup_manifest";
pub(crate) const ALIVE_PREFIX: &str = "alive.";

/// Which tar file of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TarName {
    /// The data directory.
    Base,
    /// The tablespace of this number.
    Tablespace(u32),
}

impl TarName {
    /// As the server names it.
    ///
    /// Fails with [`ErrorKind::Unusable`] for what is no tar file, since nothing could be cut.
    pub(crate) fn of_archive(name: &str) -> Result<TarName, Error> {
        name.strip_suffix(".tar").and_then(TarName::of_stem).ok_or_else(|| {
            Error::new(
                ErrorKind::Unusable,
                format!("could not store \"{name}\": it is not a plain tar file of a base backup"),
            )
            .with_hint(
                "Walden compresses by itself, as \"walden.compression\" says: run pg_basebackup without -Z and --compress.",
            )
        })
    }

    fn of_stem(stem: &str) -> Option<TarName> {
        let is_number = stem.bytes().all(|byte| byte.is_ascii_digit()) && !stem.starts_with('0');
        match stem {
            "base" => Some(TarName::Base),
            _ if is_number => stem.parse().ok().map(TarName::Tablespace),
            _ => None,
        }
    }

    /// The name of a part, counted from 1.
    pub(crate) fn part(self, number: u32) -> String {
        match self {
            TarName::Base => format!("base.{number:05}.tar"),
            TarName::Tablespace(oid) => format!("{oid}.{number:05}.tar"),
        }
    }

    /// Which part of which file a name stands for; `None` if for none.
    pub(crate) fn of_part(name: &str) -> Option<(TarName, u32)> {
        let (stem, number) = name.strip_suffix(".tar")?.split_once('.')?;
        let part = (TarName::of_stem(stem)?, number.parse().ok()?);
        (part.0.part(part.1) == name && part.1 > 0).then_some(part)
    }

    /// The folder below the data directory that its members are in; `None` for the data directory itself.
    pub(crate) fn folder(self) -> Option<String> {
        match self {
            TarName::Base => None,
            TarName::Tablespace(oid) => Some(format!("pg_tblspc/{oid}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_after_their_file_and_counted_from_one() {
        for (name, tar) in [
            ("base.tar", TarName::Base),
            ("16384.tar", TarName::Tablespace(16_384)),
        ] {
            assert_eq!(TarName::of_archive(name).unwrap(), tar);
            for number in [1, 99_999] {
                assert_eq!(TarName::of_part(&tar.part(number)), Some((tar, number)));
            }
        }
        assert_eq!(TarName::Base.part(1), "base.00001.tar");
        for odd in [
            "base.00000.tar",
            "base.1.tar",
            "base.tar",
            "x.00001.tar",
            "01.00001.tar",
            "../1.00001.tar",
        ] {
            assert_eq!(TarName::of_part(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_the_server_has_compressed_is_refused_with_the_cure() {
        for name in [
            "base.tar.zst",
            "base.tar.gz",
            "16384.tar.lz4",
            "pg_wal",
            "x.tar",
            "",
            "../a.tar",
        ] {
            let error = TarName::of_archive(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert!(
                error.hint().unwrap().contains("walden.compression"),
                "{name}"
            );
        }
    }
}
