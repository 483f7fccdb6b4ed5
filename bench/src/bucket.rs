//! One object store for all contenders: SeaweedFS with TLS, at a distance, and what each program is told of it.
//!
//! Guarantees that all contenders use the same store through the same relay, and trust its certificate by its authority.
//! Leaves to the parts when it is emptied.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Lab;
use lab::stores::{Make, REGION, Store};

use crate::delay::Relay;

/// A bucket of a throwaway store.
pub(crate) struct Bucket<'lab> {
    name: &'static str,
    store: Store<'lab>,
    relay: Relay,
    credentials: PathBuf,
}

impl<'lab> Bucket<'lab> {
    /// Starts a store with a bucket of this name, and the relay to it.
    ///
    /// # Errors
    ///
    /// When the store is not here (the message says how it comes), or does not start.
    pub(crate) fn open(lab: &'lab Lab, name: &'static str) -> Result<Bucket<'lab>> {
        let store = Store::start(lab, Make::SeaweedFsTls, name)?;
        let relay = Relay::to(store.tls_port().context("a store without TLS")?)?;
        let credentials = store.credentials_file()?;
        Ok(Bucket {
            name,
            store,
            relay,
            credentials,
        })
    }

    /// How far away it is from now on: what a round trip takes, in milliseconds.
    pub(crate) fn put_away(&self, round_trip_ms: u64) {
        self.relay
            .set_round_trip(Duration::from_millis(round_trip_ms));
    }

    /// Removes all that is in it.
    ///
    /// # Errors
    ///
    /// When the store does not do so.
    pub(crate) fn empty(&self) -> Result<()> {
        self.store.empty()
    }

    /// Fails unless each of these segments is in it; answers with the bytes stored.
    ///
    /// # Errors
    ///
    /// When one is not.
    pub(crate) fn stored(&self, segments: &[String]) -> Result<u64> {
        let objects = self.store.objects()?;
        // pgBackRest puts a hash behind the name, others a suffix.
        let found: BTreeSet<&str> = objects
            .iter()
            .filter_map(|(key, _)| key.rsplit('/').next()?.get(..24))
            .collect();
        let is_missing = |name: &&String| !found.contains(name.as_str());
        let missing = segments.iter().filter(is_missing).count();
        ensure!(
            missing == 0,
            "{missing} of {} segments are not in the bucket",
            segments.len()
        );
        Ok(objects.iter().map(|(_, size)| size).sum())
    }

    /// How many requests it has answered since it was emptied last.
    ///
    /// # Errors
    ///
    /// When the store does not say.
    pub(crate) fn requests(&self) -> Result<u64> {
        self.store.requests()
    }

    /// A value of `walden.archive`.
    pub(crate) fn for_walden(&self, prefix: &str) -> String {
        let url = self.store.tls_url_at(self.relay.port(), prefix);
        format!("{url}&credentials_file={}", self.credentials.display())
    }

    /// Lines of pgBackRest's configuration.
    pub(crate) fn for_pgbackrest(&self, prefix: &str) -> String {
        let (key, secret) = self.keys();
        format!(
            "repo1-type=s3\nrepo1-path=/{prefix}\nrepo1-s3-bucket={}\nrepo1-s3-region={REGION}\n\
             repo1-s3-endpoint=localhost\nrepo1-s3-uri-style=path\nrepo1-storage-port={}\n\
             repo1-storage-ca-file={}\nrepo1-s3-key={key}\nrepo1-s3-key-secret={secret}\n",
            self.name,
            self.relay.port(),
            self.store.ca_file().display()
        )
    }

    /// The environment variables that WAL-RUS needs for this bucket: names and values.
    pub(crate) fn for_walrus(&self, prefix: &str) -> Vec<(String, String)> {
        let mut environment = self.store.environment();
        let endpoint = format!("https://127.0.0.1:{}", self.relay.port());
        environment.extend(
            [
                ("WALG_S3_PREFIX", format!("s3://{}/{prefix}", self.name)),
                ("AWS_REGION", REGION.to_owned()),
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_S3_FORCE_PATH_STYLE", "true".to_owned()),
                // It has no setting of its own for the authority.
                ("SSL_CERT_FILE", self.store.ca_file().display().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        environment
    }

    /// Access key and secret key.
    fn keys(&self) -> (String, String) {
        let environment = self.store.environment();
        let of = |name| {
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        (of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY"))
    }
}
