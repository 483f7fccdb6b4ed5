//! Walden under the simulation: its archive and its judge, as the recovery worker and the archiver have them.
//!
//! Guarantees the product's own crates, unchanged but for time, which does not pass here: a judge believes nothing that it saw
//! earlier, and waits for nothing.

use std::path::Path;
use std::time::Duration;

use archive::{Answer as Answered, Archive, Cancel, Compression, MissingSegment, Options};
use recovery::{Asker, Control, Judge, Patience, Phase, TargetTimeline};
use wal::{KeepFrom, SegmentSize, SystemIdentifier, TimelineId, WalFileName};

use crate::life::{Server, Signal};
use crate::restores::{Module, Offer, Shelf};
use crate::startup::{Answer, Ask, Goal};
use crate::{SEGMENT, SYSTEM};

/// What a process of a server has of Walden.
#[derive(Default)]
pub struct Walden {
    archive: Option<Archive>,
    judge: Judge,
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap_or(TimelineId::FIRST)
}

impl Walden {
    fn archive<'a>(open: &'a mut Option<Archive>, shelf: &Shelf) -> &'a Archive {
        open.get_or_insert_with(|| {
            let options = Options {
                compression: Compression::None,
                ..Options::default()
            };
            Archive::with_store(shelf.seen(), options)
        })
    }
}

/// The server as Walden sees it.
fn seen(server: &mut Server, goal: Goal) -> recovery::Server {
    let control = Control {
        checkpoint_timeline: timeline(server.control.timeline),
        min_recovery_timeline: TimelineId::new(server.control.min_timeline),
        segment_size: SegmentSize::new(SEGMENT).ok(),
    };
    recovery::Server {
        phase: match server.signal {
            Signal::None => Phase::Ending,
            Signal::Recovery => Phase::Targeted,
            Signal::Standby => Phase::Standby,
        },
        target: match goal {
            Goal::Latest => TargetTimeline::Latest,
            Goal::Current => TargetTimeline::Current,
            Goal::Number(number) => TargetTimeline::Number(timeline(number)),
        },
        control: Some(control),
        system: Some(SystemIdentifier(SYSTEM)),
        size: SegmentSize::new(SEGMENT).ok(),
        missing_segment: MissingSegment::Error,
        data_directory: server.files.settle().to_owned(),
    }
}

fn message(error: &archive::Error) -> String {
    error.to_string()
}

/// Asks, and answers what the host answers to an error.
fn ask(
    archive: &Archive,
    question: &recovery::Question,
    dest: &Path,
) -> Result<Answered, archive::Error> {
    let system = Some(SystemIdentifier(SYSTEM));
    match recovery::restore(archive, question, dest, system, &Cancel::new()) {
        Err(error) => question.failed(error).map(Answered::Absent),
        answered => answered,
    }
}

impl Module for Walden {
    fn begin(&mut self) {
        let nothing = Duration::ZERO;
        self.archive = None;
        self.judge = Judge::with_patience(Patience {
            settled_after: nothing,
            look_holds: nothing,
            presence_holds: nothing,
        });
    }

    fn restore(&mut self, shelf: &Shelf, server: &mut Server, ask_for: &Ask) -> Answer {
        let Ok(name) = ask_for.name.parse::<WalFileName>() else {
            return Answer::Absent;
        };
        let own = match name {
            WalFileName::TimelineHistory(_) => "RECOVERYHISTORY",
            _ => "RECOVERYXLOG",
        };
        let seen = seen(server, ask_for.goal);
        let dest = seen.pg_wal().join(own);
        drop(std::fs::remove_file(&dest));
        let archive = Walden::archive(&mut self.archive, shelf);
        let question = self.judge.ask(name, Asker::Recovery(seen));
        match ask(archive, &question, &dest) {
            Ok(Answered::Restored { .. }) => match std::fs::read(&dest) {
                Ok(contents) => Answer::Restored(contents),
                Err(why) => Answer::Unsure(format!("restored, and is not there: {why}")),
            },
            Ok(Answered::Absent(_)) => Answer::Absent,
            Err(error) => Answer::Unsure(message(&error)),
        }
    }

    fn archive(&mut self, shelf: &Shelf, server: &mut Server, offer: &Offer) -> Result<(), String> {
        let name = offer.name.as_str();
        let parsed = name
            .parse::<WalFileName>()
            .map_err(|error| error.to_string())?;
        let path = server.files.settle().join("pg_wal").join(name);
        let archive = Walden::archive(&mut self.archive, shelf);
        let system = Some(SystemIdentifier(SYSTEM));
        let put = archive.put_new(&parsed, &path, system, &Cancel::new());
        put.map(drop).map_err(|error| message(&error))
    }

    fn clean_up(&mut self, shelf: &Shelf, server: &mut Server, keep: &str) {
        // What the command does with %r: nothing in targeted recovery.
        if server.signal == Signal::Recovery {
            return;
        }
        let Ok(keep) = keep.parse::<KeepFrom>() else {
            return;
        };
        let archive = Walden::archive(&mut self.archive, shelf);
        drop(archive.clean_up(&keep, Some(SystemIdentifier(SYSTEM)), &Cancel::new()));
    }
}
