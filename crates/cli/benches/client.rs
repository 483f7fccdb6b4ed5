//! What the server pays for the client: the time from `sh -c 'walden restore …'` to its exit, beside that of
//! programs that do nothing.
//!
//! The other side is a listener that answers at once, so only the client and the way to it are measured. The
//! cases take turns, so that a slow moment hits all of them; what counts is the difference between two
//! medians. Further programs to compare are named on the command line:
//! `cargo bench -p walden-cli --bench client -- /usr/bin/walden`.
//!
//! What was tried with it, on a machine with two processors where `sh -c /bin/true` took 1.1 ms and the plain
//! command 0.45 ms more: `exec` takes off 0.12 ms (a fork) and stayed. A fixed load address takes off 0.06 ms
//! and costs the random one, packed relocations and a stripped file nothing that can be seen. Linking
//! statically takes off 0.28 ms, and was left because a program that finds its archive by a host's name needs the
//! system's resolver.

#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

use std::error::Error;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use wire::{Accepted, Answer, Listener, REQUEST_READ_WAIT_MAX, SOCKET_PATH};

/// Runs of each case that count, and those before them that warm up.
const RUNS: usize = 300;
const WARM_UP: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?;
    for name in ["global", "pg_wal", "pg_stat_tmp"] {
        std::fs::create_dir(data.path().join(name))?;
    }
    std::fs::write(data.path().join("PG_VERSION"), "15\n")?;
    std::fs::write(data.path().join("standby.signal"), "")?;
    std::env::set_current_dir(data.path())?;
    let listener = Listener::bind(SOCKET_PATH)?;
    let stop = listener.stop_handle();
    let worker = thread::spawn(move || serve(&listener));

    let mut cases = vec![
        ("/bin/true".to_owned(), "/bin/true".to_owned()),
        ("exec /bin/true".to_owned(), "exec /bin/true".to_owned()),
    ];
    let built = env!("CARGO_BIN_EXE_walden").to_owned();
    let named = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    for program in std::iter::once(built).chain(named) {
        let segment = "000000010000000000000005";
        let call = format!(
            "'{program}' restore --library 'walden' \"{segment}\" \"pg_wal/RECOVERYXLOG\" \"{segment}\""
        );
        cases.push((format!("{program} restore"), call.clone()));
        cases.push((format!("exec {program} restore"), format!("exec {call}")));
        cases.push((
            format!("{program} --version"),
            format!("'{program}' --version"),
        ));
    }
    let mut times = vec![Vec::with_capacity(RUNS); cases.len()];
    for run in 0..WARM_UP + RUNS {
        for ((_, call), times) in cases.iter().zip(&mut times) {
            let took = time(call)?;
            if run >= WARM_UP {
                times.push(took);
            }
        }
    }
    stop.stop();
    let _ = worker.join();
    println!("   median      10 %      90 %  (ms, {RUNS} runs of sh -c)");
    for ((name, _), times) in cases.iter().zip(&mut times) {
        times.sort();
        let at = |part: usize| times.get(times.len() * part / 100).map_or(0.0, ms);
        println!("{:9.3} {:9.3} {:9.3}  {name}", at(50), at(10), at(90));
    }
    Ok(())
}

fn ms(time: &Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Answers every request at once, until stopped.
fn serve(listener: &Listener) {
    let far = Instant::now() + Duration::from_secs(3600);
    while let Ok(Accepted::Connection(mut client)) = listener.accept(far) {
        if client
            .read_request(Instant::now() + REQUEST_READ_WAIT_MAX)
            .is_ok()
        {
            let _ = client.answer(&Answer::Done);
        }
    }
}

fn time(call: &str) -> Result<Duration, Box<dyn Error>> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", call])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    if !status.success() {
        return Err(format!("{call:?} ended with {status}").into());
    }
    Ok(took)
}
