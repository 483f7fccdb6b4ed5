//! All servers, their backups and the one archive; what happens to them, and what is judged on the way.
//!
//! Guarantees that every answer passes the oracle, and that each recovery is run twice from the same state: first with `cp` as it
//! should be, then with what is under test. Left to `history`: what happens next. The file is long because everything
//! meets here.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::life::{ArchiveMode, Backup, Server, Signal};
use crate::oracle::{self, Proof, Violation};
use crate::restores::{Kept, Module, Settings, Shelf, Stock, Storage};
use crate::startup::{self, Answer, Ask, Ended, Goal, Halt, Host, Wait, Wanted};
use crate::timelines::{parse, parse_history_name, segment_name, timeline_at};
use crate::tree::Tree;
use crate::{SEGMENT, lsn, segment_of};

/// How many servers there are at most.
pub const SERVERS_MAX: usize = 4;

/// What kinds of things happen, and count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Nothing is lost, damaged or broken: everything that was written can be recovered.
    pub is_perfect: bool,
    /// A rule whose violation is known; histories go on beyond it.
    pub without: Option<&'static str>,
    /// A backup is put back without its signal file more often than it would be, and archives at once: two servers on one
    /// archive are rare otherwise, and what is said wrongly of them is rarer still.
    pub forgets: bool,
}

/// What somebody did to the archive that can be undone.
#[derive(Clone, Debug)]
pub struct Harm {
    pub key: String,
    pub before: Option<Kept>,
}

/// How a standby is led.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub upstream: Option<usize>,
    /// Streams no further than this.
    pub limit: u64,
    /// How often it waits before something is done with it.
    pub waits: usize,
    pub promotes: bool,
}

pub struct World {
    pub rng: Rng,
    pub tree: Tree,
    pub shelf: Shelf,
    pub servers: Vec<Option<Server>>,
    pub modules: Vec<Box<dyn Module>>,
    pub backups: Vec<Backup>,
    pub harms: Vec<Harm>,
    /// What was lost or spoilt at any time.
    pub taken: BTreeSet<String>,
    /// Whose archiver does nothing.
    pub broken: Vec<bool>,
    /// Whose running process has met the archive: one that has not cannot tell a mount point from an empty archive.
    pub met: Vec<bool>,
    /// What a server's running process has archived: it remembers that, whatever becomes of it.
    pub archived: Vec<BTreeSet<String>>,
    /// What it has archived of late although the one before it was refused.
    pub through: Vec<BTreeSet<String>>,
    /// On which timelines it has archived something since it was refused a file.
    pub flows: Vec<BTreeSet<u32>>,
    pub settings: Vec<Settings>,
    /// Chooses what histories do not depend on: so a seed keeps its history.
    choices: Rng,
    /// Who removes from the archive what a restartpoint needs no longer.
    pub cleans: Vec<bool>,
    pub plan: Plan,
    pub story: Vec<String>,
    pub violations: Vec<Violation>,
    /// Doubts that nothing speaks for, of the recovery that runs.
    pub doubts: Vec<String>,
    /// It was told of a doubt that a rule leaves room for.
    has_leeway: bool,
    /// How many requests the trouble with it lasts.
    pub trouble_left: usize,
    pub counts: Counts,
    pub limits: Limits,
}

/// Whether the server stops for a reason that this history does not give it.
fn is_unexpected(why: &str) -> bool {
    // A target behind the end; a backup that is on no ancestor of the timeline that is wanted; a copy that has WAL of its own.
    let expected = [
        "before consistent recovery point",
        "could not read the last record again",
        "configured recovery target",
        "could not locate required checkpoint",
        "could not find redo location",
        "is not a child of",
        "recovery stop point",
        "does not contain minimum",
    ];
    !expected.iter().any(|part| why.contains(part))
}

/// How often each thing was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub recoveries: u64,
    pub restored: u64,
    pub absent: u64,
    pub unsure: u64,
    pub archived: u64,
    pub refused: u64,
}

/// A host that asks `cp`, and changes nothing.
struct Frozen<'a> {
    tree: &'a Tree,
    shelf: &'a Shelf,
}

impl Host for Frozen<'_> {
    fn restore(&mut self, server: &mut Server, ask: &Ask) -> Answer {
        Stock.restore(self.shelf, server, ask)
    }

    fn wait(&mut self, _: &mut Server) -> Wait {
        Wait::Stop
    }

    fn stream(&mut self, _: &mut Server, _: u32, _: u64) -> Option<u64> {
        None
    }

    fn tree(&self) -> &Tree {
        self.tree
    }

    fn tell(&mut self, _: String) {}

    fn restartpoint(&mut self, _: &mut Server, _: String) {}
}

impl Host for World {
    fn restore(&mut self, server: &mut Server, ask: &Ask) -> Answer {
        let mut answer = Answer::Absent;
        // Whoever asks in targeted recovery tries again for a while.
        for _ in 0..4 {
            answer = self.modules[server.id].restore(&self.shelf, server, ask);
            let clear = self.shelf.storage() == Storage::Sound;
            self.judge(server, ask, &answer, clear);
            if clear || !matches!(answer, Answer::Unsure(_)) {
                break;
            }
            self.trouble_passes();
        }
        answer
    }

    fn wait(&mut self, server: &mut Server) -> Wait {
        self.trouble_passes();
        if self.plan.waits == 0 {
            return if self.plan.promotes {
                Wait::Promote
            } else {
                Wait::Stop
            };
        }
        self.plan.waits -= 1;
        let id = server.id;
        let count = self.rng.usize(0..3);
        for _ in 0..count {
            self.small_event(id);
        }
        Wait::Again
    }

    fn stream(&mut self, server: &mut Server, timeline: u32, from: u64) -> Option<u64> {
        let source = self.servers.get(self.plan.upstream?)?.clone()?;
        let (end, current) = source.end()?;
        let mut to = end;
        let mut next = None;
        if current != timeline {
            let contents = source.files.get(&crate::timelines::history_name(current))?;
            let line = parse(current, contents).ok()?;
            let left = line.iter().position(|entry| entry.timeline == timeline)?;
            to = line.get(left)?.end;
            next = Some(line.get(left.checked_sub(1)?)?.timeline);
        }
        if self.plan.limit < to {
            to = self.plan.limit;
            next = None;
        }
        let ends = next.is_some();
        let start = from - from % SEGMENT;
        if start >= to && !ends {
            return None;
        }
        let got = server.receive(&source.files, timeline, next, from, to);
        self.tell(format!(
            "    streamed timeline {timeline} up to {}",
            lsn(got)
        ));
        if ends && got == to {
            if !to.is_multiple_of(SEGMENT) {
                server.received(&segment_name(timeline, segment_of(to)));
            }
            for newer in timeline + 1..=current {
                let name = crate::timelines::history_name(newer);
                if let Some(contents) = source.files.get(&name)
                    && !server.files.has(&name)
                {
                    server.files.set(&name, contents.clone());
                    server.received(&name);
                }
            }
        }
        (got > 0).then_some(got)
    }

    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn tell(&mut self, text: String) {
        self.story.push(text);
    }

    fn restartpoint(&mut self, server: &mut Server, oldest_kept: String) {
        if !self.cleans[server.id] {
            return;
        }
        let before = self.shelf.keys("");
        self.modules[server.id].clean_up(&self.shelf, server, &oldest_kept);
        let after = self.shelf.keys("");
        let gone: Vec<String> = before
            .into_iter()
            .filter(|key| !after.contains(key))
            .collect();
        if gone.is_empty() {
            return;
        }
        self.tell(format!(
            "    cleaned up before {oldest_kept}: {}",
            gone.join(", ")
        ));
        for key in gone {
            self.shelf.kept.remove(&key);
            self.taken.insert(key.clone());
            let late = key.get(8..24) >= oldest_kept.get(8..24) && !key.ends_with(".json");
            if server.signal == Signal::Recovery || late || key.contains(".history") {
                self.violate(
                    "removed what may be needed",
                    format!("\"{key}\" was removed"),
                );
            }
        }
    }
}

impl World {
    pub fn new(seed: u64, limits: Limits, module: &dyn Fn() -> Box<dyn Module>) -> World {
        let mut tree = Tree::new();
        let first = Server::new(0, &mut tree);
        let mut servers: Vec<Option<Server>> = vec![None; SERVERS_MAX];
        servers[0] = Some(first);
        let mut choices = Rng::with_seed(!seed);
        let mut world = World {
            rng: Rng::with_seed(seed),
            tree,
            shelf: Shelf::new(choices.bool()),
            servers,
            modules: (0..SERVERS_MAX).map(|_| module()).collect(),
            backups: Vec::new(),
            harms: Vec::new(),
            taken: BTreeSet::new(),
            broken: vec![false; SERVERS_MAX],
            met: vec![false; SERVERS_MAX],
            archived: vec![BTreeSet::new(); SERVERS_MAX],
            through: vec![BTreeSet::new(); SERVERS_MAX],
            flows: vec![BTreeSet::new(); SERVERS_MAX],
            settings: vec![Settings::default(); SERVERS_MAX],
            choices,
            cleans: vec![false; SERVERS_MAX],
            plan: Plan::default(),
            story: vec!["server 0 begins with timeline 1".to_owned()],
            violations: Vec::new(),
            doubts: Vec::new(),
            has_leeway: false,
            trouble_left: 0,
            counts: Counts::default(),
            limits,
        };
        world.begin(0);
        world
    }

    pub(crate) fn violate(&mut self, rule: &'static str, text: String) {
        if self
            .limits
            .without
            .is_some_and(|known| rule.contains(known))
        {
            return;
        }
        self.story.push(format!("  ! {rule}: {text}"));
        self.violations.push(Violation { rule, text });
    }

    /// A server's processes begin.
    fn begin(&mut self, id: usize) {
        self.settings[id] = Settings {
            jobs: [0, 1, 4, 4][self.choices.usize(..4)],
            seed: self.choices.u64(..),
        };
        self.modules[id].begin(self.settings[id]);
        self.met[id] = false;
        self.archived[id].clear();
        self.flows[id].clear();
        self.through[id].clear();
    }

    pub fn trouble_passes(&mut self) {
        if self.shelf.storage() == Storage::Sound {
            return;
        }
        self.trouble_left = self.trouble_left.saturating_sub(1);
        if self.trouble_left == 0 {
            self.shelf.set_storage(Storage::Sound);
            self.tell("the archive is back".to_owned());
        }
    }

    fn judge(&mut self, server: &Server, ask: &Ask, answer: &Answer, clear: bool) {
        let answered = match answer {
            Answer::Restored(contents) => {
                self.counts.restored += 1;
                self.judge_restored(ask, contents);
                "restored".to_owned()
            }
            Answer::Absent => {
                self.counts.absent += 1;
                if let Some(Violation { rule, text }) =
                    oracle::judge_absent(&self.shelf, server, ask)
                {
                    let goes_on = match server.signal {
                        Signal::Recovery => oracle::has_own(&self.shelf, server, &ask.name),
                        Signal::None | Signal::Standby => true,
                    };
                    if clear || !goes_on {
                        self.violate(rule, text);
                    }
                }
                "absent".to_owned()
            }
            Answer::Unsure(why) => {
                self.counts.unsure += 1;
                if clear {
                    let reason = oracle::reason_for_doubt(&self.shelf, server, ask);
                    if reason == Proof::None {
                        self.doubts.push(format!("\"{}\": {why}", ask.name));
                    }
                    self.has_leeway |= matches!(reason, Proof::Maybe(_));
                    format!("could not tell: {why} [{reason:?}]")
                } else {
                    format!("could not tell: {why}")
                }
            }
        };
        self.story
            .push(format!("    {} {:?}? {answered}", ask.name, ask.role));
    }

    /// What is handed over is what is stored.
    fn judge_restored(&mut self, ask: &Ask, contents: &[u8]) {
        let right = match self.shelf.kept.get(&ask.name) {
            Some(kept) => kept.is_sound && kept.contents.as_slice() == contents,
            None => false,
        };
        if !right && parse_history_name(&ask.name).is_some() {
            self.violate("restored what is not stored", format!("\"{}\"", ask.name));
        }
    }

    /// Everything that was archived is there, unless somebody took it away.
    pub fn look_through(&mut self) {
        let kept: Vec<(String, Kept)> = self
            .shelf
            .kept
            .iter()
            .map(|(key, kept)| (key.clone(), kept.clone()))
            .collect();
        for (key, kept) in kept {
            if self.shelf.raw(&key).as_deref() != Some(kept.contents.as_slice()) {
                self.violate("archived, and is gone or spoilt", format!("\"{key}\""));
            }
        }
    }

    /// Runs a server's recovery, and judges it by what `cp` makes of the same.
    pub fn recover(&mut self, mut server: Server, wanted: Wanted) -> Server {
        self.counts.recoveries += 1;
        let id = server.id;
        self.begin(id);
        self.doubts.clear();
        self.has_leeway = false;
        let frozen_clear = self.shelf.storage() == Storage::Sound;
        let begins_standby = server.signal == Signal::Standby;
        let signal = server.signal;
        let place = wanted.place.map(|place| format!(" to {}", lsn(place)));
        self.story.push(format!(
            "server {id} starts, {signal:?}, {:?}{}, checkpoint {} on timeline {}",
            wanted.goal,
            place.unwrap_or_default(),
            lsn(server
                .label
                .map_or(server.control.checkpoint, |label| label.checkpoint)),
            server
                .label
                .map_or(server.control.timeline, |label| label.timeline),
        ));
        let stock = (signal != Signal::None).then(|| {
            let was = self.shelf.storage();
            self.shelf.set_storage(Storage::Sound);
            let mut frozen = Frozen {
                tree: &self.tree,
                shelf: &self.shelf,
            };
            let mut twin = server.clone();
            let outcome = startup::run(&mut frozen, &mut twin, wanted);
            self.shelf.set_storage(was);
            outcome
        });
        let outcome = startup::run(self, &mut server, wanted);
        match &outcome {
            Ok(ended) => self.ended(&mut server, ended),
            Err(Halt::Stopped(..)) => {
                self.story.push(format!("server {id} is stopped"));
            }
            Err(Halt::Fatal(why) | Halt::Unsure(why)) => {
                self.story.push(format!("server {id} stops: {why}"));
            }
        }
        if let (true, Ok(ended)) = (
            signal == Signal::Recovery && self.limits.is_perfect,
            &outcome,
        ) {
            self.must_be_the_end(ended);
        }
        if self.limits.is_perfect && matches!(&outcome, Err(Halt::Fatal(why)) if is_unexpected(why))
        {
            self.violate("stopped, though nothing is wrong", format!("{outcome:?}"));
        }
        if let Some(stock) = stock {
            self.compare(&stock, &outcome, frozen_clear);
        }
        if begins_standby && outcome.is_err() && !matches!(outcome, Err(Halt::Stopped(..))) {
            // A standby that cannot start would be started again.
            self.story.push(format!("server {id} stays down"));
        }
        server
    }

    fn ended(&mut self, server: &mut Server, ended: &Ended) {
        let id = server.id;
        self.story.push(format!(
            "server {id} ends recovery at {}, on timeline {} from now on",
            lsn(ended.end),
            ended.new_timeline
        ));
        if let (true, Some((wrong, false))) = (ended.is_archive_recovery, ended.strayed)
            && !oracle::has_twins(&self.shelf, server, &ended.line)
        {
            let text = self.tree.described(wrong);
            self.violate(
                "recovered another line",
                format!("{text} is not on the line"),
            );
        }
        server.take_over(&mut self.tree, ended);
        if ended.mixed.is_some() || ended.strayed.is_some() {
            // What it writes is nobody's truth.
            server.pen = None;
        }
    }

    /// Where nothing was ever lost, recovery ends where what is stored of its line ends.
    fn must_be_the_end(&mut self, ended: &Ended) {
        let Some(state) = ended
            .state
            .filter(|_| !ended.reached_target && ended.strayed.is_none())
        else {
            return;
        };
        let next = self.tree.behind(state).find(|id| {
            let node = self.tree.node(*id);
            let name = segment_name(node.timeline, segment_of(node.written.end - 1));
            let on_line = timeline_at(&ended.line, node.written.lsn) == Some(node.timeline);
            on_line
                && self
                    .shelf
                    .kept
                    .get(&name)
                    .is_some_and(|kept| kept.life == node.life)
        });
        if let Some(next) = next {
            let text = self.tree.described(next);
            self.violate(
                "ended before the true end",
                format!("{text} is stored and was not replayed"),
            );
        }
    }

    fn compare(
        &mut self,
        stock: &Result<Ended, Halt>,
        ours: &Result<Ended, Halt>,
        was_clear: bool,
    ) {
        let reached = match stock {
            Ok(stock) if stock.mixed.is_none() && stock.strayed.is_none() => stock.state,
            Err(Halt::Stopped(state, true)) => *state,
            _ => None,
        };
        let Some(reached) = reached else {
            return;
        };
        match ours {
            Ok(ours) => {
                let Some(state) = ours.state else {
                    return;
                };
                let early = state != reached && self.tree.is_on_line(state, reached);
                // A standby that could not look when it began is on another way by now; so is one that was held up by a
                // doubt until somebody promoted it, which must not wait (section 4 of the judgement).
                let could_look = (was_clear && !self.has_leeway) || !ours.is_promoted;
                if early && could_look && !ours.reached_target && ours.mixed.is_none() {
                    let (here, there) = (self.tree.described(state), self.tree.described(reached));
                    self.violate(
                        "ended early",
                        format!("recovery ended with {here}; what is stored goes on to {there}"),
                    );
                }
            }
            Err(Halt::Unsure(why)) if was_clear => {
                if let Some(doubt) = self.doubts.first().cloned() {
                    let there = self.tree.described(reached);
                    self.violate(
                        "stopped without a reason",
                        format!("{doubt} ({why}); cp recovers to {there}, as it should"),
                    );
                }
            }
            // A standby that has waited more than once, with nothing in its way but doubts.
            Err(Halt::Stopped(Some(state), _)) if was_clear => {
                let late = *state != reached && self.tree.is_on_line(*state, reached);
                if let (true, Some(doubt)) = (late, self.doubts.first().cloned()) {
                    let (here, there) = (self.tree.described(*state), self.tree.described(reached));
                    self.violate(
                        "held up without a reason",
                        format!("{doubt}; the standby waits at {here}; cp goes on to {there}"),
                    );
                }
            }
            Err(_) => {}
        }
    }

    /// Something small happens while `except` is busy.
    pub fn small_event(&mut self, except: usize) {
        let running: Vec<usize> = (0..SERVERS_MAX)
            .filter(|id| *id != except)
            .filter(|id| self.servers[*id].as_ref().is_some_and(Server::is_running))
            .collect();
        if running.is_empty() {
            return;
        }
        let id = running[self.rng.usize(..running.len())];
        match self.rng.usize(..8) {
            0..=3 => self.write(id),
            4 => self.switch(id),
            5 => self.checkpoint(id),
            _ => {
                let count = self.rng.usize(1..5);
                self.archive(id, count);
            }
        }
    }

    pub fn write(&mut self, id: usize) {
        let count = self.rng.usize(1..12);
        let longest = match self.rng.usize(..4) {
            0 => SEGMENT as usize / 3,
            1 => 9000,
            _ => 3000,
        };
        for _ in 0..count {
            // Lengths of few values, so that copies of a server write records of equal lengths.
            let main = if self.rng.bool() {
                longest / (1 << self.rng.usize(..3))
            } else {
                self.rng.usize(10..longest)
            };
            if let Some(server) = &mut self.servers[id] {
                server.data(&mut self.tree, main);
            }
        }
        self.note_end(id, "writes");
    }

    fn note_end(&mut self, id: usize, what: &str) {
        let end = self.servers[id].as_ref().and_then(Server::end);
        if let Some((end, timeline)) = end {
            self.story.push(format!(
                "server {id} {what}, up to {} on timeline {timeline}",
                lsn(end)
            ));
        }
    }

    pub fn switch(&mut self, id: usize) {
        if let Some(server) = &mut self.servers[id] {
            server.switch(&mut self.tree);
            self.note_end(id, "switches");
        }
    }

    pub fn checkpoint(&mut self, id: usize) {
        let between = self.rng.usize(..3);
        if let Some(server) = &mut self.servers[id] {
            server.checkpoint(&mut self.tree, between);
            self.note_end(id, "makes a checkpoint");
        }
    }

    /// A server starts without a signal file: after a crash, or where one was forgotten.
    pub fn start_plainly(&mut self, server: Server) {
        let id = server.id;
        let wanted = Wanted {
            goal: Goal::Latest,
            place: None,
        };
        let server = self.recover(server, wanted);
        self.servers[id] = server.is_running().then_some(server);
    }

    /// A place in WAL that a standby streams up to: a record's end, a boundary, or anywhere.
    pub fn some_place(&mut self, source: usize) -> u64 {
        let Some(server) = &self.servers[source] else {
            return u64::MAX;
        };
        let Some((end, _)) = server.end() else {
            return u64::MAX;
        };
        let mut line = Vec::new();
        let mut at = server.state;
        while let Some(now) = at
            && line.len() < 30
        {
            line.push(self.tree.node(now).written.end);
            at = self.tree.node(now).parent;
        }
        match self.rng.usize(..4) {
            0 => end,
            1 => end - end % SEGMENT,
            2 => line[self.rng.usize(..line.len())],
            _ => end.saturating_sub(self.rng.u64(..SEGMENT)),
        }
    }

    /// What the statuses of files are, for the story.
    #[must_use]
    pub fn stored(&self) -> BTreeMap<String, bool> {
        let kept = self.shelf.kept.iter();
        kept.map(|(key, kept)| (key.clone(), kept.is_sound))
            .collect()
    }

    /// A free place for a server.
    #[must_use]
    pub fn free(&self) -> Option<usize> {
        (0..SERVERS_MAX).find(|id| self.servers[*id].is_none())
    }

    #[must_use]
    pub fn mode(&mut self) -> ArchiveMode {
        match self.rng.usize(..6) {
            0 => ArchiveMode::Off,
            1 => ArchiveMode::Always,
            _ => ArchiveMode::On,
        }
    }
}
