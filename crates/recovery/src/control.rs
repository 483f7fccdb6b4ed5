//! What can be learnt from a cluster's control file, `global/pg_control`.
//!
//! Guarantees: the secret and the timelines are given only from a file whose layout is known and whose checksum is right, so
//! that a layout that has changed gives none and never wrong ones. Left to others: what they are good for.

use archive::{CLUSTER_SECRET_BYTES, ClusterSecret, Error, ErrorKind, open_regular};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wal::{SegmentSize, SystemIdentifier, TimelineId};

/// Bytes of the file that hold anything (`PG_CONTROL_MAX_SAFE_SIZE`, `pg_control.h`, 15 to 18).
const CONTROL_BYTES: u64 = 512;

/// How often a file is read whose checksum is wrong: the server may be writing it (`UpdateControlFile`, 15 to 18).
const TRIES_MAX: u32 = 5;

/// Where `checkPointCopy.ThisTimeLineID` stands (`ControlFileData`, 15 to 19).
const CHECKPOINT_TIMELINE_AT: usize = 48;

/// Where the rest stands that is wanted of a control file: from the headers of each version, on machines whose pointers have
/// 64 bits.
struct Layout {
    min_recovery_timeline: usize,
    segment_size: usize,
    /// `mock_authentication_nonce`
    nonce: usize,
    /// `crc`, which covers what stands before it.
    crc: usize,
}

/// 15, 16 and 17.
const FROM_15: Layout = Layout {
    min_recovery_timeline: 144,
    segment_size: 228,
    nonce: 256,
    crc: 288,
};
const FROM_18: Layout = Layout {
    nonce: 257,
    crc: 292,
    ..FROM_15
};
/// As 19rc1 has it.
const FROM_19: Layout = Layout {
    min_recovery_timeline: 152,
    segment_size: 240,
    nonce: 273,
    crc: 308,
};

/// Where `pg_control_version` stands (`ControlFileData`, 15 to 18).
const VERSION_AT: usize = 8;

fn control_file(data_dir: &Path) -> PathBuf {
    data_dir.join("global/pg_control")
}

/// The system identifier of a data directory: the first field of its control file, written in the
/// machine's byte order (`ControlFileData`, `pg_control.h`, 15 to 18).
pub fn system_of(data_dir: &Path) -> Result<SystemIdentifier, Error> {
    let path = control_file(data_dir);
    let mut first = [0u8; 8];
    let read = open_regular(&path).and_then(|mut file| file.read_exact(&mut first));
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
pub fn secret_of(data_dir: &Path) -> Option<ClusterSecret> {
    let nonce = nonce_in(&contents_of(data_dir)?)?;
    ClusterSecret::new(nonce)
}

/// What a control file says of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Of the last checkpoint or restartpoint.
    pub checkpoint_timeline: TimelineId,
    /// Which recovery has to reach; `None` where it need not reach any.
    pub min_recovery_timeline: Option<TimelineId>,
    /// How large its segments are; `None` if that is no size of segments.
    pub segment_size: Option<SegmentSize>,
}

impl Control {
    /// Reads it; `None` if the file cannot be read, or is not understood.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<Control> {
        for _ in 0..TRIES_MAX {
            if let Some(control) = contents_of(data_dir).as_deref().and_then(parse) {
                return Some(control);
            }
        }
        None
    }

    /// The newest timeline of them: the server is on its line.
    #[must_use]
    pub fn newest(&self) -> TimelineId {
        self.min_recovery_timeline
            .map_or(self.checkpoint_timeline, |it| {
                it.max(self.checkpoint_timeline)
            })
    }
}

fn parse(control: &[u8]) -> Option<Control> {
    let layout = layout_of(control)?;
    let timeline = |at| word(control, at).map(TimelineId::new);
    let segment_bytes = word(control, layout.segment_size)?;
    Some(Control {
        checkpoint_timeline: timeline(CHECKPOINT_TIMELINE_AT)??,
        min_recovery_timeline: timeline(layout.min_recovery_timeline)?,
        segment_size: SegmentSize::new(u64::from(segment_bytes)).ok(),
    })
}

fn contents_of(data_dir: &Path) -> Option<Vec<u8>> {
    let mut control = Vec::new();
    let file = open_regular(&control_file(data_dir)).ok()?;
    file.take(CONTROL_BYTES).read_to_end(&mut control).ok()?;
    Some(control)
}

fn nonce_in(control: &[u8]) -> Option<[u8; CLUSTER_SECRET_BYTES]> {
    let nonce = control.get(layout_of(control)?.nonce..)?;
    nonce.get(..CLUSTER_SECRET_BYTES)?.try_into().ok()
}

/// The layout of a control file; `None` for an unknown one, or a wrong checksum.
fn layout_of(control: &[u8]) -> Option<Layout> {
    let layout = match word(control, VERSION_AT)? {
        1300 | 1700 => FROM_15,
        1800 => FROM_18,
        1905 => FROM_19,
        _ => return None,
    };
    let crc = crc32c(control.get(..layout.crc)?);
    (crc == word(control, layout.crc)?).then_some(layout)
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

    #[test]
    fn timelines_are_taken_from_known_layouts_with_a_right_checksum_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("global")).unwrap();
        assert_eq!(Control::read(dir.path()), None);
        let file = dir.path().join("global/pg_control");
        let mut bytes = control(1800, 292);
        std::fs::write(&file, &bytes).unwrap();
        assert!(Control::read(dir.path()).is_some());
        bytes[CHECKPOINT_TIMELINE_AT..][..4].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[FROM_18.min_recovery_timeline..][..4].copy_from_slice(&0_u32.to_ne_bytes());
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(Control::read(dir.path()), None, "a wrong checksum");
        let crc = crc32c(&bytes[..292]);
        bytes[292..296].copy_from_slice(&crc.to_ne_bytes());
        std::fs::write(&file, &bytes).unwrap();
        let found = Control::read(dir.path()).unwrap();
        assert_eq!(found.min_recovery_timeline, None);
        assert_eq!(found.newest(), TimelineId::new(3).unwrap());
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
