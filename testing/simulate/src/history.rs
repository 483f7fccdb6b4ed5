//! Makes up what happens: writing, archiving, failing over, copying, losing, recovering.
//!
//! Guarantees that a seed gives one history, and that a history ends with recoveries of what is left. One function is
//! long because it lists what may befall an object.

use std::sync::Arc;

use crate::life::{ArchiveMode, Server, Signal};
use crate::restores::{Kept, Module, Storage};
use crate::startup::{Goal, Wanted};
use crate::timelines::{parse_history_name, parse_segment, segment_name};
use crate::world::{Harm, Limits, Plan, SERVERS_MAX, World};
use crate::{SEGMENT, lsn, segment_of};

/// One history, to its end.
pub fn play(seed: u64, limits: Limits, module: &dyn Fn() -> Box<dyn Module>) -> World {
    let mut world = World::new(seed, limits, module);
    let mut player = Player {
        world: &mut world,
        limits,
    };
    player.play();
    world.shelf.set_storage(Storage::Sound);
    world.look_through();
    world
}

/// The first segment of a new timeline comes into the archive before anybody recovers: without it, a server whose older timeline
/// went on would be followed there.
fn begin_archiving(world: &mut World, id: usize) {
    world.switch(id);
    world.archive(id, 50);
}

/// The segment that was being written when a copy was made is archived and lost, and WAL goes on.
fn half_written(world: &mut World, source: usize) {
    let Some((end, timeline)) = world.servers[source].as_ref().and_then(Server::end) else {
        return;
    };
    let name = segment_name(timeline, segment_of(end));
    for _ in 0..2 {
        world.write(source);
        world.switch(source);
    }
    world.archive(source, 20);
    if let Some(kept) = world.shelf.remove(&name) {
        world.story.push(format!("in the archive, {name} is lost"));
        world.taken.insert(name.clone());
        world.harms.push(Harm {
            key: name,
            before: Some(kept),
        });
    }
}

struct Player<'a> {
    world: &'a mut World,
    limits: Limits,
}

impl Player<'_> {
    fn play(&mut self) {
        self.world.write(0);
        self.back_up(0);
        let steps = self.world.rng.usize(8..40);
        for _ in 0..steps {
            self.step();
            if !self.world.violations.is_empty() {
                return;
            }
        }
        for _ in 0..self.world.rng.usize(1..4) {
            self.point_in_time(false);
            if !self.world.violations.is_empty() {
                return;
            }
        }
    }

    fn running(&mut self) -> Option<usize> {
        let servers = &self.world.servers;
        let running: Vec<usize> = (0..SERVERS_MAX)
            .filter(|id| servers[*id].as_ref().is_some_and(Server::is_running))
            .collect();
        (!running.is_empty()).then(|| running[self.world.rng.usize(..running.len())])
    }

    fn step(&mut self) {
        let Some(id) = self.running() else {
            return self.point_in_time(true);
        };
        if self.limits.forgets && self.world.rng.usize(..6) == 0 {
            return self.forgotten();
        }
        match self.world.rng.usize(..40) {
            0..=9 => self.world.write(id),
            10..=11 => self.world.switch(id),
            12..=13 => self.world.checkpoint(id),
            14..=20 => {
                let count = self.world.rng.usize(1..8);
                self.world.archive(id, count);
            }
            21..=22 => self.back_up(id),
            23..=25 => self.standby(id),
            26..=27 => self.point_in_time(true),
            28 => self.crash(id),
            29 => self.copy(id),
            _ if self.limits.is_perfect => self.world.archive(id, 20),
            30 => self.forgotten(),
            31..=34 => self.harm(),
            35 => self.undo(),
            36 => self.break_archiving(id),
            37 => self.storage(),
            38 => self.retire(id),
            _ => self.world.archive(id, 20),
        }
    }

    fn back_up(&mut self, id: usize) {
        let forgets = self.limits.forgets;
        let world = &mut *self.world;
        // Only one with its WAL starts without a signal file.
        let (between, with_wal) = (world.rng.usize(..4), world.rng.usize(..3) == 0 || forgets);
        if let Some(server) = &mut world.servers[id] {
            let backup = server.back_up(&mut world.tree, between, with_wal);
            world.story.push(format!(
                "server {id} is backed up, checkpoint {} on timeline {}, until {}, {} WAL",
                lsn(backup.label.checkpoint),
                backup.label.timeline,
                lsn(backup.end),
                if with_wal { "with" } else { "without" }
            ));
            world.backups.push(backup);
        }
        if self.limits.is_perfect {
            self.world.archive(id, 20);
        }
    }

    /// A standby of a running server, until it is stopped or promoted.
    fn standby(&mut self, upstream: usize) {
        let limits = self.limits;
        let world = &mut *self.world;
        let Some(id) = world.free() else {
            return;
        };
        let mode = if limits.is_perfect {
            ArchiveMode::On
        } else {
            world.mode()
        };
        let mut server = match (world.rng.usize(..3), &world.servers[upstream]) {
            (0, Some(source)) => {
                let mut copy = source.snapshot(id);
                copy.signal = Signal::Standby;
                copy.mode = mode;
                copy
            }
            _ => {
                let backup = &world.backups[world.rng.usize(..world.backups.len())];
                Server::from_backup(id, backup, Signal::Standby, mode)
            }
        };
        server.recycles = world.rng.bool();
        let streams = world.rng.usize(..4) > 0;
        world.plan = Plan {
            upstream: streams.then_some(upstream),
            limit: world.some_place(upstream),
            waits: world.rng.usize(..6),
            promotes: world.rng.usize(..3) > 0,
        };
        world.broken[id] = !limits.is_perfect && world.rng.usize(..4) == 0;
        world.cleans[id] = !limits.is_perfect && world.rng.usize(..10) == 0;
        if limits.is_perfect {
            world.archive(upstream, 50);
        }
        let goal = match world.rng.usize(..6) {
            0 => Goal::Current,
            _ => Goal::Latest,
        };
        world.story.push(format!(
            "server {id} becomes a standby of server {upstream}: {:?}",
            world.plan
        ));
        let server = world.recover(server, Wanted { goal, place: None });
        if !server.is_running() {
            return;
        }
        world.servers[id] = Some(server);
        // Most often the old primary is gone.
        if world.rng.usize(..3) > 0 || limits.is_perfect {
            if limits.is_perfect {
                world.archive(upstream, 50);
                begin_archiving(world, id);
            }
            world.story.push(format!("server {upstream} is gone"));
            world.servers[upstream] = None;
        }
    }

    /// A new server on a backup, with `recovery.signal`.
    fn point_in_time(&mut self, goes_on: bool) {
        let limits = self.limits;
        let world = &mut *self.world;
        let id = match world.free() {
            Some(id) => id,
            None => {
                let id = world.rng.usize(..SERVERS_MAX);
                if !limits.is_perfect {
                    world.story.push(format!("server {id} is gone"));
                    world.servers[id] = None;
                }
                id
            }
        };
        if world.servers[id].is_some() {
            return;
        }
        let mode = match (limits.is_perfect, goes_on) {
            (true, true) => ArchiveMode::On,
            (true, false) => ArchiveMode::Off,
            _ => world.mode(),
        };
        let backup = world.backups[world.rng.usize(..world.backups.len())].clone();
        let goal = match world.rng.usize(..8) {
            0 | 1 => Goal::Current,
            2 | 3 => {
                let known: Vec<u32> = world
                    .shelf
                    .kept
                    .keys()
                    .filter_map(|key| parse_history_name(key))
                    .collect();
                if known.is_empty() {
                    Goal::Latest
                } else {
                    Goal::Number(known[world.rng.usize(..known.len())])
                }
            }
            _ => Goal::Latest,
        };
        let place = match world.rng.usize(..5) {
            0 => Some(backup.end + world.rng.u64(..3 * SEGMENT)),
            _ => None,
        };
        let mut server = Server::from_backup(id, &backup, Signal::Recovery, mode);
        server.recycles = world.rng.bool();
        world.broken[id] = !limits.is_perfect && world.rng.usize(..4) == 0;
        world.cleans[id] = !limits.is_perfect && world.rng.usize(..4) == 0;
        let server = world.recover(server, Wanted { goal, place });
        if server.is_running() && goes_on {
            world.servers[id] = Some(server);
            if limits.is_perfect {
                begin_archiving(world, id);
            }
        }
    }

    fn crash(&mut self, id: usize) {
        let perfect = self.limits.is_perfect;
        let world = &mut *self.world;
        let torn = match world.rng.usize(..3) {
            // What goes over a boundary leaves a segment that is archived late.
            _ if perfect => 0,
            0 => 0,
            _ => world.rng.usize(1..SEGMENT as usize / 4),
        };
        let Some(mut server) = world.servers[id].take() else {
            return;
        };
        world.story.push(format!(
            "server {id} crashes, with {torn} bytes of a record written"
        ));
        server.crash(&world.tree, torn);
        world.start_plainly(server);
    }

    /// A copy of a data directory starts beside its original, or a snapshot is taken for later.
    fn copy(&mut self, source: usize) {
        let perfect = self.limits.is_perfect;
        let world = &mut *self.world;
        let Some(id) = world.free() else {
            return;
        };
        let Some(server) = &world.servers[source] else {
            return;
        };
        let mut copy = server.snapshot(id);
        let signal = match world.rng.usize(..3) {
            _ if perfect => Signal::Recovery,
            0 => Signal::None,
            _ => Signal::Recovery,
        };
        copy.signal = signal;
        if perfect {
            copy.mode = ArchiveMode::On;
        }
        world
            .story
            .push(format!("server {id} is a copy of server {source}"));
        if signal == Signal::None {
            world.start_plainly(copy);
            return;
        }
        if world.rng.bool() {
            // Time passes until it is started.
            for _ in 0..world.rng.usize(..8) {
                world.small_event(id);
            }
        }
        if !perfect && world.rng.usize(..3) == 0 {
            half_written(world, source);
        }
        world.broken[id] = false;
        let wanted = Wanted {
            goal: Goal::Latest,
            place: None,
        };
        let server = world.recover(copy, wanted);
        if server.is_running() {
            world.servers[id] = Some(server);
            if perfect {
                begin_archiving(world, id);
            }
        }
    }

    /// A backup is put back, and nobody thought of the signal file.
    fn forgotten(&mut self) {
        let world = &mut *self.world;
        let Some(id) = world.free() else {
            return;
        };
        let with_wal: Vec<usize> = (0..world.backups.len())
            .filter(|at| world.backups[*at].files.is_some())
            .collect();
        if with_wal.is_empty() {
            return;
        }
        let backup = world.backups[with_wal[world.rng.usize(..with_wal.len())]].clone();
        let server = Server::from_backup(id, &backup, Signal::None, ArchiveMode::On);
        world.broken[id] = false;
        world.story.push(format!(
            "server {id}: a backup is put back without a signal file"
        ));
        world.start_plainly(server);
        if self.limits.forgets {
            for _ in 0..3 {
                self.world.write(id);
                self.world.archive(id, 4);
            }
        }
    }

    /// Something happens to an object.
    fn harm(&mut self) {
        let world = &mut *self.world;
        let keys: Vec<String> = world.shelf.kept.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = match world.rng.usize(..3) {
            // The newest ones matter most.
            0 => keys[keys.len() - 1 - world.rng.usize(..keys.len().min(3))].clone(),
            _ => keys[world.rng.usize(..keys.len())].clone(),
        };
        let Some(kept) = world.shelf.kept.get(&key).cloned() else {
            return;
        };
        let change = match world.rng.usize(..7) {
            0 | 1 => {
                world.shelf.remove(&key);
                "is lost"
            }
            2 if kept.is_sound => {
                let suffix = [".gz", ".ZST", ".xz"][world.rng.usize(..3)];
                world.shelf.remove(&key);
                let other = Kept {
                    contents: Arc::new(vec![0x1F, 0x8B, 8, 0, 1, 2, 3]),
                    is_sound: false,
                    life: kept.life,
                };
                let new = format!("{key}{suffix}");
                world.shelf.put(&new, other);
                world.harms.push(Harm {
                    key: new,
                    before: None,
                });
                "is compressed by somebody"
            }
            3 if kept.is_sound => {
                let mut contents = kept.contents.to_vec();
                let at = world.rng.usize(..contents.len());
                contents[at] ^= 0x55;
                let damaged = Kept {
                    contents: Arc::new(contents),
                    is_sound: false,
                    life: kept.life,
                };
                // Behind the end of WAL, or in a switch's zeros, nobody would notice.
                match parse_segment(&key) {
                    Some((_, number)) => {
                        let is_noticed = crate::oracle::scan(&damaged.contents, number)
                            .is_none_or(|scan| !scan.reaches_end);
                        if !is_noticed {
                            return;
                        }
                    }
                    None => return,
                }
                world.shelf.put(&key, damaged);
                "is damaged"
            }
            4 => {
                let short = Kept {
                    contents: Arc::new(kept.contents[..kept.contents.len() / 2].to_vec()),
                    is_sound: false,
                    life: kept.life,
                };
                if parse_segment(&key).is_none() {
                    return;
                }
                world.shelf.put(&key, short);
                "is cut short"
            }
            _ => {
                let foreign = Kept {
                    contents: Arc::new(b"not WAL".to_vec()),
                    is_sound: false,
                    life: 0,
                };
                let new = ["README", "notes.txt", "x.tmp"][world.rng.usize(..3)];
                world.shelf.put(new, foreign);
                return;
            }
        };
        world.story.push(format!("in the archive, {key} {change}"));
        world.taken.insert(key.clone());
        world.harms.push(Harm {
            key,
            before: Some(kept),
        });
    }

    fn undo(&mut self) {
        let world = &mut *self.world;
        if world.harms.is_empty() {
            return;
        }
        while let Some(harm) = world.harms.pop() {
            match harm.before {
                Some(kept)
                    if !world
                        .shelf
                        .kept
                        .get(&harm.key)
                        .is_some_and(|now| now.is_sound) =>
                {
                    world
                        .story
                        .push(format!("in the archive, {} is brought back", harm.key));
                    world.shelf.put(&harm.key, kept);
                }
                Some(_) => {}
                None => drop(world.shelf.remove(&harm.key)),
            }
        }
    }

    fn break_archiving(&mut self, id: usize) {
        let world = &mut *self.world;
        world.broken[id] = !world.broken[id];
        world.story.push(format!(
            "archiving of server {id} is broken: {}",
            world.broken[id]
        ));
    }

    fn storage(&mut self) {
        let world = &mut *self.world;
        let storage = match world.rng.usize(..3) {
            0 => Storage::Away,
            1 => Storage::Unmounted,
            _ => Storage::ListingsFail,
        };
        world.shelf.set_storage(storage);
        world.trouble_left = world.rng.usize(1..8);
        world.story.push(format!("the archive: {storage:?}"));
    }

    fn retire(&mut self, id: usize) {
        let world = &mut *self.world;
        world.story.push(format!("server {id} is gone"));
        world.servers[id] = None;
    }
}
