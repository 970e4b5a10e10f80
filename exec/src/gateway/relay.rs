//! Passing a result stream on, byte for byte.
//!
//! A stream's messages are never decoded, nor even put together: the frames that come from the worker go to
//! the client as they are, so a batch is not copied here, and what waits is bounded by HTTP/2's windows.
//! Only the five bytes before each message are looked at, to know where messages begin, and the one message
//! that is no batch, the summary, is read along the way for the log.
//!
//! Dropping the body ends the worker's stream, which cancels the query there. A stream that breaks off
//! ends with a status in its trailers, as any gRPC stream does, and not with a broken connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use prost::Message as _;
use proto::v1::stream_results_response::Content;
use proto::v1::{Reason, StreamResultsResponse, Summary};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use crate::wire::status::refused;

/// The prefix of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Summaries have some hundred bytes.
const SUMMARY_BYTES_MAX: usize = 64 << 10;
/// The first byte of a message whose first field is the summary: field 2, a length.
const SUMMARY_TAG: u8 = 2 << 3 | 2;

/// What is told of a stream when it is over.
pub trait Listener: Send + Unpin + 'static {
    /// More bytes went by.
    fn passed(&mut self, bytes: usize);

    /// It is over: with its summary, or without; `status` is what the client was told, `None` where it went
    /// away first.
    fn over(&mut self, summary: Option<Summary>, status: Option<&Status>);
}

/// A result stream on its way.
pub struct Relay<L: Listener> {
    worker: Body,
    watched: Watched,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    listener: L,
    is_over: bool,
}

impl<L: Listener> Relay<L> {
    /// Passes on what `worker` sends, until `cancelled`.
    pub fn new(worker: Body, cancelled: WaitForCancellationFutureOwned, listener: L) -> Relay<L> {
        Relay {
            worker,
            watched: Watched::default(),
            cancelled: Box::pin(cancelled),
            listener,
            is_over: false,
        }
    }

    fn end(&mut self, status: &Status) {
        self.is_over = true;
        let summary = self.watched.summary.take();
        self.listener.over(summary, Some(status));
        // The worker need not wait for this body to be dropped.
        self.worker = Body::empty();
    }

    fn end_with(&mut self, status: &Status) -> Frame<Bytes> {
        self.end(status);
        let mut trailers = http::HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            trailers = http::HeaderMap::new();
            trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
        }
        Frame::trailers(trailers)
    }
}

impl<L: Listener> http_body::Body for Relay<L> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let relay = self.get_mut();
        if relay.is_over {
            return Poll::Ready(None);
        }
        if relay.cancelled.as_mut().poll(context).is_ready() {
            let status = Status::cancelled("the query was cancelled");
            return Poll::Ready(Some(Ok(relay.end_with(&status))));
        }
        let frame = std::task::ready!(Pin::new(&mut relay.worker).poll_frame(context));
        let lost = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    relay.watched.look_at(&data);
                    relay.listener.passed(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(frame) => {
                    let status = frame
                        .trailers_ref()
                        .and_then(Status::from_header_map)
                        .unwrap_or_else(|| Status::ok(""));
                    relay.end(&status);
                    return Poll::Ready(Some(Ok(frame)));
                }
            },
            Some(Err(error)) => lost(&error),
            None => lost(&"it ended without a status"),
        };
        Poll::Ready(Some(Ok(relay.end_with(&lost))))
    }
}

fn lost(error: &dyn std::fmt::Display) -> Status {
    tracing::debug!(%error, "a worker's stream broke off");
    refused(
        Reason::Unavailable,
        "the worker that ran this query is gone; run it again",
    )
}

impl<L: Listener> Drop for Relay<L> {
    fn drop(&mut self) {
        if !self.is_over {
            let summary = self.watched.summary.take();
            self.listener.over(summary, None);
        }
    }
}

/// Where the bytes that go by are in their message.
#[derive(Default)]
struct Watched {
    /// What has come of a message's prefix and first byte.
    head: [u8; PREFIX_BYTES + 1],
    head_bytes: usize,
    /// What is still to come of a message behind those.
    rest: usize,
    /// The summary, as far as it has come.
    collected: Option<BytesMut>,
    summary: Option<Summary>,
}

impl Watched {
    fn look_at(&mut self, data: &Bytes) {
        let mut data = data.clone();
        while data.has_remaining() {
            if self.rest == 0 {
                self.take_head(&mut data);
            } else {
                let part = data.split_to(self.rest.min(data.len()));
                self.rest -= part.len();
                if let Some(collected) = &mut self.collected {
                    collected.extend_from_slice(&part);
                }
            }
            if self.rest == 0
                && self.head_bytes == 0
                && let Some(collected) = self.collected.take()
            {
                self.read_summary(collected);
            }
        }
    }

    fn take_head(&mut self, data: &mut Bytes) {
        while self.head_bytes < self.head.len() && data.has_remaining() {
            self.head[self.head_bytes] = data.get_u8();
            self.head_bytes += 1;
            let [_, a, b, c, d, first] = self.head;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if self.head_bytes == PREFIX_BYTES && length == 0 {
                self.head_bytes = 0;
                return;
            }
            if self.head_bytes > PREFIX_BYTES {
                self.head_bytes = 0;
                self.rest = length - 1;
                if first == SUMMARY_TAG && length <= SUMMARY_BYTES_MAX {
                    self.collected = Some(BytesMut::from(&[first][..]));
                }
                return;
            }
        }
    }

    fn read_summary(&mut self, collected: BytesMut) {
        if let Ok(StreamResultsResponse {
            content: Some(Content::Summary(summary)),
            ..
        }) = StreamResultsResponse::decode(collected)
        {
            self.summary = Some(summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &StreamResultsResponse) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn message(content: Option<Content>) -> StreamResultsResponse {
        StreamResultsResponse {
            content,
            sequence: 3,
            batch_index: 9,
        }
    }

    fn seen(bytes: &[u8], cuts: &[usize]) -> Option<Summary> {
        let mut watched = Watched::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            watched.look_at(&Bytes::copy_from_slice(&bytes[pair[0]..pair[1]]));
        }
        watched.summary
    }

    proptest! {
        #[test]
        fn the_summary_is_seen_however_the_bytes_are_cut(
            sizes in prop::collection::vec(0usize..300, 0..5),
            rows in any::<u64>(),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let summary = Summary { rows, worker: "w".into(), ..Summary::default() };
            let mut bytes = Vec::new();
            for size in sizes {
                let batch = Bytes::from(vec![SUMMARY_TAG; size]);
                bytes.extend(framed(&message(Some(Content::Batch(batch)))));
            }
            bytes.extend(framed(&StreamResultsResponse::default()));
            bytes.extend(framed(&message(Some(Content::Summary(summary.clone())))));
            prop_assert_eq!(seen(&bytes, &cuts), Some(summary));
        }

        #[test]
        fn garbage_does_no_harm(bytes in any::<Vec<u8>>(), cuts in any::<Vec<usize>>()) {
            seen(&bytes, &cuts);
        }
    }
}
