//! What a client sends as Arrow IPC: inputs chunk by chunk, and parameters.
//!
//! Nothing of it is believed. Metadata pass a flatbuffers verifier, columns Arrow's full validation
//! (offsets, UTF-8, dictionary keys), compressed buffers are refused, and a chunk must end where a
//! message does, so that what is kept is never larger than what came. What the decoder might still
//! trip over ends as an error of this one call: its panics are caught.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::MessageHeader;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;

use super::batch::Head;

/// The most columns that a relation may have, up or down.
///
/// Each costs some 2 KB in DuckDB and on the wire, whatever the rows: with this many, a batch of one
/// row is 32 MB already.
pub const COLUMN_COUNT_MAX: usize = 16_384;

/// What is wrong with bytes that a client sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// They are no Arrow IPC messages. Nothing of the chunk was taken.
    #[error("{what}: no valid Arrow IPC messages: {why}")]
    Invalid {
        /// Which bytes: `input "x"`, `parameters`.
        what: String,
        /// What Arrow found.
        why: String,
    },
    /// The schema has too many columns.
    #[error("{what}: {columns} columns, and {COLUMN_COUNT_MAX} is the most")]
    Wide {
        /// Which bytes.
        what: String,
        /// How many it has.
        columns: usize,
    },
    /// Parameters are not one row.
    #[error("parameters: {rows} rows instead of 1")]
    ParameterRows {
        /// How many there are.
        rows: usize,
    },
}

/// Reads the chunks of one input.
#[derive(Debug)]
pub struct InputDecoder {
    what: String,
    stream: Stream,
    schema: SchemaRef,
}

impl InputDecoder {
    /// A decoder of the input `name`, whose first chunk brings `schema`.
    ///
    /// # Errors
    ///
    /// [`InputError`].
    pub fn new(name: &str, schema: Bytes) -> Result<InputDecoder, InputError> {
        let what = format!("input {name:?}");
        let mut stream = Stream::default();
        let batches = decode(&what, &mut stream, schema)?;
        let schema = stream.schema.clone().filter(|_| batches.is_empty());
        let schema = schema.ok_or_else(|| InputError::Invalid {
            what: what.clone(),
            why: "the schema is missing, or more than a schema".to_owned(),
        })?;
        check_width(&what, &schema)?;
        Ok(InputDecoder {
            what,
            stream,
            schema,
        })
    }

    /// The input's schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a chunk. After an error the decoder is of no use any more.
    ///
    /// # Errors
    ///
    /// [`InputError::Invalid`].
    pub fn chunk(&mut self, bytes: Bytes) -> Result<Vec<RecordBatch>, InputError> {
        decode(&self.what, &mut self.stream, bytes)
    }
}

/// Reads parameters: a stream of one batch of one row.
///
/// # Errors
///
/// [`InputError`].
pub fn parameters(bytes: Bytes) -> Result<RecordBatch, InputError> {
    let what = "parameters";
    let mut batches = decode(what, &mut Stream::default(), bytes)?;
    batches.retain(|batch| batch.num_rows() > 0);
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    match (batches.pop(), rows) {
        (Some(batch), 1) => {
            check_width(what, batch.schema_ref())?;
            Ok(batch)
        }
        (_, rows) => Err(InputError::ParameterRows { rows }),
    }
}

fn check_width(what: &str, schema: &SchemaRef) -> Result<(), InputError> {
    let columns = schema.flattened_fields().len();
    if columns > COLUMN_COUNT_MAX {
        return Err(InputError::Wide {
            what: what.to_owned(),
            columns,
        });
    }
    Ok(())
}

/// An Arrow IPC stream as far as it was read.
#[derive(Debug, Default)]
struct Stream {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    has_ended: bool,
}

impl Stream {
    /// Reads whole messages; the batches among them are returned.
    fn read(&mut self, mut bytes: Bytes) -> Result<Vec<RecordBatch>, ArrowError> {
        let invalid = |why: &str| ArrowError::IpcError(why.to_owned());
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            if self.has_ended {
                return Err(invalid("something comes behind the end"));
            }
            let Some(head) = Head::read(&bytes)? else {
                self.has_ended = true;
                bytes = bytes.split_off(8);
                continue;
            };
            if head.end > bytes.len() {
                return Err(invalid("a message is cut"));
            }
            let body = Buffer::from(bytes.slice(head.body..head.end));
            let version = head.message.version();
            let schema = || self.schema.clone().ok_or_else(|| invalid("no schema"));
            match head.message.header_type() {
                MessageHeader::Schema if self.schema.is_none() => {
                    let schema = head.message.header_as_schema();
                    let schema = schema.ok_or_else(|| invalid("a schema without one"))?;
                    self.schema = Some(Arc::new(try_fb_to_schema(schema)?));
                }
                MessageHeader::DictionaryBatch => {
                    let batch = head.message.header_as_dictionary_batch();
                    let batch = batch.ok_or_else(|| invalid("a dictionary without one"))?;
                    let schema = schema()?;
                    read_dictionary(&body, batch, &schema, &mut self.dictionaries, &version)?;
                }
                MessageHeader::RecordBatch => {
                    let batch = head.message.header_as_record_batch();
                    let batch = batch.ok_or_else(|| invalid("a batch without one"))?;
                    let decoder = RecordBatchDecoder::try_new(
                        &body,
                        batch,
                        schema()?,
                        &self.dictionaries,
                        &version,
                    )?;
                    batches.push(decoder.read_record_batch()?);
                }
                other => return Err(invalid(&format!("a message of type {other:?}"))),
            }
            let end = head.end;
            bytes = bytes.split_off(end);
        }
        Ok(batches)
    }
}

fn decode(what: &str, stream: &mut Stream, bytes: Bytes) -> Result<Vec<RecordBatch>, InputError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| stream.read(bytes)));
    let why = match decoded {
        Ok(Ok(batches)) => return Ok(batches),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the decoder gave up".to_owned(),
    };
    Err(InputError::Invalid {
        what: what.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow_ipc::writer::StreamWriter;
    use arrow_schema::{DataType, Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::batch::{Encoder, schema_message};

    fn sample() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "bö", ""]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<
            arrow_array::types::Int32Type,
            _,
            _,
        >([Some(vec![Some(1)]), None, Some(vec![])]));
        RecordBatch::try_from_iter([("n", numbers), ("t", texts), ("l", lists)]).unwrap()
    }

    fn messages() -> (Bytes, Bytes) {
        let batch = sample();
        let message = Encoder::new(&batch).unwrap().encode(&batch).unwrap();
        (
            schema_message(batch.schema_ref()).unwrap(),
            message.to_bytes(),
        )
    }

    #[test]
    fn chunks_are_read_back() {
        let (schema, batch) = messages();
        let mut decoder = InputDecoder::new("x", schema).unwrap();
        assert_eq!(decoder.chunk(batch.clone()).unwrap(), [sample()]);
        assert!(decoder.chunk(Bytes::new()).unwrap().is_empty());
        // gRPC gives bytes at any address.
        let odd = Bytes::from([b"x", &batch[..]].concat()).slice(1..);
        assert_eq!(decoder.chunk(odd).unwrap(), [sample()]);
        let twice = [batch.clone(), batch].concat();
        assert_eq!(decoder.chunk(twice.into()).unwrap().len(), 2);
    }

    #[test]
    fn a_chunk_ends_where_a_message_does() {
        let (schema, batch) = messages();
        let mut decoder = InputDecoder::new("x", schema).unwrap();
        assert!(decoder.chunk(batch.slice(..batch.len() - 8)).is_err());
    }

    #[test]
    fn parameters_are_one_row() {
        let write = |batch: &RecordBatch| {
            let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
            writer.write(batch).unwrap();
            Bytes::from(writer.into_inner().unwrap())
        };
        let one = sample().slice(1, 1);
        assert_eq!(parameters(write(&one)).unwrap(), one);
        let error = parameters(write(&sample())).unwrap_err();
        assert!(matches!(error, InputError::ParameterRows { rows: 3 }));
        assert!(parameters(Bytes::from_static(b"\xff\xff\xff\xff\x08\0\0\0garbage!")).is_err());
    }

    #[test]
    fn too_many_columns_are_refused() {
        let field = |i| Field::new(format!("c{i}"), DataType::Int8, true);
        let schema = Schema::new((0..=COLUMN_COUNT_MAX).map(field).collect::<Vec<_>>());
        let error = InputDecoder::new("x", schema_message(&schema).unwrap()).unwrap_err();
        assert!(error.to_string().contains("16385 columns"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), which in any::<bool>()) {
            let (schema, batch) = messages();
            let mutate = |bytes: &Bytes| {
                let mut bytes = bytes.to_vec();
                let at = place.index(bytes.len());
                bytes[at] = byte;
                if byte % 4 == 0 {
                    bytes.truncate(cut.index(bytes.len()));
                }
                Bytes::from(bytes)
            };
            let (schema, batch) = if which { (mutate(&schema), batch) } else { (schema, mutate(&batch)) };
            if let Ok(mut decoder) = InputDecoder::new("x", schema)
                && let Ok(batches) = decoder.chunk(batch)
            {
                // What was accepted can be looked at, all of it.
                for batch in batches {
                    let _ = format!("{batch:?}");
                }
            }
        }
    }
}
