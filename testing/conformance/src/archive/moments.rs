//! Promises about the moments while a module works on a file.

use std::fs;

use anyhow::Result;
use lab::{ArchiveDir, Cluster, Lab, Process};

use super::bench::{
    PLANTED, Watch, archiver, drain, name_of, place_of, plant, stall_at_next, stored_bytes,
};
use crate::promise::{Evidence, Kind, Promise, hold};
use crate::stall::Held;
use crate::subject::Subject;

/// The size of the segments here.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// In the order of the report.
pub(crate) const PROMISES: &[Promise] = &[
    Promise {
        name: "nothing-overwritten-in-between",
        kind: Kind::Archive,
        says: "a file that appears in the archive while the module is at work is not overwritten",
        source: "manual, \"Setting Up WAL Archiving\" (15 to 18)",
        check: nothing_overwritten_in_between,
    },
    Promise {
        name: "visible-only-when-whole",
        kind: Kind::Archive,
        says: "a name in the archive never stands for a part of its file",
        source: "RestoreArchivedFile, xlogarchive.c (15 to 18): a file of another size ends a recovery",
        check: visible_only_when_whole,
    },
];

/// A moment in a module's work on a file.
#[derive(Clone, Copy)]
enum Moment {
    Opens,
    ReadsFirst,
    ReadsLast,
}

impl Moment {
    const ALL: [Moment; 3] = [Moment::Opens, Moment::ReadsFirst, Moment::ReadsLast];

    fn is_now(self, held: &Held) -> bool {
        match self {
            Moment::Opens => !held.reads(),
            Moment::ReadsFirst => held.reads(),
            Moment::ReadsLast => held.reads() && held.has_read(SEGMENT_BYTES),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Moment::Opens => "it opened the segment",
            Moment::ReadsFirst => "it began to read the segment",
            Moment::ReadsLast => "it had read the whole segment",
        }
    }
}

fn nothing_overwritten_in_between(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let (mut seen, mut never) = (Vec::new(), Vec::new());
    for (number, moment) in (1_u32..).zip(Moment::ALL) {
        let archive = lab.archive(&format!("archive-{number}"))?;
        let primary = lab.primary(
            &format!("primary-{number}"),
            1,
            subject.archiving(lab, &archive),
        )?;
        if planted_at(lab, &primary, &archive, moment)? {
            seen.push(moment.words());
        } else {
            never.push(moment.words());
        }
    }
    anyhow::ensure!(
        !seen.is_empty(),
        "the archiver was not seen to open the segment: a module that leaves its files to another process \
         cannot be held"
    );
    let mut evidence = format!(
        "a file of the segment's name was put there when {}: it was left alone, and the segment not called \
         archived",
        seen.join(", when ")
    );
    if !never.is_empty() {
        evidence.push_str(&format!(
            "; not seen in its work: that {}",
            never.join(", that ")
        ));
    }
    Ok(Evidence::Seen(evidence))
}

/// Puts a file into the archive at this moment; answers whether the moment came.
fn planted_at(lab: &Lab, primary: &Cluster, archive: &ArchiveDir, moment: Moment) -> Result<bool> {
    let by = archiver(primary)?;
    let mark = primary.mark()?;
    let first = primary.write_segments(1..=1)?.concat();
    drain(primary, mark, "the first segment was not archived")?;
    let watch = Watch::begin(primary)?;
    let (segment, stall) = stall_at_next(primary, &by, 2, true)?;
    // Under the name that the module itself would give it.
    let planted = place_of(archive, &first, &segment)?;
    loop {
        let Some(held) = stall.next(by.pid, || watch.answered())? else {
            return Ok(false);
        };
        if !moment.is_now(&held) {
            held.release()?;
            continue;
        }
        let name = name_of(&planted);
        if planted.exists() {
            // It was written under its own name at once: then nothing can appear there any more.
            held.release()?;
            return Ok(false);
        }
        plant(lab, &planted)?;
        held.release()?;
        // From here on it may read as it likes.
        drop(stall);
        watch.wait()?;
        let when = moment.words();
        hold(fs::read(&planted)? == PLANTED, || {
            format!(
                "\"{name}\" was put into the archive when {when}; afterwards it held other bytes"
            )
        })?;
        hold(!primary.ready()?.is_empty(), || {
            format!(
                "\"{name}\" was put into the archive, with other bytes, when {when}; {segment} was called \
                 archived"
            )
        })?;
        return Ok(true);
    }
}

fn visible_only_when_whole(subject: &Subject, lab: &Lab) -> Result<Evidence> {
    let archive = lab.archive("archive")?;
    let primary = subject.primary(lab, &archive, 1)?;
    let by: Process = archiver(&primary)?;
    let mark = primary.mark()?;
    let watch = Watch::begin(&primary)?;
    let (segment, stall) = stall_at_next(&primary, &by, 1, true)?;
    let (mut looks, mut early) = (0_u32, Vec::new());
    while let Some(held) = stall.next(by.pid, || watch.answered())? {
        looks += 1;
        early.extend(stored_bytes(&archive, &segment)?.map(|bytes| (looks, bytes)));
        held.release()?;
    }
    drop(stall);
    drain(&primary, mark, "the segment was not archived")?;
    anyhow::ensure!(
        looks > 0,
        "the archiver was not seen to open the segment: a module that leaves its files to another process \
         cannot be held"
    );
    let whole = stored_bytes(&archive, &segment)?;
    for (look, bytes) in early {
        hold(whole.as_ref() == Some(&bytes), || {
            format!(
                "at the module's step {look} of {looks} with {segment}, its name in the archive stood for {} \
                 bytes; at the end for {}",
                bytes.len(),
                whole.as_ref().map_or(0, Vec::len)
            )
        })?;
    }
    hold(whole.is_some(), || {
        format!("{segment} was called archived and is not in the archive")
    })?;
    Ok(Evidence::Seen(format!(
        "the module was held at each of {looks} steps (open, reads) with {segment}: no part of it was to be \
         seen under its name"
    )))
}
