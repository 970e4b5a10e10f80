//! The layer engine: a database is a directory image, and every byte of it lies in an append-only
//! layer.
//!
//! A [`Writer`](writer::Writer) appends records to the one active layer of a database and keeps
//! the image's extent maps in memory; each fsync that found something new is a commit point,
//! numbered by [`Lsn`](id::Lsn). A [`Frozen`](frozen::Frozen) is the image at one commit: readers
//! in any process hold one and read without asking anybody. The [`catalog`] says which layers
//! exist and how they stand on each other; snapshots, clones and restores are rows in it. The
//! [`Store`](store::Store) is the door: it opens a home and offers every operation by name.
//!
//! The engine knows nothing of FUSE, of DuckDB's file format, or of any network protocol.

mod again;
pub mod aligned;
mod binding;
pub mod catalog;
mod checksum;
mod compact;
mod copy;
pub mod daemon;
mod diff;
pub mod disk;
pub mod error;
mod extents;
mod files;
mod fold;
mod follow;
mod format;
pub mod frozen;
mod gc;
mod hashes;
mod head;
pub mod id;
mod image;
mod instance;
mod layer;
mod lease;
mod load;
mod local;
mod log;
#[cfg(not(feature = "simulation"))]
mod machine;
#[cfg(feature = "simulation")]
pub mod machine;
mod maintain;
mod names;
mod new_image;
mod new_layer;
mod orphans;
mod page_cache;
mod pin;
mod published;
mod ranges;
mod record;
pub mod recover;
pub mod reference;
pub mod remote;
mod resolve;
mod scan;
mod seal;
mod send;
pub mod settings;
pub mod store;
mod takeover;
mod transfer;
mod uploads;
mod verify;
mod write_back;
pub mod writer;

pub use error::FsError;
