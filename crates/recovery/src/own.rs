//! What the server itself has of a segment, in `pg_wal`: it looks there after the archive (`XLogFileRead`, 15 to 18).
//!
//! Guarantees that only the segment's own WAL counts: of this system, at its place, on its timeline or, where that begins in
//! it, on an ancestor. A recycled file bears a future name over old contents, and a snapshot may hold half of a segment.

use std::io::Read;
use std::path::{Path, PathBuf};

use archive::{MissingSegment, open_regular, segment_in};
use wal::{LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentName, TimelineHistory};

use crate::control::{Control, system_of};
use crate::phase::Phase;
use crate::server::{Server, TargetTimeline};

/// What the server has of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Own {
    /// Nothing that is this segment's.
    Nothing,
    /// Its beginning; WAL ends in it.
    Begun,
    /// All of it: its records reach its end.
    Whole,
}

impl Own {
    /// Every value, for tables.
    pub const ALL: [Own; 3] = [Own::Nothing, Own::Begun, Own::Whole];
}

/// How much of a segment the server of this data directory has. Reads its file, if there is one.
#[must_use]
pub fn own(data_directory: &Path, segment: SegmentName) -> Own {
    let control = Control::read(data_directory);
    let server = Server {
        data_directory: data_directory.to_owned(),
        phase: Phase::of(data_directory),
        target: TargetTimeline::default(),
        control,
        system: system_of(data_directory).ok(),
        size: control.and_then(|control| control.segment_size),
        missing_segment: MissingSegment::default(),
    };
    Copy::of(&server, segment).map_or(Own::Nothing, |copy| copy.extent())
}

/// A file in `pg_wal` that begins as the segment does.
#[derive(Debug)]
pub(crate) struct Copy {
    segment: SegmentName,
    folder: PathBuf,
}

impl Copy {
    /// The server's copy, judged by its first page.
    pub(crate) fn of(server: &Server, segment: SegmentName) -> Option<Copy> {
        let folder = server.pg_wal();
        let path = folder.join(segment.to_string());
        let stat = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let mut head = [0; LONG_PAGE_HEADER_BYTES];
        open_regular(&path).ok()?.read_exact(&mut head).ok()?;
        let header = LongPageHeader::parse(&head).ok()?;
        header.check_name(&segment).ok()?;
        let is_its_size = server.size.is_none_or(|size| size == header.segment_size)
            && stat.len() == header.segment_size.bytes();
        let is_ours = server.system.is_none_or(|system| system == header.system);
        let is_on_line = header.timeline == segment.timeline()
            || server
                .kept_history(segment.timeline())
                .is_some_and(|history| begins_in(&history, &segment, &header));
        (is_its_size && is_ours && is_on_line).then_some(Copy { segment, folder })
    }

    /// How much of the segment it is. Reads it.
    pub(crate) fn extent(&self) -> Own {
        match segment_in(&self.folder, self.segment) {
            Some(summary) if !summary.is_cut() => Own::Whole,
            _ => Own::Begun,
        }
    }
}

/// Whether the segment's timeline begins in it, and its first page is of an ancestor.
fn begins_in(history: &TimelineHistory, segment: &SegmentName, header: &LongPageHeader) -> bool {
    let size = header.segment_size;
    let begins = history.begins().map(|at| at.segment(size));
    begins.is_some()
        && begins == segment.number(size)
        && history.switchpoint_of(header.timeline).is_some()
}
