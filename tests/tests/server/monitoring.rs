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
pub(crate) fn walden(lab: &Lab, cluster: &Cluster, arguments: &[&str]) -> Result<String> {
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

/// What `walden check` prints for a server, and its exit status.
pub(crate) fn check(
    lab: &Lab,
    cluster: &Cluster,
    arguments: &[&str],
) -> Result<(Option<i32>, String)> {
    let mut command = lab.command("walden");
    command.arg("-D").arg(cluster.data()).arg("check");
    let outcome = run(command.args(arguments))?;
    Ok((outcome.status.code(), outcome.stdout))
}

/// Such a check must end with this status and have these words in it.
fn must_say(
    lab: &Lab,
    cluster: &Cluster,
    arguments: &[&str],
    status: i32,
    words: &[&str],
) -> Result<()> {
    let (code, text) = check(lab, cluster, arguments)?;
    ensure!(code == Some(status), "{code:?} and not {status}:\n{text}");
    for words in words {
        ensure!(text.contains(words), "no {words:?} in:\n{text}");
    }
    Ok(())
}

#[test]
fn a_check_looks_at_the_server_that_runs_and_at_what_it_has_archived() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        primary.archive_everything()?;
        primary.wait_for_sql(
            "select current_setting('walden.status')::jsonb -> 'archiver' -> 'pending' ->> 'files'",
            "0",
        )?;
        let words = [
            "is a primary",
            "archiving does not fail",
            "is in this archive",
            "last base backup",
            " 0 failed",
        ];
        must_say(lab, &primary, &[], 0, &words)?;
        must_say(
            lab,
            &primary,
            &["--switch"],
            0,
            &["a segment was switched and archived"],
        )?;
        must_say(lab, &primary, &["--nagios"], 0, &["WALDEN OK"])?;
        // An idle server whose archive is away has nothing to archive, and archives nothing either.
        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        must_say(
            lab,
            &primary,
            &["--switch"],
            1,
            &["a segment was switched and is not archived"],
        )?;
        fs::rename(&away, archive.path())?;
        primary.wait_until_archived()?;
        let known: Vec<String> = primary
            .sql("select name from pg_settings where name like 'walden.%' and context <> 'internal' order by name")?
            .lines()
            .map(str::to_owned)
            .collect();
        for name in &known {
            primary.configure(|settings| settings.set(name, ""))?;
        }
        must_say(
            lab,
            &primary,
            &["--files-only"],
            1,
            &["every walden parameter that is set is known"],
        )?;
        Ok(())
    })
}

#[test]
fn a_check_names_each_value_that_the_server_would_refuse_with_it_and_without() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        let wrong = [
            ("walden.archive_jobs", "65"),
            ("walden.archive_libraries", "walden, walden"),
            ("walden.archive_timeout", "2 weeks"),
            ("walden.memory_limit", "1MB"),
            ("walden.verify", "some"),
        ];
        primary.configure(|settings| {
            for (name, value) in wrong {
                settings.set(name, value);
            }
        })?;
        for (name, _) in wrong {
            let words = format!("FAILED   invalid value for parameter \"{name}\": ");
            must_say(lab, &primary, &["--files-only"], 1, &[&words])?;
        }
        let (_, text) = check(lab, &primary, &[])?;
        for (name, _) in wrong {
            let words = format!("FAILED   the server does not take \"{name}\" of \"");
            // A bad list is no value that is refused: see the parameter's page.
            let is_refused = name != "walden.archive_libraries";
            ensure!(text.contains(&words) == is_refused, "{words:?}:\n{text}");
        }
        // What only takes a restart is nothing wrong.
        primary.configure(|settings| {
            for (name, _) in wrong {
                settings.remove(name);
            }
            settings.set("walden.restore_library", "walden");
        })?;
        let (_, text) = check(lab, &primary, &[])?;
        let words = "every value of a walden parameter can be used";
        ensure!(
            text.contains(words) && !text.contains("does not take"),
            "{text}"
        );
        Ok(())
    })
}

#[test]
fn a_check_fails_while_archiving_does_and_when_the_server_is_down_or_archives_elsewhere()
-> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=3)?;
        primary.archive_everything()?;
        let away = archive.path().with_extension("away");
        fs::rename(archive.path(), &away)?;
        primary.switch_segment()?;
        write(&primary, 4)?;
        primary.switch_segment()?;
        wait_until("the check to say that archiving fails", || {
            let (_, text) = check(lab, &primary, &[])?;
            Ok(text.contains("archiving has failed for"))
        })?;
        must_say(lab, &primary, &["--nagios"], 2, &["WALDEN CRITICAL"])?;
        fs::rename(&away, archive.path())?;
        primary.wait_until_archived()?;

        // A hole behind the only base backup, which another one ends.
        let middle = segments.get(1).context("a segment")?;
        let hidden = archive.path().with_extension("hidden");
        fs::rename(archive.path().join(middle), &hidden)?;
        must_say(
            lab,
            &primary,
            &[],
            1,
            &["does not reach the end of WAL", middle],
        )?;
        must_be(
            &walden(lab, &primary, &["metrics"])?,
            "walden_recoverable",
            |is| is == 0.0,
        )?;
        primary.base_backup("another")?;
        write(&primary, 5)?;
        primary.archive_everything()?;
        must_be(
            &walden(lab, &primary, &["metrics"])?,
            "walden_recoverable",
            |is| is == 1.0,
        )?;
        fs::rename(&hidden, archive.path().join(middle))?;

        // What the server takes for archived is gone: as if it archived elsewhere.
        let last = primary.sql("select last_archived_wal from pg_stat_archiver")?;
        ensure!(!segments.contains(&last), "{last}");
        fs::remove_file(archive.path().join(&last))?;
        wait_until("the check to miss the last segment", || {
            let (code, text) = check(lab, &primary, &[])?;
            Ok(code == Some(1) && text.contains("which the server takes for archived"))
        })?;
        primary.stop(Shutdown::Immediate)?;
        must_say(lab, &primary, &[], 1, &["no server runs there"])?;
        must_say(lab, &primary, &["--nagios"], 2, &["WALDEN CRITICAL"])
    })
}

#[test]
fn a_standby_that_only_restores_is_not_failed_for_not_archiving() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.archive_everything()?;
        let settings = recovery_settings(lab, &archive)?.with("archive_mode", "off");
        let standby = standby(lab, "standby", &backup, settings)?;
        wait_for_entries(&standby, 2)?;
        let words = [
            "is in recovery",
            "recovery gets its files",
            "this server only restores",
        ];
        must_say(lab, &standby, &[], 0, &words)
    })
}

#[test]
fn after_a_promotion_the_check_passes() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=2)?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Fast)?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        wait_for_entries(&standby, 2)?;
        standby.sql("select pg_promote()")?;
        standby.wait_until_promoted()?;
        write(&standby, 3)?;
        standby.wait_until_archived()?;
        wait_until("the check to pass", || {
            let (code, text) = check(lab, &standby, &[])?;
            Ok(code == Some(0) && text.contains("is in this archive"))
        })?;
        standby.archive_everything()?;
        wait_until("the check to pass behind its first segment", || {
            Ok(check(lab, &standby, &[])?.0 == Some(0))
        })
    })
}
