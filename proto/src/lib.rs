//! The messages and the service of `openduck/v1/execution.proto`, as Rust.
//!
//! What each field means stands in the `.proto` file; what no single field shows, in
//! `docs/protocol.md`.

/// `package openduck.v1`.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    reason = "generated; the comments are those of the .proto file"
)]
pub mod v1 {
    tonic::include_proto!("openduck.v1");
}

/// The file's descriptors, as gRPC reflection serves them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
