//! The store of sealed layers, through the `object_store` crate.
//!
//! In the embedded default it is a local directory: a sealed layer is moved there by one rename,
//! and read in place, so nothing is stored twice. What needs no local file (listing, deleting)
//! goes through the crate, and is the same for any store.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

/// The folder of layers within the store.
pub const LAYERS: &str = "layers";

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name within [`LAYERS`].
    pub name: String,
    /// When it was last written.
    pub modified: SystemTime,
}

/// Blocking access to the store.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Objects {
    /// The directory `root`, which must be there.
    pub fn local(root: &Path) -> Result<Objects, object_store::Error> {
        let store = Arc::new(LocalFileSystem::new_with_prefix(root)?);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| object_store::Error::Generic {
            store: "local",
            source: source.into(),
        })?;
        Ok(Objects { store, runtime })
    }

    /// Everything in the folder of layers.
    pub fn list(&self) -> Result<Vec<Object>, object_store::Error> {
        let listed = self
            .runtime
            .block_on(self.store.list_with_delimiter(Some(&Key::from(LAYERS))))?;
        let object = |meta: object_store::ObjectMeta| {
            let name = meta.location.filename()?.to_owned();
            Some(Object {
                name,
                modified: meta.last_modified.into(),
            })
        };
        Ok(listed.objects.into_iter().filter_map(object).collect())
    }

    /// Deletes an object; one that is gone already is no error.
    pub fn delete(&self, name: &str) -> Result<(), object_store::Error> {
        match self
            .runtime
            .block_on(self.store.delete(&Key::from_iter([LAYERS, name])))
        {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_listed_and_deleted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(LAYERS)).unwrap();
        let objects = Objects::local(root.path()).unwrap();
        for name in ["a.delta", "b c.image"] {
            std::fs::write(root.path().join(LAYERS).join(name), name).unwrap();
        }
        let mut names: Vec<String> = objects
            .list()
            .unwrap()
            .into_iter()
            .map(|object| object.name)
            .collect();
        names.sort();
        assert_eq!(names, ["a.delta", "b c.image"]);
        objects.delete("a.delta").unwrap();
        objects.delete("a.delta").unwrap();
        assert_eq!(objects.list().unwrap().len(), 1);
    }
}
