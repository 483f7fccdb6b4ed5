//! WAL archives: create-if-absent, durable, compressed, bound to one system.
//!
//! Two storeys. Below, a [`Store`] keeps raw objects under flat keys: [`DirStore`] on a file system,
//! [`MemoryStore`] as the model, [`FaultyStore`] around either. Above, [`Archive`] gives them WAL's meaning:
//! names, forms, checks, equality, holes, cleanup. [`suite`] holds any store to its promises.
//!
//! Everything there blocks and starts no thread: the caller decides where and when. On top stand the two engines,
//! which move files ahead of being asked, with threads that the caller starts for them ([`Spawn`]). Nothing logs.

mod archive;
mod binding;
mod branches;
mod check;
mod clean_up;
mod cloud;
mod codec;
mod compare;
mod compression;
mod conf;
mod conf_line;
mod crew;
mod delivery;
mod dir_store;
mod directory;
mod durable;
mod early_sync;
mod early_writes;
mod error;
mod faulty_store;
#[cfg(test)]
mod forks;
mod form;
mod get;
mod identity;
mod key;
mod list;
mod location;
mod memory;
mod memory_store;
mod neighbours;
mod options;
mod prefetch;
mod printable;
mod put;
mod reading;
mod recipients;
mod regular;
mod retry;
mod seal;
mod secret;
mod settings;
mod small_file;
mod source;
mod store;
pub mod suite;
mod time;
mod uploads;
mod wal_folder;
mod workspace;

pub use archive::{Archive, ByHand, Cleaned, CleanedByHand, Got, Place, Put, Stored};
pub use binding::{BINDING_KEY, Binding};
pub use cloud::{Address, AddressOptions, CloudStore, Probed, Service};
pub use compression::{Compression, ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MAX};
pub use conf::ServerConf;
pub use crew::{Spawn, spawn_plainly};
pub use dir_store::DirStore;
pub use error::{Error, ErrorKind};
pub use faulty_store::{Faults, FaultyStore};
pub use form::Form;
pub use get::{
    AsStored, Evidence, NotStored, Notice, Rule, SegmentEvidence, SoughtSegment,
    remove_restore_leftovers,
};
pub use identity::IdentityFile;
pub use key::{beside, rename_hint};
pub use location::{LOCATION_BYTES_MAX, Location, Overlap};
pub use memory_store::MemoryStore;
pub use options::{Cancel, Options, Verify};
pub use prefetch::{Answer, Asking, PREFETCH_MAX, Prefetch, Tally, Wanted};
pub use printable::{PRINTABLE_BYTES_MAX, printable};
pub use put::ENCRYPTED_KEY;
pub use reading::{Found, Reading};
pub use recipients::{RECIPIENTS_MAX, Recipients};
pub use regular::{append_regular, open_regular};
pub use retry::{Backoff, CONNECT_WAIT_MAX, PROGRESS_WAIT_MAX};
pub use seal::round_trip;
pub use secret::{CLUSTER_SECRET_BYTES, ClusterSecret};
pub use settings::{MissingSegment, Settings};
pub use store::{Detail, Entry, Glance, KEY_BYTES_MAX, Object, Published, Staged, Store, Trial};
pub use time::rfc3339;
pub use uploads::{UploadLimits, UploadNote, Uploads};
pub use wal_folder::{histories_in, history_in, segment_in};
