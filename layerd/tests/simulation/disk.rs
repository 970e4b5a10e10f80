//! A host's disk: it stops with the process that uses it, and gives the turn away where it is written.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use layerd::disk::{Disk, DiskFile};
use layerd::machine::world::World;

use crate::crash_disk::CrashDisk;

/// The disk of one host, as one of its processes sees it.
pub struct HostDisk {
    world: World,
    disk: CrashDisk,
}

impl HostDisk {
    pub fn new(world: &World, disk: &CrashDisk) -> Arc<HostDisk> {
        Arc::new(HostDisk {
            world: world.clone(),
            disk: disk.clone(),
        })
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HostFile {
            world: self.world.clone(),
            inner,
        })
    }
}

/// A dead process changes nothing any more; of living ones any may come first.
fn change(world: &World) -> io::Result<()> {
    if world.is_dying() {
        return Err(io::Error::other("the process is dead"));
    }
    if world.one_in(3) {
        world.pause();
    }
    Ok(())
}

/// Files are as old as the simulated clock says.
fn stamp(world: &World, file: Option<&Arc<File>>) -> io::Result<()> {
    let now = Duration::from_nanos(world.now().0.unsigned_abs());
    file.map_or(Ok(()), |file| {
        file.set_modified(SystemTime::UNIX_EPOCH + now)
    })
}

impl Disk for HostDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        change(&self.world)?;
        let file = self.disk.create(path)?;
        stamp(&self.world, file.file())?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path, write)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.world)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        change(&self.world)?;
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        change(&self.world)?;
        self.disk.sync_directory(path)
    }
}

struct HostFile {
    world: World,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for HostFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, offset)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        change(&self.world)?;
        self.inner.write_at(parts, offset)?;
        stamp(&self.world, self.inner.file())
    }

    fn sync(&self) -> io::Result<()> {
        change(&self.world)?;
        self.inner.sync()
    }

    fn allocate(&self, begin: u64, end: u64) -> io::Result<()> {
        self.inner.allocate(begin, end)?;
        stamp(&self.world, self.inner.file())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        change(&self.world)?;
        self.inner.set_length(length)?;
        stamp(&self.world, self.inner.file())
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn file(&self) -> Option<&Arc<File>> {
        self.inner.file()
    }
}
