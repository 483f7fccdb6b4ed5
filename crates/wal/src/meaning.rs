//! What the few records say that recovery and its targets depend on.
//!
//! Guarantees the fields of those records in 15 to 19; every other record, and one that is shorter than it should be, is
//! [`Meaning::Other`]. Changes to data are left to the server.

use crate::cursor::Cursor;
use crate::{Lsn, Record, ResourceManager, TimelineId, Timestamp, WalMagic};

/// What a record means to recovery and to its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// A transaction was committed; a target time or transaction can stop before or after it.
    Commit {
        /// When, by the server's clock.
        at: Timestamp,
        /// Which transaction; of a prepared one its own, `None` if the record is too long to tell.
        xid: Option<u32>,
    },
    /// A transaction was rolled back; targets can stop here too.
    Abort {
        /// When, by the server's clock.
        at: Timestamp,
        /// Which transaction; of a prepared one its own, `None` if the record is too long to tell.
        xid: Option<u32>,
    },
    /// A transaction was prepared for two-phase commit.
    Prepare {
        /// When, by the server's clock.
        at: Timestamp,
        /// Id of the prepared transaction.
        xid: u32,
    },
    /// `pg_create_restore_point()`.
    RestorePoint {
        /// When, by the server's clock.
        at: Timestamp,
        /// Its name, at most 63 bytes.
        name: &'a [u8],
    },
    /// A checkpoint, online or at shutdown.
    Checkpoint {
        /// Whether the server was shut down, or began a timeline, with it.
        is_shutdown: bool,
        /// LSN at which replay begins.
        redo: Lsn,
        /// The timeline, and the one it was left from if this begins it; otherwise the same.
        timelines: Timelines,
        /// When, by the server's clock; to the second.
        at: Option<Timestamp>,
    },
    /// The beginning of a timeline, after a promotion.
    EndOfRecovery {
        /// When, by the server's clock.
        at: Timestamp,
        /// The timeline, and the one it was left from.
        timelines: Timelines,
    },
    /// The end of a base backup.
    BackupEnd {
        /// LSN at which the backup began.
        start: Lsn,
    },
    /// The record at `overwritten` was never finished; the server went on here after a crash.
    OverwriteContrecord {
        /// Where the unfinished record begins.
        overwritten: Lsn,
    },
    /// The rest of the segment is unused.
    Switch,
    /// A record that matters to no target: replayed, and that is all.
    Other,
}

/// A timeline and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timelines {
    /// The timeline from here on.
    pub this: TimelineId,
    /// The timeline up to here.
    pub previous: TimelineId,
}

// Operations of the resource manager XLOG (`pg_control.h`).
const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

// Operations of the resource manager Transaction (`xact.h`).
const XACT_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const XACT_HAS_INFO: u8 = 0x80;

// What a commit's or abort's record goes on with, in this order; bytes of each item.
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;

/// The first format in which an item of dropped statistics has 16 bytes instead of 12 (18).
const WIDE_STATS_FROM: WalMagic = WalMagic(0xD118);

impl<'a> Record<'a> {
    /// What the record says.
    ///
    /// Source: `xact.h`, `xlog_internal.h`, `pg_control.h`, 15 to 19.
    #[must_use]
    pub fn meaning(&self) -> Meaning<'a> {
        let found = match self.header.manager {
            ResourceManager::XLOG => self
                .main()
                .and_then(|main| xlog(self.header.operation(), self.magic, main)),
            ResourceManager::TRANSACTION => self.main().and_then(|main| self.transaction(main)),
            _ => None,
        };
        found.unwrap_or(Meaning::Other)
    }

    fn main(&self) -> Option<Cursor<'a>> {
        self.parts(|_| ()).ok().map(|parts| Cursor(parts.main))
    }

    fn transaction(&self, mut main: Cursor<'a>) -> Option<Meaning<'a>> {
        let operation = self.header.info & XACT_MASK;
        if operation == PREPARE {
            main.take(8)?;
            let xid = main.u32()?;
            main.u32()?;
            return Some(Meaning::Prepare {
                at: Timestamp(main.i64()?),
                xid,
            });
        }
        let is_commit = matches!(operation, COMMIT | COMMIT_PREPARED);
        if !is_commit && !matches!(operation, ABORT | ABORT_PREPARED) {
            return None;
        }
        let at = Timestamp(main.i64()?);
        let xid = match operation {
            COMMIT | ABORT => Some(self.header.xid),
            _ => prepared_xid(self.header.info, self.magic, is_commit, main),
        };
        Some(if is_commit {
            Meaning::Commit { at, xid }
        } else {
            Meaning::Abort { at, xid }
        })
    }
}

/// The transaction that was prepared earlier, in what follows the time.
fn prepared_xid(info: u8, magic: WalMagic, is_commit: bool, mut rest: Cursor<'_>) -> Option<u32> {
    if info & XACT_HAS_INFO == 0 {
        return None;
    }
    let has = rest.u32()?;
    if has & HAS_DATABASE != 0 {
        rest.take(8)?;
    }
    if has & HAS_SUBXACTS != 0 {
        rest.skip_items(4)?;
    }
    if has & HAS_RELATIONS != 0 {
        rest.skip_items(12)?;
    }
    if has & HAS_DROPPED_STATS != 0 {
        rest.skip_items(if magic.0 >= WIDE_STATS_FROM.0 { 16 } else { 12 })?;
    }
    if is_commit && has & HAS_INVALIDATIONS != 0 {
        rest.skip_items(16)?;
    }
    match has & HAS_TWO_PHASE {
        0 => None,
        _ => rest.u32(),
    }
}

fn xlog<'a>(operation: u8, magic: WalMagic, mut main: Cursor<'a>) -> Option<Meaning<'a>> {
    Some(match operation {
        CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => {
            let redo = Lsn(main.u64()?);
            let timelines = timelines(&mut main)?;
            // The time is 64 bytes into the structure in 15 to 18, and 72 in 19; 16 have been read.
            let mut time = main;
            let at = match magic.major() {
                Some(15..=18) => time.take(48),
                Some(19) => time.take(56),
                _ => None,
            };
            let at = at
                .and_then(|_| time.i64())
                .and_then(Timestamp::from_unix_seconds);
            Meaning::Checkpoint {
                is_shutdown: operation == CHECKPOINT_SHUTDOWN,
                redo,
                timelines,
                at,
            }
        }
        END_OF_RECOVERY => Meaning::EndOfRecovery {
            at: Timestamp(main.i64()?),
            timelines: timelines(&mut main)?,
        },
        RESTORE_POINT => Meaning::RestorePoint {
            at: Timestamp(main.i64()?),
            name: main.text()?,
        },
        BACKUP_END => Meaning::BackupEnd {
            start: Lsn(main.u64()?),
        },
        OVERWRITE_CONTRECORD => Meaning::OverwriteContrecord {
            overwritten: Lsn(main.u64()?),
        },
        SWITCH => Meaning::Switch,
        _ => return None,
    })
}

fn timelines(main: &mut Cursor<'_>) -> Option<Timelines> {
    Some(Timelines {
        this: TimelineId::new(main.u32()?)?,
        previous: TimelineId::new(main.u32()?)?,
    })
}
