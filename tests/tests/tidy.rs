//! The rules of style that a program can check, held as ordinary tests over the repository's own files.
//!
//! Each rule names what it protects. What a rule exempts is listed with its reason, in one place, for reviews; the
//! file is long because of that.

#![expect(clippy::expect_used)]

#[path = "tidy/rooms.rs"]
mod rooms;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 130;

/// Which of our crates each may use.
const EDGES: [(&str, &[&str]); 35] = [
    ("crates/wal", &[]),
    ("crates/abi", &[]),
    ("crates/pgconf", &[]),
    ("crates/status", &[]),
    ("crates/wire", &[]),
    ("crates/module", &["abi", "wal"]),
    ("crates/archive", &["wal"]),
    ("crates/recovery", &["archive", "wal"]),
    ("crates/audit", &["archive", "wal"]),
    ("crates/backup", &["archive", "wal"]),
    (
        "crates/server",
        &[
            "abi", "archive", "module", "pgconf", "recovery", "status", "wal", "wire",
        ],
    ),
    (
        "crates/cli",
        &[
            "archive", "audit", "backup", "pgconf", "recovery", "status", "wal", "wire",
        ],
    ),
    ("testing/fixtures", &["wal"]),
    ("testing/lab", &[]),
    ("testing/conformance", &["lab"]),
    ("testing/demo", &["lab"]),
    ("testing/soak", &["lab"]),
    (
        "tests",
        &["archive", "backup", "conformance", "lab", "recovery", "wal"],
    ),
    ("bench", &["lab", "wal"]),
    (
        "testing/simulate",
        &["archive", "fixtures", "recovery", "wal"],
    ),
    ("tests/modules/misbehave", &["module"]),
    ("tests/modules/every_setting", &["module"]),
    ("tests/modules/faulty_target", &["module"]),
    ("tests/modules/broken", &["module"]),
    ("tests/modules/broken_target", &["module"]),
    ("tests/modules/broken_recovery", &["module"]),
    ("examples/backup_to_directory", &["module"]),
    ("examples/basic_archive", &["module"]),
    ("examples/heartbeat", &["module"]),
    ("examples/thirty_lines", &["module"]),
    ("examples/tests", &["lab"]),
    ("docs/listings/my_archive_1", &["module"]),
    ("docs/listings/my_archive_2", &["module"]),
    ("docs/listings/my_archive_3", &["module"]),
    ("docs/tests", &[]),
];

/// Where nothing is installed anywhere: tests, and programs that are one. What else is in `testing` keeps the product's
/// rules: it is what a developer installs, or is linked into that.
const TESTS_ALONE: [&str; 4] = [
    "tests/",
    "testing/simulate/",
    "testing/demo/",
    "testing/soak/",
];

/// Where `unsafe` may stand: the three places of STYLE U1.
const UNSAFE_PLACES: [&str; 3] = [
    "crates/abi/",
    "crates/module/src/boundary/",
    "crates/server/src/loader/",
];

/// Where the lint against it may be switched off: the loader, and what the export line of a library expands to.
const UNSAFE_ALLOWED: [&str; 2] = [
    "crates/module/src/boundary/export.rs",
    "crates/server/src/loader/mod.rs",
];

/// Who may link, rename, sync or unlink (STYLE D1), and why the others are no danger to WAL.
const MAY_CHANGE_NAMES: [&str; 10] = [
    // In throwaway directories: plays the server's part, and a failing disk's; replaces a server's configuration.
    "testing/conformance/",
    "testing/lab/src/cluster.rs",
    // Removes the sockets that a throwaway store leaves in the system's directory.
    "testing/lab/src/stores/mod.rs",
    // In throwaway directories: sets backlogs back, empties archives, measures what plain syncing takes.
    "bench/",
    // The one place for the archive.
    "crates/archive/src/store/dir/durable.rs",
    // The worker's socket: no data, need not survive a power cut.
    "crates/wire/src/listener.rs",
    // A data directory that is being made, which no server uses yet.
    "crates/backup/src/restore.rs",
    // From a private name to the server's own temporary one, which the server syncs and renames itself.
    "crates/server/src/worker/handover.rs",
    // Templates that stand by themselves; each has its own promises and tests.
    "examples/",
    "docs/listings/",
];

/// Who may sleep: loops that poll with a deadline, and tests in which somebody is late on purpose.
const MAY_SLEEP: [&str; 13] = [
    // The pauses between the tries of a request.
    "crates/archive/src/store/cloud/asking.rs",
    "crates/archive/src/suite/store_promises.rs",
    "crates/wire/src/ask.rs",
    "crates/server/src/worker/request_server.rs",
    "crates/cli/src/restore.rs",
    "testing/lab/src/wait.rs",
    "bench/src/watch.rs",
    // The pause between two writes: it sets a load, and waits for nothing.
    "testing/soak/src/main.rs",
    "tests/tests/tidy.rs",
    // Late on purpose: a slow module, a worker that starts late, a repair that comes late.
    "tests/modules/misbehave/src/lib.rs",
    "crates/wire/tests/conversation.rs",
    "crates/cli/tests/command/client.rs",
    "crates/cli/tests/command/restore.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a parent")
        .to_path_buf()
}

/// Every Rust file of the repository with its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in ["bench", "crates", "docs", "examples", "testing", "tests"] {
        walk(&root().join(folder), &mut found);
    }
    assert!(
        found.len() > 40,
        "only {} files found: the walk is blind",
        found.len()
    );
    found
}

fn walk(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            found.insert(name, fs::read_to_string(&path).expect("a text"));
        }
    }
}

/// The file without its unit tests, which stand at its end.
fn product(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

/// A line without what follows `//`.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn is_product(path: &str) -> bool {
    let tests =
        TESTS_ALONE.iter().any(|folder| path.starts_with(folder)) || path.ends_with("/tests.rs");
    path.contains("/src/")
        && !tests
        && !path
            .rsplit("/src/")
            .any(|inside| inside.contains("/tests/"))
}

fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// `path:line: text` for each line of code for which `is_bad` holds.
fn lines_where(
    sources: &BTreeMap<String, String>,
    exempt: &[&str],
    is_bad: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        if !is_product(path) || exempt.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in product(text).lines().enumerate() {
            if is_bad(code(line)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|part| part == word)
}

#[test]
fn crates_use_each_other_only_along_the_edges_of_the_design() {
    let ours = EDGES.map(|(folder, _)| folder.rsplit('/').next().unwrap_or(folder));
    for (folder, allowed) in EDGES {
        let used = uses(folder, "[dependencies]");
        let used = used.iter().map(String::as_str);
        let used: BTreeSet<&str> = used.filter(|name| ours.contains(name)).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert_eq!(used, allowed, "{folder} (left: used, right: design)");
    }
    for place in ["crates", "testing"] {
        let members = fs::read_dir(root().join(place)).expect(place).count();
        let listed = EDGES
            .iter()
            .filter(|(folder, _)| folder.split('/').next() == Some(place));
        assert_eq!(members, listed.count(), "{place} is not what EDGES lists");
    }
}

/// The names that a section of a crate's manifest, `[dependencies]` say, begins its lines with.
fn uses(folder: &str, section: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let lines = manifest.lines().skip_while(|line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', ' ', '=']).next().map(str::to_owned))
        .collect()
}

#[test]
fn nothing_that_is_for_testing_is_in_the_product() {
    let testing: BTreeSet<_> = EDGES
        .iter()
        .filter_map(|(folder, _)| folder.strip_prefix("testing/"))
        .map(str::to_owned)
        .collect();
    let mut seen = 0;
    for (folder, _) in EDGES {
        if folder.starts_with("crates/") {
            for section in ["[dependencies]", "[build-dependencies]"] {
                let used = uses(folder, section);
                let found: Vec<_> = used.intersection(&testing).collect();
                assert!(found.is_empty(), "{folder}, {section}: {found:?}");
            }
            seen += uses(folder, "[dev-dependencies]")
                .intersection(&testing)
                .count();
        }
    }
    assert!(
        seen > 2,
        "their tests use {seen} of them: the search is blind"
    );
}

#[test]
fn the_bench_has_the_lints_and_the_profile_of_the_product() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a manifest");
    let (ours, its) = (read("Cargo.toml"), read("bench/Cargo.toml"));
    for name in [
        "[workspace.lints.rust]",
        "[workspace.lints.clippy]",
        "[profile.release]",
    ] {
        let section = |text: &str| {
            let lines = text.lines().skip_while(|line| *line != name).skip(1);
            let lines = lines.take_while(|line| !line.starts_with('['));
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(!section(&ours).is_empty(), "{name} is empty");
        assert_eq!(section(&ours), section(&its), "{name}");
    }
}

#[test]
fn every_crate_takes_the_workspace_lints_or_states_its_own() {
    for (folder, uses) in EDGES {
        let manifest =
            fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        // Libraries that a server loads; those that use the kit alone are modules.
        let own = ["crates/abi", "crates/module", "crates/server"].contains(&folder)
            || uses == ["module"];
        let expected = if own {
            "[lints.rust]"
        } else {
            "[lints]\nworkspace = true"
        };
        assert!(manifest.contains(expected), "{folder} has no {expected:?}");
    }
}

#[test]
fn unsafe_code_stands_in_its_three_places_only() {
    let sources = sources();
    let found = lines_where(&sources, &UNSAFE_PLACES, |line| {
        // `unsafe_code` is a word of its own, so naming the lint is no use of the keyword.
        has_word(line, "unsafe")
    });
    none("unsafe outside its places (U1)", found);
    let mut allowing = Vec::new();
    for (path, text) in &sources {
        let allows = text
            .lines()
            .any(|line| code(line).contains("allow(unsafe_code)"));
        if allows && !UNSAFE_ALLOWED.contains(&path.as_str()) && !path.ends_with("tidy.rs") {
            allowing.push(path.clone());
        }
    }
    none("the lint against unsafe is switched off (U1)", allowing);
}

#[test]
fn nobody_uses_a_private_door_of_the_kit() {
    let found = sources()
        .into_iter()
        .filter(|(path, _)| !path.starts_with("crates/module/") && !path.ends_with("tidy.rs"))
        .filter(|(_, text)| {
            text.lines()
                .any(|line| code(line).contains("module::boundary"))
        })
        .map(|(path, _)| path);
    none(
        "reaches past the front page of the kit, where module authors cannot follow",
        found.collect(),
    );
}

#[test]
fn nothing_in_the_library_can_end_the_process() {
    let banned = [
        "process::exit",
        "process::abort",
        "panic = \"abort\"",
        "libc::abort",
        "mmap",
        "todo!(",
    ];
    // The way out; the tests of it, in a process of their own; and the one mapping, which is of no file.
    let exempt = [
        "crates/cli/src/exit.rs",
        "crates/cli/src/again.rs",
        "crates/module/src/boundary/shared.rs",
    ];
    let found = lines_where(&sources(), &exempt, |line| {
        banned.iter().any(|word| line.contains(word))
    });
    none("ends or can end the process (U3)", found);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    assert!(
        manifest.contains("panic = \"unwind\""),
        "the release profile must unwind (U3)"
    );
}

#[test]
fn only_durable_rs_changes_names_or_syncs() {
    let banned = [
        "rename(",
        "renameat(",
        "renameat_with(",
        "hard_link(",
        "linkat(",
        "unlink(",
        "unlinkat(",
        "remove_file(",
        "sync_all(",
        "sync_data(",
        "fsync(",
        "fdatasync(",
        "syncfs(",
        "set_len(",
    ];
    let found = lines_where(&sources(), &MAY_CHANGE_NAMES, |line| {
        banned.iter().any(|word| line.contains(word))
    });
    none(
        "links, renames, syncs or unlinks outside durable.rs (D1)",
        found,
    );
}

#[test]
fn nobody_sleeps_but_loops_that_poll_with_a_deadline() {
    let mut found = Vec::new();
    for (path, text) in &sources() {
        if MAY_SLEEP.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if code(line).contains("sleep(") && !code(line).contains("pg_sleep(") {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("sleeps (T1, A3)", found);
}

#[test]
fn every_file_opens_with_its_job() {
    let found = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "));
    none(
        "does not open with its job (C1)",
        found.map(|(path, _)| path).collect(),
    );
}

#[test]
fn files_functions_and_lines_keep_their_limits() {
    let mut found = Vec::new();
    for (path, text) in &sources() {
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let excused = header.contains("long because");
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX && !excused {
            found.push(format!("{path}: {lines} lines"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX && !path.ends_with("abi/tests/headers.rs") {
                found.push(format!(
                    "{path}:{}: {} columns",
                    number + 1,
                    line.chars().count()
                ));
            }
        }
        if !excused {
            found.extend(long_functions(path, text));
        }
    }
    none("over the limit without a reason in the header (C3)", found);
}

/// Functions over the limit. rustfmt puts a function's closing brace under its first letter.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        if !has_word(code(body), "fn") || body.starts_with("//") || body.contains("fn(") {
            continue;
        }
        let indent = " ".repeat(line.len() - body.len());
        let end = lines.iter().skip(start).position(|line| {
            let rest = line.strip_prefix(&indent).unwrap_or_default();
            // A method of a trait may have no body.
            rest == "}" || (rest.starts_with(')') && rest.ends_with(';'))
        });
        let own_line = body.ends_with('{') || body.ends_with('(') || body.ends_with(',');
        if let Some(length) = end
            && own_line
            && length + 1 > FUNCTION_LINES_MAX
        {
            found.push(format!(
                "{path}:{}: function of {} lines",
                start + 1,
                length + 1
            ));
        }
    }
    found
}

#[test]
fn tests_are_named_as_sentences() {
    let mut found = Vec::new();
    let mut seen = 0;
    for (path, text) in &sources() {
        let mut is_test = false;
        for line in text.lines() {
            if line.trim() == "#[test]" {
                is_test = true;
            } else if is_test && line.trim_start().starts_with("fn ") {
                is_test = false;
                seen += 1;
                let name = line.trim_start().trim_start_matches("fn ");
                let name = name.split('(').next().unwrap_or_default();
                if name.matches('_').count() < 2 || name.starts_with("test_") {
                    found.push(format!("{path}: {name}"));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} tests found: the search is blind");
    none("is no sentence about behaviour (T1)", found);
}

#[test]
fn the_table_of_files_is_what_the_files_say() {
    let made = Command::new(root().join("scripts/files")).output();
    let made = String::from_utf8(made.expect("scripts/files").stdout).expect("a text");
    let unnamed = sources().into_keys().filter(|path| {
        let row = path.splitn(3, '/').nth(2).expect("two folders and a file");
        !made.contains(&format!("\n| `{row}` | "))
    });
    none("is not named by scripts/files", unnamed.collect());
    let page = fs::read_to_string(root().join("FILES.md")).expect("FILES.md");
    assert!(
        page == made,
        "FILES.md is out of date: run `make files`, which needs no build"
    );
}

#[test]
fn the_pages_at_the_root_name_files_that_exist() {
    let sources = sources();
    let mut seen = 0;
    let mut missing = Vec::new();
    for page in ["ARCHITECTURE.md", "README.md", "SAFETY.md"] {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        for name in text.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                seen += 1;
                let path = format!("/{name}");
                if !sources
                    .keys()
                    .any(|there| format!("/{there}").ends_with(&path))
                {
                    missing.push(format!("{page}: {name}"));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} names found: the search is blind");
    none("is not there", missing);
}

#[test]
fn safety_argues_every_callback() {
    let page = fs::read_to_string(root().join("SAFETY.md")).expect("SAFETY.md");
    for callback in [
        "Pg_magic_func",
        "_PG_init",
        "_PG_archive_module_init",
        "startup_cb",
        "check_configured_cb",
        "archive_file_cb",
        "shutdown_cb",
        "_PG_recovery_module_init",
        "restore_cb",
        "archive_cleanup_cb",
        "recovery_end_cb",
        "check_detail",
        "get_sink",
        "begin_backup",
        "archive_contents",
        "end_backup",
        "`cleanup`",
        "walden_recovery_worker",
    ] {
        assert!(
            page.contains(callback),
            "SAFETY.md does not argue {callback}"
        );
    }
}

#[test]
fn nothing_unfinished_and_no_word_the_field_does_not_use_is_left() {
    let words = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("X", "XX"),
        concat!("HA", "CK"),
    ];
    let mut found = Vec::new();
    for (path, text) in &sources() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| has_word(line, word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("left unfinished", found);
    let unsaid = [
        concat!("xlog", "s"),
        concat!("fail", "over"),
        concat!("sla", "ve"),
        concat!("redo ", "log"),
    ];
    let found = lines_where(&sources(), &[], |line| {
        unsaid.iter().any(|word| line.contains(word))
    });
    none("is not the field's word (N1)", found);
}

#[test]
fn the_checks_above_see_what_they_look_for() {
    // The planted faults: a check that is blind to them would pass anything.
    let planted = |text: &str| BTreeMap::from([("crates/x/src/x.rs".to_owned(), text.to_owned())]);
    let sees = |text: &str, word: &str| {
        !lines_where(&planted(text), &[], |line| line.contains(word)).is_empty()
    };
    assert!(sees("//! A\nfs::rename(a, b)", "fs::rename"));
    assert!(!sees("//! A\n// fs::rename(a, b)", "fs::rename"));
    assert!(!sees(
        "//! A\n#[cfg(test)]\nmod tests {\nfs::rename",
        "fs::rename"
    ));
    assert!(has_word("let x = unsafe { y };", "unsafe"));
    assert!(!has_word("#![allow(unsafe_code)]", "unsafe"));
    let long = format!("fn x() {{\n{}}}\n", "    y();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions("x.rs", &long).len(), 1);
    assert!(long_functions("x.rs", "fn x() {\n    y();\n}\n").is_empty());
}
