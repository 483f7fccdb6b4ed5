//! `simulate MINUTES [SEED]`: plays histories and stops at the first wrong answer. `simulate faults [SEED]`: plants faults, one
//! after the other, and fails unless each is found within a minute. `simulate one SEED`: tells one history.

#![allow(
    clippy::print_stdout,
    clippy::exit,
    clippy::expect_used,
    reason = "a program for people"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use simulate::history::{Limits, play};
use simulate::ideal::Ideal;
use simulate::planted::{Fault, Planted};
use simulate::restores::{Module, Stock};
use simulate::run::{Outcome, run, story};

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
    let module = std::env::var("MODULE").unwrap_or_else(|_| "ideal".to_owned());
    let perfect = std::env::var("PERFECT").is_ok();
    let limits = Limits {
        is_perfect: perfect,
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
        _ => Box::new(|| Box::new(Ideal)),
    }
}

fn end(outcome: &Outcome) -> ExitCode {
    println!("{}", outcome.told());
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
        let limits = Limits { is_perfect: false };
        let begun = Instant::now();
        let outcome = run(seed, limits, &planted, &mut |_| {
            begun.elapsed() >= HIDDEN_MAX
        });
        match &outcome.found {
            Some((_, story)) => {
                let rule = story.lines().find(|line| line.starts_with("VIOLATION"));
                println!(
                    "{fault:?}: found after {} histories; {}",
                    outcome.histories,
                    rule.unwrap_or_default()
                );
            }
            None => {
                hidden = true;
                println!("{fault:?}: NOT FOUND in {} histories", outcome.histories);
            }
        }
    }
    match hidden {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
