//! The bytes of a result stream: gRPC messages as an HTTP body, without copying the batches.
//!
//! A generic encoder would copy each batch into one buffer; here the columns' own buffers go to the
//! connection as they are, behind a few bytes that say what they are. The body holds one message at a
//! time and asks for the next when the connection has taken it: that is the backpressure.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::v1::{StreamResultsResponse, Summary, stream_results_response::Content};
use tonic::Status;

use super::batch::Message;

/// Parts up to this size go with the bytes that announce them.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// What a stream sends.
#[derive(Clone, Debug)]
pub enum Item {
    /// A record batch, or a dictionary, whose sequence is 0.
    Batch {
        /// The encapsulated message.
        message: Message,
        /// Its place in the stream.
        sequence: u64,
        /// Its place in the whole result.
        batch_index: u64,
    },
    /// The stream's end.
    Summary {
        /// One more than that of the last batch.
        sequence: u64,
        /// The figures.
        summary: Summary,
    },
}

impl From<Item> for StreamResultsResponse {
    fn from(item: Item) -> StreamResultsResponse {
        match item {
            Item::Batch {
                message,
                sequence,
                batch_index,
            } => StreamResultsResponse {
                content: Some(Content::Batch(message.to_bytes())),
                sequence,
                batch_index,
            },
            Item::Summary { sequence, summary } => StreamResultsResponse {
                content: Some(Content::Summary(summary)),
                sequence,
                batch_index: 0,
            },
        }
    }
}

/// The items of one stream.
pub type Items = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

/// The most that the fields around a batch take, in bytes: gRPC's prefix, and five varints with a key.
pub const ENVELOPE_BYTES_MAX: usize = 5 + 3 * 11;

/// A body of these items, with the status in its trailers.
pub struct ItemBody {
    items: Items,
    pieces: VecDeque<Bytes>,
    is_over: bool,
}

impl ItemBody {
    /// Sends `items`; ends with the first error among them.
    pub fn new(items: Items) -> ItemBody {
        ItemBody {
            items,
            pieces: VecDeque::new(),
            is_over: false,
        }
    }
}

impl http_body::Body for ItemBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        loop {
            if let Some(piece) = body.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if body.is_over {
                return Poll::Ready(None);
            }
            let status = match std::task::ready!(body.items.as_mut().poll_next(context)) {
                Some(Ok(item)) => {
                    body.pieces = pieces(item);
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            body.is_over = true;
            let mut trailers = http::HeaderMap::new();
            if status.add_header(&mut trailers).is_err() {
                // A message that no header can carry.
                trailers = http::HeaderMap::new();
                trailers.insert(Status::GRPC_STATUS, (tonic::Code::Internal as i32).into());
            }
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }
}

/// One gRPC message, in pieces.
fn pieces(item: Item) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::new();
    match item {
        Item::Batch {
            message,
            sequence,
            batch_index,
        } => {
            let mut head = BytesMut::with_capacity(ENVELOPE_BYTES_MAX + JOINED_BYTES_MAX);
            let field = |number: u32, value: u64| match value {
                0 => 0,
                value => key_len(number) + encoded_len_varint(value),
            };
            let length = field(3, sequence)
                + field(4, batch_index)
                + key_len(1)
                + encoded_len_varint(message.len() as u64)
                + message.len();
            head.put_u8(0);
            head.put_u32(length as u32);
            for (number, value) in [(3, sequence), (4, batch_index)] {
                if value != 0 {
                    encode_key(number, WireType::Varint, &mut head);
                    encode_varint(value, &mut head);
                }
            }
            encode_key(1, WireType::LengthDelimited, &mut head);
            encode_varint(message.len() as u64, &mut head);
            let mut parts = message.into_parts().into_iter().peekable();
            while let Some(part) = parts.next_if(|part| head.len() + part.len() <= JOINED_BYTES_MAX)
            {
                head.extend_from_slice(&part);
            }
            pieces.push_back(head.freeze());
            pieces.extend(parts);
        }
        summary @ Item::Summary { .. } => {
            let message = StreamResultsResponse::from(summary);
            let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
            bytes.put_u8(0);
            bytes.put_u32(message.encoded_len() as u32);
            bytes.extend_from_slice(&message.encode_to_vec());
            pieces.push_back(bytes.freeze());
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_the_wire(item: Item) -> StreamResultsResponse {
        let bytes: Vec<u8> = pieces(item).into_iter().flatten().collect();
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!((bytes[0], length), (0, bytes.len() - 5));
        StreamResultsResponse::decode(&bytes[5..]).unwrap()
    }

    #[test]
    fn pieces_are_the_message_that_prost_would_make() {
        for (size, sequence, batch_index) in [(0, 0, 0), (10, 1, 0), (100_000, 300, u64::MAX)] {
            let item = Item::Batch {
                message: Bytes::from(vec![7; size]).into(),
                sequence,
                batch_index,
            };
            assert_eq!(through_the_wire(item.clone()), item.into());
        }
        let item = Item::Summary {
            sequence: 3,
            summary: Summary {
                rows: 5,
                worker: "w".into(),
                ..Summary::default()
            },
        };
        assert_eq!(through_the_wire(item.clone()), item.into());
    }
}
