//! What befalls the servers and the archive of a soak.
//!
//! Guarantees that after each event both servers run, or are about to, and that nothing is signalled but what
//! belongs to them. Leaves to `main.rs` when something happens, and what must hold
//! all the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Conditions, DEADLINE, Process, Shutdown, wait_for};
use rustix::process::Signal;

use crate::{Soak, check_log, recovery_settings, remove};

/// How long a process is looked for: a client lives for milliseconds only, and a server that starts again after a
/// crash has no worker for a while.
const PROCESS_WAIT: Duration = Duration::from_secs(2);
/// The worst trouble with the storage: what an event may set.
const DELAY_MS_MAX: u64 = 200;
const STALL_MS_MAX: u64 = 10_000;
const FAIL_PER_MILLE_MAX: u64 = 100;
/// Mostly-empty segments written at once.
const BURST: u32 = 30;

/// What can happen, as often as it stands here.
#[derive(Clone, Copy)]
enum Event {
    Reload,
    Storage,
    Burst,
    KillArchiver,
    KillWorker,
    KillClient,
    KillServer,
    Stop,
    Promote,
}

const EVENTS: [Event; 17] = [
    Event::Reload,
    Event::Reload,
    Event::Reload,
    Event::Storage,
    Event::Storage,
    Event::Storage,
    Event::Storage,
    Event::Storage,
    Event::Burst,
    Event::Burst,
    Event::KillArchiver,
    Event::KillWorker,
    Event::KillClient,
    Event::KillServer,
    Event::Stop,
    Event::Stop,
    Event::Promote,
];

impl Soak<'_> {
    /// Makes the next thing happen.
    pub(crate) fn happen(&mut self) -> Result<()> {
        self.revive()?;
        let event = self.random.choice(EVENTS).context("no events")?;
        // Drawn always, so that the same seed goes on alike whatever an event makes of it.
        let (mut random, of_primary) = (self.random.fork(), self.random.bool());
        let what = match event {
            Event::Reload => self.reload(&mut random)?,
            Event::Storage => self.change_storage(&mut random),
            Event::Burst => self.burst()?,
            Event::KillArchiver => self.kill("archiver", true)?,
            Event::KillWorker => self.kill("walden recovery worker", false)?,
            Event::KillClient => self.kill_client()?,
            Event::KillServer => self.kill_server(of_primary)?,
            Event::Stop => self.stop(of_primary, random.bool())?,
            Event::Promote => self.promote()?,
        };
        *self.counts.entry(what).or_default() += 1;
        self.tell(what);
        Ok(())
    }

    fn reload(&mut self, random: &mut fastrand::Rng) -> Result<&'static str> {
        let mut one_of = |values: &[&str]| {
            random
                .choice(values.to_vec())
                .unwrap_or_default()
                .to_owned()
        };
        let changes = [
            (
                "walden.compression",
                one_of(&["none", "lz4", "zstd", "zstd:1", "zstd:9"]),
            ),
            ("walden.archive_jobs", one_of(&["1", "2", "4", "16", "64"])),
            ("walden.memory_limit", one_of(&["16MB", "32MB", "128MB"])),
            ("walden.restore_prefetch", one_of(&["0", "1", "8", "64"])),
            ("walden.archive_timeout", one_of(&["1s", "5s", "60s"])),
            ("walden.recipients", one_of(&["", &self.key.public])),
        ];
        // Who archives can read it, or not.
        let identity = one_of(&["", &self.key.file]);
        self.primary
            .configure(|settings| settings.set("walden.identity_file", &identity))?;
        for server in [&self.primary, &self.standby] {
            server.reload(|settings| {
                for (name, value) in &changes {
                    settings.set(name, value);
                }
            })?;
        }
        Ok("reload")
    }

    fn change_storage(&mut self, random: &mut fastrand::Rng) -> &'static str {
        let delay = Duration::from_millis(random.u64(0..=DELAY_MS_MAX));
        let rough = Conditions::default().delay_between(Duration::ZERO, delay);
        let (conditions, what) = match random.u32(0..5) {
            0 => (Conditions::default(), "sound storage"),
            1 => (rough, "slow storage"),
            2 | 3 => {
                let per_mille = random.u64(1..=FAIL_PER_MILLE_MAX);
                (rough.fail(per_mille, random.u64(..)), "failing storage")
            }
            _ => {
                let length = Duration::from_millis(random.u64(100..=STALL_MS_MAX));
                (Conditions::default().stall_for(length), "stalled storage")
            }
        };
        self.storage.set(conditions);
        what
    }

    /// Many small segments at once, so that there is something to archive ahead.
    fn burst(&mut self) -> Result<&'static str> {
        let text = "select pg_logical_emit_message(true, 'burst', 'x'); select pg_switch_wal();\n";
        self.primary
            .psql("postgres", &text.repeat(BURST as usize))?;
        Ok("burst")
    }

    fn kill(&mut self, title: &str, of_primary: bool) -> Result<&'static str> {
        let server = if of_primary {
            &self.primary
        } else {
            &self.standby
        };
        let mark = server.mark()?;
        let Some(process) = find(server, title)? else {
            return Ok("no process to kill");
        };
        process.signal(Signal::KILL)?;
        // The server then ends all its processes and starts again.
        server.wait_for_log(mark, &["terminated by signal 9"])?;
        Ok(if of_primary {
            "kill archiver"
        } else {
            "kill worker"
        })
    }

    fn kill_client(&mut self) -> Result<&'static str> {
        let Some(client) = find(&self.standby, " restore --library")? else {
            return Ok("no client to kill");
        };
        client.signal(Signal::KILL)?;
        Ok("kill client")
    }

    fn kill_server(&mut self, of_primary: bool) -> Result<&'static str> {
        let (server, what) = if of_primary {
            (&self.primary, "kill primary")
        } else {
            (&self.standby, "kill standby")
        };
        server.kill()?;
        server.launch()?;
        Ok(what)
    }

    fn stop(&mut self, of_primary: bool, fast: bool) -> Result<&'static str> {
        let (server, what) = match (of_primary, fast) {
            (true, true) => (&self.primary, "stop primary, fast"),
            (true, false) => (&self.primary, "stop primary, immediate"),
            (false, true) => (&self.standby, "stop standby, fast"),
            (false, false) => (&self.standby, "stop standby, immediate"),
        };
        let how = if fast {
            Shutdown::Fast
        } else {
            Shutdown::Immediate
        };
        server.stop(how)?;
        server.launch()?;
        Ok(what)
    }

    /// Promotes a copy of the last backup, which archives on a timeline of its own.
    fn promote(&mut self) -> Result<&'static str> {
        // A standby takes "could not tell" for "not there", also when it asks which timelines are taken.
        let delay = Duration::from_millis(20);
        self.storage
            .set(Conditions::default().delay_between(Duration::ZERO, delay));
        self.places += 1;
        let settings =
            recovery_settings(&self.primary, &self.key).with("recovery_target_timeline", "current");
        let copy = self
            .lab
            .restored(&format!("copy{}", self.places), &self.backup, settings)?;
        copy.touch("standby.signal")?;
        copy.start()?;
        self.witness.look(&self.primary)?;
        copy.sql("select pg_promote(wait => false)")?;
        copy.wait_until_promoted()?;
        copy.sql("insert into load select 0, md5(random()::text) from generate_series(1, 20000)")?;
        copy.switch_segment()?;
        self.witness.look(&copy)?;
        copy.wait_until_archived()?;
        self.witness.look(&copy)?;
        let timeline = copy.sql("select left(pg_walfile_name(pg_current_wal_lsn()), 8)")?;
        ensure!(timeline != "00000001", "the copy is still on timeline 1");
        check_log(&copy)?;
        self.witness.look(&self.primary)?;
        remove(copy)?;
        Ok("promote a copy")
    }
}

/// A process of a server, if one comes soon; not a shell that is about to become one.
fn find(server: &Cluster, title: &str) -> Result<Option<Process>> {
    let begun = Instant::now();
    wait_for(title, DEADLINE, || {
        let found = server.processes(title)?;
        let found = found
            .into_iter()
            .find(|process| !process.title.starts_with("sh "));
        Ok((found.is_some() || begun.elapsed() > PROCESS_WAIT).then_some(found))
    })
}
