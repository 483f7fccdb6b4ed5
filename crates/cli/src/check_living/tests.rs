//! What is said of servers, by documents as their processes write them.

use super::*;
use crate::check_line::Verdict;
use status::{Archiver, Call, Recovery};

/// A call that has lasted for two minutes, and may last for one.
fn hanging_call(task: Task) -> Option<Call> {
    Some(Call {
        module: "first".to_owned(),
        task,
        file: Some("000000010000000000000007".to_owned()),
        lasts: 120.0,
        may_last: 65.0,
    })
}

fn document(archiver: Option<Archiver>, recovery: Option<Recovery>) -> Status {
    Status {
        at: 1000.0,
        archiver,
        recovery,
        ..Status::default()
    }
}

/// The lines of a server that lets no session in.
fn closed(document: Status, is_standby: bool) -> Vec<String> {
    let closed = Closed {
        document,
        is_standby,
    };
    let mut lines = Vec::new();
    closed_lines(&closed, &Target::Conninfo(String::new()), &mut lines);
    lines.iter().map(Line::text).collect()
}

#[test]
fn a_recovery_module_that_hangs_fails_the_check_also_behind_the_end_of_recovery() {
    let mut worker = Recovery {
        pid: 4711,
        live: true,
        call: hanging_call(Task::Restore),
        ..Recovery::default()
    };
    for in_recovery in [true, false] {
        let line = recovery(&document(None, Some(worker.clone())), in_recovery).unwrap();
        assert_eq!(line.verdict(), Verdict::Failed);
        let text = line.text();
        for words in [
            "recovery module \"first\" has not come back for 2 min from being asked to restore \"000000010000000000000007\"",
            "walden.restore_timeout",
            "process 4711",
            "only an immediate stop ends it",
        ] {
            assert!(text.contains(words), "{words:?}: {text}");
        }
    }
    let call = worker.call.as_mut().unwrap();
    call.lasts = call.may_last;
    let document = document(None, Some(worker));
    let line = recovery(&document, true).unwrap();
    assert_eq!(line.verdict(), Verdict::Passed);
    assert!(recovery(&document, false).is_none());
}

#[test]
fn a_standby_that_lets_nobody_in_says_what_its_archiver_does() {
    let hangs = Archiver {
        live: true,
        call: hanging_call(Task::Archive),
        ..Archiver::default()
    };
    let lines = closed(document(Some(hangs), None), true);
    let failed = lines.iter().find(|line| line.starts_with("FAILED"));
    let words = "archive module \"first\" has not come back for 2 min from being asked to archive";
    assert!(failed.is_some_and(|line| line.contains(words)), "{lines:?}");
}

#[test]
fn what_a_crash_has_left_of_an_archiver_fails_a_standby_and_no_primary() {
    for (is_standby, count) in [(true, 1), (false, 0)] {
        let lines = closed(document(Some(Archiver::default()), None), is_standby);
        let failed = lines.iter().filter(|line| line.starts_with("FAILED"));
        assert_eq!(failed.count(), count, "{lines:?}");
    }
}

#[test]
fn a_switch_that_nobody_could_ask_for_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Directory(folder.path().to_owned());
    for (switch, count) in [(true, 1), (false, 0)] {
        let mut lines = Vec::new();
        check(&target, None, switch, &mut lines);
        let unknown = lines.iter().filter(|line| {
            line.verdict() == Verdict::Unknown && line.found().contains("switched segment")
        });
        assert_eq!(unknown.count(), count);
    }
}
