//! The proxy of the lab: that each of its faults is what a client sees, and that it counts right.

mod client;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use client::{A_WHILE, Client, block_on, client};
use futures_util::future::join_all;
use lab::stores::{Behaviour, Fault, Make, Proxy, Store};
use lab::{scenario, wait_until};
use object_store::{Error, ObjectStoreExt};

/// Plays a scene with a store, its proxy, and a client that goes through the proxy.
fn with_proxy(
    make: Make,
    scene: impl FnOnce(&Store<'_>, &Proxy, &Client) -> Result<()>,
) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let client = client(&store, proxy.port())?;
        scene(&store, &proxy, &client)
    })
}

/// What the client was told in the end, in one line.
fn create(client: &Client, name: &str) -> Result<Result<(), String>> {
    block_on(async {
        let made = client.create(name, "contents").await;
        Ok(made.map_err(|error| format!("{error:?}")))
    })
}

fn read(client: &Client, name: &str) -> Result<Result<String, String>> {
    block_on(async {
        let read = client.read(name).await;
        Ok(read.map_err(|error| format!("{error:?}")))
    })
}

fn passes_everything(make: Make) -> Result<()> {
    with_proxy(make, |store, proxy, client| {
        assert!(
            store
                .url_through(proxy, "x")
                .contains(&proxy.port().to_string())
        );
        let large = "0123456789abcdef".repeat(1 << 19); // 8 MB
        block_on(async {
            client.create("wal/0001", &large).await?;
            let second = client.create("wal/0001", "second").await;
            assert!(
                matches!(second, Err(Error::AlreadyExists { .. })),
                "{second:?}"
            );
            ensure!(client.read("wal/0001").await? == large, "came back changed");
            assert_eq!(client.head(&"wal/0001".into()).await?.size, 8 << 20);
            assert_eq!(client.names().await?, ["wal/0001"]);
            client.delete(&"wal/0001".into()).await?;
            Ok(())
        })?;
        let seen = proxy.requests();
        let of = |method: &str| {
            let of_it = seen.iter().filter(|request| request.method == method);
            of_it
                .map(|request| request.status.unwrap_or(0))
                .collect::<Vec<u16>>()
        };
        let refused = if make == Make::Azurite { 409 } else { 412 };
        assert_eq!(of("PUT").last(), Some(&refused), "{seen:?}");
        assert_eq!(of("PUT").len(), 2);
        assert_eq!(of("HEAD"), [200]);
        assert_eq!(of("GET"), [200, 200], "one to read, one to list");
        assert!(
            seen.iter()
                .all(|request| request.fault.is_none() && request.took.is_some())
        );
        assert!(
            seen.iter().any(|request| request.path.contains("0001")),
            "{seen:?}"
        );
        proxy.clear();
        assert!(proxy.requests().is_empty());
        Ok(())
    })
}

#[test]
fn requests_to_seaweedfs_pass_signed_and_unchanged() -> Result<()> {
    passes_everything(Make::SeaweedFs)
}

#[test]
fn requests_to_azurite_pass_signed_and_unchanged() -> Result<()> {
    passes_everything(Make::Azurite)
}

#[test]
fn requests_to_the_gcs_fake_pass_unchanged() -> Result<()> {
    passes_everything(Make::GcsFake)
}

#[test]
fn a_status_comes_instead_of_the_stores_answer() -> Result<()> {
    with_proxy(Make::GcsFake, |store, proxy, client| {
        for status in [500, 503, 429, 403] {
            proxy.clear();
            proxy.behave(Behaviour::default().always(Fault::Status(status)))?;
            let refused = create(client, "wal/0001")?.unwrap_err();
            let is_told = refused.contains(&format!("status: {status}"))
                || status == 403 && refused.contains("PermissionDenied");
            assert!(is_told, "{refused}");
            assert!(store.objects()?.is_empty(), "it got there");
            let seen = proxy.requests();
            assert_eq!(seen.len(), 1, "{seen:?}");
            assert_eq!(seen[0].status, Some(status));
            assert_eq!(seen[0].fault, Some(Fault::Status(status)));
        }
        proxy.behave(Behaviour::default())?;
        assert_eq!(create(client, "wal/0001")?, Ok(()));
        Ok(())
    })
}

#[test]
fn a_reset_loses_the_request_or_the_answer() -> Result<()> {
    with_proxy(Make::GcsFake, |store, proxy, client| {
        proxy.behave(Behaviour::default().always(Fault::ResetBefore))?;
        let lost = create(client, "wal/0001")?.unwrap_err();
        assert!(!lost.contains("status: "), "{lost}");
        assert!(store.objects()?.is_empty(), "it got there");
        assert_eq!(proxy.requests()[0].status, None);

        proxy.behave(Behaviour::default().always(Fault::ResetAfter))?;
        let lost = create(client, "wal/0001")?.unwrap_err();
        assert!(!lost.contains("status: "), "{lost}");
        assert_eq!(store.objects()?, [("wal/0001".to_owned(), 8)]);
        assert_eq!(proxy.requests()[1].status, Some(200));
        Ok(())
    })
}

#[test]
fn a_truncated_answer_is_noticed_after_its_beginning() -> Result<()> {
    with_proxy(Make::SeaweedFs, |_, proxy, client| {
        let large = "x".repeat(3 << 20);
        block_on(async { Ok(client.create("wal/0001", &large).await?) })?;
        proxy.behave(Behaviour::default().always(Fault::Truncated))?;
        block_on(async {
            let got = client.get(&"wal/0001".into()).await?;
            assert_eq!(got.meta.size, 3 << 20);
            let (mut count, mut end) = (0, Ok(()));
            let mut stream = got.into_stream();
            while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
                match piece {
                    Ok(bytes) => count += bytes.len(),
                    Err(error) => end = Err(error),
                }
            }
            assert_eq!(count, 3 << 19, "half of it comes");
            assert!(end.is_err(), "the end was taken for the end");
            Ok(())
        })?;
        proxy.behave(Behaviour::default())?;
        assert_eq!(read(client, "wal/0001")?, Ok(large));
        Ok(())
    })
}

#[test]
fn a_stalled_request_goes_on_when_the_behaviour_changes() -> Result<()> {
    with_proxy(Make::GcsFake, |store, proxy, client| {
        proxy.behave(Behaviour::default().always(Fault::Stall))?;
        block_on(async {
            let mut made = Box::pin(client.create("wal/0001", "x"));
            let silence = tokio::time::timeout(A_WHILE, &mut made).await;
            ensure!(silence.is_err(), "answered: {silence:?}");
            assert!(store.objects()?.is_empty(), "it got there");
            let seen = proxy.requests();
            assert_eq!((seen[0].fault, seen[0].status), (Some(Fault::Stall), None));
            proxy.behave(Behaviour::default())?;
            Ok(made.await?)
        })?;
        assert_eq!(store.objects()?.len(), 1);
        let seen = proxy.requests();
        assert_eq!((seen[0].fault, seen[0].status), (None, Some(200)));
        // The client's clock has run since before the proxy's.
        assert!(seen[0].took >= Some(A_WHILE / 2), "{seen:?}");
        Ok(())
    })
}

#[test]
fn a_refused_connection_is_refused_until_the_behaviour_changes() -> Result<()> {
    with_proxy(Make::GcsFake, |_, proxy, client| {
        assert_eq!(create(client, "wal/0001")?, Ok(()));
        for _ in 0..3 {
            proxy.behave(Behaviour::default().refuse())?;
            let refused = create(client, "wal/0002")?.unwrap_err();
            assert!(refused.contains("ConnectionRefused"), "{refused}");
            proxy.behave(Behaviour::default())?;
            assert!(read(client, "wal/0001")?.is_ok());
        }
        Ok(())
    })
}

#[test]
fn a_refusal_ends_what_is_under_way() -> Result<()> {
    with_proxy(Make::GcsFake, |_, proxy, client| {
        proxy.behave(Behaviour::default().always(Fault::Stall))?;
        std::thread::scope(|scope| {
            let made = scope.spawn(|| create(client, "wal/0001"));
            wait_until("a request", || Ok(!proxy.requests().is_empty()))?;
            proxy.behave(Behaviour::default().refuse())?;
            let made = made.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            assert!(made.is_err(), "{made:?}");
            Ok(())
        })
    })
}

#[test]
fn latency_is_added_to_each_request_and_not_to_their_sum() -> Result<()> {
    with_proxy(Make::GcsFake, |_, proxy, client| {
        let late = Duration::from_millis(300);
        proxy.behave(Behaviour::default().latency(late))?;
        block_on(async {
            let begun = Instant::now();
            let names: Vec<String> = (0..8).map(|name| format!("wal/{name}")).collect();
            for made in join_all(names.iter().map(|name| client.create(name, "x"))).await {
                made?;
            }
            let took = begun.elapsed();
            assert!(
                took >= late && took < 4 * late,
                "eight at once took {took:?}"
            );
            Ok(())
        })?;
        let seen = proxy.requests();
        assert!(
            seen.iter().all(|request| request.took >= Some(late)),
            "{seen:?}"
        );
        Ok(())
    })
}

#[test]
fn only_the_meant_requests_are_disturbed_and_only_so_often() -> Result<()> {
    with_proxy(Make::GcsFake, |_, proxy, client| {
        let forbidden = Behaviour::default().always(Fault::Status(403));
        proxy.behave(forbidden.only("PUT", "0007").at_most(2))?;
        assert_eq!(create(client, "wal/0006")?, Ok(()));
        assert!(create(client, "wal/0007")?.is_err());
        assert!(read(client, "wal/0006")?.is_ok());
        assert!(create(client, "wal/0007")?.is_err());
        assert_eq!(create(client, "wal/0007")?, Ok(()));
        assert!(read(client, "wal/0007")?.is_ok());
        Ok(())
    })
}

#[test]
fn random_faults_are_as_many_as_asked_for_and_counted() -> Result<()> {
    with_proxy(Make::GcsFake, |store, proxy, client| {
        let kinds = [
            Fault::Status(500),
            Fault::Status(503),
            Fault::ResetBefore,
            Fault::ResetAfter,
            Fault::Truncated,
        ];
        proxy.behave(Behaviour::default().sometimes(250, 5, &kinds))?;
        let mut failed = 0;
        for name in 0..400 {
            failed += usize::from(create(client, &format!("wal/{name}"))?.is_err());
        }
        let seen = proxy.requests();
        assert_eq!(seen.len(), 400);
        let faults = seen.iter().filter_map(|request| request.fault);
        assert_eq!(faults.count(), failed);
        assert!((60..140).contains(&failed), "{failed} of 400");
        let done = seen.iter().filter(|request| request.status == Some(200));
        assert_eq!(
            store.objects()?.len(),
            done.count(),
            "lost answers are done"
        );
        Ok(())
    })
}
