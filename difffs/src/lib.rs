//! The FUSE filesystem over the layer engine, and the `openduck-fs` command.
//!
//! A mount shows a database as the plain files that DuckDB expects: the live one for the one writer,
//! any commit read-only, or whatever is newest. [`server::serve`] is the door: it mounts, serves and
//! closes. Behind it, `fs` leads each request of the kernel to the part that answers it: `live`
//! (the writer's image), `image` (frozen ones), `follow` and `session` (which commit a process sees
//! on a path that follows the newest), `snapshots` (`.snapshots/`), `scratch` (each process's spill
//! directory), `status` and `snapshot_file` (`.openduck/`).
//!
//! This crate knows the engine only; of DuckDB it knows the names of its files and the order in
//! which it opens them.

pub mod cli;
pub mod control;
pub mod metrics;
pub mod registry;
pub mod server;

mod attr;
mod awake;
mod background;
mod care;
mod errno;
mod error;
mod follow;
mod fs;
mod handles;
mod image;
mod live;
mod mount;
mod mountpoint;
mod node;
mod passthrough;
mod process;
mod scratch;
mod session;
mod snapshot_file;
mod snapshots;
mod state;
mod status;
