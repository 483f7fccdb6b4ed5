//! Sees which files servers call archived, what bytes they held, and compares the archive with that.
//!
//! Guarantees that a file is read while its server still has it, and that each is compared once; afterwards
//! what is stored must stay the very same file. Leaves decoding to `walden restore`.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use lab::{ArchiveDir, Cluster, Lab, wal_file};

/// All that was ever to be archived.
pub(crate) struct Witness {
    archive: ArchiveDir,
    /// What `walden restore` needs to be given to read it.
    flags: Vec<String>,
    seen: BTreeMap<String, Seen>,
}

/// Inode, size, and when it was last written: a new file may get the inode of one that has just gone.
type Identity = (u64, u64, i64, i64);

struct Seen {
    /// A hash of the bytes that the server had.
    bytes: u64,
    /// The server has called it archived.
    archived: bool,
    /// What tells the stored file from any other, once it has been compared.
    stored: Option<Identity>,
}

impl Witness {
    pub(crate) fn of(archive: &ArchiveDir, flags: &[&str]) -> Witness {
        Witness {
            archive: archive.clone(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            seen: BTreeMap::new(),
        }
    }

    /// Looks at what a server has finished, which it keeps for some hundred segments more.
    pub(crate) fn look(&mut self, server: &Cluster) -> Result<()> {
        let wal = server.data().join("pg_wal");
        for entry in fs::read_dir(wal.join("archive_status"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some((name, status)) = name.rsplit_once('.') else {
                continue;
            };
            let archived = status == "done";
            if let Some(seen) = self.seen.get_mut(name) {
                seen.archived |= archived;
            } else if let Some(bytes) = self.read(&wal, name)? {
                let stored = None;
                let seen = Seen {
                    bytes,
                    archived,
                    stored,
                };
                self.seen.insert(name.to_owned(), seen);
            }
        }
        Ok(())
    }

    /// A hash of a finished file's bytes; nothing when the server has just let it go.
    fn read(&self, wal: &Path, name: &str) -> Result<Option<u64>> {
        let Ok(bytes) = fs::read(wal.join(name)) else {
            return Ok(None);
        };
        let status = wal.join("archive_status");
        let is = |kind: &str| status.join(format!("{name}.{kind}")).exists();
        // Read before it was recycled only if its status is still there.
        Ok((is("ready") || is("done")).then(|| hash(&bytes)))
    }

    /// Checks that every archived file is stored once and as it was, and answers with how many there are.
    pub(crate) fn check(&mut self, lab: &Lab) -> Result<usize> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for key in self.archive.keys()? {
            keys.entry(wal_file(&key).to_owned()).or_default().push(key);
        }
        for name in self.archive.files()? {
            ensure!(
                self.seen.contains_key(&name),
                "\"{name}\" is in the archive, but no server had it"
            );
        }
        let mut count = 0;
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        for (name, seen) in &mut self.seen {
            let stored = match keys.get(name).map(Vec::as_slice) {
                Some([key]) => self.archive.path().join(key),
                Some(keys) => bail!(
                    "\"{name}\" is in the archive {} times: {keys:?}",
                    keys.len()
                ),
                None if seen.archived => bail!("\"{name}\" was called archived and is not there"),
                None => continue,
            };
            count += 1;
            let found = identity(&fs::metadata(&stored)?);
            match seen.stored {
                Some(before) => ensure!(before == found, "\"{name}\" was replaced in the archive"),
                None => {
                    let bytes = lab.fetch_with(&self.archive, name, &flags)?;
                    ensure!(
                        hash(&bytes) == seen.bytes,
                        "\"{name}\" is not what the server had"
                    );
                    seen.stored = Some(found);
                }
            }
        }
        Ok(count)
    }
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use lab::scenario;

    #[test]
    fn an_archive_that_lost_doubled_replaced_or_changed_a_file_is_caught() -> Result<()> {
        scenario(|lab| {
            let archive = lab.archive("archive")?;
            let settings = lab
                .walden_settings(&archive)?
                .with("walden.compression", "none");
            let primary = lab.primary("primary", 1, settings)?;
            primary.write_segments(1..=3)?;
            primary.archive_everything()?;
            let look = || -> Result<Witness> {
                let mut witness = Witness::of(&archive, &[]);
                witness.look(&primary)?;
                Ok(witness)
            };
            let mut witness = look()?;
            let count = witness.check(lab)?;
            assert!(
                count >= 3 && count == archive.files()?.len(),
                "{count} files"
            );

            let name = archive.segments()?.pop().context("a segment")?;
            let stored = archive.stored(&name)?;
            let aside = lab.dir().join("aside");
            fs::copy(&stored, &aside)?;
            fs::remove_file(&stored)?;
            assert!(witness.check(lab).is_err(), "lost");
            fs::write(&stored, fs::read(&aside)?)?;
            fs::copy(&aside, archive.path().join("taken"))?;
            fs::rename(archive.path().join("taken"), &stored)?;
            assert!(witness.check(lab).is_err(), "replaced");

            let mut bytes = fs::read(&aside)?;
            *bytes.last_mut().context("a byte")? ^= 1;
            fs::write(&stored, bytes)?;
            assert!(look()?.check(lab).is_err(), "changed");
            Ok(())
        })
    }
}
