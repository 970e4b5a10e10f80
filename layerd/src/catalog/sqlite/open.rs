//! Opening the file: made if it is missing, read only where nothing can be written.
//!
//! SQLite reads a WAL file through a `-shm` beside it. Where that is missing and can't be made, a
//! file that nobody has open can still be read as *immutable*: SQLite then takes no locks and
//! looks at no WAL. So this is done only while there is no WAL that holds anything, and
//! [`Access::Frozen`] remembers how the file looked, so that what was read from a file that
//! changed after all is thrown away.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};

use super::fault::is_denial;
use super::schema::{self, Version};
use crate::catalog::sql::fault::{Fault, Outcome};

/// How long a call waits for other processes' transactions, which take milliseconds each.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// All of the catalog's statements, and some room.
const STATEMENT_CACHE_COUNT: usize = 128;

/// What may be done with the file.
#[derive(Debug)]
pub(super) enum Access {
    /// Everything.
    ReadWrite,
    /// Reading, beside processes that write.
    ReadOnly,
    /// Reading, for as long as the file stays as it was.
    Frozen(Stamp),
}

/// A file that changes looks different.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// How the file looks now; `None` if a WAL is there that belongs to it.
    fn of(path: &Path) -> io::Result<Option<Stamp>> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        match fs::metadata(wal) {
            Ok(wal) if wal.len() > 0 => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = fs::metadata(path)?;
        Ok(Some(Stamp {
            path: path.to_owned(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        }))
    }

    /// Whether what was read since the stamp was taken is one state of the file.
    pub(super) fn still_holds(&self) -> bool {
        Stamp::of(&self.path).is_ok_and(|now| now.as_ref() == Some(self))
    }
}

/// Opens the file, brings its schema up to date, and says what may be done with it.
pub(super) fn open(path: &Path) -> Outcome<(Connection, Access)> {
    match read_write(path) {
        Ok(connection) => Ok((connection, Access::ReadWrite)),
        // The first refusal is told where reading is refused too: it says what is the matter.
        Err(fault) if is_denial(&fault) => match read_only(path) {
            Err(other) if is_denial(&other) => Err(fault),
            opened => opened,
        },
        Err(fault) => Err(fault),
    }
}

/// A catalog that lives as long as its connection.
pub(super) fn in_memory() -> Outcome<Connection> {
    let mut connection = Connection::open_in_memory()?;
    configure(&connection)?;
    schema::migrate(&mut connection)?;
    Ok(connection)
}

fn read_write(path: &Path) -> Outcome<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // SQLite itself falls back to reading where the file's permissions say so.
    if connection.is_readonly(MAIN_DB)? {
        return Err(Fault::ReadOnly);
    }
    configure(&connection)?;
    if version(&mut connection)? == Version::Older {
        use_wal(&connection)?;
        schema::migrate(&mut connection)?;
    }
    Ok(connection)
}

fn read_only(path: &Path) -> Outcome<(Connection, Access)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    match check(&mut connection) {
        Ok(()) => return Ok((connection, Access::ReadOnly)),
        Err(fault) if is_denial(&fault) => {}
        Err(fault) => return Err(fault),
    }
    let Ok(Some(stamp)) = Stamp::of(path) else {
        return Err(Fault::ReadOnly);
    };
    let flags = flags | OpenFlags::SQLITE_OPEN_URI;
    let mut connection = Connection::open_with_flags(immutable_uri(path)?, flags)?;
    check(&mut connection)?;
    Ok((connection, Access::Frozen(stamp)))
}

fn check(connection: &mut Connection) -> Outcome<()> {
    configure(connection)?;
    match version(connection)? {
        Version::Current => Ok(()),
        Version::Older => Err(Fault::Damaged(
            "it has an older version's form, and can't be brought up to date where it is read-only"
                .to_owned(),
        )),
    }
}

/// The schema's version, read in one transaction: another process may be making the file.
fn version(connection: &mut Connection) -> Outcome<Version> {
    let transaction = connection.transaction()?;
    schema::version(&transaction)
}

fn configure(connection: &Connection) -> Outcome<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_COUNT);
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Turns the file's journal into a WAL. SQLite does not wait by itself for another process that
/// is about to do the same, because two that wait for each other would wait for ever.
fn use_wal(connection: &Connection) -> Outcome<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {
                let reason = "its file system has no shared memory for SQLite's WAL".to_owned();
                return Err(Fault::Unusable(reason));
            }
            Err(error) => {
                let busy = matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                );
                if !busy || Instant::now() >= deadline {
                    return Err(error.into());
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The path as a URI, which alone can say `immutable`.
fn immutable_uri(path: &Path) -> Outcome<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Fault::Unusable(format!("its path can't be made absolute: {error}")))?;
    let mut uri = "file://".to_owned();
    for &byte in absolute.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}
