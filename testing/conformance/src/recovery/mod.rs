//! What a server relies on when it asks a recovery module for a file.

mod absence;
mod cleanup;
mod contents;
mod end;
mod hang;
mod kill;
mod scene;
mod standby;
mod watch;

use anyhow::{Result, bail};
use lab::{Lab, Mark};

use self::scene::{Answer, Asker, SMALL_MB, last_words, primary};
use crate::promise::Promise;
use crate::subject::{Library, Subject};

/// All of them, by theme.
pub(crate) const PROMISES: &[&[Promise]] = &[
    contents::PROMISES,
    absence::PROMISES,
    standby::PROMISES,
    hang::PROMISES,
    kill::PROMISES,
    cleanup::PROMISES,
    end::PROMISES,
];

/// Asks for a file that is there. Who does not bring it cannot be judged: more likely he is not configured.
pub(crate) fn first_look(subject: &Subject, lab: &Lab) -> Result<()> {
    let archive = lab.archive("recovery-archive")?;
    let primary = primary(subject, lab, &archive, "first-primary", SMALL_MB)?;
    let segment = primary.write_segments(1..=1)?.concat();
    primary.wait_until_archived()?;
    let asker = Asker::of(subject, lab, &archive)?;
    match asker.ask(&segment)? {
        Answer::Restored(_) | Answer::Nothing => Ok(()),
        // What the archive module has not stored is for its promises to say.
        Answer::Absent if !archive.has(&segment)? => Ok(()),
        other => bail!(
            "\"{}\" restores nothing ({other}): are its parameters given with --set? {}",
            subject.plan.recovery.as_ref().map_or("", Library::name),
            last_words(&asker.server, Mark::default())?
        ),
    }
}
