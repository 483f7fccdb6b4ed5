//! Documents as they are written, and as they may come back.

use serde_json::{Value, json};

use super::*;

const ID: &str = "20261129T171500Z-3fa9";

fn part(name: &str) -> Value {
    json!({ "name": name, "bytes": 10, "stored_bytes": 5, "stored_sha256": "ab".repeat(32) })
}

pub(crate) fn committed() -> Value {
    json!({
        "format": 1,
        "id": ID,
        "system_identifier": "7",
        "major": 18,
        "segment_bytes": 16 << 20,
        "kind": "full",
        "label": "nightly",
        "start_lsn": "0/4000028",
        "timeline": 1,
        "stop_lsn": "0/7000000",
        "stop_timeline": 2,
        "lineage": [{ "timeline": 1, "until_lsn": "0/5000100" }],
        "started": "2026-11-29T17:15:00Z",
        "stopped": "2026-11-29T17:16:00Z",
        "tablespaces": [{ "oid": 16384, "location": "/ts" }],
        "pages": { "state": "ok" },
        "parts": [part("16384.00001.tar"), part("base.00001.tar"), part("base.00002.tar")],
        "manifest": part("backup_manifest"),
        "later": "skipped",
    })
}

fn read(value: &Value) -> Result<Committed, Error> {
    Committed::parse(value.to_string().as_bytes(), &ID.parse().unwrap(), "x")
}

#[test]
fn what_is_written_reads_back_and_says_how_much_it_is() {
    let backup = read(&committed()).unwrap();
    let bytes = bytes_of(&backup).unwrap();
    let again = Committed::parse(&bytes, &ID.parse().unwrap(), "x").unwrap();
    assert_eq!(again, backup);
    assert_eq!((backup.bytes(), backup.stored_bytes()), (30, 20));
}

#[test]
fn each_thing_that_cannot_be_so_is_refused_and_named() {
    let odd = [
        ("format", json!(0), "no format 0"),
        ("id", json!("20261129T171500Z-0000"), "it is of backup"),
        ("id", json!("../x"), "not the ID of a backup"),
        ("label", json!("x".repeat(2000)), "label is too long"),
        ("segment_bytes", json!(7), "segment size"),
        ("stop_lsn", json!("0/1"), "ends before it begins"),
        ("kind", json!("incremental"), "has a parent"),
        ("started", json!("yesterday\u{1b}"), "times are none"),
        ("timeline", json!(0), "no timeline 0"),
        (
            "lineage",
            json!([{ "timeline": 3, "until_lsn": "0/1" }]),
            "timelines",
        ),
        ("parts", json!([]), "no parts"),
        ("parts", json!([part("base.00002.tar")]), "not in order"),
        (
            "parts",
            json!([part("base.00001.tar"), part("base.00001.tar")]),
            "not in order",
        ),
        ("parts", json!([part("../../x")]), "not in order"),
        (
            "parts",
            json!([
                part("base.00001.tar"),
                part("1.00001.tar"),
                part("base.00001.tar")
            ]),
            "not in order",
        ),
        ("manifest", part("../x"), "another name"),
        (
            "tablespaces",
            json!([{ "oid": 1, "location": "x".repeat(2000) }]),
            "too long",
        ),
    ];
    for (field, value, why) in odd {
        let mut document = committed();
        document[field] = value;
        let error = read(&document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(why), "{field}: {error}");
    }
    let mut short = committed();
    short["parts"][0]["stored_sha256"] = json!("ab");
    assert!(read(&short).is_err());
}

#[test]
fn what_a_later_version_has_written_is_not_taken_for_damaged_whatever_else_it_says() {
    let later = json!({ "format": 2, "parts": "elsewhere" });
    let error = read(&later).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.to_string().contains("it is of format 2"), "{error}");
    assert!(error.hint().unwrap().contains("a later one"));
}

#[test]
fn the_wal_that_is_needed_goes_along_the_timelines_up_to_the_stop() {
    let backup = read(&committed()).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    let missing = backup.first_missing(&|name| {
        asked.borrow_mut().push(name.to_string());
        true
    });
    assert_eq!(missing, None);
    // Timeline 2 begins in segment 5, and the stop LSN is the end of segment 6.
    let expected = [
        "000000010000000000000004",
        "000000020000000000000005",
        "000000020000000000000006",
    ];
    assert_eq!(*asked.borrow(), expected);
    let missing = backup.first_missing(&|name| name.timeline().get() == 1);
    assert_eq!(missing.unwrap().to_string(), expected[1]);
}

#[test]
fn a_stop_far_away_asks_for_nothing_behind_the_first_that_is_missing() {
    let mut document = committed();
    document["stop_lsn"] = json!("FFFFFFFF/FF000000");
    let count = std::cell::Cell::new(0);
    let missing = read(&document).unwrap().first_missing(&|_| {
        count.set(count.get() + 1);
        count.get() < 3
    });
    assert!(missing.is_some());
    assert_eq!(count.get(), 3);
}

#[test]
fn a_running_backup_is_read_with_the_same_distrust() {
    let running = json!({
        "format": 1, "id": ID, "system_identifier": "7", "major": 18, "start_lsn": "0/4000028",
        "timeline": 1, "label": "", "started": "2026-11-29T17:15:00Z",
    });
    let read =
        |value: &Value| Running::parse(value.to_string().as_bytes(), &ID.parse().unwrap(), "x");
    assert_eq!(read(&running).unwrap().start_lsn, Lsn(0x400_0028));
    for (field, value) in [
        ("format", json!(0)),
        ("id", json!("20261129T171500Z-0000")),
        ("label", json!("x".repeat(2000))),
        ("started", json!("x")),
        ("start_lsn", json!(7)),
    ] {
        let mut odd = running.clone();
        odd[field] = value;
        assert!(read(&odd).is_err(), "{field}");
    }
}
