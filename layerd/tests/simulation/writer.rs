//! A process that writes one database for a while.

use std::sync::Arc;
use std::time::Duration;

use layerd::FsError;
use layerd::frozen::FileKind;
use layerd::id::{DatabaseId, DatabaseName, Epoch, FileId, Lsn};
use layerd::store::Store;
use layerd::writer::{Durability, NewFile, SetAttr, Writer, WriterOptions};

use crate::model::{Content, hash};
use crate::setting::{Setting, content_of};

const NAMES: [&str; 3] = ["main", "main.wal", "other"];
const SIZE_MAX: usize = 60_000;

/// One writer, and what it knows of its image.
struct Session {
    setting: Setting,
    host: usize,
    database: DatabaseName,
    id: DatabaseId,
    epoch: Epoch,
    writer: Arc<Writer>,
    durability: Durability,
    content: Content,
    acknowledged: Lsn,
}

pub fn run(setting: &Setting, host: usize) {
    let world = setting.world();
    let databases = setting.databases();
    // Most of the time, all want the same.
    let pick = if world.one_in(4) {
        world.below(databases.len() as u64)
    } else {
        0
    };
    let Some(database) = databases.get(pick as usize).cloned() else {
        return;
    };
    let durability = match world.below(2) {
        0 => Durability::Local,
        _ => Durability::Remote,
    };
    let options = WriterOptions {
        steal: world.one_in(3),
        durability,
        lag: Duration::from_millis([0, 1000, 5000][world.below(3) as usize]),
    };
    let home = setting.home_of(host);
    let store = setting.open(host).unwrap();
    setting.note(format_args!("write {database} with {options:?}"));
    let writer = match store.open_writer(&database, options) {
        Ok(writer) => Arc::new(writer),
        Err(error) => return setting.excuse("open_writer", &error),
    };
    let committed = writer.committed();
    let content = match content_of(&committed, &database) {
        Ok(content) => content,
        Err(error) => return setting.excuse_fs("read what is there", &error),
    };
    let (id, lsn, epoch) = (writer.database(), committed.lsn(), writer.epoch());
    let layer = committed.commit().point.map(|point| point.layer);
    setting.note(format_args!("{database} is open under {epoch} at {lsn}"));
    setting.model().read(id, lsn, layer, hash(&content));
    let content_hash = hash(&content);
    setting.model().began(id, epoch, home, lsn, content_hash);
    let mut session = Session {
        setting: setting.clone(),
        host,
        database,
        id,
        epoch,
        writer,
        durability,
        content,
        acknowledged: lsn,
    };
    session.work(&store);
}

impl Session {
    fn work(&mut self, store: &Arc<Store>) {
        let setting = self.setting.clone();
        let world = setting.world();
        let steps = 3 + world.below(40);
        for _ in 0..steps {
            if self.writer.should_end() {
                break;
            }
            let done = match world.below(20) {
                0..9 => self.change(),
                9..15 => self.sync(),
                15 => self.rotate(),
                16 => self.snapshot(store),
                17 => self.compare(),
                18 => {
                    setting.rest(20);
                    Ok(())
                }
                _ => {
                    setting.rest(3);
                    Ok(())
                }
            };
            if let Err(error) = done {
                setting.excuse_fs("write", &error);
                if !matches!(error, FsError::NotStored(_)) {
                    break;
                }
            }
        }
        if world.below(3) > 0 {
            self.close();
        }
    }

    fn file(&self, name: &str) -> Result<FileId, FsError> {
        let shown = name.replace("main", &format!("{}.duckdb", self.database));
        Ok(self.writer.lookup(FileId::ROOT, shown.as_bytes())?.file)
    }

    /// Notes a state before it is made: a kill may leave it.
    fn changes(&self) {
        let hash = hash(&self.content);
        self.setting.model().changes(self.id, self.epoch, hash);
    }

    fn change(&mut self) -> Result<(), FsError> {
        let world = self.setting.world().clone();
        let name = NAMES[world.below(3) as usize];
        let shown = name.replace("main", &format!("{}.duckdb", self.database));
        if !self.content.contains_key(name) {
            self.content.insert(name.to_owned(), Vec::new());
            self.changes();
            let new = NewFile {
                kind: FileKind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
            };
            self.writer.create(FileId::ROOT, shown.as_bytes(), new)?;
            return Ok(());
        }
        let file = self.file(name)?;
        let bytes = self.content.get_mut(name).unwrap();
        match world.below(12) {
            0 if !bytes.is_empty() => {
                bytes.truncate(world.below(bytes.len() as u64) as usize);
                let size = Some(bytes.len() as u64);
                self.changes();
                let cut = SetAttr {
                    size,
                    ..SetAttr::default()
                };
                self.writer.set_attr(file, cut)?;
            }
            1 => {
                self.content.remove(name);
                self.changes();
                self.writer.unlink(FileId::ROOT, shown.as_bytes())?;
            }
            _ => {
                let at = world.below(SIZE_MAX as u64) as usize;
                let at = if world.one_in(2) {
                    at / 4096 * 4096
                } else {
                    at
                };
                let length = if world.one_in(3) { 9000 } else { 200 };
                let length = 1 + world.below(length) as usize;
                let seed = world.below(u64::MAX);
                let new: Vec<u8> = (0..length)
                    .map(|n| (seed >> (n % 8 * 8)) as u8 ^ (n / 64) as u8)
                    .collect();
                if bytes.len() < at + length {
                    bytes.resize(at + length, 0);
                }
                bytes[at..at + length].copy_from_slice(&new);
                self.changes();
                self.writer.write(file, at as u64, &new)?;
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FsError> {
        let lsn = self.writer.sync()?;
        self.was_acknowledged(lsn, self.durability);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), FsError> {
        if self.writer.rotate()? {
            let lsn = self.writer.committed().lsn();
            self.was_acknowledged(lsn, self.durability);
        }
        Ok(())
    }

    fn was_acknowledged(&mut self, lsn: Lsn, durability: Durability) {
        self.setting
            .note(format_args!("acknowledged {lsn} of {}", self.epoch));
        let machine = &self.setting.0.hosts[self.host];
        let was_frozen = machine.state.lock().was_frozen;
        assert!(
            lsn >= self.acknowledged,
            "{lsn} after {}",
            self.acknowledged
        );
        self.acknowledged = lsn;
        let model = self.setting.model();
        model.acknowledged(self.id, self.epoch, lsn, durability, was_frozen);
    }

    fn snapshot(&mut self, store: &Arc<Store>) -> Result<(), FsError> {
        match store.snapshot(&self.database, None) {
            Ok(snapshot) => assert!(
                snapshot.lsn >= self.acknowledged
                    || self.setting.model().epoch(self.id) > self.epoch,
                "the snapshot is of {}, and {} was acknowledged",
                snapshot.lsn,
                self.acknowledged
            ),
            Err(error) => self.setting.excuse("snapshot", &error),
        }
        Ok(())
    }

    /// The live image reads as it was written.
    fn compare(&self) -> Result<(), FsError> {
        for (name, bytes) in &self.content {
            let file = self.file(name)?;
            let mut found = vec![0xaa; SIZE_MAX * 2];
            let got = self.writer.read(file, 0, &mut found)?;
            assert!(found[..got] == bytes[..], "the live file {name} differs");
        }
        Ok(())
    }

    fn close(&mut self) {
        match self.writer.close() {
            Ok(()) => {
                let lsn = self.writer.committed().lsn();
                self.setting.note(format_args!("closed at {lsn}"));
                // All of it is in the store now, whatever was asked.
                self.was_acknowledged(lsn, Durability::Remote);
            }
            Err(error) => self.setting.excuse("close", &error),
        }
    }
}
