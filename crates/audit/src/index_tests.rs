//! An index that is cut off, lost in part, or another archive's never changes what is learnt.

use std::collections::BTreeMap;

use super::*;

type Entries = BTreeMap<WalFileName, Entry>;

fn subject() -> Subject {
    Subject {
        place: "/archive".to_owned(),
        system: Some("7".to_owned()),
    }
}

fn entries() -> Entries {
    let facts = crate::fixtures::segment("000000010000000000000003")
        .with_end(10, 700)
        .facts;
    let stamp = Stamp {
        bytes: 5,
        modified: 1,
    };
    let history = "1\t0/3000000\tno \"reason\"\n".to_owned();
    let entries = [
        ("000000010000000000000003", What::Segment(Box::new(facts))),
        ("00000002.history", What::Text(history)),
        (
            "000000020000000000000003",
            What::Unreadable("rotten".to_owned()),
        ),
    ];
    let entries = entries.map(|(name, what)| (name.parse().unwrap(), Entry { stamp, what }));
    entries.into()
}

/// Writes an index of these.
fn save(path: &Path, entries: &Entries) {
    let mut index = Index::anew(path, &subject());
    index.folder().unwrap();
    for (name, entry) in entries {
        index.add(*name, entry).unwrap();
    }
    index.end().unwrap();
}

fn load(path: &Path, subject: &Subject) -> Result<(Entries, Index), Unusable> {
    let mut entries = Entries::new();
    let index = Index::open(path, subject, &mut |name, entry| {
        entries.insert(name, entry);
    })?;
    Ok((entries, index))
}

#[test]
fn an_index_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder/index.jsonl");
    assert_eq!(load(&path, &subject()).unwrap().0, Entries::new());
    save(&path, &entries());
    let (loaded, mut index) = load(&path, &subject()).unwrap();
    assert_eq!((loaded, index.damage()), (entries(), None));
    // What is said later counts, and once it is put in order it is said once.
    let name = "00000002.history".parse().unwrap();
    let mut later = entries();
    later.get_mut(&name).unwrap().what = What::Text(String::new());
    index.add(name, &later[&name]).unwrap();
    index.end().unwrap();
    let (loaded, index) = load(&path, &subject()).unwrap();
    assert_eq!((loaded, index.damage()), (later.clone(), None));
    assert_eq!(index.lines(), 4);
    index.rewrite(later.clone().into_iter()).unwrap();
    let (loaded, index) = load(&path, &subject()).unwrap();
    assert_eq!((loaded, index.lines()), (later, 3));
    Index::anew(&path, &subject()).end().unwrap();
    let (loaded, index) = load(&path, &subject()).unwrap();
    assert_eq!((loaded, index.damage()), (Entries::new(), None));
    // Two that both saw it empty take nothing from each other.
    let (mut one, mut other) = (index, load(&path, &subject()).unwrap().1);
    let all = entries();
    let mut each = all.iter();
    for index in [&mut one, &mut other] {
        let (name, entry) = each.next().unwrap();
        index.add(*name, entry).unwrap();
    }
    assert_eq!(load(&path, &subject()).unwrap().0.len(), 2);
}

#[test]
fn an_index_of_another_archive_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.jsonl");
    save(&path, &entries());
    let mut other = subject();
    other.system = Some("8".to_owned());
    let unusable = load(&path, &other).unwrap_err();
    assert!(matches!(unusable, Unusable::Other { .. }), "{unusable}");
    // An archive that is bound meanwhile is no other one; one that nobody has bound may be.
    let mut unbound = subject();
    unbound.system = None;
    assert!(matches!(load(&path, &unbound), Err(Unusable::Other { .. })));
    let of_unbound = dir.path().join("of unbound");
    let mut index = Index::anew(&of_unbound, &unbound);
    for (name, entry) in &entries() {
        index.add(*name, entry).unwrap();
    }
    index.end().unwrap();
    let (loaded, index) = load(&of_unbound, &subject()).unwrap();
    assert_eq!((loaded, index.damage()), (entries(), None));
    let text = std::fs::read_to_string(&path).unwrap();
    let now = format!("\"walden_index\":{VERSION}");
    std::fs::write(&path, text.replace(&now, "\"walden_index\":1")).unwrap();
    let unusable = load(&path, &subject()).unwrap_err();
    assert!(matches!(unusable, Unusable::Version { .. }), "{unusable}");
    assert_ne!(
        subject().default_path(dir.path()),
        other.default_path(dir.path())
    );
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [socket.as_path(), dir.path(), Path::new("/dev/null")] {
        let unusable = load(path, &subject()).unwrap_err();
        assert!(matches!(unusable, Unusable::NoFile { .. }), "{unusable}");
    }
    let index = Index::anew(&socket, &subject());
    index.rewrite(entries().into_iter()).unwrap_err();
    assert!(!socket.metadata().unwrap().is_file());
}

/// Whether an index of these bytes is said to be damaged, or none of this archive's; what is used of it is true.
fn is_damaged(path: &Path, bytes: &[u8]) -> bool {
    std::fs::write(path, bytes).unwrap();
    match load(path, &subject()) {
        Ok((loaded, index)) => {
            let all = entries();
            assert!(loaded.iter().all(|(name, entry)| all[name] == *entry));
            index.damage().is_some()
        }
        Err(unusable) => matches!(unusable, Unusable::Other { .. }),
    }
}

#[test]
fn no_lost_line_passes_for_a_whole_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.jsonl");
    save(&path, &entries());
    let whole = std::fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    // Without its end it is an interrupted one.
    for lost in 0..lines.len() - 1 {
        let mut rest = lines.clone();
        rest.remove(lost);
        assert!(is_damaged(&path, &rest.concat()), "without line {lost}");
    }
}

#[test]
fn an_index_that_ends_early_is_no_damaged_one_but_what_is_damaged_before_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.jsonl");
    save(&path, &entries());
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let third = second
        + whole[second..]
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap()
        + 1;
    for length in 0..=whole.len() {
        let mut cut = whole[..length].to_vec();
        assert!(!is_damaged(&path, &cut), "of {length} bytes");
        if length > third {
            cut[second] = b'x';
            assert!(is_damaged(&path, &cut), "of {length} bytes, damaged");
        }
    }
}

#[test]
fn what_was_interrupted_goes_on_behind_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.jsonl");
    save(&path, &entries());
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let (known, mut index) = load(&path, &subject()).unwrap();
        for (name, entry) in entries() {
            if !known.contains_key(&name) {
                index.add(name, &entry).unwrap();
            }
        }
        index.end().unwrap();
        let (loaded, index) = load(&path, &subject()).unwrap();
        assert_eq!(loaded, entries(), "after {length} bytes");
        assert_eq!(index.damage(), None, "after {length} bytes");
    }
    // And once more.
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let mut index = load(&path, &subject()).unwrap().1;
        for (name, entry) in entries() {
            index.add(name, &entry).unwrap();
        }
        let longer = std::fs::read(&path).unwrap();
        for again in length..longer.len() {
            let damaged = is_damaged(&path, &longer[..again]);
            assert!(!damaged, "after {length} and {again} bytes");
        }
    }
}
