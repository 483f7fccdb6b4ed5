//! What long work shows, and what is said when an object store, or the service that gives credentials, does not answer
//! as it should. Nothing here needs a store: what is tested is what there is without one.
//!
//! A terminal is made by `script` (Debian: bsdutils, always installed).

use crate::common::{Place, name, run};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

/// Somebody who takes connections and never says a word; the URL of an archive there.
struct Silent {
    _listener: TcpListener,
    url: String,
}

impl Silent {
    fn new() -> Silent {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Silent {
            _listener: listener,
            url: format!("s3://wal/main?endpoint=http://127.0.0.1:{port}&region=x"),
        }
    }
}

/// Answers every request with this status and nothing else, for as long as the test runs; its address.
fn always(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                let mut head = [0; 4096];
                // Requests without a body come in one piece here.
                while client.read(&mut head).is_ok_and(|bytes| bytes > 0) {
                    if client.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://127.0.0.1:{port}")
}

/// The command with keys to sign with, and nothing else in its environment that changes where it asks.
fn with_keys(place: &Place, cwd: &str) -> Command {
    let mut command = without_keys(place, cwd);
    command
        .env("AWS_ACCESS_KEY_ID", "it")
        .env("AWS_SECRET_ACCESS_KEY", "hushhush");
    command
}

fn without_keys(place: &Place, cwd: &str) -> Command {
    let mut command = place.command(cwd);
    let own = std::env::vars_os().map(|(name, _)| name);
    for name in own {
        let shown = name.to_string_lossy().to_lowercase();
        if shown.starts_with("aws_") || shown.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// The same command on a terminal, in its foreground.
fn on_terminal(command: &Command, args: &[&str]) -> Command {
    let quoted = |text: &str| format!("'{text}'");
    let program = command.get_program().to_str().unwrap();
    let words = std::iter::once(program).chain(args.iter().copied());
    let line: Vec<String> = words.map(quoted).collect();
    let mut script = Command::new("script");
    script
        .args(["-qefc", &line.join(" "), "/dev/null"])
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null())
        .env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script
}

/// What such a command has written when it ends.
fn terminal_output(command: &Command, args: &[&str]) -> String {
    let Ok(output) = on_terminal(command, args).output() else {
        panic!("could not start \"script\": install Debian's bsdutils");
    };
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_restore_that_takes_long_is_shown_to_a_person_and_never_to_a_server() {
    let (place, silent) = (Place::new(), Silent::new());
    let command = with_keys(&place, "data");
    let segment = name(1);
    let ask = |dest: &'static str| {
        let (command, segment, url) = (&command, &segment, &silent.url);
        move || {
            let args = ["restore", "--timeout", "0", "-A", url, segment, dest];
            terminal_output(command, &args)
        }
    };
    let (to_person, to_server) = thread::scope(|scope| {
        let person = scope.spawn(ask("here"));
        let server = scope.spawn(ask("pg_wal/RECOVERYXLOG"));
        (person.join().unwrap(), server.join().unwrap())
    });
    assert!(to_person.contains("restoring, 1 s"), "{to_person:?}");
    assert!(
        to_person.contains("has not answered within"),
        "{to_person:?}"
    );
    assert!(!to_server.contains("restoring,"), "{to_server:?}");
    assert!(
        to_server.contains("has not answered within"),
        "{to_server:?}"
    );
}

#[test]
fn a_check_of_a_silent_store_ends_with_its_cure_and_tells_meanwhile_that_it_goes_on() {
    let (place, silent) = (Place::new(), Silent::new());
    let ran = run(with_keys(&place, ".").args(["check", "-A", &silent.url])).exits(1);
    ran.says("walden: note: opening the archive, 10 s\n")
        .prints("has not answered within 30 s")
        .prints("cure: ");
}

#[test]
fn short_work_shows_nothing_on_a_terminal() {
    let place = Place::new();
    let archive = place.text("archive");
    let command = place.command(".");
    let shown = terminal_output(&command, &["list", "-A", &archive]);
    assert_eq!(shown, format!("no WAL files in \"{archive}\"\r\n"));
}

#[test]
fn a_service_that_knows_no_credentials_is_not_taken_for_an_archive_without_the_file() {
    let place = Place::new();
    let url = Silent::new().url;
    let metadata = always("404 Not Found");
    let asks = |args: &[&str]| {
        let mut command = without_keys(&place, ".");
        run(command.env("AWS_METADATA_ENDPOINT", &metadata).args(args))
    };
    let segment = name(1);
    asks(&["restore", "--timeout", "0", "-A", &url, &segment, "here"])
        .exits(200)
        .says("could not get credentials: 404")
        .says("walden: hint: ");
    asks(&["check", "-A", &url])
        .exits(1)
        .prints("could not get credentials: 404")
        .prints("credentials_file");
}

#[test]
fn a_location_that_is_refused_is_not_repeated_and_comes_with_its_hint() {
    let place = Place::new();
    for (location, hint) in [
        ("s3://it:hushhush@wal/main", "credentials_file"),
        (
            "s3://wal/main?secret_access_key=hushhush",
            "Options are: endpoint",
        ),
    ] {
        let ran = place.walden(&["list", "-A", location]).exits(2);
        assert!(!ran.stderr.contains("hushhush"), "{ran:?}");
        ran.says("invalid value for \"--archive <URL>\": ")
            .says("walden: hint: ")
            .says(hint);
    }
}

#[test]
fn an_endpoint_where_nobody_is_names_its_cure() {
    let place = Place::new();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = format!("s3://wal/main?endpoint=http://127.0.0.1:{port}&region=x");
    run(with_keys(&place, ".").args(["list", "-A", &url]))
        .exits(1)
        .says("Connection refused")
        .says("hint: Is the endpoint right");
}
