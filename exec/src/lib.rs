//! Remote execution: a gateway, workers that run stock DuckDB over mounts, and the `openduck` command.

pub mod access;
pub mod cli;
pub mod extension;
pub mod gateway;
pub mod server;
pub mod wire;
pub mod worker;
