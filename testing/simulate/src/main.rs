//! `simulate MINUTES [SEED]`: plays histories and stops at the first wrong answer. `simulate faults [SEED]`: plants faults, one
//! after the other, and fails unless each is found within a minute. `simulate one SEED`: tells one history.
//!
//! By the environment: `MODULE` is who answers, `walden`, `ideal` or `stock`; with `PERFECT` nothing is lost or broken; `WITHOUT`
//! names a rule whose violation is known, so that histories go on beyond it.

#![allow(
    clippy::print_stdout,
    clippy::exit,
    clippy::expect_used,
    reason = "a program for people"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use simulate::history::play;
use simulate::ideal::Ideal;
use simulate::planted::{Fault, Planted};
use simulate::restores::{Module, Stock};
use simulate::run::{Outcome, run, story};
use simulate::walden::Walden;
use simulate::world::Limits;

type Maker = Box<dyn Fn() -> Box<dyn Module>>;

/// How long a planted fault may stay hidden.
const HIDDEN_MAX: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize| args.get(at).map(String::as_str);
    let seed = |at: usize| match text(at) {
        Some(text) => text.parse().expect("SEED"),
        None => fastrand::u64(..1 << 40),
    };
    let module = std::env::var("MODULE").unwrap_or_else(|_| "walden".to_owned());
    let without = std::env::var("WITHOUT").ok();
    let limits = Limits {
        is_perfect: std::env::var("PERFECT").is_ok(),
        without: without.map(|rule| &*Box::leak(rule.into_boxed_str())),
        forgets: false,
    };
    match text(0) {
        Some("faults") => faults(seed(1), &module),
        Some("one") => {
            let world = play(seed(1), limits, &*maker(&module));
            println!("{}", story(&world));
            ExitCode::SUCCESS
        }
        minutes => {
            let minutes: f64 = minutes.map_or(1.0, |text| text.parse().expect("MINUTES"));
            let seed = seed(1);
            println!("seed {seed}");
            let deadline = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            let outcome = run(seed, limits, &*maker(&module), &mut |_| {
                Instant::now() >= deadline
            });
            end(&outcome)
        }
    }
}

fn maker(name: &str) -> Maker {
    match name {
        "stock" => Box::new(|| Box::new(Stock)),
        "ideal" => Box::new(|| Box::new(Ideal)),
        _ => Box::new(|| Box::new(Walden::default())),
    }
}

fn end(outcome: &Outcome) -> ExitCode {
    println!("{}", outcome.summary());
    if let Some((seed, story)) = &outcome.found {
        println!("{story}\nseed {seed}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn faults(seed: u64, module: &str) -> ExitCode {
    println!("seed {seed}");
    let mut hidden = false;
    for fault in Fault::ALL {
        let inner = maker(module);
        let planted = move || -> Box<dyn Module> {
            Box::new(Planted {
                fault,
                inner: inner(),
            })
        };
        let sound = maker(module);
        let limits = Limits {
            forgets: matches!(
                fault,
                Fault::ArchivesBehindOthers | Fault::GoesOnBehindRefused
            ),
            ..Limits::default()
        };
        let begun = Instant::now();
        let mut histories = 0;
        let found = loop {
            let next = seed.wrapping_add(histories);
            let outcome = run(next, limits, &planted, &mut |_| {
                begun.elapsed() >= HIDDEN_MAX
            });
            histories += outcome.histories;
            match outcome.found {
                None => break None,
                // Without the fault nothing is wrong with it: so it is the fault that was found.
                Some((at, story)) if play(at, limits, &*sound).violations.is_empty() => {
                    break Some(story);
                }
                Some(_) => {}
            }
        };
        match found {
            Some(story) => {
                let rule = story.lines().find(|line| line.starts_with("VIOLATION"));
                println!(
                    "{fault:?}: found after {} histories; {}",
                    histories,
                    rule.unwrap_or_default()
                );
            }
            None => {
                hidden = true;
                println!("{fault:?}: NOT FOUND in {histories} histories");
            }
        }
    }
    if hidden {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
