//! From a request to an answer: a [`Judge`] remembers what one server asked for, a [`Question`] is one request under its rules.
//!
//! A question goes with a request to the thread that asks the archive ([`archive::Rule`]), and gathers there what
//! [`crate::table`] decides by. What a standby asks again and again is looked at thoroughly once a minute.
//!
//! Guarantees that "absent" is said only after the archive has proven to be there, behind every look at it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use archive::{
    Archive, Cancel, Clock, Error, ErrorKind, Evidence, NotStored, Notice, Rule, SegmentEvidence,
    SoughtSegment,
};
use wal::{Lsn, ReadError, SegmentName, SegmentReader, SystemIdentifier, TimelineId, WalFileName};

use crate::line::{Line, Requests};
use crate::own::{self, Own};
use crate::phase::Phase;
use crate::server::{Asker, Server};
use crate::table::{self, HistoryFound, Role, SegmentFound, Verdict};
use crate::words;

/// How many files are remembered for that: a standby asks for one on each timeline of its line, and for the next history.
const REMEMBERED_MAX: usize = 32;

/// How long evidence must have been there before it counts: an archive to which several files go at once has a later one before
/// an earlier one for a moment, and that is no trouble.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// How long a thorough look holds for a standby, which asks every few seconds and does not end over the answer.
const LOOK_HOLDS: Duration = Duration::from_secs(60);

/// How long an archive that has proven to be there counts as there for a standby, which asks for a segment and for the next
/// timeline in one go.
const PRESENCE_HOLDS: Duration = Duration::from_secs(1);

/// How much of a segment is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What one server has asked for so far. One for each server, as long as it recovers.
#[derive(Debug, Default)]
pub struct Judge {
    requests: Requests,
    looks: Arc<Looks>,
}

impl Judge {
    /// Nothing has been asked for yet.
    #[must_use]
    pub fn new() -> Judge {
        Judge::default()
    }

    /// The same by another clock: for tests and simulations.
    #[must_use]
    pub fn by_clock(clock: Clock) -> Judge {
        let looks = Looks {
            clock,
            ..Looks::default()
        };
        Judge {
            looks: Arc::new(looks),
            ..Judge::default()
        }
    }

    /// A request. Every request of recovery has to pass here, in order: from it the next one's line is known.
    pub fn ask(&mut self, name: WalFileName, asker: Asker) -> Question {
        let line = match (&asker, &name) {
            (Asker::Recovery(server), WalFileName::Segment(segment)) => {
                self.requests.segment(server, segment)
            }
            (Asker::Recovery(_), _) => {
                self.requests.history();
                Line::GoesOn
            }
            (Asker::Other, _) => Line::GoesOn,
        };
        Question {
            name,
            asker,
            line,
            looks: Arc::clone(&self.looks),
            own: OnceLock::new(),
            has_looked: AtomicBool::new(false),
            is_judged: AtomicBool::new(false),
        }
    }

    /// Forgets all requests: recovery has ended.
    pub fn forget(&mut self) {
        *self = Judge::by_clock(self.looks.clock.clone());
    }
}

/// One request, under its rules. It may be asked by any thread.
#[derive(Debug)]
pub struct Question {
    name: WalFileName,
    asker: Asker,
    line: Line,
    looks: Arc<Looks>,
    /// What the server has of the segment, once it was looked at.
    own: OnceLock<Own>,
    /// Evidence against its absence was there once.
    has_looked: AtomicBool,
    /// The last failure was what was found in the archive, and not trouble with it.
    is_judged: AtomicBool,
}

impl Question {
    /// Whether the file is absent whatever the archive holds: the history of timeline 1 is never written, and the end of a
    /// recovery must not depend on an archive that cannot be reached.
    #[must_use]
    pub fn is_never_written(&self) -> bool {
        self.name.is_never_written()
    }

    /// Name of the file that was asked for.
    #[must_use]
    pub fn name(&self) -> &WalFileName {
        &self.name
    }

    /// Whose WAL it must be, if that is known.
    #[must_use]
    pub fn system(&self) -> Option<SystemIdentifier> {
        match &self.asker {
            Asker::Recovery(server) => server.system,
            Asker::Other => None,
        }
    }

    /// Whether the server has the whole file itself, in `pg_wal`, and takes it after "absent". Looked at once.
    pub fn has_own(&self) -> bool {
        let Asker::Recovery(server) = &self.asker else {
            return false;
        };
        match &self.name {
            WalFileName::Segment(segment) => self.own(server, *segment) == Own::Whole,
            WalFileName::TimelineHistory(timeline) => server.keeps_history(*timeline),
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => false,
        }
    }

    /// What to answer when the archive could not be made sure of: absent with a notice, where the server must not stop over it;
    /// else the error again.
    ///
    /// Fails with the same error.
    pub fn failed(&self, error: Error) -> Result<Vec<Notice>, Error> {
        let Asker::Recovery(server) = &self.asker else {
            return Err(error);
        };
        if error.kind() == ErrorKind::Cancelled || self.is_judged.load(Ordering::Relaxed) {
            return Err(error);
        }
        let verdict = match &self.name {
            WalFileName::Segment(segment) => {
                let own = self.own(server, *segment);
                table::segment(
                    server.phase,
                    SegmentFound::Unsure,
                    own,
                    server.missing_segment,
                )
            }
            WalFileName::TimelineHistory(timeline) => {
                let is_kept = server.keeps_history(*timeline);
                let role = self.role(server, *timeline);
                table::history(server.phase, role, HistoryFound::Unsure, is_kept)
            }
            WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => Verdict::CouldNotTell,
        };
        match verdict {
            Verdict::Absent | Verdict::AbsentWithWarning => {
                Ok(vec![words::unsure(&self.name, &error, self.has_own())])
            }
            Verdict::CouldNotTell => Err(error),
        }
    }

    /// An error that says what was found in the archive.
    fn judged(&self, error: Error) -> Error {
        self.is_judged.store(true, Ordering::Relaxed);
        error
    }

    fn own(&self, server: &Server, segment: SegmentName) -> Own {
        let look = || own::Copy::of(server, segment).map_or(Own::Nothing, |copy| copy.extent());
        *self.own.get_or_init(look)
    }

    fn role(&self, server: &Server, timeline: TimelineId) -> Role {
        Role::of(timeline, server.phase, server.target, server.control)
    }

    fn segment_not_stored(
        &self,
        server: &Server,
        segment: SegmentName,
        archive: &Archive,
        cancel: &Cancel,
    ) -> Result<NotStored, Error> {
        let is_fork = self.line.newest().is_some();
        let again = server.phase == Phase::Standby;
        let recent = self.looks.recent(archive, &self.name).filter(|_| again);
        let seen = match recent {
            Some(Some(evidence)) => SegmentEvidence {
                against: Some(evidence),
                ..SegmentEvidence::default()
            },
            // Nothing spoke against it a moment ago, and nothing new does.
            Some(None) if archive.ends_before(&segment)? => SegmentEvidence::default(),
            _ => archive.segment_evidence(&SoughtSegment {
                segment,
                size: server.size,
                is_fork,
                at_hand: &server.kept_histories(),
            })?,
        };
        if seen.is_stored {
            return Ok(NotStored::LookAgain);
        }
        self.looks.prove_present(archive, false)?;
        let Some(evidence) = seen.against else {
            self.looks.remember(archive, &self.name, again, None);
            return self.at_fork(server, segment, seen.has_partial, archive);
        };
        let own = self.own(server, segment);
        let verdict = table::segment(
            server.phase,
            SegmentFound::Missing,
            own,
            server.missing_segment,
        );
        if verdict == Verdict::Absent {
            return Ok(NotStored::Absent(Vec::new()));
        }
        if self.must_settle(archive, again) && self.looks.clock.wait(cancel, SETTLED_AFTER) {
            return Ok(NotStored::LookAgain);
        }
        self.looks
            .remember(archive, &self.name, again, Some(&evidence));
        match verdict {
            Verdict::CouldNotTell => Err(self.judged(words::segment_missing(&segment, &evidence))),
            _ => Ok(NotStored::Absent(vec![words::ends_at_missing(
                &segment, &evidence,
            )])),
        }
    }

    /// Nothing speaks against the segment's absence. Where the line leaves its timeline there, it is worth a word.
    fn at_fork(
        &self,
        server: &Server,
        segment: SegmentName,
        has_partial: bool,
        archive: &Archive,
    ) -> Result<NotStored, Error> {
        let found = match self.line {
            Line::GoesOn => SegmentFound::NotStored,
            Line::Asked(_) | Line::Read(_) => SegmentFound::NotStoredAtFork,
        };
        let own = self.own(server, segment);
        let verdict = table::segment(server.phase, found, own, server.missing_segment);
        if verdict != Verdict::AbsentWithWarning {
            return Ok(NotStored::Absent(Vec::new()));
        }
        let left = self.line.left(segment.timeline(), server, archive)?;
        let notice = left.map(|left| words::fork_not_stored(&segment, left, has_partial));
        Ok(NotStored::Absent(notice.into_iter().collect()))
    }

    fn history_not_stored(
        &self,
        server: &Server,
        timeline: TimelineId,
        archive: &Archive,
        cancel: &Cancel,
    ) -> Result<NotStored, Error> {
        let role = self.role(server, timeline);
        let is_kept = server.keeps_history(timeline);
        let verdict = |found| table::history(server.phase, role, found, is_kept);
        let again = server.phase == Phase::Standby;
        let recent = self.looks.recent(archive, &self.name).filter(|_| again);
        let evidence = match (verdict(HistoryFound::Missing), recent) {
            // Whatever there is, it may be called absent.
            (Verdict::Absent | Verdict::AbsentWithWarning, _) => None,
            (Verdict::CouldNotTell, Some(evidence)) => evidence,
            (Verdict::CouldNotTell, None) => {
                let for_latest = role == Role::Probe { for_latest: true };
                let evidence = archive.history_evidence(timeline, for_latest)?;
                if evidence.is_some()
                    && self.must_settle(archive, again)
                    && self.looks.clock.wait(cancel, SETTLED_AFTER)
                {
                    return Ok(NotStored::LookAgain);
                }
                self.looks
                    .remember(archive, &self.name, again, evidence.as_ref());
                evidence
            }
        };
        self.looks.prove_present(archive, again)?;
        match evidence {
            None => Ok(NotStored::Absent(Vec::new())),
            Some(evidence) => Err(self.judged(words::history_missing(timeline, &evidence))),
        }
    }

    /// Whether evidence that has just been seen is to be looked at once more: it may be about to vanish.
    fn must_settle(&self, archive: &Archive, again: bool) -> bool {
        let was_there = again
            && self
                .looks
                .recent(archive, &self.name)
                .is_some_and(|it| it.is_some());
        !was_there && !self.has_looked.swap(true, Ordering::Relaxed)
    }

    fn not_packed(&self, archive: &Archive) -> Result<NotStored, Error> {
        let packed = archive.packed(&self.name)?;
        archive.prove_present()?;
        match packed {
            None => Ok(NotStored::Absent(Vec::new())),
            Some(key) => Err(self.judged(words::packed(&self.name, &Evidence::Packed(key)))),
        }
    }

    /// The segment's WAL behind the place where the line left its timeline, if there is any.
    fn behind_fork(
        &self,
        segment: SegmentName,
        left: Lsn,
        contents: &mut dyn Read,
    ) -> Result<Option<Lsn>, Error> {
        let mut reader = SegmentReader::new(segment);
        let mut behind = None;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let bytes = contents
                .read(&mut piece)
                .map_err(|cause| Error::io(format!("could not read \"{segment}\""), cause))?;
            let now = piece.get(..bytes).unwrap_or_default();
            let fed = reader.feed(now, |record| {
                if record.lsn >= left && behind.is_none() {
                    behind = Some(record.lsn);
                }
            });
            match fed {
                _ if behind.is_some() => return Ok(behind),
                Ok(()) if bytes == 0 => return Ok(None),
                Ok(()) => {}
                // What cannot be read here cannot be replayed either: the server says so.
                Err(ReadError::Header(_)) => return Ok(None),
                Err(cause) => return Err(words::unreadable(&segment, &cause)),
            }
        }
    }
}

impl Rule for Question {
    fn examines(&self) -> bool {
        matches!(self.name, WalFileName::Segment(_)) && self.line.newest().is_some()
    }

    fn stored(
        &self,
        archive: &Archive,
        contents: &mut dyn Read,
    ) -> Result<Option<Vec<Notice>>, Error> {
        self.is_judged.store(false, Ordering::Relaxed);
        let (Asker::Recovery(server), WalFileName::Segment(segment)) = (&self.asker, self.name)
        else {
            return Ok(None);
        };
        let (Some(newest), Some(left)) = (
            self.line.newest(),
            self.line.left(segment.timeline(), server, archive)?,
        ) else {
            return Ok(None);
        };
        let Some(at) = self.behind_fork(segment, left, contents)? else {
            return Ok(None);
        };
        let own = self.own(server, segment);
        let verdict = table::segment(
            server.phase,
            SegmentFound::BehindFork,
            own,
            server.missing_segment,
        );
        let fork = words::Fork {
            segment,
            newest,
            left,
            at,
        };
        match verdict {
            Verdict::CouldNotTell => Err(self.judged(fork.refused())),
            _ => Ok(Some(vec![fork.withheld()])),
        }
    }

    fn not_stored(&self, archive: &Archive, cancel: &Cancel) -> Result<NotStored, Error> {
        self.is_judged.store(false, Ordering::Relaxed);
        match (&self.asker, self.name) {
            (Asker::Recovery(server), WalFileName::Segment(segment)) => {
                self.segment_not_stored(server, segment, archive, cancel)
            }
            (Asker::Recovery(server), WalFileName::TimelineHistory(timeline)) => {
                self.history_not_stored(server, timeline, archive, cancel)
            }
            // Who wants one file draws no conclusions; that it is there in another form is worth an error all the same.
            (Asker::Recovery(_) | Asker::Other, _) => self.not_packed(archive),
        }
    }
}

/// What looks have shown lately.
#[derive(Debug, Default)]
struct Looks {
    clock: Clock,
    thorough: Mutex<Vec<Look>>,
    /// Which archive was there, and when.
    present: Mutex<Option<(String, Instant)>>,
}

#[derive(Debug)]
struct Look {
    archive: String,
    name: WalFileName,
    at: Instant,
    evidence: Option<Evidence>,
}

impl Looks {
    /// See [`Archive::prove_present`]; what was proven a moment ago may do for a request that comes `again`.
    fn prove_present(&self, archive: &Archive, again: bool) -> Result<(), Error> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let place = archive.place();
        let was_there = present
            .as_ref()
            .is_some_and(|(there, at)| *there == place && self.clock.since(*at) < PRESENCE_HOLDS);
        if again && was_there {
            return Ok(());
        }
        *present = None;
        archive.prove_present()?;
        *present = Some((place, self.clock.now()));
        Ok(())
    }

    /// What a look at this file's absence has shown within the last minute.
    fn recent(&self, archive: &Archive, name: &WalFileName) -> Option<Option<Evidence>> {
        let looks = self.thorough.lock().unwrap_or_else(PoisonError::into_inner);
        let place = archive.place();
        let mut recent = looks
            .iter()
            .filter(|look| self.clock.since(look.at) < LOOK_HOLDS && look.archive == place);
        recent
            .find(|look| look.name == *name)
            .map(|look| look.evidence.clone())
    }

    /// Keeps what a look has shown, if it is for a request that comes `again`. One that is still recent keeps its time.
    fn remember(
        &self,
        archive: &Archive,
        name: &WalFileName,
        again: bool,
        evidence: Option<&Evidence>,
    ) {
        let is_known = self
            .recent(archive, name)
            .is_some_and(|known| known.as_ref() == evidence);
        if !again || is_known {
            return;
        }
        let mut looks = self.thorough.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|look| look.name != *name && self.clock.since(look.at) < LOOK_HOLDS);
        if looks.len() >= REMEMBERED_MAX {
            looks.remove(0);
        }
        looks.push(Look {
            archive: archive.place(),
            name: *name,
            at: self.clock.now(),
            evidence: evidence.cloned(),
        });
    }
}
