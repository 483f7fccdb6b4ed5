//! The conformance suite itself, put to the test: modules with one fault each.

mod archive;
mod recovery;
mod target;
