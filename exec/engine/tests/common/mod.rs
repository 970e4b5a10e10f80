//! What the tests share: instances, and small ways to ask them.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use engine::{Access, Connection, EngineError, Instance, InstanceConfig, Running};

pub fn config() -> InstanceConfig {
    InstanceConfig {
        path: None,
        access: Access::ReadWrite,
        memory_bytes: 1 << 30,
        threads: 2,
        temp_directory: std::env::temp_dir().join("openduck-engine-test.spill"),
        temp_bytes_max: 1 << 30,
        storage_version: None,
        allowed_directories: Vec::new(),
        locked_down: false,
    }
}

pub fn file(path: PathBuf) -> InstanceConfig {
    InstanceConfig {
        path: Some(path),
        ..config()
    }
}

pub fn open(config: &InstanceConfig) -> Instance {
    Instance::open(config).expect("opens")
}

pub fn connect() -> Connection {
    open(&config()).connect().expect("connects")
}

/// Runs statements for their effect.
pub fn run(connection: &mut Connection, statements: &[&str]) {
    for sql in statements {
        if let Err(error) = connection.run(sql) {
            panic!("{sql}: {error}");
        }
    }
}

pub fn drain(mut running: Running) -> Result<Vec<RecordBatch>, EngineError> {
    let mut batches = Vec::new();
    while let Some(batch) = running.next()? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The one BIGINT that a query gives.
pub fn number(connection: &mut Connection, sql: &str) -> i64 {
    let batches = connection.run(sql).expect(sql);
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// The first column of a query's rows, as text.
pub fn texts(connection: &mut Connection, sql: &str) -> Vec<String> {
    let batches = connection.run(sql).expect(sql);
    let column = |batch: &RecordBatch| -> Vec<String> {
        let column = batch.column(0).as_string::<i32>();
        column
            .iter()
            .map(|text| text.unwrap_or("NULL").to_owned())
            .collect()
    };
    batches.iter().flat_map(column).collect()
}

pub fn error(connection: &mut Connection, sql: &str) -> EngineError {
    match connection.run(sql) {
        Ok(_) => panic!("{sql} ran"),
        Err(error) => error,
    }
}

/// A relation of one BIGINT column `i`.
pub fn numbers_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("i", DataType::Int64, true)]))
}

pub fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_new(numbers_schema(), vec![column]).expect("one column")
}
