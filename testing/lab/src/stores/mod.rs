//! Throwaway object stores, and a proxy that makes trouble between them and a client.
//!
//! [`Store`] is a running store with one empty bucket or container: SeaweedFS (S3, plain and TLS), Azurite (Azure), a
//! **fake** of Google Cloud Storage, and two S3 servers that break the promise of a conditional create. Guarantees
//! that a store listens on loopback only, on a port of its own also while it is stopped, that it works before a test
//! goes on, and that it is gone when it is dropped. The programs come from `make stores`; one that is missing is a
//! failure.
//!
//! The fake is the lab's own and not Google's: it answers what the `object_store` crate asks of the XML API, with
//! preconditions, from memory, without authentication. What is shown with it is that Walden asks rightly, not how
//! Google answers.
//!
//! [`Script`] is a server that follows a script, and answers as no store should.
//!
//! [`Proxy`] stands between a client and a store, counts requests, and makes them late, or fail.

mod daemon;
mod gcs;
mod http;
mod inspector;
mod make;
mod ports;
mod proxy;
mod script;
mod serve;
mod tls;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::lab::Lab;
use crate::wait::wait_until;
use daemon::Daemon;
use inspector::Inspector;
use make::{AZURITE_ACCOUNT, AZURITE_KEY, METRICS_PORT, TLS_PORT, sockets};

pub use inspector::REGION;
pub use make::{Make, folder};
pub use ports::Port;
pub use proxy::{Behaviour, Fault, Proxy, Request};
pub use script::{Reply, Script, Step, Tokens};

/// A key for a server that asks for none. Without one `object_store` 0.14 asks the machine's metadata server for a
/// token before it writes, also when it is to skip signatures.
const GCS_KEY: &str =
    r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;

/// A store with one bucket or container. Dropped, it is gone with all that was in it.
pub struct Store<'lab> {
    lab: &'lab Lab,
    make: Make,
    bucket: String,
    dir: PathBuf,
    ports: Vec<Port>,
    runs: Runs,
}

/// What runs: a program, or the fake in this process.
enum Runs {
    Program(Mutex<Option<Daemon>>),
    Fake(gcs::Fake),
}

impl<'lab> Store<'lab> {
    /// Starts a store and makes an empty bucket or container of this name, a lower-case word. Takes some seconds.
    ///
    /// # Errors
    ///
    /// When it is not installed (the message says how it is), or does not start.
    pub fn start(lab: &'lab Lab, make: Make, bucket: &str) -> Result<Store<'lab>> {
        let store = Store {
            lab,
            make,
            bucket: bucket.to_owned(),
            dir: lab.directory(&format!("{make}-{bucket}"))?,
            ports: (0..make.ports())
                .map(|_| Port::take())
                .collect::<Result<_>>()?,
            runs: match make {
                Make::GcsFake => Runs::Fake(gcs::Fake::new(bucket)?),
                _ => Runs::Program(Mutex::new(None)),
            },
        };
        store.start_again()?;
        Ok(store)
    }

    /// What kind of store it is.
    #[must_use]
    pub fn make(&self) -> Make {
        self.make
    }

    /// The port that clients use; for [`Make::SeaweedFsTls`] the plain one.
    #[must_use]
    pub fn port(&self) -> u16 {
        match &self.runs {
            Runs::Fake(fake) => fake.port(),
            Runs::Program(_) => self.ports.first().map_or(0, Port::number),
        }
    }

    /// The URL of a place in it, as `walden.archive` takes it; its credentials are in [`Store::environment`].
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        match self.tls_port() {
            Some(port) => self.tls_url_at(port, prefix),
            None => self.url_at(&format!("http://127.0.0.1:{}", self.port()), prefix),
        }
    }

    /// The port with TLS, where there is one.
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        match self.make {
            Make::SeaweedFsTls => self.ports.get(TLS_PORT).map(Port::number),
            _ => None,
        }
    }

    /// The URL of a place behind another port of 127.0.0.1, from which bytes are passed on to [`Store::tls_port`].
    #[must_use]
    pub fn tls_url_at(&self, port: u16, prefix: &str) -> String {
        let endpoint = format!("https://127.0.0.1:{port}");
        let ca_file = self.ca_file();
        format!(
            "{}&ca_file={}",
            self.url_at(&endpoint, prefix),
            ca_file.display()
        )
    }

    /// The same place through a proxy.
    #[must_use]
    pub fn url_through(&self, proxy: &Proxy, prefix: &str) -> String {
        self.url_at(&format!("http://127.0.0.1:{}", proxy.port()), prefix)
    }

    /// The same place through a server that follows a script.
    #[must_use]
    pub fn url_by(&self, script: &Script, prefix: &str) -> String {
        self.url_at(&format!("http://127.0.0.1:{}", script.port()), prefix)
    }

    fn url_at(&self, endpoint: &str, prefix: &str) -> String {
        let bucket = &self.bucket;
        match self.make {
            Make::Azurite => format!(
                "az://{bucket}/{prefix}?account={AZURITE_ACCOUNT}&endpoint={endpoint}/{AZURITE_ACCOUNT}"
            ),
            Make::GcsFake => format!("gs://{bucket}/{prefix}?endpoint={endpoint}"),
            _ => format!(
                "s3://{bucket}/{prefix}?endpoint={endpoint}&region={REGION}&path_style=true"
            ),
        }
    }

    /// The environment variables that carry its credentials.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self.make {
            Make::Azurite => vec![pair("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)],
            Make::GcsFake => vec![
                pair("GOOGLE_SKIP_SIGNATURE", "true"),
                pair("GOOGLE_SERVICE_ACCOUNT_KEY", GCS_KEY),
            ],
            _ => {
                let (access, secret) = self.make.s3_keys();
                vec![
                    pair("AWS_ACCESS_KEY_ID", access),
                    pair("AWS_SECRET_ACCESS_KEY", secret),
                ]
            }
        }
    }

    /// The same in a file, as the option `credentials_file` of a location takes it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn credentials_file(&self) -> Result<PathBuf> {
        let path = self.dir.with_extension("credentials");
        let text = match self.make {
            Make::GcsFake => GCS_KEY.to_owned(),
            _ => {
                let lines = self.environment().into_iter();
                lines
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect()
            }
        };
        std::fs::write(&path, text)?;
        self.lab.own(&path)?;
        Ok(path)
    }

    /// The certificate of the authority that [`Make::SeaweedFsTls`] is known by.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join(tls::AUTHORITY)
    }

    /// Names and sizes of all objects that are visible, sorted.
    ///
    /// # Errors
    ///
    /// When the store does not answer, or not with a list.
    pub fn objects(&self) -> Result<Vec<(String, u64)>> {
        match &self.runs {
            Runs::Fake(fake) => Ok(fake.objects()),
            Runs::Program(_) => self.inspector().objects(),
        }
    }

    /// Names of objects with unfinished uploads in parts, sorted.
    ///
    /// # Errors
    ///
    /// As [`Store::objects`]; the two that lie do not tell.
    pub fn unfinished_uploads(&self) -> Result<Vec<String>> {
        match &self.runs {
            Runs::Fake(fake) => Ok(fake.unfinished_uploads()),
            Runs::Program(_) => self.inspector().unfinished_uploads(),
        }
    }

    /// Removes the bucket with all that is in it, and makes it anew: much faster than object by object.
    ///
    /// # Errors
    ///
    /// When the store does not do so; only SeaweedFS removes a bucket that is not empty.
    pub fn empty(&self) -> Result<()> {
        let inspector = self.inspector();
        inspector.remove_all()?;
        wait_until("an empty bucket", || Ok(inspector.prepare().is_ok()))
    }

    /// How many requests about the bucket have been answered since it was made, the lab's own included.
    ///
    /// # Errors
    ///
    /// When the store does not say: only [`Make::SeaweedFsTls`] does.
    pub fn requests(&self) -> Result<u64> {
        let port = self.ports.get(METRICS_PORT);
        let port = port.with_context(|| format!("{} counts no requests", self.make))?;
        self.inspector().requests(port.number())
    }

    /// Stops it; clients are refused until [`Store::start_again`], and then what it has acknowledged is there. One that
    /// is stopped is no error.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        match &self.runs {
            Runs::Fake(fake) => fake.close(),
            Runs::Program(running) => match lock(running).take() {
                Some(daemon) => daemon.stop(self.make.stops_at()).context(self.make),
                None => Ok(()),
            },
        }
    }

    /// Starts it with the data and the port it had, and waits until it works.
    ///
    /// # Errors
    ///
    /// When it runs already, or does not start.
    pub fn start_again(&self) -> Result<()> {
        let running = match &self.runs {
            Runs::Fake(fake) => return fake.open(),
            Runs::Program(running) => running,
        };
        {
            let mut running = lock(running);
            ensure!(running.is_none(), "{} runs already", self.make);
            let command = self.make.command(self.lab, &self.dir, &self.ports)?;
            *running = Some(Daemon::start(command, &self.dir.join("log"))?);
        }
        let mut last = None;
        wait_until("a store", || {
            if let Some(daemon) = &mut *lock(running) {
                daemon.ensure_alive()?;
            }
            last = self.inspector().prepare().err();
            Ok(last.is_none())
        })
        .with_context(|| match last {
            Some(error) => format!("could not start {}; last it said: {error:#}", self.make),
            None => format!("could not start {}", self.make),
        })
    }

    /// Lets it take connections and answer nothing, until [`Store::resume`].
    ///
    /// # Errors
    ///
    /// When it cannot be signalled, or does not stop.
    pub fn pause(&self) -> Result<()> {
        match &self.runs {
            Runs::Fake(fake) => fake.pause(true),
            Runs::Program(running) => self.daemon(&lock(running))?.pause()?,
        }
        Ok(())
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// When it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        match &self.runs {
            Runs::Fake(fake) => fake.pause(false),
            Runs::Program(running) => self.daemon(&lock(running))?.signal(Signal::CONT)?,
        }
        Ok(())
    }

    fn daemon<'daemon>(&self, running: &'daemon Option<Daemon>) -> Result<&'daemon Daemon> {
        let daemon = running.as_ref();
        daemon.with_context(|| format!("{} does not run", self.make))
    }

    fn inspector(&self) -> Inspector {
        Inspector {
            make: self.make,
            port: self.port(),
            bucket: self.bucket.clone(),
        }
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        if let Runs::Program(running) = &self.runs {
            drop(lock(running).take());
            if self.make.name() == Make::SeaweedFs.name() {
                for socket in sockets(&self.ports) {
                    let _ = std::fs::remove_file(socket);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
