//! `walden map` draws what is in an archive, and a browser shows it.
//!
//! The page is opened in headless Chromium, and what is asserted is what the browser made of it, after its script has run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Lab, Shutdown, run, run_for, scenario};

use crate::common::{SMALL_MB, primary, recovery_settings, recovery_to, write};

/// A browser that starts on a busy machine takes its time.
const BROWSER: Duration = Duration::from_secs(120);

/// A name that is a page's worst.
const NAME: &str = "<img src=x onerror=alert(1)> & \"half\" of it";

/// Two timelines, with a base backup, restore points and a hole.
fn scene(lab: &Lab) -> Result<ArchiveDir> {
    let archive = lab.archive("archive")?;
    let primary = primary(lab, &archive, SMALL_MB)?;
    let backup = primary.base_backup("backup")?;
    primary.write_segments(1..=3)?;
    primary.sql(&format!("select pg_create_restore_point('{NAME}')"))?;
    primary.sql("select pg_create_restore_point('three')")?;
    let segments = primary.write_segments(4..=8)?;
    primary.wait_until_archived()?;
    primary.stop(Shutdown::Immediate)?;
    let recovered = recovery_to(lab, &backup, recovery_settings(lab, &archive)?, "three")?;
    recovered.start()?;
    recovered.wait_until_promoted()?;
    for entry in 11..=13 {
        write(&recovered, entry)?;
        recovered.switch_segment()?;
    }
    recovered.wait_until_archived()?;
    recovered.stop(Shutdown::Fast)?;
    let lost = segments.get(2).context("a segment")?;
    fs::remove_file(archive.stored(lost)?)?;
    Ok(archive)
}

fn map(lab: &Lab, archive: &ArchiveDir, flags: &[&str]) -> Result<String> {
    let mut command = lab.command("walden");
    command.args(["map", "-A"]).arg(archive.path());
    command.arg("--index").arg(lab.dir().join("index.jsonl"));
    run(command.env("LC_ALL", "C.UTF-8").args(flags))?.success()
}

/// The page as the browser has it once its scripts have run. No sandbox: the page is ours, and containers have none.
fn dom(lab: &Lab, page: &Path) -> Result<String> {
    let mut command = lab.command("chromium");
    let profile = lab.dir().join("profile");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("file://{}", page.display()));
    run_for(&mut command, BROWSER)?
        .success()
        .context("no page from chromium (`make prerequisites` installs it)")
}

#[test]
fn a_browser_shows_the_timelines_with_their_marks_and_runs_nothing_out_of_wal() -> Result<()> {
    scenario(|lab| {
        let archive = scene(lab)?;
        let path = lab.dir().join("map.html");
        map(lab, &archive, &["-o", path.to_str().context("a path")?])?;
        // What is put behind the page's own script plays the reader, and counts what there is.
        let page = fs::read_to_string(&path)?;
        let played = lab.dir().join("played.html");
        let reader = "<script>document.body.append('ran all the same')</script>
            <script nonce=reader>
            const all = [...document.querySelectorAll('svg .seen')];
            const hole = all.find((seen) => seen.getAttribute('aria-label').includes('missing'));
            hole.focus();
            const has = (what) => document.querySelectorAll(what).length;
            const said = document.createElement('pre');
            said.textContent = [
              `lanes ${has('svg .lane')}`, `holes ${has('figure .chart .hole-ground')}`,
              `backups ${has('figure .chart .backup')}`, `points ${has('figure .chart .point')}`,
              `switches ${has('figure .chart .switch')}`, `images ${has('img')}`, `scripts ${has('script')}`,
              `tables ${has('table')}`, `focus ${document.activeElement === hole}`,
              `width ${document.documentElement.scrollWidth <= window.innerWidth}`,
              `requests ${performance.getEntriesByType('resource').length}`,
            ].join('\\n');
            document.body.append(said);
            </script>\n</body>";
        // Its policy lets nobody else's script run, so it has to let this one.
        let policy = page.replace("script-src '", "script-src 'nonce-reader' '");
        ensure!(policy != page, "the page has no policy: {page}");
        fs::write(&played, policy.replace("</body>", reader))?;
        let dom = dom(lab, &played)?;
        let ran = dom.matches("ran all the same").count();
        ensure!(
            ran == 1,
            "a script that is not the page's own has run: {dom}"
        );
        for expected in [
            "lanes 2",
            "holes 1",
            "backups 1",
            "switches 1",
            "images 0",
            // The page's own, one that must not run, and the reader.
            "scripts 3",
            "tables 4",
            "focus true",
            "aria-live=\"polite\">timeline 1: segment",
            "width true",
            "requests 0",
            "&lt;img src=x onerror=alert(1)&gt; &amp;",
            "timeline 2 left 1 at",
        ] {
            ensure!(dom.contains(expected), "{expected:?} is not in {dom}");
        }
        Ok(())
    })
}

#[test]
fn a_terminal_shows_the_same_in_blocks() -> Result<()> {
    scenario(|lab| {
        let archive = scene(lab)?;
        let drawn = map(lab, &archive, &[])?;
        let lines: Vec<&str> = drawn.lines().collect();
        for (start, signs) in [("1 ", "╳"), ("2 ", "▁▂▃▄▅▆▇█")] {
            let lane = lines.iter().find(|line| line.starts_with(start));
            ensure!(
                lane.is_some_and(|lane| lane.contains(|sign| signs.contains(sign))),
                "none of {signs} on {start:?} in {drawn}"
            );
        }
        for part in [
            "is missing",
            "timeline 2 left 1 at",
            "base backup \"pg_basebackup base backup\"",
            "◆ timeline 1: restore point",
        ] {
            ensure!(drawn.contains(part), "{part:?} is not in {drawn}");
        }
        Ok(())
    })
}
