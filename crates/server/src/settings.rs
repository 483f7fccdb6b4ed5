//! Walden's parameters, as data, and the typed view of them that the rest of the library uses.

use abi::Major;
use archive::{
    ArchivingLimits, Compression, IdentityFile, Location, MissingSegment, Number, Options, Place,
    Recipients, Verify, parameter,
};
use module::settings::{
    About, Check, Context, DurationSetting, EnumSetting, IntSetting, MemoryUnit, Setting,
    SizeSetting, StringSetting, TimeUnit,
};
use module::{Failure, Process};
use std::ffi::CStr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const fn about(
    name: &'static CStr,
    context: Context,
    short: &'static CStr,
    long: &'static CStr,
) -> About {
    About {
        name,
        short,
        long,
        context,
    }
}

const fn bounds(number: Number) -> RangeInclusive<i32> {
    number.min..=number.max
}

static ARCHIVE: StringSetting = StringSetting::checked::<LocationCheck>(
    about(
        c"walden.archive",
        Context::Reload,
        c"Sets the location of the WAL archive.",
        c"A directory, or an s3:, gs: or az: URL. An empty string means not configured.",
    ),
    c"",
);

/// Read by [`crate::several`], which explains why nothing is refused here.
static ARCHIVE_LIBRARIES: StringSetting = StringSetting::new(
    about(
        c"walden.archive_libraries",
        Context::Reload,
        c"Sets the archive modules that archive each WAL file.",
        c"Library names, separated by commas; \"walden\" is Walden's own. A file counts as archived once \
          all of them have it. An empty string means Walden alone.",
    ),
    c"",
);

static COMPRESSION: StringSetting = StringSetting::checked::<CompressionCheck>(
    about(
        c"walden.compression",
        Context::Reload,
        c"Sets how archived segments are compressed.",
        c"One of none, zstd, zstd:LEVEL, lz4. Files that are in the archive already can still be read.",
    ),
    c"zstd",
);

static RECIPIENTS: StringSetting = StringSetting::checked::<RecipientsCheck>(
    about(
        c"walden.recipients",
        Context::Reload,
        c"Sets the age public keys that archived files are encrypted for.",
        c"Public keys as age-keygen makes them, separated by commas. An empty string means that files are not \
          encrypted.",
    ),
    c"",
);

static IDENTITY_FILE: StringSetting = StringSetting::checked::<IdentityFileCheck>(
    about(
        c"walden.identity_file",
        Context::Reload,
        c"Sets the file with the age identities that encrypted files of the archive are read with.",
        c"An absolute path; the file is read anew for each encrypted file. Archiving needs none. An empty string \
          means none.",
    ),
    c"",
);

static ARCHIVE_TIMEOUT: DurationSetting = DurationSetting::new(
    about(
        c"walden.archive_timeout",
        Context::Reload,
        c"Sets how long archiving one file may take, retries included, before it counts as failed.",
        c"Until then failures that may be temporary are retried. Then the server tries again; an attempt \
          that is still running is joined.",
    ),
    parameter::ARCHIVE_TIMEOUT.default,
    bounds(parameter::ARCHIVE_TIMEOUT),
    TimeUnit::Seconds,
);

static ARCHIVE_JOBS: IntSetting = IntSetting::new(
    about(
        c"walden.archive_jobs",
        Context::Reload,
        c"Sets how many files are archived at once.",
        c"While the server waits for one file, the next ones that are ready are archived too. With 1, a file is \
          archived only when the server asks for it.",
    ),
    parameter::ARCHIVE_JOBS.default,
    bounds(parameter::ARCHIVE_JOBS),
);

static MEMORY_LIMIT: SizeSetting = SizeSetting::new(
    about(
        c"walden.memory_limit",
        Context::Reload,
        c"Sets the maximum memory for all of Walden's buffers in one process.",
        c"Fewer files are moved at the same time if their buffers do not fit. One file is always moved; see the \
          manual for what the highest levels of zstd take.",
    ),
    parameter::MEMORY_LIMIT.default,
    bounds(parameter::MEMORY_LIMIT),
    MemoryUnit::Megabytes,
);

static VERIFY: EnumSetting<Verify> = EnumSetting::new(
    about(
        c"walden.verify",
        Context::Reload,
        c"Sets what is checked before a segment is archived and before it is handed to replay.",
        c"",
    ),
    &[
        (c"records", Verify::Records),
        (c"header", Verify::Header),
        (c"off", Verify::Off),
    ],
);

static RESTORE_TIMEOUT: DurationSetting = DurationSetting::new(
    about(
        c"walden.restore_timeout",
        Context::Reload,
        c"Sets how long a restore is retried that can neither succeed nor tell that the file is absent; \
          then recovery gets an error.",
        c"A standby gets the error at once, because it tries again by itself. A recovery module that does not \
          return is given up after this time, too.",
    ),
    parameter::RESTORE_TIMEOUT.default,
    bounds(parameter::RESTORE_TIMEOUT),
    TimeUnit::Seconds,
);

static RESTORE_PREFETCH: IntSetting = IntSetting::new(
    about(
        c"walden.restore_prefetch",
        Context::Reload,
        c"Sets how many segments may be fetched before recovery asks for them.",
        c"How many are fetched depends on the speed of replay and of the archive. With 0, each is fetched when \
          recovery asks for it.",
    ),
    parameter::RESTORE_PREFETCH.default,
    bounds(parameter::RESTORE_PREFETCH),
);

static MISSING_SEGMENT: EnumSetting<MissingSegment> = EnumSetting::new(
    about(
        c"walden.missing_segment",
        Context::Reload,
        c"Sets what happens when recovery needs a segment that is missing although later WAL is stored.",
        c"error: recovery does not go on. end: recovery ends there, with a warning.",
    ),
    &[
        (c"error", MissingSegment::Error),
        (c"end", MissingSegment::End),
    ],
);

static RESTORE_LIBRARY: StringSetting = StringSetting::new(
    about(
        c"walden.restore_library",
        Context::Restart,
        c"Sets the library that will be called to restore a WAL file.",
        c"",
    ),
    c"",
);

static ARCHIVE_CLEANUP_LIBRARY: StringSetting = StringSetting::new(
    about(
        c"walden.archive_cleanup_library",
        Context::Restart,
        c"Sets the library that will be called at every restartpoint.",
        c"",
    ),
    c"",
);

static RECOVERY_END_LIBRARY: StringSetting = StringSetting::new(
    about(
        c"walden.recovery_end_library",
        Context::Restart,
        c"Sets the library that will be called once at the end of recovery.",
        c"",
    ),
    c"",
);

/// All of them, for the server.
pub(crate) static ALL: &[&dyn Setting] = &[
    &ARCHIVE,
    &ARCHIVE_LIBRARIES,
    &COMPRESSION,
    &RECIPIENTS,
    &IDENTITY_FILE,
    &ARCHIVE_TIMEOUT,
    &ARCHIVE_JOBS,
    &MEMORY_LIMIT,
    &VERIFY,
    &RESTORE_TIMEOUT,
    &RESTORE_PREFETCH,
    &MISSING_SEGMENT,
    &RESTORE_LIBRARY,
    &ARCHIVE_CLEANUP_LIBRARY,
    &RECOVERY_END_LIBRARY,
    &crate::status::STATUS,
    &crate::status::VERSION,
];

struct LocationCheck;

impl Check for LocationCheck {
    /// A URL may hold what does not belong there.
    const REFUSAL: Option<&'static CStr> = Some(c"invalid value for parameter \"walden.archive\"");

    fn check(value: &str) -> Result<(), String> {
        parameter::check_location(value).map_err(|error| error.to_string())
    }
}

struct CompressionCheck;

impl Check for CompressionCheck {
    fn check(value: &str) -> Result<(), String> {
        parameter::check_compression(value).map_err(|error| error.to_string())
    }
}

/// The last value offered was refused. The server then keeps the one before, which at its start is the default: no recipient.
/// Who has asked for encryption and mistyped a key must not get an archive in the clear.
static RECIPIENTS_REFUSED: AtomicBool = AtomicBool::new(false);

struct RecipientsCheck;

impl Check for RecipientsCheck {
    const REFUSAL: Option<&'static CStr> =
        Some(c"invalid value for parameter \"walden.recipients\"");

    fn check(value: &str) -> Result<(), String> {
        let checked = parameter::check_recipients(value);
        RECIPIENTS_REFUSED.store(checked.is_err(), Ordering::Relaxed);
        checked.map_err(|error| error.to_string())
    }
}

struct IdentityFileCheck;

impl Check for IdentityFileCheck {
    const REFUSAL: Option<&'static CStr> =
        Some(c"invalid value for parameter \"walden.identity_file\"");

    fn check(value: &str) -> Result<(), String> {
        parameter::check_identity_file(value).map_err(|error| error.to_string())
    }
}

/// Which archive, and how it is used; the same value as long as nothing relevant is reloaded. Fails when
/// `walden.archive` is not set.
pub(crate) fn archive(process: Process) -> Result<Place, Failure> {
    let location = ARCHIVE.get(process);
    if location.is_empty() {
        return Err(Failure::new("\"walden.archive\" is not set").hint(
            "Set \"walden.archive\" to the directory or the URL of the WAL archive and reload.",
        ));
    }
    let location = location
        .parse::<Location>()
        .map_err(crate::failure::of_archive)?;
    let compression = COMPRESSION.get(process).parse::<Compression>();
    let compression = compression.map_err(crate::failure::of_archive)?;
    let recipients = RECIPIENTS.get(process).parse::<Recipients>();
    let recipients = recipients.map_err(crate::failure::of_archive)?;
    if recipients.is_empty() && RECIPIENTS_REFUSED.load(Ordering::Relaxed) {
        return Err(Failure::new(
            "\"walden.recipients\" has an invalid value, and nothing is archived unencrypted instead",
        )
        .hint(
            "Correct \"walden.recipients\" and reload; to archive without encryption, set it to an empty string.",
        ));
    }
    let identity_file = Some(IDENTITY_FILE.get(process)).filter(|path| !path.is_empty());
    let identity_file = identity_file.map(|path| path.parse::<IdentityFile>());
    let identity_file = identity_file
        .transpose()
        .map_err(crate::failure::of_archive)?;
    Ok(Place {
        location,
        options: Options {
            compression,
            recipients,
            identity_file,
            verify: VERIFY.get(process),
            server_major: major(process),
        },
    })
}

fn major(process: Process) -> Option<u32> {
    let number = process.parameter(c"server_version_num").ok().flatten()?;
    let Major(major) = Major::of_version_num(number.parse().ok()?);
    Some(major)
}

/// `walden.archive` as it is written; empty when not set.
pub(crate) fn archive_text(process: Process) -> String {
    ARCHIVE.get(process)
}

/// `walden.archive_libraries` as it is written; empty for Walden alone.
pub(crate) fn archive_libraries(process: Process) -> String {
    ARCHIVE_LIBRARIES.get(process)
}

/// The parameter's name, for messages.
pub(crate) fn archive_libraries_name() -> &'static str {
    "walden.archive_libraries"
}

/// `walden.archive_timeout`: how long one file may take, retries included.
pub(crate) fn archive_timeout(process: Process) -> Duration {
    ARCHIVE_TIMEOUT.get(process)
}

/// How many files may be on their way into the archive, and how much memory they may take.
pub(crate) fn archiving_limits(process: Process) -> ArchivingLimits {
    ArchivingLimits {
        jobs: usize::try_from(ARCHIVE_JOBS.get(process)).unwrap_or(1),
        memory: memory_limit(process),
    }
}

/// The ceiling for all buffers of a process, in bytes.
pub(crate) fn memory_limit(process: Process) -> u64 {
    MEMORY_LIMIT.get(process)
}

/// How long "could not tell" is retried.
pub(crate) fn restore_timeout(process: Process) -> Duration {
    RESTORE_TIMEOUT.get(process)
}

/// How many segments may be fetched ahead.
pub(crate) fn restore_prefetch(process: Process) -> usize {
    usize::try_from(RESTORE_PREFETCH.get(process)).unwrap_or(0)
}

/// `walden.missing_segment`: what to do if a segment is missing although later WAL is stored.
pub(crate) fn missing_segment(process: Process) -> MissingSegment {
    MISSING_SEGMENT.get(process)
}

/// The three jobs of recovery modules, each with its parameter and the command it stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Restore,
    ArchiveCleanup,
    RecoveryEnd,
}

impl Job {
    pub(crate) const ALL: [Self; 3] = [Self::Restore, Self::ArchiveCleanup, Self::RecoveryEnd];

    /// The server's parameter for this job, `restore_command` say.
    pub(crate) fn command(self) -> &'static CStr {
        match self {
            Self::Restore => c"restore_command",
            Self::ArchiveCleanup => c"archive_cleanup_command",
            Self::RecoveryEnd => c"recovery_end_command",
        }
    }

    /// Walden's parameter for this job, `walden.restore_library` say.
    pub(crate) fn parameter(self) -> &'static CStr {
        match self {
            Self::Restore => c"walden.restore_library",
            Self::ArchiveCleanup => c"walden.archive_cleanup_library",
            Self::RecoveryEnd => c"walden.recovery_end_library",
        }
    }

    /// The subcommand of Walden's own client.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::ArchiveCleanup => "archive-cleanup",
            Self::RecoveryEnd => "recovery-end",
        }
    }

    /// The library named for this job; `None` when none is.
    pub(crate) fn library(self, process: Process) -> Option<String> {
        let setting = match self {
            Self::Restore => &RESTORE_LIBRARY,
            Self::ArchiveCleanup => &ARCHIVE_CLEANUP_LIBRARY,
            Self::RecoveryEnd => &RECOVERY_END_LIBRARY,
        };
        Some(setting.get(process)).filter(|name| !name.is_empty())
    }
}
