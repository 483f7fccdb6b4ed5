//! Archivers at work, and a look at what became visible by it: the file that was offered, and those that were archived with it.
//!
//! Guarantees that whatever appears in the archive is judged, whoever asked for it. Left to `oracle`: whether a file may be
//! archived where it was.

use std::sync::Arc;

use crate::files::Status;
use crate::oracle::{self, Violation};
use crate::restores::{Kept, Offer, Refusal, Storage};
use crate::timelines::parse_segment;
use crate::world::World;

/// Timeline and number of the segment whose WAL an object holds.
fn wal_of(key: &str) -> Option<(u32, u64)> {
    parse_segment(key.strip_suffix(".partial").unwrap_or(key))
}

impl World {
    /// Lets a server's archiver work on what is ready.
    pub fn archive(&mut self, id: usize, count: usize) {
        for _ in 0..count {
            if !self.archive_one(id) {
                return;
            }
        }
    }

    /// Offers the next file; false if there is none, or it is not archived.
    fn archive_one(&mut self, id: usize) -> bool {
        let Some(server) = &mut self.servers[id] else {
            return false;
        };
        let storage = self.shelf.storage();
        if self.broken[id] || (storage == Storage::Unmounted && !self.met[id]) {
            return false;
        }
        let Some(name) = server.ready() else {
            return false;
        };
        if server.contents(&name).is_none() {
            server.files.note(&name, None);
            return true;
        }
        let there = self.shelf.keys("");
        let before = oracle::predecessor(&self.tree, server, &name);
        let offer = Offer { name, before };
        let answer = self.modules[id].archive(&self.shelf, server, &offer);
        self.met[id] |= storage == Storage::Sound && answer.is_ok();
        let name = offer.name;
        match &answer {
            Ok(()) => {
                server.files.note(&name, Some(Status::Done));
                self.counts.archived += 1;
                self.story.push(format!("server {id} archived {name}"));
            }
            Err(Refusal { why, .. }) => {
                self.counts.refused += 1;
                self.story
                    .push(format!("server {id} could not archive {name}: {why}"));
                let was_left = wal_of(&name)
                    .is_some_and(|(timeline, number)| oracle::has_left(server, timeline, number));
                if was_left && why.contains("is not complete") {
                    self.violate(
                        "refused, though its timeline was left",
                        format!("\"{name}\""),
                    );
                }
            }
        }
        let mut new = self.shelf.keys("");
        new.retain(|key| !there.contains(key) && !key.starts_with("walden."));
        // As they were written, and what was offered first.
        new.sort_by_key(|key| (*key != name, wal_of(key)));
        self.appeared(id, &name, &new, &answer);
        self.archived[id].extend(answer.is_ok().then(|| name.clone()));
        // Perhaps it was there when an earlier one was asked for: what became of it since is no matter of the archiver's.
        let was_there = self.settings[id].jobs > 1 && self.taken.contains(&name);
        if answer.is_ok() && !was_there && !self.is_archived(id, &name) {
            self.violate("archived, and is not", format!("\"{name}\""));
        }
        answer.is_ok()
    }

    /// Whether a file is stored, or all its records where WAL ends in it.
    fn is_archived(&self, id: usize, name: &str) -> bool {
        let Some(server) = &self.servers[id] else {
            return false;
        };
        let stored = self.shelf.raw(name);
        let same = server.contents(name).map(|contents| contents.to_vec());
        (stored.is_some() && stored == same)
            || oracle::stored_by_records(&self.shelf, server, name).is_some()
    }

    /// Judges what has appeared in the archive while `name` was offered.
    fn appeared(&mut self, id: usize, name: &str, new: &[String], answer: &Result<(), Refusal>) {
        let offered = wal_of(name);
        let is_behind = |key: &str| {
            matches!((offered, wal_of(key)), (Some((timeline, number)), Some((t, n)))
                if t == timeline && n > number)
        };
        let mut new_through = Vec::new();
        for key in new {
            match answer {
                Err(_) if is_behind(key) => new_through.push(key.clone()),
                _ => self.judge_stored(id, name, key),
            }
            self.keep(id, key);
            if key != name {
                self.story
                    .push(format!("server {id} archived {key} with it"));
            }
        }
        match (offered, answer) {
            (Some((timeline, _)), Ok(())) if new.iter().any(|key| key == name) => {
                self.flows[id].insert(timeline);
            }
            (Some((timeline, _)), Err(refusal)) => {
                let may_be =
                    self.shelf.is_far && (refusal.may_pass || self.flows[id].contains(&timeline));
                let may_be = may_be || new_through.is_empty();
                self.through[id].extend(new_through);
                let through = self.through[id].iter().filter(|key| is_behind(key));
                let through: Vec<String> = through.cloned().collect();
                self.judge_through(id, &through, may_be, refusal);
                if !refusal.may_pass {
                    self.flows[id].remove(&timeline);
                }
            }
            _ => {}
        }
    }

    /// A file was stored, as the one that was offered or with it.
    fn judge_stored(&mut self, id: usize, name: &str, key: &str) {
        let Some(server) = &self.servers[id] else {
            return;
        };
        let offer = Offer {
            name: key.to_owned(),
            before: oracle::predecessor(&self.tree, server, key),
        };
        let before = offer.before.as_ref();
        let is_through = before.is_some_and(|before| self.through[id].contains(before));
        let is_remembered = before.is_some_and(|before| self.archived[id].contains(before));
        let verdict = oracle::judge_archived(&self.shelf, server, &offer);
        let verdict = verdict.filter(|_| !is_remembered);
        // The one before it has been refused just now, or was on its way: whoever asks for that one is told.
        let timeline = wal_of(key).map(|(timeline, _)| timeline);
        let is_ahead = key != name && timeline.is_some_and(|own| self.flows[id].contains(&own));
        if is_through || (verdict.is_some() && is_ahead && self.shelf.is_far) {
            self.through[id].insert(key.to_owned());
        } else if let Some(Violation { rule, text }) = verdict {
            self.violate(rule, text);
        }
    }

    /// Notes what has been stored.
    fn keep(&mut self, id: usize, key: &str) {
        let (Some(server), Some(stored)) = (&self.servers[id], self.shelf.raw(key)) else {
            return;
        };
        let bare = key.strip_suffix(".partial").unwrap_or(key);
        // A segment in which WAL ends is stored as what it is.
        let is_right = [key, bare].iter().any(|name| {
            let contents = server.contents(name);
            contents.is_some_and(|contents| *contents == stored)
        });
        let is_cut = oracle::ends_inside(key, &stored);
        let kept = Kept {
            contents: Arc::new(stored),
            is_sound: true,
            life: server.life,
        };
        self.shelf.kept.insert(key.to_owned(), kept);
        self.archived[id].insert(key.to_owned());
        if !is_right {
            self.violate("stored what was not offered", format!("\"{key}\""));
        }
        if is_cut {
            let rule = "archived as complete, and WAL ends in it";
            self.violate(rule, format!("\"{key}\""));
        }
    }

    /// What became visible behind a file that was refused: nothing where files come in order, or where nothing of the timeline
    /// has been archived before; else fewer than there are jobs, and the refusal names them (section 5 of the judgement).
    fn judge_through(&mut self, id: usize, through: &[String], may_be: bool, refusal: &Refusal) {
        let most = self.settings[id].jobs.saturating_sub(1);
        let is_told =
            |key: &String| refusal.may_pass || refusal.why.contains(&format!("\"{key}\""));
        if !may_be || through.len() > most || !through.iter().all(is_told) {
            let names = through.join(", ");
            let text = format!("{names}; told: {}", refusal.why);
            self.violate("stored behind a refused one", text);
        }
    }
}
