//! Files as they pass by, and which pages of them count.

use super::*;
use crate::page::tests::page;

const START: Lsn = Lsn(0x500_0028);

fn rule(major: u32) -> PageRule {
    PageRule {
        major,
        start_lsn: START,
        page_bytes: 8192,
        segment_pages: 131_072,
    }
}

fn path(text: &str) -> SafePath {
    SafePath::new(text.as_bytes()).unwrap()
}

fn report(name: &str, contents: &[u8], piece: usize) -> PageReport {
    let mut checker = Checker::new(Some(rule(18)));
    checker.begin(&path(name));
    for piece in contents.chunks(piece) {
        checker.feed(piece);
    }
    checker.end();
    checker.report()
}

/// Three pages of which the middle one is broken.
fn broken(first: u32, lsn: Lsn) -> Vec<u8> {
    let mut pages: Vec<u8> = (first..first + 3)
        .flat_map(|block| page(block, lsn))
        .collect();
    pages[8192 + 4000] ^= 1;
    pages
}

#[test]
fn a_corrupt_page_is_found_whatever_pieces_it_comes_in() {
    let pages = broken(0, Lsn(0x400_0000));
    for piece in [1, 100, 8191, 8192, 8193, 32_768] {
        let report = report("base/5/1259", &pages, piece);
        assert_eq!(
            (report.checked, report.corrupt),
            (3, 1),
            "pieces of {piece}"
        );
        assert_eq!(report.files, ["base/5/1259"]);
        assert_eq!(report.state, PageState::Corrupt);
    }
}

#[test]
fn pages_that_recovery_brings_anew_or_that_were_never_used_do_not_count() {
    for lsn in [START, Lsn(START.0 + 1)] {
        let report = report("base/5/1259", &broken(0, lsn), 32_768);
        assert_eq!((report.checked, report.state), (0, PageState::Ok));
    }
    let report = report("base/5/1259", &[0; 8192 * 2], 32_768);
    assert_eq!((report.checked, report.state), (0, PageState::Ok));
}

#[test]
fn a_page_of_a_later_file_is_numbered_behind_those_before_it() {
    let pages = broken(2 * 131_072, Lsn(1));
    let report_2 = report("base/5/16400.2", &pages, 32_768);
    assert_eq!((report_2.checked, report_2.corrupt), (3, 1));
    let report_1 = report("base/5/16400.1", &pages, 32_768);
    assert_eq!(report_1.corrupt, 3);
}

#[test]
fn what_is_no_whole_page_at_the_end_does_not_count() {
    let mut pages = page(0, Lsn(1));
    pages.extend([7; 100]);
    let report = report("base/5/1259", &pages, 32_768);
    assert_eq!((report.checked, report.corrupt), (1, 0));
}

#[test]
fn without_a_rule_or_with_one_that_no_server_has_nothing_is_checked() {
    let odd = PageRule {
        page_bytes: 1000,
        ..rule(18)
    };
    for rule in [None, Some(odd)] {
        let mut checker = Checker::new(rule);
        checker.begin(&path("base/5/1259"));
        checker.feed(&broken(0, Lsn(1)));
        assert_eq!(checker.report().state, PageState::Unchecked);
    }
}

#[test]
fn an_incremental_file_says_which_pages_it_holds() {
    let blocks = [3, 70_000, 131_000];
    let mut contents = Vec::new();
    for word in [INCREMENTAL_MAGIC, 3, 131_072].iter().chain(&blocks) {
        contents.extend(word.to_ne_bytes());
    }
    contents.resize(8192, 0);
    for block in blocks {
        contents.extend(page(131_072 + block, Lsn(1)));
    }
    for piece in [1, 11, 12, 4096, 8192, 100_000] {
        let right = report("base/5/INCREMENTAL.16400.1", &contents, piece);
        assert_eq!((right.checked, right.corrupt), (3, 0), "pieces of {piece}");
        let wrong = report("base/5/INCREMENTAL.16400.2", &contents, piece);
        assert_eq!((wrong.checked, wrong.corrupt), (3, 3));
    }
    let empty: Vec<u8> = [INCREMENTAL_MAGIC, 0, 5]
        .iter()
        .flat_map(|it| it.to_ne_bytes())
        .collect();
    assert_eq!(report("base/5/INCREMENTAL.16400", &empty, 5).checked, 0);
    let none = report("base/5/INCREMENTAL.16400", &page(0, Lsn(1)), 100);
    assert_eq!(none.checked, 0);
}

#[test]
fn files_are_checked_that_the_server_checks() {
    let segment = |major, text: &str| place(major, &path(text)).map(|it| it.segment);
    for (text, before_17, from_17) in [
        ("base/5/1259", Some(0), Some(0)),
        ("base/5/1259_fsm", Some(0), Some(0)),
        ("base/5/1259_vm.3", Some(3), Some(3)),
        ("base/5/1259.17", Some(17), Some(17)),
        ("global/1262", Some(0), Some(0)),
        (
            "pg_tblspc/16384/PG_18_202506291/5/16400.1",
            Some(1),
            Some(1),
        ),
        ("global/pg_control", None, None),
        ("global/pg_filenode.map", None, None),
        ("base/5/PG_VERSION", None, None),
        ("base/5/pg_internal.init.123", None, None),
        ("base/5/junk", Some(0), None),
        ("base/5/01259", Some(0), None),
        ("base/5/1259_new", Some(0), None),
        ("base/5/1259.x", Some(0), None),
        ("base/pgsql/1259", Some(0), None),
        ("pg_xact/0000", None, None),
        ("backup_label", None, None),
        ("pg_multixact/offsets/0000", None, None),
    ] {
        for major in [15, 16] {
            assert_eq!(segment(major, text), before_17, "{text} on {major}");
        }
        for major in [17, 18, 19] {
            assert_eq!(segment(major, text), from_17, "{text} on {major}");
        }
    }
}
