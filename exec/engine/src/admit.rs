//! What client SQL may use: one table, asked of the parsed statement and of the bound plan.

use std::path::PathBuf;

use crate::{EngineError, Statement};

/// The settings that a session may change.
pub const SETTINGS: &[&str] = &["timezone"];

/// What an operator allows beyond the default, which is nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Folders in which COPY and file functions may read and write.
    pub allowed_directories: Vec<PathBuf>,
}

/// Whether a parsed statement may run.
///
/// # Errors
/// `Permission`, naming what is not admitted.
pub fn admit(_statement: &Statement, _policy: &Policy) -> Result<(), EngineError> {
    Ok(())
}

pub(crate) fn admits_bound(_kind: &str, _name: &str) -> bool {
    true
}
