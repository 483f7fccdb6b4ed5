//! What the reader of segments sees in made-up WAL: whole, damaged, and left over.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use fixtures::{FIRST, SEGMENT, Written};
use proptest::prelude::*;
use wal::{Lsn, Meaning, ReadError, SegmentEnd, SegmentName, SegmentReader, SegmentSummary};

fn read(
    name: SegmentName,
    bytes: &[u8],
    piece: usize,
) -> Result<(SegmentSummary, Vec<Lsn>), ReadError> {
    let mut reader = SegmentReader::new(name);
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.feed(piece, |record| seen.push(record.lsn))?;
    }
    Ok((reader.finish()?, seen))
}

fn summary(name: SegmentName, bytes: &[u8]) -> Result<SegmentSummary, ReadError> {
    read(name, bytes, 128 * 1024).map(|(summary, _)| summary)
}

/// Reads all segments, and joins them; returns where every record begins.
fn read_all(segments: &[(SegmentName, Vec<u8>)]) -> Result<Vec<Lsn>, ReadError> {
    let mut all = Vec::new();
    let mut before: Option<SegmentSummary> = None;
    for (name, bytes) in segments {
        let (mut summary, seen) = read(*name, bytes, 128 * 1024)?;
        if let Some(before) = &before {
            before.join(&mut summary, |record| all.push(record.lsn))?;
        }
        all.extend(seen);
        before = Some(summary);
    }
    Ok(all)
}

/// Three and a half segments: records over pages and segments, a switch, an end with zeros behind it.
fn plenty() -> (Written, Vec<Lsn>) {
    let mut wal = Written::new();
    let mut all = Vec::new();
    let lengths = [29, 100, 8000, 40, 20_000, 333, 64, 9000];
    while wal.end < SEGMENT * 2 - 50_000 {
        for length in lengths {
            all.push(wal.data(length));
        }
    }
    all.push(wal.data(200_000));
    all.push(wal.switch());
    while wal.end < SEGMENT * 3 + 300_000 {
        for length in lengths {
            all.push(wal.data(length));
        }
    }
    (wal, all)
}

#[test]
fn every_record_is_seen_once_whatever_it_goes_over() {
    let (wal, written) = plenty();
    assert_eq!(wal.bytes.len(), 4 * SEGMENT);
    assert_eq!(read_all(&wal.segments(1)), Ok(written));
}

#[test]
fn the_ends_of_segments_are_told_apart() {
    let (wal, written) = plenty();
    let ends: Vec<SegmentEnd> = wal
        .segments(1)
        .iter()
        .map(|(name, bytes)| summary(*name, bytes).unwrap().end())
        .collect();
    let switch = written
        .iter()
        .rfind(|lsn| lsn.0 < (FIRST + 3) * SEGMENT as u64)
        .unwrap();
    assert_eq!(
        ends,
        [
            SegmentEnd::Full,
            SegmentEnd::Full,
            SegmentEnd::Switched(*switch),
            SegmentEnd::Ended(wal.lsn())
        ]
    );
}

#[test]
fn pieces_of_any_length_give_the_same() {
    let (wal, _) = plenty();
    let (name, bytes) = wal.segments(1).remove(1);
    let whole = read(name, &bytes, SEGMENT).unwrap();
    for piece in [1, 7, 24, 40, 8191, 8192, 8193, 100_000] {
        let pieces = read(name, &bytes, piece).unwrap();
        assert_eq!(pieces.1, whole.1, "pieces of {piece}");
        assert_eq!(pieces.0.records, whole.0.records);
        assert_eq!(pieces.0.first, whole.0.first);
    }
}

#[test]
fn a_record_over_four_segments_is_checked_once_its_end_is_there() {
    let mut wal = Written::new();
    wal.fill(SEGMENT / 2);
    let long = wal.data(2 * SEGMENT + SEGMENT / 2 + 7);
    let behind = wal.data(50);
    let segments = wal.segments(1);
    assert_eq!(segments.len(), 4);
    let all = read_all(&segments).unwrap();
    assert_eq!(all[all.len() - 2..], [long, behind]);
    // In the middle segment, of which nothing else is known.
    for (segment, at) in [(0, SEGMENT - 5), (1, 500_000), (2, 30), (3, 100)] {
        let mut flipped = segments.clone();
        flipped[segment].1[at] ^= 0x10;
        let error = read_all(&flipped).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("at {long}:")) || at < 40,
            "{error}"
        );
    }
}

#[test]
fn what_a_recycled_segment_held_is_the_end_and_no_damage() {
    let mut older = Written::new();
    older.fill(SEGMENT - 5000);
    let mut newer = Written::new();
    newer.fill(SEGMENT);
    newer.data(100);
    newer.fill(SEGMENT + 400_000);
    for end in [0, 1, 9, 1000, 8000, 8150, 8200] {
        // A walreceiver writes what it gets and leaves the rest of the page as it was.
        let mut bytes = newer.bytes[SEGMENT..].to_vec();
        let end = newer.end - SEGMENT + end;
        bytes[end..].copy_from_slice(&older.bytes[end..]);
        let (name, _) = newer.segments(1).remove(1);
        let found = summary(name, &bytes).unwrap();
        assert_eq!(found.end(), SegmentEnd::Ended(newer.lsn()), "{end} zeros");
    }
}

#[test]
fn a_record_that_was_never_finished_is_the_end() {
    let mut wal = Written::new();
    wal.fill(300_000);
    let last = wal.data(50_000);
    let (name, mut bytes) = wal.segments(1).remove(0);
    // Its first pages are there, the rest was never written.
    let cut = (last.0 as usize % SEGMENT + 20_000) / 8192 * 8192;
    bytes[cut..].fill(0);
    assert_eq!(
        summary(name, &bytes).unwrap().end(),
        SegmentEnd::Ended(last)
    );
}

#[test]
fn zeros_with_wal_behind_them_are_damage() {
    let (wal, _) = plenty();
    let (name, bytes) = wal.segments(1).remove(0);
    for (from, to) in [(8192, 16384), (100_000, 104_096), (8192 * 50, 8192 * 127)] {
        let mut holed = bytes.clone();
        holed[from..to].fill(0);
        let error = summary(name, &holed).unwrap_err();
        assert!(matches!(error, ReadError::Damage(_)), "{error}");
    }
}

#[test]
fn zeros_to_the_end_are_found_when_the_next_segment_goes_on() {
    let (wal, _) = plenty();
    let mut segments = wal.segments(1);
    segments[0].1[500_000..].fill(0);
    assert!(matches!(
        summary(segments[0].0, &segments[0].1).unwrap().end(),
        SegmentEnd::Ended(_)
    ));
    let error = read_all(&segments).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("WAL ends here, and the next segment goes on"),
        "{error}"
    );
}

/// A number generator that a seed repeats (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn a_flipped_bit_in_wal_is_always_found_and_one_behind_its_end_never() {
    let (wal, _) = plenty();
    let segments = wal.segments(1);
    let switch = 2;
    let (mut dice, mut found, mut passed) = (Dice(20_261_122), 0, 0);
    for _ in 0..2000 {
        let segment = dice.below(segments.len());
        let (at, bit) = (dice.below(SEGMENT), dice.below(8));
        // Nothing depends on this flag (XLP_BKP_REMOVABLE).
        if at % 8192 == 2 && bit == 2 {
            continue;
        }
        let mut flipped = segments.clone();
        flipped[segment].1[at] ^= 1 << bit;
        let is_written =
            match segment {
                3 => at < wal.end % SEGMENT,
                // The switch record is the last.
                2 => summary(segments[switch].0, &segments[switch].1).is_ok_and(|summary| {
                    match summary.end() {
                        SegmentEnd::Switched(lsn) => at < lsn.0 as usize % SEGMENT + 24,
                        _ => unreachable!(),
                    }
                }),
                _ => true,
            };
        let is_found = match read_all(&flipped) {
            Err(_) => true,
            // At the end of all WAL a flipped bit must not make it shorter.
            Ok(all) => all.len() != read_all(&segments).unwrap().len(),
        };
        assert_eq!(
            is_found, is_written,
            "segment {segment}, byte {at}, bit {bit}"
        );
        if is_written { found += 1 } else { passed += 1 }
    }
    assert!(found > 1000 && passed > 100, "{found} {passed}");
}

#[test]
fn a_flipped_bit_in_the_last_record_is_damage_not_an_earlier_end() {
    let mut wal = Written::new();
    wal.fill(100_000);
    let last = wal.data(120);
    let (name, bytes) = wal.segments(1).remove(0);
    let from = last.0 as usize % SEGMENT;
    for at in from..from + 120 {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let read = summary(name, &flipped);
            assert!(
                matches!(read, Err(ReadError::Damage(_))),
                "byte {}, bit {bit}: {read:?}",
                at - from
            );
        }
    }
}

#[test]
fn a_timeline_begins_in_the_middle_of_a_segment_and_only_with_a_record() {
    let mut wal = Written::new();
    wal.fill(300_000);
    let lead = wal.clone();
    wal.promote(2);
    wal.fill(SEGMENT + 100);
    let segments = wal.segments(2);
    assert!(read_all(&segments).is_ok());
    assert_eq!(
        summary(segments[0].0, &segments[0].1)
            .unwrap()
            .timeline
            .get(),
        2
    );
    // The pages change to the timeline, but nothing has begun it.
    let mut without = lead;
    without.timeline = 2;
    without.fill(SEGMENT);
    let error = summary(segments[0].0, &without.bytes[..SEGMENT]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("pages are of timeline 2 from here on"),
        "{error}"
    );
    // Back to the old one.
    let mut back = segments[0].1.clone();
    back[8192 * 100 + 4..][..4].copy_from_slice(&1_u32.to_ne_bytes());
    let error = summary(segments[0].0, &back).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("timeline 1 where timeline 2 is written"),
        "{error}"
    );
}

#[test]
fn a_record_that_was_given_up_needs_the_record_that_says_so() {
    for says in [true, false] {
        let mut wal = Written::new();
        wal.fill(300_000);
        let before = wal.previous;
        let given_up = wal.data(50_000);
        // The server crashed here, and begins the next page anew.
        wal.end = (given_up.0 as usize % SEGMENT + 20_000) / 8192 * 8192;
        wal.previous = before;
        let end = wal.end;
        wal.bytes[end..].fill(0);
        wal.next_page_flags = 0x0008;
        let mut main = given_up.0.to_ne_bytes().to_vec();
        main.extend_from_slice(&0_i64.to_ne_bytes());
        if says {
            wal.short(0, 0xD0, &main)
        } else {
            wal.data(60)
        };
        wal.fill(SEGMENT);
        let (name, bytes) = wal.segments(1).remove(0);
        match summary(name, &bytes) {
            Ok(summary) => assert!(says, "{summary:?}"),
            Err(error) => assert!(
                !says && error.to_string().contains("was never finished"),
                "{error}"
            ),
        }
    }
}

#[test]
fn a_record_over_whole_segments_may_be_given_up_and_each_boundary_be_looked_at_alone() {
    for pages in [0, 5] {
        let mut wal = Written::new();
        wal.fill(SEGMENT / 2);
        let before = wal.previous;
        let given_up = wal.data(2 * SEGMENT);
        // The server crashed here, and begins this page anew.
        wal.end = 2 * SEGMENT + pages * 8192;
        wal.previous = before;
        let end = wal.end;
        wal.bytes[end..].fill(0);
        wal.next_page_flags = 0x0008;
        let mut main = given_up.0.to_ne_bytes().to_vec();
        main.extend_from_slice(&0_i64.to_ne_bytes());
        wal.short(0, 0xD0, &main);
        wal.fill(3 * SEGMENT);
        let segments = wal.segments(1);
        assert!(read_all(&segments).is_ok());
        let [mut second, mut third] =
            [1, 2].map(|at| summary(segments[at].0, &segments[at].1).unwrap());
        assert!(second.join(&mut third, |_| ()).is_ok());
        let mut first = summary(segments[0].0, &segments[0].1).unwrap();
        assert!(first.join(&mut second, |_| ()).is_ok());
        assert!(second.join(&mut first, |_| ()).is_err());
    }
}

#[test]
fn a_timeline_may_begin_at_a_boundary_and_be_left_before_the_next() {
    let mut wal = Written::new();
    wal.fill(300_000);
    wal.switch();
    let mut segments = wal.segments(1);
    wal.promote(2);
    wal.fill(SEGMENT + 100_000);
    wal.promote(3);
    wal.fill(2 * SEGMENT);
    segments.truncate(1);
    segments.extend(wal.segments(3).into_iter().skip(1));
    assert!(read_all(&segments).is_ok(), "{:?}", read_all(&segments));
    // Never on a later one than its name says.
    let [one, mut two] = [0, 1].map(|at| summary(segments[at].0, &segments[at].1).unwrap());
    two.header.timeline = wal::TimelineId::new(4).unwrap();
    assert!(one.join(&mut two, |_| ()).is_err());
}

#[test]
fn the_record_that_begins_a_timeline_may_go_over_a_boundary() {
    for is_promotion in [true, false] {
        let mut wal = Written::new();
        wal.fill(SEGMENT - 1000);
        wal.data(SEGMENT - 40 - wal.end);
        assert!(wal.end > SEGMENT - 56, "{}", wal.end);
        // Or something else, on pages of the timeline.
        wal.timeline = 2 - u32::from(is_promotion);
        let _ = if is_promotion {
            wal.promote(2)
        } else {
            wal.data(80)
        };
        wal.fill(2 * SEGMENT);
        let read = read_all(&wal.segments(2));
        assert_eq!(read.is_ok(), is_promotion, "{read:?}");
    }
}

#[test]
fn the_last_segment_that_there_can_be_is_read_without_a_panic() {
    let mut wal = Written::behind(u64::MAX / SEGMENT as u64, 40);
    wal.fill(SEGMENT - 1000);
    wal.data(SEGMENT - wal.end);
    let (name, bytes) = wal.segments(1).remove(0);
    assert!(name.to_string().ends_with("FFFFFFFF00000FFF"), "{name}");
    // Nobody gets that far: what counts is that there is an answer.
    drop(summary(name, &bytes));
}

#[test]
fn what_records_say_is_read() {
    let mut wal = Written::new();
    let at = 812_345_678_901_234_i64;
    wal.short(1, 0x00, &at.to_ne_bytes());
    let mut point = at.to_ne_bytes().to_vec();
    point.extend_from_slice(b"before the upgrade\0");
    point.resize(72, 0);
    wal.short(0, 0x70, &point);
    wal.switch();
    let (name, bytes) = wal.segments(1).remove(0);
    let mut said = Vec::new();
    let mut reader = SegmentReader::new(name);
    reader
        .feed(&bytes, |record| {
            said.push(format!("{:?}", record.meaning()))
        })
        .unwrap();
    let at = wal::Timestamp(at);
    assert_eq!(
        said,
        [
            format!("{:?}", Meaning::Commit { at, xid: Some(700) }),
            format!(
                "{:?}",
                Meaning::RestorePoint {
                    at,
                    name: b"before the upgrade"
                }
            ),
            format!("{:?}", Meaning::Switch),
        ]
    );
}

#[test]
fn a_segment_of_another_length_is_refused() {
    let (wal, _) = plenty();
    let (name, bytes) = wal.segments(1).remove(0);
    for length in [1, 39, 40, 8192, SEGMENT - 1] {
        let error = summary(name, &bytes[..length]).unwrap_err();
        assert!(
            error.to_string().contains(&length.min(SEGMENT).to_string()),
            "{error}"
        );
    }
    let mut longer = bytes.clone();
    longer.extend_from_slice(&bytes[..8192]);
    assert!(summary(name, &longer).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_it_panic(
        changes in prop::collection::vec((0..SEGMENT, any::<u64>(), 1_usize..64), 0..40),
        piece in 1_usize..200_000,
    ) {
        let mut wal = Written::new();
        wal.fill(SEGMENT + 10_000);
        let (name, mut bytes) = wal.segments(1).remove(0);
        for (at, seed, length) in changes {
            let mut dice = Dice(seed | 1);
            for byte in bytes.iter_mut().skip(at).take(length) {
                *byte = dice.below(256) as u8;
            }
        }
        let mut reader = SegmentReader::new(name);
        for piece in bytes.chunks(piece) {
            let fed = reader.feed(piece, |record| {
                let _ = record.parts(|_| ());
                let _ = record.meaning();
            });
            if fed.is_err() {
                break;
            }
        }
        let _ = reader.finish();
    }
}
