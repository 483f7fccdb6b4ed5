//! What archiving and restoring cost in requests, as a proxy counts them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use archive::Compression;
use lab::scenario;
use lab::stores::{Make, Proxy, Store};

use crate::common::{must_restore, open, put, segment, with_credentials};

/// How many of each method.
fn counted(proxy: &Proxy) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in proxy.requests() {
        *counts.entry(request.method).or_default() += 1;
    }
    counts
}

fn segments_cost_one_request_each(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let folder = lab.directory("files")?;
        let location = with_credentials(&store, &store.url_through(&proxy, "wal"))?.parse()?;
        let archive = open(&location, Compression::Zstd(1))?;
        put(&archive, &folder, &segment(1)?, 1)?;
        let opening = proxy.requests().len();
        ensure!(
            opening <= 25,
            "{opening} requests before the first file was archived"
        );

        proxy.clear();
        for number in 2..=101 {
            put(&archive, &folder, &segment(number)?, 1)?;
        }
        let counts = counted(&proxy);
        ensure!(counts.get("PUT") == Some(&100), "{counts:?}");
        ensure!(counts.values().sum::<usize>() <= 101, "{counts:?}");

        proxy.clear();
        let reader = open(&location, Compression::Zstd(1))?;
        for number in 2..=101 {
            must_restore(&reader, &folder, &segment(number)?, 1)?;
        }
        let counts = counted(&proxy);
        // One for the binding, one for the forms; after a minute one more.
        ensure!(counts.values().sum::<usize>() <= 103, "{counts:?}");
        ensure!(counts.keys().all(|method| method == "GET"), "{counts:?}");
        Ok(())
    })
}

#[test]
fn on_s3_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::SeaweedFs)
}

#[test]
fn on_azure_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::Azurite)
}

#[test]
fn on_a_fake_of_google_cloud_storage_a_segment_costs_one_request_each_way() -> Result<()> {
    segments_cost_one_request_each(Make::GcsFake)
}
