//! Keys of stored objects: a server's file name and the suffixes of its form, and back again.

use std::ops::ControlFlow;

use wal::WalFileName;

use crate::archive::Archive;
use crate::compression::CompressionKind;
use crate::error::Error;
use crate::store::Detail;

/// What follows all other suffixes in the key of an object that is encrypted.
const SEALED_SUFFIX: &str = ".age";

/// In which form a file is stored, which its suffixes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) compression: CompressionKind,
    /// Encrypted, in the age format, after it was compressed.
    pub(crate) sealed: bool,
}

impl Form {
    /// Every form, in the order in which objects are looked for.
    pub(crate) const ALL: [Form; 6] = [
        Form::plain(CompressionKind::None),
        Form::plain(CompressionKind::Zstd),
        Form::plain(CompressionKind::Lz4),
        Form::sealed(CompressionKind::None),
        Form::sealed(CompressionKind::Zstd),
        Form::sealed(CompressionKind::Lz4),
    ];

    /// Not encrypted.
    pub(crate) const fn plain(compression: CompressionKind) -> Form {
        Form {
            compression,
            sealed: false,
        }
    }

    /// Encrypted.
    pub(crate) const fn sealed(compression: CompressionKind) -> Form {
        Form {
            compression,
            sealed: true,
        }
    }

    /// The form of this file, where segments have that form. Timeline and backup history files are small, read by people,
    /// and by programs that know no suffix: they are not compressed.
    pub(crate) fn for_file(self, name: &WalFileName) -> Form {
        match name {
            WalFileName::Segment(_) | WalFileName::Partial(_) => self,
            WalFileName::TimelineHistory(_) | WalFileName::BackupHistory { .. } => Form {
                compression: CompressionKind::None,
                ..self
            },
        }
    }

    /// What follows the server's file name in a key.
    pub(crate) fn suffix(self) -> String {
        let sealed = if self.sealed { SEALED_SUFFIX } else { "" };
        format!("{}{sealed}", self.compression.suffix())
    }
}

/// The key of a file stored in this form.
pub(crate) fn key_of(name: &WalFileName, form: Form) -> String {
    format!("{name}{}", form.suffix())
}

/// The key of a file that is stored in this form.
pub fn stored_key(name: &WalFileName, compression: CompressionKind, encrypted: bool) -> String {
    let form = Form {
        compression,
        sealed: encrypted,
    };
    key_of(name, form)
}

/// Which file a key holds, and in which form; `None` for anything that is not a WAL file's.
pub(crate) fn parse_key(key: &str) -> Option<(WalFileName, Form)> {
    let (inner, sealed) = match key.strip_suffix(SEALED_SUFFIX) {
        Some(inner) => (inner, true),
        None => (key, false),
    };
    let compression = match () {
        () if inner.ends_with(CompressionKind::Zstd.suffix()) => CompressionKind::Zstd,
        () if inner.ends_with(CompressionKind::Lz4.suffix()) => CompressionKind::Lz4,
        () => CompressionKind::None,
    };
    let name = inner.strip_suffix(compression.suffix())?.parse().ok()?;
    let form = Form {
        compression,
        sealed,
    };
    Some((name, form))
}

/// Under which of its keys a file may be stored: all of them where looking is cheap, else those that one listing shows.
pub(crate) fn candidates(archive: &Archive, name: &WalFileName) -> Result<Vec<Form>, Error> {
    if !archive.store.is_remote() {
        return Ok(Form::ALL.to_vec());
    }
    let mut found = Vec::new();
    let prefix = name.to_string();
    archive.store.list(&prefix, Detail::Keys, &mut |entry| {
        if let Some((stored, form)) = parse_key(&entry.key)
            && stored == *name
        {
            found.push(form);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_the_name_and_form_it_was_made_of() {
        for name in [
            "0000000100000000000000A4",
            "0000000100000000000000A4.partial",
            "00000002.history",
            "0000000100000000000000A4.00000028.backup",
        ] {
            let name: WalFileName = name.parse().unwrap();
            for form in Form::ALL {
                assert_eq!(parse_key(&key_of(&name, form)), Some((name, form)));
            }
        }
        let name = "0000000100000000000000A4".parse().unwrap();
        let zstd = Form::sealed(CompressionKind::Zstd);
        assert_eq!(key_of(&name, zstd), "0000000100000000000000A4.zst.age");
    }

    #[test]
    fn other_names_are_nobodys() {
        for key in [
            "walden.json",
            "walden.json.age",
            "archtemp.0000000100000000000000A4.1.2",
            "x",
            ".zst",
            ".age",
            "",
            "0000000100000000000000A4.gz",
            "0000000100000000000000A4.zst.zst",
            "0000000100000000000000A4.age.zst",
            "0000000100000000000000A4.age.age",
            "lost+found",
        ] {
            assert_eq!(parse_key(key), None, "{key}");
        }
    }
}
