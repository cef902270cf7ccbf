//! The notes, in SQLite.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OptionalExtension, params};

/// The number of notes that a new database contains. They are numbered from 1.
pub const NOTES: i64 = 10_000;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Connections that only read.
    readers: r2d2::Pool<SqliteConnectionManager>,
    /// The connection that writes. SQLite admits one writer at a time, so a second one would only
    /// wait for the first.
    writer: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the database in the file `path`, and fills it if it is new. `readers` connections will
    /// read from it.
    ///
    /// # Errors
    /// SQLite cannot use the file.
    pub fn open(path: &Path, readers: u32) -> anyhow::Result<Self> {
        let prepare = |connection: &mut Connection| {
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                 PRAGMA busy_timeout = 5000;",
            )
        };
        let mut writer = Connection::open(path)
            .with_context(|| format!("the database {} cannot be opened", path.display()))?;
        prepare(&mut writer)?;
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        )?;
        let transaction = writer.transaction()?;
        let have: i64 =
            transaction.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?;
        for id in have..NOTES {
            transaction.execute(
                "INSERT INTO notes (text) VALUES (?1)",
                params![format!("note {id}: {}", "lorem ipsum ".repeat(8))],
            )?;
        }
        transaction.commit()?;
        let readers = r2d2::Pool::builder()
            .max_size(readers)
            .build(SqliteConnectionManager::file(path).with_init(prepare))?;
        Ok(Self {
            readers,
            writer: Arc::new(Mutex::new(writer)),
        })
    }

    /// Returns the text of the note with this number, if there is one. Blocks.
    ///
    /// # Errors
    /// The database's.
    pub fn read(&self, id: i64) -> anyhow::Result<Option<String>> {
        let connection = self.readers.get()?;
        let mut statement = connection.prepare_cached("SELECT text FROM notes WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| row.get(0)).optional()?)
    }

    /// Adds a note, and returns its number. Blocks.
    ///
    /// # Errors
    /// The database's.
    pub fn add(&self, text: &str) -> anyhow::Result<i64> {
        let connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .prepare_cached("INSERT INTO notes (text) VALUES (?1)")?
            .execute([text])?;
        Ok(connection.last_insert_rowid())
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `GET /notes/ID`
    Read(i64),
    /// `GET /slow/ID`
    Slow(i64),
    /// `GET /burn/MS`
    Burn(u64),
    /// `POST /notes`
    Add(&'a str),
}

impl Request<'_> {
    /// The longest computation in milliseconds that a request may ask for.
    const LONGEST: u64 = 1000;

    /// A request to compute for that number of milliseconds, 1000 at most.
    #[must_use]
    pub fn burn(milliseconds: u64) -> Self {
        Self::Burn(milliseconds.min(Self::LONGEST))
    }
}

/// An answer: its status and its body.
pub type Answer = (u16, String);

impl Store {
    /// Does what a request asks for, and returns the answer. Blocks.
    #[must_use]
    pub fn answer(&self, request: Request<'_>) -> Answer {
        let outcome = match request {
            Request::Read(id) => self.read(id),
            Request::Slow(id) => {
                let note = self.read(id);
                std::thread::sleep(std::time::Duration::from_millis(1));
                note
            }
            Request::Burn(milliseconds) => {
                burn(milliseconds);
                Ok(Some("done".into()))
            }
            Request::Add(text) => self.add(text).map(|id| Some(id.to_string())),
        };
        match outcome {
            Ok(Some(text)) => (200, text),
            Ok(None) => (404, "there is no such note".into()),
            Err(error) => (500, format!("{error:#}")),
        }
    }
}

/// Computes until the calling thread has used that number of milliseconds of CPU time.
fn burn(milliseconds: u64) {
    let used = || {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: clock_gettime writes to a live timespec. The calling thread's CPU clock exists.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let end = used() + milliseconds * 1_000_000;
    while used() < end {
        for _ in 0..1000 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.sqlite");
        let store = Store::open(&path, 1).unwrap();
        assert!(store.read(NOTES).unwrap().unwrap().starts_with("note "));
        assert_eq!(store.read(NOTES + 1).unwrap(), None);
        let id = store.add("a new note").unwrap();
        assert_eq!(id, NOTES + 1);
        drop(store);
        let store = Store::open(&path, 1).unwrap();
        assert_eq!(store.read(id).unwrap().as_deref(), Some("a new note"));
        assert_eq!(store.add("another").unwrap(), id + 1);
    }

    #[test]
    fn each_request_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("notes.sqlite"), 1).unwrap();
        assert_eq!(
            store.answer(Request::Add("text")),
            (200, (NOTES + 1).to_string())
        );
        assert_eq!(store.answer(Request::Read(NOTES + 1)), (200, "text".into()));
        assert_eq!(store.answer(Request::Slow(NOTES + 1)), (200, "text".into()));
        assert_eq!(store.answer(Request::Read(NOTES + 2)).0, 404);
        assert_eq!(store.answer(Request::burn(1)), (200, "done".into()));
        assert_eq!(Request::burn(1_000_000), Request::Burn(Request::LONGEST));
    }
}
