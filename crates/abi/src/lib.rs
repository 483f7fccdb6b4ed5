//! PostgreSQL's C side, declared by hand: layouts, constants and the few dozen functions and variables that
//! Walden uses, for majors 15 and later on 64-bit Linux.
//!
//! No header is needed to build this crate and no generated binding is in it. Every layout carries size and
//! offset assertions, and `tests/headers.rs` compiles a probe against the headers of each installed server
//! and compares. Only what is the same in all supported majors is declared as an `extern` symbol; what some
//! majors lack is looked up at run time ([`versioned`]). Nothing here decides anything: what may be called
//! when, and how an ERROR is caught, is the business of the `module` crate.
//!
//! | differs between majors | here |
//! |---|---|
//! | magic block | [`magic`] |
//! | archive module callbacks | [`archive_module`] |
//! | parameter flag bits | [`guc::unit_flags`] |
//! | background worker struct | [`worker`] |
//! | reason for "not configured" | [`versioned`] |
//! | arguments of signal handlers | [`process::handle_signal`] |

pub mod archive_module;
pub mod backup_target;
pub mod elog;
pub mod guc;
pub mod latch;
pub mod magic;
pub mod process;
pub mod recovery_module;
pub mod versioned;
pub mod worker;

/// The major version of a running server: 15, 16, ... (`PG_VERSION_NUM / 10000`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Major(pub u32);

impl Major {
    /// The oldest major with archive modules.
    pub const OLDEST: Self = Self(15);
    /// The newest major whose layouts are declared here. A newer server is refused by its own check of the
    /// magic block, because the block handed to it then names this major.
    pub const NEWEST: Self = Self(19);

    /// The major of `server_version_num`, for example 150020 for 15.20.
    #[must_use]
    pub const fn of_version_num(version_num: u32) -> Self {
        Self(version_num / 10_000)
    }

    /// Whether the layouts in this crate hold for this major.
    #[must_use]
    pub fn is_supported(self) -> bool {
        Self::OLDEST <= self && self <= Self::NEWEST
    }
}

/// `Datum`: what the server passes to background workers and exit callbacks.
pub type Datum = usize;
