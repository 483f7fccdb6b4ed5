//! What a server relies on when it hands a file to an archive module.

mod answers;
mod bench;
mod contents;
mod durability;
mod kills;
mod life;
mod moments;
mod names;
mod slow;
mod together;
mod trace;

pub(crate) use bench::{complaint, tree};

use crate::promise::Promise;

/// All of them, by theme.
pub(crate) const PROMISES: &[&[Promise]] = &[
    contents::PROMISES,
    moments::PROMISES,
    answers::PROMISES,
    durability::PROMISES,
    slow::PROMISES,
    life::PROMISES,
    kills::PROMISES,
    names::PROMISES,
    together::PROMISES,
];
