//! Record batches as encapsulated Arrow IPC messages.
//!
//! A message is its metadata and then the columns' own buffers: they are shared, never copied, so a
//! [`Message`] is a list of parts that belong one behind the other.
//!
//! Dictionaries are fixed for a query: they are DuckDB's ENUM types, whose values are known once the
//! statement is bound. Every batch brings the same ones along; [`Encoder`] takes them from the first
//! and answers an error where a later one differs. So each stream may send them first, and no batch
//! ever replaces or extends one.

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, Schema};
use bytes::{Bytes, BytesMut};

/// What marks the begin of an encapsulated message.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Parts smaller than this are joined by copying: each costs a frame and a place in a vectored write.
const PART_BYTES_MIN: usize = 4096;

/// One encapsulated Arrow IPC message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Message {
    fn gather(buffers: Vec<Buffer>) -> Message {
        let mut parts = Vec::new();
        let mut small = BytesMut::new();
        let mut bytes = 0;
        for buffer in buffers {
            bytes += buffer.len();
            if buffer.len() < PART_BYTES_MIN {
                small.extend_from_slice(&buffer);
            } else {
                if !small.is_empty() {
                    parts.push(small.split().freeze());
                }
                parts.push(Bytes::from_owner(buffer));
            }
        }
        if !small.is_empty() {
            parts.push(small.freeze());
        }
        Message { parts, bytes }
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is in it, which is never so for a message of an [`Encoder`].
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Its bytes, piece by piece.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its bytes, piece by piece.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// All of it in one piece; copies where there are several parts.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut all = BytesMut::with_capacity(self.bytes);
                many.iter().for_each(|part| all.extend_from_slice(part));
                all.freeze()
            }
        }
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Message {
        Message {
            bytes: bytes.len(),
            parts: vec![bytes],
        }
    }
}

/// `schema` as an encapsulated message.
///
/// # Errors
///
/// A schema that Arrow IPC can't express.
pub fn schema_message(schema: &Schema) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default();
    let mut tracker = DictionaryTracker::new(true);
    let generator = IpcDataGenerator::default();
    let encoded = generator.schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    let mut bytes = Vec::new();
    arrow_ipc::writer::write_message(&mut bytes, encoded, &options)?;
    Ok(bytes.into())
}

/// Makes messages of the batches of one query. A query may have several, each for a thread of its own.
pub struct Encoder {
    encoder: StreamEncoder,
    dictionaries: Vec<Bytes>,
}

impl Encoder {
    /// An encoder for batches like `first`, whose dictionaries become the query's.
    ///
    /// # Errors
    ///
    /// What Arrow IPC can't express.
    pub fn new(first: &RecordBatch) -> Result<Encoder, ArrowError> {
        let mut encoder = StreamEncoder::try_new(first.schema_ref())?;
        // Without rows: what comes is the schema, all dictionaries, and an empty batch.
        let opening = Message::gather(encoder.encode(&first.slice(0, 0))?);
        let mut messages = split(&opening.to_bytes())?;
        let batches = messages.pop();
        if batches.is_none() || messages.is_empty() {
            return Err(ArrowError::IpcError("an incomplete stream was made".into()));
        }
        messages.remove(0);
        Ok(Encoder {
            encoder,
            dictionaries: messages,
        })
    }

    /// The messages of all dictionaries, which go before the first batch of every stream.
    pub fn dictionaries(&self) -> &[Bytes] {
        &self.dictionaries
    }

    /// One batch as a message.
    ///
    /// # Errors
    ///
    /// Other dictionaries, or another schema, than the first batch had.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Message, ArrowError> {
        let message = Message::gather(self.encoder.encode(batch)?);
        if !self.dictionaries.is_empty() && starts_with_dictionary(&message)? {
            return Err(ArrowError::IpcError(
                "the values of an ENUM changed within one result".into(),
            ));
        }
        Ok(message)
    }
}

/// Whether the first of the messages in `message` is a dictionary.
fn starts_with_dictionary(message: &Message) -> Result<bool, ArrowError> {
    // The metadata of many columns are a part of their own, behind the few bytes before them.
    let mut head = BytesMut::new();
    for part in &message.parts {
        head.extend_from_slice(part);
        let length = head.get(4..8).and_then(|length| length.first_chunk::<4>());
        if length.is_some_and(|length| head.len() >= 8 + u32::from_le_bytes(*length) as usize) {
            break;
        }
    }
    match Head::read(&head)? {
        Some(head) => Ok(head.message.header_type() == MessageHeader::DictionaryBatch),
        None => Ok(false),
    }
}

/// What an encapsulated message begins with.
pub(super) struct Head<'a> {
    /// Its metadata, verified.
    pub message: arrow_ipc::Message<'a>,
    /// Where its body begins.
    pub body: usize,
    /// Where it ends.
    pub end: usize,
}

impl Head<'_> {
    /// Reads the head of the message that `bytes` begin with; `None` for an end-of-stream marker. The
    /// body need not be there.
    pub fn read(bytes: &[u8]) -> Result<Option<Head<'_>>, ArrowError> {
        let cut = || ArrowError::IpcError("a message is cut, or none".into());
        let length = bytes.strip_prefix(&CONTINUATION).ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length.first_chunk::<4>().ok_or_else(cut)?);
        if length == 0 {
            return Ok(None);
        }
        let body = 8 + length as usize;
        let message = root_as_message(bytes.get(8..body).ok_or_else(cut)?)
            .map_err(|error| ArrowError::IpcError(format!("a message's metadata: {error}")))?;
        let length = usize::try_from(message.bodyLength()).ok();
        let end = length
            .and_then(|length| body.checked_add(length))
            .ok_or_else(cut)?;
        Ok(Some(Head { message, body, end }))
    }
}

/// Cuts encapsulated messages apart.
fn split(mut bytes: &[u8]) -> Result<Vec<Bytes>, ArrowError> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let head = Head::read(bytes)?;
        let end = head.map_or(8, |head| head.end);
        let (one, rest) = bytes
            .split_at_checked(end)
            .ok_or_else(|| ArrowError::IpcError("a message's body is cut".into()))?;
        messages.push(Bytes::copy_from_slice(one));
        bytes = rest;
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int8Type;
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, StringArray};
    use arrow_ipc::reader::StreamReader;

    use super::*;

    fn enums(keys: Vec<i8>, values: &[&str]) -> ArrayRef {
        let values = Arc::new(StringArray::from(values.to_vec()));
        Arc::new(DictionaryArray::<Int8Type>::new(keys.into(), values))
    }

    fn batch(rows: i64, values: &[&str]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let keys = (0..rows).map(|row| (row % 2) as i8).collect();
        RecordBatch::try_from_iter([("n", numbers), ("e", enums(keys, values))]).unwrap()
    }

    #[test]
    fn schema_dictionaries_and_batches_are_a_stream() {
        let batches = [batch(10_000, &["a", "b"]), batch(3, &["a", "b"])];
        let mut encoder = Encoder::new(&batches[0]).unwrap();
        assert_eq!(encoder.dictionaries().len(), 1);
        let mut stream = schema_message(batches[0].schema_ref()).unwrap().to_vec();
        for dictionary in encoder.dictionaries() {
            stream.extend_from_slice(dictionary);
        }
        for batch in &batches {
            let message = encoder.encode(batch).unwrap();
            assert_eq!(message.to_bytes().len(), message.len());
            assert_eq!(split(&message.to_bytes()).unwrap().len(), 1);
            message
                .parts()
                .iter()
                .for_each(|part| stream.extend_from_slice(part));
        }
        let reader = StreamReader::try_new(stream.as_slice(), None).unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(read, batches);
    }

    #[test]
    fn large_columns_are_shared() {
        let batch = batch(10_000, &["a", "b"]);
        let column = batch.column(0).to_data().buffers()[0].as_ptr();
        let message = Encoder::new(&batch).unwrap().encode(&batch).unwrap();
        assert!(message.parts().iter().any(|part| part.as_ptr() == column));
    }

    #[test]
    fn many_columns_and_a_dictionary_are_one_message() {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let mut columns: Vec<_> = (0..200)
            .map(|i| (format!("c{i}"), number.clone()))
            .collect();
        columns.push(("e".to_owned(), enums(vec![0], &["a"])));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let message = Encoder::new(&batch).unwrap().encode(&batch).unwrap();
        assert_eq!(split(&message.to_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn another_dictionary_is_refused() {
        let mut encoder = Encoder::new(&batch(2, &["a", "b"])).unwrap();
        assert!(encoder.encode(&batch(2, &["a", "c"])).is_err());
        let mut encoder = Encoder::new(&batch(2, &["a", "b"])).unwrap();
        assert!(encoder.encode(&batch(2, &["a", "b", "c"])).is_err());
    }
}
