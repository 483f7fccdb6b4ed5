//! The document: what is shown, with its units.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A writer whose section is older than this, in seconds, is not believed to be at work; both write each second.
pub const FRESH_FOR_S: f64 = 10.0;

/// A time as the document has it: seconds since 1970, 0 for what lies before.
#[must_use]
pub fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs_f64()
}

/// The present time, as the document has it.
#[must_use]
pub fn now() -> f64 {
    unix(SystemTime::now())
}

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the library that the server preloaded.
    pub version: String,
    /// When the document was made.
    pub at: f64,
    /// The archiver; absent if none has loaded Walden since the server's start.
    pub archiver: Option<Archiver>,
    /// The recovery worker; absent if there is none.
    pub recovery: Option<Recovery>,
}

impl Status {
    /// What the archiver has to archive, if it is live and counted it a moment ago.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        let archiver = self.archiver.as_ref().filter(|it| it.live)?;
        let pending = archiver.pending.as_ref()?;
        (self.at - pending.counted_at < FRESH_FOR_S).then_some(pending)
    }
}

/// What the archiver says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Archiver {
    /// Process identifier.
    pub pid: u32,
    /// When the process loaded Walden.
    pub since: f64,
    /// When this was written.
    pub written_at: f64,
    /// Whether the process runs and wrote this a moment ago. Set by the reader.
    pub live: bool,
    /// `walden.archive`.
    pub archive: String,
    /// `walden.compression`; empty while the settings cannot be used.
    pub compression: String,
    /// How many keys files are encrypted for; 0: they are not encrypted. Absent while the settings cannot be used.
    pub recipients: Option<usize>,
    /// `walden.archive_jobs`.
    pub jobs: usize,
    /// `walden.archive_libraries`; empty for Walden alone.
    pub libraries: String,
    /// The call of an archive module that goes on; absent between two calls.
    pub call: Option<Call>,
    /// What the server has ready to be archived; absent until it was counted.
    pub pending: Option<Pending>,
    /// What of WAL a loss of the server would lose; absent where it cannot be told.
    pub unarchived: Option<Unarchived>,
    /// The file that was archived last, since `since`.
    pub last_archived: Option<Named>,
    /// What failed last, since `since`.
    pub last_failure: Option<Failure>,
    /// Since when no file could be archived; absent if the last attempt did not fail.
    pub failing_since: Option<f64>,
    /// Files by result, since `since`.
    pub files: Counts,
    /// Bytes of archived files, since `since`.
    pub bytes: Bytes,
    /// What the last minutes brought.
    pub recent: Recent,
    /// Requests to the archive, by operation and outcome, since the archive was opened.
    pub requests: Vec<Requests>,
    /// Files on their way, in the order of their names; the first ones if there are many.
    pub in_flight: Vec<InFlight>,
    /// Backup history files that were archived since `since`, the newest last; the last ones if there are many.
    pub backups: Vec<Named>,
}

/// A call of a module that has not come back. While it lasts that process archives, or restores, nothing else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// Name of the module.
    pub module: String,
    /// What it is called for.
    pub task: Task,
    /// The file that it is to archive or to restore; absent where it is called for something else.
    pub file: Option<String>,
    /// How long it has lasted, in seconds.
    pub lasts: f64,
    /// How long it may last, in seconds, before it counts as one that hangs.
    pub may_last: f64,
}

impl Call {
    fn hangs(&self) -> bool {
        self.lasts > self.may_last
    }
}

/// What a module is called for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// An archive module is loaded, or asked whether it is configured.
    #[default]
    Configure,
    /// To archive a file.
    Archive,
    /// A recovery module is loaded.
    Load,
    /// To restore a file.
    Restore,
    /// To clean the archive up.
    Cleanup,
    /// To do what is to be done at the end of recovery.
    End,
}

impl Archiver {
    /// The call that has lasted longer than it may, if there is one: the module hangs, or is far too slow.
    #[must_use]
    pub fn hangs(&self) -> Option<&Call> {
        self.call.as_ref().filter(|call| call.hangs())
    }
}

/// Files that the server has to archive (`archive_status/*.ready`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// How many files.
    pub files: u64,
    /// Bytes of WAL in them.
    pub bytes: u64,
    /// The one that the server archives first.
    pub oldest: Option<String>,
    /// Since when that one is ready.
    pub oldest_since: Option<f64>,
    /// The first ones in the order in which the server archives them; those that are on their way are among them.
    pub first: Vec<String>,
    /// When this was counted.
    pub counted_at: f64,
}

/// WAL that is not archived.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unarchived {
    /// The first segment that is not archived; it need not have been begun.
    pub first_segment: Option<String>,
    /// Whether it is known which commit in it is the oldest.
    pub commits_known: bool,
    /// When that was; absent if there is none, or it is not known.
    pub oldest_commit_at: Option<f64>,
    /// When this was looked at.
    pub looked_at: f64,
}

/// A file and a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Name of the file.
    pub file: String,
    /// When it happened.
    pub at: f64,
}

/// Why a file was not archived, or not restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the file; absent where it is the matter of all files.
    pub file: Option<String>,
    /// What kind of cause it has.
    pub cause: Cause,
    /// The message, as the server's log has it.
    pub message: String,
    /// What to do about it, if the log says so.
    pub hint: Option<String>,
    /// When.
    pub at: f64,
}

/// Kinds of causes, by what an administrator has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The archive's store does not answer, or cannot do it now.
    Store,
    /// The store does not let this server in.
    Auth,
    /// The archive has other bytes under the name, or belongs to another system.
    Refused,
    /// A setting is wrong or missing.
    Config,
    /// The file, or what is stored, fails its checks.
    Damaged,
    /// Another module of `walden.archive_libraries`, which alone knows why.
    Module,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 6] = [
        Cause::Store,
        Cause::Auth,
        Cause::Refused,
        Cause::Config,
        Cause::Damaged,
        Cause::Module,
    ];

    /// The word in documents and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Cause::Store => "store",
            Cause::Auth => "auth",
            Cause::Refused => "refused",
            Cause::Config => "config",
            Cause::Damaged => "damaged",
            Cause::Module => "module",
        }
    }
}

/// Files by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Stored by this archiver.
    pub archived: u64,
    /// Found in the archive, with the same contents.
    pub duplicate: u64,
    /// Attempts that were refused: the archive has other bytes, or belongs to another system.
    pub refused: u64,
    /// Attempts that failed otherwise.
    pub failed: u64,
}

/// Bytes of archived files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bytes {
    /// Of WAL, as the server has it.
    pub wal: u64,
    /// As they are stored.
    pub stored: u64,
}

/// What the last minutes brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recent {
    /// How many seconds are looked at: at most 300.
    pub seconds: f64,
    /// Files archived in them.
    pub files: u64,
    /// Bytes of WAL archived in them.
    pub bytes: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// `put`, `get`, `list`, `remove` or `sync`.
    pub op: String,
    /// `ok`, `absent`, `exists` or `failed`.
    pub outcome: String,
    /// How long they took.
    pub latency: Histogram,
}

/// How many requests took how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// An upper bound in milliseconds, and how many took at most so long but longer than the bound before.
    pub buckets: Vec<(u64, u64)>,
    /// How many in all, those above all bounds too.
    pub count: u64,
    /// How long all of them took together.
    pub seconds: f64,
}

/// A file on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Name of the file.
    pub file: String,
    /// What becomes of it at present.
    pub state: Stage,
    /// How many attempts have been made.
    pub attempts: u64,
    /// How old the first attempt is, in seconds.
    pub age: f64,
    /// What the last attempt failed with.
    pub error: Option<String>,
}

/// What becomes of a file on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is being moved.
    Running,
    /// It is stored, and the server has not asked for it yet.
    Stored,
    /// The last attempt has failed.
    Failed,
}

/// What the recovery worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// Process identifier.
    pub pid: u32,
    /// When the worker started.
    pub since: f64,
    /// When this was written.
    pub written_at: f64,
    /// Whether the process runs and wrote this a moment ago. Set by the reader.
    pub live: bool,
    /// `walden.restore_library`; empty if the worker restores nothing.
    pub library: String,
    /// `walden.archive`.
    pub archive: String,
    /// Requests for files, by how they ended, since `since`.
    pub restored: Restored,
    /// How long the requests took together, in seconds.
    pub waited: f64,
    /// The file that is asked for at present.
    pub asked: Option<Named>,
    /// The call of a recovery module that goes on; absent between two calls.
    pub call: Option<Call>,
    /// The file that was restored last.
    pub last_restored: Option<Named>,
    /// What could not be told last.
    pub last_failure: Option<Failure>,
    /// Since when files could not be restored; absent if the last request did not fail.
    pub failing_since: Option<f64>,
    /// How many segments are fetched ahead at a time, at present.
    pub prefetch_depth: usize,
    /// Requests to the archive, by operation and outcome, since it was opened.
    pub requests: Vec<Requests>,
}

/// How long a failure of recovery counts that nothing has followed, in seconds: a standby that asks for files asks every few.
const RECOVERY_FAILS_FOR_S: f64 = 120.0;

impl Recovery {
    /// The call that has lasted longer than it may, if there is one: the module hangs, or is far too slow.
    #[must_use]
    pub fn hangs(&self) -> Option<&Call> {
        self.call.as_ref().filter(|call| call.hangs())
    }

    /// Since when files cannot be restored, and why; `None` if they can, or none has been asked for lately: a standby that
    /// streams asks for none, and a server out of recovery asks no more.
    #[must_use]
    pub fn failing(&self, at: f64, in_recovery: bool) -> Option<(f64, &Failure)> {
        let failing = self.failing_since.zip(self.last_failure.as_ref())?;
        (in_recovery && at - failing.1.at < RECOVERY_FAILS_FOR_S).then_some(failing)
    }
}

/// Requests for files, by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restored {
    /// Restored; it had been fetched before it was asked for.
    pub ahead: u64,
    /// Restored; fetched when it was asked for.
    pub asked: u64,
    /// Not in the archive.
    pub absent: u64,
    /// Could not tell.
    pub unknown: u64,
}
