//! The backups of an archive, and what state each is in.
//!
//! Guarantees one listing of their folder, and one request more for each backup. A backup of which something is missing, or
//! that cannot be understood or read, is shown as that and keeps none of the others from being shown. Only one that is
//! committed, whose pages are not corrupt, of which all parts are there, whose WAL is in this very archive, and that is based on
//! none but such backups is complete.
//!
//! Left to others: what is in the parts (`verify.rs`), and which WAL is stored: the caller knows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use archive::{Archive, Error, ErrorKind};
use wal::{Lsn, SegmentName, SystemIdentifier, TimelineId};

use crate::document::{
    COMMITTED_BYTES_MAX, Committed, PageState, Parent, RUNNING_BYTES_MAX, Running,
};
use crate::id::Id;
use crate::layout::{COMMITTED, CONFIRMED, RUNNING};

/// After so long without a sign of life a backup that is not committed counts as abandoned.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The most objects that the backups of an archive may have: a thousand backups of a terabyte each.
const OBJECTS_MAX: usize = 2_000_000;

/// The backups of an archive.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The backups, oldest first.
    pub backups: Vec<Found>,
    /// How many objects are in the folder of backups that belong to none.
    pub foreign: u64,
}

/// One backup as it is found.
#[derive(Debug)]
pub struct Found {
    /// Which one.
    pub id: Id,
    /// What is known of it: everything, once it is committed; else since when it runs.
    pub what: What,
    /// Whether its client saw the server call it a success.
    pub is_confirmed: bool,
    /// How many bytes its objects take.
    pub stored_bytes: u64,
    /// When its newest object was stored, by the store's clock.
    pub last_sign: SystemTime,
}

/// What is known of a backup.
#[derive(Debug)]
pub enum What {
    /// It is committed. Boxed because it is large.
    Committed(Box<Committed>),
    /// It is not.
    Running(Box<Running>),
    /// What says so is damaged, or something of it is missing: why.
    Damaged(String, Option<Box<Committed>>),
    /// It could not be read, or a later version has written it: why.
    Unknown(String),
}

/// What state a backup is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its writer lives, as far as is known.
    Running,
    /// There was no sign of its writer for a day.
    Abandoned,
    /// It is committed, and this segment, which makes it consistent, is not in the archive, or not yet.
    Waiting(SegmentName),
    /// It is whole, and so is its WAL.
    Complete,
    /// It is committed, and some of its pages are corrupt.
    CorruptPages,
    /// It is whole, and what it is based on is not here, or not complete: why, in words.
    ParentMissing(String),
    /// Something of it is missing or damaged: what, in words.
    Damaged(String),
    /// It cannot be told: why, in words.
    Unknown(String),
}

impl State {
    /// The word for it, in documents.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Abandoned => "abandoned",
            State::Waiting(_) => "waiting",
            State::Complete => "complete",
            State::CorruptPages => "corrupt_pages",
            State::ParentMissing(_) => "parent_missing",
            State::Damaged(_) => "damaged",
            State::Unknown(_) => "unknown",
        }
    }
}

impl Found {
    /// What is written down of it, if it is committed and can be read.
    #[must_use]
    pub fn committed(&self) -> Option<&Committed> {
        match &self.what {
            What::Committed(committed) | What::Damaged(_, Some(committed)) => Some(committed),
            What::Running(_) | What::Damaged(_, None) | What::Unknown(_) => None,
        }
    }

    /// What state it is in, whatever it is based on.
    fn state(&self, now: SystemTime, is_stored: &dyn Fn(&SegmentName) -> bool) -> State {
        match &self.what {
            What::Damaged(why, _) => State::Damaged(why.clone()),
            What::Unknown(why) => State::Unknown(why.clone()),
            What::Running(_) => {
                let silent = now.duration_since(self.last_sign).unwrap_or_default();
                if silent > ABANDONED_AFTER {
                    State::Abandoned
                } else {
                    State::Running
                }
            }
            What::Committed(backup) if backup.pages.state == PageState::Corrupt => {
                State::CorruptPages
            }
            What::Committed(backup) => backup
                .first_missing(is_stored)
                .map_or(State::Complete, State::Waiting),
        }
    }
}

impl Catalogue {
    /// What state each backup is in, in their order. `now` is a time by the store's clock, as nearly as the caller knows it;
    /// `is_stored` tells whether a segment is in the archive.
    #[must_use]
    pub fn states(&self, now: SystemTime, is_stored: &dyn Fn(&SegmentName) -> bool) -> Vec<State> {
        let own = self.backups.iter().map(|found| found.state(now, is_stored));
        let mut states: BTreeMap<&Id, State> =
            self.backups.iter().map(|it| &it.id).zip(own).collect();
        let committed = self.backups.iter().filter_map(Found::committed);
        let mut children: Vec<_> = committed
            .filter_map(|backup| Some((backup, backup.parent.as_ref()?)))
            .collect();
        // What a backup is based on began before it, and so is judged before it.
        children.sort_by_key(|(backup, _)| backup.start_lsn);
        for (backup, parent) in children {
            if states.get(&backup.id) == Some(&State::Complete)
                && let Some(state) = self.without_parent(backup, parent, &states)
            {
                states.insert(&backup.id, state);
            }
        }
        self.backups
            .iter()
            .filter_map(|found| states.remove(&found.id))
            .collect()
    }

    /// What an incremental backup is instead of complete; `None` if what it is based on is.
    fn without_parent(
        &self,
        backup: &Committed,
        parent: &Parent,
        states: &BTreeMap<&Id, State>,
    ) -> Option<State> {
        let missing = |why: String| Some(State::ParentMissing(why));
        let Some(id) = &parent.id else {
            return missing(format!(
                "it is based on a backup that began at {}, and it is not known which one that is",
                parent.start_lsn
            ));
        };
        let based = format!("it is based on backup {id}");
        let found = self.backups.binary_search_by_key(&id, |found| &found.id);
        let found = found.ok().and_then(|at| self.backups.get(at));
        let Some((found, state)) = found.zip(states.get(id)) else {
            return missing(format!("{based}, which is not in this archive"));
        };
        if let Some(other) = found.committed()
            && ((other.start_lsn, other.timeline) != (parent.start_lsn, parent.timeline)
                || other.start_lsn >= backup.start_lsn)
        {
            return missing(format!(
                "{based}, which did not begin at {}",
                parent.start_lsn
            ));
        }
        match state {
            State::Complete => None,
            State::Unknown(_) => Some(State::Unknown(format!("{based}, which is not known"))),
            State::Waiting(segment) => {
                missing(format!("{based}, which waits for segment \"{segment}\""))
            }
            State::CorruptPages => missing(format!("{based}, which has corrupt pages")),
            State::ParentMissing(_) => {
                missing(format!("{based}, which lacks what it is based on itself"))
            }
            State::Damaged(_) => missing(format!("{based}, which is damaged")),
            State::Running | State::Abandoned => {
                missing(format!("{based}, which is not committed"))
            }
        }
    }
}

/// The objects of one backup, as listed.
struct Objects {
    bytes: BTreeMap<String, u64>,
    newest: SystemTime,
}

/// Finds all backups of an archive, each of which has to be of this system if it is given.
///
/// # Errors
/// When the archive cannot be listed or read.
pub fn catalogue(archive: &Archive, system: Option<SystemIdentifier>) -> Result<Catalogue, Error> {
    let mut catalogue = Catalogue::default();
    for (id, objects) in listed(archive, &mut catalogue.foreign)? {
        if let Some(found) = found(archive, id, &objects, system)? {
            catalogue.backups.push(found);
        }
    }
    Ok(catalogue)
}

/// Which backup began at that place; `None` if none is known to, or several are, or one cannot be told.
pub(crate) fn beginning_at(
    archive: &Archive,
    system: SystemIdentifier,
    start_lsn: Lsn,
    timeline: TimelineId,
) -> Option<Id> {
    // What keeps this from being found out is no fault of the backup that asks.
    let backups = catalogue(archive, Some(system)).ok()?.backups;
    let mut there = backups.into_iter().filter(|found| match &found.what {
        What::Unknown(_) => true,
        _ => found
            .committed()
            .is_some_and(|backup| (backup.start_lsn, backup.timeline) == (start_lsn, timeline)),
    });
    let first = there.next()?;
    let is_the_one = there.next().is_none() && !matches!(first.what, What::Unknown(_));
    is_the_one.then_some(first.id)
}

fn listed(archive: &Archive, foreign: &mut u64) -> Result<BTreeMap<Id, Objects>, Error> {
    let mut all: BTreeMap<Id, Objects> = BTreeMap::new();
    let mut count = 0_usize;
    archive.each_in(super::FOLDER, &mut |entry| {
        let below = entry.key.strip_prefix(super::FOLDER).unwrap_or_default();
        let parsed = below
            .split_once('/')
            .and_then(|(id, name)| Some((id.parse().ok()?, name)));
        let Some((id, name)) = parsed else {
            *foreign += 1;
            return ControlFlow::Continue(());
        };
        count += 1;
        if count > OBJECTS_MAX {
            return ControlFlow::Break(());
        }
        let objects = all.entry(id).or_insert_with(|| Objects {
            bytes: BTreeMap::new(),
            newest: entry.modified,
        });
        objects.newest = objects.newest.max(entry.modified);
        objects.bytes.insert(name.to_owned(), entry.bytes);
        ControlFlow::Continue(())
    })?;
    if count > OBJECTS_MAX {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "backups in \"{}\" have more than {OBJECTS_MAX} objects",
                archive.place()
            ),
        ));
    }
    Ok(all)
}

/// `None` if it is gone by now.
fn found(
    archive: &Archive,
    id: Id,
    objects: &Objects,
    system: Option<SystemIdentifier>,
) -> Result<Option<Found>, Error> {
    let what = match what(archive, &id, objects, system) {
        Ok(Some(what)) => what,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::Damaged => What::Damaged(error.to_string(), None),
        // A store that does not answer says nothing of this one backup.
        Err(error) if error.kind().may_work_later() && !is_of_object(&error) => return Err(error),
        Err(error) => What::Unknown(error.to_string()),
    };
    Ok(Some(Found {
        what,
        is_confirmed: objects.bytes.contains_key(CONFIRMED),
        stored_bytes: objects
            .bytes
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes)),
        last_sign: objects.newest,
        id,
    }))
}

/// Whether it is for the object that it could not be read, and others may be fine.
fn is_of_object(error: &Error) -> bool {
    error.is_no_file() || error.is_denied()
}

fn what(
    archive: &Archive,
    id: &Id,
    objects: &Objects,
    system: Option<SystemIdentifier>,
) -> Result<Option<What>, Error> {
    let is_foreign = |own: SystemIdentifier| system.is_some_and(|system| system != own);
    let foreign = |own: SystemIdentifier| format!("it belongs to system identifier {own}");
    if objects.bytes.contains_key(COMMITTED) {
        let key = id.key(COMMITTED);
        let Some(object) = archive.read_plain(&key, COMMITTED_BYTES_MAX)? else {
            return Ok(None);
        };
        let shown = format!("{}/{key}", archive.place());
        let backup = Box::new(Committed::parse(&object.bytes, id, &shown)?);
        if is_foreign(backup.system) {
            return Ok(Some(What::Damaged(foreign(backup.system), None)));
        }
        return Ok(Some(match missing_part(&backup, objects) {
            None => What::Committed(backup),
            Some(why) => What::Damaged(why, Some(backup)),
        }));
    }
    let key = id.key(RUNNING);
    let shown = format!("{}/{key}", archive.place());
    if !objects.bytes.contains_key(RUNNING) {
        let why = format!("there is neither \"{COMMITTED}\" nor \"{RUNNING}\"");
        return Ok(Some(What::Damaged(why, None)));
    }
    let Some(object) = archive.read_plain(&key, RUNNING_BYTES_MAX)? else {
        return Ok(None);
    };
    let running = Box::new(Running::parse(&object.bytes, id, &shown)?);
    if is_foreign(running.system) {
        return Ok(Some(What::Damaged(foreign(running.system), None)));
    }
    Ok(Some(What::Running(running)))
}

/// What is wrong with the parts, as far as a listing shows it.
fn missing_part(backup: &Committed, objects: &Objects) -> Option<String> {
    let mut parts = backup.parts.iter().chain(&backup.manifest);
    parts.find_map(|part| match objects.bytes.get(&part.name) {
        None => Some(format!("\"{}\" is missing", part.name)),
        Some(bytes) if *bytes != part.stored_bytes => Some(format!(
            "\"{}\" has {bytes} bytes, and had {}",
            part.name, part.stored_bytes
        )),
        Some(_) => None,
    })
}
