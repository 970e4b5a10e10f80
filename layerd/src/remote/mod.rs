//! The remote tier: layers in an object store, and the part of them that this home has on its disk.
//!
//! A layer's bytes are the same everywhere. In the store they lie in *segments*, immutable objects
//! that hold one byte range of one layer each, compressed in frames (`segment.rs`, written by
//! `upload.rs`). Which segments there are is the catalog's to say; no listing is ever asked.
//! A home keeps what it fetched as *partial layers*: sparse files with the layer's own layout, and
//! a map of the pages that are there (`cache.rs`, `map.rs`). A [`RemoteFile`](file::RemoteFile)
//! reads a page that is there as it would read a local layer, and fetches the others (`fetch.rs`).
//!
//! What must stay true: a byte that was fetched is compared with its frame's checksum before
//! anybody sees it; what the local cache holds is trusted no further than the layer's own
//! checksums go, so that eviction, kills, power losses and rot need no journal; no object is ever
//! written twice.
//!
//! # Memory
//!
//! | what | at most |
//! | --- | --- |
//! | GETs under way: [`fetch::IN_FLIGHT`] times ([`fetch::GET_MAX`] as stored, as much decoded) | 128 MiB |
//! | frame tables (`tables::BUDGET`) | 32 MiB |
//! | uploads of several parts: [`upload::PARALLEL`] times [`upload::PARTS_IN_FLIGHT`] + 2 parts of 8 MiB | 80 MiB |
//! | an upload of one part, in the thread of its caller | 16 MiB |
//! | a [`prefetch`](prefetch::prefetch): what its 6 steps of 8 MiB brought | 48 MiB |
//!
//! The page cache and the mapped page maps (1 byte per 4 KiB that a layer has) belong to the kernel.

pub mod cache;
pub mod check;
pub mod encode;
mod evict;
pub mod fetch;
pub mod file;
pub mod frame;
pub mod key;
pub mod layout;
mod map;
pub mod objects;
mod parts;
pub mod prefetch;
mod readahead;
pub mod runtime;
pub mod segment;
pub mod stats;
mod tables;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tier;
pub mod upload;
