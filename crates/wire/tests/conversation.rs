//! Client and worker talking over a real socket: late, dying, stopped, foreign and of another version.

#![allow(clippy::unwrap_used, missing_docs)]

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{accept, bind, connect, listen, recv, send, socket_with};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use walden_wire::{Accepted, Answer, AskError, Connection, FRAME_BYTES_MAX, FrameError};
use walden_wire::{Listener, Request, ServeError, ask};

const LONG: Duration = Duration::from_secs(20);

fn request() -> Request {
    Request::Restore {
        file: "000000010000000000000003".into(),
        path: "pg_wal/RECOVERYXLOG".into(),
        last_restartpoint: "000000000000000000000000".into(),
    }
}

fn soon() -> Instant {
    Instant::now() + LONG
}

fn next(listener: &Listener) -> Connection {
    match listener.accept(soon()).unwrap() {
        Accepted::Connection(connection) => connection,
        other => unreachable!("{other:?}"),
    }
}

fn socket() -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// A client that is not made of this crate.
fn client(path: &Path) -> OwnedFd {
    let client = socket();
    connect(&client, &SocketAddrUnix::new(path).unwrap()).unwrap();
    client
}

/// A worker that is not made of this crate and answers one client with these bytes; what the client gets of it.
fn answered_with(bytes: &[u8]) -> Result<Answer, AskError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let worker = socket();
    bind(&worker, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&worker, 1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = accept(&worker).unwrap();
            send(&client, bytes, SendFlags::NOSIGNAL).unwrap();
        });
        ask(&path, &request(), LONG, LONG)
    })
}

#[test]
fn each_answer_reaches_the_client_as_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let answers = [
        Answer::Done,
        Answer::Absent,
        Answer::CouldNotTell("no route".into()),
        Answer::Reported,
    ];
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for answer in &answers {
                let mut client = next(&listener);
                assert_eq!(client.read_request(soon()).unwrap(), request());
                assert!(!client.client_gone());
                client.answer(answer).unwrap();
            }
        });
        for answer in &answers {
            assert_eq!(ask(&path, &request(), LONG, LONG).unwrap(), *answer);
        }
        worker.join().unwrap();
    });
}

#[test]
fn a_worker_that_starts_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    thread::scope(|scope| {
        let client = scope.spawn(|| ask(&path, &request(), LONG, LONG));
        // Long enough for the client to have met a missing socket; the test passes without it too.
        thread::sleep(Duration::from_millis(60));
        let listener = Listener::bind(&path).unwrap();
        let mut connection = next(&listener);
        connection.read_request(soon()).unwrap();
        connection.answer(&Answer::Absent).unwrap();
        assert_eq!(client.join().unwrap().unwrap(), Answer::Absent);
    });
}

#[test]
fn a_worker_that_dies_in_mid_request_is_asked_again_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let first = Listener::bind(&path).unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| ask(&path, &request(), LONG, LONG));
        let mut connection = next(&first);
        connection.read_request(soon()).unwrap();
        // A killed worker leaves its socket behind.
        std::mem::forget(first);
        drop(connection);
        let second = Listener::bind(&path).unwrap();
        let mut connection = next(&second);
        connection.read_request(soon()).unwrap();
        connection.answer(&Answer::Done).unwrap();
        assert_eq!(client.join().unwrap().unwrap(), Answer::Done);
    });
}

#[test]
fn a_worker_that_dies_every_time_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let stop = listener.stop_handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Accepted::Connection(mut client) = listener.accept(soon()).unwrap() {
                client.read_request(soon()).unwrap();
            }
        });
        let error = ask(&path, &request(), LONG, LONG).unwrap_err();
        stop.stop();
        assert!(
            matches!(error, AskError::Lost { times } if times == walden_wire::ASK_AGAIN_COUNT_MAX + 1)
        );
    });
}

#[test]
fn without_a_worker_the_client_gives_up_after_the_time_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let wait = Duration::from_millis(80);
    let error = ask(&dir.path().join("s"), &request(), wait, LONG).unwrap_err();
    assert!(matches!(error, AskError::NoWorker { .. }), "{error}");
    assert!(begun.elapsed() >= wait && begun.elapsed() < LONG);
    let error = ask(&dir.path().join("s"), &request(), Duration::ZERO, LONG).unwrap_err();
    assert!(matches!(error, AskError::NoWorker { .. }), "{error}");
}

#[test]
fn a_worker_that_does_not_answer_is_not_waited_for_forever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = Listener::bind(&path).unwrap();
    let wait = Duration::from_millis(50);
    let error = ask(&path, &request(), wait, wait).unwrap_err();
    assert!(matches!(error, AskError::TimedOut { .. }), "{error}");
}

#[test]
fn half_an_answer_is_not_asked_for_again() {
    let error = answered_with(&Answer::Done.encode()[..6]).unwrap_err();
    assert!(
        matches!(error, AskError::Protocol(FrameError::Malformed(_))),
        "{error}"
    );
}

#[test]
fn an_answer_that_is_longer_than_any_frame_is_refused_whole() {
    let mut frame = Answer::CouldNotTell("x".repeat(FRAME_BYTES_MAX)).encode();
    assert_eq!(frame.len(), FRAME_BYTES_MAX);
    assert!(answered_with(&frame).is_ok());
    frame.push(b'x');
    let error = answered_with(&frame).unwrap_err();
    let long = AskError::Protocol(FrameError::TooLong {
        what: "the frame",
        bytes: FRAME_BYTES_MAX + 1,
        bytes_max: FRAME_BYTES_MAX,
    });
    assert_eq!(error.to_string(), long.to_string());
}

#[test]
fn a_client_of_another_version_is_told_both_versions_and_so_is_the_worker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let client = client(&path);
    send(&client, b"WLDN\0\x07xyz", SendFlags::NOSIGNAL).unwrap();
    let error = next(&listener)
        .read_request(soon())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("version 7") && error.contains("version 2"),
        "{error}"
    );
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let (bytes, _) = recv(&client, frame.as_mut_slice(), RecvFlags::empty()).unwrap();
    let Ok(Answer::CouldNotTell(message)) = Answer::decode(&frame[..bytes]) else {
        unreachable!("{bytes} bytes");
    };
    assert!(message.contains("version 7"), "{message}");
}

#[test]
fn a_client_that_leaves_is_noticed_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let client = client(&path);
    send(&client, &request().encode().unwrap(), SendFlags::NOSIGNAL).unwrap();
    let mut connection = next(&listener);
    assert!(!connection.client_gone());
    connection.read_request(soon()).unwrap();
    assert!(!connection.client_gone());
    drop(client);
    assert!(connection.client_gone());
    assert!(matches!(
        connection.answer(&Answer::Done),
        Err(ServeError::ClientGone)
    ));
}

#[test]
fn a_client_that_sends_nothing_is_left_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let _client = client(&path);
    let deadline = Instant::now() + Duration::from_millis(30);
    assert!(matches!(
        next(&listener).read_request(deadline),
        Err(ServeError::TimedOut)
    ));
}

#[test]
fn stopping_ends_a_waiting_accept_and_every_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(dir.path().join("s")).unwrap();
    let stop = listener.stop_handle();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept(soon()).unwrap());
        stop.stop();
        assert!(matches!(waiting.join().unwrap(), Accepted::Stopped));
    });
    assert!(matches!(
        listener.accept(soon()).unwrap(),
        Accepted::Stopped
    ));
}

#[test]
fn accept_returns_when_nobody_comes() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(dir.path().join("s")).unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    assert!(matches!(
        listener.accept(deadline).unwrap(),
        Accepted::TimedOut
    ));
}

#[test]
fn the_socket_has_mode_0600_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    drop(listener);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dead_workers_socket_and_its_unfinished_directory_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    fs::create_dir(dir.path().join("s.d")).unwrap();
    drop(UnixListener::bind(dir.path().join("s.d/s")).unwrap());
    let listener = Listener::bind(&path).unwrap();
    let _client = client(&path);
    next(&listener);
}

#[test]
fn a_successors_socket_is_not_removed_by_the_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let old = Listener::bind(&path).unwrap();
    let new = Listener::bind(&path).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    drop(old);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
    drop(new);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_not_a_socket_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Listener::bind(&path),
        Err(ServeError::NotASocket(_))
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = dir.path().join("none");
    let error = Listener::bind(nowhere.join("s")).unwrap_err();
    assert!(matches!(error, ServeError::NoDirectory(_)));
    let named = format!("directory \"{}\" is missing", nowhere.display());
    assert!(error.to_string().ends_with(&named), "{error}");
}
