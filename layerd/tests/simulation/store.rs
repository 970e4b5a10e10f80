//! The bucket: objects in memory, and a way to them that fails.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use layerd::id::Timestamp;
use layerd::machine::world::World;
use layerd::remote::objects::Objects;
use object_store::path::Path as Key;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;

use crate::faults::{Fault, Faults};

/// All objects. Clones are the same ones.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<BTreeMap<String, (Bytes, Timestamp)>>>);

impl Bucket {
    pub fn keys(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    /// The way of a process to the bucket.
    pub fn objects(&self, world: &World, faults: &Faults) -> Objects {
        let way = Way {
            world: world.clone(),
            faults: faults.clone(),
            bucket: self.clone(),
        };
        Objects::remote(Arc::new(way), "memory:bucket")
    }

    fn put(&self, key: &str, bytes: Bytes, now: Timestamp) {
        self.0.lock().insert(key.to_owned(), (bytes, now));
    }
}

#[derive(Clone)]
struct Way {
    world: World,
    faults: Faults,
    bucket: Bucket,
}

/// A listing may not have what came, and still have what went, so long ago.
const LIST_LAG: i64 = 5_000_000_000;

impl Way {
    fn call(&self, what: &str, key: &str) -> Result<Fault> {
        if self.world.is_dying() {
            return Err(refused());
        }
        let fault = self.faults.on_store(&self.world);
        self.world
            .note(format_args!("store: {what} {key}: {fault:?}"));
        if fault == Fault::Refused {
            return Err(refused());
        }
        Ok(fault)
    }

    fn remove(&self, key: &Key) -> Result<()> {
        let fault = self.call("delete", key.as_ref())?;
        if fault != Fault::Wrong {
            self.bucket.0.lock().remove(key.as_ref());
        }
        match fault {
            // What it did not do it says.
            Fault::Wrong | Fault::Unsaid => Err(refused()),
            _ => Ok(()),
        }
    }

    fn meta(key: &str, bytes: &Bytes, modified: Timestamp) -> ObjectMeta {
        let modified = Duration::from_nanos(modified.0.unsigned_abs());
        ObjectMeta {
            location: Key::from(key),
            last_modified: (std::time::SystemTime::UNIX_EPOCH + modified).into(),
            size: bytes.len() as u64,
            e_tag: None,
            version: None,
        }
    }
}

fn refused() -> object_store::Error {
    object_store::Error::Generic {
        store: "bucket",
        source: "503 slow down".into(),
    }
}

fn missing(key: &Key) -> object_store::Error {
    object_store::Error::NotFound {
        path: key.to_string(),
        source: "there is no such object".into(),
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

#[async_trait]
impl ObjectStore for Way {
    async fn put_opts(&self, key: &Key, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        let fault = self.call("put", key.as_ref())?;
        let mut bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        let mut is_stored = true;
        if fault == Fault::Wrong {
            let at = self.world.below(bytes.len() as u64) as usize;
            match self.world.below(3) {
                0 => is_stored = false,
                1 => bytes.truncate(at),
                // What is read back of it tells; a bit that is not read back is found by its frame.
                _ => bytes.truncate(bytes.len() - 1),
            }
        }
        if is_stored {
            self.bucket
                .put(key.as_ref(), bytes.into(), self.world.now());
        }
        self.world.pause();
        if fault == Fault::Unsaid {
            return Err(refused());
        }
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    async fn put_multipart_opts(
        &self,
        _: &Key,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("the simulation's segments go in one piece")
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        let fault = self.call("get", key.as_ref())?;
        if fault == Fault::Unsaid {
            return Err(refused());
        }
        let found = self.bucket.0.lock().get(key.as_ref()).cloned();
        let (all, modified) = found.ok_or_else(|| {
            self.world.note(format_args!("store: {key} is missing"));
            missing(key)
        })?;
        let meta = Way::meta(key.as_ref(), &all, modified);
        let range = match options.range {
            None => 0..meta.size,
            Some(GetRange::Bounded(range)) => range.start..range.end.min(meta.size),
            Some(_) => unreachable!("the engine asks for bounded ranges"),
        };
        if range.start >= range.end {
            return Err(refused());
        }
        let mut bytes = all[range.start as usize..range.end as usize].to_vec();
        if fault == Fault::Wrong {
            let at = self.world.below(bytes.len() as u64) as usize;
            match self.world.below(2) {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= 1 << self.world.below(8),
            }
        }
        let body = stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        let way = self.clone();
        let remove = move |key: Result<Key>| {
            let key = key?;
            way.remove(&key)?;
            Ok(key)
        };
        keys.map(remove).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = match self.call("list", prefix.map_or("", |it| it.as_ref())) {
            Ok(fault) => fault,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let now = self.world.now();
        let mut found = Vec::new();
        for (key, (bytes, modified)) in &*self.bucket.0.lock() {
            let is_new = now.0 - modified.0 < LIST_LAG;
            if prefix.is_none_or(|prefix| key.starts_with(prefix.as_ref()))
                && !(is_new && fault != Fault::None)
            {
                found.push(Ok(Way::meta(key, bytes, *modified)));
            }
        }
        if fault == Fault::Unsaid {
            found.push(Err(refused()));
        }
        stream::iter(found).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Key>) -> Result<ListResult> {
        unreachable!("the engine lists whole folders")
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        unreachable!("the engine copies no objects")
    }
}
