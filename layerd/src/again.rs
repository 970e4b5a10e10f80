//! Looking again: a state is resolved first and referred to then, and between the two compaction may
//! have put another layer in the place of the one that was found.

use crate::catalog::CatalogError;
use crate::store::{Result, StoreError};

/// Compactions of one database are minutes apart.
const TRIES: u32 = 6;

/// Does `look`, which resolves a state and refers to it, until no layer went in between.
pub fn again<T>(mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match look() {
            Err(StoreError::Catalog(CatalogError::NoSuchLayer(_))) if tries < TRIES => tries += 1,
            found => return found,
        }
    }
}
