//! `walden.so`: the archive module, the recovery worker that hosts recovery modules, and Walden's own
//! recovery module, in one library for every supported server major.
//!
//! | part | runs in | file |
//! |---|---|---|
//! | parameters | every process | [`settings`] |
//! | wiring of the three commands, mutual exclusion | postmaster | [`wiring`], [`command`] |
//! | archive module | archiver | [`archiver`] |
//! | host of several archive modules | archiver | [`several`] |
//! | host of recovery modules | recovery worker | [`worker`] |
//! | Walden's own recovery module | recovery worker | [`recovery_module`] |
//! | what sessions are shown | archiver, recovery worker, sessions | [`status`] |
//!
//! Walden's own recovery module has no privileges: the host loads it by name like any other.

mod archiver;
mod command;
mod failure;
mod loader;
mod once;
mod recovery_module;
mod settings;
mod several;
mod status;
mod wiring;
mod worker;

// The library's entry points: the one place where this library is seen from C.
module::export! {
    settings: settings::ALL,
    load: wiring::on_load,
    archive: several::Archivers,
    recovery: recovery_module::Recovery { restore, archive_cleanup, recovery_end },
    worker: walden_recovery_worker => worker::main,
}
