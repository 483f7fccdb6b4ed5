//! `make soak`: a primary, its archive and a standby that is fed from it, under everything that goes wrong.
//!
//! For as many minutes as it is told, settings change, processes are killed, servers are stopped, and the
//! archive is slow, hangs or refuses (`lab::FailingStorage`), as one seed chooses. Every few minutes, and at the end,
//! all promises are checked: every file that a server called archived is in the archive once and decodes to the
//! bytes which that server had; the standby, and a recovery to a point in time, hold what the primary
//! holds. It ends with status 1 if one does not hold.
//!
//! The same seed makes the same choices in the same order; what the servers make of them depends on timing.
//! `events.rs` makes things happen, `watch.rs` sees what was archived and checks it. Needs CAP_SYS_ADMIN.

#![allow(
    clippy::print_stdout,
    reason = "telling what happens is what this program is for"
)]

mod events;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{
    ArchiveDir, Cluster, Conditions, FailingStorage, Lab, Mark, Settings, run, scenario, wait_until,
};

use watch::Witness;

/// The smallest segment size makes many segments of little work.
const SEGMENT_MB: u32 = 1;
/// How often everything is checked.
const CHECK_EVERY: Duration = Duration::from_secs(180);
/// The pause between two writes: it sets the load, some two segments a second.
const PAUSE: Duration = Duration::from_millis(300);
/// One turn in this many makes something happen.
const TURNS_PER_EVENT: u32 = 5;
/// Where a recovery to a point in time goes to.
const RESTORE_POINT: &str = "checked";

/// What messages no server may have written, whatever befell it.
const NEVER_LOGGED: [&[&str]; 6] = [
    &["PANIC: "],
    &["panicked"],
    &["internal error, please report"],
    &["terminated by signal 11"],
    &["terminated by signal 6"],
    &["different contents"],
];

fn main() -> ExitCode {
    let outcome = Orders::read().and_then(|orders| {
        println!("{orders}");
        let ended = scenario(|lab| Soak::begin(lab, orders)?.run());
        ended.with_context(|| format!("with {orders}"))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to do, from the command line: `soak [MINUTES [SEED]]`.
#[derive(Clone, Copy)]
struct Orders {
    minutes: u64,
    seed: u64,
}

impl Orders {
    fn read() -> Result<Orders> {
        let mut arguments = std::env::args().skip(1).filter(|text| !text.is_empty());
        let minutes = arguments.next().map_or(Ok(15), |text| text.parse());
        let seed = arguments
            .next()
            .map_or_else(lab::seed, |text| Ok(text.parse()?));
        ensure!(arguments.next().is_none(), "usage: soak [MINUTES [SEED]]");
        Ok(Orders {
            minutes: minutes.context("the minutes are not a number")?,
            seed: seed.context("the seed is not a number")?,
        })
    }
}

impl std::fmt::Display for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MINUTES={} SEED={}", self.minutes, self.seed)
    }
}

/// Everything that runs, and what is known of it.
struct Soak<'lab> {
    lab: &'lab Lab,
    archive: ArchiveDir,
    storage: FailingStorage,
    primary: Cluster<'lab>,
    standby: Cluster<'lab>,
    backup: PathBuf,
    /// Files are encrypted for its public key now and then.
    key: Key,
    witness: Witness,
    random: fastrand::Rng,
    begun: Instant,
    length: Duration,
    written: Written,
    counts: BTreeMap<&'static str, u32>,
    /// Numbers the clusters and backups that come and go.
    places: u32,
}

/// A secret key that recovery reads with, and its public key.
struct Key {
    file: String,
    public: String,
}

impl Key {
    fn new(lab: &Lab) -> Result<Key> {
        let file = lab.dir().join("identity");
        let cure = "scripts/prerequisites installs age";
        let mut keygen = lab.command("age-keygen");
        run(keygen.arg("-o").arg(&file)).context(cure)?.success()?;
        let public = run(lab.command("age-keygen").arg("-y").arg(&file))?.success()?;
        lab.own(&file)?;
        Ok(Key {
            file: file.display().to_string(),
            public: public.trim().to_owned(),
        })
    }
}

/// What was written to the ledger.
#[derive(Default)]
struct Written {
    /// The last entry tried.
    last: u32,
    /// Entries that the server acknowledged.
    sure: u32,
    /// Entries whose statement failed: the server was being killed, and may have kept them or not.
    unsure: u32,
}

impl<'lab> Soak<'lab> {
    fn begin(lab: &'lab Lab, orders: Orders) -> Result<Soak<'lab>> {
        let archive = lab.archive("archive")?;
        let storage = FailingStorage::over(archive.path(), Conditions::default())?;
        let key = Key::new(lab)?;
        let settings = lab
            .walden_settings(&archive)?
            // Segments are recycled early, but not before they have been seen.
            .with("wal_keep_size", "256MB")
            .with("min_wal_size", "32MB")
            .with("max_wal_size", "64MB")
            .with("checkpoint_timeout", "30s");
        let primary = lab.primary("primary", SEGMENT_MB, settings)?;
        primary.sql("create table load(entry int, payload text)")?;
        let backup = primary.base_backup("backup0")?;
        let standby = lab.restored("standby", &backup, standby_settings(&primary, &key))?;
        standby.touch("standby.signal")?;
        standby.start()?;
        Ok(Soak {
            lab,
            witness: Witness::of(&archive, &["--identity-file", &key.file]),
            key,
            archive,
            storage,
            primary,
            standby,
            backup,
            random: fastrand::Rng::with_seed(orders.seed),
            begun: Instant::now(),
            length: Duration::from_secs(60 * orders.minutes),
            written: Written::default(),
            counts: BTreeMap::new(),
            places: 0,
        })
    }

    fn run(mut self) -> Result<()> {
        let mut next_check = CHECK_EVERY.min(self.length);
        loop {
            self.write()?;
            self.witness.look(&self.primary)?;
            if self.random.u32(0..TURNS_PER_EVENT) == 0 {
                self.happen()?;
                self.witness.look(&self.primary)?;
            }
            if self.begun.elapsed() >= next_check {
                self.check()?;
                if next_check >= self.length {
                    break;
                }
                next_check = (self.begun.elapsed() + CHECK_EVERY).min(self.length);
            }
            std::thread::sleep(PAUSE);
        }
        let (met, refused) = self.storage.met();
        self.tell(&format!("{met} opens in the archive, {refused} refused"));
        let counts = self.counts.iter();
        let counts: Vec<_> = counts
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        self.tell(&counts.join(", "));
        println!("every promise held");
        Ok(())
    }

    /// Writes one entry with a load of random size, sometimes with the end of a segment.
    fn write(&mut self) -> Result<()> {
        let rows = self.random.u32(10..6000);
        let ends = if self.random.u32(0..4) == 0 {
            "select pg_switch_wal();"
        } else {
            ""
        };
        self.written.last += 1;
        let entry = self.written.last;
        let old = entry.saturating_sub(20);
        let text = format!(
            "insert into ledger values ({entry});\n\
             insert into load select {entry}, md5(random()::text) from generate_series(1, {rows});\n\
             delete from load where entry < {old};\n{ends}\n"
        );
        // Each statement is a transaction: the first one decides about the entry.
        if self.primary.psql("postgres", &text)?.status.success() {
            self.written.sure += 1;
        } else {
            self.written.unsure += 1;
            self.wait_for_connections(&self.primary)?;
        }
        Ok(())
    }

    /// Checks all promises.
    fn check(&mut self) -> Result<()> {
        self.tell("checking");
        self.storage.set(Conditions::default());
        self.wait_for_connections(&self.primary)?;
        self.wait_for_connections(&self.standby)?;
        self.primary.sql(&format!(
            "select pg_create_restore_point('{RESTORE_POINT}')"
        ))?;
        let contents = self.primary.contents()?;
        self.archive_everything()?;
        let kept: u32 = self.primary.sql("select count(*) from ledger")?.parse()?;
        let Written { sure, unsure, .. } = self.written;
        ensure!(
            (sure..=sure + unsure).contains(&kept),
            "{sure} entries were acknowledged and {unsure} may be there, but the ledger has {kept}"
        );
        self.witness.look(&self.primary)?;
        self.tell("all is archived");
        let files = self.witness.check(self.lab)?;
        let last = self.primary.sql("select max(entry) from ledger")?;
        self.standby
            .wait_for_sql("select max(entry) from ledger", &last)?;
        ensure!(
            self.standby.contents()? == contents,
            "the standby's tables differ from the primary's"
        );
        self.tell("the standby holds the same");
        self.recover_to_point(&contents)?;
        self.places += 1;
        self.backup = self
            .primary
            .base_backup(&format!("backup{}", self.places))?;
        for server in [&self.primary, &self.standby] {
            check_log(server)?;
        }
        let strangers = self.archive.strangers()?.len();
        self.tell(&format!(
            "{files} files archived and equal, {kept} entries on all three servers, {strangers} leftovers"
        ));
        Ok(())
    }

    /// Recovers the last backup to the restore point, from an archive that is slow and refuses now and then.
    fn recover_to_point(&mut self, contents: &lab::Contents) -> Result<()> {
        let settings = recovery_settings(&self.primary, &self.key)
            .with("archive_mode", "off")
            .with("recovery_target_name", RESTORE_POINT)
            .with("recovery_target_timeline", "current")
            .with("recovery_target_action", "promote");
        self.places += 1;
        let name = format!("recovered{}", self.places);
        let recovered = self.lab.restored(&name, &self.backup, settings)?;
        recovered.touch("recovery.signal")?;
        let delay = Duration::from_millis(self.random.u64(0..20));
        let rough = Conditions::default()
            .delay(delay)
            .fail(50, self.random.u64(..));
        self.storage.set(rough);
        recovered.start()?;
        recovered.wait_until_promoted()?;
        self.storage.set(Conditions::default());
        ensure!(
            recovered.contents()? == *contents,
            "the recovered tables differ from the primary's"
        );
        check_log(&recovered)?;
        remove(recovered)
    }

    /// Ends the segment and waits until all is archived, however often the archiver has given up before.
    fn archive_everything(&self) -> Result<()> {
        self.primary.switch_segment()?;
        self.primary.wait_until_archived()
    }

    /// Starts a server again that has ended.
    pub(crate) fn revive(&self) -> Result<()> {
        for (server, name) in [(&self.primary, "primary"), (&self.standby, "standby")] {
            if !server.is_running()? {
                server.wait_for_end()?;
                server.launch()?;
                self.tell(&format!("the {name} had ended and is started again"));
            }
        }
        Ok(())
    }

    /// Waits until a server takes connections, starting what has ended.
    fn wait_for_connections(&self, server: &Cluster) -> Result<()> {
        wait_until("a server to take connections", || {
            self.revive()?;
            server.takes_connections()
        })
    }

    fn tell(&self, what: &str) {
        println!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

/// Fails when a server has written what none may write.
fn check_log(server: &Cluster) -> Result<()> {
    for words in NEVER_LOGGED {
        if let Some(entry) = server.logged(Mark::default(), words)?.first() {
            bail!("a server has logged: {}", entry.text);
        }
    }
    Ok(())
}

/// Stops a throwaway server and removes its files.
fn remove(server: Cluster) -> Result<()> {
    let home = server.home().to_owned();
    server.stop(lab::Shutdown::Immediate)?;
    drop(server);
    Ok(std::fs::remove_dir_all(home)?)
}

/// Settings of a server that recovers from the primary's archive.
fn recovery_settings(primary: &Cluster, key: &Key) -> Settings {
    let settings = primary.settings().with("walden.identity_file", &key.file);
    settings.with("walden.restore_library", "walden")
}

/// Settings of the standby: it stays on the primary's timeline, whatever throwaway copies do.
fn standby_settings(primary: &Cluster, key: &Key) -> Settings {
    recovery_settings(primary, key).with("recovery_target_timeline", "current")
}
