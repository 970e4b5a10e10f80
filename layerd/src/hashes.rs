//! Which image layers were found whole since the machine was booted.
//!
//! A file that is passed through to the kernel is read without anybody comparing checksums. So
//! before that its blake3 hash is computed once per boot, in the background; until then reads go
//! through the engine, which verifies each. The result is noted in the home, with the boot's id
//! and the file's inode, size and times: another boot, or a changed file, is checked again. Rot
//! that comes later is left to DuckDB's own block checksums and to `verify`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::Files;
use crate::id::LayerId;
use crate::load::read_image_header;

/// Remembers, and checks what it does not remember.
pub struct ImageHashes {
    files: Files,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    verified: HashSet<LayerId>,
    /// Being checked now, or found wrong.
    busy: HashSet<LayerId>,
}

impl ImageHashes {
    /// For the images of one home.
    #[must_use]
    pub fn new(files: Files) -> ImageHashes {
        ImageHashes {
            files,
            state: Mutex::default(),
        }
    }

    /// Whether the image was found whole since boot. If that is not known yet, a check begins in
    /// the background and a later call may tell.
    #[must_use]
    pub fn is_verified(self: &Arc<Self>, layer: LayerId, file: &Arc<File>) -> bool {
        let mut state = self.state.lock();
        if state.verified.contains(&layer) {
            return true;
        }
        if !state.busy.insert(layer) {
            return false;
        }
        drop(state);
        let note = note(file);
        if let Ok(note) = &note
            && std::fs::read_to_string(self.files.hash_note(layer))
                .is_ok_and(|found| found == *note)
        {
            self.done(layer, true);
            return true;
        }
        let (this, file) = (Arc::clone(self), Arc::clone(file));
        let check = move || match this.check(layer, &file) {
            Ok(()) => this.done(layer, true),
            Err(error) => {
                tracing::error!(%layer, %error, "the image layer can't be passed through")
            }
        };
        if let Err(error) = std::thread::Builder::new()
            .name("image-hash".to_owned())
            .spawn(check)
        {
            tracing::warn!(%error, "no thread to check an image layer");
            self.done(layer, false);
        }
        false
    }

    /// Notes that the file was just written with that hash by this process.
    pub fn written(&self, layer: LayerId) {
        if let Ok(file) = File::open(self.files.image(layer)) {
            self.note(layer, &file);
        }
    }

    fn done(&self, layer: LayerId, verified: bool) {
        let mut state = self.state.lock();
        state.busy.remove(&layer);
        if verified {
            state.verified.insert(layer);
        }
    }

    fn check(&self, layer: LayerId, file: &File) -> io::Result<()> {
        let sums = self.files.disk().open(&self.files.sums(layer), false)?;
        let (header, _) = read_image_header(layer, &*sums).map_err(io::Error::other)?;
        // A handle of its own: `read` moves the offset.
        let mut own = File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(file)
        ))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let got = own.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
            // Whoever reads or writes meanwhile goes first.
            std::thread::yield_now();
        }
        if *hasher.finalize().as_bytes() != header.hash {
            return Err(io::Error::other("its content does not match its hash"));
        }
        self.note(layer, file);
        Ok(())
    }

    fn note(&self, layer: LayerId, file: &File) {
        // Without the note the next process checks again.
        if let Ok(note) = note(file)
            && let Err(error) = std::fs::write(self.files.hash_note(layer), note)
        {
            tracing::debug!(%layer, %error, "no note of a verified image");
        }
    }
}

/// What identifies a file's content within one boot.
fn note(file: &File) -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let meta = file.metadata()?;
    Ok(format!(
        "{} {} {} {} {}.{} {}.{}\n",
        boot.trim(),
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    ))
}
