//! What Walden promises of object stores, shown on real ones: SeaweedFS for S3, with and without TLS, Azurite for Azure,
//! and a fake of Google Cloud Storage, which is the lab's own.
//!
//! Here the engine talks to the stores without a PostgreSQL server around it; for those see `server`.

mod common;
mod forms;
mod leftovers;
mod little_memory;
mod misbehaving;
mod races;
mod refused;
mod requests;
mod suite;
mod tried;
mod trouble;
