//! A store that misbehaves, and layers to put into it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::objects::Objects;
use crate::id::{Epoch, LayerId};

/// The layer of most tests.
pub const LAYER: LayerId = LayerId {
    epoch: Epoch(3),
    random: 0xfeed,
};

/// What goes wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error.
    Error,
    /// A body that ends early.
    Cut,
    /// A body with a flipped bit.
    Flip,
    /// The object is not there.
    Gone,
}

/// An in-memory store that can be told to misbehave.
#[derive(Debug, Default)]
pub struct Faulty {
    inner: InMemory,
    /// The next so many GETs fail like this.
    reads: Mutex<Option<(Fault, u32)>>,
    /// The next so many PUTs, or parts of one, fail.
    failing_puts: Arc<AtomicU32>,
    /// PUTs that fail after they were done, silently or not.
    spoiling_puts: AtomicU32,
    /// Milliseconds before each answer.
    latency_ms: AtomicU64,
    /// Bytes per second of all bodies together; 0 is without limit.
    bandwidth: AtomicU64,
    link: tokio::sync::Mutex<()>,
    gets: AtomicU64,
    aborts: Arc<AtomicU32>,
}

impl Faulty {
    pub fn new() -> Arc<Faulty> {
        Arc::default()
    }

    pub fn objects(self: &Arc<Self>) -> Objects {
        Objects::remote(Arc::clone(self) as Arc<dyn ObjectStore>, "memory:test")
    }

    pub fn fail_reads(&self, fault: Fault, count: u32) {
        *self.reads.lock() = Some((fault, count));
    }

    pub fn heal(&self) {
        *self.reads.lock() = None;
        self.failing_puts.store(0, Ordering::SeqCst);
        self.spoiling_puts.store(0, Ordering::SeqCst);
    }

    pub fn fail_puts(&self, count: u32) {
        self.failing_puts.store(count, Ordering::SeqCst);
    }

    /// The next so many PUTs store something else.
    pub fn spoil_puts(&self, count: u32) {
        self.spoiling_puts.store(count, Ordering::SeqCst);
    }

    pub fn limit(&self, latency: Duration, bytes_per_second: u64) {
        self.latency_ms
            .store(latency.as_millis() as u64, Ordering::SeqCst);
        self.bandwidth.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Flips a bit of an object for good.
    pub fn rot(&self, key: &str, at: usize) {
        let (runtime, key) = (super::runtime::runtime().unwrap(), Key::from(key));
        let change = async {
            let mut bytes = self.inner.get(&key).await?.bytes().await?.to_vec();
            bytes[at] ^= 1;
            self.inner.put(&key, bytes.into()).await
        };
        runtime.block_on(change).unwrap();
    }

    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::SeqCst)
    }

    pub fn aborts(&self) -> u32 {
        self.aborts.load(Ordering::SeqCst)
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut reads = self.reads.lock();
        let (fault, count) = reads.as_mut()?;
        let fault = *fault;
        *count -= 1;
        if *count == 0 {
            *reads = None;
        }
        Some(fault)
    }

    async fn wait(&self, bytes: usize) {
        let latency = self.latency_ms.load(Ordering::SeqCst);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        let bandwidth = self.bandwidth.load(Ordering::SeqCst);
        if bandwidth > 0 {
            // One body after the other goes over the link.
            let _link = self.link.lock().await;
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / bandwidth as f64)).await;
        }
    }
}

fn refused() -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: "503 slow down".into(),
    }
}

/// Takes one from a counter that is not zero.
fn take(counter: &AtomicU32) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.wait(payload.content_length()).await;
        if take(&self.failing_puts) {
            return Err(refused());
        }
        if take(&self.spoiling_puts) {
            let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
            bytes.pop();
            return self.inner.put_opts(location, bytes.into(), options).await;
        }
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Parts {
            inner: self.inner.put_multipart_opts(location, options).await?,
            failing: Arc::clone(&self.failing_puts),
            aborts: Arc::clone(&self.aborts),
        }))
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let fault = self.next_fault();
        match fault {
            Some(Fault::Error) => return Err(refused()),
            Some(Fault::Gone) => {
                return Err(object_store::Error::NotFound {
                    path: location.to_string(),
                    source: "404".into(),
                });
            }
            _ => {}
        }
        let got = self.inner.get_opts(location, options).await?;
        let (meta, range, attributes) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let extensions = got.extensions.clone();
        let mut bytes = got.bytes().await?.to_vec();
        self.wait(bytes.len()).await;
        match fault {
            Some(Fault::Cut) => bytes.truncate(bytes.len() / 2),
            Some(Fault::Flip) => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            _ => {}
        }
        let body = stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    failing: Arc<AtomicU32>,
    aborts: Arc<AtomicU32>,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        let part = self.inner.put_part(data);
        let failing = Arc::clone(&self.failing);
        Box::pin(async move {
            if take(&failing) {
                return Err(refused());
            }
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.aborts.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

/// Bytes of which some runs can be compressed, some not, and some are zero.
pub fn layer_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut step = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let (kind, run) = (step() % 4, step() as usize % 200_000);
        for n in 0..run {
            bytes.push(match kind {
                0 => 0,
                1 => (n / 7) as u8,
                _ => step() as u8,
            });
        }
    }
    bytes.truncate(length);
    bytes
}

/// Reads those bytes as a layer.
pub fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> std::io::Result<()> {
    move |at, out: &mut [u8]| {
        out.copy_from_slice(&bytes[at as usize..at as usize + out.len()]);
        Ok(())
    }
}
