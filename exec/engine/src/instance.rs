//! One DuckDB instance: a database that is open, its memory, its threads, and how far it is locked.

use std::fmt;
use std::path::{Path, PathBuf};

use cxx::SharedPtr;

use crate::ffi;
use crate::{Connection, EngineError, admit};

/// Whether an instance may change its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// DuckDB opens the file read-only; it may be open in other processes as well.
    ReadOnly,
    /// The one writer.
    ReadWrite,
}

/// How an instance is opened.
#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// The database file; `None`: in memory.
    pub path: Option<PathBuf>,
    /// Ignored in memory, where it is always [`Access::ReadWrite`].
    pub access: Access,
    /// The most memory that DuckDB's buffers and operators take, in bytes.
    pub memory_bytes: u64,
    /// How many threads work on statements, at least 1: DuckDB's own, of which there are one less, and whoever
    /// waits in [`crate::Running::next`], who lends a hand to the own statement.
    pub threads: usize,
    /// Where larger-than-memory operators spill to.
    pub temp_directory: PathBuf,
    /// The most that they may spill, in bytes.
    pub temp_bytes_max: u64,
    /// The storage version of a database that is new, as DuckDB's `storage_compatibility_version` takes
    /// it (`v1.4.0`, `latest`); `None`: DuckDB's default.
    pub storage_version: Option<String>,
    /// Folders that statements may read and write files in, beside their own databases.
    pub allowed_directories: Vec<PathBuf>,
    /// Client SQL can't reach the host: no external access, no loading or installing of extensions, no
    /// settings but those of [`crate::admit::SETTINGS`], and plans are refused that use functions that
    /// [`crate::admit`] does not list. `false` for tools that trust their SQL.
    pub locked_down: bool,
}

/// An open database. Clones share it; it closes with the last of them, of its connections and of their
/// results.
#[derive(Clone)]
pub struct Instance {
    database: SharedPtr<ffi::Database>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl Instance {
    /// Opens a database file, or one in memory. A new file is created (with [`Access::ReadWrite`]).
    ///
    /// # Errors
    /// What DuckDB says: no such file, held by another process, damaged, of a newer version.
    pub fn open(config: &InstanceConfig) -> Result<Self, EngineError> {
        let mut allowed_directories = Vec::new();
        for directory in &config.allowed_directories {
            allowed_directories.push(text(directory)?);
        }
        let options = ffi::Options {
            path: config.path.as_deref().map_or(Ok(String::new()), text)?,
            in_memory: config.path.is_none(),
            read_only: config.path.is_some() && config.access == Access::ReadOnly,
            memory_bytes: config.memory_bytes,
            threads: config.threads.max(1) as u64,
            temp_directory: text(&config.temp_directory)?,
            temp_bytes_max: config.temp_bytes_max,
            storage_version: config.storage_version.clone().unwrap_or_default(),
            allowed_directories,
            allowed_settings: admit::SETTINGS.iter().map(ToString::to_string).collect(),
            locked_down: config.locked_down,
        };
        let database = ffi::open_database(&options)?;
        Ok(Self { database })
    }

    /// A new connection: a session of its own, with its own transaction, temporary tables and settings.
    ///
    /// # Errors
    /// Only if the instance was invalidated by a fatal error.
    pub fn connect(&self) -> Result<Connection, EngineError> {
        Ok(Connection::new(ffi::connect(&self.database)?))
    }

    /// Changes the memory limit, in bytes, also of a locked-down instance. What is in use and above it
    /// is evicted first.
    ///
    /// # Errors
    /// Where that much can't be evicted; the limit stays then.
    pub fn set_memory(&self, bytes: u64) -> Result<(), EngineError> {
        Ok(self.database.set_memory(bytes)?)
    }

    /// Changes how many threads work on statements, also of a locked-down instance.
    ///
    /// # Errors
    /// For 0.
    pub fn set_threads(&self, threads: usize) -> Result<(), EngineError> {
        Ok(self.database.set_threads(threads as u64)?)
    }

    /// Writes the WAL into the database file, if no other transaction stands in the way.
    ///
    /// # Errors
    /// `TransactionContext` while another transaction writes; try again later.
    pub fn checkpoint(&self) -> Result<(), EngineError> {
        Ok(self.database.checkpoint()?)
    }
}

/// DuckDB takes paths as text.
fn text(path: &Path) -> Result<String, EngineError> {
    path.to_str().map(ToOwned::to_owned).ok_or_else(|| {
        EngineError::new(
            "IO",
            format!(
                "{} is not UTF-8, and DuckDB opens no such path",
                path.display()
            ),
        )
    })
}
