//! The client's extension as files: signed, and laid out so that DuckDB finds them.
//!
//! DuckDB 2.0 installs extensions from any directory or web address that is laid out as a *repository*, if
//! they are signed with the key that its user named. A repository here is a directory that `openduck
//! extension publish` fills and that the gateway serves under `/extension`.
//!
//! What must stay true: a private key is readable by its owner alone and leaves its file only to sign; a
//! file is whole under its name or not there.
//!
//! What an extension does is not known here; who may fetch one is the gateway's affair (everybody: it is
//! a program, not data).

pub mod footer;
pub mod key;
pub mod repository;
