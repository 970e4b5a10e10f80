//! What the queue does with chunks, in every order.

use arrow_array::{ArrayRef, Int64Array};
use engine::RowSource as _;

use super::*;
use crate::wire::batch::{Encoder, schema_message};

fn batch(value: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
    RecordBatch::try_from_iter([("x", column)]).unwrap()
}

fn chunk(value: i64) -> Bytes {
    let batch = batch(value);
    let mut encoder = Encoder::new(&batch).unwrap();
    encoder.encode(&batch).unwrap().to_bytes()
}

fn queue(bytes_max: usize) -> Arc<InputQueue> {
    let schema = schema_message(batch(0).schema_ref()).unwrap();
    InputQueue::new("x", schema, bytes_max).unwrap()
}

fn poll(rows: &mut InputRows) -> Poll<Result<Option<RecordBatch>, String>> {
    rows.poll_next(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn chunks_arrive_once_and_in_order() {
    let queue = queue(1 << 20);
    let mut rows = queue.rows();
    assert!(poll(&mut rows).is_pending());
    let late = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.append(1, chunk(1), true).await })
    };
    tokio::task::yield_now().await;
    assert!(!late.is_finished());
    queue.append(0, chunk(0), false).await.unwrap();
    late.await.unwrap().unwrap();
    queue.append(0, chunk(7), false).await.unwrap();
    assert_eq!(poll(&mut rows), Poll::Ready(Ok(Some(batch(0)))));
    assert_eq!(poll(&mut rows), Poll::Ready(Ok(Some(batch(1)))));
    assert_eq!(poll(&mut rows), Poll::Ready(Ok(None)));
}

#[tokio::test]
async fn a_gap_is_out_of_range_and_takes_nothing() {
    let queue = queue(1 << 20);
    let error = queue.append(1, chunk(1), true).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::OutOfRange);
    let mut rows = queue.rows();
    assert!(poll(&mut rows).is_pending());
    queue.append(0, chunk(0), true).await.unwrap();
    assert_eq!(poll(&mut rows), Poll::Ready(Ok(Some(batch(0)))));
    assert_eq!(poll(&mut rows), Poll::Ready(Ok(None)));
}

#[tokio::test]
async fn a_full_queue_holds_the_client_up() {
    let queue = queue(1);
    let mut rows = queue.rows();
    queue.append(0, chunk(0), false).await.unwrap();
    let waiting = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.append(1, chunk(1), true).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    assert!(poll(&mut rows).is_ready());
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_statement_does_not_read_is_dropped() {
    let queue = queue(1);
    drop(queue.rows());
    for number in 0..5 {
        queue.append(number, chunk(0), number == 4).await.unwrap();
    }
    assert!(queue.is_complete());
}

#[tokio::test]
async fn garbage_fails_the_statement() {
    let queue = queue(1 << 20);
    let mut rows = queue.rows();
    let garbage = Bytes::from_static(b"\xff\xff\xff\xff\x08\0\0\0garbage!");
    let error = queue.append(0, garbage, false).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(matches!(poll(&mut rows), Poll::Ready(Err(_))));
}
