//! `walden status` and `walden metrics`, as people and monitoring systems read them, beside real servers.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Cluster, DEADLINE, Lab, Shutdown, run, scenario, wait_for, wait_until};
use serde_json::Value;

use crate::common::{SMALL_MB, primary, recovery_settings, standby, wait_for_entries, write};

/// Runs the command on a server's data directory.
fn walden(lab: &Lab, cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let mut command = lab.command("walden");
    command.arg("-D").arg(cluster.data()).args(arguments);
    run(&mut command)?.success()
}

fn status(lab: &Lab, cluster: &Cluster) -> Result<Value> {
    Ok(serde_json::from_str(&walden(
        lab,
        cluster,
        &["status", "--json"],
    )?)?)
}

/// The value of a sample; `None` if there is none.
fn sample(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

fn must_be(page: &str, name: &str, is_right: impl Fn(f64) -> bool) -> Result<()> {
    let value = sample(page, name).with_context(|| format!("no {name} in:\n{page}"))?;
    ensure!(is_right(value), "{name} is {value} in:\n{page}");
    Ok(())
}

#[test]
fn the_screen_and_the_metrics_follow_an_outage_from_beginning_to_end() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        primary.archive_everything()?;
        let page = walden(lab, &primary, &["metrics"])?;
        for (name, value) in [
            ("walden_up", 1.0),
            ("walden_archiver_up", 1.0),
            ("walden_store_up", 1.0),
            ("walden_archive_pending_files", 0.0),
            ("walden_archive_failing{cause=\"store\"}", 0.0),
            ("walden_archive_holes{timeline=\"1\"}", 0.0),
        ] {
            must_be(&page, name, |is| (is - value).abs() < f64::EPSILON)?;
        }
        let before = status(lab, &primary)?["at"].as_f64().context("a time")?;
        must_be(
            &page,
            "walden_backup_last_success_timestamp_seconds",
            |at| at <= before && before - at < 600.0,
        )?;
        let text = walden(lab, &primary, &["status"])?;
        for words in [
            "primary, timeline 1",
            "archiving  up to date",
            "no hole",
            "backups    last",
        ] {
            ensure!(text.contains(words), "no {words:?} in:\n{text}");
        }

        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        wait_until("the screen to say that archiving fails", || {
            Ok(walden(lab, &primary, &["status"])?.contains("archiving  FAILING"))
        })?;
        let page = wait_for("the file to be counted as pending", DEADLINE, || {
            let page = walden(lab, &primary, &["metrics"])?;
            let files = sample(&page, "walden_archive_pending_files");
            Ok(files.is_some_and(|files| files >= 1.0).then_some(page))
        })?;
        must_be(&page, "walden_store_up", |is| is == 0.0)?;
        must_be(&page, "walden_archive_failing{cause=\"store\"}", |is| {
            is == 1.0
        })?;
        must_be(&page, "walden_archive_lag_bytes", |bytes| {
            bytes >= 1_048_576.0
        })?;
        wait_until("the commit that would be lost to be seen", || {
            let page = walden(lab, &primary, &["metrics"])?;
            Ok(sample(&page, "walden_archive_rpo_seconds").is_some_and(|age| age > 0.0))
        })?;
        // Nothing is said of an archive that cannot be seen.
        assert_eq!(sample(&page, "walden_archive_holes{timeline=\"1\"}"), None);
        let shown = status(lab, &primary)?;
        ensure!(shown["wal_disk_full_in"].is_number(), "{shown}");
        ensure!(shown["archive"].is_null(), "{shown}");

        fs::rename(&away, archive.path())?;
        primary.wait_until_archived()?;
        wait_until("the screen to say that it is over", || {
            Ok(walden(lab, &primary, &["status"])?.contains("archiving  up to date"))
        })
    })
}

#[test]
fn with_the_server_down_its_files_and_the_archive_are_shown() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.archive_everything()?;
        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        primary.switch_segment()?;
        write(&primary, 1)?;
        primary.switch_segment()?;
        primary.stop(Shutdown::Immediate)?;
        fs::rename(&away, archive.path())?;
        let shown = status(lab, &primary)?;
        assert_eq!(shown["server"]["state"], "down", "{shown}");
        ensure!(shown["pending"]["files"].as_u64() >= Some(1), "{shown}");
        ensure!(shown["status"].is_null(), "{shown}");
        ensure!(shown["archive"]["files"].as_u64() >= Some(1), "{shown}");
        let page = walden(lab, &primary, &["metrics"])?;
        must_be(&page, "walden_up", |up| up == 0.0)?;
        assert_eq!(sample(&page, "walden_archive_pending_files"), None);
        must_be(&page, "walden_archive_holes{timeline=\"1\"}", |holes| {
            holes == 0.0
        })
    })
}

#[test]
fn a_standby_shows_how_far_it_is_and_where_from() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=4)?;
        primary.archive_everything()?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        wait_for_entries(&standby, 4)?;
        let text = walden(lab, &standby, &["status"])?;
        for words in [
            ", standby",
            "recovery   replayed through",
            "through \"walden\"",
        ] {
            ensure!(text.contains(words), "no {words:?} in:\n{text}");
        }
        let page = walden(lab, &standby, &["metrics"])?;
        must_be(
            &page,
            "walden_restore_files_total{source=\"unknown\"}",
            |count| count == 0.0,
        )?;
        let restored = ["ahead", "asked"].map(|source| {
            sample(
                &page,
                &format!("walden_restore_files_total{{source=\"{source}\"}}"),
            )
        });
        let restored: f64 = restored.into_iter().flatten().sum();
        ensure!(restored >= 4.0, "{page}");
        // It archives nothing, which is no failure.
        assert_eq!(sample(&page, "walden_archiver_up"), None);
        Ok(())
    })
}

/// One request, as it is written, and the whole answer.
fn http(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What is got there.
pub(crate) fn get(port: u16, path: &str, accept: &str) -> Result<String> {
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    http(port, &head)
}

#[test]
fn metrics_are_served_to_those_who_get_them_and_to_nobody_else() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let mut command = lab.command("walden");
        command.arg("-D").arg(primary.data());
        command.args(["metrics", "--listen", &port.to_string()]);
        let mut served = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let asked = (|| {
            let page = wait_for("metrics to be served", DEADLINE, || {
                Ok(get(port, "/metrics", "*/*").ok())
            })?;
            ensure!(page.starts_with("HTTP/1.1 200"), "{page}");
            ensure!(page.contains("text/plain; version=0.0.4"), "{page}");
            must_be(&page, "walden_up", |up| up == 1.0)?;
            let open = get(
                port,
                "/metrics",
                "application/openmetrics-text; version=1.0.0",
            )?;
            ensure!(open.trim_end().ends_with("# EOF"), "{open}");
            ensure!(get(port, "/", "*/*")?.starts_with("HTTP/1.1 404"));
            let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            ensure!(http(port, post)?.starts_with("HTTP/1.1 405"));
            let long = format!(
                "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                "x".repeat(100_000)
            );
            let refused = http(port, &long).unwrap_or_default();
            ensure!(!refused.starts_with("HTTP/1.1 200"), "{refused}");
            // One that says nothing keeps no other out, and the server may go and come back.
            let silent = TcpStream::connect(("127.0.0.1", port))?;
            silent.set_read_timeout(Some(Duration::from_millis(1)))?;
            primary.stop(Shutdown::Fast)?;
            must_be(&get(port, "/metrics", "*/*")?, "walden_up", |up| up == 0.0)?;
            primary.start()?;
            must_be(&get(port, "/metrics", "*/*")?, "walden_up", |up| up == 1.0)
        })();
        served.kill()?;
        served.wait()?;
        asked
    })
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() -> Result<()> {
    scenario(|lab| {
        for conninfo in ["host=/x password=hunter2", "postgres://me:hunter2@x/db"] {
            let refused = run(lab.command("walden").args(["metrics", "-d", conninfo]))?;
            ensure!(!refused.status.success(), "{refused:?}");
            ensure!(refused.stderr.contains("~/.pgpass"), "{refused:?}");
            ensure!(!refused.stderr.contains("hunter2"), "{refused:?}");
        }
        Ok(())
    })
}
