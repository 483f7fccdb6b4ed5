//! What a server says of itself, in one question: its role, where its WAL is, its own statistics of archiving, and Walden's
//! document.

use crate::living::psql::Psql;
use archive::{Error, ErrorKind};
use serde::Deserialize;
use status::Status;
use wal::{Lsn, SegmentName, SegmentSize};

/// One row of one column, a JSON document. The schema is named: no object of a user's takes a function's place.
const QUESTION: &str = "\
select pg_catalog.json_build_object(
    'version', pg_catalog.current_setting('server_version'),
    'in_recovery', pg_catalog.pg_is_in_recovery(),
    'now', extract(epoch from pg_catalog.clock_timestamp())::float8,
    'started', extract(epoch from pg_catalog.pg_postmaster_start_time())::float8,
    'flushed', case when not pg_catalog.pg_is_in_recovery() then pg_catalog.pg_current_wal_flush_lsn() end,
    'timeline', case when not pg_catalog.pg_is_in_recovery()
        then pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 8) end,
    'replayed', pg_catalog.pg_last_wal_replay_lsn(),
    'received', pg_catalog.pg_last_wal_receive_lsn(),
    'replayed_at', extract(epoch from pg_catalog.pg_last_xact_replay_timestamp())::float8,
    'segment_bytes', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
    'archive_mode', pg_catalog.current_setting('archive_mode'),
    'archive_library', pg_catalog.current_setting('archive_library', true),
    'data_directory', pg_catalog.current_setting('data_directory', true),
    'failed_count', a.failed_count,
    'last_archived_wal', a.last_archived_wal,
    'last_archived_at', extract(epoch from a.last_archived_time)::float8,
    'status', nullif(nullif(pg_catalog.current_setting('walden.status', true), ''), 'null')::json
) from pg_catalog.pg_stat_archiver a";

/// What a server said. Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Observed {
    /// Version of PostgreSQL.
    pub(crate) version: String,
    /// Whether it is in recovery: a standby, or on its way to a target.
    pub(crate) in_recovery: bool,
    /// Its clock.
    pub(crate) now: f64,
    /// When it started.
    pub(crate) started: f64,
    /// How far its WAL is flushed; not in recovery.
    flushed: Option<String>,
    /// Its timeline, in hexadecimal; not in recovery.
    timeline: Option<String>,
    /// How far WAL is replayed; in recovery.
    replayed: Option<String>,
    /// How far WAL was streamed.
    received: Option<String>,
    /// When the last replayed transaction ended, by the primary's clock.
    pub(crate) replayed_at: Option<f64>,
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    pub(crate) archive_mode: String,
    pub(crate) archive_library: Option<String>,
    /// Shown to members of `pg_read_all_settings`.
    pub(crate) data_directory: Option<String>,
    /// Attempts that failed, by the server's statistics.
    pub(crate) failed_count: u64,
    /// What was archived last, by the server's statistics.
    pub(crate) last_archived_wal: Option<String>,
    pub(crate) last_archived_at: Option<f64>,
    /// Walden's document; absent where the library is not preloaded.
    pub(crate) status: Option<Status>,
}

impl Observed {
    /// Asks.
    ///
    /// # Errors
    /// As [`Psql::ask`], and when the answer is not understood.
    pub(crate) fn ask(session: &mut Psql) -> Result<Observed, Error> {
        let answer = session.ask(QUESTION)?;
        serde_json::from_str(&answer).map_err(|cause| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the server's answer is not understood: {cause}"),
            )
        })
    }

    /// How far WAL is flushed; not in recovery.
    pub(crate) fn flushed(&self) -> Option<Lsn> {
        self.flushed.as_deref()?.parse().ok()
    }

    /// How far WAL is replayed; in recovery.
    pub(crate) fn replayed(&self) -> Option<Lsn> {
        self.replayed.as_deref()?.parse().ok()
    }

    /// How far WAL was streamed; in recovery.
    pub(crate) fn received(&self) -> Option<Lsn> {
        self.received.as_deref()?.parse().ok()
    }

    /// Its timeline; not in recovery.
    pub(crate) fn timeline(&self) -> Option<u32> {
        u32::from_str_radix(self.timeline.as_deref()?, 16).ok()
    }

    /// Whether the server's archiver is to run, with Walden or with what Walden hosts.
    pub(crate) fn archives_through_walden(&self) -> bool {
        let runs = match self.archive_mode.as_str() {
            "always" => true,
            "off" => false,
            _ => !self.in_recovery,
        };
        let library = self.archive_library.as_deref().unwrap_or_default();
        self.archiver().is_some() || runs && wire::is_own_library(library)
    }

    /// The archiver's section, if it is fresh.
    pub(crate) fn archiver(&self) -> Option<&status::Archiver> {
        let archiver = self.status.as_ref()?.archiver.as_ref()?;
        archiver.live.then_some(archiver)
    }

    /// The recovery worker's section, if it is fresh.
    pub(crate) fn recovery(&self) -> Option<&status::Recovery> {
        let recovery = self.status.as_ref()?.recovery.as_ref()?;
        recovery.live.then_some(recovery)
    }

    /// Since when recovery cannot be told of its files, and why; `None` if it can, or the server is out of recovery.
    pub(crate) fn recovery_fails(&self) -> Option<(f64, &status::Failure)> {
        let at = self.status.as_ref()?.at;
        self.recovery()?.failing(at, self.in_recovery)
    }

    /// What is pending, if it was counted a moment ago.
    pub(crate) fn pending(&self) -> Option<&status::Pending> {
        self.status.as_ref()?.pending()
    }

    /// What is not archived, if that was looked at a moment ago.
    pub(crate) fn unarchived(&self) -> Option<&status::Unarchived> {
        let unarchived = self.archiver()?.unarchived.as_ref()?;
        let made_at = self.status.as_ref()?.at;
        (made_at - unarchived.looked_at < status::FRESH_FOR_S).then_some(unarchived)
    }

    /// The first segment that is not archived; it need not have been begun.
    pub(crate) fn first_unarchived(&self) -> Option<SegmentName> {
        self.unarchived()?.first_segment.as_deref()?.parse().ok()
    }

    /// All WAL of the timeline before it is archived.
    pub(crate) fn archived_through(&self) -> Option<Lsn> {
        let size = SegmentSize::new(self.segment_bytes).ok()?;
        self.first_unarchived()?.start(size)
    }

    /// Bytes that are flushed and not archived.
    pub(crate) fn lag_bytes(&self) -> Option<u64> {
        let (flushed, through) = (self.flushed()?, self.archived_through()?);
        Some(flushed.0.saturating_sub(through.0))
    }
}
