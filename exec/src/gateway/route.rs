//! Which worker a statement goes to, by what its text says.
//!
//! What is not plainly a read goes to the writer, and so does everything in a session: sessions carry
//! transactions, and every replica must find the same worker for one, without asking. A read goes to a
//! reader only where the client accepts what readers have: a state that was the newest a moment ago. The
//! reader's binder has the last word; where it says that the statement changes something, it goes to the
//! writer after all.

use proto::v1::ExecuteQueryRequest;

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The writer alone.
    Writer,
    /// A reader, if there is one that has this LSN.
    Reader {
        /// 0: any state that is fresh enough for the client, which the reader sees to.
        min_lsn: u64,
    },
}

/// Chooses; `is_read`: DuckDB's parser shows that the statement changes nothing.
#[must_use]
pub fn route(request: &ExecuteQueryRequest, is_read: bool) -> Route {
    let options = request.options.as_ref();
    let takes_no_staleness = options.and_then(|options| options.max_staleness_ms) == Some(0);
    let is_bound = !request.session_id.is_empty();
    if !is_read || is_bound {
        return Route::Writer;
    }
    if !request.snapshot.is_empty() {
        // It never changes: any reader may open it.
        return Route::Reader { min_lsn: 0 };
    }
    match takes_no_staleness {
        true => Route::Writer,
        false => Route::Reader {
            min_lsn: request.min_lsn,
        },
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::Options;

    use super::*;

    fn request() -> ExecuteQueryRequest {
        ExecuteQueryRequest::default()
    }

    fn staleness(ms: Option<u32>) -> Option<Options> {
        Some(Options {
            max_staleness_ms: ms.map(Into::into),
            ..Options::default()
        })
    }

    #[test]
    fn what_may_write_and_what_has_a_session_goes_to_the_writer() {
        assert_eq!(route(&request(), false), Route::Writer);
        let in_session = ExecuteQueryRequest {
            session_id: "s".into(),
            ..request()
        };
        assert_eq!(route(&in_session, true), Route::Writer);
    }

    #[test]
    fn a_read_goes_to_a_reader_unless_it_takes_the_newest_alone() {
        assert_eq!(route(&request(), true), Route::Reader { min_lsn: 0 });
        for (ms, expected) in [
            (None, Route::Reader { min_lsn: 7 }),
            (Some(100), Route::Reader { min_lsn: 7 }),
            (Some(0), Route::Writer),
        ] {
            let read = ExecuteQueryRequest {
                min_lsn: 7,
                options: staleness(ms),
                ..request()
            };
            assert_eq!(route(&read, true), expected, "{ms:?}");
        }
    }

    #[test]
    fn a_snapshot_is_read_anywhere() {
        let read = ExecuteQueryRequest {
            snapshot: "nightly".into(),
            options: staleness(Some(0)),
            ..request()
        };
        assert_eq!(route(&read, true), Route::Reader { min_lsn: 0 });
    }
}
