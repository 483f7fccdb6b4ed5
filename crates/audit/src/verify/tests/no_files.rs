//! A WAL file's name that something else has is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use archive::{Archive, Cancel, Location, Options, spawn_plainly};

use super::super::{Report, Request, verify};
use super::scene::{Scene, found, name, one};
use crate::finding::{Kind, Severity};
use crate::gather::Gathering;
use crate::index::What;
use crate::inventory::Inventory;
use crate::ranges::{Depth, ranges};

/// Puts something else under a name.
type Make = fn(&Path);

/// What that is, and how it is made.
const OTHERS: [(&str, Make); 5] = [
    ("a link to nowhere", |path| {
        symlink("/nonexistent/tier", path).unwrap();
    }),
    ("a link to itself", |path| {
        symlink(path.file_name().unwrap(), path).unwrap();
    }),
    ("a directory", |path| fs::create_dir(path).unwrap()),
    ("a fifo", |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
];

fn archive(dir: &Path) -> Archive {
    let location = Location::directory(dir).unwrap();
    Archive::open(&location, Options::default(), spawn_plainly).unwrap()
}

fn verified(archive: &Archive) -> Report {
    let request = Request {
        readers: 2,
        ..Request::default()
    };
    verify(archive, &request, &|_| (), &Cancel::new()).unwrap()
}

#[test]
fn a_history_a_segment_or_a_partial_one_that_is_no_file_is_an_error_that_names_it() {
    let keys = [
        "00000002.history".to_owned(),
        name(2, 11),
        format!("{}.partial", name(1, 7)),
    ];
    let dir = Scene::new().directory();
    let archive = archive(dir.path());
    assert_eq!(found(&verified(&archive)), []);
    for key in keys {
        let path = dir.path().join(&key);
        let bytes = fs::read(&path).unwrap();
        for (what, make) in OTHERS {
            fs::remove_file(&path).unwrap();
            make(&path);
            let report = verified(&archive);
            let finding = one(&report, Kind::NotRead, &key);
            assert_eq!(finding.severity, Severity::Error, "{key}: {what}");
            assert!(finding.message.contains(&key), "{what}: {finding:?}");
            assert!(finding.hint.is_some(), "{key}: {what}");
            assert_eq!(report.stopped, None, "{key}: {what}");
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            fs::write(&path, &bytes).unwrap();
        }
    }
}

#[test]
fn more_links_to_nowhere_than_an_archive_out_of_reach_has_are_each_told() {
    let dir = Scene::new().directory();
    for number in 13..40 {
        symlink("/nonexistent/tier", dir.path().join(name(2, number))).unwrap();
    }
    let report = verified(&archive(dir.path()));
    assert_eq!(report.stopped, None);
    let told = found(&report).into_iter();
    assert_eq!(told.filter(|(kind, _)| *kind == Kind::NotRead).count(), 27);
}

#[test]
fn targets_and_lists_go_on_without_what_is_no_file() {
    let dir = Scene::new().directory();
    let key = name(2, 12);
    fs::remove_file(dir.path().join(&key)).unwrap();
    symlink("/nonexistent/tier", dir.path().join(&key)).unwrap();
    let archive = archive(dir.path());
    let gathering = Gathering {
        archive: &archive,
        jobs: 2,
        listed: &|_| (),
        read: &|_, _| (),
        cancel: &Cancel::new(),
    };
    let gathered = gathering.update(|_| None).unwrap();
    let what = gathered.entries.get(&key.parse().unwrap());
    assert!(matches!(what, Some(What::Unfit(_))));
    let inventory = Inventory::take(&archive, &mut |_| ()).unwrap();
    let found = ranges(&archive, &inventory, Depth::Contents, &Cancel::new()).unwrap();
    assert!(found.trouble.iter().any(|why| why.contains(&key)));
}
