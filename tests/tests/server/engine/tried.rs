//! What `walden check` finds out about a store by trying it: each store here can do everything, and nothing stays there.

use anyhow::{Result, bail, ensure};
use archive::{CloudStore, Location, spawn_plainly};
use lab::scenario;
use lab::stores::{Make, Proxy, Store};

use super::common::with_credentials;

fn can_do_everything(make: Make) -> Result<()> {
    scenario(|lab| {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let url = with_credentials(&store, &store.url_through(&proxy, "wal"))?;
        let Location::Cloud(address) = url.parse()? else {
            bail!("it is no place in a store");
        };
        let probed = CloudStore::probe(&address, spawn_plainly, &mut |_| ())?;
        probed.creation?;
        probed.listing?;
        probed.parts?;
        probed.round_trip?;
        probed.skew?;
        // Else one page would have been enough, and nothing known of a second one.
        let requests = proxy.requests();
        let resumed = requests.iter().filter(|request| {
            let resumes = ["continuation-token=", "&marker="];
            resumes.iter().any(|word| request.path.contains(word))
        });
        ensure!(resumed.count() >= 2, "{make}: {requests:?}");
        let left = store.objects()?;
        ensure!(left.is_empty(), "{make}: {left:?}");
        Ok(())
    })
}

#[test]
fn s3_can_do_everything_and_lists_page_after_page() -> Result<()> {
    can_do_everything(Make::SeaweedFs)
}

#[test]
fn azure_can_do_everything_and_lists_page_after_page() -> Result<()> {
    can_do_everything(Make::Azurite)
}

#[test]
fn a_fake_of_google_cloud_storage_can_do_everything_and_lists_page_after_page() -> Result<()> {
    can_do_everything(Make::GcsFake)
}
