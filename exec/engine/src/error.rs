//! What can go wrong, in DuckDB's own words.
//!
//! A client should be able to raise what a local DuckDB would have raised: so the exception's type,
//! its message, its place in the SQL and what else DuckDB tells travel unchanged.

use std::collections::BTreeMap;

/// A statement, or a call about one, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// The exception's type as DuckDB's clients name it, without `Error`: `Binder`, `Catalog`,
    /// `Constraint`, `Interrupt`, `Permission`, ….
    pub kind: String,
    /// DuckDB's message, with the type in front and, where DuckDB shows it, the line of the SQL. Never
    /// empty.
    pub message: String,
    /// Where in the SQL, in bytes from its begin, if DuckDB tells.
    pub position: Option<u64>,
    /// What else DuckDB tells: `name`, `type`, `candidates`, `error_subtype`, ….
    pub extra: BTreeMap<String, String>,
}

impl EngineError {
    /// An error that DuckDB did not raise itself, under the type that it would have used.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            message: format!("{kind} Error: {}", message.into()),
            position: None,
            extra: BTreeMap::new(),
        }
    }

    /// The statement would have changed the database, and [`crate::Start::read_only`] forbade it.
    pub fn needs_writer(&self) -> bool {
        self.extra.contains_key("needs_writer")
    }
}

/// What C++ threw: a JSON map with DuckDB's error.
impl From<cxx::Exception> for EngineError {
    fn from(exception: cxx::Exception) -> Self {
        let Ok(mut extra) = serde_json::from_str::<BTreeMap<String, String>>(exception.what())
        else {
            return Self::new("Internal", exception.what());
        };
        let kind = extra.remove("exception_type").unwrap_or_default();
        let message = extra.remove("exception_message").unwrap_or_default();
        let position = extra.remove("position").and_then(|text| text.parse().ok());
        if message.is_empty() {
            return Self::new(&kind, "DuckDB says no more");
        }
        Self {
            kind,
            message,
            position,
            extra,
        }
    }
}
