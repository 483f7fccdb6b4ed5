//! The module on the front page of the kit.

use anyhow::Result;
use lab::{Mark, scenario, wait_until};
use walden_examples_tests::{archive_and_lose, archiving, primary, recover};

const PARAMETER: &str = "thirty_lines.directory";

#[test]
fn the_thirty_line_module_archives_and_cp_restores() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let lost = archive_and_lose(lab, archiving(lab, "thirty_lines", PARAMETER, &archive)?)?;
        assert_eq!(archive.strangers()?, Vec::<String>::new());
        let cp = format!("cp {}/%f %p", archive.text());
        recover(lab, &lost, lab.settings().with("restore_command", &cp))?;
        Ok(())
    })
}

#[test]
fn the_thirty_line_module_starts_archiving_when_its_directory_is_set() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let settings = archiving(lab, "thirty_lines", PARAMETER, &archive)?;
        let server = primary(lab, settings.without(PARAMETER))?;
        let segments = server.write_segments(1..=2)?;
        server.wait_for_log(Mark::default(), &["\"thirty_lines.directory\" is not set"])?;
        assert_eq!(
            server.archive_failures()?,
            0,
            "not configured is no failure"
        );
        server.reload(|settings| settings.set(PARAMETER, &archive.text()))?;
        server.wait_until_archived()?;
        assert!(archive.has(&segments[0])? && archive.has(&segments[1])?);
        Ok(())
    })
}

#[test]
fn the_thirty_line_module_refuses_other_bytes_and_takes_the_same_again() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let server = primary(lab, archiving(lab, "thirty_lines", PARAMETER, &archive)?)?;
        let name = server.archive_everything()?;
        super::basic_archive::offered_again(&server, &name)?;
        assert_eq!(server.archive_failures()?, 0, "the same file was refused");

        let next = "00000001000000000000000F";
        std::fs::write(archive.path().join(next), "somebody else's")?;
        while server.switch_segment()?.as_str() < next {
            server.sql("insert into ledger select coalesce(max(entry), 0) + 1 from ledger")?;
        }
        wait_until("a counted failure", || Ok(server.archive_failures()? > 0))?;
        assert_eq!(
            std::fs::read(archive.path().join(next))?,
            b"somebody else's"
        );
        Ok(())
    })
}
