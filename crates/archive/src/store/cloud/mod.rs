//! Archives in object stores: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.
//!
//! Guarantees what [`crate::Store`] asks, by the store's own create-if-absent, which every publishing uses. What goes on
//! inside is asynchronous; nothing of that shows: every call blocks, and one thread, started for each opened store and
//! ended with it, does all the talking.
//!
//! * `address.rs`: the URL. `connect.rs`, `credentials.rs`: from the URL and the environment to a client.
//! * `answers.rs`, `listing.rs`, `pages.rs`: what comes back, bounded and, if it is to be a listing, read to its end.
//! * `driver.rs`: the thread. `asking.rs`: one request until it is answered, with the policy of `retry.rs`.
//! * `requests.rs`: what all of these need. `store.rs`, `staged.rs`, `reader.rs`: the store.
//! * `leftovers.rs`, `unfinished.rs`: what dead writers left behind.
//! * `probe.rs`: whether the store keeps its promises.
//! * `failure.rs`: what went wrong, in words for people.

mod address;
mod answers;
mod asking;
mod connect;
mod credentials;
mod driver;
mod failure;
mod leftovers;
mod listing;
mod note;
mod pages;
mod probe;
mod proof;
mod reader;
mod requests;
mod staged;
mod store;
mod unfinished;

pub use address::{Address, AddressOptions, Service};
pub use probe::Probed;
pub use store::CloudStore;
