//! Keys of stored objects: a server's file name and a compression suffix, and back again.

use wal::WalFileName;

use std::ops::ControlFlow;

use crate::archive::Archive;
use crate::compression::CompressionKind;
use crate::error::Error;
use crate::store::Detail;

/// The key of a file stored with this compression.
pub(crate) fn key_of(name: &WalFileName, kind: CompressionKind) -> String {
    format!("{name}{}", kind.suffix())
}

/// Which file a key holds, and how compressed; `None` for anything that is not a WAL file's.
pub(crate) fn parse_key(key: &str) -> Option<(WalFileName, CompressionKind)> {
    let kind = match () {
        () if key.ends_with(CompressionKind::Zstd.suffix()) => CompressionKind::Zstd,
        () if key.ends_with(CompressionKind::Lz4.suffix()) => CompressionKind::Lz4,
        () => CompressionKind::None,
    };
    let name = key.strip_suffix(kind.suffix())?;
    Some((name.parse().ok()?, kind))
}

/// Under which of its keys a file may be stored: all of them where looking is cheap, else those that one listing shows.
pub(crate) fn candidates(
    archive: &Archive,
    name: &WalFileName,
) -> Result<Vec<CompressionKind>, Error> {
    if !archive.store.is_remote() {
        return Ok(CompressionKind::ALL.to_vec());
    }
    let mut found = Vec::new();
    let prefix = name.to_string();
    archive.store.list(&prefix, Detail::Keys, &mut |entry| {
        if let Some((stored, kind)) = parse_key(&entry.key)
            && stored == *name
        {
            found.push(kind);
        }
        ControlFlow::Continue(())
    })?;
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_the_name_and_compression_it_was_made_of() {
        for name in [
            "0000000100000000000000A4",
            "0000000100000000000000A4.partial",
            "00000002.history",
            "0000000100000000000000A4.00000028.backup",
        ] {
            let name: WalFileName = name.parse().unwrap();
            for kind in CompressionKind::ALL {
                assert_eq!(parse_key(&key_of(&name, kind)), Some((name, kind)));
            }
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        for key in [
            "walden.json",
            "archtemp.0000000100000000000000A4.1.2",
            "x",
            ".zst",
            "",
            "0000000100000000000000A4.gz",
            "0000000100000000000000A4.zst.zst",
            "lost+found",
        ] {
            assert_eq!(parse_key(key), None, "{key}");
        }
    }
}
