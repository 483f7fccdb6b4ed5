//! Any bytes as a segment, in pieces of any length.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wal::{LongPageHeader, SegmentName, SegmentReader};

fuzz_target!(|input: (u16, &[u8])| {
    let (piece, bytes) = input;
    let Ok(header) = LongPageHeader::parse(bytes) else {
        return;
    };
    let name = SegmentName::holding(header.timeline, header.address, header.segment_size);
    let mut reader = SegmentReader::new(name);
    for piece in bytes.chunks(usize::from(piece) + 1) {
        let fed = reader.feed(piece, |record| {
            let _ = record.parts(|_| ());
            let _ = record.meaning();
        });
        if fed.is_err() {
            break;
        }
    }
    let _ = reader.finish();
});
