//! What crosses the wire: Arrow IPC messages, and errors.
//!
//! `batch` makes encapsulated messages of record batches without copying their columns, `input` reads
//! what a client sends and believes nothing of it, `status` says failures as gRPC does, `body` sends
//! result streams. Nothing here runs a query.

pub mod batch;
pub mod body;
pub mod input;
pub mod status;
