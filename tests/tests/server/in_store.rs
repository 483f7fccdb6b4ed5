//! What the scenarios with object stores share: a store to archive into, what is in it, and a look at the processes that
//! talk to it.
//!
//! Guarantees that what is in a store is told by the store, past Walden and past any proxy.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use archive::{Archive, Form, Options, spawn_plainly};
use lab::stores::{Make, Proxy, Script, Store};
use lab::{Cluster, Lab, Mark, Process, Settings, wal_file};

/// The folder in the store.
const PREFIX: &str = "wal";

/// Signals that no thread can block: SIGKILL, SIGSTOP, and the two that the C library keeps for itself (nptl(7)).
const NEVER_BLOCKED: [u32; 4] = [9, 19, 32, 33];

/// An archive in a store.
pub(crate) struct InStore<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) store: Store<'lab>,
    pub(crate) location: String,
}

impl<'lab> InStore<'lab> {
    /// An archive in a new store, reached directly.
    pub(crate) fn new(lab: &'lab Lab, make: Make) -> Result<InStore<'lab>> {
        let store = Store::start(lab, make, "archive")?;
        let url = store.url(PREFIX);
        InStore::at(lab, store, &url)
    }

    /// An archive in a new store, reached through a proxy.
    pub(crate) fn behind_a_proxy(lab: &'lab Lab, make: Make) -> Result<(InStore<'lab>, Proxy)> {
        let store = Store::start(lab, make, "archive")?;
        let proxy = Proxy::to(&store)?;
        let url = store.url_through(&proxy, PREFIX);
        Ok((InStore::at(lab, store, &url)?, proxy))
    }

    fn at(lab: &'lab Lab, store: Store<'lab>, url: &str) -> Result<InStore<'lab>> {
        let credentials = store.credentials_file()?;
        let location = format!("{url}&credentials_file={}", credentials.display());
        Ok(InStore {
            lab,
            store,
            location,
        })
    }

    /// The same archive, reached directly.
    pub(crate) fn direct(&self) -> Result<String> {
        let credentials = self.store.credentials_file()?;
        let url = self.store.url(PREFIX);
        Ok(format!("{url}&credentials_file={}", credentials.display()))
    }

    /// The same archive, reached through a server that follows a script.
    pub(crate) fn location_by(&self, script: &Script) -> Result<String> {
        let credentials = self.store.credentials_file()?;
        let url = self.store.url_by(script, PREFIX);
        Ok(format!("{url}&credentials_file={}", credentials.display()))
    }

    /// Settings of a server that archives there.
    pub(crate) fn archiving(&self) -> Result<Settings> {
        self.lab.walden_settings_at(&self.location)
    }

    /// Settings of a server that recovers from there, and archives there afterwards.
    pub(crate) fn recovering(&self) -> Result<Settings> {
        Ok(self
            .archiving()?
            .with("walden.restore_library", "walden")
            .with("log_min_messages", "debug1"))
    }

    /// The names that are visible, without the folder, and their sizes in bytes, sorted.
    pub(crate) fn objects(&self) -> Result<Vec<(String, u64)>> {
        let objects = self.store.objects()?.into_iter();
        let bare = |key: String| match key.split_once('/') {
            Some((PREFIX, name)) => name.to_owned(),
            _ => key,
        };
        Ok(objects.map(|(key, size)| (bare(key), size)).collect())
    }

    /// Whether an object is encrypted, by its first bytes.
    pub(crate) fn is_sealed(&self, key: &str) -> Result<bool> {
        let archive = Archive::open(&self.location.parse()?, Options::default(), spawn_plainly)?;
        Ok(archive.form_of(key)? == Some(Form::Age))
    }

    /// The WAL files that are visible, whatever their form.
    pub(crate) fn files(&self) -> Result<BTreeSet<String>> {
        let objects = self.objects()?.into_iter();
        Ok(objects
            .map(|(name, _)| wal_file(&name).to_owned())
            .collect())
    }

    /// Fails unless every file that the server has noted as archived is in the store.
    pub(crate) fn must_hold_what_is_noted(&self, server: &Cluster) -> Result<()> {
        // In this order: what is noted by now is there, or the note is wrong.
        let noted = noted(server)?;
        let files = self.files()?;
        let missing: Vec<_> = noted.difference(&files).collect();
        ensure!(
            missing.is_empty(),
            "{missing:?} are noted as archived, but not in the store"
        );
        Ok(())
    }

    /// Fails when a server's log holds a secret that opens the store.
    pub(crate) fn must_not_be_told(&self, server: &Cluster) -> Result<()> {
        let log = server.log(Mark::default())?;
        for (name, secret) in self.store.environment() {
            if name.ends_with("_SECRET_ACCESS_KEY") || name.ends_with("_ACCOUNT_KEY") {
                ensure!(!log.contains(&secret), "the log shows {name}");
            }
        }
        Ok(())
    }
}

/// What the server has noted as archived and not forgotten yet.
fn noted(server: &Cluster) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(server.data().join("pg_wal/archive_status"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".done").map(str::to_owned));
    }
    Ok(names)
}

/// The names of a process's threads beside its first; fails when one of them could be sent a signal.
pub(crate) fn threads_without_signals(process: &Process) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/task", process.pid))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy() == process.pid.to_string() {
            continue;
        }
        // Threads come and go.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let field = |field: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(field).map(str::trim))
        };
        let name = field("Name:").context("a thread without a name")?;
        let blocked = u64::from_str_radix(field("SigBlk:").context("no SigBlk")?, 16)?;
        let open: Vec<_> = (1..=64)
            .filter(|signal| blocked & (1 << (signal - 1)) == 0)
            .filter(|signal| !NEVER_BLOCKED.contains(signal))
            .collect();
        ensure!(
            open.is_empty(),
            "thread \"{name}\" of \"{}\" may be sent signals {open:?}",
            process.title
        );
        names.push(name.to_owned());
    }
    Ok(names)
}
