//! Any bytes as records with a right checksum, which `segment` hardly ever makes: what they say is looked into, and each is read.

#![no_main]

use fixtures::Written;
use libfuzzer_sys::fuzz_target;
use wal::SegmentReader;

/// The one record that makes the reader leave out what is behind it: a switch of segments (`pg_control.h`).
fn is_switch(manager: u8, info: u8) -> bool {
    manager == 0 && info & 0xF0 == 0x40
}

fuzz_target!(|records: Vec<(u8, u8, &[u8])>| {
    let mut wal = Written::new();
    let mut written = Vec::new();
    for (manager, info, rest) in records {
        if !is_switch(manager, info) && wal.end + rest.len() + 20_000 < fixtures::SEGMENT {
            written.push(wal.record(manager, info, rest));
        }
    }
    let Some((name, bytes)) = wal.segments(1).into_iter().next() else {
        return;
    };
    let mut reader = SegmentReader::new(name);
    let mut read = Vec::new();
    let fed = reader.feed(&bytes, |record| {
        let _ = record.parts(|_| ());
        let _ = record.meaning();
        read.push(record.lsn);
    });
    assert!(fed.is_ok() && read == written, "{fed:?}: {read:?}, {written:?}");
});
