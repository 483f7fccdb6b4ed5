//! The base backup target: what the stock `pg_basebackup` makes with it, and what is left of what it does not finish.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use lab::{ArchiveDir, Cluster, Lab, Mark, Settings, Shutdown, run, scenario};

const PARAMETER: &str = "backup_to_directory.directory";

/// A page of a relation, bytes.
const PAGE: u64 = 8192;

fn settings(lab: &Lab, kept: &ArchiveDir) -> Result<Settings> {
    lab.require_library("backup_to_directory")?;
    Ok(lab
        .settings()
        .with("shared_preload_libraries", "backup_to_directory")
        .with(PARAMETER, &kept.text()))
}

/// A server of what was kept, up and no longer in recovery.
fn revived<'lab>(
    lab: &'lab Lab,
    name: &str,
    folder: &Path,
    settings: Settings,
) -> Result<Cluster<'lab>> {
    let data = lab.unpacked(&format!("{name}-unpacked"), folder)?;
    let revived = lab.restored(name, &data, settings)?;
    revived.start()?;
    revived.wait_until_promoted()?;
    Ok(revived)
}

#[test]
fn a_backup_with_its_wal_is_a_server_again_tablespaces_included() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        let server = lab.primary("primary", 1, settings(lab, &kept)?)?;
        let place = lab.directory("tablespace")?;
        server.sql(&format!(
            "create tablespace elsewhere location '{}'",
            place.display()
        ))?;
        server.sql(
            "create table elsewhere tablespace elsewhere as select generate_series(1, 1000) n",
        )?;
        server.write_segments(1..=3)?;
        for target in ["directory:one", "directory:two"] {
            server.back_up_to(target)?.success()?;
        }
        assert_eq!(kept.keys()?, ["one", "two"]);
        let contents = server.contents()?;
        server.stop(Shutdown::Immediate)?;
        let folder = kept.path().join("two");
        let revived = revived(lab, "revived", &folder, lab.settings())?;
        assert_eq!(revived.contents()?, contents);
        let there = revived.sql(
            "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'elsewhere'",
        )?;
        assert!(there.contains("revived-unpacked"), "{there}");
        Ok(())
    })
}

#[test]
fn a_backup_without_wal_comes_up_with_that_of_the_archive() -> Result<()> {
    scenario(|lab| {
        let (kept, archive) = (lab.archive("kept")?, lab.archive("archive")?);
        lab.require_library("thirty_lines")?;
        let settings = settings(lab, &kept)?
            .with("archive_mode", "on")
            .with("archive_library", "thirty_lines")
            .with("thirty_lines.directory", &archive.text());
        let server = lab.primary("primary", 1, settings)?;
        server.write_segments(1..=2)?;
        run(server.backup_command("directory:a").args(["-X", "none"]))?.success()?;
        server.write_segments(3..=4)?;
        let contents = server.contents()?;
        server.archive_everything()?;
        server.stop(Shutdown::Immediate)?;
        let data = lab.unpacked("unpacked", &kept.path().join("a"))?;
        let cp = format!("cp {}/%f %p", archive.text());
        let recovered = lab.restored(
            "recovered",
            &data,
            lab.settings().with("restore_command", &cp),
        )?;
        recovered.touch("recovery.signal")?;
        recovered.start()?;
        recovered.wait_until_promoted()?;
        assert_eq!(recovered.contents()?, contents);
        Ok(())
    })
}

#[test]
fn a_name_that_is_taken_or_is_none_is_refused_and_what_is_there_stays() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        let server = lab.primary("primary", 1, settings(lab, &kept)?)?;
        server.back_up_to("directory:a")?.success()?;
        let before = std::fs::read(kept.path().join("a/backup_manifest"))?;
        for (target, said) in [
            ("directory:a", "/a\" is there already"),
            ("directory", "cannot be the name of a backup"),
            ("directory:../a", "cannot be the name of a backup"),
        ] {
            let refused = server.back_up_to(target)?;
            assert!(
                !refused.status.success() && refused.stderr.contains(said),
                "{target}: {}",
                refused.stderr
            );
        }
        let inside = server.data().join("base");
        for (directory, said) in [
            ("/nowhere", "could not look into \"/nowhere\": No such file"),
            ("pg_wal", "is not absolute"),
            (&inside.display().to_string(), "lies in the data directory"),
        ] {
            server.reload(|settings| settings.set(PARAMETER, directory))?;
            server.wait_for_sql(&format!("show {PARAMETER}"), directory)?;
            let refused = server.back_up_to("directory:b")?;
            assert!(
                !refused.status.success() && refused.stderr.contains(said),
                "{directory}: {}",
                refused.stderr
            );
            assert!(!inside.join("b").exists(), "{directory}");
        }
        assert_eq!(kept.keys()?, ["a"], "something is left behind");
        assert_eq!(
            std::fs::read(kept.path().join("a/backup_manifest"))?,
            before
        );
        Ok(())
    })
}

#[test]
fn of_two_under_one_name_the_first_to_end_has_it_and_the_other_fails() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        // The checkpoint of the second one must not recycle what the first one fetches.
        let settings = settings(lab, &kept)?.with("wal_keep_size", "64MB");
        let server = lab.primary("primary", 1, settings)?;
        let mut slow = server.backup_command("directory:a");
        slow.args(["-X", "fetch", "--max-rate=1M"]);
        let (slow, quick) = thread::scope(|scope| {
            let slow = scope.spawn(move || run(&mut slow));
            // It has looked whether the name is taken by then.
            server.wait_for_sql(
                "select count(*) from pg_stat_progress_basebackup where backup_streamed > 0",
                "1",
            )?;
            let quick = server.back_up_to("directory:a")?;
            anyhow::Ok((slow.join().ok().context("a thread panicked")??, quick))
        })?;
        quick.success()?;
        assert!(!slow.status.success(), "both have the name");
        assert!(
            slow.stderr.contains("could not name the backup"),
            "{}",
            slow.stderr
        );
        assert_eq!(kept.keys()?, ["a"], "something is left behind");
        lab.unpacked("unpacked", &kept.path().join("a"))?;
        Ok(())
    })
}

#[test]
fn a_page_with_a_wrong_checksum_leaves_no_backup_behind() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        let server = lab.primary("primary", 1, settings(lab, &kept)?)?;
        server.sql("create table damaged as select generate_series(1, 10000) n; checkpoint")?;
        let file = server.sql("select pg_relation_filepath('damaged')")?;
        let file = server.data().join(file);
        let sound = std::fs::read(&file)?;
        let mut damaged = sound.clone();
        let at = usize::try_from(3 * PAGE + PAGE / 2)?;
        *damaged.get_mut(at).context("too short")? ^= 0x55;
        std::fs::write(&file, &damaged)?;
        let refused = server.back_up_to("directory:a")?;
        assert!(!refused.status.success(), "{}", refused.stderr);
        assert!(refused.stderr.contains("checksum"), "{}", refused.stderr);
        assert_eq!(kept.keys()?, Vec::<String>::new());
        std::fs::write(&file, &sound)?;
        server.back_up_to("directory:a")?.success()?;
        assert_eq!(kept.keys()?, ["a"]);
        Ok(())
    })
}

#[test]
fn what_the_server_has_compressed_is_refused_with_the_cure() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        let server = lab.primary("primary", 1, settings(lab, &kept)?)?;
        let mut command = server.backup_command("directory:packed");
        command.args(["-X", "fetch", "--compress=server-gzip:level=1"]);
        let refused = run(&mut command)?;
        assert!(!refused.status.success(), "the client believes it");
        for said in [
            "\"base.tar.gz\" has been compressed by the server",
            "HINT:  Leave out --compress",
        ] {
            assert!(refused.stderr.contains(said), "{}", refused.stderr);
        }
        assert_eq!(kept.keys()?, Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn a_server_without_the_library_does_not_know_the_target() -> Result<()> {
    scenario(|lab| {
        let kept = lab.archive("kept")?;
        let settings = settings(lab, &kept)?.without("shared_preload_libraries");
        let server = lab.primary("primary", 1, settings.without(PARAMETER))?;
        let refused = server.back_up_to("directory:a")?;
        assert!(
            refused
                .stderr
                .contains("unrecognized target: \"directory\""),
            "{}",
            refused.stderr
        );
        assert!(server.logged(Mark::default(), &["PANIC"])?.is_empty());
        Ok(())
    })
}
