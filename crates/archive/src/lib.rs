//! WAL archives: create-if-absent, durable, compressed, bound to one system.
//!
//! Rooms, each of which uses only those below it (a test holds them to that, `tests/tests/tidy/rooms.rs`):
//! * `suite`: holds any store, and the archive above it, to their promises;
//! * `ahead`: the two engines, which move files before they are asked for, with threads that the caller starts ([`Spawn`]);
//! * `put`, `get`, `admin`: one file in, one file out, and what is done to an archive as a whole; parts of base backups too;
//! * `archive`: the type, and what it remembers while it is open;
//! * `pg_wal`: the files on the server's side;
//! * `format`: what stored bytes are: compressed, encrypted, checked, compared;
//! * `options`: what settings say;
//! * `store`: places for raw objects under keys: [`DirStore`], [`CloudStore`], [`MemoryStore`] as the model, and
//!   [`FaultyStore`] around any;
//! * `base`, `error.rs`, `cancel.rs`: what everything may use.
//!
//! Everything below `ahead` blocks and starts no thread but the one that talks to an object store: the caller decides where and
//! when. Nothing logs.

mod admin;
mod ahead;
mod archive;
mod base;
mod cancel;
mod error;
mod format;
mod get;
mod options;
mod pg_wal;
mod put;
mod store;
pub mod suite;

pub use admin::clean_up::{ByHand, Cleaned, CleanedByHand};
pub use ahead::archiving::{
    Archiving, ArchivingLimits, ArchivingNote, ArchivingView, FlightStage, InFlight,
};
pub use ahead::restoring::{PREFETCH_MAX, PendingRequest, Prefetch, RestoreRequest, Tally};
pub use archive::binding::{BINDING_KEY, Binding};
pub use archive::{Archive, Place};
pub use base::clock::Clock;
pub use base::digest::{ContentsDigest, Packed};
pub use base::printable::{PRINTABLE_BYTES_MAX, printable};
pub use base::regular::{append_regular, open_regular};
pub use base::spawn::{Spawn, spawn_plainly};
pub use base::time::rfc3339;
pub use cancel::Cancel;
pub use error::{Error, ErrorKind};
pub use format::seal::round_trip;
pub use format::secret::{CLUSTER_SECRET_BYTES, ClusterSecret};
pub use get::reading::{Found, PlainObject, Reading, Stored};
pub use get::{
    Answer, AsStored, Evidence, Got, NotStored, Notice, Rule, SegmentEvidence, SoughtSegment,
    remove_restore_leftovers,
};
pub use options::compression::{Compression, ZSTD_LEVEL_DEFAULT, ZSTD_LEVEL_MAX};
pub use options::identity::IdentityFile;
pub use options::location::{LOCATION_BYTES_MAX, Location, Overlap};
pub use options::number::{Number, Unit};
pub use options::parameter;
pub use options::recipients::{RECIPIENTS_MAX, Recipients};
pub use options::settings::{MissingSegment, Settings};
pub use options::{Options, Verify};
pub use pg_wal::folder::{histories_in, history_in, segment_in};
pub use pg_wal::pending::Pending;
pub use pg_wal::unarchived::{OldestCommit, Unarchived};
pub use put::{ENCRYPTED_KEY, PackedObject, Put};
pub use store::cloud::{Address, AddressOptions, CloudStore, Probed, Service};
pub use store::dir::store::{DirStore, try_to_write};
pub use store::faulty::{Faults, FaultyStore};
pub use store::form::Form;
pub use store::key::{beside, rename_hint};
pub use store::memory::MemoryStore;
pub use store::metered::{LATENCY_BOUNDS_MS, Latency, Meter, Op, RequestEnd};
pub use store::retry::{Backoff, CONNECT_WAIT_MAX, PROGRESS_WAIT_MAX};
pub use store::waist::{
    Detail, Entry, Glance, KEY_BYTES_MAX, Noted, Object, Published, Staged, Store, Trial,
};
