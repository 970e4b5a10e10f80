//! The boundary to C++, and all of its unsafe code that is not a call of it.
//!
//! `cxx` generates both sides from the declarations below and checks that they agree. What C++ throws
//! arrives as a JSON text; what Rust would panic with is turned into an error before it returns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::{Array, StructArray};
use cxx::SharedPtr;

use crate::RowSource;

#[cxx::bridge(namespace = "openduck")]
mod bridge {
    struct Options {
        path: String,
        in_memory: bool,
        read_only: bool,
        memory_bytes: u64,
        threads: u64,
        temp_directory: String,
        temp_bytes_max: u64,
        storage_version: String,
        allowed_directories: Vec<String>,
        allowed_settings: Vec<String>,
        locked_down: bool,
    }

    struct Flow {
        batch_rows: u64,
        batch_bytes: u64,
        buffer_bytes: u64,
    }

    struct Start {
        read_only: bool,
        operators: bool,
    }

    enum FactKind {
        Statement,
        Table,
        Changed,
        Function,
        TableFunction,
        Pragma,
        Setting,
        CopyFrom,
        CopyTo,
        Created,
        Dropped,
        Altered,
        Transaction,
        PreparedName,
        Shown,
        Explained,
        Vacuumed,
        Unknown,
    }

    /// One thing that the walk over a statement met; what the texts mean depends on its kind.
    struct Fact {
        kind: FactKind,
        a: String,
        b: String,
        c: String,
        flag: bool,
    }

    struct ParsedStatement {
        kind: String,
        sql: String,
        parameters: Vec<String>,
        facts: Vec<Fact>,
    }

    struct Token {
        /// Where it begins, in bytes.
        start: usize,
        /// It is a name, a word of SQL, or an operator: no constant, no comment, no error.
        shown: bool,
    }

    struct ColumnText {
        name: String,
        duckdb_type: String,
    }

    struct Described {
        statement_type: String,
        known: bool,
        expands: bool,
        return_type: u8,
        columns: Vec<ColumnText>,
        parameter_count: usize,
        needs_valid_transaction: bool,
        read_databases: Vec<String>,
        modified_databases: Vec<String>,
    }

    struct PlannedOperator {
        name: String,
        depth: u32,
        estimated_rows: u64,
    }

    unsafe extern "C++" {
        include!("engine/cpp/bridge.hpp");

        #[namespace = ""]
        type ArrowArray;
        #[namespace = ""]
        type ArrowSchema;

        type Database;
        fn open_database(options: &Options) -> Result<SharedPtr<Database>>;
        fn set_memory(self: &Database, bytes: u64) -> Result<()>;
        fn set_threads(self: &Database, threads: u64) -> Result<()>;
        fn checkpoint(self: &Database) -> Result<()>;

        type Parked;
        fn new_parked() -> SharedPtr<Parked>;
        fn wake(self: &Parked) -> Result<()>;

        type Session;
        fn connect(database: &SharedPtr<Database>) -> Result<SharedPtr<Session>>;
        fn in_transaction(self: &Session) -> Result<bool>;
        fn catalog_version(self: &Session) -> Result<u64>;
        fn schema_hash(self: &Session) -> Result<u64>;
        fn interrupt(self: &Session) -> Result<()>;
        fn progress(self: &Session) -> Result<f64>;
        fn set(self: &Session, name: &str, value: &str) -> Result<()>;
        fn reset(self: &Session, name: &str) -> Result<()>;
        unsafe fn add_input(
            self: &Session,
            name: &str,
            schema: *mut ArrowSchema,
            source: Box<Source>,
            parked: SharedPtr<Parked>,
        ) -> Result<()>;
        fn remove_input(self: &Session, name: &str) -> Result<()>;
        fn operators(self: &Session) -> Result<Vec<PlannedOperator>>;

        type Statement;
        fn prepare(session: &SharedPtr<Session>, sql: &str) -> Result<UniquePtr<Statement>>;
        fn describe(self: &Statement) -> Result<Described>;
        unsafe fn schema(self: &Statement, out: *mut ArrowSchema) -> Result<()>;

        type Stream;
        unsafe fn execute(
            session: &SharedPtr<Session>,
            statement: &Statement,
            parameter_schema: *mut ArrowSchema,
            parameters: *mut ArrowArray,
            flow: &Flow,
        ) -> Result<UniquePtr<Stream>>;
        unsafe fn start(
            session: &SharedPtr<Session>,
            sql: &str,
            parameter_schema: *mut ArrowSchema,
            parameters: *mut ArrowArray,
            flow: &Flow,
            how: &Start,
        ) -> Result<UniquePtr<Stream>>;
        fn describe(self: &Stream) -> Result<Described>;
        unsafe fn schema(self: &Stream, out: *mut ArrowSchema) -> Result<()>;
        unsafe fn next(self: Pin<&mut Stream>, out: *mut ArrowArray) -> Result<bool>;

        fn parse_statements(sql: &str) -> Result<Vec<ParsedStatement>>;
        fn tokenize(sql: &str) -> Result<Vec<Token>>;
    }

    extern "Rust" {
        type Source;
        unsafe fn poll(
            self: &mut Source,
            parked: &SharedPtr<Parked>,
            out: *mut ArrowArray,
        ) -> Result<u8>;

        fn admits_bound(kind: &str, name: String, files: bool) -> bool;
    }
}

pub(crate) use bridge::*;

// SAFETY: a database is DuckDB's own, which any thread may use; nothing else is in it.
unsafe impl Send for Database {}
// SAFETY: as above: its functions take DuckDB's locks.
unsafe impl Sync for Database {}
// SAFETY: a connection may move between threads; DuckDB keeps nothing of it in thread-local memory.
unsafe impl Send for Session {}
// SAFETY: DuckDB guards a connection's state with a lock, but for the interrupt flag and the progress,
// which are atomic, and for what `Connection` (which is not `Sync`) alone calls, with `&mut self`.
unsafe impl Sync for Session {}
// SAFETY: a prepared statement holds its session and what DuckDB found out when it prepared it.
unsafe impl Send for Statement {}
// SAFETY: what is asked of it by shared reference only reads.
unsafe impl Sync for Statement {}
// SAFETY: an open result may move between threads: each call takes the connection's lock.
unsafe impl Send for Stream {}
// SAFETY: what is asked of it by shared reference only reads what was fixed when it began.
unsafe impl Sync for Stream {}
// SAFETY: it guards its list with a lock.
unsafe impl Send for Parked {}
// SAFETY: as above.
unsafe impl Sync for Parked {}

/// Wakes the parked scans of one input.
struct ParkedWaker(SharedPtr<Parked>);

impl Wake for ParkedWaker {
    fn wake(self: Arc<Self>) {
        // What DuckDB could throw here is that it has no memory left; the scan is then found by the
        // waiting consumer's own look, 20 ms later.
        let _ = self.0.wake();
    }
}

/// A row source as C++ holds it.
pub(crate) struct Source {
    pub(crate) rows: Box<dyn RowSource>,
    pub(crate) ended: bool,
}

impl Source {
    /// 0: nothing yet; 1: a batch was moved to `out`; 2: the end.
    fn poll(&mut self, parked: &SharedPtr<Parked>, out: *mut ArrowArray) -> Result<u8, String> {
        if self.ended {
            return Ok(2);
        }
        let waker = Waker::from(Arc::new(ParkedWaker(parked.clone())));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            self.rows.poll_next(&mut Context::from_waker(&waker))
        }));
        self.ended = true;
        let batch = match polled {
            Ok(Poll::Pending) => {
                self.ended = false;
                return Ok(0);
            }
            Ok(Poll::Ready(Ok(Some(batch)))) => batch,
            Ok(Poll::Ready(Ok(None))) => return Ok(2),
            Ok(Poll::Ready(Err(error))) => return Err(error),
            Err(_) => return Err("the source of an input failed".to_owned()),
        };
        self.ended = false;
        let array = FFI_ArrowArray::new(&StructArray::from(batch).into_data());
        // SAFETY: `out` points to an empty structure of C++'s, which takes the array over.
        unsafe { out.cast::<FFI_ArrowArray>().write(array) };
        Ok(1)
    }
}

fn admits_bound(kind: &str, name: String, files: bool) -> bool {
    crate::admit::admits_bound(kind, &name, files)
}
