//! The rules at work on archives in memory: what each server is told, in both directions. `segments.rs`, `histories.rs`.

mod histories;
mod scene;
mod segments;
