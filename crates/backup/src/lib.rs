//! Base backups in an archive: how they are laid out, written, judged, verified and restored.
//!
//! A backup is a folder, `base/ID/`, that listings of WAL never meet:
//! * `running.json` is created first: since which LSN a backup runs, so that the WAL it needs can be kept from then on;
//! * `alive.000001` and so on tell that its writer lives;
//! * `base.00001.tar` and so on, and the same for the number of each tablespace, are its parts, each a whole tar file,
//!   packed as WAL is: all of them, unpacked through `zstd -dc | tar xi`, are the data directory;
//! * `backup_manifest` is the server's;
//! * `backup.json` is the commit: without it there is no backup, and nothing depends on what failed having been cleaned up;
//! * `confirmed.json` is there if the client saw that the server called it a success.
//!
//! Guarantees that nothing half is taken for a backup, and that nothing which is read here is believed before it was checked.
//! No server calls and no threads but those of [`verify`] and [`restore`]: whoever takes the backup decides where this runs.

mod catalogue;
mod cutter;
mod document;
mod id;
mod label;
mod layout;
mod manifest;
mod page;
mod pages;
mod path;
mod restore;
mod tar;
mod text;
mod verify;
mod writing;

pub use catalogue::{Catalogue, Found, State, What, catalogue};
pub use document::{
    Committed, Kind, LABEL_BYTES_MAX, Lineage, PageReport, PageState, Parent, Part, Running,
    Tablespace,
};
pub use id::{Id, InvalidId};
pub use pages::PageRule;
pub use restore::{Target, restore};
pub use verify::{Complaint, Request, Told, Verified, verify};
pub use writing::{
    Begin, End, PART_BYTES_DEFAULT, PART_BYTES_MAX, PART_BYTES_MIN, Writing, confirm,
};

/// What the keys of all backups begin with.
pub const FOLDER: &str = "base/";
