//! What Walden promises, shown on real PostgreSQL servers.
//!
//! One module for each promise; each test has a server, and an archive, of its own. See
//! `testing/lab` for where servers and libraries are looked for. One program holds them all, and what runs the engine on
//! object stores (`engine`), reads WAL (`wal`) and tests the conformance suite: most of them wait most of the time, and
//! so none waits for another.

mod always;
mod archive_ahead;
mod backup_target_c;
mod backup_targets;
mod backups;
mod before_consistency;
mod c_module;
mod coming_from;
mod common;
mod conformance;
mod control;
mod engine;
mod exclusive;
mod faces;
mod foreign;
mod hanging;
mod hole;
mod in_store;
mod index;
mod injected;
mod injected_c;
mod injected_recovery;
mod kills;
mod leaks;
mod left_inside;
mod map;
mod misbehaving;
mod monitoring;
mod not_configured;
mod object_stores;
mod other_tools;
mod outage;
mod patroni;
mod point_in_time;
mod prometheus;
mod promotion;
mod races;
mod rearchiving;
mod records;
mod restore_ahead;
mod sealed;
mod seeds;
mod segment_sizes;
mod several;
mod standby;
mod states;
mod status;
mod store_kills;
mod store_outages;
mod store_outages_recovery;
mod targets;
mod unloadable;
mod verify;
mod wal;
mod witness;
mod worker;
