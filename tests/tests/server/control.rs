//! What Walden reads of a control file is what the server's own program says.

use anyhow::{Context, Result, ensure};
use lab::{Cluster, Lab, Shutdown, run, scenario};
use recovery::Control;

use crate::common::{SMALL_MB, primary, recovery_of, recovery_settings};

/// What pg_controldata says behind this label.
fn control_value(lab: &Lab, cluster: &Cluster<'_>, label: &str) -> Result<String> {
    let control = run(lab
        .server_command("pg_controldata")
        .arg("-D")
        .arg(cluster.data()))?
    .success()?;
    let line = control
        .lines()
        .find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
    Ok(line
        .with_context(|| format!("no \"{label}\" in {control}"))?
        .trim()
        .to_owned())
}

#[test]
fn timelines_and_segment_size_of_a_control_file_are_as_pg_controldata_says() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = primary(lab, &archive, SMALL_MB)?;
        let backup = primary.base_backup("backup")?;
        primary.archive_everything()?;
        primary.stop(Shutdown::Immediate)?;
        let promoted = recovery_of(lab, &backup, recovery_settings(lab, &archive)?)?;
        promoted.start()?;
        promoted.wait_until_promoted()?;
        promoted.sql("checkpoint")?;
        promoted.stop(Shutdown::Fast)?;
        for (cluster, timeline) in [(&primary, 1), (&promoted, 2)] {
            let control = Control::read(&cluster.data()).context("the control file")?;
            let said = |label| control_value(lab, cluster, label);
            let found = control.checkpoint_timeline.get();
            ensure!(found == timeline, "{found}");
            ensure!(said("Latest checkpoint's TimeLineID")? == found.to_string());
            let min_recovery = control.min_recovery_timeline.map_or(0, |it| it.get());
            ensure!(said("Min recovery ending loc's timeline")? == min_recovery.to_string());
            let size = control.segment_size.context("a segment size")?;
            ensure!(said("Bytes per WAL segment")? == size.bytes().to_string());
        }
        Ok(())
    })
}
