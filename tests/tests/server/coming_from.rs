//! From another tool to Walden and no moment lost: the steps of the book's chapter with WAL-RUS, which stands for WAL-G.
//!
//! The steps with pgBackRest are played from the chapter itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::{Cluster, Lab, Shutdown, run, scenario};

use crate::common::{must_recover, recovery_of, recovery_settings};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/peers/bin/walrus");

/// WAL-G reckons with segments of the default size.
const SEGMENT_MB: u32 = 16;

/// WAL-RUS with a place for its backups and its archive.
struct WalRus<'lab> {
    lab: &'lab Lab,
    place: PathBuf,
}

impl<'lab> WalRus<'lab> {
    fn new(lab: &'lab Lab) -> Result<WalRus<'lab>> {
        let program = Path::new(PROGRAM).canonicalize();
        let program = program.context("there is no WAL-RUS: run scripts/peers")?;
        lab.installation().add_program(&program)?;
        let place = lab.directory("wal-g")?;
        Ok(WalRus { lab, place })
    }

    /// A command of the server's, `wal-push %p` say. By default it pushes other files that are ready too, and notes them as
    /// archived in the server's place: Walden would never get them.
    fn command(&self, words: &str) -> String {
        format!(
            "WALG_UPLOAD_CONCURRENCY=1 WALG_FILE_PREFIX={} walrus {words}",
            self.place.display()
        )
    }

    fn run(&self, server: &Cluster, arguments: &[&str]) -> Result<()> {
        let mut command = self.lab.server_command("walrus");
        command
            .args(arguments)
            .env("WALG_FILE_PREFIX", &self.place)
            .env("PGHOST", server.home())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        run(&mut command)?
            .success()
            .with_context(|| format!("walrus {arguments:?}"))?;
        Ok(())
    }

    /// Takes a base backup, and fetches it again.
    fn backup(&self, server: &Cluster, name: &str) -> Result<PathBuf> {
        let fetched = self.lab.dir().join(name);
        self.run(
            server,
            &["backup-push", &server.data().display().to_string()],
        )?;
        self.run(
            server,
            &["backup-fetch", &fetched.display().to_string(), "LATEST"],
        )?;
        Ok(fetched)
    }
}

#[test]
#[ignore = "at full length: make test-all"]
fn a_server_comes_from_wal_g_and_recovers_to_moments_before_and_after() -> Result<()> {
    scenario(|lab| {
        let walrus = WalRus::new(lab)?;
        let archive = lab.archive("archive")?;
        let both = format!("{} && walden archive %p", walrus.command("wal-push %p"));
        let settings = lab
            .settings()
            .with("archive_mode", "on")
            .with("archive_command", &both)
            .with("walden.archive", &archive.text());
        let primary = lab.primary("primary", SEGMENT_MB, settings)?;
        let first = walrus.backup(&primary, "first")?;
        primary.write_segments(1..=2)?;
        primary.sql("select pg_create_restore_point('both')")?;
        let before = primary.contents()?;
        // The old archive has to have this moment before its command goes.
        primary.archive_everything()?;
        run(lab
            .command("walden")
            .args(["verify", "-A"])
            .arg(archive.path()))?
        .success()
        .context("while both archive")?;

        // From the restart on Walden archives alone.
        primary.configure(|settings| {
            settings.remove("archive_command");
            settings.set("archive_library", "walden");
            settings.set("shared_preload_libraries", "walden");
        })?;
        primary.stop(Shutdown::Fast)?;
        primary.start()?;
        let second = walrus.backup(&primary, "second")?;
        primary.write_segments(3..=4)?;
        let after = primary.contents()?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;

        let settings = recovery_settings(lab, &archive)?;
        for (backup, name) in [(&second, "after"), (&first, "through")] {
            let recovered =
                lab.restored(name, backup, settings.clone().with("archive_mode", "off"))?;
            recovered.touch("recovery.signal")?;
            must_recover(&recovered, &after)?;
        }
        let settings = lab
            .settings()
            .with("restore_command", &walrus.command("wal-fetch %f %p"))
            .with("recovery_target_name", "both")
            .with("recovery_target_action", "promote");
        must_recover(&recovery_of(lab, &first, settings)?, &before)
    })
}
