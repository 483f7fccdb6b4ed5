//! `walden verify` and `walden list --wal`, as people and programs read them.

use crate::common::Place;
use fixtures::{SEGMENT, Written};
use std::fs;

/// Three segments with records, which end at a switch.
fn archive(place: &Place) -> (String, Vec<String>) {
    let mut wal = Written::new();
    wal.fill(2 * SEGMENT + 10_000);
    wal.short(1, 0x00, &812_345_678_901_234_i64.to_ne_bytes());
    wal.switch();
    let mut names = Vec::new();
    for (name, bytes) in wal.segments(1) {
        fs::write(place.path("archive").join(name.to_string()), bytes).unwrap();
        names.push(name.to_string());
    }
    (place.text("archive"), names)
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_sound_archive_is_a_success_and_says_how_much_was_read() {
    let place = Place::new();
    let (archive, _) = archive(&place);
    let ran = place.walden(&["verify", "-A", &archive]).exits(0);
    ran.prints("note     archive belongs to no system yet")
        .prints("3 segments, ")
        .prints("0 errors, 0 not known, 0 warnings, 1 note");
    let ran = place.walden(&["verify", "--json", "-A", &archive]).exits(0);
    let document = json(&ran.stdout);
    assert_eq!(document["outcome"], "clean");
    assert_eq!(document["segments"], 3);
    assert_eq!(document["segment_bytes"], SEGMENT);
    assert_eq!(document["kinds"]["unbound"], 1);
}

#[test]
fn damage_is_a_failure_and_comes_with_its_place_and_its_cure() {
    let place = Place::new();
    let (archive, names) = archive(&place);
    let path = place.path("archive").join(&names[1]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[500_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let ran = place.walden(&["verify", "-A", &archive]).exits(1);
    ran.prints(&format!(
        "ERROR    archive file \"{}\" is not valid: at 0/6",
        names[1]
    ))
    .prints("         cure: ");
    let ran = place.walden(&["verify", "--json", "-A", &archive]).exits(1);
    let document = json(&ran.stdout);
    assert_eq!(document["outcome"], "errors");
    let finding = &document["findings"][0];
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["kind"], "damaged");
    assert_eq!(finding["object"], names[1].as_str());
    assert!(finding["lsn"].as_str().unwrap().starts_with("0/6"));
    // Outside the range nobody looks.
    let ran = place.walden(&["verify", "-A", &archive, "--from", "0/700000"]);
    ran.exits(0).prints("1 segment, ");
}

#[test]
fn what_could_not_be_told_is_neither_success_nor_failure() {
    let place = Place::new();
    place
        .walden(&["verify", "-A", &place.text("nowhere")])
        .exits(4)
        .says("nowhere");
    place
        .walden(&["verify", "-A", &place.text("archive")])
        .exits(4)
        .says("is empty");
    let line = ["verify", "--from", "yesterday", "-A", "/x"];
    place
        .walden(&line)
        .exits(2)
        .says("neither a segment's name");
}

#[test]
fn what_was_read_before_is_not_read_again() {
    let place = Place::new();
    let (archive, _) = archive(&place);
    let state = place.text("state");
    let line = ["verify", "-A", &archive, "--resume", &state];
    place.walden(&line).exits(0).prints("3 segments, ");
    let ran = place.walden(&line).exits(0);
    ran.prints("0 segments (and 3 segments before), 0 records");
}

#[test]
fn a_list_shows_ranges_and_what_is_missing_between_them() {
    let place = Place::new();
    let (archive, names) = archive(&place);
    let ran = place.walden(&["list", "--wal", "-A", &archive]).exits(0);
    ran.prints(&format!(
        "  {} to {}, 0/500000 to 0/800000, until 2025-09-28 ",
        names[0], names[2]
    ));
    fs::remove_file(place.path("archive").join(&names[1])).unwrap();
    let ran = place.walden(&["list", "-A", &archive]).exits(0);
    ran.prints(&format!("  {}, 0/500000 to 0/600000\n", names[0]))
        .prints(&format!("  missing: {}, ", names[1]));
    let ran = place.walden(&["list", "--json", "-A", &archive]).exits(0);
    let document = json(&ran.stdout);
    let timeline = &document["timelines"]["1"];
    assert_eq!(timeline["ranges"].as_array().map(Vec::len), Some(2));
    assert_eq!(timeline["missing"][0]["first_segment"], names[1].as_str());
    assert_eq!(timeline["compression_ratio"], 1.0);
    assert_eq!(document["segment_bytes"], SEGMENT);
}
