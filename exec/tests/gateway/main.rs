//! The gateway as its users meet it: the `openduck` command as processes, over real mounts and a real
//! DuckDB. Needs FUSE, and `openduck-fs` beside the program (`cargo build`).

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod extensions;
mod faults;
mod handles;
mod operations;
mod server;
mod serving;
mod tokens;
mod watching;
