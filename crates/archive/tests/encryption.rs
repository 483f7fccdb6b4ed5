//! Encrypted archives as their owners meet them: the stock programs `age`, `age-keygen` and `zstd` read what Walden
//! wrote and write what Walden reads; keys that are missing, wrong, several, or changed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{ONE, OURS, Place, TWO, segment};
use wal::{SegmentSize, TimelineId, WalFileName};
use walden_archive::suite::fixtures;
use walden_archive::{
    Archive, CLUSTER_SECRET_BYTES, ClusterSecret, Compression, DirStore, ErrorKind, Evidence, Form,
    Options, Put, SoughtSegment, Verify,
};

/// A marker that stands in every segment, and in nothing that is encrypted.
const MARKER: &[u8] = b"a marker that nobody without a key may see";

fn marked(name: &str) -> Vec<u8> {
    let mut contents = segment(name);
    contents[100_000..100_000 + MARKER.len()].copy_from_slice(MARKER);
    contents
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Runs a stock program; fails, with what it said, unless it succeeds.
fn stock(program: &str, args: &[&str], input: &[u8], dir: &Path) -> Vec<u8> {
    let mut command = Command::new(program);
    let read_from = dir.join("standard-input");
    fs::write(&read_from, input).unwrap();
    let ran = command
        .args(args)
        .stdin(fs::File::open(read_from).unwrap())
        .stderr(Stdio::piped())
        .output();
    let ran = ran.unwrap_or_else(|cause| {
        panic!("could not run {program}: {cause}; scripts/prerequisites installs it")
    });
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{program} {args:?}: {said}");
    ran.stdout
}

/// Keys made by `age-keygen`.
struct Keys {
    place: Place,
}

impl Keys {
    fn new() -> Keys {
        Keys {
            place: Place::new(),
        }
    }

    fn dir(&self) -> &Path {
        self.place.scratch.path()
    }

    /// A new key: the path of its file, as `age-keygen` wrote it, and its public key.
    fn make(&self, name: &str) -> (PathBuf, String) {
        let path = self.dir().join(name);
        let text = path.to_str().unwrap();
        stock("age-keygen", &["-o", text], b"", self.dir());
        let public = stock("age-keygen", &["-y", text], b"", self.dir());
        (path, String::from_utf8(public).unwrap().trim().to_owned())
    }

    fn archive(&self, recipients: &[&str], identity: Option<&Path>) -> Archive {
        self.archive_with(Compression::Zstd(3), recipients, identity)
    }

    fn archive_with(
        &self,
        compression: Compression,
        recipients: &[&str],
        identity: Option<&Path>,
    ) -> Archive {
        let options = Options {
            compression,
            recipients: recipients.join(",").parse().unwrap(),
            identity_file: identity.map(|path| path.to_str().unwrap().parse().unwrap()),
            verify: Verify::Header,
            server_major: None,
        };
        let store = DirStore::open(self.place.dir.path()).unwrap();
        let secret = ClusterSecret::new([1; CLUSTER_SECRET_BYTES]);
        Archive::with_store(Box::new(store), options).with_secret(secret)
    }

    fn stored(&self, key: &str) -> Vec<u8> {
        fs::read(self.place.stored(key)).unwrap()
    }

    fn decrypted(&self, key: &str, identity: &Path) -> Vec<u8> {
        let identity = identity.to_str().unwrap();
        stock(
            "age",
            &["-d", "-i", identity],
            &self.stored(key),
            self.dir(),
        )
    }
}

#[test]
fn stock_age_and_zstd_read_what_was_archived() {
    let keys = Keys::new();
    let (file, public) = keys.make("key");
    let archive = keys.archive(&[&public], None);
    let contents = marked(ONE);
    keys.place.put(&archive, ONE, &contents).unwrap();
    let compressed = keys.decrypted(ONE, &file);
    assert!(stock("zstd", &["-d", "-c"], &compressed, keys.dir()) == contents);
    // Timeline and backup history files are encrypted as they are.
    let history = fixtures::timeline_history(TimelineId::FIRST, "0/100000", "test");
    keys.place
        .put(&archive, "00000002.history", &history)
        .unwrap();
    assert_eq!(keys.decrypted("00000002.history", &file), history);
    let raw = keys.archive_with(Compression::None, &[&public], None);
    keys.place.put(&raw, TWO, &marked(TWO)).unwrap();
    assert!(keys.decrypted(TWO, &file) == marked(TWO));
    // And the archive says whose it is to everybody.
    assert!(contains(
        &keys.stored("walden.json"),
        OURS.to_string().as_bytes()
    ));
}

#[test]
fn what_stock_zstd_and_age_wrote_is_restored_and_recognised_with_an_identity() {
    let keys = Keys::new();
    let (file, public) = keys.make("key");
    let contents = marked(ONE);
    let compressed = stock("zstd", &["-c"], &contents, keys.dir());
    for (key, bytes) in [(ONE, &compressed), (TWO, &marked(TWO))] {
        let sealed = stock("age", &["-r", &public], bytes, keys.dir());
        fs::write(keys.place.stored(key), sealed).unwrap();
    }
    let archive = keys.archive(&[&public], Some(&file));
    assert!(keys.place.get(&archive, ONE).unwrap() == Some(contents.clone()));
    assert!(keys.place.get(&archive, TWO).unwrap() == Some(marked(TWO)));
    assert_eq!(
        keys.place.put(&archive, ONE, &contents).unwrap(),
        Put::AlreadyStored
    );
    // Without one nobody can tell: no digest is in it.
    let blind = keys.archive(&[&public], None);
    let error = keys.place.put(&blind, ONE, &contents).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(
        error.to_string().contains("nor does it hold a digest"),
        "{error}"
    );
}

#[test]
fn without_an_identity_nobody_reads_a_byte_and_nothing_is_called_absent() {
    let keys = Keys::new();
    let (_, public) = keys.make("key");
    let (wrong, wrong_public) = keys.make("wrong");
    let compressions = [Compression::None, Compression::Zstd(1), Compression::Lz4];
    for (number, compression) in compressions.into_iter().enumerate() {
        let name = format!("00000001000000000000000{number}");
        let archive = keys.archive_with(compression, &[&public], None);
        keys.place.put(&archive, &name, &marked(&name)).unwrap();
        let stored = keys.stored(&name);
        assert!(!contains(&stored, MARKER));
        // The header of the segment's first page, which tells the system identifier.
        assert!(!contains(&stored, &OURS.0.to_ne_bytes()));

        let error = keys.place.get(&archive, &name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        let said = format!("is encrypted for {public}, and \"walden.identity_file\" is not set");
        assert!(error.to_string().ends_with(&said), "{error}");
        assert!(error.hint().is_some());

        let stranger = keys.archive_with(compression, &[&public], Some(&wrong));
        let error = keys.place.get(&stranger, &name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        let said = format!(
            "is encrypted for {public}, and identity file \"{}\" is for {wrong_public}",
            wrong.display()
        );
        assert!(error.to_string().ends_with(&said), "{error}");

        let missing = keys.archive_with(compression, &[&public], Some(&keys.dir().join("missing")));
        let error = keys.place.get(&missing, &name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.to_string().contains("missing\": No such file"),
            "{error}"
        );
    }
}

#[test]
fn an_archiver_without_identity_knows_its_own_file_again_and_refuses_another() {
    let keys = Keys::new();
    let (_, public) = keys.make("key");
    let archive = keys.archive(&[&public], None);
    let contents = marked(ONE);
    keys.place.put(&archive, ONE, &contents).unwrap();
    let before = keys.stored(ONE);
    assert_eq!(
        keys.place.put(&archive, ONE, &contents).unwrap(),
        Put::AlreadyStored
    );
    let mut other = contents.clone();
    *other.last_mut().unwrap() ^= 1;
    let error = keys.place.put(&archive, ONE, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .to_string()
            .contains("already exists with different contents"),
        "{error}"
    );
    assert!(keys.stored(ONE) == before);

    // Whoever does not know the cluster's secret, or knows another one, says so and does not guess.
    for (secret, said) in [
        (None, "comparing digests needs the cluster's secret"),
        (
            ClusterSecret::new([2; CLUSTER_SECRET_BYTES]),
            "its digest was made by another cluster",
        ),
    ] {
        let archive = keys.archive(&[&public], None).with_secret(secret);
        for contents in [&contents, &other] {
            let error = keys.place.put(&archive, ONE, contents).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unusable);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

#[test]
fn any_one_of_several_recipients_reads_with_walden_and_with_age() {
    let keys = Keys::new();
    let made = [keys.make("one"), keys.make("two"), keys.make("three")];
    let publics: Vec<&str> = made.iter().map(|(_, public)| public.as_str()).collect();
    let writer = keys.archive_with(Compression::None, &publics, None);
    keys.place.put(&writer, ONE, &marked(ONE)).unwrap();
    for (file, _) in &made {
        assert!(keys.decrypted(ONE, file) == marked(ONE));
        let reader = keys.archive(&[], Some(file));
        assert!(keys.place.get(&reader, ONE).unwrap() == Some(marked(ONE)));
    }
}

#[test]
fn after_a_rotation_one_file_with_both_identities_reads_old_and_new() {
    let keys = Keys::new();
    let (old, old_public) = keys.make("old");
    let (new, new_public) = keys.make("new");
    keys.place
        .put(&keys.archive(&[&old_public], None), ONE, &marked(ONE))
        .unwrap();
    keys.place
        .put(&keys.archive(&[&new_public], None), TWO, &marked(TWO))
        .unwrap();
    let current = keys.dir().join("identities");
    fs::copy(&old, &current).unwrap();
    let reader = keys.archive(&[&new_public], Some(&current));
    assert!(keys.place.get(&reader, ONE).unwrap().is_some());
    assert_eq!(
        keys.place.get(&reader, TWO).unwrap_err().kind(),
        ErrorKind::Unusable
    );
    // The file is put right while the archive is open.
    let both = [fs::read(&old).unwrap(), fs::read(&new).unwrap()].concat();
    fs::write(&current, both).unwrap();
    for name in [ONE, TWO] {
        assert!(keys.place.get(&reader, name).unwrap() == Some(marked(name)));
    }
    for stored in reader.list().unwrap() {
        assert_eq!(reader.form_of(&stored.key).unwrap(), Some(Form::Age));
    }
}

#[test]
fn a_sealed_file_that_is_cut_short_or_damaged_is_damaged_and_no_end_of_wal() {
    let keys = Keys::new();
    let (file, public) = keys.make("key");
    let archive = keys.archive(&[&public], Some(&file));
    keys.place.put(&archive, ONE, &marked(ONE)).unwrap();
    let path = keys.place.stored(ONE);
    let whole = fs::read(&path).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    for broken in [
        &whole[..middle],
        &whole[..whole.len() - 1],
        &whole[..10],
        &flipped,
        &[],
    ] {
        fs::write(&path, broken).unwrap();
        let error = keys.place.get(&archive, ONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        let error = keys.place.put(&archive, ONE, &marked(ONE)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
}

#[test]
fn a_file_stored_plain_is_known_again_by_who_encrypts_and_the_other_way_round() {
    let keys = Keys::new();
    let (file, public) = keys.make("key");
    let (plain, sealing) = (
        keys.archive(&[], Some(&file)),
        keys.archive(&[&public], None),
    );
    keys.place.put(&plain, ONE, &marked(ONE)).unwrap();
    keys.place.put(&sealing, TWO, &marked(TWO)).unwrap();
    for (archive, name) in [(&sealing, ONE), (&plain, TWO)] {
        let before = keys.stored(name);
        let again = keys.place.put(archive, name, &marked(name)).unwrap();
        assert_eq!(again, Put::AlreadyStored);
        let mut other = marked(name);
        *other.last_mut().unwrap() ^= 1;
        let error = keys.place.put(archive, name, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(keys.stored(name) == before);
    }
}

#[test]
fn whether_a_segment_is_missing_is_not_guessed_from_history_that_cannot_be_read() {
    let keys = Keys::new();
    let (file, public) = keys.make("key");
    let blind = keys.archive(&[&public], None);
    keys.place.put(&blind, ONE, &marked(ONE)).unwrap();
    // The second timeline left the first in its segment 4, so there were segments 2 and 3.
    let history = fixtures::timeline_history(TimelineId::FIRST, "0/400000", "test");
    keys.place
        .put(&blind, "00000002.history", &history)
        .unwrap();
    let two: WalFileName = TWO.parse().unwrap();
    let sought = SoughtSegment {
        segment: *two.segment().unwrap(),
        size: Some(SegmentSize::SMALLEST),
        is_fork: false,
        at_hand: &[],
    };
    let locked = blind.segment_evidence(&sought).unwrap_err();
    assert_eq!(locked.kind(), ErrorKind::Unusable);
    let sighted = keys.archive(&[&public], Some(&file));
    let against = sighted.segment_evidence(&sought).unwrap().against;
    assert!(
        matches!(against, Some(Evidence::Left { .. })),
        "{against:?}"
    );
}

#[test]
fn partial_segments_with_the_same_records_are_the_same_to_who_cannot_open_them() {
    let written = |fill: usize| {
        let mut wal = ::fixtures::Written::new();
        wal.system = OURS.0;
        wal.fill(fill);
        wal.segments(1).remove(0)
    };
    let (name, one) = written(400_000);
    let name = format!("{name}.partial");
    // Another server's, on which an older segment has left this behind.
    let mut other = one.clone();
    other[900_000..].fill(7);
    let keys = Keys::new();
    let (_, public) = keys.make("key");
    let archive = keys.archive(&[&public], None);
    let put = keys.place.put(&archive, &name, &one).unwrap();
    assert!(matches!(put, Put::Stored { .. }), "{put:?}");
    let put = keys.place.put(&archive, &name, &other).unwrap();
    assert_eq!(put, Put::AlreadyStored);
    // With more records it may be, or not.
    let error = keys
        .place
        .put(&archive, &name, &written(500_000).1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
}

#[test]
fn a_stored_segment_that_cannot_be_opened_is_not_in_the_way_of_a_partial_one() {
    let mut wal = ::fixtures::Written::new();
    wal.system = OURS.0;
    wal.fill(400_000);
    let (name, cut) = wal.segments(1).remove(0);
    let left = wal.lsn();
    wal.fill(1 << 20);
    let whole = wal.segments(1).remove(0).1;
    let keys = Keys::new();
    let (_, public) = keys.make("key");
    let archive = keys.archive(&[&public], None);
    keys.place.put(&archive, &name.to_string(), &whole).unwrap();
    let put = || keys.place.put(&archive, &name.to_string(), &cut);
    assert_eq!(put().unwrap_err().kind(), ErrorKind::Unusable);
    let history = fixtures::timeline_history(TimelineId::FIRST, &left.to_string(), "test");
    fs::write(keys.dir().join("00000002.history"), history).unwrap();
    assert_eq!(put().unwrap(), Put::AsPartial);
    assert!(keys.place.stored(&format!("{name}.partial")).exists());
}
