//! Arrow IPC messages, as the protocol carries them: one message after the other, without a frame of
//! our own.

use arrow_array::RecordBatch;
use arrow_ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamWriter,
    write_message,
};
use arrow_schema::{ArrowError, Schema};

use crate::failure::Failure;

fn unwritable(error: ArrowError) -> Failure {
    Failure::new("Not implemented", format!("these rows can't travel: {error}"))
}

/// A whole stream with one batch.
///
/// # Errors
/// A type without a form in Arrow IPC.
pub fn stream(batch: &RecordBatch) -> Result<Vec<u8>, Failure> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(unwritable)?;
    writer.write(batch).map_err(unwritable)?;
    writer.into_inner().map_err(unwritable)
}

/// A schema's message.
///
/// # Errors
/// A type without a form in Arrow IPC.
pub fn schema(schema: &Schema) -> Result<Vec<u8>, Failure> {
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(true);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &options,
    );
    let mut message = Vec::new();
    write_message(&mut message, encoded, &options).map_err(unwritable)?;
    Ok(message)
}

/// Appends a batch's message. Batches with dictionaries are not for this.
///
/// # Errors
/// A type without a form in Arrow IPC, or with a dictionary.
pub fn append(batch: &RecordBatch, to: &mut Vec<u8>) -> Result<(), Failure> {
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(true);
    let (dictionaries, encoded) = IpcDataGenerator::default()
        .encode(
            batch,
            &mut tracker,
            &options,
            &mut IpcWriteContext::default(),
        )
        .map_err(unwritable)?;
    if !dictionaries.is_empty() {
        return Err(Failure::new(
            "Not implemented",
            "rows with dictionaries can't travel",
        ));
    }
    write_message(to, encoded, &options).map_err(unwritable)?;
    Ok(())
}
