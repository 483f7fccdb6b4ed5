//! An archive directory seen from outside: names and bytes, without any of Walden's code.
//!
//! Guarantees an independent view: what it says about an archive does not depend on what is tested.
//! Leaves decompression to `walden restore`, run as a command.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::wait::wait_until;

/// A directory that servers archive into.
#[derive(Clone, Debug)]
pub struct ArchiveDir(PathBuf);

impl ArchiveDir {
    pub(crate) fn new(path: PathBuf) -> ArchiveDir {
        ArchiveDir(path)
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is, as text for a setting.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.display().to_string()
    }

    /// Every name in the directory, sorted.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for entry in
            fs::read_dir(&self.0).with_context(|| format!("could not list \"{}\"", self.text()))?
        {
            keys.push(entry?.file_name().to_string_lossy().into_owned());
        }
        keys.sort();
        Ok(keys)
    }

    /// The WAL file names in it, sorted, without the suffix of their compression.
    ///
    /// # Errors
    ///
    /// As [`ArchiveDir::keys`].
    pub fn files(&self) -> Result<Vec<String>> {
        let keys = self.keys()?;
        Ok(keys
            .iter()
            .map(|key| wal_file(key))
            .filter(|name| is_wal_file_name(name))
            .map(str::to_owned)
            .collect())
    }

    /// The complete segments in it, sorted.
    ///
    /// # Errors
    ///
    /// As [`ArchiveDir::keys`].
    pub fn segments(&self) -> Result<Vec<String>> {
        Ok(self
            .files()?
            .into_iter()
            .filter(|name| is_segment_name(name))
            .collect())
    }

    /// Names in it that are neither WAL files nor Walden's `walden.json`: staged files of dead writers.
    ///
    /// # Errors
    ///
    /// As [`ArchiveDir::keys`].
    pub fn strangers(&self) -> Result<Vec<String>> {
        let known = |key: &String| is_wal_file_name(wal_file(key)) || key == "walden.json";
        Ok(self.keys()?.into_iter().filter(|key| !known(key)).collect())
    }

    /// The stored file behind a WAL file name, whatever its compression.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed or holds no such file.
    pub fn stored(&self, name: &str) -> Result<PathBuf> {
        let keys = self.keys()?;
        let key = keys.iter().find(|key| wal_file(key) == name);
        Ok(self
            .0
            .join(key.with_context(|| format!("\"{name}\" is not in the archive {keys:?}"))?))
    }

    /// Whether a WAL file of this name is there.
    ///
    /// # Errors
    ///
    /// As [`ArchiveDir::keys`].
    pub fn has(&self, name: &str) -> Result<bool> {
        Ok(self.files()?.iter().any(|file| file == name))
    }

    /// Waits until a WAL file of this name is there.
    ///
    /// # Errors
    ///
    /// When it does not come.
    pub fn wait_for(&self, name: &str) -> Result<()> {
        wait_until(&format!("\"{name}\" in the archive"), || self.has(name))
    }

    /// Names and bytes of everything in the directory, to compare it with itself later.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        self.keys()?
            .into_iter()
            .map(|key| Ok((key.clone(), fs::read(self.0.join(key))?)))
            .collect()
    }

    /// Sets the permission bits of the directory, e.g. 0o000 for an outage and 0o755 for its end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(
            &self.0,
            fs::Permissions::from_mode(mode),
        )?)
    }
}

/// What programs that compress append to a name.
const SUFFIXES: [&str; 5] = [".zst", ".lz4", ".gz", ".bz2", ".xz"];

/// A stored name without the suffixes of its encryption and compression.
#[must_use]
pub fn wal_file(key: &str) -> &str {
    let key = key.strip_suffix(".age").unwrap_or(key);
    let mut plain = SUFFIXES
        .iter()
        .filter_map(|suffix| key.strip_suffix(suffix));
    plain.next().unwrap_or(key)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

fn is_segment_name(name: &str) -> bool {
    name.len() == 24 && is_hex(name)
}

fn is_wal_file_name(name: &str) -> bool {
    if let Some(timeline) = name.strip_suffix(".history") {
        return timeline.len() == 8 && is_hex(timeline);
    }
    if let Some(segment) = name.strip_suffix(".partial") {
        return is_segment_name(segment);
    }
    if let Some((segment, offset)) = name
        .strip_suffix(".backup")
        .and_then(|name| name.split_once('.'))
    {
        return is_segment_name(segment) && offset.len() == 8 && is_hex(offset);
    }
    is_segment_name(name)
}
