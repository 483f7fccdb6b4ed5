//! Properties of what is read out of files: page headers and timeline history files.
//!
//! Random values over every segment size; a failing case is shrunk and printed, and its seed is
//! kept in `contents.regressions` beside this file. What real servers wrote is in `real_server.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "the lints let #[test] functions do this, but not what they call"
)]

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wal::{
    HeaderErrorKind, LONG_PAGE_HEADER_BYTES, LongPageHeader, Lsn, SegmentName, SegmentNumber,
    SegmentSize, SystemIdentifier, TimelineHistory, TimelineId, WalMagic,
};

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn timeline() -> impl Strategy<Value = TimelineId> {
    prop_oneof![1..20_u32, 1..=u32::MAX].prop_map(|number| TimelineId::new(number).unwrap())
}

fn header() -> impl Strategy<Value = LongPageHeader> {
    (
        prop::sample::select(SegmentSize::all().collect::<Vec<_>>()),
        prop::sample::select(vec![0xD110_u16, 0xD113, 0xD116, 0xD118, 0xD122]),
        timeline(),
        any::<u64>(),
        any::<u64>(),
        10..=16_u32,
    )
        .prop_map(
            |(size, magic, timeline, place, system, block)| LongPageHeader {
                magic: WalMagic(magic),
                timeline,
                address: Lsn(place - Lsn(place).offset_in_segment(size)),
                system: SystemIdentifier(system),
                segment_size: size,
                block_size: 1 << block,
            },
        )
}

/// The header as the server lays it out in memory and so in the file.
fn write_header(header: &LongPageHeader, flags: u16, continued: u32) -> Vec<u8> {
    let segment_bytes = u32::try_from(header.segment_size.bytes()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(header.magic.0.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(header.timeline.get().to_ne_bytes());
    bytes.extend(header.address.0.to_ne_bytes());
    bytes.extend(continued.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(header.system.0.to_ne_bytes());
    bytes.extend(segment_bytes.to_ne_bytes());
    bytes.extend(header.block_size.to_ne_bytes());
    bytes
}

/// A timeline and its ancestors, with switchpoints in any order, as servers really write them.
fn lineage() -> impl Strategy<Value = (TimelineId, Vec<(TimelineId, Lsn)>)> {
    prop::collection::btree_map(1..50_u32, 1..=u64::MAX, 1..8).prop_map(|ancestors| {
        let own = ancestors.keys().max().unwrap() + 1;
        let ancestors = ancestors
            .into_iter()
            .map(|(timeline, place)| (TimelineId::new(timeline).unwrap(), Lsn(place)))
            .collect();
        (TimelineId::new(own).unwrap(), ancestors)
    })
}

/// The text as `writeTimeLineHistory` builds it: each line after a copy of the parent's file.
fn write_history(ancestors: &[(TimelineId, Lsn)], reason: &str) -> String {
    let lines = ancestors
        .iter()
        .map(|(timeline, place)| format!("{timeline}\t{place}\t{reason}\n"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `tliOfPointInHistory` in its own terms: from the newest back, the stretch that has the place.
fn tli_of_point(own: TimelineId, ancestors: &[(TimelineId, Lsn)], place: Lsn) -> TimelineId {
    let begins = std::iter::once(None).chain(ancestors.iter().map(|(_, end)| Some(*end)));
    let ends = ancestors.iter().map(|(_, end)| Some(*end)).chain([None]);
    let timelines = ancestors.iter().map(|(timeline, _)| *timeline).chain([own]);
    let stretches: Vec<_> = timelines.zip(begins.zip(ends)).collect();
    let holds = |begin: Option<Lsn>, end: Option<Lsn>| {
        begin.is_none_or(|begin| begin <= place) && end.is_none_or(|end| place < end)
    };
    stretches
        .into_iter()
        .rev()
        .find(|(_, (begin, end))| holds(*begin, *end))
        .unwrap()
        .0
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_header_is_read_as_it_was_written(
        header in header(), flags in 0..16_u16, continued in any::<u32>(),
    ) {
        // 19 has one flag less.
        let flags = flags & if header.magic == WalMagic(0xD122) { 7 } else { 15 };
        let bytes = write_header(&header, flags | 2, continued);
        prop_assert_eq!(bytes.len(), LONG_PAGE_HEADER_BYTES);
        prop_assert_eq!(LongPageHeader::parse(&bytes), Ok(header));
        prop_assert!(LongPageHeader::parse(&write_header(&header, flags & !2, continued)).is_err());
    }

    #[test]
    fn a_header_fits_its_own_name_on_its_timeline_and_later_ones_only(
        header in header(), other in timeline(), number in any::<u32>(),
    ) {
        let size = header.segment_size;
        let own = SegmentName::holding(header.timeline, header.address, size);
        prop_assert_eq!(header.check_name(&own), Ok(()));
        let elsewhere = header.check_name(&own.with_timeline(other));
        prop_assert_eq!(elsewhere.is_ok(), other >= header.timeline);
        let another = SegmentName::new(header.timeline, SegmentNumber(u64::from(number)), size);
        if another != own {
            let error = header.check_name(&another).unwrap_err();
            prop_assert_eq!(error.kind(), HeaderErrorKind::Misnamed);
            prop_assert!(error.to_string().contains(&own.to_string()));
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic_a_reader(bytes in any::<Vec<u8>>(), timeline in timeline()) {
        let header = LongPageHeader::parse(&bytes);
        let short = bytes.len() < LONG_PAGE_HEADER_BYTES;
        prop_assert_eq!(short, header.is_err_and(|e| e.kind() == HeaderErrorKind::Short));
        let _ = TimelineHistory::parse(timeline, &bytes);
    }

    #[test]
    fn a_header_with_changed_bytes_is_refused_or_still_makes_sense(
        header in header(), at in 0..LONG_PAGE_HEADER_BYTES, byte in any::<u8>(),
    ) {
        let mut bytes = write_header(&header, 2, 0);
        bytes[at] = byte;
        if let Ok(read) = LongPageHeader::parse(&bytes) {
            let own = SegmentName::holding(read.timeline, read.address, read.segment_size);
            prop_assert_eq!(read.check_name(&own), Ok(()));
            prop_assert!(read.block_size.is_power_of_two());
        }
    }

    #[test]
    fn a_timeline_history_file_is_read_as_the_server_writes_it(
        (own, ancestors) in lineage(), reason in "[ -~]{0,80}",
    ) {
        let text = write_history(&ancestors, &reason);
        let history = TimelineHistory::parse(own, text.as_bytes()).unwrap();
        let read: Vec<_> = history.entries().iter().map(|a| (a.timeline, a.switchpoint)).collect();
        prop_assert_eq!(&read, &ancestors);
        prop_assert!(history.entries().iter().all(|a| a.reason == reason.trim()));
        prop_assert_eq!(history.begins(), ancestors.last().map(|(_, place)| *place));
        for (timeline, place) in &ancestors {
            prop_assert_eq!(history.switchpoint_of(*timeline), Some(*place));
        }
        prop_assert_eq!(history.switchpoint_of(own), None);
    }

    #[test]
    fn a_place_is_held_by_the_timeline_the_server_finds(
        (own, ancestors) in lineage(), place in any::<u64>(),
    ) {
        let text = write_history(&ancestors, "");
        let history = TimelineHistory::parse(own, text.as_bytes()).unwrap();
        let switchpoints = ancestors.iter().flat_map(|(_, at)| [at.0 - 1, at.0]);
        for place in switchpoints.chain([0, place]).map(Lsn) {
            prop_assert_eq!(history.timeline_at(place), tli_of_point(own, &ancestors, place));
        }
    }

    #[test]
    fn the_same_file_is_refused_for_an_ancestor(
        (_, ancestors) in lineage(), which in any::<prop::sample::Index>(),
    ) {
        let (ancestor, _) = *which.get(&ancestors);
        let text = write_history(&ancestors, "reason");
        prop_assert!(TimelineHistory::parse(ancestor, text.as_bytes()).is_err());
    }
}
