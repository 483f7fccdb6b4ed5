//! What the archive promises about WAL files, over any store.
//!
//! This file is long because it is one promise after the other, each read alone.

use std::fs;

use wal::{KeepFrom, SegmentName, WalFileName};

use super::bench::{Bench, Broken, Promise, SEALED, SIZE, STRANGER, WAYS, must, name, segment_of};
use super::fixtures;
use crate::{
    Archive, Cancel, Compression, Error, ErrorKind, Evidence, Got, Put, SoughtSegment, Store,
};

pub(super) const ALL: &[Promise] = &[
    (
        "what is archived is restored, byte for byte",
        archived_is_restored,
    ),
    (
        "equal bytes again succeed, in whichever form",
        equal_bytes_succeed,
    ),
    (
        "other bytes under the same name are a conflict and change nothing",
        other_bytes_conflict,
    ),
    (
        "a stored file that cannot be read is a conflict and is not overwritten",
        damaged_is_conflict,
    ),
    (
        "a stored file that is packed in another way is neither restored nor absent, and is not overwritten",
        other_packings_are_told,
    ),
    (
        "where files are encrypted none is stored that is not, before a person lifts that",
        encrypted_stays_encrypted,
    ),
    (
        "a stranger is refused before anything is written",
        strangers_are_refused,
    ),
    (
        "a damaged source is refused before anything is written",
        damaged_sources_are_refused,
    ),
    (
        "a restored file never overwrites another",
        restoring_never_overwrites,
    ),
    (
        "absent is said only by an archive that is there",
        absence_needs_an_archive,
    ),
    ("a hole is told from the end of WAL", holes_are_told),
    (
        "cleanup removes what lies before the oldest file to keep and nothing else",
        cleanup_keeps,
    ),
    (
        "a cancelled operation leaves nothing",
        cancelled_leaves_nothing,
    ),
];

const FIRST: &str = "000000010000000000000001";
const KINDS: [&str; 4] = [
    FIRST,
    "000000010000000000000002.partial",
    "00000002.history",
    "000000010000000000000001.00000028.backup",
];

/// What a restore gave: the bytes, or none if it said absent.
fn restore(
    bench: &mut Bench<'_>,
    archive: &Archive,
    name: &WalFileName,
) -> Result<Option<Vec<u8>>, Broken> {
    let dest = bench.path();
    match archive.get(name, &dest, Some(bench.system), &Cancel::new())? {
        Got::Absent => {
            must(!dest.exists(), "absent, and yet there is a file")?;
            Ok(None)
        }
        Got::Restored { bytes } => {
            let contents = fs::read(&dest)?;
            must(
                bytes == contents.len() as u64,
                "the size reported is not the file's",
            )?;
            Ok(Some(contents))
        }
    }
}

fn put(
    bench: &mut Bench<'_>,
    archive: &Archive,
    name: &WalFileName,
    contents: &[u8],
) -> Result<Result<Put, ErrorKind>, Broken> {
    let source = bench.source(contents)?;
    bench.lift_note()?;
    let put = archive.put_new(name, &source, Some(bench.system), &Cancel::new());
    Ok(put.map_err(|error| error.kind()))
}

fn archived_is_restored(bench: &mut Bench<'_>) -> Result<String, Broken> {
    for way in WAYS {
        bench.subject.reset()?;
        for text in KINDS {
            let name = name(text)?;
            let contents = bench.contents(&name, 1);
            let (writer, reader) = (bench.archive(way)?, bench.archive(Compression::None)?);
            let put = put(bench, &writer, &name, &contents)?;
            must(
                matches!(put, Ok(Put::Stored { .. })),
                format!("\"{name}\": {put:?}"),
            )?;
            let restored = restore(bench, &reader, &name)?;
            must(
                restored == Some(contents),
                format!("\"{name}\" was restored differently"),
            )?;
        }
        let listed = bench.archive(way)?.list()?;
        must(listed.len() == KINDS.len(), "the listing misses files")?;
    }
    Ok(format!(
        "{} kinds of files, {} ways to store them",
        KINDS.len(),
        WAYS.len()
    ))
}

fn equal_bytes_succeed(bench: &mut Bench<'_>) -> Result<String, Broken> {
    for first in WAYS {
        bench.subject.reset()?;
        for text in KINDS {
            let name = name(text)?;
            let contents = bench.contents(&name, 1);
            let archive = bench.archive(first)?;
            let _ = put(bench, &archive, &name, &contents)?;
            for again in WAYS {
                let archive = bench.archive(again)?;
                let put = put(bench, &archive, &name, &contents)?;
                must(
                    put == Ok(Put::AlreadyStored),
                    format!("\"{name}\" after {first}, now {again}: {put:?}"),
                )?;
            }
        }
        must(
            bench.archive(first)?.list()?.len() == KINDS.len(),
            "files were stored twice",
        )?;
    }
    Ok("every pair of ways".to_owned())
}

fn other_bytes_conflict(bench: &mut Bench<'_>) -> Result<String, Broken> {
    for first in WAYS {
        bench.subject.reset()?;
        for text in KINDS {
            let name = name(text)?;
            let (stored, mut other) = (bench.contents(&name, 1), bench.contents(&name, 1));
            // The very last byte alone: stale bytes behind the end of WAL count too.
            if let Some(last) = other.last_mut() {
                *last ^= 1;
            }
            let archive = bench.archive(first)?;
            let _ = put(bench, &archive, &name, &stored)?;
            for again in WAYS {
                let archive = bench.archive(again)?;
                let put = put(bench, &archive, &name, &other)?;
                must(
                    put == Err(ErrorKind::Conflict),
                    format!("\"{name}\" after {first}: {put:?}"),
                )?;
            }
            let reader = bench.archive(Compression::None)?;
            let restored = restore(bench, &reader, &name)?;
            must(
                restored == Some(stored),
                format!("\"{name}\" was changed by a conflict"),
            )?;
        }
        must(
            bench.archive(first)?.list()?.len() == KINDS.len(),
            "a conflict left a file",
        )?;
    }
    Ok("every pair of ways, last byte changed".to_owned())
}

fn damaged_is_conflict(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let contents = bench.contents(&name, 1);
    // What an interrupted copy leaves, in each form.
    let broken: [&[u8]; 6] = [
        contents.get(..8192).unwrap_or_default(),
        b"",
        b"\x28\xb5\x2f\xfd rubbish",
        b"\x04\x22\x4d\x18 rubbish",
        b"age-encryption.org/v1\n-> x",
        b"rubbish\n",
    ];
    for bytes in broken {
        bench.subject.reset()?;
        nobody_can_have(bench, &name, bytes, ErrorKind::Damaged)?;
    }
    Ok(format!("{} kinds of damage", broken.len()))
}

fn other_packings_are_told(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let contents = bench.contents(&name, 1);
    let twice = zstd::encode_all(&b"\x04\x22\x4d\x18"[..], 1)?;
    // A frame whose window is 2 GB: it may be sound, and is more than anybody here unpacks.
    let large = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00";
    let packed: [&[u8]; 6] = [
        b"\x1f\x8b\x08 rubbish",
        b"\xfd7zXZ\0 rubbish",
        b"BZh9 rubbish",
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        &twice,
        large,
    ];
    for bytes in packed {
        bench.subject.reset()?;
        nobody_can_have(bench, &name, bytes, ErrorKind::Unusable)?;
    }
    // A file of another name is none: this one is stored beside it.
    bench.subject.reset()?;
    let (store, archive) = (bench.subject.open()?, bench.archive(Compression::None)?);
    stage(&*store, &format!("{name}.gz"), b"\x1f\x8b\x08 rubbish")?;
    let put = put(bench, &archive, &name, &contents)?;
    must(
        matches!(put, Ok(Put::Stored { .. })),
        format!("beside \"{name}.gz\": {put:?}"),
    )?;
    Ok(format!("{} kinds of packing", packed.len()))
}

/// What is stored under the name is neither restored, nor absent, nor overwritten.
fn nobody_can_have(
    bench: &mut Bench<'_>,
    name: &WalFileName,
    stored: &[u8],
    kind: ErrorKind,
) -> Result<(), Broken> {
    let key = &name.to_string();
    let (store, archive) = (bench.subject.open()?, bench.archive(Compression::Zstd(1))?);
    // Something sound first, so that it is known whose archive this is.
    let history = super::bench::name("00000002.history")?;
    let contents = bench.contents(&history, 1);
    let _ = put(bench, &archive, &history, &contents)?;
    stage(&*store, key, stored)?;
    let contents = bench.contents(name, 1);
    let put = put(bench, &archive, name, &contents)?;
    must(
        put == Err(ErrorKind::Conflict),
        format!("over {stored:?}: {put:?}"),
    )?;
    let got = archive.get(name, &bench.path(), None, &Cancel::new());
    let got = got.map_err(|error| error.kind());
    must(got == Err(kind), format!("restoring {stored:?}: {got:?}"))?;
    let size = store.open(key)?.map(|object| object.bytes);
    must(
        size == Some(stored.len() as u64),
        format!("{stored:?} was changed"),
    )
}

/// Stores an object as any program might.
fn stage(store: &dyn Store, key: &str, bytes: &[u8]) -> Result<(), Broken> {
    let mut staged = store.stage(key)?;
    std::io::Write::write_all(&mut staged, bytes)?;
    staged.publish()?;
    Ok(())
}

fn encrypted_stays_encrypted(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let first = name(FIRST)?;
    let contents = bench.contents(&first, 1);
    let source = bench.source(&contents)?;
    let sealed = bench.archive(SEALED)?;
    sealed.put_new(&first, &source, None, &Cancel::new())?;
    for text in KINDS {
        let name = match text {
            FIRST => name("000000010000000000000002")?,
            text => name(text)?,
        };
        let contents = bench.contents(&name, 1);
        let source = bench.source(&contents)?;
        let plain = bench.archive(Compression::Zstd(1))?;
        let put = plain.put_new(&name, &source, Some(bench.system), &Cancel::new());
        let put = put.map_err(|error| error.kind());
        must(
            put == Err(ErrorKind::Unusable),
            format!("\"{name}\" beside an encrypted file: {put:?}"),
        )?;
    }
    must(sealed.list()?.len() == 1, "a plain file was stored")?;
    bench.lift_note()?;
    let second = name("000000010000000000000002")?;
    let contents = bench.contents(&second, 1);
    let plain = bench.archive(Compression::Zstd(1))?;
    let put = put(bench, &plain, &second, &contents)?;
    must(
        matches!(put, Ok(Put::Stored { .. })),
        format!("after that: {put:?}"),
    )?;
    Ok("all kinds of files".to_owned())
}

fn strangers_are_refused(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let (first, second) = (name(FIRST)?, name("000000010000000000000002")?);
    let ours = bench.contents(&first, 1);
    let theirs = fixtures::segment(&segment_of(&second)?, SIZE, STRANGER, 1);
    let source = bench.source(&theirs)?;
    // Once with the binding in place, once with nothing but WAL that somebody copied there.
    for bound in [true, false] {
        bench.subject.reset()?;
        let archive = bench.archive(Compression::Zstd(1))?;
        if bound {
            let _ = put(bench, &archive, &first, &ours)?;
        } else {
            let store = bench.subject.open()?;
            let mut staged = store.stage(FIRST)?;
            std::io::Write::write_all(&mut staged, &ours)?;
            staged.publish()?;
        }
        for system in [None, Some(STRANGER)] {
            let put = archive.put_new(&second, &source, system, &Cancel::new());
            let kind = put.map_err(|error| error.kind());
            must(
                kind == Err(ErrorKind::Foreign),
                format!("bound {bound}: {kind:?}"),
            )?;
        }
        must(archive.list()?.len() == 1, "a stranger's file was stored")?;
        must(
            archive.binding()?.is_some() == bound,
            "a stranger bound the archive",
        )?;
        let got = archive.get(&first, &bench.path(), Some(STRANGER), &Cancel::new());
        let kind = got.map_err(|error| error.kind());
        must(
            kind == Err(ErrorKind::Foreign),
            format!("restored for a stranger: {kind:?}"),
        )?;
    }
    Ok("with a binding, and with WAL alone".to_owned())
}

fn damaged_sources_are_refused(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let whole = bench.contents(&name, 1);
    let mut no_magic = whole.clone();
    no_magic.iter_mut().take(2).for_each(|byte| *byte = 0);
    let misnamed = bench.contents(&super::bench::name("000000010000000000000009")?, 1);
    let longer = [&whole[..], b"x"].concat();
    let sources: [&[u8]; 5] = [
        b"",
        whole.get(..8192).unwrap_or_default(),
        &no_magic,
        &misnamed,
        &longer,
    ];
    let archive = bench.archive(Compression::Zstd(1))?;
    for (number, contents) in sources.into_iter().enumerate() {
        let put = put(bench, &archive, &name, contents)?;
        must(
            put == Err(ErrorKind::Damaged),
            format!("source {number}: {put:?}"),
        )?;
    }
    must(
        archive.binding()?.is_none(),
        "a damaged file bound the archive",
    )?;
    must(archive.list()?.is_empty(), "a damaged file was stored")?;
    let missing = archive.put_new(&name, &bench.path(), None, &Cancel::new());
    let kind = missing.map_err(|error| error.kind());
    must(
        kind == Err(ErrorKind::Unusable),
        format!("a missing source: {kind:?}"),
    )?;
    // Nothing else says whose a timeline history file is.
    let history = super::bench::name("00000002.history")?;
    let contents = bench.contents(&history, 1);
    let source = bench.source(&contents)?;
    let put = archive.put_new(&history, &source, None, &Cancel::new());
    let kind = put.map_err(|error| error.kind());
    must(
        kind == Err(ErrorKind::Unusable),
        format!("a file of unknown origin: {kind:?}"),
    )?;
    Ok(format!("{} kinds of damage", sources.len()))
}

fn restoring_never_overwrites(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let contents = bench.contents(&name, 1);
    let archive = bench.archive(Compression::Zstd(1))?;
    let _ = put(bench, &archive, &name, &contents)?;
    let dest = bench.source(b"precious")?;
    let got = archive
        .get(&name, &dest, None, &Cancel::new())
        .map_err(|error| error.kind());
    must(
        got == Err(ErrorKind::Unusable),
        format!("over an existing file: {got:?}"),
    )?;
    must(
        fs::read(&dest)? == b"precious",
        "an existing file was overwritten",
    )?;
    Ok("refused".to_owned())
}

fn absence_needs_an_archive(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let archive = bench.archive(Compression::Zstd(1))?;
    let got = archive
        .get(&name, &bench.path(), None, &Cancel::new())
        .map_err(|error| error.kind());
    must(
        got == Err(ErrorKind::Unavailable),
        format!("in an empty place: {got:?}"),
    )?;
    let contents = bench.contents(&name, 1);
    let _ = put(bench, &archive, &name, &contents)?;
    let next = super::bench::name("000000010000000000000002")?;
    let got = archive
        .get(&next, &bench.path(), None, &Cancel::new())
        .map_err(|error| error.kind());
    must(
        got == Ok(Got::Absent),
        format!("in a bound archive: {got:?}"),
    )?;
    // The file system goes away under us: nothing is left where it was.
    let store = bench.subject.open()?;
    store.remove(crate::BINDING_KEY)?;
    let got = archive
        .get(&next, &bench.path(), None, &Cancel::new())
        .map_err(|error| error.kind());
    must(
        got == Err(ErrorKind::Unavailable),
        format!("after the binding is gone: {got:?}"),
    )?;
    let put = put(bench, &archive, &next, &contents)?;
    must(put.is_err(), "archived into what took the archive's place")?;
    Ok("empty, bound, gone".to_owned())
}

fn holes_are_told(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let archive = bench.archive(Compression::Zstd(1))?;
    for text in [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000010000000000000006",
    ] {
        let name = name(text)?;
        let contents = bench.contents(&name, 1);
        let _ = put(bench, &archive, &name, &contents)?;
    }
    let five = segment_of(&name("000000010000000000000005")?)?;
    let seven = segment_of(&name("000000010000000000000007")?)?;
    let against = |segment: SegmentName| -> Result<Option<Evidence>, Error> {
        let sought = SoughtSegment {
            segment,
            size: None,
            is_fork: false,
            at_hand: &[],
        };
        Ok(archive.segment_evidence(&sought)?.against)
    };
    let found = against(five)?;
    let expected = Evidence::Later {
        keys: vec!["000000010000000000000006".to_owned()],
        count: 1,
    };
    must(
        found.as_ref() == Some(&expected),
        format!("segment 5 of 6: {found:?}"),
    )?;
    must(
        against(seven)?.is_none(),
        "the end of WAL was called a hole",
    )?;
    // Timeline 2 left timeline 1 at 0/A00000, in segment 10 of 1 MB: 7 must have been there.
    let history = name("00000002.history")?;
    let contents = fixtures::timeline_history(wal::TimelineId::FIRST, "0/A00000", "test");
    let _ = put(bench, &archive, &history, &contents)?;
    must(
        against(seven)?.is_some(),
        "a timeline's switchpoint was not taken for evidence",
    )?;
    let ten = segment_of(&name("00000001000000000000000A")?)?;
    must(
        against(ten)?.is_none(),
        "the segment of the switchpoint was called a hole",
    )?;
    let before_two = segment_of(&name("000000020000000000000009")?)?;
    must(
        against(before_two)?.is_none(),
        "a hole before its timeline began",
    )?;
    Ok("between segments, before a switchpoint, at the end, before the beginning".to_owned())
}

fn cleanup_keeps(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let texts = [
        "000000010000000000000001",
        "000000010000000000000002.partial",
        "000000010000000000000003",
        "000000020000000000000002",
        "000000020000000000000004",
        "00000002.history",
        "000000010000000000000001.00000028.backup",
    ];
    for (text, way) in texts.iter().zip(WAYS.iter().cycle()) {
        let name = name(text)?;
        let contents = bench.contents(&name, 1);
        let archive = bench.archive(*way)?;
        let _ = put(bench, &archive, &name, &contents)?;
    }
    let archive = bench.archive(Compression::None)?;
    let cleaned = archive.clean_up(&KeepFrom::Everything, None, &Cancel::new())?;
    must(
        cleaned.files == 0,
        "cleanup removed files though everything was to be kept",
    )?;
    let keep = "000000010000000000000003".parse();
    let keep = keep.map_err(|_| Broken("a segment cannot be kept from".to_owned()))?;
    let cleaned = archive.clean_up(&keep, None, &Cancel::new())?;
    must(
        cleaned.files == 3 && cleaned.bytes > 0,
        format!("{cleaned:?} instead of 3 files"),
    )?;
    let left: Vec<String> = archive
        .list()?
        .iter()
        .map(|stored| stored.name.to_string())
        .collect();
    let mut expected = [texts[2], texts[4], texts[5], texts[6]]
        .map(str::to_owned)
        .to_vec();
    expected.sort();
    let mut sorted = left.clone();
    sorted.sort();
    must(sorted == expected, format!("left: {left:?}"))?;
    must(archive.binding()?.is_some(), "cleanup removed the binding")?;
    Ok("3 of 7 files, on two timelines".to_owned())
}

fn cancelled_leaves_nothing(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let name = name(FIRST)?;
    let contents = bench.contents(&name, 1);
    let source = bench.source(&contents)?;
    let archive = bench.archive(Compression::Zstd(1))?;
    let cancel = Cancel::new();
    cancel.cancel();
    let put = archive
        .put_new(&name, &source, None, &cancel)
        .map_err(|error| error.kind());
    must(
        put == Err(ErrorKind::Cancelled),
        format!("a cancelled archiving: {put:?}"),
    )?;
    must(
        archive.list()?.is_empty(),
        "a cancelled archiving left a file",
    )?;
    archive.put_new(&name, &source, None, &Cancel::new())?;
    let dest = bench.path();
    let got = archive
        .get(&name, &dest, None, &cancel)
        .map_err(|error| error.kind());
    must(
        got == Err(ErrorKind::Cancelled),
        format!("a cancelled restoring: {got:?}"),
    )?;
    must(!dest.exists(), "a cancelled restoring left a file")?;
    Ok("archiving and restoring".to_owned())
}
