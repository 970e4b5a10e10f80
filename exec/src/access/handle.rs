//! Handles: what names a result to the client, so that any gateway finds it again and nobody else's is
//! of use.
//!
//! ```text
//! version 1 │ key number 4 │ worker 8 │ the worker's own handle … │ MAC 32      (in base64url)
//! ```
//!
//! The MAC (HMAC-SHA-256, with a key from the catalog) covers what stands before it and the id of the
//! token that the result belongs to, which is not in the handle: shown with another token, a handle is
//! as good as a forged one. All that is needed to serve it stands in it, so replicas need not know each
//! other, and one may die.
//!
//! Keys change every `RENEW`; one that signs no more is still believed for `KEEP`, which is longer
//! than any result is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use layerd::catalog;
use layerd::catalog::service::SigningKey;
use layerd::id::WorkerId;
use layerd::store::Store;
use parking_lot::Mutex;
use sha2::Sha256;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 8;
const MAC_BYTES: usize = 32;
/// The longest handle, as the protocol says.
const TEXT_BYTES_MAX: usize = 512;

/// How long a key signs.
const RENEW: Duration = Duration::from_secs(86_400);
/// How long one that signs no more is believed: results are kept for 10 minutes at most.
const KEEP: Duration = Duration::from_secs(3600);
/// How often keys are read anew, so that none signs for much longer than it should.
const READ_EVERY: Duration = Duration::from_secs(600);
/// How soon they are read again for a handle whose key is not known.
const RETRY: Duration = Duration::from_secs(1);

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The worker that has the result.
    pub worker: WorkerId,
    /// What the worker calls it.
    pub query: String,
}

/// It is no handle of this store, or not one of this token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such result, or it is gone")]
pub struct Forged;

/// Why a handle can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The keys can't be read.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
    /// The worker's own handle is too long.
    #[error("a worker gave a handle of {0} bytes, which is too long to be passed on")]
    TooLong(usize),
}

/// The catalog's signing keys, as this process knows them.
pub struct KeyRing {
    store: Arc<Store>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Newest first.
    keys: Vec<SigningKey>,
    /// When the catalog was last asked.
    tried: Option<Instant>,
}

impl KeyRing {
    /// The keys of the store's catalog, which are read when they are needed.
    #[must_use]
    pub fn new(store: Arc<Store>) -> KeyRing {
        KeyRing {
            store,
            known: Mutex::default(),
        }
    }

    /// Signs a handle for the owner of the token. May ask the catalog, which blocks: seldom, and for
    /// milliseconds.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, handle: &Handle, token: &str) -> Result<String, SealError> {
        let key = self.newest()?;
        seal(&key, handle, token)
    }

    /// Reads a handle that the owner of the token shows. May ask the catalog, as [`KeyRing::seal`].
    ///
    /// # Errors
    /// [`Forged`].
    pub fn open(&self, text: &str, token: &str) -> Result<Handle, Forged> {
        let (sealed, mac) = parts(text)?;
        let key = self.numbered(number_in(&sealed)?).ok_or(Forged)?;
        let expected = mac_of(&key, &sealed, token);
        // In constant time.
        expected.verify_slice(&mac).map_err(|_| Forged)?;
        let (_, rest) = sealed.split_first_chunk::<5>().ok_or(Forged)?;
        let (worker, query) = rest.split_first_chunk::<8>().ok_or(Forged)?;
        Ok(Handle {
            worker: WorkerId(u64::from_be_bytes(*worker)),
            query: String::from_utf8(query.to_vec()).map_err(|_| Forged)?,
        })
    }

    /// Goes on reading the keys, so that signing need not ask the catalog.
    pub async fn follow_catalog(self: Arc<Self>) {
        loop {
            let ring = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || ring.read()).await;
            if let Ok(Err(error)) = read {
                // The one that is known is believed for long enough.
                tracing::warn!(%error, "signing keys can't be read");
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn read(&self) -> catalog::Result<()> {
        self.known.lock().tried = Some(Instant::now());
        // Not under the lock: whoever has a key already must not wait.
        let keys = self.store.catalog().signing_keys(RENEW, KEEP)?;
        self.known.lock().keys = keys;
        Ok(())
    }

    fn newest(&self) -> catalog::Result<SigningKey> {
        let first = || self.known.lock().keys.first().cloned();
        if let Some(key) = first() {
            return Ok(key);
        }
        self.read()?;
        first().ok_or_else(|| {
            catalog::CatalogError::Conflict("the catalog gave no signing key".to_owned())
        })
    }

    fn numbered(&self, number: u32) -> Option<SigningKey> {
        let find = || {
            let known = self.known.lock();
            known.keys.iter().find(|key| key.number == number).cloned()
        };
        if let Some(key) = find() {
            return Some(key);
        }
        // Another replica may have made it; a flood of forged handles must not reach the catalog.
        let tried = self.known.lock().tried;
        if tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return None;
        }
        if let Err(error) = self.read() {
            tracing::warn!(%error, "signing keys can't be read");
        }
        find()
    }
}

fn seal(key: &SigningKey, handle: &Handle, token: &str) -> Result<String, SealError> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + handle.query.len() + MAC_BYTES);
    bytes.push(VERSION);
    bytes.extend(key.number.to_be_bytes());
    bytes.extend(handle.worker.0.to_be_bytes());
    bytes.extend(handle.query.as_bytes());
    let mac = mac_of(key, &bytes, token).finalize().into_bytes();
    bytes.extend(mac);
    let text = URL_SAFE_NO_PAD.encode(bytes);
    if text.len() > TEXT_BYTES_MAX {
        return Err(SealError::TooLong(handle.query.len()));
    }
    Ok(text)
}

/// The signed bytes and the signature.
fn parts(text: &str) -> Result<(Vec<u8>, [u8; MAC_BYTES]), Forged> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Forged);
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Forged)?;
    let mac = *bytes.last_chunk::<MAC_BYTES>().ok_or(Forged)?;
    bytes.truncate(bytes.len() - MAC_BYTES);
    match bytes.first() {
        Some(&VERSION) if bytes.len() >= HEAD_BYTES => Ok((bytes, mac)),
        _ => Err(Forged),
    }
}

fn number_in(sealed: &[u8]) -> Result<u32, Forged> {
    let number = sealed.get(1..5).ok_or(Forged)?;
    Ok(u32::from_be_bytes(number.try_into().map_err(|_| Forged)?))
}

fn mac_of(key: &SigningKey, sealed: &[u8], token: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new(&block(&key.key));
    mac.update(b"openduck handle\0");
    mac.update(&(token.len() as u64).to_be_bytes());
    mac.update(token.as_bytes());
    mac.update(sealed);
    mac
}

/// A key of 32 bytes as HMAC pads it.
fn block(key: &[u8; 32]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..key.len()].copy_from_slice(key);
    block
}

#[cfg(test)]
mod tests {
    use layerd::store::StoreConfig;
    use proptest::prelude::*;

    use super::*;

    fn ring() -> (tempfile::TempDir, KeyRing) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::of_home(home.path()));
        let ring = KeyRing::new(store.unwrap());
        (home, ring)
    }

    fn handle() -> Handle {
        Handle {
            worker: WorkerId(u64::MAX - 1),
            query: "the worker's own".to_owned(),
        }
    }

    #[test]
    fn a_handle_comes_back_from_any_replica() {
        let (_home, ring) = ring();
        let text = ring.seal(&handle(), "me").unwrap();
        assert_eq!(ring.open(&text, "me"), Ok(handle()));
        let other = KeyRing::new(Arc::clone(&ring.store));
        assert_eq!(other.open(&text, "me"), Ok(handle()));
    }

    #[test]
    fn a_handle_is_of_no_use_with_another_token() {
        let (_home, ring) = ring();
        let text = ring.seal(&handle(), "me").unwrap();
        for other in ["you", "", "m", "me "] {
            assert_eq!(ring.open(&text, other), Err(Forged), "{other:?}");
        }
    }

    #[test]
    fn a_handle_with_any_bit_changed_is_refused() {
        let (_home, ring) = ring();
        let bytes = URL_SAFE_NO_PAD
            .decode(ring.seal(&handle(), "me").unwrap())
            .unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(ring.open(&forged, "me"), Err(Forged), "bit {bit}");
        }
    }

    #[test]
    fn old_keys_are_believed_until_they_are_forgotten() {
        let (_home, ring) = ring();
        let old = ring.seal(&handle(), "me").unwrap();
        let catalog = ring.store.catalog();
        // Every key is too old to sign, none to be believed.
        let keys = catalog.signing_keys(Duration::ZERO, RENEW).unwrap();
        assert_eq!(keys.len(), 2);
        let late = KeyRing::new(Arc::clone(&ring.store));
        assert_eq!(late.open(&old, "me"), Ok(handle()));
        catalog
            .signing_keys(Duration::ZERO, Duration::ZERO)
            .unwrap();
        catalog
            .signing_keys(Duration::ZERO, Duration::ZERO)
            .unwrap();
        let later = KeyRing::new(Arc::clone(&ring.store));
        assert_eq!(later.open(&old, "me"), Err(Forged));
    }

    #[test]
    fn a_handle_that_would_be_too_long_is_not_made() {
        let (_home, ring) = ring();
        let long = Handle {
            query: "x".repeat(400),
            ..handle()
        };
        assert!(matches!(
            ring.seal(&long, "me"),
            Err(SealError::TooLong(400))
        ));
    }

    proptest! {
        #[test]
        fn garbage_is_no_handle(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let (_home, ring) = ring();
            prop_assert_eq!(ring.open(&text, "me"), Err(Forged));
            let mut bytes = bytes;
            bytes.splice(0..0, [VERSION, 0, 0, 0, 1]);
            let text = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(ring.open(&text, "me"), Err(Forged));
        }
    }
}
