//! Slow and failing storage, seen by a program that knows nothing of it. Needs CAP_SYS_ADMIN, as it does.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Conditions, FailingStorage, wait_until};

const DELAY: Duration = Duration::from_millis(300);

fn cat(file: &Path) -> Result<Child> {
    let mut command = Command::new("cat");
    command
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command.spawn()?)
}

/// How long these take all together, begun at once; each has to succeed.
fn time_for(files: &[&Path]) -> Result<Duration> {
    let begun = Instant::now();
    let mut running = Vec::new();
    for file in files {
        running.push(cat(file)?);
    }
    for mut one in running {
        ensure!(one.wait()?.success(), "cat failed");
    }
    Ok(begun.elapsed())
}

#[test]
fn an_open_is_late_by_the_delay_and_ten_at_once_by_one_delay() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "x")?;
    let storage = FailingStorage::over(dir.path(), Conditions::default().delay(DELAY))?;
    let one = time_for(&[&file])?;
    assert!(one >= DELAY, "too early: {one:?}");
    let ten = time_for(&[file.as_path(); 10])?;
    assert!(ten >= DELAY && ten < DELAY * 5, "ten took {ten:?}");
    assert_eq!(storage.met(), (11, 0));
    // This process makes the trouble, and is not held by it.
    let begun = Instant::now();
    fs::read(&file)?;
    assert!(begun.elapsed() < DELAY);
    Ok(())
}

#[test]
fn the_same_seed_refuses_the_same_opens_and_another_seed_others() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let names: Vec<_> = (0..8)
        .map(|number| dir.path().join(format!("file{number}")))
        .collect();
    for file in &names {
        fs::write(file, "x")?;
    }
    let run = |seed| -> Result<Vec<bool>> {
        let _storage = FailingStorage::over(dir.path(), Conditions::default().fail(500, seed))?;
        let twice = names.iter().chain(&names);
        twice.map(|file| Ok(cat(file)?.wait()?.success())).collect()
    };
    let (first, again, other) = (run(1)?, run(1)?, run(2)?);
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
    Ok(())
}

#[test]
fn a_stall_holds_until_the_conditions_change_or_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "x")?;
    let stalled = Conditions::default().stall();
    let storage = FailingStorage::over(dir.path(), stalled)?;
    for is_dropped in [false, true] {
        let (seen, _) = storage.met();
        let mut held = cat(&file)?;
        wait_until("the open to be met", || Ok(storage.met().0 > seen))?;
        assert!(held.try_wait()?.is_none(), "it was not held");
        if is_dropped {
            drop(storage);
            assert!(held.wait()?.success());
            return Ok(());
        }
        storage.set(Conditions::default());
        assert!(held.wait()?.success());
        storage.set(stalled);
    }
    Ok(())
}

#[test]
fn a_stall_that_is_to_end_ends_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "x")?;
    let _storage = FailingStorage::over(dir.path(), Conditions::default().stall_for(DELAY))?;
    let (first, second) = (time_for(&[&file, &file])?, time_for(&[&file])?);
    assert!(first > DELAY / 2 && second < DELAY, "{first:?}, {second:?}");
    Ok(())
}

#[test]
fn only_files_that_are_asked_for_are_hit_and_files_without_a_name_can_be() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (hit, spared) = (dir.path().join("hit"), dir.path().join("spared"));
    fs::write(&hit, "x")?;
    fs::write(&spared, "x")?;
    let refuse_all = Conditions::default().fail(1000, 0);
    let storage = FailingStorage::over_files(dir.path(), |name| name == "hit", refuse_all)?;
    assert!(!cat(&hit)?.wait()?.success());
    assert!(cat(&spared)?.wait()?.success());
    drop(storage);

    let _storage =
        FailingStorage::over_files(dir.path(), |name| name.starts_with('#'), refuse_all)?;
    assert!(cat(&hit)?.wait()?.success());
    let open = "import os, sys; os.open(sys.argv[1], os.O_TMPFILE | os.O_RDWR)";
    let status = Command::new("python3")
        .args(["-c", open])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status()
        .context("python3 opens the file without a name")?;
    assert!(!status.success());
    Ok(())
}
