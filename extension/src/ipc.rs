//! Arrow IPC messages, as the protocol carries them: one message after the other, without a frame of
//! our own.

use std::collections::HashMap;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_schema_from_ipc_buffer;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamWriter,
    write_message,
};
use arrow_ipc::{Message, MessageHeader, root_as_message};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use bytes::Bytes;

use crate::failure::Failure;

fn unwritable(error: ArrowError) -> Failure {
    Failure::new(
        "Not implemented",
        format!("these rows can't travel: {error}"),
    )
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

/// What a schema's message says.
///
/// # Errors
/// It is none.
pub fn read_schema(message: &[u8]) -> Result<Schema, ArrowError> {
    try_schema_from_ipc_buffer(message)
}

/// Reads batches, which share a schema and dictionaries.
#[derive(Clone, Debug)]
pub struct Reader {
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl Reader {
    /// A reader that knows these dictionaries, by their messages.
    ///
    /// # Errors
    /// A message is broken, or no dictionary.
    pub fn new(schema: &SchemaRef, dictionaries: &[Bytes]) -> Result<Self, ArrowError> {
        let mut reader = Self {
            schema: SchemaRef::clone(schema),
            dictionaries: HashMap::new(),
        };
        for bytes in dictionaries {
            let (message, body) = parts(bytes)?;
            let batch = message
                .header_as_dictionary_batch()
                .ok_or_else(|| unreadable("no dictionary"))?;
            let version = message.version();
            read_dictionary(&body, batch, schema, &mut reader.dictionaries, &version)?;
        }
        Ok(reader)
    }

    /// A batch, by its message. Its columns point into the message.
    ///
    /// # Errors
    /// The message is broken, or no batch.
    pub fn read(&self, bytes: &Bytes) -> Result<RecordBatch, ArrowError> {
        let (message, body) = parts(bytes)?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| unreadable("no record batch"))?;
        let (schema, version) = (SchemaRef::clone(&self.schema), message.version());
        read_record_batch(&body, batch, schema, &self.dictionaries, None, &version)
    }
}

fn unreadable(what: &str) -> ArrowError {
    ArrowError::ParseError(what.to_owned())
}

/// A message's header and body: a mark and a length of four bytes each, the header, the body.
fn parts(bytes: &Bytes) -> Result<(Message<'_>, Buffer), ArrowError> {
    let cut = || unreadable("a message that was cut");
    let (mark, length) = (bytes.get(..4), bytes.get(4..8));
    let (Some([0xff, 0xff, 0xff, 0xff]), Some(length)) = (mark, length) else {
        return Err(cut());
    };
    let length = length
        .try_into()
        .map(u32::from_le_bytes)
        .map_err(|_| cut())? as usize;
    let header = bytes.get(8..8 + length).ok_or_else(cut)?;
    let message = root_as_message(header)
        .map_err(|error| unreadable(&format!("a broken message: {error}")))?;
    let rest = bytes.slice(8 + length..);
    if matches!(message.header_type(), MessageHeader::NONE)
        || usize::try_from(message.bodyLength()).map_or(true, |body| body > rest.len())
    {
        return Err(cut());
    }
    Ok((message, Buffer::from(rest)))
}
