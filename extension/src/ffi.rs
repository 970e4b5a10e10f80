//! The C interface: what `include/openduck_client.h` declares.
//!
//! The only file with `unsafe`. Each function checks nothing that its header promises, catches every
//! panic, and leaves the thinking to the modules beside it.

#![allow(
    unsafe_code,
    missing_docs,
    clippy::missing_safety_doc,
    reason = "the header has the documentation, and what callers must keep"
)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::{Array, RecordBatch, RecordBatchOptions, StructArray};
use arrow_schema::{DataType, Schema};

use crate::{Client, Config, Failure, Interrupt, Next, Rows, Statement, Upload};

const OK: i32 = 0;
const FAILED: i32 = 1;
const END: i32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct OdText {
    data: *const u8,
    size: usize,
}

#[repr(C)]
pub struct OdError {
    kind: OdText,
    message: OdText,
    extra: *const OdText,
    extra_size: usize,
    owner: *mut c_void,
}

/// What an error's texts point into.
struct ErrorOwner {
    failure: Failure,
    extra: Vec<OdText>,
    position: String,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct OdInterrupt {
    asked: Option<extern "C" fn(*const c_void) -> bool>,
    with: *const c_void,
}

#[repr(C)]
pub struct OdConfig {
    endpoint: OdText,
    token: OdText,
    ca_file: OdText,
    connect_timeout_ms: u64,
}

#[repr(C)]
pub struct OdStatement {
    database: OdText,
    sql: OdText,
    session: OdText,
    snapshot: OdText,
    idempotency_key: OdText,
    min_lsn: u64,
    timeout_ms: u64,
    inline_bytes: u32,
    streams_max: u32,
    settings: *const OdText,
    settings_size: usize,
    parameters_schema: *mut FFI_ArrowSchema,
    parameters: *mut FFI_ArrowArray,
    read_only: bool,
}

pub struct OdUpload {
    upload: Upload,
    data_type: DataType,
    schema: Arc<Schema>,
}

pub struct OdClient(Arc<Client>);

impl OdText {
    fn of(text: &str) -> Self {
        Self {
            data: text.as_ptr(),
            size: text.len(),
        }
    }

    /// SAFETY: `data` must point to `size` bytes, or `size` be 0.
    unsafe fn text(self) -> String {
        if self.size == 0 {
            return String::new();
        }
        // SAFETY: as the caller promises.
        let bytes = unsafe { std::slice::from_raw_parts(self.data, self.size) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl OdError {
    fn fill(&mut self, failure: Failure) {
        let position = failure.position.map(|position| position.to_string());
        let mut owner = Box::new(ErrorOwner {
            failure,
            extra: Vec::new(),
            position: position.unwrap_or_default(),
        });
        for (name, value) in &owner.failure.extra {
            owner.extra.push(OdText::of(name));
            owner.extra.push(OdText::of(value));
        }
        if !owner.position.is_empty() {
            owner.extra.push(OdText::of("remote_position"));
            owner.extra.push(OdText::of(&owner.position));
        }
        self.kind = OdText::of(&owner.failure.kind);
        self.message = OdText::of(&owner.failure.message);
        self.extra = owner.extra.as_ptr();
        self.extra_size = owner.extra.len();
        self.owner = Box::into_raw(owner).cast();
    }
}

impl From<OdInterrupt> for Interrupt {
    fn from(given: OdInterrupt) -> Self {
        Self::new(given.asked, given.with)
    }
}

/// Runs `work`; its failure or panic goes into `error`.
fn guarded(error: &mut OdError, work: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::new(
            "INTERNAL",
            "the client failed in a way that it must not; please report this",
        ))
    });
    match done {
        Ok(code) => code,
        Err(failure) => {
            error.fill(failure);
            FAILED
        }
    }
}

fn foreign(error: impl std::fmt::Display) -> Failure {
    Failure::new("INTERNAL", format!("rows of DuckDB can't be read: {error}"))
}

/// SAFETY: as the header says of `od_statement`.
unsafe fn statement(given: &OdStatement) -> Result<Statement, Failure> {
    // SAFETY: the texts are the caller's, and live.
    unsafe {
        let mut settings = std::collections::HashMap::new();
        if given.settings_size > 0 {
            let texts = std::slice::from_raw_parts(given.settings, given.settings_size);
            for pair in texts.chunks_exact(2) {
                settings.insert(pair[0].text(), pair[1].text());
            }
        }
        let mut parameters = None;
        if !given.parameters.is_null() {
            let schema = FFI_ArrowSchema::from_raw(given.parameters_schema);
            let array = FFI_ArrowArray::from_raw(given.parameters);
            let (data_type, schema) = schema_of(&schema)?;
            parameters = Some(batch_of(array, data_type, schema)?);
        }
        Ok(Statement {
            database: given.database.text(),
            sql: given.sql.text(),
            session: given.session.text(),
            snapshot: given.snapshot.text(),
            idempotency_key: given.idempotency_key.text(),
            min_lsn: given.min_lsn,
            inline_bytes: given.inline_bytes,
            streams_max: given.streams_max,
            timeout_ms: given.timeout_ms,
            settings,
            parameters,
            read_only: given.read_only,
        })
    }
}

fn schema_of(schema: &FFI_ArrowSchema) -> Result<(DataType, Arc<Schema>), Failure> {
    let schema = Schema::try_from(schema).map_err(foreign)?;
    let data_type = DataType::Struct(schema.fields().clone());
    Ok((data_type, Arc::new(schema)))
}

/// SAFETY: the array has this type.
unsafe fn batch_of(
    array: FFI_ArrowArray,
    data_type: DataType,
    schema: Arc<Schema>,
) -> Result<RecordBatch, Failure> {
    // SAFETY: as the caller promises.
    let data = unsafe { from_ffi_and_data_type(array, data_type) }.map_err(foreign)?;
    let rows = StructArray::from(data);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, rows.columns().to_vec(), &options).map_err(foreign)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_client_new(
    config: &OdConfig,
    client: &mut *mut OdClient,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        // SAFETY: the texts are the caller's, and live.
        let config = unsafe {
            Config {
                endpoint: config.endpoint.text(),
                token: config.token.text(),
                ca_file: config.ca_file.text(),
                connect_timeout_ms: config.connect_timeout_ms,
            }
        };
        let made = Arc::new(Client::new(config)?);
        *client = Box::into_raw(Box::new(OdClient(made)));
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_client_free(client: *mut OdClient) {
    // SAFETY: made by `od_client_new`, and freed once.
    unsafe { free(client) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_execute(
    client: &OdClient,
    given: &OdStatement,
    interrupt: OdInterrupt,
    result: &mut *mut Rows,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        // SAFETY: as the header says of `od_statement`.
        let statement = unsafe { statement(given) }?;
        let rows = statement.run(&client.0, interrupt.into())?;
        *result = Box::into_raw(Box::new(rows));
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_columns(result: &Rows) -> usize {
    result.columns().len()
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_column_name(result: &Rows, column: usize) -> OdText {
    let column = result.columns().get(column);
    OdText::of(column.map_or("", |column| &column.name))
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_column_type(result: &Rows, column: usize) -> OdText {
    let column = result.columns().get(column);
    OdText::of(column.map_or("", |column| &column.r#type))
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_streams(result: &Rows) -> u32 {
    result.streams()
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_lsn(result: &Rows) -> u64 {
    result.lsn()
}

#[unsafe(no_mangle)]
pub extern "C" fn od_result_schema_version(result: &Rows) -> u64 {
    result.schema_version()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_result_schema(
    result: &Rows,
    schema: *mut FFI_ArrowSchema,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        let exported = FFI_ArrowSchema::try_from(result.schema()).map_err(foreign)?;
        // SAFETY: the caller's place for a schema, which holds none yet.
        unsafe { std::ptr::write(schema, exported) };
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_result_next(
    result: &Rows,
    interrupt: OdInterrupt,
    array: *mut FFI_ArrowArray,
    place: &mut u64,
    error: &mut OdError,
) -> i32 {
    guarded(error, || match result.next(interrupt.into())? {
        Next::End => Ok(END),
        Next::Batch(index, batch) => {
            let rows = StructArray::from(batch);
            // SAFETY: the caller's place for an array, which holds none yet.
            unsafe { std::ptr::write(array, FFI_ArrowArray::new(&rows.to_data())) };
            *place = index;
            Ok(OK)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_result_free(result: *mut Rows) {
    // SAFETY: made by `od_execute` or `od_upload_finish`, and freed once.
    unsafe { free(result) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_upload_new(
    client: &OdClient,
    given: &OdStatement,
    name: OdText,
    schema: *mut FFI_ArrowSchema,
    upload: &mut *mut OdUpload,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        // SAFETY: as the header says of `od_statement`, the schema and the text.
        let (statement, schema, name) = unsafe {
            let schema = FFI_ArrowSchema::from_raw(schema);
            (statement(given)?, schema, name.text())
        };
        let (data_type, schema) = schema_of(&schema)?;
        let made = Upload::new(&client.0, statement, &name, &schema)?;
        *upload = Box::into_raw(Box::new(OdUpload {
            upload: made,
            data_type,
            schema,
        }));
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_upload_push(
    upload: &OdUpload,
    array: *mut FFI_ArrowArray,
    interrupt: OdInterrupt,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        // SAFETY: an array of the schema that the upload was made with; it is taken over.
        let batch = unsafe {
            let array = FFI_ArrowArray::from_raw(array);
            batch_of(array, upload.data_type.clone(), Arc::clone(&upload.schema))?
        };
        upload.upload.push(&batch, interrupt.into())?;
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_upload_finish(
    upload: &OdUpload,
    interrupt: OdInterrupt,
    result: &mut *mut Rows,
    error: &mut OdError,
) -> i32 {
    guarded(error, || {
        let rows = upload.upload.finish(interrupt.into())?;
        *result = Box::into_raw(Box::new(rows));
        Ok(OK)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_upload_free(upload: *mut OdUpload) {
    // SAFETY: made by `od_upload_new`, and freed once.
    unsafe { free(upload) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn od_error_clear(error: &mut OdError) {
    let owner = std::mem::replace(&mut error.owner, std::ptr::null_mut());
    // SAFETY: made by `OdError::fill`, and freed once.
    unsafe { free(owner.cast::<ErrorOwner>()) }
}

/// SAFETY: null, or from `Box::into_raw`, and not used again.
unsafe fn free<T>(owned: *mut T) {
    if !owned.is_null() {
        // SAFETY: as the caller promises. A panic while something is dropped must not leave.
        let boxed = unsafe { Box::from_raw(owned) };
        drop(catch_unwind(AssertUnwindSafe(|| drop(boxed))));
    }
}
