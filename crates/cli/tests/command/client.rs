//! `walden … --library NAME`: the worker's client, against a worker that this test plays.

use crate::common::{Place, Ran, ZEROS, name};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use wire::{Accepted, Answer, Connection, Listener, Request};

const RESTORE: [&str; 6] = [
    "restore",
    "--library",
    "other",
    "000000010000000000000003",
    "pg_wal/RECOVERYXLOG",
    "000000010000000000000001",
];
const CLEANUP: [&str; 4] = [
    "archive-cleanup",
    "--library",
    "other",
    "000000010000000000000001",
];
const RECOVERY_END: [&str; 4] = ["recovery-end", "--library", "other", ZEROS];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn bind(place: &Place) -> Listener {
    Listener::bind(place.path("data").join(wire::SOCKET_PATH)).unwrap()
}

fn next(listener: &Listener) -> (Connection, Request) {
    match listener.accept(soon()).unwrap() {
        Accepted::Connection(mut client) => {
            let request = client.read_request(soon()).unwrap();
            (client, request)
        }
        other => panic!("{other:?}"),
    }
}

fn start(place: &Place, args: &[&str]) -> Child {
    let mut command = place.command("data");
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the client against a worker that gives this answer.
fn answered(place: &Place, args: &[&str], answer: &Answer) -> Ran {
    let listener = bind(place);
    let child = start(place, args);
    let (mut client, _) = next(&listener);
    client.answer(answer).unwrap();
    end(child)
}

fn could_not_tell() -> Answer {
    Answer::CouldNotTell("could not reach the archive".into())
}

#[test]
fn each_answer_to_a_restore_becomes_its_exit_status() {
    let place = Place::new();
    let ran = answered(&place, &RESTORE, &Answer::Done).exits(0);
    assert_eq!(ran.stderr, "");
    let ran = answered(&place, &RESTORE, &Answer::Absent).exits(1);
    assert_eq!(ran.stderr, "");
    let ran = answered(&place, &RESTORE, &could_not_tell()).exits(200);
    ran.says(&format!(
        "could not restore \"{}\": could not reach the archive",
        name(3)
    ));
}

#[test]
fn on_a_standby_could_not_tell_is_1_with_a_line() {
    let place = Place::new();
    fs::write(place.path("data/standby.signal"), "").unwrap();
    let ran = answered(&place, &RESTORE, &could_not_tell()).exits(1);
    ran.says(&format!("could not restore \"{}\": ", name(3)));
    answered(&place, &RESTORE, &Answer::Done).exits(0);
}

#[test]
fn a_recovery_that_is_ending_is_not_stopped_by_could_not_tell() {
    let place = Place::new();
    fs::remove_file(place.path("data/recovery.signal")).unwrap();
    let ran = answered(&place, &RESTORE, &could_not_tell()).exits(1);
    ran.says(&format!("could not restore \"{}\": ", name(3)));
    place.configure("walden.archive = '/nonexistent/archive'\nwalden.restore_timeout = 60");
    place
        .walden_in("data", &own(&RESTORE))
        .exits(1)
        .says("could not restore");
}

#[test]
fn a_timeline_history_file_that_the_server_keeps_itself_needs_no_archive() {
    let place = Place::new();
    place.configure("walden.archive = '/nonexistent/archive'\nwalden.restore_timeout = 1");
    let restore = |file: &str| {
        let args = [
            "restore",
            "--library",
            "walden",
            file,
            "pg_wal/RECOVERYHISTORY",
            ZEROS,
        ];
        place.walden_in("data", &args)
    };
    restore("00000001.history").exits(1);
    restore("00000002.history").exits(200);
    fs::write(
        place.path("data/pg_wal/00000002.history"),
        "1\t0/5000000\tno\n",
    )
    .unwrap();
    restore("00000002.history").exits(1).says("its own copy");
}

#[test]
fn what_the_worker_has_reported_itself_is_not_said_again() {
    let place = Place::new();
    let ran = answered(&place, &RESTORE, &Answer::Reported).exits(200);
    assert_eq!(ran.stderr, "");
    let ran = answered(&place, &CLEANUP, &Answer::Reported).exits(1);
    assert_eq!(ran.stderr, "");
    fs::write(place.path("data/standby.signal"), "").unwrap();
    let ran = answered(&place, &RESTORE, &Answer::Reported).exits(1);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_message_that_names_the_restore_itself_is_not_prefixed_again() {
    let place = Place::new();
    let message = format!("could not restore \"{}\": nobody home", name(3));
    let ran = answered(&place, &RESTORE, &Answer::CouldNotTell(message)).exits(200);
    assert_eq!(
        ran.stderr.matches("could not restore").count(),
        1,
        "{ran:?}"
    );
}

#[test]
fn each_answer_to_the_other_jobs_becomes_its_exit_status() {
    let place = Place::new();
    for job in [&CLEANUP[..], &RECOVERY_END[..]] {
        let ran = answered(&place, job, &Answer::Done).exits(0);
        assert_eq!(ran.stderr, "");
        answered(&place, job, &could_not_tell())
            .exits(1)
            .says("could not reach the archive");
        answered(&place, job, &Answer::Absent)
            .exits(1)
            .says("error: ");
    }
}

#[test]
fn the_request_arrives_as_the_server_worded_it() {
    let place = Place::new();
    let listener = bind(&place);
    let child = start(&place, &RESTORE);
    let (mut client, request) = next(&listener);
    let wanted = Request::Restore {
        file: name(3),
        path: "pg_wal/RECOVERYXLOG".into(),
        last_restartpoint: name(1),
    };
    assert_eq!(request, wanted);
    client.answer(&Answer::Done).unwrap();
    end(child).exits(0);
}

#[test]
fn a_worker_that_starts_after_the_request_is_waited_for() {
    let place = Place::new();
    let child = start(&place, &RESTORE);
    std::thread::sleep(Duration::from_millis(100));
    let listener = bind(&place);
    let (mut client, _) = next(&listener);
    client.answer(&Answer::Absent).unwrap();
    end(child).exits(1);
}

#[test]
fn a_worker_that_dies_in_mid_request_is_asked_again_after_its_restart() {
    let place = Place::new();
    let listener = bind(&place);
    let child = start(&place, &RESTORE);
    let (client, _) = next(&listener);
    // As kill -9 leaves it: the connection closed, the socket's name still there.
    std::mem::forget(listener);
    drop(client);
    let listener = bind(&place);
    let (mut client, _) = next(&listener);
    client.answer(&Answer::Done).unwrap();
    end(child).exits(0);
}

#[test]
fn a_worker_that_dies_every_time_is_could_not_tell() {
    let place = Place::new();
    let listener = bind(&place);
    let child = start(&place, &RESTORE);
    for _ in 0..=wire::ASK_AGAIN_COUNT_MAX {
        drop(next(&listener));
    }
    end(child).exits(200).says("died");
}

/// The same call for Walden's own library.
fn own<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter()
        .map(|arg| if *arg == "other" { "walden" } else { arg })
        .collect()
}

#[test]
fn without_a_worker_the_jobs_of_waldens_own_module_are_done_here() {
    let place = Place::new();
    place.configure("walden.archive = 'ARCHIVE'");
    place.archive_raw(&[1, 2, 3, 4]);
    place.walden_in("data", &own(&RESTORE)).exits(0);
    let restored = fs::read(place.path("data/pg_wal/RECOVERYXLOG")).unwrap();
    assert_eq!(restored, crate::common::segment(3, crate::common::SYSTEM));
    fs::remove_file(place.path("data/pg_wal/RECOVERYXLOG")).unwrap();

    let beyond = name(5);
    let absent = own(&RESTORE.map(|arg| if arg == name(3) { beyond.as_str() } else { arg }));
    place.walden_in("data", &absent).exits(1);
    let keep = name(3);
    let cleanup = own(&["archive-cleanup", "--library", "other", &keep]);
    let during_targeted_recovery = place.walden_in("data", &cleanup).exits(0);
    during_targeted_recovery.says("removes nothing");
    assert!(place.path("archive").join(name(2)).exists());
    let signal = |name: &str| place.path("data").join(name);
    fs::rename(signal("recovery.signal"), signal("standby.signal")).unwrap();
    place.walden_in("data", &cleanup).exits(0);
    assert!(!place.path("archive").join(name(2)).exists());
    assert!(place.path("archive").join(name(3)).exists());
    place.walden_in("data", &own(&RECOVERY_END)).exits(0);
}

#[test]
fn without_a_worker_an_archive_that_is_not_there_is_could_not_tell() {
    let place = Place::new();
    place.configure("walden.archive = '/nonexistent/archive'\nwalden.restore_timeout = 1");
    place
        .walden_in("data", &own(&RESTORE))
        .exits(200)
        .says("could not restore");
    fs::write(place.path("data/standby.signal"), "").unwrap();
    place
        .walden_in("data", &own(&RESTORE))
        .exits(1)
        .says("could not restore");
}

#[test]
fn the_client_dies_with_the_process_that_started_it() {
    let place = Place::new();
    let listener = bind(&place);
    let line = format!(
        "{} {} & wait",
        env!("CARGO_BIN_EXE_walden"),
        RESTORE.join(" ")
    );
    let mut shell = std::process::Command::new("sh");
    let mut shell = shell
        .current_dir(place.path("data"))
        .args(["-c", &line])
        .spawn()
        .unwrap();
    let (client, _) = next(&listener);
    assert!(!client.client_gone());
    shell.kill().unwrap();
    shell.wait().unwrap();
    let deadline = soon();
    while !client.client_gone() {
        assert!(Instant::now() < deadline, "the client lives on");
        std::thread::yield_now();
    }
}

#[test]
fn in_single_user_mode_a_foreign_library_cannot_be_asked() {
    let place = Place::new();
    let restore = [
        "restore",
        "--library",
        "other",
        "--single-user",
        &name(1),
        "pg_wal/RECOVERYXLOG",
        ZEROS,
    ];
    let message = "recovery module \"other\" cannot be loaded in single-user mode";
    place
        .walden_in("data", &restore)
        .exits(200)
        .says(message)
        .says("hint: ");
    for job in ["archive-cleanup", "recovery-end"] {
        let line = [job, "--library", "other", "--single-user", ZEROS];
        place.walden_in("data", &line).exits(1).says(message);
    }
}

#[test]
fn outside_a_data_directory_the_client_says_so_at_once() {
    let place = Place::new();
    place
        .walden(&RESTORE)
        .exits(200)
        .says("not a data directory");
    // As pg_rewind would run it, which knows no %r.
    let dest = place.text(&format!("data/pg_wal/{}", name(1)));
    let line = ["restore", "--library", "walden", &name(1), &dest];
    place.walden(&line).exits(200).says("leave it out");
}

#[test]
fn a_worker_of_another_version_is_could_not_tell_and_both_versions_are_named() {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    use rustix::net::{accept, bind, listen, send, socket_with};
    let place = Place::new();
    let path = place.path("data").join(wire::SOCKET_PATH);
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let worker = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
    bind(&worker, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&worker, 1).unwrap();
    let child = start(&place, &RESTORE);
    let client = accept(&worker).unwrap();
    send(&client, b"WLDN\0\x09x", SendFlags::NOSIGNAL).unwrap();
    end(child)
        .exits(200)
        .says("version 9")
        .says("version 2")
        .says("hint: ");
}
