//! Writing a backup: what the server sends goes in, in pieces of any length, and a committed backup comes out.
//!
//! Guarantees: the first object says, before any data, since which LSN the backup runs; `backup.json` is written last, and only
//! once everything else is durable, so that a backup that is left anywhere before is none; nothing is ever overwritten, and
//! nothing has to be cleaned up. Memory is bounded: that of one object on its way, the list of parts, and the files
//! `backup_label` and `tablespace_map`.
//!
//! Calls block as the store does. Left to the caller: a thread for them, so that a server can be interrupted; the server's own
//! word about the backup; telling that the writer lives ([`Writing::beat`], once a minute).

use std::sync::Arc;
use std::time::SystemTime;

use archive::{Archive, Error, ErrorKind, PackedObject};
use wal::{Lsn, SegmentSize, SystemIdentifier, TimelineHistory, TimelineId};

use crate::catalogue;
use crate::cutter::{Cut, Cutter};
use crate::document::{
    Committed, Confirmed, LABEL_BYTES_MAX, Lineage, PageReport, Parent, Part, Rest, Running,
    Tablespace, bytes_of,
};
use crate::id::Id;
use crate::label::{BackupLabel, LABEL_FILE_BYTES_MAX, MAP_FILE_BYTES_MAX, tablespaces};
use crate::layout::{ALIVE_PREFIX, COMMITTED, CONFIRMED, MANIFEST, RUNNING, TarName};
use crate::pages::{Checker, PageRule};
use crate::path::SafePath;
use crate::tar::{Member, Parser, Visitor};

/// The most bytes of tar in one part, unless something else is wanted.
pub const PART_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// The least that may be wanted: below it a backup has more parts than are counted.
pub const PART_BYTES_MIN: u64 = 1024 * 1024;

/// The most that may be wanted: S3 copies no larger object, and a copy is what gives an object its name there.
pub const PART_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The most beats of one backup, which at one a minute is nearly two years.
const BEATS_MAX: u32 = 999_999;

/// What is known when a backup begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Whose backup it is.
    pub system: SystemIdentifier,
    /// How long a segment of its WAL is.
    pub segment_size: SegmentSize,
    /// The server's major version.
    pub major: u32,
    /// Where its replay will begin.
    pub start_lsn: Lsn,
    /// The timeline that it begins on.
    pub timeline: TimelineId,
    /// What to call it; empty to take it from `backup_label`. At most [`LABEL_BYTES_MAX`] bytes.
    pub label: String,
    /// When it began, by the server's clock.
    pub started: SystemTime,
    /// How its pages are checked; `None` if the cluster has no checksums, or they are not to be checked.
    pub pages: Option<PageRule>,
    /// The most bytes of tar in one part, unless a single member has more; [`PART_BYTES_MIN`] to [`PART_BYTES_MAX`].
    pub part_bytes_max: u64,
}

/// What is known when it ends.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// From where on it is consistent.
    pub stop_lsn: Lsn,
    /// The timeline that it ended on.
    pub timeline: TimelineId,
    /// The history of that timeline; `None` only for the first one.
    pub history: Option<&'a TimelineHistory>,
    /// When it ended, by the server's clock.
    pub stopped: SystemTime,
}

/// A backup that is being written. Dropping it leaves one that is not committed.
pub struct Writing {
    archive: Arc<Archive>,
    begin: Begin,
    running: Running,
    beats: u32,
    /// The tar file that is being written.
    tar: Option<Tar>,
    manifest: Option<PackedObject>,
    manifest_part: Option<Part>,
    parts: Vec<Part>,
    /// Which backup it is based on, once that was looked for: another try to commit has to say the same.
    parent: Option<Option<Id>>,
    /// The files that were written.
    done: Vec<TarName>,
    watch: Watch,
}

struct Tar {
    name: TarName,
    parser: Parser,
    cut: Cut,
}

impl Writing {
    /// Begins a backup: from when this returns the archive says that it runs, and since which LSN.
    ///
    /// Fails with [`ErrorKind::Foreign`] if the archive is another system's, [`ErrorKind::Unusable`] for a label or a size of
    /// parts that cannot be, or if parts would be plain where all others are encrypted, and as the store does.
    pub fn begin(archive: Arc<Archive>, begin: Begin) -> Result<Writing, Error> {
        let unusable = |what: String| Error::new(ErrorKind::Unusable, what);
        if begin.label.len() > LABEL_BYTES_MAX {
            let bytes = begin.label.len();
            return Err(unusable(format!(
                "label of a backup is too long: it has {bytes} bytes, and may have {LABEL_BYTES_MAX}"
            )));
        }
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&begin.part_bytes_max) {
            let bytes = begin.part_bytes_max;
            let what = format!("a part of a backup cannot have up to {bytes} bytes");
            return Err(unusable(what).with_hint(format!(
                "Set the size of a part to between {PART_BYTES_MIN} and {PART_BYTES_MAX} bytes."
            )));
        }
        archive.bind(begin.system, begin.segment_size)?;
        let id = Id::new(begin.started, fastrand::u16(..));
        let running = Running::new(
            id,
            begin.system,
            begin.major,
            (begin.start_lsn, begin.timeline),
            begin.label.clone(),
            archive::rfc3339(begin.started),
        );
        let writing = Writing {
            watch: Watch::new(begin.pages),
            archive,
            begin,
            running,
            beats: 0,
            tar: None,
            manifest: None,
            manifest_part: None,
            parts: Vec::new(),
            parent: None,
            done: Vec::new(),
        };
        writing.create(RUNNING, &bytes_of(&writing.running)?)?;
        Ok(writing)
    }

    /// Which backup it is.
    #[must_use]
    pub fn id(&self) -> &Id {
        &self.running.id
    }

    /// Tells that the writer lives; wanted once a minute, also while WAL is waited for.
    ///
    /// Fails as the store does; one beat that is missing does no harm.
    pub fn beat(&mut self) -> Result<(), Error> {
        self.beats = self.beats.saturating_add(1).min(BEATS_MAX);
        let name = format!("{ALIVE_PREFIX}{:06}", self.beats);
        let key = self.id().key(&name);
        self.archive.create_plain(&key, b"alive\n")
    }

    /// A tar file begins: `base.tar`, or the number of a tablespace and `.tar`.
    ///
    /// Fails with [`ErrorKind::Unusable`] for any other name, with the cure for what the server has compressed.
    pub fn begin_tar(&mut self, name: &str) -> Result<(), Error> {
        let tar = TarName::of_archive(name)?;
        if self.tar.is_some() || self.done.contains(&tar) {
            return Err(self.out_of_order(&format!("\"{name}\" begins")));
        }
        self.tar = Some(Tar {
            name: tar,
            parser: Parser::new(name.to_owned()),
            cut: Cut::default(),
        });
        Ok(())
    }

    /// Some bytes of it.
    ///
    /// Fails with [`ErrorKind::Damaged`] for what is no tar file as the server writes it, and as the store does.
    pub fn contents(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.with_tar(|tar, sink| tar.feed(bytes, sink))
    }

    /// It is over, and all of it is durable when this returns.
    ///
    /// Fails with [`ErrorKind::Damaged`] if it breaks off, and as the store does.
    pub fn end_tar(&mut self) -> Result<(), Error> {
        self.with_tar(|parser, sink| {
            parser.finish()?;
            sink.cutter.finish()
        })?;
        let Some(Tar { name, cut, .. }) = self.tar.take() else {
            return Err(self.out_of_order("a tar file ends"));
        };
        self.parts.extend(cut.parts);
        self.done.push(name);
        Ok(())
    }

    fn with_tar(
        &mut self,
        work: impl FnOnce(&mut Parser, &mut Sink<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(tar) = &mut self.tar else {
            return Err(self.out_of_order("contents come"));
        };
        let mut sink = Sink {
            cutter: Cutter {
                archive: &self.archive,
                id: &self.running.id,
                tar: tar.name,
                bytes_max: self.begin.part_bytes_max,
                cut: &mut tar.cut,
            },
            watch: &mut self.watch,
        };
        work(&mut tar.parser, &mut sink)
    }

    /// Some bytes of the server's manifest, which comes behind the tar files.
    ///
    /// Fails as the store does.
    pub fn manifest(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.tar.is_some() || self.manifest_part.is_some() {
            return Err(self.out_of_order("the manifest comes"));
        }
        if self.manifest.is_none() {
            let key = self.id().key(MANIFEST);
            self.manifest = Some(self.archive.begin_packed(&key)?);
        }
        self.manifest
            .as_mut()
            .map_or(Ok(()), |manifest| manifest.add(bytes))
    }

    /// It is over.
    ///
    /// Fails as the store does.
    pub fn end_manifest(&mut self) -> Result<(), Error> {
        let Some(manifest) = self.manifest.take() else {
            return Err(self.out_of_order("the manifest ends"));
        };
        let packed = self.archive.finish_packed(manifest)?;
        self.manifest_part = Some(Part {
            name: MANIFEST.to_owned(),
            bytes: packed.bytes,
            stored_bytes: packed.stored_bytes,
            stored_digest: packed.stored_digest,
        });
        Ok(())
    }

    /// What is known of the pages that have passed by so far.
    #[must_use]
    pub fn pages(&self) -> PageReport {
        self.watch.pages.report()
    }

    /// Commits the backup: it is one from when this returns.
    ///
    /// Fails with [`ErrorKind::Damaged`] if what was sent is no backup, or another than it was said to be, and as the store
    /// does; then it is not known whether it is committed, and another try with the same end finds out.
    pub fn commit(&mut self, end: &End<'_>) -> Result<Committed, Error> {
        if self.tar.is_some() || self.manifest.is_some() || !self.done.contains(&TarName::Base) {
            return Err(self.out_of_order("it ends"));
        }
        let label = self.label()?;
        let history = end
            .history
            .filter(|history| history.timeline() == end.timeline);
        if history.is_none() && end.timeline != TimelineId::FIRST {
            let what = format!(
                "the history of timeline {} is not known",
                end.timeline.get()
            );
            return Err(self.damaged(&what));
        }
        let entries = history.map(TimelineHistory::entries).unwrap_or_default();
        let lineage = entries.iter().map(|ancestor| Lineage {
            timeline: ancestor.timeline,
            until_lsn: ancestor.switchpoint,
        });
        let parent = match label.incremental_from {
            None => None,
            Some((start_lsn, timeline)) => {
                let (archive, system) = (&self.archive, self.begin.system);
                let id = self.parent.get_or_insert_with(|| {
                    catalogue::beginning_at(archive, system, start_lsn, timeline)
                });
                Some(Parent {
                    start_lsn,
                    timeline,
                    id: id.clone(),
                })
            }
        };
        let rest = Rest {
            segment_size: self.begin.segment_size,
            parent,
            label: match self.running.label.as_str() {
                "" => label.label,
                own => own.to_owned(),
            },
            stop_lsn: end.stop_lsn,
            stop_timeline: end.timeline,
            lineage: lineage.collect(),
            stopped: archive::rfc3339(end.stopped),
            tablespaces: self.tablespaces()?,
            pages: self.pages(),
            parts: self.parts.clone(),
            manifest: self.manifest_part.clone(),
        };
        let committed = Committed::new(self.running.clone(), rest);
        let bytes = bytes_of(&committed)?;
        // What could not be read later must not be written.
        let key = self.id().key(COMMITTED);
        Committed::parse(&bytes, self.id(), &key)?;
        self.create(COMMITTED, &bytes)?;
        Ok(committed)
    }

    /// `backup_label` as it has passed by, which has to be of this backup.
    fn label(&self) -> Result<BackupLabel, Error> {
        let Some(contents) = &self.watch.label else {
            return Err(self.damaged("\"backup_label\" is not in it"));
        };
        let label = BackupLabel::parse(contents).map_err(|line| {
            self.damaged(&format!("\"backup_label\" has no valid line \"{line}\""))
        })?;
        let (said, sent) = (self.begin.start_lsn, label.start_lsn);
        if said != sent || self.begin.timeline != label.timeline {
            let what = format!("it was to begin at {said}, and \"backup_label\" begins at {sent}");
            return Err(self.damaged(&what));
        }
        Ok(label)
    }

    /// The tablespaces of `tablespace_map`; each has to be there, and no other.
    fn tablespaces(&self) -> Result<Vec<Tablespace>, Error> {
        let map = self.watch.map.as_deref().unwrap_or_default();
        let Some(found) = tablespaces(map) else {
            return Err(self.damaged("\"tablespace_map\" cannot be understood"));
        };
        let mapped = found.iter().map(|it| TarName::Tablespace(it.oid));
        let mut mapped: Vec<TarName> = mapped.chain([TarName::Base]).collect();
        let mut done = self.done.clone();
        mapped.sort_unstable();
        done.sort_unstable();
        if mapped == done {
            return Ok(found);
        }
        if self.watch.map.is_none() {
            let error = self.damaged("it has tablespaces and no \"tablespace_map\"");
            return Err(error.with_hint("BASE_BACKUP sends it with the option TABLESPACE_MAP."));
        }
        Err(self.damaged("its tablespaces are not those of \"tablespace_map\""))
    }

    /// Creates an object, which may be there with these bytes by an earlier try whose answer was lost.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.archive.create_plain(&self.id().key(name), bytes)
    }

    fn out_of_order(&self, what: &str) -> Error {
        self.damaged(&format!("{what} at a time when it cannot"))
    }

    fn damaged(&self, what: &str) -> Error {
        let what = format!("backup {} cannot be stored: {what}", self.id());
        Error::new(ErrorKind::Damaged, what)
    }
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing")
            .field("id", &self.running.id)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

/// Notes with a committed backup that its client saw the server call it a success.
///
/// Fails as the store does.
pub fn confirm(archive: &Archive, id: &Id) -> Result<(), Error> {
    let bytes = bytes_of(&Confirmed::of(id))?;
    archive.create_plain(&id.key(CONFIRMED), &bytes)
}

/// What is looked at while it passes by.
#[derive(Debug)]
struct Watch {
    pages: Checker,
    label: Option<Vec<u8>>,
    map: Option<Vec<u8>>,
    now: Now,
}

/// What the member is that passes by.
#[derive(Debug, PartialEq, Eq)]
enum Now {
    Other,
    Label,
    Map,
}

impl Watch {
    fn new(rule: Option<PageRule>) -> Watch {
        Watch {
            pages: Checker::new(rule),
            label: None,
            map: None,
            now: Now::Other,
        }
    }

    fn begin(&mut self, tar: TarName, member: &Member) {
        let (mut label, mut map) = (None, None);
        self.now = match (tar, member.name.as_slice()) {
            (TarName::Base, b"backup_label") if member.bytes <= LABEL_FILE_BYTES_MAX => {
                label = Some(Vec::new());
                Now::Label
            }
            (TarName::Base, b"tablespace_map") if member.bytes <= MAP_FILE_BYTES_MAX => {
                map = Some(Vec::new());
                Now::Map
            }
            _ => Now::Other,
        };
        // Of several the last one: what is kept stays bounded.
        self.label = label.or(self.label.take());
        self.map = map.or(self.map.take());
        let path = SafePath::new(&member.name);
        let path = path.map(|path| match tar.folder() {
            Some(folder) => path.in_folder(&folder),
            None => path,
        });
        if let Some(path) = path {
            self.pages.begin(&path);
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let kept = match self.now {
            Now::Other => None,
            Now::Label => self.label.as_mut(),
            Now::Map => self.map.as_mut(),
        };
        if let Some(kept) = kept {
            kept.extend_from_slice(bytes);
        }
        self.pages.feed(bytes);
    }
}

/// Where the members of a tar file go.
struct Sink<'a> {
    cutter: Cutter<'a>,
    watch: &'a mut Watch,
}

impl Visitor for Sink<'_> {
    fn member(&mut self, member: &Member, header: &[u8]) -> Result<(), Error> {
        self.watch.begin(self.cutter.tar, member);
        self.cutter.member(member, header)
    }

    fn contents(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.watch.feed(bytes);
        self.cutter.contents(bytes)
    }

    fn padding(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.cutter.padding(bytes)
    }

    fn member_ends(&mut self) -> Result<(), Error> {
        self.watch.pages.end();
        self.cutter.member_ends()
    }
}

#[cfg(test)]
pub(crate) mod tests;
