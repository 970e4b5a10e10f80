//! The extension's client: it runs statements at a backend that speaks the protocol, and turns results
//! into Arrow arrays and Arrow arrays into inputs.
//!
//! The idea: DuckDB's threads call in, block, and can be interrupted; beneath them one runtime drives
//! the connections. A result is one queue of batches in the result's order, however many streams feed it.
//!
//! What must stay true: nothing here is DuckDB's, and nothing of DuckDB is needed to test it. Every
//! call that blocks asks its [`Interrupt`] some fifty times a second. No panic leaves [`ffi`]. Nothing is
//! joined when the process ends, and after a fork everything is made anew.
//!
//! Left to others: what SQL is sent, catalogs and transactions. Those are the C++ side's.

mod channel;
mod execute;
mod failure;
pub mod ffi;
mod interrupt;
mod ipc;
mod result;
mod runtime;
mod upload;

pub use channel::{Client, Config};
pub use execute::Statement;
pub use failure::Failure;
pub use interrupt::Interrupt;
pub use result::{Next, Rows};
pub use upload::Upload;
