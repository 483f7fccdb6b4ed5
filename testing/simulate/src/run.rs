//! Many histories, and what to tell of them.

use std::time::{Duration, Instant};

use crate::history::play;
use crate::restores::Module;
use crate::world::{Limits, World};

/// What became of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub histories: u64,
    pub recoveries: u64,
    pub restored: u64,
    pub absent: u64,
    pub unsure: u64,
    pub archived: u64,
    pub refused: u64,
    /// The seed of the history that shows a violation, and its story.
    pub found: Option<(u64, String)>,
    pub took: Duration,
}

impl Outcome {
    #[must_use]
    pub fn summary(&self) -> String {
        let seconds = self.took.as_secs_f64().max(0.001);
        format!(
            "{} histories in {seconds:.0} s, {:.0} a second; {} recoveries: {} files restored, {} absent, {} could not be told; \
             {} archived, {} refused",
            self.histories,
            self.histories as f64 / seconds,
            self.recoveries,
            self.restored,
            self.absent,
            self.unsure,
            self.archived,
            self.refused
        )
    }
}

/// Plays histories one after the other until one shows a violation, or `until` says that it is enough.
pub fn run(
    seed: u64,
    limits: Limits,
    module: &dyn Fn() -> Box<dyn Module>,
    until: &mut dyn FnMut(u64) -> bool,
) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    while !until(outcome.histories) {
        let own = seed.wrapping_add(outcome.histories);
        let world = play(own, limits, module);
        outcome.histories += 1;
        outcome.recoveries += world.counts.recoveries;
        outcome.restored += world.counts.restored;
        outcome.absent += world.counts.absent;
        outcome.unsure += world.counts.unsure;
        outcome.archived += world.counts.archived;
        outcome.refused += world.counts.refused;
        if !world.violations.is_empty() {
            outcome.found = Some((own, story(&world)));
            break;
        }
    }
    outcome.took = begun.elapsed();
    outcome
}

/// What happened, for a reader.
#[must_use]
pub fn story(world: &World) -> String {
    let mut story = world.story.join("\n");
    story.push_str("\nin the archive:\n");
    for (key, is_sound) in world.stored() {
        story.push_str(&format!(
            "  {key}{}\n",
            if is_sound { "" } else { " (cannot be read)" }
        ));
    }
    for violation in &world.violations {
        story.push_str(&format!(
            "VIOLATION, {}: {}\n",
            violation.rule, violation.text
        ));
    }
    story
}
