//! Rows that travel into DuckDB: relations that are not tables, but somebody's batches.
//!
//! DuckDB's threads are few and shared by all connections of an instance, so none of them may wait for
//! rows that a client has yet to send. A source is therefore polled: where it has nothing, DuckDB parks
//! the scan, and the waker starts it again.

use std::fmt;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use cxx::SharedPtr;

use crate::ffi;

/// Where the rows of an input come from. A `tokio::sync::mpsc::Receiver` makes one in three lines.
pub trait RowSource: Send {
    /// The next batch, of the schema that was registered; `None` after the last. Must return at once;
    /// where it answers `Pending`, the waker in `context` is called when asking again makes sense.
    ///
    /// # Errors
    /// A sentence that becomes the statement's error. It is not asked again then.
    fn poll_next(&mut self, context: &mut Context<'_>)
    -> Poll<Result<Option<RecordBatch>, String>>;
}

/// Batches that are all there already.
impl RowSource for std::vec::IntoIter<RecordBatch> {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<RecordBatch>, String>> {
        Poll::Ready(Ok(self.next()))
    }
}

/// Keeps an input's name known to its connection; dropping it makes the SQL forget the name, and the
/// source.
pub struct InputGuard {
    session: SharedPtr<ffi::Session>,
    name: String,
}

impl InputGuard {
    pub(crate) fn new(session: SharedPtr<ffi::Session>, name: &str) -> Self {
        Self {
            session,
            name: name.to_owned(),
        }
    }
}

impl fmt::Debug for InputGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputGuard")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for InputGuard {
    fn drop(&mut self) {
        // It takes a name off a list, and throws nothing but for want of memory.
        let _ = self.session.remove_input(&self.name);
    }
}
