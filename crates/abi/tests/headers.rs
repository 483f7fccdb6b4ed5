//! Holds the hand-made declarations against the headers of every installed server.
//!
//! A C probe is compiled for each: it asserts the types of the functions and variables, and prints sizes,
//! offsets and constants, which must be the ones in Rust. Servers are found under `/usr/lib/postgresql` and
//! through `WALDEN_PG_CONFIGS` (`pg_config` programs, separated by colons). Without the headers of the oldest
//! supported major, or of a server that was named, the test fails: it must not pass by looking at nothing.
//!
//! One function is long because it is a table.

#![expect(clippy::unwrap_used, clippy::expect_used)]

use abi::Major;
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What every probe includes.
const PREAMBLE: &str = r#"
#include "postgres.h"
#include <stddef.h>
#include <stdio.h>
#include "access/xlog.h"
#include "access/xact.h"
#include "access/xlogrecovery.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#if PG_VERSION_NUM >= 160000
#include "archive/archive_module.h"
#else
#include "postmaster/pgarch.h"
#endif
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"
#include "walden/backup_target.h"
#include "walden/recovery_module.h"

#define FUNCTION(name, ...) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __VA_ARGS__), #name)
#define VARIABLE(name, ...) \
    _Static_assert(__builtin_types_compatible_p(__typeof__(name), __VA_ARGS__), #name)

FUNCTION(errstart, bool (int, const char *));
FUNCTION(errfinish, void (const char *, int, const char *));
FUNCTION(errcode, int (int));
FUNCTION(errmsg_internal, int (const char *, ...));
FUNCTION(errdetail_internal, int (const char *, ...));
FUNCTION(errhint, int (const char *, ...));
FUNCTION(CopyErrorData, ErrorData *(void));
FUNCTION(FlushErrorState, void (void));
VARIABLE(PG_exception_stack, sigjmp_buf *);
VARIABLE(error_context_stack, ErrorContextCallback *);

FUNCTION(GetConfigOption, const char *(const char *, bool, bool));
FUNCTION(SetConfigOption, void (const char *, const char *, GucContext, GucSource));
FUNCTION(ProcessConfigFile, void (GucContext));
FUNCTION(DefineCustomStringVariable, void (const char *, const char *, const char *, char **, const char *,
    GucContext, int, GucStringCheckHook, GucStringAssignHook, GucShowHook));
FUNCTION(DefineCustomIntVariable, void (const char *, const char *, const char *, int *, int, int, int,
    GucContext, int, GucIntCheckHook, GucIntAssignHook, GucShowHook));
FUNCTION(DefineCustomBoolVariable, void (const char *, const char *, const char *, bool *, bool, GucContext,
    int, GucBoolCheckHook, GucBoolAssignHook, GucShowHook));
FUNCTION(DefineCustomEnumVariable, void (const char *, const char *, const char *, int *, int,
    const struct config_enum_entry *, GucContext, int, GucEnumCheckHook, GucEnumAssignHook, GucShowHook));
FUNCTION(MarkGUCPrefixReserved, void (const char *));
VARIABLE(GUC_check_errdetail_string, char *);
VARIABLE(GUC_check_errmsg_string, char *);
_Static_assert(_Generic((GucIntCheckHook) 0, bool (*)(int *, void **, GucSource): 1, default: 0), "int hook");
_Static_assert(_Generic((GucStringCheckHook) 0, bool (*)(char **, void **, GucSource): 1, default: 0), "hook");
_Static_assert(sizeof(GucContext) == sizeof(int) && sizeof(GucSource) == sizeof(int), "guc enums");

FUNCTION(WaitLatchOrSocket, int (Latch *, int, pgsocket, long, uint32));
FUNCTION(SetLatch, void (Latch *));
FUNCTION(ResetLatch, void (Latch *));
VARIABLE(MyLatch, Latch *);

FUNCTION(ProcessInterrupts, void (void));
_Static_assert(_Generic(&proc_exit, void (*)(int): 1, default: 0), "proc_exit");
FUNCTION(before_shmem_exit, void (pg_on_exit_callback, Datum));
_Static_assert(_Generic((pg_on_exit_callback) 0, void (*)(int, Datum): 1, default: 0), "exit callback");
FUNCTION(load_external_function, void *(const char *, const char *, bool, void **));
FUNCTION(AllocSetContextCreateInternal, MemoryContext (MemoryContext, const char *, Size, Size, Size));
FUNCTION(MemoryContextReset, void (MemoryContext));
FUNCTION(LWLockReleaseAll, void (void));
FUNCTION(disable_all_timeouts, void (bool));
FUNCTION(ReleaseAuxProcessResources, void (bool));
FUNCTION(CreateAuxProcessResourceOwner, void (void));
FUNCTION(AtEOXact_Files, void (bool));
FUNCTION(AtEOXact_HashTables, void (bool));
FUNCTION(StartTransactionCommand, void (void));
FUNCTION(CommitTransactionCommand, void (void));
FUNCTION(AbortCurrentTransaction, void (void));
FUNCTION(GetUserId, Oid (void));
FUNCTION(get_role_oid, Oid (const char *, bool));
FUNCTION(has_privs_of_role, bool (Oid, Oid));
FUNCTION(GetSystemIdentifier, uint64 (void));
FUNCTION(GetMockAuthenticationNonce, char *(void));
FUNCTION(RecoveryInProgress, bool (void));
FUNCTION(GetXLogReplayRecPtr, XLogRecPtr (TimeLineID *));
#if PG_VERSION_NUM >= 190000
FUNCTION(SignalHandlerForConfigReload, void (int, const pg_signal_info *));
FUNCTION(die, void (int, const pg_signal_info *));
#else
FUNCTION(SignalHandlerForConfigReload, void (int));
FUNCTION(die, void (int));
#endif
VARIABLE(InterruptPending, volatile sig_atomic_t);
VARIABLE(ShutdownRequestPending, volatile sig_atomic_t);
VARIABLE(ConfigReloadPending, volatile sig_atomic_t);
VARIABLE(ProcDiePending, volatile sig_atomic_t);
_Static_assert(sizeof(sig_atomic_t) == sizeof(int), "sig_atomic_t");
VARIABLE(CurrentMemoryContext, MemoryContext);
VARIABLE(TopMemoryContext, MemoryContext);
VARIABLE(ErrorContext, MemoryContext);
VARIABLE(IsPostmasterEnvironment, bool);
VARIABLE(process_shared_preload_libraries_in_progress, bool);
VARIABLE(wal_segment_size, int);
VARIABLE(my_wait_event_info, uint32 *);

FUNCTION(RegisterBackgroundWorker, void (BackgroundWorker *));
FUNCTION(BackgroundWorkerUnblockSignals, void (void));
#if PG_VERSION_NUM >= 170000
VARIABLE(arch_module_check_errdetail_string, char *);
#endif

#if PG_VERSION_NUM >= 180000
#define MAGIC_FIELD(field) (offsetof(Pg_magic_struct, abi_fields) + offsetof(Pg_abi_values, field))
#else
#define MAGIC_FIELD(field) offsetof(Pg_magic_struct, field)
#endif

/* port.h puts the server's own printf in its place, which only the server has. */
#undef printf
#define SHOW(name, value) printf("%s %lld\n", name, (long long) (value))
"#;

/// One line of a probe: what the C side computes, and what Rust believes.
struct Fact(&'static str, &'static str, i64);

fn number(value: usize) -> i64 {
    value.try_into().expect("fits")
}

/// Where a field stands in a structure, by its name on both sides.
macro_rules! field {
    ($c:literal, $rust:ty, $field:ident) => {
        Fact(
            concat!($c, ".", stringify!($field)),
            concat!("offsetof(", $c, ", ", stringify!($field), ")"),
            number(offset_of!($rust, $field)),
        )
    };
}

/// Of base backup targets, which no server installs a header for: whether the C face of the interface is Rust's.
#[rustfmt::skip]
fn backup_facts() -> Vec<Fact> {
    use abi::backup_target::{Bbsink, BbsinkOps, BbsinkState};
    let n = number;
    vec![
        Fact("Oid", "sizeof(Oid)", n(size_of::<abi::process::Oid>())),
        Fact("bbsink_state", "sizeof(bbsink_state)", n(size_of::<BbsinkState>())),
        field!("bbsink_state", BbsinkState, tablespaces),
        field!("bbsink_state", BbsinkState, tablespace_num),
        field!("bbsink_state", BbsinkState, bytes_done),
        field!("bbsink_state", BbsinkState, bytes_total),
        field!("bbsink_state", BbsinkState, bytes_total_is_valid),
        field!("bbsink_state", BbsinkState, startptr),
        field!("bbsink_state", BbsinkState, starttli),
        Fact("bbsink", "sizeof(bbsink)", n(size_of::<Bbsink>())),
        field!("bbsink", Bbsink, bbs_ops),
        field!("bbsink", Bbsink, bbs_buffer),
        field!("bbsink", Bbsink, bbs_buffer_length),
        field!("bbsink", Bbsink, bbs_next),
        field!("bbsink", Bbsink, bbs_state),
        Fact("bbsink_ops", "sizeof(bbsink_ops)", n(size_of::<BbsinkOps>())),
        field!("bbsink_ops", BbsinkOps, begin_backup),
        field!("bbsink_ops", BbsinkOps, begin_archive),
        field!("bbsink_ops", BbsinkOps, archive_contents),
        field!("bbsink_ops", BbsinkOps, end_archive),
        field!("bbsink_ops", BbsinkOps, begin_manifest),
        field!("bbsink_ops", BbsinkOps, manifest_contents),
        field!("bbsink_ops", BbsinkOps, end_manifest),
        field!("bbsink_ops", BbsinkOps, end_backup),
        field!("bbsink_ops", BbsinkOps, cleanup),
    ]
}

#[rustfmt::skip]
fn facts(major: Major) -> Vec<Fact> {
    use abi::{archive_module as archive, elog, guc, latch, magic, process, recovery_module as recovery, worker};
    let n = number;
    let magic_bytes = if major >= Major(18) { size_of::<magic::Magic18>() } else { size_of::<magic::Magic15>() };
    let mut facts = vec![
        Fact("magic", "sizeof(Pg_magic_struct)", n(magic_bytes)),
        Fact("magic.version", "MAGIC_FIELD(version)", n(offset_of!(magic::Magic15, abi) + offset_of!(magic::AbiValues, version))),
        Fact("magic.funcmaxargs", "MAGIC_FIELD(funcmaxargs)", n(4 + offset_of!(magic::AbiValues, funcmaxargs))),
        Fact("magic.indexmaxkeys", "MAGIC_FIELD(indexmaxkeys)", n(4 + offset_of!(magic::AbiValues, indexmaxkeys))),
        Fact("magic.namedatalen", "MAGIC_FIELD(namedatalen)", n(4 + offset_of!(magic::AbiValues, namedatalen))),
        Fact("magic.float8byval", "MAGIC_FIELD(float8byval)", n(4 + offset_of!(magic::AbiValues, float8byval))),
        Fact("magic.abi_extra", "MAGIC_FIELD(abi_extra)", n(4 + offset_of!(magic::AbiValues, abi_extra))),
        Fact("float8byval", "FLOAT8PASSBYVAL", 1),
        Fact("LOG", "LOG", elog::LOG.into()),
        Fact("DEBUG1", "DEBUG1", elog::DEBUG1.into()),
        Fact("DEBUG2", "DEBUG2", elog::DEBUG2.into()),
        Fact("NOTICE", "NOTICE", elog::NOTICE.into()),
        Fact("WARNING", "WARNING", elog::WARNING.into()),
        Fact("ERROR", "ERROR", elog::ERROR.into()),
        Fact("FATAL", "FATAL", elog::FATAL.into()),
        Fact("F0000", "ERRCODE_CONFIG_FILE_ERROR", elog::ERRCODE_CONFIG_FILE_ERROR.into()),
        Fact("58030", "ERRCODE_IO_ERROR", elog::ERRCODE_IO_ERROR.into()),
        Fact("XX000", "ERRCODE_INTERNAL_ERROR", elog::ERRCODE_INTERNAL_ERROR.into()),
        Fact("ErrorData.sqlerrcode", "offsetof(ErrorData, sqlerrcode)", n(offset_of!(elog::ErrorData, sqlerrcode))),
        Fact("ErrorData.message", "offsetof(ErrorData, message)", n(offset_of!(elog::ErrorData, message))),
        Fact("ErrorData.detail", "offsetof(ErrorData, detail)", n(offset_of!(elog::ErrorData, detail))),
        Fact("ErrorData.hint", "offsetof(ErrorData, hint)", n(offset_of!(elog::ErrorData, hint))),
        Fact("PGC_INTERNAL", "PGC_INTERNAL", guc::PGC_INTERNAL.into()),
        Fact("shown", "GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE", guc::read_only_flags(false, major).into()),
        Fact("privileged", "GUC_SUPERUSER_ONLY", (guc::read_only_flags(true, major) ^ guc::read_only_flags(false, major)).into()),
        Fact("PGC_POSTMASTER", "PGC_POSTMASTER", guc::PGC_POSTMASTER.into()),
        Fact("PGC_SIGHUP", "PGC_SIGHUP", guc::PGC_SIGHUP.into()),
        Fact("PGC_S_OVERRIDE", "PGC_S_OVERRIDE", guc::PGC_S_OVERRIDE.into()),
        Fact("GUC_UNIT_S", "GUC_UNIT_S", guc::unit_flags(guc::Unit::Seconds, major).into()),
        Fact("GUC_UNIT_MS", "GUC_UNIT_MS", guc::unit_flags(guc::Unit::Milliseconds, major).into()),
        Fact("GUC_UNIT_MIN", "GUC_UNIT_MIN", guc::unit_flags(guc::Unit::Minutes, major).into()),
        Fact("GUC_UNIT_BYTE", "GUC_UNIT_BYTE", guc::unit_flags(guc::Unit::Bytes, major).into()),
        Fact("GUC_UNIT_KB", "GUC_UNIT_KB", guc::unit_flags(guc::Unit::Kilobytes, major).into()),
        Fact("GUC_UNIT_MB", "GUC_UNIT_MB", guc::unit_flags(guc::Unit::Megabytes, major).into()),
        Fact("config_enum_entry", "sizeof(struct config_enum_entry)", n(size_of::<guc::ConfigEnumEntry>())),
        Fact("config_enum_entry.val", "offsetof(struct config_enum_entry, val)", n(offset_of!(guc::ConfigEnumEntry, val))),
        Fact("WL_LATCH_SET", "WL_LATCH_SET", latch::WL_LATCH_SET.into()),
        Fact("WL_SOCKET_READABLE", "WL_SOCKET_READABLE", latch::WL_SOCKET_READABLE.into()),
        Fact("WL_TIMEOUT", "WL_TIMEOUT", latch::WL_TIMEOUT.into()),
        Fact("WL_POSTMASTER_DEATH", "WL_POSTMASTER_DEATH", latch::WL_POSTMASTER_DEATH.into()),
        Fact("PG_WAIT_EXTENSION", "PG_WAIT_EXTENSION", latch::PG_WAIT_EXTENSION.into()),
        Fact("MOCK_AUTH_NONCE_LEN", "MOCK_AUTH_NONCE_LEN", n(process::MOCK_AUTH_NONCE_LEN)),
        Fact("MAXPGPATH", "MAXPGPATH", n(process::MAXPGPATH)),
        Fact("ALLOCSET_DEFAULT_INITSIZE", "ALLOCSET_DEFAULT_INITSIZE", n(process::ALLOCSET_DEFAULT_INITSIZE)),
        Fact("ALLOCSET_DEFAULT_MAXSIZE", "ALLOCSET_DEFAULT_MAXSIZE", n(process::ALLOCSET_DEFAULT_MAXSIZE)),
        Fact("Datum", "sizeof(Datum)", n(size_of::<abi::Datum>())),
        Fact("BGW_MAXLEN", "BGW_MAXLEN", n(worker::BGW_MAXLEN)),
        Fact("BGW_EXTRALEN", "BGW_EXTRALEN", n(worker::BGW_EXTRALEN)),
        Fact("BGWORKER_SHMEM_ACCESS", "BGWORKER_SHMEM_ACCESS", worker::BGWORKER_SHMEM_ACCESS.into()),
        Fact("PostmasterStart", "BgWorkerStart_PostmasterStart", worker::BG_WORKER_START_POSTMASTER_START.into()),
        Fact("RecoveryModuleState", "sizeof(RecoveryModuleState)", n(size_of::<recovery::RecoveryModuleState>())),
        Fact("RecoveryModuleCallbacks", "sizeof(RecoveryModuleCallbacks)", n(size_of::<recovery::RecoveryModuleCallbacks>())),
        Fact("restore_cb", "offsetof(RecoveryModuleCallbacks, restore_cb)", n(offset_of!(recovery::RecoveryModuleCallbacks, restore_cb))),
        Fact("archive_cleanup_cb", "offsetof(RecoveryModuleCallbacks, archive_cleanup_cb)", n(offset_of!(recovery::RecoveryModuleCallbacks, archive_cleanup_cb))),
        Fact("recovery_end_cb", "offsetof(RecoveryModuleCallbacks, recovery_end_cb)", n(offset_of!(recovery::RecoveryModuleCallbacks, recovery_end_cb))),
        Fact("recovery shutdown_cb", "offsetof(RecoveryModuleCallbacks, shutdown_cb)", n(offset_of!(recovery::RecoveryModuleCallbacks, shutdown_cb))),
    ];
    facts.extend(backup_facts());
    if major >= Major(16) {
        facts.extend([
            Fact("ArchiveModuleState", "sizeof(ArchiveModuleState)", n(size_of::<archive::ArchiveModuleState>())),
            Fact("ArchiveModuleCallbacks", "sizeof(ArchiveModuleCallbacks)", n(size_of::<archive::ArchiveModuleCallbacks16>())),
            Fact("check_configured_cb", "offsetof(ArchiveModuleCallbacks, check_configured_cb)", n(offset_of!(archive::ArchiveModuleCallbacks16, check_configured_cb))),
            Fact("archive_file_cb", "offsetof(ArchiveModuleCallbacks, archive_file_cb)", n(offset_of!(archive::ArchiveModuleCallbacks16, archive_file_cb))),
            Fact("shutdown_cb", "offsetof(ArchiveModuleCallbacks, shutdown_cb)", n(offset_of!(archive::ArchiveModuleCallbacks16, shutdown_cb))),
        ]);
    } else {
        facts.extend([
            Fact("ArchiveModuleCallbacks", "sizeof(ArchiveModuleCallbacks)", n(size_of::<archive::ArchiveModuleCallbacks15>())),
            Fact("check_configured_cb", "offsetof(ArchiveModuleCallbacks, check_configured_cb)", n(offset_of!(archive::ArchiveModuleCallbacks15, check_configured_cb))),
            Fact("archive_file_cb", "offsetof(ArchiveModuleCallbacks, archive_file_cb)", n(offset_of!(archive::ArchiveModuleCallbacks15, archive_file_cb))),
            Fact("shutdown_cb", "offsetof(ArchiveModuleCallbacks, shutdown_cb)", n(offset_of!(archive::ArchiveModuleCallbacks15, shutdown_cb))),
        ]);
    }
    if major >= Major(19) {
        facts.extend([
            Fact("pg_signal_info", "sizeof(pg_signal_info)", n(size_of::<process::SignalInfo>())),
            Fact("pg_signal_info.pid", "offsetof(pg_signal_info, pid)", n(offset_of!(process::SignalInfo, pid))),
            Fact("pg_signal_info.uid", "offsetof(pg_signal_info, uid)", n(offset_of!(process::SignalInfo, uid))),
        ]);
    }
    let (bytes, function, argument, notify) = if major >= Major(17) {
        use worker::BackgroundWorker17 as W;
        (size_of::<W>(), offset_of!(W, bgw_function_name), offset_of!(W, bgw_main_arg), offset_of!(W, bgw_notify_pid))
    } else {
        use worker::BackgroundWorker15 as W;
        (size_of::<W>(), offset_of!(W, bgw_function_name), offset_of!(W, bgw_main_arg), offset_of!(W, bgw_notify_pid))
    };
    facts.extend([
        Fact("BackgroundWorker", "sizeof(BackgroundWorker)", n(bytes)),
        Fact("bgw_restart_time", "offsetof(BackgroundWorker, bgw_restart_time)", n(offset_of!(worker::BackgroundWorker15, bgw_restart_time))),
        Fact("bgw_library_name", "offsetof(BackgroundWorker, bgw_library_name)", n(offset_of!(worker::BackgroundWorker15, bgw_library_name))),
        Fact("bgw_function_name", "offsetof(BackgroundWorker, bgw_function_name)", n(function)),
        Fact("bgw_main_arg", "offsetof(BackgroundWorker, bgw_main_arg)", n(argument)),
        Fact("bgw_notify_pid", "offsetof(BackgroundWorker, bgw_notify_pid)", n(notify)),
    ]);
    facts
}

/// The servers that have to be looked at.
fn named() -> Vec<PathBuf> {
    std::env::var_os("WALDEN_PG_CONFIGS")
        .map(|list| std::env::split_paths(&list).collect())
        .unwrap_or_default()
}

/// Those, and the ones that happen to be installed.
fn pg_configs() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(majors) = std::fs::read_dir("/usr/lib/postgresql") {
        found.extend(
            majors
                .flatten()
                .map(|major| major.path().join("bin/pg_config")),
        );
    }
    found.retain(|pg_config: &PathBuf| pg_config.is_file());
    found.extend(named());
    found
}

fn ask(pg_config: &Path, what: &str) -> String {
    let output = Command::new(pg_config)
        .arg(what)
        .output()
        .expect("pg_config runs");
    assert!(
        output.status.success(),
        "{} {what} failed",
        pg_config.display()
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn major_of(pg_config: &Path) -> Major {
    let version = ask(pg_config, "--version");
    let number = version.split_whitespace().nth(1).expect("a version");
    Major(
        number
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap(),
    )
}

fn probe(pg_config: &Path, headers: &Path, facts: &[Fact]) -> BTreeMap<String, i64> {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("probe.c"), folder.path().join("probe"));
    let lines: String = facts
        .iter()
        .map(|Fact(name, c, _)| format!("    SHOW(\"{name}\", {c});\n"))
        .collect();
    // No server variable is read: the probe must not need the server to link.
    std::fs::write(
        &source,
        format!("{PREAMBLE}\nint main(void)\n{{\n{lines}    return 0;\n}}\n"),
    )
    .unwrap();
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-O0", "-Wno-unused", "-I"])
        .arg(headers)
        .arg("-I")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/include"))
        .args(["-Wl,--unresolved-symbols=ignore-all", "-o"])
        .args([&program, &source])
        .output()
        .expect("cc runs");
    assert!(
        compiled.status.success(),
        "the declarations do not fit {}:\n{}",
        pg_config.display(),
        String::from_utf8_lossy(&compiled.stderr)
    );
    let output = Command::new(&program).output().expect("the probe runs");
    assert!(output.status.success(), "the probe failed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn declarations_agree_with_the_headers_of_every_installed_server() {
    let mut checked = Vec::new();
    for pg_config in pg_configs() {
        let major = major_of(&pg_config);
        let headers = PathBuf::from(ask(&pg_config, "--includedir-server"));
        if !major.is_supported() || !headers.join("postgres.h").is_file() {
            assert!(
                !named().contains(&pg_config),
                "{} was named, but its major {} is not supported or there is no \"{}/postgres.h\"",
                pg_config.display(),
                major.0,
                headers.display()
            );
            println!(
                "{}: major {}, no headers here or not supported",
                pg_config.display(),
                major.0
            );
            continue;
        }
        let facts = facts(major);
        let seen = probe(&pg_config, &headers, &facts);
        for Fact(name, c, ours) in &facts {
            assert_eq!(
                seen.get(*name),
                Some(ours),
                "{name} ({c}) in major {}",
                major.0
            );
        }
        println!("major {}: {} facts agree", major.0, facts.len());
        checked.push(major);
    }
    assert!(
        checked.contains(&Major::OLDEST),
        "no headers of PostgreSQL {} found: install postgresql-server-dev-{0}",
        Major::OLDEST.0
    );
}
