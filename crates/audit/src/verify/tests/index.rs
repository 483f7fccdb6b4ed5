//! An index only ever saves reading: with it the answers are those without it, whatever has come, gone and failed between.

use std::path::{Path, PathBuf};

use archive::{Archive, Cancel, DirStore, MemoryStore, Options, Store};
use fixtures::{SEGMENT, SYSTEM, Written};
use serde_json::Value;
use wal::{Lsn, SegmentName};

use super::super::{Edge, Request, Scope, verify};
use super::scene::{found, history, name};
use crate::entries::Entries;
use crate::finding::{Finding, Kind, Severity};
use crate::gather::Gathering;
use crate::index::{Index, Subject};
use crate::records::FromArchive;
use crate::stop::{Goal, Target};
use crate::survey::Survey;
use crate::targets::{answers, report};

/// A commit so long that it goes on over the ends of segments; returns where it begins.
fn long_commit(wal: &mut Written, bytes: usize) -> Lsn {
    let mut main = 800_000_000_000_000_i64.to_ne_bytes().to_vec();
    main.resize(bytes, 0);
    let mut rest = vec![254];
    rest.extend_from_slice(&u32::try_from(bytes).unwrap().to_ne_bytes());
    rest.extend_from_slice(&main);
    wal.record(1, 0, &rest)
}

fn put(store: &MemoryStore, segments: &[(SegmentName, Vec<u8>)]) {
    for (name, bytes) in segments {
        store.overwrite(&name.to_string(), bytes);
    }
}

fn bind(store: &MemoryStore) {
    let binding =
        format!(r#"{{"format":1,"system_identifier":"{SYSTEM}","created":"2026-11-22"}}"#);
    store.overwrite("walden.json", binding.as_bytes());
}

fn archive(store: &MemoryStore) -> Archive {
    Archive::with_store(Box::new(store.clone()), Options::default())
}

/// The commit at the end of 5 goes on through 6 and 7 to the beginning of 8, one at the end of 8 to the beginning of 9.
fn through() -> Written {
    let mut wal = Written::new();
    wal.fill(SEGMENT - 100_000);
    long_commit(&mut wal, 2 * SEGMENT + 300_000);
    wal.fill(4 * SEGMENT - 20_000);
    long_commit(&mut wal, 40_000);
    wal.fill(5 * SEGMENT + 500_000);
    wal.switch();
    wal
}

fn verified_in(store: &MemoryStore, state: Option<&Path>, scope: Scope, stop: u64) -> Vec<Finding> {
    let request = Request {
        scope,
        readers: 1,
        state: state.map(Path::to_owned),
    };
    let cancel = Cancel::new();
    let told = |told: crate::Told| {
        if matches!(told, crate::Told::Read(count, _) if count == stop) {
            cancel.cancel();
        }
    };
    match verify(&archive(store), &request, &told, &cancel) {
        Ok(report) => report.findings.listed().to_vec(),
        Err(error) => vec![Finding::error(Kind::State, "", error.to_string())],
    }
}

/// What is found that is not a note.
fn verified(store: &MemoryStore, state: Option<&Path>) -> Vec<Finding> {
    let mut found = verified_in(store, state, Scope::default(), u64::MAX);
    found.retain(|finding| finding.severity > Severity::Note);
    found
}

fn asked(store: &MemoryStore, index: Option<&Path>, lsn: Lsn) -> Value {
    let (archive, cancel) = (archive(store), Cancel::new());
    let survey = survey(store, index, u64::MAX).unwrap();
    let mut found = report(&survey);
    let goal = Goal {
        target: Target::Lsn(lsn),
        inclusive: true,
    };
    let mut records = FromArchive::new(archive.reading(), &cancel);
    found.target = Some(answers(&survey, &goal, &mut records).unwrap());
    serde_json::to_value(&found).unwrap()
}

fn survey(store: &MemoryStore, path: Option<&Path>, stop: u64) -> Option<Survey> {
    let (archive, cancel) = (archive(store), Cancel::new());
    let system = archive.binding().unwrap().map(|binding| binding.system);
    let subject = Subject {
        place: archive.place(),
        system: system.map(|system| system.to_string()),
    };
    let open = |known: &mut Entries| {
        let mut learn = |name, entry| known.learn(name, &entry);
        path.map(|path| Index::open(path, &subject, &mut learn).unwrap())
    };
    let gathering = Gathering {
        archive: &archive,
        jobs: 1,
        listed: &|_| (),
        read: &|count, _| {
            if count == stop {
                cancel.cancel();
            }
        },
        cancel: &cancel,
    };
    let mut gathered = gathering.update(open).ok()?;
    if let Some(index) = &mut gathered.index {
        index.end().unwrap();
    }
    Some(Survey::of(archive.place(), system, gathered.entries))
}

/// With this index everything is answered as without.
#[track_caller]
fn same(store: &MemoryStore, path: &Path, lsn: Lsn, what: &str) {
    let fresh = verified(store, None);
    assert_eq!(verified(store, Some(path)), fresh, "{what}");
    assert_eq!(verified(store, Some(path)), fresh, "once more: {what}");
    let fresh = asked(store, None, lsn);
    assert_eq!(asked(store, Some(path), lsn), fresh, "{what}");
    assert_eq!(asked(store, Some(path), lsn), fresh, "once more: {what}");
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    (dir, path)
}

#[test]
fn a_broken_record_over_several_segments_is_found_in_whichever_order_they_came() {
    let mut all = through().segments(1);
    let commit = Lsn(6 * SEGMENT as u64 - 1000);
    let (_, first) = &mut all[0];
    first[SEGMENT - 5000] ^= 1;
    for late in 0..4 {
        let store = MemoryStore::new();
        bind(&store);
        put(&store, &all);
        let key = all[late].0.to_string();
        for by_targets in [false, true] {
            let (_dir, path) = place();
            assert!(store.remove(&key).unwrap());
            if by_targets {
                asked(&store, Some(&path), commit);
            } else {
                verified(&store, Some(&path));
            }
            put(&store, &all[late..=late]);
            let expected = verified(&store, None);
            assert_eq!(expected.len(), 1, "{expected:?}");
            assert_eq!(expected[0].kind, Kind::DoesNotFollow);
            same(&store, &path, commit, &key);
        }
        let (_dir, path) = place();
        let scope = Scope {
            from: Some(Edge::Segment(all[late].0)),
            ..Scope::default()
        };
        verified_in(&store, Some(&path), scope, u64::MAX);
        same(&store, &path, commit, &format!("from {key}"));
    }
}

#[test]
fn no_target_lies_behind_the_end_of_wal_because_a_partial_segment_was_read() {
    let wal = through();
    let store = MemoryStore::new();
    bind(&store);
    let mut all = wal.segments(1);
    let (_, last) = all.remove(4);
    put(&store, &all[..4]);
    store.overwrite(&format!("{}.partial", name(1, 9)), &last);
    let (_dir, path) = place();
    assert_eq!(verified(&store, Some(&path)), []);
    // Where the record begins that goes over the end.
    let over = Lsn(9 * SEGMENT as u64 - 19_000);
    let fresh = asked(&store, None, over);
    assert_eq!(fresh["target"]["timelines"][0]["found"], Value::Null);
    same(&store, &path, over, "a partial segment");
}

#[test]
fn a_record_that_ends_on_one_timeline_alone_is_no_target_on_another() {
    let mut wal = Written::new();
    wal.fill(2 * SEGMENT - 20_000);
    let over = long_commit(&mut wal, 40_000);
    wal.fill(2 * SEGMENT + 300_000);
    let first = wal.clone();
    let switchpoint = wal.lsn().0;
    wal.promote(2);
    wal.fill(4 * SEGMENT);
    wal.switch();
    // What timeline 1 has of 7 does not follow, or is not there but for a partial segment.
    for is_there in [true, false] {
        let store = MemoryStore::new();
        bind(&store);
        put(&store, &first.segments(1)[..2]);
        put(&store, &wal.segments(2)[2..]);
        store.overwrite("00000002.history", history(switchpoint).as_bytes());
        let (key, bytes) = first.segments(1).remove(2);
        if is_there {
            let mut other = Written::behind(7, 7 * SEGMENT as u64 - 100);
            other.fill(300_000);
            other.switch();
            put(&store, &other.segments(1));
        } else {
            store.overwrite(&format!("{key}.partial"), &bytes);
        }
        let (_dir, path) = place();
        verified(&store, Some(&path));
        let fresh = asked(&store, None, over);
        let timelines = &fresh["target"]["timelines"];
        let found = &timelines[0]["found"];
        // Where 7 is of another WAL it is a line of its own, behind a hole.
        let found = found["record_lsn"].as_str().map(str::to_owned);
        assert_ne!(found, Some(over.to_string()), "{is_there}");
        assert_eq!(timelines[1]["found"]["record_lsn"], over.to_string());
        let commits = |at: usize| fresh["timelines"][at]["ranges"][0]["commits"].as_u64();
        assert_eq!(commits(0), Some(0), "{is_there}");
        same(&store, &path, over, "two timelines");
    }
}

#[test]
fn a_segment_is_of_use_to_targets_though_an_audit_took_others_for_the_rule() {
    let store = MemoryStore::new();
    bind(&store);
    let large_bytes = 4 * SEGMENT;
    let mut small = Written::new();
    small.fill(2 * SEGMENT + 300_000);
    small.switch();
    let mut large = Written::of_segments(large_bytes, 8, 8 * large_bytes as u64 - 100);
    large.fill(4 * large_bytes + 300_000);
    large.switch();
    put(&store, &small.segments(1));
    put(&store, &large.segments(1));
    let (_dir, path) = place();
    let fresh = verified(&store, Some(&path));
    assert_eq!(fresh, []);
    same(&store, &path, Lsn(6 * SEGMENT as u64), "two sizes");
}

#[test]
fn where_a_timeline_begins_it_is_compared_whatever_size_the_others_are() {
    let large_bytes = 4 * SEGMENT;
    let mut wal = Written::new();
    wal.fill(2 * SEGMENT + 300_000);
    let first = wal.clone();
    let switchpoint = wal.lsn().0;
    wal.promote(2);
    wal.fill(3 * SEGMENT);
    wal.switch();
    let mut large = Written::of_segments(large_bytes, 8, 8 * large_bytes as u64 - 100);
    large.timeline = 2;
    large.fill(2 * large_bytes + 300_000);
    large.switch();
    // From another WAL: it does not follow 6.
    let mut other = Written::behind(7, 7 * SEGMENT as u64 - 1000);
    other.fill(300_000);
    other.promote(2);
    other.fill(SEGMENT);
    let store = MemoryStore::new();
    put(&store, &first.segments(1)[..2]);
    put(&store, &other.segments(2)[..1]);
    put(&store, &wal.segments(2)[3..]);
    put(&store, &large.segments(2));
    store.overwrite("00000002.history", history(switchpoint).as_bytes());
    let lsn = Lsn(5 * SEGMENT as u64);
    let (_dir, path) = place();
    let all = asked(&store, Some(&path), lsn);
    let holes = all["timelines"][1]["holes"].as_array().unwrap().clone();
    assert!(
        holes.iter().any(|hole| hole["first_segment"] == name(2, 7)),
        "{holes:?}"
    );
    // Now the last segment says how long the others are.
    put(&store, &first.segments(1)[1..2]);
    assert_eq!(asked(&store, Some(&path), lsn), all);
    put(&store, &other.segments(2)[..1]);
    assert_eq!(asked(&store, Some(&path), lsn), all);
}

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count
    }
}

/// The ways in which each object of an archive may be there.
fn variants() -> Vec<(String, Vec<Vec<u8>>)> {
    let mut wal = Written::new();
    wal.fill(SEGMENT - 100_000);
    long_commit(&mut wal, 2 * SEGMENT + 300_000);
    wal.fill(4 * SEGMENT - 20_000);
    long_commit(&mut wal, 40_000);
    wal.fill(4 * SEGMENT + 300_000);
    let first = {
        let mut first = wal.clone();
        long_commit(&mut first, SEGMENT + 400_000);
        first.fill(6 * SEGMENT + 1000);
        first.switch();
        first
    };
    let switchpoint = wal.lsn().0;
    wal.promote(2);
    long_commit(&mut wal, 2 * SEGMENT);
    wal.fill(7 * SEGMENT + 1000);
    wal.switch();
    let of_segment = |(name, bytes): (SegmentName, Vec<u8>)| {
        let mut broken = bytes.clone();
        broken[SEGMENT - 9000] ^= 1;
        (name.to_string(), vec![bytes, broken])
    };
    let mut all: Vec<_> = first.segments(1).into_iter().map(of_segment).collect();
    all.extend(wal.segments(2).into_iter().skip(4).map(of_segment));
    let partial = first.segments(1).swap_remove(4);
    all.push((format!("{}.partial", partial.0), vec![partial.1]));
    let text = history(switchpoint).into_bytes();
    let elsewhere = history(switchpoint - SEGMENT as u64).into_bytes();
    all.push(("00000002.history".to_owned(), vec![text, elsewhere]));
    all
}

#[test]
fn whatever_is_done_in_whichever_order_an_index_never_changes_an_answer() {
    let variants = variants();
    // Side by side, for audits wait for what is missing.
    std::thread::scope(|scope| {
        for seed in 0..16 {
            let variants = &variants;
            scope.spawn(move || whatever_is_done(variants, seed));
        }
    });
}

fn whatever_is_done(variants: &[(String, Vec<Vec<u8>>)], seed: u64) {
    let mut dice = Dice(seed);
    let store = MemoryStore::new();
    bind(&store);
    for (key, ways) in variants {
        store.overwrite(key, &ways[0]);
    }
    let (_dir, path) = place();
    let mut done = Vec::new();
    for _ in 0..8 {
        let (key, ways) = &variants[dice.below(variants.len() as u64) as usize];
        let way = dice.below(4) as usize;
        match ways.get(way.saturating_sub(1)) {
            Some(bytes) if way > 0 => store.overwrite(key, bytes),
            _ => drop(store.remove(key).unwrap()),
        }
        let stop = [1, 2, 3, 5, u64::MAX][dice.below(5) as usize];
        done.push(format!("{key} {way}, stop after {stop}"));
        if dice.below(2) == 0 {
            let from = Edge::Place(Lsn((5 + dice.below(5)) * SEGMENT as u64));
            let scope = Scope {
                from: (dice.below(2) == 0).then_some(from),
                ..Scope::default()
            };
            verified_in(&store, Some(&path), scope, stop);
        } else {
            survey(&store, Some(&path), stop);
        }
    }
    let over = Lsn(9 * SEGMENT as u64 - 19_000);
    same(&store, &path, over, &format!("seed {seed}: {done:#?}"));
}

#[test]
fn what_rots_and_is_read_for_the_sake_of_others_is_told() {
    let store = MemoryStore::new();
    bind(&store);
    put(&store, &through().segments(1));
    let dir = tempfile::tempdir().unwrap();
    for key in ["walden.json"]
        .map(str::to_owned)
        .into_iter()
        .chain((5..=10).map(|it| name(1, it)))
    {
        let mut object = store.open(&key).unwrap().unwrap();
        let mut file = std::fs::File::create(dir.path().join(&key)).unwrap();
        std::io::copy(&mut object.reader, &mut file).unwrap();
    }
    let (_dir, path) = place();
    let request = Request {
        state: Some(path),
        ..super::readers(2)
    };
    let audit = || {
        let store = DirStore::open(dir.path()).unwrap();
        let archive = Archive::with_store(Box::new(store), Options::default());
        found(&verify(&archive, &request, &|_| (), &Cancel::new()).unwrap())
    };
    let lost = dir.path().join(name(1, 8));
    let bytes = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    assert_eq!(audit(), [(Kind::Missing, name(1, 8))]);
    let rotten = dir.path().join(name(1, 9));
    let modified = rotten.metadata().unwrap().modified().unwrap();
    let mut rot = std::fs::read(&rotten).unwrap();
    rot[400_000] ^= 1;
    std::fs::write(&rotten, &rot).unwrap();
    let file = std::fs::File::options().write(true).open(&rotten).unwrap();
    file.set_modified(modified).unwrap();
    std::fs::write(&lost, &bytes).unwrap();
    for _ in 0..2 {
        assert_eq!(audit(), [(Kind::Damaged, name(1, 9))]);
    }
}
