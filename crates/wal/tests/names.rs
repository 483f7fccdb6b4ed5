//! Properties of names and places, for random values over every segment size.
//!
//! A failing case is shrunk and printed, and its seed is kept in `names.regressions` beside this
//! file, from where the next run replays it first. Headers and timeline history files have
//! their own properties in `contents.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the lints let #[test] functions do this, but not what they call"
)]

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use wal::{KeepFrom, Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineId, WalFileName};

const ZEROS: &str = "000000000000000000000000";

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn size() -> impl Strategy<Value = SegmentSize> {
    prop::sample::select(SegmentSize::all().collect::<Vec<_>>())
}

fn timeline() -> impl Strategy<Value = TimelineId> {
    prop_oneof![1..20_u32, 1..=u32::MAX].prop_map(|number| TimelineId::new(number).unwrap())
}

/// Numbers near the ends and near where the last eight digits wrap are drawn more often.
fn number(size: SegmentSize) -> impl Strategy<Value = SegmentNumber> {
    let last = SegmentNumber::last(size).0;
    let wrap = size.segments_per_log_id();
    prop_oneof![0..=wrap, last - wrap..=last, 0..=last].prop_map(SegmentNumber)
}

fn size_and_number() -> impl Strategy<Value = (SegmentSize, SegmentNumber)> {
    size().prop_flat_map(|size| (Just(size), number(size)))
}

/// Any 24 digits, also ones that no segment size allows.
fn segment() -> impl Strategy<Value = SegmentName> {
    // Powers of two and their neighbours: there some sizes allow the digits and others do not.
    let edge = (0..=13_u32, 0..3_u32).prop_map(|(power, plus)| (1 << power) - 1 + plus);
    let part = move || prop_oneof![edge.clone(), any::<u32>()];
    (timeline(), part(), part()).prop_map(|(timeline, high, low)| {
        format!("{:08X}{high:08X}{low:08X}", timeline.get())
            .parse()
            .unwrap()
    })
}

fn file_name() -> impl Strategy<Value = WalFileName> {
    let offset = prop_oneof![Just(0x28), any::<u32>()];
    prop_oneof![
        segment().prop_map(WalFileName::Segment),
        segment().prop_map(WalFileName::Partial),
        timeline().prop_map(WalFileName::TimelineHistory),
        (segment(), offset)
            .prop_map(|(segment, offset)| WalFileName::BackupHistory { segment, offset }),
    ]
}

/// A name with one character replaced, removed or inserted, which is where a lenient parser shows.
fn nearly_a_name() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        prop::char::range('!', '~'),
        prop::sample::select(vec![
            'a', 'f', '0', '.', ' ', '\n', '\0', '+', '-', '\u{661}'
        ]),
    ];
    (
        file_name(),
        any::<prop::sample::Index>(),
        character,
        0..3_u8,
    )
        .prop_map(|(name, at, character, edit)| {
            let mut text: Vec<char> = name.to_string().chars().collect();
            let at = at.index(text.len());
            match edit {
                0 => text[at] = character,
                1 => drop(text.remove(at)),
                _ => text.insert(at, character),
            }
            text.into_iter().collect()
        })
}

/// What `pg_archivecleanup` does with plain text: `strcmp` on all that follows the timeline.
fn pg_archivecleanup_removes(keep: &str, name: &str) -> bool {
    let digits = name
        .bytes()
        .take_while(|b| b"0123456789ABCDEF".contains(b))
        .count();
    let kind = name.len() == 24 || (name.len() == 32 && name.ends_with(".partial"));
    digits == 24 && kind && name[8..] < keep[8..24]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_number_goes_to_a_name_to_text_and_back(
        (size, number) in size_and_number(), timeline in timeline(),
    ) {
        let name = SegmentName::new(timeline, number, size);
        prop_assert_eq!(name.number(size), Some(number));
        prop_assert_eq!(name.timeline(), timeline);
        let text = name.to_string();
        prop_assert_eq!(text.len(), SegmentName::CHARS);
        prop_assert_eq!(text.parse::<SegmentName>(), Ok(name));
        prop_assert_eq!(text.parse::<WalFileName>(), Ok(WalFileName::Segment(name)));
    }

    #[test]
    fn a_name_has_the_digits_that_division_gives(
        (size, number) in size_and_number(), timeline in timeline(),
    ) {
        let start = number.start(size).unwrap().0;
        let (high, low) = (start >> 32, (start & 0xFFFF_FFFF) / size.bytes());
        let expected = format!("{:08X}{high:08X}{low:08X}", timeline.get());
        prop_assert_eq!(SegmentName::new(timeline, number, size).to_string(), expected);
    }

    #[test]
    fn each_segment_begins_where_the_one_before_ends(
        (size, number) in size_and_number(), timeline in timeline(),
    ) {
        let name = SegmentName::new(timeline, number, size);
        let start = name.start(size).unwrap();
        prop_assert_eq!(start, number.start(size).unwrap());
        match name.next(size) {
            Some(next) => {
                prop_assert_eq!(next.number(size), Some(SegmentNumber(number.0 + 1)));
                prop_assert_eq!(next.start(size), Some(Lsn(start.0 + size.bytes())));
                prop_assert_eq!(next.timeline(), timeline);
                prop_assert!(next > name);
                prop_assert!(next.to_string() > name.to_string());
            }
            None => prop_assert_eq!(start.0.checked_add(size.bytes()), None),
        }
    }

    #[test]
    fn each_place_lies_in_one_segment(
        size in size(), timeline in timeline(), place in any::<u64>(),
    ) {
        let name = SegmentName::holding(timeline, Lsn(place), size);
        let start = name.start(size).unwrap();
        prop_assert_eq!(start.0 + Lsn(place).offset_in_segment(size), place);
        prop_assert!(Lsn(place).offset_in_segment(size) < size.bytes());
        prop_assert_eq!(name.number(size), Some(Lsn(place).segment(size)));
    }

    #[test]
    fn names_order_as_the_places_they_name(
        (size, a, b) in size().prop_flat_map(|size| (Just(size), number(size), number(size))),
        timeline in timeline(),
        other in timeline(),
    ) {
        let (first, second) =
            (SegmentName::new(timeline, a, size), SegmentName::new(timeline, b, size));
        prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        prop_assert_eq!(first.start(size).cmp(&second.start(size)), a.cmp(&b));
        // And without the timeline, which is how files are chosen for removal.
        let elsewhere = second.with_timeline(other);
        prop_assert_eq!(first.position().cmp(&elsewhere.position()), a.cmp(&b));
        prop_assert_eq!(elsewhere.number(size), Some(b));
    }

    #[test]
    fn digits_a_size_does_not_allow_name_no_segment_of_it(name in segment(), size in size()) {
        let allowed = u64::from(name.position().1) < size.segments_per_log_id();
        prop_assert_eq!(name.number(size).is_some(), allowed);
        prop_assert_eq!(name.start(size).is_some(), allowed);
        prop_assert!(allowed || name.next(size).is_none());
        if let Some(number) = name.number(size) {
            prop_assert_eq!(SegmentName::new(name.timeline(), number, size), name);
        }
    }

    #[test]
    fn every_file_name_goes_to_text_and_back(name in file_name()) {
        let text = name.to_string();
        prop_assert!((16..=WalFileName::CHARS_MAX).contains(&text.len()));
        prop_assert_eq!(text.parse::<WalFileName>(), Ok(name));
    }

    #[test]
    fn file_names_order_as_their_texts(
        a in file_name(), b in file_name(), segment in segment(), offset in any::<u32>(),
    ) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        // Names that share their digits, which random ones never do.
        let kin = [
            WalFileName::TimelineHistory(segment.timeline()),
            WalFileName::Segment(segment),
            WalFileName::BackupHistory { segment, offset },
            WalFileName::Partial(segment),
        ];
        for (a, b) in kin.iter().flat_map(|a| kin.iter().map(move |b| (a, b))) {
            prop_assert_eq!(a.cmp(b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn whatever_text_is_taken_is_given_back_unchanged(
        text in prop_oneof![nearly_a_name(), any::<String>(), "[0-9A-Fa-f./]{0,41}"],
    ) {
        if let Ok(name) = text.parse::<WalFileName>() {
            prop_assert_eq!(name.to_string(), &*text);
        }
        if let Ok(name) = text.parse::<SegmentName>() {
            prop_assert_eq!(name.to_string(), &*text);
        }
        if let Ok(keep) = text.parse::<KeepFrom>() {
            prop_assert!(text.starts_with(&keep.to_string()));
        }
    }

    #[test]
    fn texts_that_are_bytes_of_any_kind_never_panic(bytes in any::<Vec<u8>>()) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = text.parse::<WalFileName>();
        let _ = text.parse::<KeepFrom>();
        let _ = text.parse::<wal::SystemIdentifier>();
        if let Ok(place) = text.parse::<Lsn>() {
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }
    }

    #[test]
    fn a_place_goes_to_text_and_back(place in any::<u64>()) {
        let text = Lsn(place).to_string();
        prop_assert_eq!(text.parse(), Ok(Lsn(place)));
        prop_assert_eq!(text.to_lowercase().parse(), Ok(Lsn(place)));
        let padded = format!("{:08X}/{:08X}", place >> 32, place & 0xFFFF_FFFF);
        prop_assert_eq!(padded.parse(), Ok(Lsn(place)));
    }

    #[test]
    fn files_are_removable_exactly_when_strcmp_says_so(
        keep in segment(), name in file_name(), suffix in 0..3_usize,
    ) {
        let text = name.to_string();
        let keep = format!("{keep}{}", ["", ".partial", ".00000028.backup"][suffix]);
        let parsed: KeepFrom = keep.parse().unwrap();
        prop_assert_eq!(parsed.may_remove(&name), pg_archivecleanup_removes(&keep, &text));
        prop_assert!(!KeepFrom::Everything.may_remove(&name));
        prop_assert!(!pg_archivecleanup_removes(ZEROS, &text));
    }

    #[test]
    fn neighbours_of_the_oldest_file_to_keep_are_judged_as_strcmp_judges_them(
        (size, number) in size_and_number(), here in timeline(), there in timeline(),
    ) {
        let oldest = SegmentName::new(here, number, size);
        let keep = KeepFrom::Segment(oldest);
        let before = number.0.checked_sub(1).map(SegmentNumber);
        let before = before.map(|number| SegmentName::new(there, number, size));
        for segment in [before, Some(oldest.with_timeline(there)), oldest.next(size)] {
            let Some(segment) = segment else { continue };
            for name in [WalFileName::Segment(segment), WalFileName::Partial(segment)] {
                prop_assert_eq!(
                    keep.may_remove(&name),
                    pg_archivecleanup_removes(&oldest.to_string(), &name.to_string())
                );
                prop_assert_eq!(keep.may_remove(&name), Some(segment) == before);
            }
        }
    }
}
