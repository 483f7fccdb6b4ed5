//! What Walden reads in WAL, beside what the server's own programs read in the same WAL, and what it finds when bits of it
//! are flipped. The WAL is written by real servers, for this.

mod dump;
mod flips;
mod mutations;
mod segments;
mod workload;
