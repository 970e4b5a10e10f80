//! DuckDB 2.0 in this process, for a server: statements are parsed, judged, prepared and run, and
//! their results leave as Arrow batches while they are produced.
//!
//! The idea: DuckDB does the work, in its own threads, and this crate only lends it a shape that Rust
//! can trust. A result is never collected: DuckDB's threads turn chunks into Arrow batches, in the
//! result's order, into a buffer bounded in bytes, and [`Running::next`] takes them out. A slow taker
//! stops its own statement and nobody else's.
//!
//! What must stay true: no C++ exception and no Rust panic crosses the boundary; every failure is an
//! [`EngineError`] that carries DuckDB's own words. What a locked-down instance may run is one table,
//! [`admit`], asked twice: of the parsed statement (before anything is bound) and of the bound plan
//! (which also shows what views and macros brought in).
//!
//! Left to others: sessions, limits, the protocol, and where databases come from. All calls block;
//! run them on threads that may wait.

pub mod admit;
mod connection;
mod error;
mod ffi;
mod input;
mod instance;
mod parse;
mod prepared;
mod redact;
mod running;

pub use connection::{Connection, Flow, Start, Watch};
pub use error::EngineError;
pub use input::{InputGuard, RowSource};
pub use instance::{Access, Instance, InstanceConfig};
pub use parse::{
    CopiedData, EntryKind, Facts, FunctionName, Setting, SettingScope, Statement, StatementKind,
    TableName, parse,
};
pub use prepared::{Column, OperatorInfo, Prepared, Properties, ResultKind};
pub use redact::redact;
pub use running::Running;
