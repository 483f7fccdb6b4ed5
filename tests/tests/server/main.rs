//! What Walden promises, shown on real PostgreSQL servers.
//!
//! One module for each promise; each test has a server, and an archive, of its own. See
//! `crates/lab` for where servers and libraries are looked for.

mod common;
mod exclusive;
mod foreign;
mod hole;
mod kills;
mod misbehaving;
mod not_configured;
mod other_tools;
mod outage;
mod point_in_time;
mod promotion;
mod races;
mod rearchiving;
mod segment_sizes;
mod standby;
mod worker;
