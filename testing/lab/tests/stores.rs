//! The object stores of the lab: that the honest ones keep their promises, and that the liars still lie.
//!
//! If a liar stops lying, the tests that rely on it show nothing any more, so that is a failure, too.

mod client;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use client::{Client, block_on, client, races, runners_contents, tls_client};
use futures_util::future::join_all;
use lab::stores::{Make, Store};
use lab::{scenario, wait_until};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

#[expect(clippy::print_stdout, reason = "the test runner collects it")]
fn say(what: &str, begun: Instant) {
    println!("{what} in {:.1} s", begun.elapsed().as_secs_f64());
}

/// Prints what a start takes, for whoever wonders where the minutes go.
fn start<'lab>(lab: &'lab lab::Lab, make: Make) -> Result<Store<'lab>> {
    let begun = Instant::now();
    let store = Store::start(lab, make, "archive")?;
    say(&format!("{make} started"), begun);
    Ok(store)
}

fn keeps_what_is_there(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = start(lab, make)?;
        let client = client(&store, store.port())?;
        block_on(async {
            client.create("wal/0001", "first").await?;
            let second = client.create("wal/0001", "second").await;
            assert!(
                matches!(second, Err(Error::AlreadyExists { .. })),
                "{second:?}"
            );
            assert_eq!(client.read("wal/0001").await?, "first");
            client.create("wal/0002", "another").await?;
            let middle = client.get_range(&"wal/0002".into(), 2..5).await?;
            assert_eq!(middle.as_ref(), b"oth");
            assert_eq!(client.head(&"wal/0002".into()).await?.size, 7);
            let names = client.names().await?;
            assert_eq!(names, ["wal/0001", "wal/0002"]);
            let behind = client.names_behind("wal", "wal/0001").await?;
            assert_eq!(behind, ["wal/0002"]);
            let absent = client.head(&"wal/0003".into()).await;
            assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
            Ok(())
        })?;
        let there = [("wal/0001".to_owned(), 5), ("wal/0002".to_owned(), 7)];
        assert_eq!(store.objects()?, there);
        block_on(async { Ok(client.delete(&"wal/0001".into()).await?) })?;
        assert_eq!(store.objects()?, there[1..]);
        Ok(())
    })
}

#[test]
fn seaweedfs_keeps_the_object_that_is_there() -> Result<()> {
    keeps_what_is_there(Make::SeaweedFs)
}

#[test]
fn azurite_keeps_the_object_that_is_there() -> Result<()> {
    keeps_what_is_there(Make::Azurite)
}

#[test]
fn the_gcs_fake_keeps_the_object_that_is_there() -> Result<()> {
    keeps_what_is_there(Make::GcsFake)
}

#[test]
fn of_eight_that_create_an_object_at_once_one_wins() -> Result<()> {
    scenario(|lab| {
        for make in Make::HONEST {
            let store = start(lab, make)?;
            let client = client(&store, store.port())?;
            for (number, winners) in races(&client, 20)?.iter().enumerate() {
                assert_eq!(winners.len(), 1, "{make}: {winners:?}");
                let kept = block_on(async { client.read(&format!("race/{number}")).await })?;
                assert_eq!(kept, runners_contents(winners[0]), "{make}");
            }
            assert_eq!(store.objects()?.len(), 20, "{make}");
        }
        Ok(())
    })
}

#[test]
fn s3s_fs_still_lets_several_win() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::S3sFs)?;
        let client = client(&store, store.port())?;
        let winners = races(&client, 20)?;
        assert!(
            winners.iter().any(|winners| winners.len() > 1),
            "{winners:?}"
        );
        Ok(())
    })
}

#[test]
fn s3rver_still_overwrites_in_spite_of_a_condition() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::S3Rver)?;
        let client = client(&store, store.port())?;
        block_on(async {
            client.create("wal/0001", "first").await?;
            client.create("wal/0001", "second").await?;
            assert_eq!(client.read("wal/0001").await?, "second");
            Ok(())
        })
    })
}

#[test]
fn a_wrong_secret_is_refused() -> Result<()> {
    scenario(|lab| {
        for make in [Make::SeaweedFs, Make::Azurite] {
            let store = start(lab, make)?;
            let stranger = client::with_wrong_secret(&store)?;
            let refused = block_on(async { Ok(stranger.create("wal/0001", "x").await) })?;
            let is_refused = matches!(
                refused,
                Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            );
            assert!(is_refused, "{make}: {refused:?}");
            assert!(store.objects()?.is_empty(), "{make}");
        }
        Ok(())
    })
}

#[test]
fn seaweedfs_speaks_tls_by_an_authority_of_its_own() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::SeaweedFsTls)?;
        assert!(store.url("wal").contains("endpoint=https://127.0.0.1:"));
        let authority = std::fs::read(store.ca_file())?;
        let trusting = tls_client(&store, Some(&authority))?;
        block_on(async { Ok(trusting.create("wal/0001", "kept from others").await?) })?;
        let stranger = tls_client(&store, None)?;
        let refused = block_on(async { Ok(stranger.create("wal/0002", "x").await) })?;
        let refused = refused.err().context("trusted an unknown authority")?;
        assert!(
            format!("{refused:?}").contains("UnknownIssuer"),
            "{refused:?}"
        );
        assert_eq!(store.objects()?, [("wal/0001".to_owned(), 16)]);
        Ok(())
    })
}

#[test]
fn seaweedfs_is_emptied_at_once_and_counts_requests() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::SeaweedFsTls)?;
        let client = client(&store, store.port())?;
        let before = store.requests()?;
        block_on(async {
            client.create("wal/0001", "first").await?;
            Ok(client.create("wal/0002", "second").await?)
        })?;
        // The count may come after the answer.
        wait_until("two requests", || Ok(store.requests()? == before + 2))?;
        assert_eq!(store.objects()?.len(), 2);
        store.empty()?;
        assert_eq!(store.objects()?, []);
        block_on(async { Ok(client.create("wal/0001", "another").await?) })?;
        assert_eq!(store.objects()?, [("wal/0001".to_owned(), 7)]);
        Ok(())
    })
}

#[test]
fn an_upload_in_parts_is_unfinished_until_it_is_complete() -> Result<()> {
    scenario(|lab| {
        for make in Make::HONEST {
            let store = start(lab, make)?;
            let client = client(&store, store.port())?;
            let (five, rest) = (vec![5; 5 << 20], vec![7; 1000]);
            block_on(async {
                let mut upload = client.put_multipart(&"wal/big".into()).await?;
                upload.put_part(PutPayload::from(five)).await?;
                upload.put_part(PutPayload::from(rest)).await?;
                assert!(store.objects()?.is_empty(), "{make}");
                assert_eq!(store.unfinished_uploads()?, ["wal/big"], "{make}");
                upload.complete().await?;
                Ok(())
            })?;
            let size = (5 << 20) + 1000;
            assert_eq!(store.objects()?, [("wal/big".to_owned(), size)], "{make}");
            assert!(store.unfinished_uploads()?.is_empty(), "{make}");
            block_on(async {
                let mut given_up = client.put_multipart(&"wal/other".into()).await?;
                given_up.put_part(PutPayload::from_static(b"x")).await?;
                given_up.abort().await?;
                Ok(())
            })?;
            assert_eq!(store.objects()?.len(), 1, "{make}");
            if make != Make::Azurite {
                // Azure knows no giving up: it forgets parts after a week.
                assert!(store.unfinished_uploads()?.is_empty(), "{make}");
            }
        }
        Ok(())
    })
}

#[test]
fn the_gcs_fake_completes_and_copies_only_what_is_not_there() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::GcsFake)?;
        let client = client(&store, store.port())?;
        let base = format!("http://127.0.0.1:{}/archive/wal%2Fbig", store.port());
        let http = client::http();
        block_on(async {
            let ask = |method, query: &str, body: String| {
                let request = http.request(method, format!("{base}?{query}"));
                let request = request.header("x-goog-if-generation-match", "0").body(body);
                async { anyhow::Ok(request.send().await?) }
            };
            let begun = ask(reqwest::Method::POST, "uploads", String::new()).await?;
            let begun = begun.text().await?;
            let id = begun.split("<UploadId>").nth(1).context("an upload")?;
            let id = id.split('<').next().context("its name")?.to_owned();
            let part = http
                .put(format!("{base}?partNumber=1&uploadId={id}"))
                .body("x");
            let part = part.send().await?;
            let etag = part.headers()["etag"].to_str()?.to_owned();
            let parts = format!(
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>\
                 </CompleteMultipartUpload>"
            );
            client.create("wal/big", "first").await?;
            let complete = format!("uploadId={id}");
            let late = ask(reqwest::Method::POST, &complete, parts.clone()).await?;
            assert_eq!(late.status(), 412);
            assert_eq!(client.read("wal/big").await?, "first");
            client.delete(&"wal/big".into()).await?;
            let done = ask(reqwest::Method::POST, &complete, parts).await?;
            assert_eq!(done.status(), 200);
            assert_eq!(client.read("wal/big").await?, "x");

            client.create("wal/small", "y").await?;
            let copied = client
                .copy_if_not_exists(&"wal/small".into(), &"wal/big".into())
                .await;
            assert!(
                matches!(copied, Err(Error::AlreadyExists { .. })),
                "{copied:?}"
            );
            client
                .copy_if_not_exists(&"wal/small".into(), &"wal/copy".into())
                .await?;
            assert_eq!(client.read("wal/copy").await?, "y");
            Ok(())
        })
    })
}

#[test]
fn the_gcs_fake_lists_more_than_a_page() -> Result<()> {
    scenario(|lab| {
        let store = start(lab, Make::GcsFake)?;
        let client = client(&store, store.port())?;
        block_on(async {
            let names: Vec<String> = (0..1100).map(|n| format!("wal/{n:04}")).collect();
            for batch in names.chunks(50) {
                for made in join_all(batch.iter().map(|name| client.create(name, "x"))).await {
                    made?;
                }
            }
            client.create("other/1", "x").await?;
            client.create("zebra", "x").await?;
            let mut listed = client.names().await?;
            assert_eq!(listed.len(), 1102);
            listed.retain(|name| name.starts_with("wal/"));
            assert_eq!(listed, names);
            assert_eq!(client.names_behind("wal", "wal/1097").await?.len(), 2);
            let top = client.list_with_delimiter(None).await?;
            let folders: Vec<&str> = top.common_prefixes.iter().map(AsRef::as_ref).collect();
            assert_eq!(folders, ["other", "wal"]);
            assert_eq!(top.objects.len(), 1, "{:?}", top.objects);
            Ok(())
        })
    })
}

#[test]
fn a_store_that_was_stopped_has_its_port_and_its_data_again() -> Result<()> {
    scenario(|lab| {
        for make in Make::HONEST {
            let store = start(lab, make)?;
            let port = store.port();
            let client = client(&store, port)?;
            block_on(async { Ok(client.create("wal/0001", "kept").await?) })?;
            store.stop()?;
            let refused = block_on(async { Ok(client.read("wal/0001").await) })?;
            assert!(refused.is_err(), "{make} answers though it was stopped");
            let begun = Instant::now();
            store.start_again()?;
            say(&format!("{make} came back"), begun);
            assert_eq!(store.port(), port, "{make}");
            let kept = block_on(async { client.read("wal/0001").await })?;
            assert_eq!(kept, "kept", "{make}");
        }
        Ok(())
    })
}

#[test]
fn a_store_that_is_paused_answers_when_it_goes_on() -> Result<()> {
    scenario(|lab| {
        for make in Make::HONEST {
            let store = start(lab, make)?;
            let client: Client = client(&store, store.port())?;
            block_on(async { Ok(client.create("wal/0001", "here").await?) })?;
            store.pause()?;
            block_on(async {
                let mut asked = Box::pin(client.read("wal/0001"));
                let silence = tokio::time::timeout(client::A_WHILE, &mut asked).await;
                ensure!(
                    silence.is_err(),
                    "{make} answered while it was paused: {silence:?}"
                );
                store.resume()?;
                assert_eq!(asked.await?, "here", "{make}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn conditions_are_the_clients_own() -> Result<()> {
    // The planted fault: a client that leaves the condition out overwrites on every store.
    scenario(|lab| {
        for make in Make::HONEST {
            let store = start(lab, make)?;
            let client = client(&store, store.port())?;
            block_on(async {
                client.create("wal/0001", "first").await?;
                let second = PutPayload::from_static(b"second");
                let overwrite = PutMode::Overwrite.into();
                client
                    .put_opts(&"wal/0001".into(), second, overwrite)
                    .await?;
                assert_eq!(client.read("wal/0001").await?, "second", "{make}");
                Ok(())
            })?;
        }
        Ok(())
    })
}
