//! A server's data directory, an archive in memory, and the requests of one to the other.

use std::fs;
use std::sync::Arc;

use archive::{Answer, Archive, Cancel, Clock, Error, MemoryStore, MissingSegment, Options};
use fixtures::{SEGMENT, SYSTEM, Written};
use tempfile::TempDir;
use wal::{Lsn, SegmentSize, SystemIdentifier, TimelineId, WalFileName};

use crate::{Asker, Control, Judge, Phase, Question, Server, TargetTimeline, restore};

pub(super) struct Scene {
    pub(super) store: MemoryStore,
    pub(super) archive: Archive,
    pub(super) server: Server,
    pub(super) judge: Judge,
    pub(super) clock: Clock,
    /// Nothing is written there; the data directory is removed with it.
    _folder: TempDir,
}

/// What a request has come to, as a test compares it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Restored,
    Absent,
    /// Absent, with this said beside it.
    Warned(String),
    /// Could not tell, for this reason.
    Unsure(String),
}

impl Verdict {
    pub(super) fn is_unsure_of(&self, what: &str) -> bool {
        matches!(self, Verdict::Unsure(why) if why.contains(what))
    }

    pub(super) fn warns_of(&self, what: &str) -> bool {
        matches!(self, Verdict::Warned(why) if why.contains(what))
    }
}

pub(super) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// Where this much of segment `number` is written.
pub(super) fn within(number: u64, offset: u64) -> Lsn {
    Lsn(number * SEGMENT as u64 + offset)
}

impl Scene {
    pub(super) fn new(phase: Phase) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pg_wal")).unwrap();
        let (store, clock) = (MemoryStore::new(), Clock::given());
        Scene {
            archive: Archive::with_store(Box::new(store.clone()), Options::default()),
            store,
            server: Server {
                data_directory: folder.path().to_owned(),
                phase,
                target: TargetTimeline::Latest,
                control: Some(Control {
                    checkpoint_timeline: TimelineId::FIRST,
                    min_recovery_timeline: None,
                    segment_size: Some(SegmentSize::SMALLEST),
                }),
                system: Some(SystemIdentifier(SYSTEM)),
                size: Some(SegmentSize::SMALLEST),
                missing_segment: MissingSegment::Error,
            },
            judge: Judge::by_clock(clock.clone()),
            clock,
            _folder: folder,
        }
    }

    /// Timeline 1 from segment 5 to 9, all of it archived.
    pub(super) fn with_wal(self) -> Scene {
        for (name, bytes) in wal(9).segments(1) {
            self.store.overwrite(&name.to_string(), &bytes);
        }
        self
    }

    /// The history of a timeline that left these at these places.
    pub(super) fn history(&self, timeline: u32, left: &[(u32, Lsn)]) -> (String, String) {
        let name = WalFileName::TimelineHistory(super::scene::timeline(timeline)).to_string();
        let lines = left
            .iter()
            .map(|(parent, at)| format!("{parent}\t{at}\tx\n"));
        (name, lines.collect())
    }

    pub(super) fn store_history(&self, timeline: u32, left: &[(u32, Lsn)]) {
        let (name, text) = self.history(timeline, left);
        self.store.overwrite(&name, text.as_bytes());
    }

    pub(super) fn keep_history(&self, timeline: u32, left: &[(u32, Lsn)]) {
        let (name, text) = self.history(timeline, left);
        self.keep(&name, text.as_bytes());
    }

    /// Puts a file into `pg_wal`.
    pub(super) fn keep(&self, name: &str, bytes: &[u8]) {
        fs::write(self.server.pg_wal().join(name), bytes).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        let store: &dyn archive::Store = &self.store;
        assert!(store.remove(name).unwrap(), "{name}");
    }

    /// What recovery is told when it asks for this file.
    pub(super) fn ask(&mut self, name: &str) -> Verdict {
        let asker = Asker::Recovery(self.server.clone());
        self.ask_as(name, asker)
    }

    pub(super) fn ask_as(&mut self, name: &str, asker: Asker) -> Verdict {
        let question = self.judge.ask(name.parse().unwrap(), asker);
        self.verdict(&question)
    }

    fn verdict(&self, question: &Question) -> Verdict {
        let count = fs::read_dir(self.server.pg_wal()).unwrap().count();
        let dest = self.server.pg_wal().join(format!("{count}_RECOVERYXLOG"));
        let answer = restore(&self.archive, question, &dest, None, &Cancel::new());
        shown(answer.or_else(|error| question.failed(error).map(Answer::Absent)))
    }

    /// The same with an archive that cannot be reached.
    pub(super) fn ask_away(&mut self, name: &str) -> Verdict {
        let asker = Asker::Recovery(self.server.clone());
        let question = Arc::new(self.judge.ask(name.parse().unwrap(), asker));
        let away = Error::new(archive::ErrorKind::Unavailable, "the archive is away");
        shown(question.failed(away).map(Answer::Absent))
    }
}

fn shown(answer: Result<Answer, Error>) -> Verdict {
    match answer {
        Ok(Answer::Restored { .. }) => Verdict::Restored,
        Ok(Answer::Absent(notices)) => match notices.first() {
            Some(notice) => Verdict::Warned(notice.message.clone()),
            None => Verdict::Absent,
        },
        Err(error) => Verdict::Unsure(format!(
            "{error}; hint: {}",
            error.hint().unwrap_or_default()
        )),
    }
}

/// WAL of timeline 1 from segment 5 to the end of segment `last`.
pub(super) fn wal(last: u64) -> Written {
    let mut wal = Written::new();
    let segments = usize::try_from(last + 1 - fixtures::FIRST).unwrap();
    wal.fill(segments * SEGMENT - 30_000);
    wal.switch();
    wal
}
