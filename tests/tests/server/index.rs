//! What `walden targets` learns of an archive: all of it, once.
//!
//! An index must never change an answer: what is said with one is compared with what is said without.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lab::{ArchiveDir, Cluster, Lab, Outcome, run, scenario};
use serde_json::Value;

use crate::common::{SMALL_MB, primary_with};

/// An archive that `pg_waldump` reads as it stands, and its server.
fn scene<'lab>(lab: &'lab Lab, archive: &ArchiveDir) -> Result<Cluster<'lab>> {
    let settings = lab.walden_settings(archive)?;
    primary_with(lab, SMALL_MB, settings.with("walden.compression", "none"))
}

struct Asking<'a> {
    lab: &'a Lab,
    archive: &'a ArchiveDir,
    index: PathBuf,
}

impl Asking<'_> {
    fn ask(&self, index: &str) -> Result<Outcome> {
        let mut command = self.lab.command("walden");
        command
            .args(["targets", "--json", "-v", "-A"])
            .arg(self.archive.path());
        run(command.arg("--index").arg(self.lab.dir().join(index)))
    }

    /// How many files had to be read, and what was said, which is the same without the index.
    fn read(&self) -> Result<(u64, Value)> {
        let outcome = self.ask(self.index.to_str().context("a path")?)?;
        let stderr = outcome.stderr.clone();
        let with: Value = serde_json::from_str(&outcome.success()?)?;
        let count = stderr
            .split_whitespace()
            .skip_while(|word| *word != "read")
            .nth(1);
        let count = count.context("a count")?.parse()?;
        let fresh = self.lab.dir().join("fresh.jsonl");
        let without: Value = serde_json::from_str(&self.ask("fresh.jsonl")?.success()?)?;
        fs::remove_file(fresh)?;
        ensure!(with == without, "with an index {with}, without {without}");
        Ok((count, with))
    }
}

#[test]
fn the_second_call_reads_what_is_new_and_a_damaged_index_is_made_anew() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = scene(lab, &archive)?;
        primary.base_backup("backup")?;
        let segments = primary.write_segments(1..=6)?;
        primary.wait_until_archived()?;
        let index = lab.dir().join("deep/index.jsonl");
        let asking = Asking {
            lab,
            archive: &archive,
            index: index.clone(),
        };
        let (first, _) = asking.read()?;
        ensure!(first > 6, "{first} files were read");
        assert_eq!(asking.read()?.0, 0);

        // The new ones, and the one before them, to see that they follow it.
        primary.write_segments(7..=8)?;
        primary.wait_until_archived()?;
        assert_eq!(asking.read()?.0, 3);

        // As an interrupted call leaves it, and with a damaged line.
        let whole = fs::read(&index)?;
        let second = whole.iter().position(|byte| *byte == b'\n');
        let second = second.context("a second line")? + 1;
        for is_damaged in [false, true] {
            let mut left = whole[..whole.len() / 2].to_vec();
            if is_damaged {
                left[second] = b'x';
            }
            fs::write(&index, left)?;
            let outcome = asking.ask("deep/index.jsonl")?;
            let is_told = outcome.stderr.contains("is damaged at line 2");
            ensure!(is_told == is_damaged, "{}", outcome.stderr);
            assert_eq!(asking.read()?.0, 0);
        }

        // Another object under the same name is read, and said to be of no use.
        let rotten = archive.stored(&segments[3])?;
        let mut bytes = fs::read(&rotten)?;
        bytes[100] ^= 1;
        fs::write(&rotten, bytes)?;
        let (read, said) = asking.read()?;
        ensure!((1..=2).contains(&read), "{read} files were read");
        assert_eq!(
            said["timelines"][0]["holes"][0]["first_segment"],
            segments[3].as_str()
        );

        let refused = asking.ask(archive.path().join("index").to_str().context("a path")?)?;
        ensure!(
            !refused.status.success() && refused.stderr.contains("would lie in the archive"),
            "{}",
            refused.stderr
        );
        Ok(())
    })
}

#[test]
fn every_commit_counts_once_also_those_that_go_over_the_end_of_a_segment() -> Result<()> {
    scenario(|lab| {
        let archive = lab.archive("archive")?;
        let primary = scene(lab, &archive)?;
        // Almost nothing but ends of transactions, so that ends of segments fall into them.
        primary.sql(
            "do $$ begin for number in 1..200000 loop perform pg_current_xact_id(); \
             if number % 7 = 0 then rollback; else commit; end if; end loop; end $$",
        )?;
        let last = primary.archive_everything()?;
        let index = lab.dir().join("index.jsonl");
        let asking = Asking {
            lab,
            archive: &archive,
            index: index.clone(),
        };
        let (_, said) = asking.read()?;
        let range = &said["timelines"][0]["ranges"][0];
        let first = range["first_segment"].as_str().context("a segment")?;
        assert_eq!(range["last_segment"], last.as_str());

        let mut dump = lab.command("pg_waldump");
        dump.args(["-r", "Transaction", "-p"])
            .arg(archive.path())
            .args([first, &last]);
        let dumped = run(&mut dump)?.stdout;
        let count = |what: &str| dumped.lines().filter(|line| line.contains(what)).count() as u64;
        assert_eq!(range["commits"], count("desc: COMMIT"));
        assert_eq!(range["aborts"], count("desc: ABORT"));
        let over = fs::read_to_string(&index)?
            .matches("\"transaction\":{")
            .count();
        ensure!(over > 0, "no transaction went over the end of a segment");
        Ok(())
    })
}
