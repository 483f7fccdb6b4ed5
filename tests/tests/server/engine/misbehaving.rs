//! Stores, and proxies before them, that answer as none should: bodies, headers and pages that never end, listings that are
//! none, objects larger than any WAL file.
//!
//! The command runs with little memory here. It may not die, take long, or say that a file is absent. What the server makes of
//! the same is in `little_memory.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use archive::{CloudStore, Detail, Location, Store as _, spawn_plainly};
use lab::stores::{Make, Reply, Script, Step, Store, Tokens};
use lab::{Lab, Outcome, run_for, scenario};

use super::common::with_credentials;

/// How much the command may have in all: it is started with it.
const COMMAND_MEMORY: u64 = 256 * 1024 * 1024;

/// How long the command may take with a store that answers at once, in whatever way.
const COMMAND_MAX: Duration = Duration::from_secs(100);

/// How long `walden restore` is to try.
const RESTORE_TIMEOUT: &str = "2s";

/// The segment that is asked for, which no store here has.
const SEGMENT: &str = "000000010000000000000001";

const NO_SUCH_KEY: &str = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>";

fn whole(status: u16, body: &str) -> Reply {
    Reply::Whole(status, body.to_owned())
}

fn endless(status: u16, beginning: &str, more: &str) -> Reply {
    Reply::Endless(status, beginning.to_owned(), more.to_owned())
}

/// What no request is to be answered with.
pub(crate) fn answers_to_anything() -> Vec<Reply> {
    vec![
        endless(403, "<Error><Code>AccessDenied</Code>", "x"),
        endless(200, "", "x"),
        endless(
            200,
            "<ListBucketResult>",
            "<Contents><Key>wal/a</Key></Contents>",
        ),
        Reply::EndlessHeaders(200),
        Reply::Headers(200, 5_000),
        Reply::Cut(
            200,
            "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned(),
        ),
        whole(200, "<!DOCTYPE html><html><body>Welcome"),
        whole(200, ""),
        whole(404, "<html>not found</html>"),
    ]
}

/// What is not a complete listing.
pub(crate) fn listings_that_are_none() -> Vec<Reply> {
    let inside = |text: &str| whole(200, &format!("<ListBucketResult>{text}</ListBucketResult>"));
    let is_last = "<IsTruncated>false</IsTruncated>";
    let object = "<Contents><Key>wal/a</Key><Size>1</Size><LastModified>2026-11-29T20:00:00Z</LastModified></Contents>";
    vec![
        whole(200, "<Error><Code>InternalError</Code></Error>"),
        whole(200, "<html></html>"),
        whole(
            200,
            "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>",
        ),
        whole(200, "<ListBucketResult>"),
        inside(""),
        inside("<IsTruncated>true</IsTruncated>"),
        inside("<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>"),
        inside(&format!(
            "{is_last}<NextContinuationToken>x</NextContinuationToken>"
        )),
        inside(&format!("{is_last}<KeyCount>3</KeyCount>{object}{object}")),
        Reply::Pages(String::new(), Tokens::ByTurns),
        Reply::Pages(object.to_owned(), Tokens::ByTurns),
    ]
}

/// The command, and a place in S3 that is only a script.
struct Scripted<'lab> {
    lab: &'lab Lab,
    script: Script,
    url: String,
}

impl Scripted<'_> {
    fn new(lab: &Lab) -> Result<Scripted<'_>> {
        let script = Script::alone()?;
        let file = lab.dir().join("credentials");
        std::fs::write(&file, "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")?;
        let url = format!(
            "s3://archive/wal?endpoint=http://127.0.0.1:{}&region=eu&path_style=true&credentials_file={}",
            script.port(),
            file.display()
        );
        Ok(Scripted { lab, script, url })
    }

    fn list(&self) -> Result<Outcome> {
        self.walden(&["list", "-A", &self.url])
    }

    fn restore(&self) -> Result<Outcome> {
        let dest = self.lab.dir().join("dest").display().to_string();
        let patience = ["--timeout", RESTORE_TIMEOUT];
        self.walden(
            &[
                &["restore"],
                &patience[..],
                &["-A", &self.url, SEGMENT, &dest],
            ]
            .concat(),
        )
    }

    /// Runs the command with little memory.
    fn walden(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut command = self.lab.command("prlimit");
        command
            .arg(format!("--data={COMMAND_MEMORY}"))
            .arg("walden");
        command.args(arguments);
        run_for(&mut command, COMMAND_MAX)
    }
}

/// Fails unless the command has said that it could not tell.
fn must_not_know(reply: &Reply, ran: &Outcome, exits_above: i32) -> Result<()> {
    let status = ran.status.code();
    let status = status.with_context(|| format!("{reply:?}: it died, {ran:?}"))?;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    ensure!(
        status > exits_above && !said.contains("panicked") && said.len() < 20_000,
        "{reply:?}: {ran:?}"
    );
    Ok(())
}

#[test]
fn the_command_survives_every_answer_and_takes_none_for_an_empty_archive() -> Result<()> {
    scenario(|lab| {
        let it = Scripted::new(lab)?;
        let mut wrong = Vec::new();
        wrong.extend(
            answers_to_anything()
                .into_iter()
                .map(|reply| vec![Step::on("*", "", reply)]),
        );
        wrong.extend(listings_that_are_none().into_iter().map(|reply| {
            vec![
                Step::on("GET", "list-type=2", reply),
                Step::on("GET", "/archive/wal/", whole(404, NO_SUCH_KEY)),
            ]
        }));
        for steps in wrong {
            let shown = format!("{steps:?}");
            let reply = &steps.first().context("no steps")?.clone();
            it.script.follow(steps);
            must_not_know(reply.reply(), &it.list()?, 0)?;
            must_not_know(reply.reply(), &it.restore()?, 125)?;
            let unexpected = it.script.unexpected();
            ensure!(unexpected.is_empty(), "{shown}: {unexpected:?}");
            ensure!(
                it.script.taken().first() > Some(&0),
                "{shown}: it was not asked"
            );
        }
        Ok(())
    })
}

#[test]
fn a_listing_of_endless_pages_ends_and_an_object_larger_than_any_is_not_taken() -> Result<()> {
    scenario(|lab| {
        let it = Scripted::new(lab)?;
        it.script.follow(vec![
            Step::on(
                "GET",
                "list-type=2",
                Reply::Pages(String::new(), Tokens::New),
            ),
            Step::on("GET", "/archive/wal/", whole(404, NO_SUCH_KEY)),
        ]);
        let ran = it.list()?;
        let said = &ran.stderr;
        ensure!(said.contains("more than 10000 pages"), "{ran:?}");

        // Sixteen exabytes, and more than a segment can have.
        for bytes in [u64::MAX, 1 << 40, (1 << 30) + 1] {
            it.script.follow(vec![
                Step::on(
                    "GET",
                    "list-type=2",
                    whole(
                        200,
                        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
                    ),
                ),
                Step::on("GET", SEGMENT, Reply::Zeros(200, bytes)),
                Step::on("GET", "/archive/wal/", whole(404, NO_SUCH_KEY)),
            ]);
            let begun = Instant::now();
            must_not_know(&Reply::Zeros(200, bytes), &it.restore()?, 125)?;
            ensure!(
                begun.elapsed() < COMMAND_MAX,
                "it took {:?}",
                begun.elapsed()
            );
        }
        Ok(())
    })
}

#[test]
fn odd_keys_stop_nothing() -> Result<()> {
    scenario(|lab| {
        let it = Scripted::new(lab)?;
        let Location::Cloud(address) = it.url.parse()? else {
            anyhow::bail!("a directory");
        };
        let store = CloudStore::open(&address, spawn_plainly)?;
        let (long, longer) = ("x".repeat(1025), "x".repeat(100_000));
        let odd = [
            "wal//x",
            "wal/.",
            "wal/..",
            "..",
            "",
            "/",
            "wal/a\u{7}b",
            "wal/&#1;",
            "wal/\u{202e}x",
            "wal/é",
            "wal/a b",
            &long,
            &longer,
        ];
        let object = |key: &str| {
            format!(
                "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-11-29T20:00:00Z</LastModified></Contents>"
            )
        };
        let keys: String = odd.iter().map(|key| object(key)).collect();
        let body = format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated>{keys}<CommonPrefixes><Prefix>wal//</Prefix></CommonPrefixes>\
             {}</ListBucketResult>",
            object(&format!("wal/{SEGMENT}"))
        );
        it.script.follow(vec![
            Step::on("GET", "list-type=2", whole(200, &body)),
            Step::on("GET", "/archive/wal/", whole(404, NO_SUCH_KEY)),
        ]);
        let mut found = Vec::new();
        store.list("", Detail::Full, &mut |entry| {
            found.push(entry.key);
            std::ops::ControlFlow::Continue(())
        })?;
        assert_eq!(found, [SEGMENT]);
        assert_eq!(store.skipped(), odd.len() as u64);
        let ran = it.list()?;
        let note = format!(
            "ignored {} objects with names that no archive uses",
            odd.len()
        );
        ensure!(
            ran.stderr.contains(&note) && ran.stdout.contains(SEGMENT),
            "{ran:?}"
        );
        Ok(())
    })
}

/// Each service's own words, without a command around them.
#[test]
fn no_service_is_believed_a_listing_that_is_none() -> Result<()> {
    scenario(|lab| {
        let script = Script::alone()?;
        let (port, file) = (script.port(), lab.dir().join("credentials"));
        let (lines, key) = (
            "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAZURE_STORAGE_ACCOUNT_KEY=Zm9v\n",
            r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#,
        );
        let azure = [
            "<EnumerationResults><Blobs></Blobs></EnumerationResults>",
            "<EnumerationResults><NextMarker/></EnumerationResults>",
            "<EnumerationResults><Blobs></Blobs><NextMarker/>",
            "<Error><Code>ServerBusy</Code></Error>",
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
            "<EnumerationResults><Prefix>other/</Prefix><Blobs></Blobs><NextMarker/></EnumerationResults>",
        ];
        let azure = azure.map(|body| whole(200, body)).to_vec();
        let mut s3 = listings_that_are_none();
        s3.push(whole(
            200,
            "<ListBucketResult><Prefix>other/</Prefix><IsTruncated>false</IsTruncated></ListBucketResult>",
        ));
        for (place, credentials, replies) in [
            (
                format!("s3://b/wal?endpoint=http://127.0.0.1:{port}&region=eu&path_style=true"),
                lines,
                &s3,
            ),
            (
                format!("gs://b/wal?endpoint=http://127.0.0.1:{port}"),
                key,
                &s3,
            ),
            (
                format!("az://b/wal?account=a&endpoint=http://127.0.0.1:{port}/a"),
                lines,
                &azure,
            ),
        ] {
            let lines: String = credentials
                .lines()
                .filter(|line| !line.starts_with("AZURE") || place.starts_with("az:"))
                .filter(|line| !line.starts_with("AWS") || place.starts_with("s3:"))
                .map(|line| format!("{line}\n"))
                .collect();
            std::fs::write(&file, lines)?;
            let url = format!("{place}&credentials_file={}", file.display());
            let store = CloudStore::open(&url.parse()?, spawn_plainly)?;
            for reply in replies.iter().chain(&answers_to_anything()) {
                script.follow(vec![Step::on("GET", "list", reply.clone())]);
                let visit = &mut |_| std::ops::ControlFlow::Continue(());
                for listed in [
                    store.list("", Detail::Keys, visit),
                    store.list_after("0000", SEGMENT, Detail::Keys, visit),
                ] {
                    let error = listed
                        .err()
                        .with_context(|| format!("{place}, {reply:?}: a listing"))?;
                    ensure!(error.kind().may_work_later(), "{place}, {reply:?}: {error}");
                }
                let unexpected = script.unexpected();
                ensure!(unexpected.is_empty(), "{place}: {unexpected:?}");
            }
        }
        Ok(())
    })
}

/// A planted fault for these tests: what takes in all that comes does not survive the memory that it has here.
#[test]
fn a_program_that_takes_in_what_never_ends_dies_of_it() -> Result<()> {
    scenario(|lab| {
        let mut command = lab.command("prlimit");
        command.arg(format!("--data={COMMAND_MEMORY}"));
        let ran = run_for(command.args(["tail", "-n", "1", "/dev/zero"]), COMMAND_MAX)?;
        ensure!(!ran.status.success(), "{ran:?}");
        Ok(())
    })
}

#[test]
fn credentials_that_were_replaced_count_from_the_next_request_on() -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, Make::SeaweedFs, "archive")?;
        let location: Location = with_credentials(&store, &store.url("wal"))?.parse()?;
        let Location::Cloud(address) = location else {
            anyhow::bail!("a directory");
        };
        let file = store.credentials_file()?;
        let good = std::fs::read(&file)?;
        let client = CloudStore::open(&address, spawn_plainly)?;
        let look = || client.open("nothing").map(|found| found.is_some());
        ensure!(!look()?, "something is there");
        std::fs::write(
            &file,
            "AWS_ACCESS_KEY_ID=other\nAWS_SECRET_ACCESS_KEY=other\n",
        )?;
        let refused = look().err().context("old credentials are used on")?;
        ensure!(refused.to_string().contains("403"), "{refused}");
        std::fs::write(&file, "AWS_ACCESS_KEY_ID")?;
        let refused = look().err().context("half a file is not read")?;
        ensure!(refused.kind().may_work_later(), "{refused}");
        std::fs::write(&file, good)?;
        ensure!(!look()?, "something is there");
        Ok(())
    })
}
