//! Faults planted on purpose, around any module: each is one face of "absent" or "archived" said wrongly, or of a recovery that
//! is made impossible. A simulation that does not find them is blind.

use crate::files::Status;
use crate::ideal::remove_before;
use crate::life::{Server, Signal};
use crate::oracle;
use crate::restores::{Module, Offer, Refusal, Settings, Shelf, Storage};
use crate::startup::{Answer, Ask, Goal, Role};
use crate::timelines::{parse_history_name, parse_segment, segment_name};

/// What is wrong with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Hands over a segment of a timeline that the line has left.
    HandsOverBehindTheFork,
    /// Calls a history absent that later ones name, or stand above.
    ForgetsLaterHistories,
    /// Insists on a history that would only be copied.
    InsistsOnCopies,
    /// Takes any file in `pg_wal` for the server's own copy.
    BelievesPgWal,
    /// Takes a file under another suffix for no file.
    OverlooksOtherForms,
    /// Takes a listing that broke off for an empty one.
    BelievesBrokenListings,
    /// Archives behind another server's segment.
    ArchivesBehindOthers,
    /// Archives what is behind a segment that is refused.
    GoesOnBehindRefused,
    /// Acknowledges what is stored nowhere else.
    KeepsNothing,
    /// Cleans up in targeted recovery.
    CleansUpTooMuch,
    /// Takes an archive that is away for an empty one.
    TakesAwayForEmpty,
}

impl Fault {
    /// All of them: faces a to i, and two more.
    pub const ALL: [Fault; 11] = [
        Fault::HandsOverBehindTheFork,
        Fault::ForgetsLaterHistories,
        Fault::InsistsOnCopies,
        Fault::BelievesPgWal,
        Fault::OverlooksOtherForms,
        Fault::BelievesBrokenListings,
        Fault::ArchivesBehindOthers,
        Fault::GoesOnBehindRefused,
        Fault::KeepsNothing,
        Fault::CleansUpTooMuch,
        Fault::TakesAwayForEmpty,
    ];
}

fn next_of(name: &str) -> Option<String> {
    let (timeline, number) = parse_segment(name)?;
    Some(segment_name(timeline, number + 1))
}

/// A module with a fault.
pub struct Planted {
    pub fault: Fault,
    pub inner: Box<dyn Module>,
}

impl Planted {
    fn spoil(&self, shelf: &Shelf, server: &Server, ask: &Ask, answer: Answer) -> Answer {
        let is_unsure = matches!(answer, Answer::Unsure(_));
        let storage = shelf.storage();
        // In doubt although nothing is wrong with the archive: because of evidence.
        let is_evidence =
            is_unsure && storage == Storage::Sound && !shelf.kept.contains_key(&ask.name);
        let history = parse_history_name(&ask.name);
        match self.fault {
            Fault::HandsOverBehindTheFork => match (shelf.readable(&ask.name), &answer) {
                (_, Answer::Restored(_)) | (None, _) => answer,
                (Some(kept), _) if parse_segment(&ask.name).is_some() => {
                    Answer::Restored(kept.contents.to_vec())
                }
                _ => answer,
            },
            Fault::ForgetsLaterHistories if is_evidence && history.is_some() => Answer::Absent,
            Fault::InsistsOnCopies => {
                let is_lower =
                    matches!((ask.goal, history), (Goal::Number(goal), Some(own)) if own < goal);
                match answer {
                    Answer::Absent if is_lower && ask.role == Role::Copy => {
                        Answer::Unsure("it must have been there".to_owned())
                    }
                    answer => answer,
                }
            }
            Fault::BelievesPgWal if is_evidence && server.files.has(&ask.name) => Answer::Absent,
            Fault::OverlooksOtherForms if is_evidence => {
                let dotted = format!("{}.", ask.name);
                if shelf.kept.keys().any(|key| key.starts_with(&dotted)) {
                    Answer::Absent
                } else {
                    answer
                }
            }
            Fault::BelievesBrokenListings if storage == Storage::ListingsFail && is_unsure => {
                Answer::Absent
            }
            Fault::TakesAwayForEmpty
                if matches!(storage, Storage::Away | Storage::Unmounted) && is_unsure =>
            {
                Answer::Absent
            }
            _ => answer,
        }
    }
}

impl Module for Planted {
    fn begin(&mut self, settings: Settings) {
        self.inner.begin(settings);
    }

    fn restore(&mut self, shelf: &Shelf, server: &mut Server, ask: &Ask) -> Answer {
        let answer = self.inner.restore(shelf, server, ask);
        self.spoil(shelf, server, ask, answer)
    }

    fn archive(
        &mut self,
        shelf: &Shelf,
        server: &mut Server,
        offer: &Offer,
    ) -> Result<(), Refusal> {
        if self.fault == Fault::KeepsNothing && shelf.storage() == Storage::Unmounted {
            return Ok(());
        }
        let answer = self.inner.archive(shelf, server, offer);
        let is_behind = self.fault == Fault::ArchivesBehindOthers
            && answer.is_err()
            && shelf.storage() == Storage::Sound
            && shelf.raw(&offer.name).is_none()
            && oracle::judge_archived(shelf, server, offer).is_some();
        if is_behind && let Some(contents) = server.contents(&offer.name) {
            shelf.store.overwrite(&offer.name, &contents);
            return Ok(());
        }
        if self.fault == Fault::GoesOnBehindRefused
            && answer.as_ref().is_err_and(|refusal| !refusal.may_pass)
            && let Some(next) = next_of(&offer.name)
            && server.files.status(&next) == Some(Status::Ready)
            && shelf.raw(&next).is_none()
            && let Some(contents) = server.contents(&next)
        {
            shelf.store.overwrite(&next, &contents);
        }
        answer
    }

    fn clean_up(&mut self, shelf: &Shelf, server: &mut Server, keep: &str) {
        if self.fault == Fault::CleansUpTooMuch && server.signal == Signal::Recovery {
            remove_before(shelf, keep)
        } else {
            self.inner.clean_up(shelf, server, keep)
        }
    }
}
