//! Any bytes as the small files and the names that an archive holds: what is read is written as it was, or means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wal::{Lsn, TimelineHistory, TimelineId, WalFileName};

fuzz_target!(|input: (u32, &[u8])| {
    let (timeline, bytes) = input;
    if let Some(timeline) = TimelineId::new(timeline) {
        let _ = TimelineHistory::parse(timeline, bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = text.parse::<WalFileName>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
});
