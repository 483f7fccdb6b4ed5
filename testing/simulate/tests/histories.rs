//! The simulation itself: its server recovers as a server does, who keeps to its rules is never found wrong, and faults are
//! found.
//!
//! A few histories each, with segments as small as a server's can be; `make simulate` plays many.

use simulate::ideal::Ideal;
use simulate::planted::{Fault, Planted};
use simulate::restores::{Module, Stock};
use simulate::run::{Outcome, run};
use simulate::walden::Walden;
use simulate::world::Limits;

const HISTORIES: u64 = 40;

const PERFECT: Limits = Limits {
    is_perfect: true,
    without: None,
    forgets: false,
};

fn play(limits: Limits, module: &dyn Fn() -> Box<dyn Module>) -> Outcome {
    // A new seed each time would make a failure here somebody else's surprise: that is what the program is for.
    run(1, limits, module, &mut |played| played >= HISTORIES)
}

#[test]
fn from_an_archive_that_lost_nothing_cp_recovers_to_the_true_end() {
    let outcome = play(PERFECT, &|| Box::new(Stock));
    assert!(outcome.found.is_none(), "{:?}", outcome.found);
    assert!(outcome.recoveries > HISTORIES && outcome.restored > outcome.recoveries);
}

#[test]
fn whoever_answers_by_the_rules_is_never_found_wrong() {
    let outcome = play(Limits::default(), &|| Box::new(Ideal));
    assert!(outcome.found.is_none(), "{:?}", outcome.found);
    assert!(outcome.unsure > 0 && outcome.absent > 0 && outcome.refused > 0);
}

#[test]
fn cp_itself_is_found_wrong() {
    let outcome = play(Limits::default(), &|| Box::new(Stock));
    let (_, story) = outcome.found.expect("cp knows no rules");
    assert!(story.contains("VIOLATION"), "{story}");
}

#[test]
fn a_seed_always_gives_the_same_history() {
    let tell = || {
        let world = simulate::history::play(7, Limits::default(), &|| Box::new(Ideal));
        simulate::run::story(&world)
    };
    assert_eq!(tell(), tell());
}

#[test]
fn walden_is_not_found_wrong_in_a_few_histories() {
    let outcome = play(Limits::default(), &|| Box::new(Walden::default()));
    assert!(outcome.found.is_none(), "{:?}", outcome.found);
    assert!(outcome.restored > HISTORIES && outcome.absent > 0 && outcome.unsure > 0);
}

#[test]
fn a_planted_fault_is_found() {
    let planted = || -> Box<dyn Module> {
        Box::new(Planted {
            fault: Fault::CleansUpTooMuch,
            inner: Box::new(Ideal),
        })
    };
    let outcome = play(Limits::default(), &planted);
    assert!(outcome.found.is_some());
}
