//! The same file offered again: equal bytes succeed, other bytes are refused.

use std::fs;

use anyhow::Result;
use lab::{Shutdown, scenario, wait_until};

use crate::common::{
    SMALL_MB, crash_before_the_notes, forget_the_note, primary, primary_with, write,
};

#[test]
fn a_file_published_before_a_crash_is_archived_again_with_success() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab.walden_settings(&archive)?.with("wal_keep_size", "64MB");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let segments = primary.write_segments(1..=3)?;
        primary.wait_until_archived()?;
        crash_before_the_notes(&primary, &archive, &segments)
    })
}

#[test]
fn a_file_archived_again_with_another_compression_succeeds_and_stays_as_it_was() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = lab.walden_settings(&archive)?.with("wal_keep_size", "64MB");
        let primary = primary_with(lab, SMALL_MB, settings)?;
        let segments = primary.write_segments(1..=1)?;
        primary.wait_until_archived()?;
        let stored = archive.stored(&segments[0])?;
        primary.stop(Shutdown::Immediate)?;
        forget_the_note(&primary, &segments[0])?;
        primary.configure(|settings| settings.set("walden.compression", "none"))?;
        primary.start()?;
        primary.wait_until_archived()?;
        assert_eq!(primary.archive_failures()?, 0);
        assert_eq!(archive.stored(&segments[0])?, stored);
        let copies = archive
            .segments()?
            .iter()
            .filter(|name| **name == segments[0])
            .count();
        assert_eq!(copies, 1);
        Ok(())
    })
}

#[test]
fn a_different_file_of_the_same_name_is_refused_counted_and_left_alone() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        write(&primary, 1)?;
        primary.archive_everything()?;

        // The segment as it is now, unfinished: its header is right and its end is another.
        write(&primary, 2)?;
        let name = primary.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        let planted = archive.path().join(&name);
        lab.copy(&primary.data().join("pg_wal").join(&name), &planted)?;
        let bytes = fs::read(&planted)?;
        write(&primary, 3)?;
        let mark = primary.mark()?;
        assert_eq!(primary.switch_segment()?, name);

        wait_until("a counted failure", || Ok(primary.archive_failures()? >= 1))?;
        assert_eq!(primary.archiver("last_failed_wal")?, name);
        let system = primary.sql("select system_identifier from pg_control_system()")?;
        let entry = primary.wait_for_log(mark, &["WARNING", &name, "differ"])?;
        // Which differs: each side with its system identifier, timeline and time.
        assert!(entry.text.matches(&system).count() >= 2, "{}", entry.text);
        assert!(entry.has(&["timeline"]), "{}", entry.text);
        assert_eq!(fs::read(&planted)?, bytes, "the archived file was touched");
        let copies = archive
            .segments()?
            .iter()
            .filter(|stored| **stored == name)
            .count();
        assert_eq!(copies, 1, "a second copy was stored: {:?}", archive.keys()?);

        // Once a human has looked and removed the wrong one, archiving goes on.
        fs::remove_file(&planted)?;
        write(&primary, 4)?;
        primary.archive_everything()?;
        assert_eq!(lab.fetch(&archive, &name)?.len(), 1024 * 1024);
        Ok(())
    })
}

#[test]
fn a_segment_stored_under_the_name_of_the_next_is_refused() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        write(&primary, 1)?;
        let stored = archive.stored(&primary.archive_everything()?)?;
        write(&primary, 2)?;
        let name = primary.sql("select pg_walfile_name(pg_current_wal_lsn())")?;
        let planted = archive.path().join(&name);
        lab.copy(&stored, &planted)?;
        let bytes = fs::read(&planted)?;
        let mark = primary.mark()?;
        primary.switch_segment()?;
        wait_until("a counted failure", || Ok(primary.archive_failures()? >= 1))?;
        primary.wait_for_log(mark, &["WARNING", &name])?;
        assert_eq!(fs::read(&planted)?, bytes);
        Ok(())
    })
}
