//! The server's manifest of a backup: which files it has, how long each is, and its checksum.
//!
//! Guarantees that a manifest is believed only with its own checksum, which covers it, and that its paths lead nowhere but
//! below the data directory. Its form is that of backup_manifest.c and of the manual's chapter "Backup Manifest Format" (15 to
//! 19; from 17 on it names the system).

use std::collections::HashMap;

use archive::{Error, ErrorKind};
use crc_fast::{CrcAlgorithm, Digest as CrcDigest};
use serde::Deserialize;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use wal::SystemIdentifier;

use crate::path::SafePath;
use crate::text::{hex, unhex};

/// The longest manifest that is believed, in bytes: some three million files.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The field that ends a manifest; its checksum covers all before it.
const OWN_CHECKSUM: &[u8] = b"\"Manifest-Checksum\"";

/// The files of a backup.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Whose it is; `None` before 17.
    pub(crate) system: Option<SystemIdentifier>,
    pub(crate) files: HashMap<SafePath, Listed>,
}

/// A file as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) bytes: u64,
    /// `None` if the backup was taken without checksums.
    pub(crate) checksum: Option<(Algorithm, Vec<u8>)>,
}

/// How files are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    fn of(name: &str) -> Option<Algorithm> {
        Some(match name {
            "CRC32C" => Algorithm::Crc32c,
            "SHA224" => Algorithm::Sha224,
            "SHA256" => Algorithm::Sha256,
            "SHA384" => Algorithm::Sha384,
            "SHA512" => Algorithm::Sha512,
            _ => return None,
        })
    }

    pub(crate) fn begin(self) -> Summing {
        match self {
            Algorithm::Crc32c => Summing::Crc32c(CrcDigest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Sha224 => Summing::Sha224(Sha224::new()),
            Algorithm::Sha256 => Summing::Sha256(Sha256::new()),
            Algorithm::Sha384 => Summing::Sha384(Sha384::new()),
            Algorithm::Sha512 => Summing::Sha512(Sha512::new()),
        }
    }
}

/// A checksum in the making.
pub(crate) enum Summing {
    Crc32c(CrcDigest),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Summing {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Summing::Crc32c(sum) => sum.update(bytes),
            Summing::Sha224(sum) => sum.update(bytes),
            Summing::Sha256(sum) => sum.update(bytes),
            Summing::Sha384(sum) => sum.update(bytes),
            Summing::Sha512(sum) => sum.update(bytes),
        }
    }

    /// The bytes that a manifest has; of a CRC those of the number as it lies in memory.
    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Summing::Crc32c(sum) => {
                let number = u32::try_from(sum.finalize()).unwrap_or_default();
                number.to_ne_bytes().to_vec()
            }
            Summing::Sha224(sum) => sum.finalize().to_vec(),
            Summing::Sha256(sum) => sum.finalize().to_vec(),
            Summing::Sha384(sum) => sum.finalize().to_vec(),
            Summing::Sha512(sum) => sum.finalize().to_vec(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Json {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u64,
    #[serde(rename = "System-Identifier")]
    system: Option<u64>,
    files: Vec<FileJson>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FileJson {
    path: Option<String>,
    /// Two digits for each byte, where it is no text.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    checksum: Option<String>,
}

impl FileJson {
    /// `None` if that is no file of a backup.
    fn listed(self) -> Option<(SafePath, Listed)> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(digits)) => unhex(&digits)?,
            _ => return None,
        };
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (Some(name), Some(digits)) => Some((Algorithm::of(&name)?, unhex(&digits)?)),
            _ => return None,
        };
        let bytes = self.size;
        Some((SafePath::new(&path)?, Listed { bytes, checksum }))
    }
}

/// Reads a manifest. Fails with [`ErrorKind::Damaged`], and the reason.
pub(crate) fn parse(bytes: &[u8], shown: &str) -> Result<Manifest, Error> {
    let invalid = |why: &str| {
        let what = format!("manifest \"{shown}\" is invalid: {why}");
        Error::new(ErrorKind::Damaged, what)
    };
    let json: Json = serde_json::from_slice(bytes).map_err(|cause| invalid(&cause.to_string()))?;
    if !matches!(json.version, 1 | 2) {
        let why = format!("its version {} is not known", json.version);
        return Err(invalid(&why));
    }
    let mut places = bytes.windows(OWN_CHECKSUM.len()).enumerate().rev();
    let end = places.find_map(|(at, window)| (window == OWN_CHECKSUM).then_some(at));
    let covered = bytes.get(..end.unwrap_or_default()).unwrap_or_default();
    if hex(&Sha256::digest(covered)) != json.checksum.to_ascii_lowercase() {
        return Err(invalid("its own checksum is wrong"));
    }
    let mut files = HashMap::new();
    for file in json.files {
        let shown = file
            .path
            .clone()
            .or(file.encoded_path.clone())
            .unwrap_or_default();
        let shown = archive::printable(&shown);
        let Some((path, listed)) = file.listed() else {
            return Err(invalid(&format!(
                "the entry of file \"{shown}\" cannot be one"
            )));
        };
        if files.insert(path, listed).is_some() {
            return Err(invalid(&format!("file \"{shown}\" is in it twice")));
        }
    }
    Ok(Manifest {
        system: json.system.map(SystemIdentifier),
        files,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest of these entries, with its checksum.
    pub(crate) fn manifest(entries: &[String]) -> Vec<u8> {
        let mut text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\"Files\": [\n{}\n],\n\
             \"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/4000028\", \"End-LSN\": \"0/4000100\" }}\n],\n",
            entries.join(",\n")
        );
        let sum = hex(&Sha256::digest(text.as_bytes()));
        text.push_str(&format!("\"Manifest-Checksum\": \"{sum}\"}}\n"));
        text.into_bytes()
    }

    /// The entry of a file with the checksum that servers make unless told otherwise.
    pub(crate) fn entry(path: &str, contents: &[u8]) -> String {
        let mut sum = Algorithm::Crc32c.begin();
        sum.feed(contents);
        format!(
            "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"2026-11-29 17:15:00 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{}\" }}",
            contents.len(),
            hex(&sum.finish())
        )
    }

    #[test]
    fn a_manifest_lists_files_with_their_checksums() {
        let odd = "{ \"Encoded-Path\": \"622fff\", \"Size\": 0 }".to_owned();
        let bytes = manifest(&[entry("base/5/1259", b"123456789"), odd]);
        let manifest = parse(&bytes, "x").unwrap();
        assert_eq!(
            (manifest.system, manifest.files.len()),
            (Some(SystemIdentifier(7)), 2)
        );
        let listed = &manifest.files[&SafePath::new(b"base/5/1259").unwrap()];
        // The check value of CRC-32C, E3069283, as it lies in memory.
        let expected = Some((Algorithm::Crc32c, 0xE306_9283_u32.to_ne_bytes().to_vec()));
        assert_eq!((listed.bytes, &listed.checksum), (9, &expected));
        let odd = &manifest.files[&SafePath::new(b"b/\xff").unwrap()];
        assert_eq!((odd.bytes, &odd.checksum), (0, &None));
    }

    #[test]
    fn every_algorithm_of_the_server_is_known() {
        for (name, bytes) in [
            ("CRC32C", 4),
            ("SHA224", 28),
            ("SHA256", 32),
            ("SHA384", 48),
            ("SHA512", 64),
        ] {
            assert_eq!(Algorithm::of(name).unwrap().begin().finish().len(), bytes);
        }
        assert_eq!(Algorithm::of("MD5"), None);
    }

    #[test]
    fn a_manifest_with_a_flipped_bit_anywhere_is_refused() {
        let bytes = manifest(&[entry("base/5/1259", b"x")]);
        assert!(parse(&bytes, "x").is_ok());
        for at in 0..bytes.len() - 1 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            // A blank between the last fields is covered by nothing and means nothing.
            let refused = parse(&flipped, "x").is_err();
            assert!(refused || bytes[at].is_ascii_whitespace(), "byte {at}");
        }
        for end in 0..bytes.len() - 2 {
            assert!(parse(&bytes[..end], "x").is_err(), "cut at {end}");
        }
    }

    #[test]
    fn hostile_entries_are_refused_and_named() {
        let file = |path: &str| format!("{{ \"Path\": \"{path}\", \"Size\": 1 }}");
        for (entries, why) in [
            (vec![file("../../etc/passwd")], "\"../../etc/passwd\" cannot be one"),
            (vec![file("/etc/passwd")], "cannot be one"),
            (vec![file("a"), file("./a")], "twice"),
            (vec!["{ \"Size\": 1 }".to_owned()], "cannot be one"),
            (vec!["{ \"Path\": \"a\", \"Size\": -1 }".to_owned()], "invalid"),
            (
                vec!["{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\" }".to_owned()],
                "cannot be one",
            ),
        ] {
            let error = parse(&manifest(&entries), "x").unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
