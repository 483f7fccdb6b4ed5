//! Timeline history files against the WAL beside them: one that is missing, and one that names a wrong place.
//!
//! The server takes a timeline history file that is "not there" for the end of timelines (`findNewestTimeLine`, timeline.c,
//! 15 to 18), and believes the place in one that is there. Either way it would replay another line of WAL than the archive
//! holds, and end as if all were well. Guarantees that this is noticed where names alone tell it: no segment of a timeline
//! has a name before the place where it begins. What the segments say is left to an audit.

use std::ops::ControlFlow;

use wal::{LongPageHeader, SegmentName, TimelineHistory, TimelineId, WalFileName};

use super::lookup::{header_of, is_stored};
use crate::archive::Archive;
use crate::error::{Error, ErrorKind};
use crate::options::Verify;
use crate::store::key::parse_key;
use crate::store::waist::Detail;

/// Fails if there are segments of the timeline from before the place where its history file, which messages call `shown`,
/// says that it begins. Nothing to say of a file that is none, nor with [`Verify::Off`].
pub(crate) fn must_fit(
    archive: &Archive,
    history: Option<&TimelineHistory>,
    shown: &str,
) -> Result<(), Error> {
    let Some(history) = history.filter(|_| archive.options.verify != Verify::Off) else {
        return Ok(());
    };
    let Some(begins) = history.begins() else {
        return Ok(());
    };
    let Some((name, key)) = lowest(archive, history.timeline())? else {
        return Ok(());
    };
    let header = match header_of(archive, &key) {
        Ok(Some(header)) => header,
        // It says nothing about segments, and was not asked for.
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(()),
        Err(error) => return Err(error),
    };
    let size = header.segment_size;
    match name.number(size) {
        Some(number) if number < begins.segment(size) => Err(Error::damaged(format!(
            "{shown} is not valid: it says that timeline {} begins at {begins}, and segment \"{name}\" is there",
            history.timeline()
        ))
        .with_hint("One of the two is wrong: look with walden verify.")),
        _ => Ok(()),
    }
}

/// Fails if a segment begins on an older timeline than its name says, and its timeline has a segment before: it is another
/// timeline's under a wrong name. The server would take it for the end of WAL (`XLogReaderValidatePageHeader`, 15 to 18).
pub(crate) fn must_begin_here(
    archive: &Archive,
    name: &SegmentName,
    header: &LongPageHeader,
    shown: &str,
) -> Result<(), Error> {
    let (own, found) = (name.timeline(), header.timeline);
    if own == found {
        return Ok(());
    }
    match name.previous(header.segment_size) {
        Some(before) if is_stored(archive, before)? => {
            Err(Error::damaged(format!(
                "{shown} is not valid: it begins on timeline {found}, although \"{before}\" is on timeline {own} already"
            ))
            .with_hint("It may have another segment's name: look with walden verify."))
        }
        _ => Ok(()),
    }
}

/// The lowest segment of a timeline, and its key. Partial segments do not count: a server may be asked for one by hand.
fn lowest(archive: &Archive, timeline: TimelineId) -> Result<Option<(SegmentName, String)>, Error> {
    let mut lowest: Option<(SegmentName, String)> = None;
    let prefix = format!("{:08X}", timeline.get());
    archive.store.list(&prefix, Detail::Keys, &mut |entry| {
        if let Some(WalFileName::Segment(name)) = parse_key(&entry.key)
            && lowest.as_ref().is_none_or(|(lowest, _)| name < *lowest)
        {
            lowest = Some((name, entry.key));
        }
        if lowest.is_some() && archive.store.lists_in_order() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(lowest)
}

#[cfg(test)]
mod tests {
    use wal::{SegmentSize, SystemIdentifier};

    use super::*;
    use crate::suite::fixtures;
    use crate::{Cancel, ErrorKind, Got, MemoryStore, Options};

    fn scene(history: &str, segments: &[u64]) -> (Archive, MemoryStore) {
        let store = MemoryStore::new();
        for number in segments {
            let name: SegmentName = format!("0000000200000000{number:08X}").parse().unwrap();
            let bytes = fixtures::segment(&name, SegmentSize::SMALLEST, SystemIdentifier(7), 1);
            store.overwrite(&name.to_string(), &bytes);
        }
        if !history.is_empty() {
            store.overwrite("00000002.history", history.as_bytes());
        }
        let archive = Archive::with_store(Box::new(store.clone()), Options::default());
        (archive, store)
    }

    fn get(archive: &Archive) -> Result<Got, Error> {
        let dir = tempfile::tempdir().unwrap();
        let name = "00000002.history".parse().unwrap();
        archive.get(&name, &dir.path().join("x"), None, &Cancel::new())
    }

    #[test]
    fn a_segment_of_the_timeline_before_is_refused_unless_its_own_timeline_begins_in_it() {
        let (archive, store) = scene("", &[6]);
        let name = |text: &str| text.parse::<SegmentName>().unwrap();
        let parents = name("000000010000000000000005");
        let size = SegmentSize::SMALLEST;
        let bytes = fixtures::segment(&parents, size, SystemIdentifier(7), 1);
        let fifth = name("000000020000000000000005");
        store.overwrite(&fifth.to_string(), &bytes);
        let get = |segment| {
            let dir = tempfile::tempdir().unwrap();
            let name = WalFileName::Segment(segment);
            archive.get(&name, &dir.path().join("x"), None, &Cancel::new())
        };
        assert!(matches!(get(fifth), Ok(Got::Restored { .. })));
        store.overwrite("000000020000000000000004", b"whatever");
        let error = get(fifth).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let expected =
            "begins on timeline 1, although \"000000020000000000000004\" is on timeline 2";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_history_file_that_begins_a_timeline_behind_its_segments_is_refused() {
        let (archive, _) = scene("1\t0/500028\tx\n", &[5, 6]);
        assert!(matches!(get(&archive), Ok(Got::Restored { .. })));
        let (archive, _) = scene("1\t0/600028\tx\n", &[5, 6]);
        let error = get(&archive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("begins at 0/600028"), "{error}");
        // What has been cleaned up says nothing, nor does a segment that is damaged itself.
        let (archive, store) = scene("1\t0/500028\tx\n", &[9]);
        assert!(get(&archive).is_ok());
        store.overwrite("000000020000000000000004", b"rubbish");
        assert!(get(&archive).is_ok());
    }
}
