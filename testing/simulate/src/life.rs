//! A server that writes: records, switches, checkpoints with the recycling of old segments, backups, crashes, and what it does
//! when recovery has ended.
//!
//! Guarantees what `xlog.c` (15 to 18) leaves in `pg_wal`: recycled files with future names and stale contents, `.partial`,
//! `.ready` and `.done`, the copied beginning of a timeline's first segment. The file is
//! long because a server's life is one thing.

use std::sync::Arc;

use fixtures::pen::{Pen, Written};

use crate::files::{Files, Status};
use crate::startup::Ended;
use crate::timelines::{parse_segment, segment_name};
use crate::tree::{Kind, Node, NodeId, Tree};
use crate::{PAGE, SEGMENT, SYSTEM, segment_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    None,
    Recovery,
    Standby,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveMode {
    Off,
    On,
    Always,
}

/// What matters of `pg_control`.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    pub is_shut_down: bool,
    pub checkpoint: u64,
    pub redo: u64,
    /// The checkpoint's timeline.
    pub timeline: u32,
    pub min_recovery: u64,
    pub min_timeline: u32,
    pub backup_start: u64,
    pub backup_end_required: bool,
    /// What the data has, at least: the record before redo.
    pub before_redo: Option<NodeId>,
}

/// What matters of `backup_label`.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub checkpoint: u64,
    pub timeline: u32,
    pub before_redo: Option<NodeId>,
}

/// A data directory, and the server that runs on it.
#[derive(Clone, Debug)]
pub struct Server {
    pub id: usize,
    pub files: Files,
    pub control: Control,
    pub label: Option<Label>,
    pub signal: Signal,
    pub mode: ArchiveMode,
    /// What has been replayed or written last.
    pub state: Option<NodeId>,
    /// Writes, if the server runs and is no standby.
    pub pen: Option<Pen>,
    pub life: usize,
    /// Recycles old segments; otherwise it removes them.
    pub recycles: bool,
}

/// Files of a base backup.
#[derive(Clone, Debug)]
pub struct Backup {
    pub control: Control,
    pub label: Label,
    /// What `-X stream` adds.
    pub files: Option<Files>,
    /// LSN at which it ends.
    pub end: u64,
}

impl Server {
    /// A server as `initdb` leaves it.
    pub fn new(id: usize, tree: &mut Tree) -> Server {
        let pen = Pen {
            segment: SEGMENT,
            system: SYSTEM,
            timeline: 1,
            at: SEGMENT,
            previous: 0,
            page_flags: 0,
            xid: 0,
        };
        let place = pen.next();
        let mut server = Server {
            id,
            files: Files::default(),
            control: Control {
                is_shut_down: false,
                checkpoint: place,
                redo: place,
                timeline: 1,
                min_recovery: 0,
                min_timeline: 0,
                backup_start: 0,
                backup_end_required: false,
                before_redo: None,
            },
            label: None,
            signal: Signal::None,
            mode: ArchiveMode::On,
            state: None,
            pen: Some(pen),
            life: tree.new_life(),
            recycles: true,
        };
        let kind = Kind::Checkpoint {
            is_shutdown: true,
            redo: place,
            this: 1,
            previous: 1,
        };
        server.write(tree, kind, |pen, put| pen.checkpoint(true, place, 1, put));
        server
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pen.is_some()
    }

    /// Where WAL ends, and on which timeline.
    #[must_use]
    pub fn end(&self) -> Option<(u64, u32)> {
        self.pen.as_ref().map(|pen| (pen.at, pen.timeline))
    }

    /// Writes a record.
    fn write(
        &mut self,
        tree: &mut Tree,
        kind: Kind,
        act: impl FnOnce(&mut Pen, &mut dyn FnMut(u64, &[u8])) -> Written,
    ) -> NodeId {
        let mut pen = self.pen.take().expect("a running server");
        pen.xid = u32::try_from(tree.nodes.len()).expect("few records") + 3;
        let (timeline, files) = (pen.timeline, &mut self.files);
        let begun = pen.at;
        let written = act(&mut pen, &mut |place, bytes| {
            files.write(timeline, place, bytes)
        });
        self.complete(timeline, begun, pen.at);
        let id = tree.add(Node {
            parent: self.state,
            written,
            timeline,
            server: self.id,
            life: self.life,
            kind,
        });
        self.state = Some(id);
        self.pen = Some(pen);
        id
    }

    /// Notes the segments that were completed on the way.
    fn complete(&mut self, timeline: u32, from: u64, to: u64) {
        if self.mode == ArchiveMode::Off {
            return;
        }
        for number in segment_of(from)..segment_of(to) {
            let name = segment_name(timeline, number);
            if self.files.has(&name) {
                self.files.note(&name, Some(Status::Ready));
            }
        }
    }

    pub fn data(&mut self, tree: &mut Tree, main: usize) {
        let seed = tree.nodes.len() as u64 + 1;
        self.write(tree, Kind::Data, |pen, put| pen.data(main, seed, put));
    }

    pub fn switch(&mut self, tree: &mut Tree) {
        // Nothing to switch away from.
        let at = self.end().map_or(0, |(at, _)| at);
        if !at.is_multiple_of(SEGMENT) {
            self.write(tree, Kind::Switch, Pen::switch);
        }
    }

    /// A checkpoint, with `between` records between redo and its record; old segments go.
    pub fn checkpoint(&mut self, tree: &mut Tree, between: usize) {
        let (redo, before) = self.checkpoint_record(tree, between);
        self.control.redo = redo;
        self.control.before_redo = before;
        let node = tree.node(self.state.expect("a record"));
        self.control.checkpoint = node.written.lsn;
        self.control.timeline = node.timeline;
        self.control.min_recovery = 0;
        self.control.min_timeline = 0;
        self.recycle(segment_of(redo));
    }

    fn checkpoint_record(&mut self, tree: &mut Tree, between: usize) -> (u64, Option<NodeId>) {
        let pen = self.pen.as_ref().expect("a running server");
        let (redo, timeline) = (pen.next(), pen.timeline);
        let before = self.state;
        for _ in 0..between {
            self.data(tree, 100);
        }
        let is_shutdown = false;
        let kind = Kind::Checkpoint {
            is_shutdown,
            redo,
            this: timeline,
            previous: timeline,
        };
        self.write(tree, kind, |pen, put| {
            pen.checkpoint(is_shutdown, redo, timeline, put)
        });
        (redo, before)
    }

    /// `RemoveOldXlogFiles`: whatever lies before segment `keep` and need not be archived any more.
    fn recycle(&mut self, keep: u64) {
        let Some((at, timeline)) = self.end() else {
            return;
        };
        let old: Vec<String> = self.files.names().cloned().collect();
        for name in old {
            let Some((_, number)) = parse_segment(&name) else {
                continue;
            };
            let is_done =
                self.mode == ArchiveMode::Off || self.files.status(&name) == Some(Status::Done);
            let is_wal = || {
                let contents = self.files.get(&name);
                contents.is_some_and(|contents| crate::oracle::scan(contents, number).is_some())
            };
            if number + 1 < keep && self.files.status(&name).is_none() && !is_done && is_wal() {
                // What a crash left without a note (`XLogArchiveCheckDone`). Recycled files with names of an older timeline would
                // get one, too, and be refused for ever.
                self.files.note(&name, Some(Status::Ready));
            }
            if number + 1 < keep && is_done {
                self.reuse(&name, timeline, segment_of(at));
            }
        }
    }

    /// `RemoveXlogFile`: another name for an old file, or its end.
    fn reuse(&mut self, name: &str, timeline: u32, from: u64) {
        self.files.note(name, None);
        let Some(contents) = self.files.remove(name) else {
            return;
        };
        let mut free = (from..from + 5).map(|number| segment_name(timeline, number));
        if self.recycles
            && let Some(free) = free.find(|name| !self.files.has(name))
        {
            self.files.set(&free, contents);
        }
    }

    /// What the archiver would offer next, timeline history files first.
    #[must_use]
    pub fn ready(&self) -> Option<String> {
        let ready = self
            .files
            .statuses()
            .filter(|(_, status)| *status == Status::Ready);
        let names = ready.map(|(name, _)| (!name.ends_with(".history"), name.clone()));
        names.min().map(|(_, name)| name)
    }

    /// A base backup of this running server, with records written meanwhile.
    pub fn back_up(&mut self, tree: &mut Tree, between: usize, with_wal: bool) -> Backup {
        self.switch(tree);
        let (redo, before) = self.checkpoint_record(tree, between % 3);
        let checkpoint = tree.node(self.state.expect("a record")).written.lsn;
        let timeline = self.pen.as_ref().expect("a running server").timeline;
        self.control.redo = redo;
        self.control.before_redo = before;
        self.control.checkpoint = checkpoint;
        self.control.timeline = timeline;
        self.control.min_recovery = 0;
        self.control.min_timeline = 0;
        let control = self.control;
        for _ in 0..between {
            self.data(tree, 900);
        }
        self.write(tree, Kind::BackupEnd { start: redo }, |pen, put| {
            pen.backup_end(redo, put)
        });
        let end = self.end().map_or(0, |(at, _)| at);
        self.switch(tree);
        let label = Label {
            checkpoint,
            timeline,
            before_redo: before,
        };
        let files = with_wal.then(|| {
            let mut files = Files::default();
            for number in segment_of(redo)..=segment_of(end - 1) {
                let name = segment_name(timeline, number);
                if let Some(contents) = self.files.get(&name) {
                    files.set(&name, contents.clone());
                    files.note(&name, Some(Status::Done));
                }
            }
            files
        });
        Backup {
            control,
            label,
            files,
            end,
        }
    }

    /// Dies. Perhaps in the middle of a record, of which `torn` bytes have reached the disk.
    pub fn crash(&mut self, tree: &Tree, torn: usize) {
        let Some(mut pen) = self.pen.take() else {
            return;
        };
        if torn == 0 {
            return;
        }
        pen.xid = u32::try_from(tree.nodes.len()).expect("few records") + 3;
        let (timeline, begun) = (pen.timeline, pen.at);
        let limit = begun + torn as u64;
        let files = &mut self.files;
        pen.data(
            torn * 2,
            tree.nodes.len() as u64 + 1,
            &mut |place, bytes| {
                let left = limit.saturating_sub(place).min(bytes.len() as u64);
                // A page is written as it lies in the buffers, its header whole.
                let is_whole = left > 0 && (bytes.len() <= 40 || bytes.len() as u64 == PAGE);
                let whole = if is_whole { bytes.len() } else { left as usize };
                if whole > 0 {
                    files.write(timeline, place, &bytes[..whole]);
                }
            },
        );
        // The file of the segment that was begun is there, whether or not anything is in it.
        self.complete(timeline, begun, limit.min(pen.at));
    }

    /// Goes on writing where recovery has ended.
    pub fn take_over(&mut self, tree: &mut Tree, ended: &Ended) {
        let at = match ended.aborted {
            Some((_, missing)) => missing,
            None => ended.end,
        };
        self.life = tree.new_life();
        self.state = ended.state;
        self.pen = Some(Pen {
            segment: SEGMENT,
            system: SYSTEM,
            timeline: ended.new_timeline,
            at,
            previous: ended.last,
            page_flags: 0,
            xid: 0,
        });
        self.control.backup_end_required = false;
        if let Some((unfinished, _)) = ended.aborted {
            self.write(tree, Kind::Overwrite, |pen, put| {
                pen.overwrite(unfinished, put)
            });
        }
        let (this, previous) = (ended.new_timeline, ended.replay_timeline);
        if ended.is_promoted {
            let kind = Kind::EndOfRecovery { this, previous };
            self.write(tree, kind, |pen, put| pen.end_of_recovery(previous, put));
        } else {
            let redo = self.pen.as_ref().expect("a pen").next();
            let kind = Kind::Checkpoint {
                is_shutdown: true,
                redo,
                this,
                previous,
            };
            let before = self.state;
            self.write(tree, kind, |pen, put| {
                pen.checkpoint(true, redo, previous, put)
            });
            self.control.redo = redo;
            self.control.checkpoint = redo;
            self.control.timeline = this;
            self.control.before_redo = before;
            self.control.min_recovery = 0;
            self.control.min_timeline = 0;
        }
        if ended.is_archive_recovery {
            self.clean_up_after(ended);
        }
        if ended.is_promoted {
            self.checkpoint(tree, 0);
        }
    }

    /// `CleanupAfterArchiveRecovery`: what the old timeline left behind the end.
    fn clean_up_after(&mut self, ended: &Ended) {
        let switched = segment_of(ended.end.saturating_sub(1));
        let names: Vec<String> = self.files.names().cloned().collect();
        for name in names {
            let Some((timeline, number)) = parse_segment(&name) else {
                continue;
            };
            let is_ready = self.files.status(&name) == Some(Status::Ready);
            if timeline < ended.new_timeline && number > switched && !is_ready {
                self.reuse(&name, ended.new_timeline, switched + 1);
            }
        }
        if ended.end.is_multiple_of(SEGMENT) || self.mode == ArchiveMode::Off {
            return;
        }
        let old = segment_name(ended.file_timeline, segment_of(ended.end));
        if self.files.status(&old).is_none()
            && let Some(contents) = self.files.remove(&old)
        {
            let partial = format!("{old}.partial");
            self.files.set(&partial, contents);
            self.files.note(&partial, Some(Status::Ready));
        }
    }

    /// A standby's copy of what another server has written: up to `to`, from the segment of `from` on. The segment of `to` is the
    /// first one of timeline `next`, if the other server has left the timeline there (`WalSndSegmentOpen`).
    /// Returns up to where there is.
    pub fn receive(
        &mut self,
        source: &Files,
        timeline: u32,
        next: Option<u32>,
        from: u64,
        to: u64,
    ) -> u64 {
        let mut place = from - from % SEGMENT;
        while place < to {
            let name = segment_name(timeline, segment_of(place));
            let of_next = next
                .filter(|_| segment_of(place) == segment_of(to))
                .map(|next| segment_name(next, segment_of(place)));
            let Some(contents) = source.get(of_next.as_ref().unwrap_or(&name)) else {
                return place;
            };
            let until = (place + PAGE).min(to);
            let offset = (place % SEGMENT) as usize;
            let length = (until - place) as usize;
            self.files
                .write(timeline, place, &contents[offset..offset + length]);
            place = until;
            if place.is_multiple_of(SEGMENT) {
                self.received(&name);
            }
        }
        place
    }

    /// `XLogWalRcvClose`, or the end of a timeline.
    pub fn received(&mut self, name: &str) {
        let status = match self.mode {
            ArchiveMode::Always => Status::Ready,
            _ => Status::Done,
        };
        if self.files.status(name).is_none() || self.mode == ArchiveMode::Always {
            self.files.note(name, Some(status));
        }
    }

    /// Another data directory with the same contents.
    #[must_use]
    pub fn snapshot(&self, id: usize) -> Server {
        Server {
            id,
            pen: None,
            ..self.clone()
        }
    }

    /// A server on a backup.
    #[must_use]
    pub fn from_backup(id: usize, backup: &Backup, signal: Signal, mode: ArchiveMode) -> Server {
        Server {
            id,
            files: backup.files.clone().unwrap_or_default(),
            control: backup.control,
            label: Some(backup.label),
            signal,
            mode,
            state: None,
            pen: None,
            life: 0,
            recycles: true,
        }
    }

    /// The contents of a file, as the archiver reads it.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        self.files.get(name).cloned()
    }
}
