//! `walden-conformance` as its user meets it: what it prints, and how it exits.

#![expect(clippy::expect_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walden-conformance"));
    command.args(arguments).output().expect("a program")
}

#[test]
fn all_promises_are_listed_with_their_sources() {
    let listed = run(&["--list"]);
    assert_eq!(listed.status.code(), Some(0));
    let text = String::from_utf8(listed.stdout).expect("a text");
    let promises = conformance::promises();
    assert_eq!(text.lines().count(), 3 * promises.len());
    for promise in promises {
        assert!(text.contains(promise.name) && text.contains(promise.source));
    }
}

#[test]
fn a_usage_error_exits_with_2_and_a_module_that_cannot_be_judged_with_1() {
    for (arguments, status, words) in [
        (&["--no-such-flag"][..], 2, "--no-such-flag"),
        (&["--json", "--markdown"], 2, "cannot be used with"),
        (&["--set", "no value"], 2, "not NAME=VALUE"),
        (&["--archive-library", "basic_archive"], 1, "NAME={archive}"),
        (
            &[
                "--set",
                "a.b={archive}",
                "--only",
                "x",
                "--server",
                "/",
                "--host",
                "/x",
            ],
            1,
            "no promise \"x\"",
        ),
    ] {
        let ended = run(arguments);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(
            said.contains("walden-conformance: error: ") && said.contains(words),
            "{said}"
        );
    }
}
