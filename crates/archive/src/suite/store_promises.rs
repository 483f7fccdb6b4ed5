//! What every store promises about raw objects.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use super::bench::{Bench, Broken, Promise, must};
use crate::{Detail, Noted, Published, Store};

/// How long an object may take to be seen as let go.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

pub(super) const ALL: &[Promise] = &[
    ("a created object is found with its bytes", created_is_found),
    ("an object never created is absent", never_created_is_absent),
    (
        "an object is invisible until it is published",
        invisible_until_published,
    ),
    (
        "a staged object that is dropped was never there",
        dropped_was_never_there,
    ),
    ("creating never overwrites", creating_never_overwrites),
    (
        "a listing shows every object with its size",
        listing_is_complete,
    ),
    ("a listing stops when it is told to", listing_stops),
    (
        "a listing behind a key shows what is behind it",
        listing_behind_a_key,
    ),
    (
        "what is noted with an object is its creator's, or nothing",
        notes_are_the_creators,
    ),
    (
        "what is in a folder is shown to who asks for the folder",
        folders_are_apart,
    ),
    ("a removed object is absent", removed_is_absent),
    ("what cannot be a key is refused", bad_keys_are_refused),
];

const KEY: &str = "0000000100000000000000A4";

/// Creates an object; true if it is there by our doing.
fn create(store: &dyn Store, key: &str, bytes: &[u8]) -> Result<bool, Broken> {
    let mut staged = store.stage(key)?;
    staged.write_all(bytes)?;
    Ok(staged.publish()? == Published::Created)
}

fn read(store: &dyn Store, key: &str) -> Result<Option<Vec<u8>>, Broken> {
    let Some(mut object) = store.open(key)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    object.reader.read_to_end(&mut bytes)?;
    must(
        object.bytes == bytes.len() as u64,
        "an object's size is not its bytes'",
    )?;
    Ok(Some(bytes))
}

fn keys(store: &dyn Store) -> Result<Vec<(String, u64)>, Broken> {
    let mut keys = Vec::new();
    store.list("", Detail::Full, &mut |entry| {
        keys.push((entry.key, entry.bytes));
        ControlFlow::Continue(())
    })?;
    keys.sort();
    Ok(keys)
}

fn created_is_found(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let (writer, reader) = (bench.subject.open()?, bench.subject.open()?);
    let sizes = [0, 1, 8192, 3_000_000];
    for size in sizes {
        let mut bytes = vec![0; size];
        bench.random.fill(&mut bytes);
        let key = format!("object{size}");
        must(
            create(&*writer, &key, &bytes)?,
            "creating a new object says that it exists",
        )?;
        let found = read(&*reader, &key)?;
        must(
            found.as_ref() == Some(&bytes),
            format!("an object of {size} bytes reads back differently"),
        )?;
        settled(&*writer, &key)?;
    }
    Ok(format!("sizes {sizes:?}, read through another handle"))
}

/// Settles an object whose creator has let go.
///
/// A store may take a moment to see that: a directory knows it by a lock, and a process that is just being
/// started by this one holds copies of all its locks until it runs.
fn settled(store: &dyn Store, key: &str) -> Result<(), Broken> {
    let deadline = Instant::now() + SETTLE_WAIT_MAX;
    loop {
        match store.settle(key) {
            Err(error) if error.kind().may_work_later() && Instant::now() < deadline => {
                thread::sleep(SETTLE_PAUSE);
            }
            settled => return Ok(settled?),
        }
    }
}

fn never_created_is_absent(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    must(
        read(&*store, KEY)?.is_none(),
        "an object nobody created is there",
    )?;
    must(!store.remove(KEY)?, "removing nothing removes something")?;
    must(
        store.settle(KEY).is_err(),
        "an object nobody created can be settled",
    )?;
    Ok("open, remove and settle agree".to_owned())
}

fn notes_are_the_creators(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let (store, reader) = (bench.subject.open()?, bench.subject.open()?);
    if !store.keeps_notes() {
        return Ok("keeps none".to_owned());
    }
    must(
        reader.noted(KEY)? == Noted::Absent,
        "something is noted with no object",
    )?;
    let digests = [[0xA5; 32], [7; 32]];
    for (digest, published) in digests
        .into_iter()
        .zip([Published::Created, Published::Exists])
    {
        let mut staged = store.stage(KEY)?;
        staged.write_all(b"contents")?;
        staged.note(digest);
        must(
            staged.publish()? == published,
            "a note decides who creates an object",
        )?;
        must(
            reader.noted(KEY)? == Noted::Digest(digests[0]),
            "the note is not that of who created the object",
        )?;
    }
    create(&*store, "bare", b"contents")?;
    must(
        reader.noted("bare")? == Noted::Nothing,
        "something is noted with an object that has no note",
    )?;
    Ok("of two writers, and of one who notes nothing".to_owned())
}

fn invisible_until_published(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let mut staged = store.stage(KEY)?;
    for _ in 0..3 {
        staged.write_all(&[7; 100_000])?;
        staged.flush()?;
        must(
            read(&*store, KEY)?.is_none(),
            "a half-written object can be opened",
        )?;
        must(keys(&*store)?.is_empty(), "a half-written object is listed")?;
        must(
            store.remove_leftovers()? == 0,
            "a living writer's object is taken for a leftover",
        )?;
    }
    must(
        staged.publish()? == Published::Created,
        "it could not be published",
    )?;
    must(
        keys(&*store)? == [(KEY.to_owned(), 300_000)],
        "a published object is not listed",
    )?;
    Ok("looked three times while it was written".to_owned())
}

fn dropped_was_never_there(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let mut staged = store.stage(KEY)?;
    staged.write_all(b"half")?;
    drop(staged);
    must(read(&*store, KEY)?.is_none(), "a dropped object is there")?;
    must(
        store.remove_leftovers()? == 0,
        "a dropped object left something behind",
    )?;
    must(
        create(&*store, KEY, b"whole")?,
        "a dropped object is in the way",
    )?;
    Ok("the key was free afterwards".to_owned())
}

fn creating_never_overwrites(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    must(
        create(&*store, KEY, b"first")?,
        "creating a new object says that it exists",
    )?;
    for bytes in [&b"second"[..], b"first", b""] {
        must(
            !create(&*store, KEY, bytes)?,
            "creating an existing object says that it is new",
        )?;
        must(
            read(&*store, KEY)?.as_deref() == Some(b"first"),
            "an object was overwritten",
        )?;
    }
    // Staged before the other was there, published after it.
    let mut early = store.stage("late")?;
    early.write_all(b"early")?;
    must(
        create(&*store, "late", b"late")?,
        "creating a new object says that it exists",
    )?;
    must(
        early.publish()? == Published::Exists,
        "of two writers both created the object",
    )?;
    must(
        read(&*store, "late")?.as_deref() == Some(b"late"),
        "an object was overwritten",
    )?;
    Ok("four attempts".to_owned())
}

fn listing_is_complete(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let mut expected = Vec::new();
    for number in 0..100_u64 {
        let key = format!("object{number:03}");
        let bytes = vec![1; usize::try_from(number).unwrap_or_default()];
        must(
            create(&*store, &key, &bytes)?,
            "creating a new object says that it exists",
        )?;
        expected.push((key, number));
    }
    must(
        keys(&*store)? == expected,
        "the listing differs from what was created",
    )?;
    Ok("100 objects".to_owned())
}

fn listing_stops(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    for key in ["a", "b", "c"] {
        must(
            create(&*store, key, b"x")?,
            "creating a new object says that it exists",
        )?;
    }
    let mut seen = 0;
    store.list("", Detail::Keys, &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    })?;
    must(seen == 1, format!("it went on for {seen} objects"))?;
    Ok("after the first of three".to_owned())
}

fn listing_behind_a_key(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let keys = [
        "00000001.history",
        "000000010000000000000001",
        "000000010000000000000002",
        "000000010000000000000002.gz",
        "000000010000000000000002.partial",
        "000000010000000000000003",
        "00000001000000010000000A",
        "000000020000000000000001",
        "walden.json",
    ];
    for key in keys {
        must(
            create(&*store, key, b"x")?,
            "creating a new object says that it exists",
        )?;
    }
    let prefixes = ["", "00000001", "000000010000000000000002", "00000003"];
    let starts = [
        "",
        "00000001.",
        "000000010000000000000001",
        "000000010000000000000002",
        "000000010000000000000002.h",
        "000000010000000000000009",
        "00000002",
        "zz",
    ];
    for prefix in prefixes {
        for start in starts {
            let mut found = Vec::new();
            store.list_after(prefix, start, Detail::Full, &mut |entry| {
                found.push(entry.key);
                ControlFlow::Continue(())
            })?;
            found.sort();
            let expected = keys
                .into_iter()
                .filter(|key| key.starts_with(prefix) && *key > start);
            must(
                found.iter().map(String::as_str).eq(expected),
                format!("behind {start:?}, keys that begin with {prefix:?} are {found:?}"),
            )?;
        }
    }
    Ok(format!("{} listings", prefixes.len() * starts.len()))
}

fn folders_are_apart(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let all = [
        KEY,
        "base/one/a",
        "base/one/b",
        "base/two/a",
        "base/x",
        "tail/a",
    ];
    for key in all {
        must(
            create(&*store, key, key.as_bytes())?,
            "creating a new object says that it exists",
        )?;
        must(
            !create(&*store, key, b"other")?,
            "creating an existing object says that it is new",
        )?;
        must(
            read(&*store, key)?.as_deref() == Some(key.as_bytes()),
            "an object in a folder reads back differently",
        )?;
        settled(&*store, key)?;
    }
    let listings = folders_are_listed(&*store)?;
    must(
        read(&*store, "base/one/c")?.is_none() && read(&*store, "none/a")?.is_none(),
        "an object nobody created is there",
    )?;
    must(
        !store.remove("none/a")?,
        "removing nothing removes something",
    )?;
    must(
        store.remove("base/one/a")?,
        "an object in a folder could not be removed",
    )?;
    must(
        read(&*store, "base/one/a")?.is_none(),
        "a removed object is there",
    )?;
    must(
        store.remove_leftovers()? == 0,
        "objects in folders are taken for leftovers",
    )?;
    Ok(format!("{listings} listings"))
}

/// Lists the objects of [`folders_are_apart`] in every way; tells in how many.
fn folders_are_listed(store: &dyn Store) -> Result<usize, Broken> {
    let (one_a, one_b, two_a, x) = ("base/one/a", "base/one/b", "base/two/a", "base/x");
    let asked: [(&str, &str, &[&str]); 8] = [
        ("", "", &[KEY]),
        ("b", "", &[]),
        ("base/", "", &[one_a, one_b, two_a, x]),
        ("base/", one_a, &[one_b, two_a, x]),
        ("base/on", "", &[one_a, one_b]),
        ("base/one/", "", &[one_a, one_b]),
        (two_a, "", &[two_a]),
        ("none/", "", &[]),
    ];
    for (prefix, start, expected) in asked {
        let mut found = Vec::new();
        store.list_after(prefix, start, Detail::Full, &mut |entry| {
            found.push((entry.key, entry.bytes));
            ControlFlow::Continue(())
        })?;
        found.sort();
        let expected = expected.iter().map(|key| (*key, key.len() as u64));
        must(
            found
                .iter()
                .map(|(key, bytes)| (key.as_str(), *bytes))
                .eq(expected),
            format!("keys that begin with {prefix:?}, behind {start:?}, are {found:?}"),
        )?;
    }
    Ok(asked.len())
}

fn removed_is_absent(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    must(
        create(&*store, KEY, b"old")?,
        "creating a new object says that it exists",
    )?;
    must(
        store.remove(KEY)?,
        "removing an object says that it was not there",
    )?;
    must(read(&*store, KEY)?.is_none(), "a removed object is there")?;
    must(keys(&*store)?.is_empty(), "a removed object is listed")?;
    must(!store.remove(KEY)?, "an object was removed twice")?;
    must(
        create(&*store, KEY, b"new")?,
        "a removed object is in the way",
    )?;
    Ok("and its key was free".to_owned())
}

fn bad_keys_are_refused(bench: &mut Bench<'_>) -> Result<String, Broken> {
    let store = bench.subject.open()?;
    let bad = [
        "", ".", "..", "../x", "a/../x", "a/", "/a", "a//b", "a/.b", "a/b/c/d", ".hidden", "a b",
        "a\0", "ä",
    ];
    for key in bad {
        must(
            store.stage(key).is_err(),
            format!("an object was staged as {key:?}"),
        )?;
        must(store.open(key).is_err(), format!("{key:?} was looked for"))?;
        must(store.remove(key).is_err(), format!("{key:?} was removed"))?;
    }
    Ok(format!("{} of them", bad.len()))
}
