//! The startup process: what a server asks for in recovery, in which order, and what it makes of the answers.
//!
//! Guarantees the order of requests of 15 to 18: `validateRecoveryParameters`, `InitWalRecovery`, `XLogPageRead`,
//! `WaitForWALToBecomeAvailable`, `XLogFileReadAnyTLI`, `rescanLatestTimeLine`, `FinishWalRecovery` (`xlogrecovery.c`),
//! `StartupXLOG` (`xlog.c`), `RestoreArchivedFile`, `KeepFileRestoredFromArchive` (`xlogarchive.c`), `timeline.c`. The last
//! segment is asked for twice, as the prefetcher makes it. It is
//! long because it is one process, in the server's own order.

use std::sync::Arc;

use crate::files::Status;
use crate::life::{ArchiveMode, Server, Signal};
use crate::reader::{Ask as PageAsk, Pages, Reader, Record, Seen, Trouble, validate};
use crate::timelines::{Entry, alone, contains, history_name, parse, segment_name, timeline_at};
use crate::tree::{Kind, NodeId, Tree};
use crate::{PAGE, SEGMENT, lsn, segment_of};

/// Why recovery stops without an end.
#[derive(Clone, Debug)]
pub enum Halt {
    /// The server's own reason.
    Fatal(String),
    /// It could not be told whether a file is there.
    Unsure(String),
    /// Somebody stopped the server, which had replayed so much, all of it on its line or not.
    Stopped(Option<NodeId>, bool),
}

/// What a server is told that asked for a file.
#[derive(Clone, Debug)]
pub enum Answer {
    Restored(Vec<u8>),
    Absent,
    /// Could not tell, and why.
    Unsure(String),
}

/// What happens to a standby that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Again,
    Promote,
    Stop,
}

/// `recovery_target_timeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Latest,
    Current,
    Number(u32),
}

/// What a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Segment,
    /// Is there a newer timeline?
    Probe,
    /// A line is to be read.
    Read,
    /// A copy is to be kept.
    Copy,
    /// The parent's, to be copied into a new one.
    Parent,
}

/// A request, with what nobody but the oracle knows.
#[derive(Clone, Debug)]
pub struct Ask {
    pub name: String,
    pub role: Role,
    /// The line under recovery, if it is known.
    pub line: Option<Vec<Entry>>,
    pub goal: Goal,
    /// `recoveryTargetTLI`.
    pub target: u32,
    /// Promotion was asked for.
    pub is_promoted: bool,
    /// Replay has ended.
    pub is_finishing: bool,
    /// What has been replayed.
    pub state: Option<NodeId>,
}

/// Everything around a server in recovery.
pub trait Host {
    fn restore(&mut self, server: &mut Server, ask: &Ask) -> Answer;
    fn wait(&mut self, server: &mut Server) -> Wait;
    /// Streams timeline `timeline` from the segment of `from` on; returns up to where there is WAL then, if anybody has it.
    fn stream(&mut self, server: &mut Server, timeline: u32, from: u64) -> Option<u64>;
    fn tree(&self) -> &Tree;
    fn tell(&mut self, text: String);
    /// A restartpoint, from which on WAL is needed.
    fn restartpoint(&mut self, server: &mut Server, oldest_kept: String);
}

/// How recovery ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The last record that was replayed.
    pub state: Option<NodeId>,
    /// LSN at which WAL goes on.
    pub end: u64,
    /// The timeline in the name of the file that holds it.
    pub file_timeline: u32,
    /// The timeline of the last record.
    pub replay_timeline: u32,
    /// Where the last record begins.
    pub last: u64,
    pub target: u32,
    /// The line that was recovered.
    pub line: Vec<Entry>,
    pub reached_target: bool,
    pub aborted: Option<(u64, u64)>,
    /// A record was replayed that was not written behind the one before it.
    pub mixed: Option<(NodeId, NodeId)>,
    /// The first record off the line, and whether it came from elsewhere than the archive's segment of its timeline.
    pub strayed: Option<(NodeId, bool)>,
    pub is_promoted: bool,
    /// The new timeline; the old one after a crash.
    pub new_timeline: u32,
    /// Something was asked of recovery beyond a crash's.
    pub is_archive_recovery: bool,
}

/// A timeline history file, and whether it comes from the archive.
type History = (Arc<Vec<u8>>, bool);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Any,
    Archive,
    PgWal,
    Stream,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    segment: u64,
    source: Source,
}

/// What `XLogPageRead` keeps between calls.
struct Feed<'a> {
    host: &'a mut dyn Host,
    server: &'a mut Server,
    requested: bool,
    standby_requested: bool,
    in_archive: bool,
    standby: bool,
    goal: Goal,
    target: u32,
    line: Option<Vec<Entry>>,
    file_timeline: u32,
    open: Option<Open>,
    source: Source,
    failed: bool,
    flushed: u64,
    promoted: bool,
    finishing: bool,
    fetching_checkpoint: bool,
    replay_timeline: u32,
    state: Option<NodeId>,
    is_on_line: bool,
}

/// What to recover to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub goal: Goal,
    /// `recovery_target_lsn`, with `recovery_target_inclusive` on.
    pub place: Option<u64>,
}

/// Runs recovery to its end.
///
/// # Errors
/// When the server stops before.
pub fn run(host: &mut dyn Host, server: &mut Server, wanted: Wanted) -> Result<Ended, Halt> {
    let control = server.control;
    let feed = Feed {
        requested: server.signal != Signal::None,
        standby_requested: server.signal == Signal::Standby,
        in_archive: false,
        standby: false,
        goal: wanted.goal,
        target: control.timeline.max(control.min_timeline),
        line: None,
        file_timeline: 0,
        open: None,
        source: Source::Any,
        failed: false,
        flushed: 0,
        promoted: false,
        finishing: false,
        fetching_checkpoint: false,
        replay_timeline: 0,
        state: None,
        is_on_line: true,
        host,
        server,
    };
    let mut startup = Startup {
        feed,
        reader: Reader::default(),
        place: wanted.place,
        mixed: None,
        strayed: None,
        replayed_end: 0,
        min_recovery: 0,
        end_required: false,
        backup_start: 0,
    };
    startup.run()
}

struct Startup<'a> {
    feed: Feed<'a>,
    reader: Reader,
    place: Option<u64>,
    mixed: Option<(NodeId, NodeId)>,
    strayed: Option<(NodeId, bool)>,
    replayed_end: u64,
    min_recovery: u64,
    end_required: bool,
    backup_start: u64,
}

fn fatal<T>(text: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Fatal(text.into()))
}

impl Startup<'_> {
    fn run(&mut self) -> Result<Ended, Halt> {
        if self.feed.requested {
            self.feed.validate_parameters()?;
        }
        let (checkpoint, timeline, redo) = self.find_checkpoint()?;
        let line = self.feed.line.clone().unwrap_or_default();
        if timeline_at(&line, checkpoint) != Some(timeline) {
            return fatal(format!(
                "requested timeline {} is not a child of this server's history",
                self.feed.target
            ));
        }
        let control = self.feed.server.control;
        if control.min_recovery != 0
            && timeline_at(&line, control.min_recovery - 1) != Some(control.min_timeline)
        {
            return fatal(format!(
                "requested timeline {} does not contain minimum recovery point {} on timeline {}",
                self.feed.target,
                lsn(control.min_recovery),
                control.min_timeline
            ));
        }
        let needed = redo < checkpoint || !control.is_shut_down || self.feed.requested;
        self.feed.copy_histories(timeline, self.feed.target)?;
        self.feed.replay_timeline = timeline;
        let reached_target = if needed {
            self.replay(redo, checkpoint)?
        } else {
            self.replayed_end = self.reader.end;
            false
        };
        if self.feed.requested && self.place.is_some() && !reached_target {
            return fatal("recovery ended before configured recovery target was reached");
        }
        self.finish(reached_target)
    }

    /// Reads the checkpoint that recovery begins with; returns its place, timeline, and where redo begins.
    fn find_checkpoint(&mut self) -> Result<(u64, u32, u64), Halt> {
        let control = self.feed.server.control;
        let label = self.feed.server.label;
        self.min_recovery = control.min_recovery;
        self.end_required = control.backup_end_required;
        self.backup_start = control.backup_start;
        let (place, timeline, before) = match label {
            Some(label) => (label.checkpoint, label.timeline, label.before_redo),
            None => (control.checkpoint, control.timeline, control.before_redo),
        };
        let known_end =
            control.min_recovery != 0 || control.backup_end_required || control.is_shut_down;
        if label.is_some() || (self.feed.requested && known_end) {
            self.feed.in_archive = self.feed.requested;
            self.feed.standby = self.feed.standby_requested && self.feed.in_archive;
        }
        self.feed.fetching_checkpoint = true;
        self.reader.begin(place);
        let record = self.read_record()?;
        self.feed.fetching_checkpoint = false;
        let Some(Record {
            kind: Kind::Checkpoint { redo, .. },
            ..
        }) = record
        else {
            return fatal("could not locate required checkpoint record");
        };
        self.feed.state = before;
        if redo < place && label.is_some() {
            self.reader.begin(redo);
            if self.read_record()?.is_none() {
                return fatal("could not find redo location referenced by checkpoint record");
            }
            self.reader.begin(place);
            self.read_record()?;
        }
        if label.is_some() {
            self.end_required = true;
            self.backup_start = redo;
        }
        if self.feed.in_archive && self.min_recovery < redo {
            self.min_recovery = redo;
        }
        let server = &mut *self.feed.server;
        server.control.checkpoint = place;
        server.control.timeline = timeline;
        server.control.redo = redo;
        server.control.before_redo = before;
        server.control.is_shut_down = false;
        server.control.backup_end_required = self.end_required;
        server.control.backup_start = self.backup_start;
        if self.feed.in_archive && server.control.min_recovery < redo {
            server.control.min_recovery = redo;
            server.control.min_timeline = timeline;
        }
        server.label = None;
        Ok((place, timeline, redo))
    }

    /// The redo loop; true if the target was reached (`PerformWalRecovery`).
    fn replay(&mut self, redo: u64, checkpoint: u64) -> Result<bool, Halt> {
        let mut record = if redo < checkpoint {
            self.replayed_end = redo;
            self.reader.begin(redo);
            let record = self.read_record()?;
            if record.is_none() {
                return fatal("redo record is not there");
            }
            record
        } else {
            self.replayed_end = self.reader.end;
            let written = self.feed.find_at(self.reader.read, self.reader.end);
            self.feed.state = written.or(self.feed.state);
            self.read_record()?
        };
        while let Some(now) = record {
            self.apply(&now)?;
            if self.place.is_some_and(|place| now.written.lsn >= place) {
                if self.end_required || self.replayed_end < self.min_recovery {
                    return fatal(
                        "requested recovery stop point is before consistent recovery point",
                    );
                }
                return Ok(true);
            }
            record = self.read_record()?;
        }
        Ok(false)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Halt> {
        let switch = match record.kind {
            Kind::Checkpoint {
                is_shutdown: true,
                this,
                previous,
                ..
            }
            | Kind::EndOfRecovery { this, previous } => Some((this, previous)),
            _ => None,
        };
        if let Some((this, previous)) = switch
            && this != self.feed.replay_timeline
        {
            let line = self.feed.line.as_deref().unwrap_or_default();
            if previous != self.feed.replay_timeline
                || this < self.feed.replay_timeline
                || !contains(line, this)
            {
                return fatal(format!(
                    "unexpected timeline ID {this} in checkpoint record"
                ));
            }
            self.feed.replay_timeline = this;
        }
        let Some(id) = self.feed.host.tree().find(record.written) else {
            return fatal(format!(
                "nobody wrote the record at {}",
                lsn(record.written.lsn)
            ));
        };
        let node = self.feed.host.tree().node(id);
        let (parent, timeline) = (node.parent, node.timeline);
        let line = self.feed.line.as_deref().unwrap_or_default();
        let belongs = timeline_at(line, record.written.lsn);
        self.feed.is_on_line &= belongs == Some(timeline);
        if self.strayed.is_none() && belongs != Some(timeline) {
            let from_archive = self
                .feed
                .open
                .is_some_and(|open| open.source == Source::Archive);
            // A newer timeline before its beginning, or its file with an older one's records behind it, is of another server,
            // which chose the same number.
            let is_behind = belongs.is_some_and(|belongs| belongs > timeline);
            let is_own = self.feed.file_timeline == timeline;
            self.strayed = Some((id, !(from_archive && is_behind && is_own)));
        }
        if parent != self.feed.state && self.mixed.is_none() {
            self.mixed = Some((self.feed.state.unwrap_or(id), id));
            self.feed.is_on_line = false;
        }
        self.feed.state = Some(id);
        self.replayed_end = record.written.end;
        match record.kind {
            Kind::BackupEnd { start } if start == self.backup_start => {
                self.end_required = false;
                self.feed.server.control.backup_end_required = false;
            }
            Kind::Checkpoint { redo, .. } if self.feed.in_archive && !self.end_required => {
                self.restartpoint(id, redo, record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes in `pg_control` that recovery can begin here.
    fn restartpoint(&mut self, id: NodeId, redo: u64, record: &Record) {
        if self.replayed_end < self.min_recovery {
            return;
        }
        let tree = self.feed.host.tree();
        let before = if redo == record.written.lsn {
            tree.node(id).parent
        } else {
            // The last one before redo, on the line that was replayed.
            let mut at = tree.node(id).parent;
            while let Some(now) = at
                && tree.node(now).written.lsn >= redo
            {
                at = tree.node(now).parent;
            }
            at
        };
        let timeline = self.feed.replay_timeline;
        let control = &mut self.feed.server.control;
        control.checkpoint = record.written.lsn;
        control.redo = redo;
        control.timeline = timeline;
        control.before_redo = before;
        if control.min_recovery < record.written.end {
            control.min_recovery = record.written.end;
            control.min_timeline = timeline;
        }
        let oldest = segment_name(timeline, segment_of(redo));
        self.feed.host.restartpoint(self.feed.server, oldest);
    }

    /// The next record; `None` at the end (`ReadRecord`).
    fn read_record(&mut self) -> Result<Option<Record>, Halt> {
        self.feed.failed = false;
        loop {
            match self.reader.next(&mut self.feed) {
                Ok(record) => {
                    let line = self.feed.line.as_deref().unwrap_or_default();
                    if contains(line, record.page_timeline) {
                        return Ok(Some(record));
                    }
                    self.feed.host.tell(format!(
                        "    unexpected timeline ID {} in WAL at {}",
                        record.page_timeline,
                        lsn(record.written.lsn)
                    ));
                }
                Err(Trouble::Halt(halt)) => return Err(halt),
                Err(Trouble::None(why)) => {
                    self.feed.open = None;
                    if !why.is_empty() {
                        self.feed.host.tell(format!("    {why}"));
                    }
                }
            }
            self.feed.failed = true;
            if !self.feed.in_archive && self.feed.requested && !self.feed.fetching_checkpoint {
                self.feed
                    .host
                    .tell("    reached end of WAL in pg_wal, entering archive recovery".to_owned());
                self.feed.in_archive = true;
                self.feed.standby = self.feed.standby_requested;
                self.min_recovery = self.reader.end;
                let control = &mut self.feed.server.control;
                control.min_recovery = self.reader.end;
                control.min_timeline = self.feed.replay_timeline;
                self.feed.failed = false;
                self.feed.source = Source::Any;
                continue;
            }
            if !self.feed.standby || self.feed.promoted {
                return Ok(None);
            }
        }
    }

    /// `FinishWalRecovery`, and of `StartupXLOG` what chooses the new timeline.
    fn finish(&mut self, reached_target: bool) -> Result<Ended, Halt> {
        let aborted = self.reader.aborted.filter(|_| !self.feed.requested);
        self.feed.standby = false;
        self.feed.finishing = true;
        let last = match self.feed.state {
            Some(state) => self.feed.host.tree().node(state).written.lsn,
            None => return fatal("nothing was replayed"),
        };
        self.reader.begin(last);
        if self.read_record()?.is_none() {
            return fatal("could not read the last record again");
        }
        let end = self.reader.end;
        let file_timeline = self.feed.file_timeline;
        self.feed.open = None;
        self.feed.in_archive = false;
        if self.feed.requested && (self.end_required || end < self.min_recovery) {
            return fatal("WAL ends before consistent recovery point");
        }
        let mut new_timeline = self.feed.replay_timeline;
        if self.feed.requested {
            new_timeline = self.feed.newest(self.feed.target)? + 1;
            self.new_timeline_segment(end, file_timeline, new_timeline);
            self.feed.server.signal = Signal::None;
            self.feed.write_history(new_timeline, end)?;
        }
        Ok(Ended {
            state: self.feed.state,
            end,
            file_timeline,
            replay_timeline: self.feed.replay_timeline,
            last,
            target: self.feed.target,
            line: self.feed.line.clone().unwrap_or_default(),
            reached_target,
            aborted,
            mixed: self.mixed,
            strayed: self.strayed,
            is_promoted: self.feed.promoted,
            new_timeline,
            is_archive_recovery: self.feed.requested,
        })
    }

    /// `XLogInitNewTimeline`.
    fn new_timeline_segment(&mut self, end: u64, file_timeline: u32, new_timeline: u32) {
        let files = &mut self.feed.server.files;
        if !end.is_multiple_of(SEGMENT) {
            let number = segment_of(end);
            let old = files.get(&segment_name(file_timeline, number)).cloned();
            let mut bytes = vec![0; SEGMENT as usize];
            let valid = (end % SEGMENT) as usize;
            if let Some(old) = old {
                bytes[..valid].copy_from_slice(&old[..valid]);
            }
            files.set(&segment_name(new_timeline, number), Arc::new(bytes));
        }
        files.note(&segment_name(new_timeline, segment_of(end)), None);
    }
}

impl Feed<'_> {
    /// The record that lies here, by what stands in the tree.
    fn find_at(&self, begin: u64, end: u64) -> Option<NodeId> {
        let tree = self.host.tree();
        let mut found = tree.nodes.iter().enumerate().filter(|(_, node)| {
            node.written.lsn == begin && node.written.end == end && node.parent == self.state
        });
        found.next().map(|(id, _)| id)
    }

    fn ask(&self, name: String, role: Role) -> Ask {
        Ask {
            name,
            role,
            line: self.line.clone(),
            goal: self.goal,
            target: self.target,
            is_promoted: self.promoted,
            is_finishing: self.finishing,
            state: self.state,
        }
    }

    /// `RestoreArchivedFile`, of a history: its contents, and whether they come from the archive.
    fn history(&mut self, timeline: u32, role: Role) -> Result<Option<History>, Halt> {
        let name = history_name(timeline);
        if self.requested {
            let ask = self.ask(name.clone(), role);
            match self.host.restore(self.server, &ask) {
                Answer::Restored(contents) => return Ok(Some((Arc::new(contents), true))),
                Answer::Absent => {}
                // A standby must not be taken down: it asks again.
                Answer::Unsure(why) if self.server.signal == Signal::Standby => {
                    self.host.tell(format!("    could not tell: {why}"));
                }
                Answer::Unsure(why) => return Err(Halt::Unsure(why)),
            }
        }
        Ok(self
            .server
            .files
            .get(&name)
            .cloned()
            .map(|contents| (contents, false)))
    }

    /// `KeepFileRestoredFromArchive`.
    fn keep(&mut self, name: &str, contents: Arc<Vec<u8>>) {
        self.server.files.set(name, contents);
        let status = match self.server.mode {
            ArchiveMode::Always => Status::Ready,
            _ => Status::Done,
        };
        self.server.files.note(name, Some(status));
    }

    /// `readTimeLineHistory`.
    fn read_history(&mut self, timeline: u32) -> Result<Vec<Entry>, Halt> {
        if timeline == 1 {
            return Ok(alone(1));
        }
        let Some((contents, is_archived)) = self.history(timeline, Role::Read)? else {
            return Ok(alone(timeline));
        };
        let line = parse(timeline, &contents).map_err(Halt::Fatal)?;
        if is_archived {
            self.keep(&history_name(timeline), contents);
        }
        Ok(line)
    }

    /// `findNewestTimeLine`.
    fn newest(&mut self, start: u32) -> Result<u32, Halt> {
        let mut newest = start;
        while self.history(newest + 1, Role::Probe)?.is_some() {
            newest += 1;
        }
        Ok(newest)
    }

    /// `restoreTimeLineHistoryFiles`.
    fn copy_histories(&mut self, begin: u32, end: u32) -> Result<(), Halt> {
        if !self.requested {
            return Ok(());
        }
        for timeline in begin.max(2)..end {
            if let Some((contents, true)) = self.history(timeline, Role::Copy)? {
                self.keep(&history_name(timeline), contents);
            }
        }
        Ok(())
    }

    /// `validateRecoveryParameters`.
    fn validate_parameters(&mut self) -> Result<(), Halt> {
        match self.goal {
            Goal::Number(1) => self.target = 1,
            Goal::Number(number) => {
                if self.history(number, Role::Probe)?.is_none() {
                    return fatal(format!("recovery target timeline {number} does not exist"));
                }
                self.target = number;
            }
            Goal::Latest => self.target = self.newest(self.target)?,
            Goal::Current => {}
        }
        Ok(())
    }

    /// `rescanLatestTimeLine`.
    fn rescan(&mut self, replayed: u64) -> Result<bool, Halt> {
        let old = self.target;
        let newest = self.newest(old)?;
        if newest == old {
            return Ok(false);
        }
        let line = self.read_history(newest)?;
        let Some(entry) = line.iter().find(|entry| entry.timeline == old) else {
            self.host.tell(format!(
                "    new timeline {newest} is not a child of timeline {old}"
            ));
            return Ok(false);
        };
        if entry.end < replayed {
            self.host.tell(format!(
                "    new timeline {newest} forked off before {}",
                lsn(replayed)
            ));
            return Ok(false);
        }
        self.target = newest;
        self.line = Some(line);
        self.copy_histories(old + 1, newest)?;
        self.host
            .tell(format!("    new target timeline is {newest}"));
        Ok(true)
    }

    /// `writeTimeLineHistory`.
    fn write_history(&mut self, new_timeline: u32, end: u64) -> Result<(), Halt> {
        let parent = self.history(self.target, Role::Parent)?;
        let mut text = Vec::new();
        if let Some((contents, _)) = parent {
            text.extend_from_slice(&contents);
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{}\t{}\tsimulated\n", self.target, lsn(end)).as_bytes());
        let name = history_name(new_timeline);
        self.server.files.set(&name, Arc::new(text));
        if self.server.mode != ArchiveMode::Off {
            self.server.files.note(&name, Some(Status::Ready));
        }
        Ok(())
    }

    /// Opens a segment on the newest timeline that has it (`XLogFileReadAnyTLI`).
    fn open_any(&mut self, number: u64, with_archive: bool) -> Result<bool, Halt> {
        let line = match &self.line {
            Some(line) => line.clone(),
            None => self.read_history(self.target)?,
        };
        for entry in &line {
            let timeline = entry.timeline;
            if timeline < self.file_timeline {
                break;
            }
            if entry.begin != 0 && number < segment_of(entry.begin) {
                continue;
            }
            let name = segment_name(timeline, number);
            if with_archive && self.requested {
                let mut ask = self.ask(name.clone(), Role::Segment);
                ask.line = Some(line.clone());
                match self.host.restore(self.server, &ask) {
                    Answer::Restored(contents) if contents.len() as u64 == SEGMENT => {
                        self.keep(&name, Arc::new(contents));
                        self.opened(timeline, number, Source::Archive, &line);
                        return Ok(true);
                    }
                    Answer::Restored(contents)
                        if self.standby && (contents.len() as u64) < SEGMENT => {}
                    Answer::Restored(contents) => {
                        return fatal(format!(
                            "archive file \"{name}\" has wrong size: {}",
                            contents.len()
                        ));
                    }
                    Answer::Absent => {}
                    // It is asked for again; after a promotion the server must go on.
                    Answer::Unsure(_) if self.server.signal == Signal::Standby => {}
                    Answer::Unsure(why) => return Err(Halt::Unsure(why)),
                }
            }
            if self.server.files.has(&name) {
                self.opened(timeline, number, Source::PgWal, &line);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn opened(&mut self, timeline: u32, segment: u64, source: Source, line: &[Entry]) {
        self.file_timeline = timeline;
        self.open = Some(Open { segment, source });
        if self.line.is_none() {
            self.line = Some(line.to_vec());
        }
    }

    /// `WaitForWALToBecomeAvailable`.
    fn wait_for(&mut self, ask: PageAsk) -> Result<bool, Halt> {
        let needed = ask.page + ask.bytes;
        if !self.in_archive {
            self.source = Source::PgWal;
        } else if self.source == Source::Any || (!self.standby && self.source == Source::Stream) {
            self.failed = false;
            self.source = Source::Archive;
        }
        let mut starts = false;
        loop {
            if self.failed {
                match self.source {
                    Source::Stream => {
                        let is_new = self.goal == Goal::Latest && self.rescan(ask.end)?;
                        if !is_new {
                            match self.host.wait(self.server) {
                                Wait::Again => {}
                                Wait::Promote => self.promoted = true,
                                Wait::Stop => {
                                    return Err(Halt::Stopped(self.state, self.is_on_line));
                                }
                            }
                        }
                        self.source = Source::Archive;
                    }
                    _ if !self.standby || self.promoted => return Ok(false),
                    _ => {
                        self.source = Source::Stream;
                        starts = true;
                    }
                }
            } else if self.source == Source::PgWal && self.in_archive {
                self.source = Source::Archive;
            }
            self.failed = false;
            if self.source != Source::Stream {
                self.open = None;
                if ask.random {
                    self.file_timeline = 0;
                }
                if self.open_any(segment_of(ask.page), self.source == Source::Archive)? {
                    return Ok(true);
                }
                self.failed = true;
                continue;
            }
            if starts {
                let line = self.line.clone().unwrap_or_default();
                let timeline = timeline_at(&line, ask.record).unwrap_or(self.target);
                if timeline >= self.file_timeline && !line.is_empty() {
                    self.file_timeline = timeline;
                    self.flushed = 0;
                    starts = false;
                }
            }
            let got = if starts {
                None
            } else {
                self.host.stream(self.server, self.file_timeline, ask.page)
            };
            self.flushed = got.unwrap_or(0);
            if self.flushed >= needed {
                self.open = Some(Open {
                    segment: segment_of(ask.page),
                    source: Source::Stream,
                });
                return Ok(true);
            }
            self.failed = true;
        }
    }
}

impl Pages for Feed<'_> {
    /// `XLogPageRead`.
    fn page(&mut self, ask: PageAsk, seen: &mut Seen) -> Result<Option<(Vec<u8>, u64)>, Halt> {
        let number = segment_of(ask.page);
        if self.open.is_some_and(|open| open.segment != number) {
            self.open = None;
        }
        let mut is_second = false;
        loop {
            let missing = match self.open {
                None => true,
                Some(open) => open.source == Source::Stream && self.flushed < ask.page + ask.bytes,
            };
            if missing && !self.wait_for(ask)? {
                self.open = None;
                // The prefetcher has looked already; its failure does not count.
                let again = self.requested && !is_second && !self.fetching_checkpoint;
                if again && !ask.random && !self.standby && self.in_archive {
                    is_second = true;
                    self.failed = false;
                    continue;
                }
                return Ok(None);
            }
            let name = segment_name(self.file_timeline, number);
            let offset = (ask.page % SEGMENT) as usize;
            let page = self.server.files.get(&name);
            let page = page.and_then(|file| file.get(offset..offset + PAGE as usize));
            let is_stream = self.open.is_some_and(|open| open.source == Source::Stream);
            if let Some(page) = page {
                let valid = if is_stream {
                    self.flushed.saturating_sub(ask.page).min(PAGE)
                } else {
                    PAGE
                };
                let page = page.to_vec();
                if !self.standby {
                    return Ok(Some((page, valid)));
                }
                match validate(seen, ask.page, &page) {
                    Ok(()) => return Ok(Some((page, valid))),
                    Err(why) => self.host.tell(format!("    {why}")),
                }
            }
            self.failed = true;
            self.open = None;
            if !self.standby {
                return Ok(None);
            }
        }
    }
}
