//! What the command takes from a cluster's control file, `global/pg_control`.
//!
//! Guarantees: the secret is given only from a file whose layout is known and whose checksum is right, so that a layout
//! that has changed gives none and never a wrong one. Left to others: what they are good for (`archive`).

use archive::{CLUSTER_SECRET_BYTES, ClusterSecret, Error, ErrorKind};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wal::SystemIdentifier;

/// Bytes of the file that hold anything (`PG_CONTROL_MAX_SAFE_SIZE`, `pg_control.h`, 15 to 18).
const CONTROL_BYTES: u64 = 512;

/// Where `pg_control_version` stands (`ControlFileData`, 15 to 18).
const VERSION_AT: usize = 8;

fn control_file(data_dir: &Path) -> PathBuf {
    data_dir.join("global/pg_control")
}

/// The system identifier of a data directory: the first field of its control file, written in the
/// machine's byte order (`ControlFileData`, `pg_control.h`, 15 to 18).
pub(crate) fn system_of(data_dir: &Path) -> Result<SystemIdentifier, Error> {
    let path = control_file(data_dir);
    let mut first = [0u8; 8];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut first));
    let failed = |cause: io::Error| {
        Error::io(
            format!("could not read control file \"{}\"", path.display()),
            cause,
        )
    };
    read.map_err(failed)?;
    match u64::from_ne_bytes(first) {
        0 => Err(Error::new(
            ErrorKind::Damaged,
            format!(
                "control file \"{}\" has no system identifier",
                path.display()
            ),
        )),
        system => Ok(SystemIdentifier(system)),
    }
}

/// The secret of a data directory's cluster: `mock_authentication_nonce` of its control file. `None` if it cannot be
/// told.
pub(crate) fn secret_of(data_dir: &Path) -> Option<ClusterSecret> {
    let mut control = Vec::new();
    let file = File::open(control_file(data_dir)).ok()?;
    file.take(CONTROL_BYTES).read_to_end(&mut control).ok()?;
    let nonce = nonce_in(&control)?;
    ClusterSecret::new(nonce)
}

fn nonce_in(control: &[u8]) -> Option<[u8; CLUSTER_SECRET_BYTES]> {
    // Offsets of mock_authentication_nonce and of crc, which covers what stands before it: from the headers of these
    // versions, on machines whose pointers have 64 bits.
    let (nonce_at, crc_at) = match word(control, VERSION_AT)? {
        1300 | 1700 => (256, 288), // 15, 16 and 17
        1800 => (257, 292),        // 18
        1905 => (273, 308),        // 19 (19rc1)
        _ => return None,
    };
    if crc32c(control.get(..crc_at)?) != word(control, crc_at)? {
        return None;
    }
    let nonce = control.get(nonce_at..)?.get(..CLUSTER_SECRET_BYTES)?;
    nonce.try_into().ok()
}

fn word(control: &[u8], at: usize) -> Option<u32> {
    let bytes = control.get(at..)?.get(..4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// CRC-32C, as the server sums its control file (`COMP_CRC32C`, `pg_crc32c.h`, 15 to 18); a few hundred bytes once.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (0x82F6_3B78 * carry);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_identifier_is_the_control_files_first_field() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            system_of(dir.path()).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        std::fs::create_dir(dir.path().join("global")).unwrap();
        let control = dir.path().join("global/pg_control");
        std::fs::write(&control, 7_000_000_000_000_000_001_u64.to_ne_bytes()).unwrap();
        assert_eq!(system_of(dir.path()).unwrap().0, 7_000_000_000_000_000_001);
        std::fs::write(&control, [0; 8]).unwrap();
        assert_eq!(
            system_of(dir.path()).unwrap_err().kind(),
            ErrorKind::Damaged
        );
    }

    fn control(version: u32, crc_at: usize) -> Vec<u8> {
        let mut control: Vec<u8> = (0..512_u32).map(|i| i.to_le_bytes()[0] ^ 0x55).collect();
        control[VERSION_AT..VERSION_AT + 4].copy_from_slice(&version.to_ne_bytes());
        let crc = crc32c(&control[..crc_at]);
        control[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
        control
    }

    #[test]
    fn the_secret_is_taken_from_known_layouts_with_a_right_checksum_only() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        for (version, nonce_at, crc_at) in [
            (1300, 256, 288),
            (1700, 256, 288),
            (1800, 257, 292),
            (1905, 273, 308),
        ] {
            let mut control = control(version, crc_at);
            let nonce = nonce_in(&control).unwrap();
            assert_eq!(nonce, control[nonce_at..nonce_at + 32]);
            control[100] ^= 1;
            assert_eq!(nonce_in(&control), None);
            assert_eq!(nonce_in(&control[..crc_at]), None);
        }
        assert_eq!(nonce_in(&control(1900, 292)), None);
        assert_eq!(nonce_in(b""), None);
    }
}
