//! A client that writes all the time, and notes which of its commits were acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Lab, run_for, wait_until};

use super::group::Group;
use super::node::psql;

/// How long the client waits for one commit before it takes it for lost: a server that is stopped never answers.
const COMMIT_MAX: Duration = Duration::from_secs(5);

/// How many commits after a failover count as a cluster that works.
pub(super) const PROGRESS: usize = 5;

/// The first number of rows that others write, on a leader that was left behind.
pub(super) const LEFT_BEHIND: u64 = 1_000_000;

/// Numbers whose commit was acknowledged.
#[derive(Default)]
pub(super) struct Writer {
    acknowledged: Mutex<BTreeSet<u64>>,
    ended: AtomicBool,
}

/// Ends the writer also when the scenario fails.
pub(super) struct Until<'a>(&'a Writer);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    /// Writes until the guard of [`Writer::until`] is gone: a row in a transaction of its own, on whichever server takes
    /// writes, in turn beginning with each.
    pub(super) fn run(&self, lab: &Lab, ports: &[u16]) {
        let mut number = 0;
        while !self.ended.load(Ordering::Relaxed) {
            number += 1;
            let mut ports = ports.to_vec();
            let first = usize::try_from(number).unwrap_or_default() % ports.len();
            ports.rotate_left(first);
            let mut command = psql(lab, &ports);
            command.env("PGTARGETSESSIONATTRS", "read-write");
            // A segment has about fifty of them.
            let statement = format!(
                "insert into noted select {number}, string_agg(md5(random()::text), '') from generate_series(1, 600) \
                 returning n"
            );
            let outcome = run_for(command.args(["-c", &statement]), COMMIT_MAX);
            let is_acknowledged = outcome.is_ok_and(|outcome| {
                outcome.status.success() && outcome.stdout.trim() == number.to_string()
            });
            if is_acknowledged {
                self.noted().insert(number);
            }
        }
    }

    /// Ends it once dropped.
    pub(super) fn until(&self) -> Until<'_> {
        Until(self)
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it gets on.
    pub(super) fn wait_for_progress(&self) -> Result<()> {
        let before = self.noted().len();
        wait_until("commits to be acknowledged", || {
            Ok(self.noted().len() >= before + PROGRESS)
        })
    }

    /// Fails if the leader lacks a row whose commit was acknowledged. Answers with how many there were.
    pub(super) fn check_all_there(&self, group: &Group) -> Result<usize> {
        let (leader, _) = group.whole()?;
        let rows = leader.sql("select n from noted")?;
        let rows: BTreeSet<u64> = rows.lines().map(str::parse).collect::<Result<_, _>>()?;
        let acknowledged = self.noted();
        let lost: Vec<_> = acknowledged.difference(&rows).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let left_behind = rows.range(LEFT_BEHIND..).count();
        ensure!(
            left_behind == 0,
            "{left_behind} rows of a leader that was left behind"
        );
        Ok(acknowledged.len())
    }
}
