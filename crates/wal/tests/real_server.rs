//! What PostgreSQL 15 wrote: first pages of segments and a timeline history file, as constants.
//!
//! Made with `initdb --wal-segsize=1`, `initdb --wal-segsize=16`, and a third cluster that was
//! twice taken through archive recovery with nothing to restore. The system identifiers are
//! those that `pg_controldata` printed. The bytes are from a little-endian machine, so the tests
//! that parse them run there alone.

#![cfg_attr(
    target_endian = "little",
    expect(
        clippy::unwrap_used,
        reason = "the lints let #[test] functions do this, but not what they call"
    )
)]

use wal::{TimelineHistory, TimelineId};

/// `00000003.history` of the third cluster, with the blank line that the server puts in.
const HISTORY_OF_3: &[u8] = b"1\t0/15375A0\tno recovery target specified\n\
    \n\
    2\t0/1537618\tno recovery target specified\n";

#[test]
fn a_real_timeline_history_file_names_both_ancestors() {
    let third = TimelineId::new(3).unwrap();
    let history = TimelineHistory::parse(third, HISTORY_OF_3).unwrap();
    let read: Vec<String> = history
        .entries()
        .iter()
        .map(|ancestor| format!("{} until {}", ancestor.timeline, ancestor.switchpoint))
        .collect();
    assert_eq!(read, ["1 until 0/15375A0", "2 until 0/1537618"]);
    assert!(
        history
            .entries()
            .iter()
            .all(|a| a.reason == "no recovery target specified")
    );
    assert_eq!(history.begins(), Some("0/1537618".parse().unwrap()));
}

#[cfg(target_endian = "little")]
mod pages {
    use wal::{
        HeaderErrorKind, LONG_PAGE_HEADER_BYTES, LongPageHeader, SegmentName, SystemIdentifier,
    };

    /// `000000010000000000000006` of 1 MB; it begins with the rest of a record.
    const SIXTH_OF_1_MB: [u8; LONG_PAGE_HEADER_BYTES] = [
        0x10, 0xd1, 0x07, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x60, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x1b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x51, 0x78, 0x6e, 0x2f, 0x0a,
        0x02, 0x6b, 0x00, 0x00, 0x10, 0x00, 0x00, 0x20, 0x00, 0x00,
    ];

    /// `000000010000000000000001` of 16 MB.
    const FIRST_OF_16_MB: [u8; LONG_PAGE_HEADER_BYTES] = [
        0x10, 0xd1, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x38, 0x91, 0x93, 0x27, 0x30, 0x0a,
        0x02, 0x6b, 0x00, 0x00, 0x00, 0x01, 0x00, 0x20, 0x00, 0x00,
    ];

    /// `000000030000000000000001` of the third cluster: timeline 3 begins in the middle of it, and
    /// the page in front is a copy of a copy from timeline 1.
    const FIRST_OF_TIMELINE_3: [u8; LONG_PAGE_HEADER_BYTES] = [
        0x10, 0xd1, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x8c, 0x60, 0xe3, 0x62, 0x58, 0x0c,
        0x02, 0x6b, 0x00, 0x00, 0x00, 0x01, 0x00, 0x20, 0x00, 0x00,
    ];

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn real_first_pages_say_what_the_server_was_told() {
        for (bytes, segment, size, system) in [
            (
                SIXTH_OF_1_MB,
                "000000010000000000000006",
                "1MB",
                7_710_736_710_844_829_984,
            ),
            (
                FIRST_OF_16_MB,
                "000000010000000000000001",
                "16MB",
                7_710_736_713_950_400_824,
            ),
            (
                FIRST_OF_TIMELINE_3,
                "000000030000000000000001",
                "16MB",
                7_710_739_085_767_434_380,
            ),
        ] {
            let header = LongPageHeader::parse(&bytes).unwrap();
            assert_eq!(header.magic.major(), Some(15));
            assert_eq!(header.timeline.get(), 1);
            assert_eq!(header.segment_size.to_string(), size);
            assert_eq!(header.block_size, 8192);
            assert_eq!(header.system, SystemIdentifier(system));
            assert_eq!(
                Some(header.address),
                name(segment).start(header.segment_size)
            );
            assert_eq!(header.check_name(&name(segment)), Ok(()));
        }
    }

    #[test]
    fn real_first_pages_do_not_pass_for_a_neighbour() {
        let header = LongPageHeader::parse(&SIXTH_OF_1_MB).unwrap();
        for other in ["000000010000000000000005", "000000010000000000000007"] {
            let error = header.check_name(&name(other)).unwrap_err();
            assert_eq!(error.kind(), HeaderErrorKind::Misnamed);
        }
    }

    #[test]
    fn a_first_page_copied_at_a_switchpoint_keeps_its_old_timeline_and_fits_each_name_since() {
        let header = LongPageHeader::parse(&FIRST_OF_TIMELINE_3).unwrap();
        for timeline in 1..=3 {
            let segment = name(&format!("{timeline:08X}0000000000000001"));
            assert_eq!(header.check_name(&segment), Ok(()));
        }
    }
}
