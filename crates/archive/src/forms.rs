//! Which forms the segments of a remote archive have, so that one request finds one, and one creates one.
//!
//! A file may be stored under several keys, one for each form. A directory is looked at under all of them each time;
//! in an object store that would multiply the requests. So the forms in use are written down beside the binding, one
//! object each ([`marker_of`]), and an archive that has but one form is looked at under that one alone.
//!
//! Guarantees: nobody acknowledges a file without having looked at every form that another writer may have used for it.
//! * A writer puts its form down before it uses it, and looks at all that are down then.
//! * What was read is believed for a minute. A writer whose form joins others does not create anything for a little
//!   longer than that, until every other writer knows of the form, and looks for it.
//! * How long that is a process knows by its own waiting; or, if it does not live so long, by the store's clock, which
//!   told when the form was put down and is asked what time it is now. Both are told by the nodes of one store, which may be
//!   [`CLOCKS_APART_MAX`] apart. This machine's clock counts for nothing.
//! * Whoever was alone when it put its form down need not wait: all who come later wait and look.
//! * An archive that Walden did not begin, with files from elsewhere, has nothing put down: all forms are looked at.
//!
//! Leaves files that people copy there by hand in another form to a second look before anything is called absent.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::archive::Archive;
use crate::error::Error;
use crate::key::Form;
use crate::store::{Detail, Trial};

/// What the keys begin with under which forms are put down.
const MARKER_PREFIX: &str = "walden.form.";

/// How long what was read is believed: one more request a minute, and a minute of waiting for a form that is new.
pub(crate) const BELIEVED: Duration = Duration::from_secs(60);

/// How far the clocks of a store's nodes may be from one another, and how long after the moment that it is given an object
/// may be seen: stores whose nodes are seconds apart are in trouble themselves.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(4 * 60);

/// What an opened archive knows of its forms.
#[derive(Debug)]
pub(crate) struct Forms {
    /// The same for all who write into one archive, or the promise does not hold.
    believed: Duration,
    read: Option<Read>,
    /// Our own form, and from when on it may be used.
    joined: Option<(Form, Instant)>,
}

#[derive(Debug, Clone)]
struct Read {
    at: Instant,
    found: Vec<(Form, SystemTime)>,
}

impl Default for Forms {
    fn default() -> Forms {
        Forms::believed_for(BELIEVED)
    }
}

impl Forms {
    /// With another time for believing what was read, for tests that have none to wait.
    pub(crate) fn believed_for(believed: Duration) -> Forms {
        Forms {
            believed,
            read: None,
            joined: None,
        }
    }
}

/// The one form that files here have; `None` if there are several, or that cannot be known.
pub(crate) fn only(archive: &Archive) -> Result<Option<Form>, Error> {
    if !archive.store.is_remote() {
        return Ok(None);
    }
    Ok(match read(archive)?.found.as_slice() {
        [(only, _)] => Some(*only),
        _ => None,
    })
}

/// Whether files here have the form that we store them in, and no other.
pub(crate) fn is_only_own(archive: &Archive) -> Result<bool, Error> {
    Ok(only(archive)? == Some(archive.options.form()))
}

/// Puts our form down as the first, in an archive that is nobody's yet and holds no WAL.
pub(crate) fn begin(archive: &Archive) -> Result<(), Error> {
    if !archive.store.is_remote() {
        return Ok(());
    }
    put_down(archive, archive.options.form())
}

/// Sees to it that our form may be used for new files.
///
/// Fails with [`crate::ErrorKind::Unavailable`] while others may not know of it yet.
pub(crate) fn use_own(archive: &Archive) -> Result<(), Error> {
    if !archive.store.is_remote() {
        return Ok(());
    }
    let form = archive.options.form();
    let mut now = read(archive)?;
    if now.found.is_empty() {
        return Ok(());
    }
    if now.at_of(form).is_none() {
        let all_sealed = now.found.iter().all(|(found, _)| found.sealed);
        if all_sealed && !form.sealed {
            return Err(Error::unusable(format!(
                "archive \"{}\" holds encrypted files only, and this one would not be",
                archive.place()
            ))
            .with_hint(
                "Set \"walden.recipients\"; or give files that are not encrypted an archive of their own.",
            ));
        }
        put_down(archive, form)?;
        {
            let mut forms = forms(archive);
            forms.read = None;
            forms.joined = None;
        }
        now = read(archive)?;
        if now.at_of(form).is_none() {
            return Err(Error::unavailable(format!(
                "archive \"{}\" does not list \"{}\", which has just been stored there",
                archive.place(),
                marker_of(form)
            )));
        }
    }
    let joined = forms(archive).joined;
    let from = match joined.filter(|(joined, _)| *joined == form) {
        Some((_, from)) => from,
        None => {
            let known = left_to_learn(archive, form, &now)?;
            let mut forms = forms(archive);
            // Whoever asked at the same time has waited as long as we have.
            match forms.joined.filter(|(joined, _)| *joined == form) {
                Some((_, from)) => from,
                None => {
                    let from = Instant::now() + known;
                    forms.joined = Some((form, from));
                    from
                }
            }
        }
    };
    let left = from.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "archive \"{}\" holds files in other forms, and \"{}\" is new there: {} s are left for other servers to \
         learn of it",
        archive.place(),
        shown(form),
        left.as_secs() + 1
    ))
    .with_hint(
        "This happens once, after \"walden.compression\" has been changed, or \"walden.recipients\" set or emptied. \
         Nothing need be done.",
    ))
}

/// How long it takes from now on until all others know of this form, which is put down: for whoever waits for it, or for
/// whoever comes back then.
fn left_to_learn(archive: &Archive, form: Form, read: &Read) -> Result<Duration, Error> {
    if read.found.len() == 1 {
        return Ok(Duration::ZERO);
    }
    let believed = forms(archive).believed;
    // A little longer, so that no two clocks have to run quite alike.
    let waiting = believed + believed / 10;
    let told = waiting + CLOCKS_APART_MAX;
    let age = match (read.at_of(form), archive.store.now()?) {
        (Some(at), Some(now)) => now.duration_since(at).unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let by_store = told.saturating_sub(age);
    Ok(match archive.trial {
        // It waits for nothing, so that the next one learns nothing of its waiting.
        Trial::Brief => by_store,
        Trial::Thorough => waiting.min(by_store),
    })
}

impl Read {
    fn at_of(&self, form: Form) -> Option<SystemTime> {
        let found = self.found.iter().find(|(found, _)| *found == form);
        found.map(|(_, at)| *at)
    }
}

/// What is put down, as of a moment ago at most.
fn read(archive: &Archive) -> Result<Read, Error> {
    {
        let forms = forms(archive);
        let recent = |read: &&Read| read.at.elapsed() < forms.believed;
        if let Some(read) = forms.read.as_ref().filter(recent) {
            return Ok(read.clone());
        }
    }
    // Whatever is put down from here on may be missed.
    let at = Instant::now();
    let mut found = Vec::new();
    archive
        .store
        .list(MARKER_PREFIX, Detail::Full, &mut |entry| {
            if let Some(form) = Form::ALL
                .into_iter()
                .find(|form| marker_of(*form) == entry.key)
            {
                found.push((form, entry.modified));
            }
            ControlFlow::Continue(())
        })?;
    let read = Read { at, found };
    forms(archive).read = Some(read.clone());
    Ok(read)
}

fn put_down(archive: &Archive, form: Form) -> Result<(), Error> {
    let key = marker_of(form);
    let mut staged = archive.store.stage(&key)?;
    let text = format!("Segments are stored here as \"{}\".\n", shown(form));
    staged.write_all(text.as_bytes()).map_err(|cause| {
        Error::io(
            format!("could not write object \"{}\"", archive.shown(&key)),
            cause,
        )
    })?;
    // Created by us or by another: it is there.
    staged.publish().map(drop)
}

fn marker_of(form: Form) -> String {
    match form.suffix().strip_prefix('.') {
        Some(suffix) => format!("{MARKER_PREFIX}{suffix}"),
        None => format!("{MARKER_PREFIX}plain"),
    }
}

fn shown(form: Form) -> String {
    format!("NAME{}", form.suffix())
}

fn forms(archive: &Archive) -> MutexGuard<'_, Forms> {
    archive.forms.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::forge;
    use crate::{Cancel, Compression, ErrorKind, Got, MemoryStore, Options, Put};
    use std::fs;
    use std::path::PathBuf;
    use tempfile::{TempDir, tempdir};
    use wal::{SegmentName, SegmentSize, SystemIdentifier};

    /// Long enough that no machine is so slow that it has passed before it is looked at.
    const SHORT: Duration = Duration::from_secs(2);

    const SYSTEM: SystemIdentifier = SystemIdentifier(7);

    /// A remote store, and a place for files.
    struct Scene {
        store: MemoryStore,
        folder: TempDir,
    }

    impl Scene {
        fn new() -> Scene {
            Scene {
                store: MemoryStore::remote(),
                folder: tempdir().unwrap(),
            }
        }

        /// One more process.
        fn opened(&self, compression: Compression) -> Archive {
            let options = Options {
                compression,
                ..Options::default()
            };
            Archive::with_store(Box::new(self.store.clone()), options).believing_for(SHORT)
        }

        fn source(&self, name: &SegmentName, variant: u64) -> PathBuf {
            let path = self.folder.path().join(format!("{name}.{variant}"));
            let contents = forge::segment(name, SegmentSize::SMALLEST, SYSTEM, variant);
            fs::write(&path, contents).unwrap();
            path
        }

        fn put(&self, archive: &Archive, number: u64, variant: u64) -> Result<Put, Error> {
            let name: SegmentName = format!("00000001{:016X}", number).parse().unwrap();
            let source = self.source(&name, variant);
            archive.put_new(&name.into(), &source, None, &Cancel::new())
        }

        fn keys(&self) -> Vec<String> {
            let mut keys = Vec::new();
            let store: &dyn crate::Store = &self.store;
            store
                .list("", Detail::Keys, &mut |entry| {
                    keys.push(entry.key);
                    ControlFlow::Continue(())
                })
                .unwrap();
            keys
        }
    }

    fn until_used(scene: &Scene, archive: &Archive, number: u64) -> Instant {
        let begun = Instant::now();
        loop {
            match scene.put(archive, number, 1) {
                Ok(Put::Stored { .. }) => return Instant::now(),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
                    Cancel::new().wait(Duration::from_millis(20));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn whoever_begins_an_archive_puts_its_form_down_and_need_not_wait() {
        let scene = Scene::new();
        let archive = scene.opened(Compression::Zstd(1));
        scene.put(&archive, 1, 1).unwrap();
        let zstd = Form::plain(crate::CompressionKind::Zstd);
        assert_eq!(only(&archive).unwrap(), Some(zstd));
        assert!(scene.keys().contains(&"walden.form.zst".to_owned()));
        // So does the next process with the same settings.
        scene
            .put(&scene.opened(Compression::Zstd(1)), 2, 1)
            .unwrap();
    }

    #[test]
    fn a_form_that_joins_others_is_used_only_when_everybody_looks_for_it() {
        let scene = Scene::new();
        let (old, new) = (
            scene.opened(Compression::Zstd(1)),
            scene.opened(Compression::Lz4),
        );
        scene.put(&old, 1, 1).unwrap();
        let joined = Instant::now();
        assert_eq!(
            scene.put(&new, 2, 1).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        // The old one has read what is put down before that, and still may archive under its own form alone.
        scene.put(&old, 3, 1).unwrap();
        let used = until_used(&scene, &new, 2);
        assert!(used - joined > SHORT, "used after {:?}", used - joined);
        // By now it looks for the other form too: before it creates anything.
        let error = scene.put(&old, 2, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let stored = scene
            .keys()
            .into_iter()
            .filter(|key| key.starts_with("000000010000000000000002"));
        assert_eq!(stored.collect::<Vec<_>>(), ["000000010000000000000002.lz4"]);
        assert_eq!(scene.put(&old, 2, 1).unwrap(), Put::AlreadyStored);
    }

    #[test]
    fn a_form_that_the_store_says_is_old_is_used_also_by_who_has_not_waited() {
        let scene = Scene::new();
        scene
            .put(&scene.opened(Compression::Zstd(1)), 1, 1)
            .unwrap();
        // As an archive_command does: each file by a process of its own.
        let put = |number| {
            let archive = scene.opened(Compression::Lz4).for_one_file();
            scene.put(&archive, number, 1)
        };
        let error = put(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let known = CLOCKS_APART_MAX + SHORT;
        // The clock ticks at each object, too.
        scene.store.pass(known - Duration::from_secs(30));
        let error = put(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let left: u64 = error
            .to_string()
            .split_once("new there: ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap();
        assert!((20..=31).contains(&left), "{error}");
        scene.store.pass(Duration::from_secs(left));
        assert!(matches!(put(2), Ok(Put::Stored { .. })));
        assert!(matches!(put(3), Ok(Put::Stored { .. })));
    }

    #[test]
    fn a_form_that_was_put_down_a_moment_ago_is_new_however_old_the_archive_is() {
        let scene = Scene::new();
        scene
            .put(&scene.opened(Compression::Zstd(1)), 1, 1)
            .unwrap();
        let lz4 = marker_of(Form::plain(crate::CompressionKind::Lz4));
        scene.store.pass(Duration::from_secs(24 * 60 * 60));
        // Put down a moment ago, however long the archive has been there.
        scene.store.overwrite(&lz4, b"");
        let archive = scene.opened(Compression::Lz4).for_one_file();
        let error = scene.put(&archive, 2, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    #[test]
    fn an_archive_that_others_began_has_no_form_and_all_are_looked_for() {
        let scene = Scene::new();
        let name: SegmentName = "000000010000000000000001".parse().unwrap();
        let contents = forge::segment(&name, SegmentSize::SMALLEST, SYSTEM, 1);
        scene.store.overwrite(&name.to_string(), &contents);
        let archive = scene.opened(Compression::Zstd(1));
        assert_eq!(scene.put(&archive, 1, 1).unwrap(), Put::AlreadyStored);
        assert_eq!(
            scene.put(&archive, 1, 2).unwrap_err().kind(),
            ErrorKind::Conflict
        );
        scene.put(&archive, 2, 1).unwrap();
        assert_eq!(only(&archive).unwrap(), None);
        assert!(
            !scene
                .keys()
                .iter()
                .any(|key| key.starts_with(MARKER_PREFIX))
        );
        let dest = scene.folder.path().join("restored");
        let got = archive
            .get(&name.into(), &dest, None, &Cancel::new())
            .unwrap();
        assert!(matches!(got, Got::Restored { .. }));
    }
}
