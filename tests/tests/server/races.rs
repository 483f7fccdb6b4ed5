//! The worker starts beside the startup process and loses the race to the first request now and then.

use anyhow::Result;
use lab::{Shutdown, scenario};

use crate::common::{
    SMALL_MB, primary, recovery_settings, restored_since, standby, wait_for_entries,
};

/// Enough starts for a race that is lost in a few of a hundred.
const STARTS: u32 = 100;

#[test]
fn a_hundred_starts_of_a_standby_lose_no_request() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.write_segments(1..=3)?;
        primary.sql("checkpoint")?;
        primary.sql("insert into ledger(entry) values (4)")?;
        primary.archive_everything()?;
        let standby = standby(lab, "standby", &backup, recovery_settings(lab, &archive)?)?;
        wait_for_entries(&standby, 4)?;
        standby.sql("checkpoint")?;
        standby.stop(Shutdown::Fast)?;
        for start in 1..=STARTS {
            let mark = standby.mark()?;
            standby.start()?;
            // A lost first request would not be noticed by what is read: the segment is in pg_wal too.
            // So it must be the archive that the first segment comes from, and nothing may complain.
            let consistent = standby.wait_for_log(mark, &["consistent recovery state reached"])?;
            let log = standby.log(mark)?;
            let (beginning, _) = log
                .split_once(&consistent.text)
                .unwrap_or((log.as_str(), ""));
            assert!(
                beginning.contains("restored log file"),
                "start {start}:\n{log}"
            );
            for words in [
                ["WARNING"],
                ["FATAL"],
                ["ERROR"],
                ["walden:"],
                ["could not"],
            ] {
                let complaints = standby.logged(mark, &words)?;
                assert!(complaints.is_empty(), "start {start}: {complaints:?}");
            }
            assert!(!restored_since(&standby, mark)?.is_empty());
            standby.stop(Shutdown::Fast)?;
        }
        Ok(())
    })
}
