//! The tables: one row a record, JSON text under its id; format steps; reading all of it at start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Change, State};
use crate::text::reader;

use super::OpenError;
use super::counter::sum;
use super::history::{self, Entry};

/// Each step brings the file to the `user_version` of its place in the list, counted from 1. Steps are
/// only ever added.
const STEPS: &[&str] = &[
    "
    CREATE TABLE collections (id TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE sets        (id TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE positions   (id TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE jobs        (id TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE leftovers   (id TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE collections ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE sets        ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE positions   ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE leftovers   ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs        ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    CREATE TABLE commits (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, rows TEXT NOT NULL, sum TEXT NOT NULL) STRICT;
",
    history::TABLE,
    "
    CREATE TABLE marks (name TEXT PRIMARY KEY NOT NULL) STRICT;
",
];

/// Marks that every set has had its record beside its files.
const RECORDED: &str = "set records";

/// The step that brought checksums.
const CHECKED: usize = 3;

/// A row to write.
pub(super) enum Row {
    /// The new text of a record, or none to remove it.
    Record {
        table: Table,
        id: String,
        record: Option<String>,
    },
    /// One more entry of the history.
    Ended(Entry),
}

#[derive(Clone, Copy)]
pub(super) enum Table {
    Collections,
    Sets,
    Positions,
    Leftovers,
    Jobs,
}

impl Table {
    const fn put(self) -> &'static str {
        match self {
            Self::Collections => "INSERT OR REPLACE INTO collections VALUES (?1, ?2, ?3)",
            Self::Sets => "INSERT OR REPLACE INTO sets VALUES (?1, ?2, ?3)",
            Self::Positions => "INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3)",
            Self::Leftovers => "INSERT OR REPLACE INTO leftovers VALUES (?1, ?2, ?3)",
            Self::Jobs => "INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3)",
        }
    }

    const fn remove(self) -> &'static str {
        match self {
            Self::Collections => "DELETE FROM collections WHERE id = ?1",
            Self::Sets => "DELETE FROM sets WHERE id = ?1",
            Self::Positions => "DELETE FROM positions WHERE id = ?1",
            Self::Leftovers => "DELETE FROM leftovers WHERE id = ?1",
            Self::Jobs => "DELETE FROM jobs WHERE id = ?1",
        }
    }

    const ALL: [Self; 5] = [
        Self::Collections,
        Self::Sets,
        Self::Positions,
        Self::Leftovers,
        Self::Jobs,
    ];

    /// The checksum of a row: another table or another id would be another one.
    fn sum(self, id: &str, record: &str) -> String {
        let name = self.remove();
        sum(&[name.as_bytes(), id.as_bytes(), record.as_bytes()])
    }

    const fn all(self) -> &'static str {
        match self {
            Self::Collections => "SELECT id, record, sum FROM collections",
            Self::Sets => "SELECT id, record, sum FROM sets",
            Self::Positions => "SELECT id, record, sum FROM positions",
            Self::Leftovers => "SELECT id, record, sum FROM leftovers",
            Self::Jobs => "SELECT id, record, sum FROM jobs",
        }
    }
}

impl Row {
    /// The row of a change; the reason if its record has no JSON text.
    pub(super) fn of(change: &Change) -> Result<Self, String> {
        match change {
            Change::PutCollection(c) => Self::put(Table::Collections, &c.id, c),
            Change::RemoveCollection(id) => Ok(Self::remove(Table::Collections, id)),
            Change::PutSet(set) => Self::put(Table::Sets, &set.id, set),
            Change::RemoveSet(id) => Ok(Self::remove(Table::Sets, id)),
            Change::PutPosition(machine, position) => {
                Self::put(Table::Positions, machine, position)
            }
            Change::RemovePosition(machine) => Ok(Self::remove(Table::Positions, machine)),
            Change::PutLeftover(it) => Self::put(Table::Leftovers, &it.file.display(), it),
            Change::RemoveLeftover(file) => Ok(Self::remove(Table::Leftovers, &file.display())),
            Change::PutJob(job) => Self::put(Table::Jobs, &job.id, job),
            Change::RemoveJob(id) => Ok(Self::remove(Table::Jobs, id)),
            Change::Ended(ended) => Entry::of(ended).map(Self::Ended),
        }
    }

    fn put(table: Table, id: &impl ToString, record: &impl Serialize) -> Result<Self, String> {
        let id = id.to_string();
        match serde_json::to_string(record) {
            Ok(text) => Ok(Self::Record {
                table,
                id,
                record: Some(text),
            }),
            Err(reason) => Err(format!("the record of {id} cannot be kept: {reason}")),
        }
    }

    fn remove(table: Table, id: &impl ToString) -> Self {
        Self::Record {
            table,
            id: id.to_string(),
            record: None,
        }
    }

    /// Is it of a job, or of how one ended? All else is what sets and collections are made of.
    pub(super) fn is_job(&self) -> bool {
        matches!(
            self,
            Self::Ended(_)
                | Self::Record {
                    table: Table::Jobs,
                    ..
                }
        )
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let (table, id, record) = match self {
            Self::Ended(entry) => return entry.write(connection),
            Self::Record { table, id, record } => (table, id, record),
        };
        match record {
            Some(text) => connection.prepare_cached(table.put())?.execute(params![
                id,
                text,
                table.sum(id, text)
            ])?,
            None => connection
                .prepare_cached(table.remove())?
                .execute(params![id])?,
        };
        Ok(())
    }

    /// The entry of the history, if it is one.
    pub(super) fn ended(&self) -> Option<&Entry> {
        match self {
            Self::Ended(entry) => Some(entry),
            Self::Record { .. } => None,
        }
    }
}

/// Opens the file, made if missing, with our durability.
pub(super) fn connect(file: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let connection = Connection::open(file)?;
        // A database that is refused is left as it is, and its log with it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Somebody looking into the file with another program must not break a commit.
        connection.busy_timeout(Duration::from_secs(10))?;
        // Before the log is opened: its index then stays in memory. As a mapped file it would end the
        // process (SIGBUS) where a quota leaves no room for a page that changes.
        connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(failed(file))
}

/// From here on the log goes into the file when the database is closed.
pub(super) fn close_with_checkpoint(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    set.map(drop).map_err(failed(file))
}

/// How many transactions the database holds; 0 if it is of a version that did not count.
pub(super) fn number(connection: &Connection, file: &Path) -> Result<u64, OpenError> {
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed(file))?;
    match usize::try_from(version) {
        Ok(version) if version >= CHECKED => Ok(told(connection, file)?.map_or(0, |(n, _)| n)),
        _ => Ok(0),
    }
}

/// The number of transactions and of the rows of each table, as the last transaction has written them.
fn told(connection: &Connection, file: &Path) -> Result<Option<(u64, String)>, OpenError> {
    let found: Option<(i64, String, String)> = connection
        .query_row(
            "SELECT number, rows, sum FROM commits WHERE id = 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(failed(file))?;
    let Some((number, rows, told)) = found else {
        return Ok(None);
    };
    let number = u64::try_from(number).unwrap_or_default();
    if told != total(number, &rows) {
        return Err(damaged(file, "the count of its records".to_owned()));
    }
    Ok(Some((number, rows)))
}

fn total(number: u64, rows: &str) -> String {
    sum(&[&number.to_le_bytes(), rows.as_bytes()])
}

/// How many records each table has in this state.
fn counts(state: &State) -> String {
    let tables = [
        state.collections.len(),
        state.sets.len(),
        state.positions.len(),
        state.leftovers.len(),
        state.jobs.len(),
    ];
    tables.map(|n| n.to_string()).join(" ")
}

/// Notes in the transaction that it is the `number`-th and leaves this state.
pub(super) fn count(connection: &Connection, number: u64, state: &State) -> rusqlite::Result<()> {
    let rows = counts(state);
    let sum = total(number, &rows);
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    connection
        .prepare_cached("INSERT OR REPLACE INTO commits VALUES (1, ?1, ?2, ?3)")?
        .execute(params![number, rows, sum])?;
    Ok(())
}

/// Gives each record of an older version its checksum.
fn vouch(connection: &Connection) -> rusqlite::Result<()> {
    for table in Table::ALL {
        let mut all = connection.prepare(table.all())?;
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
        for (id, record) in rows {
            let sum = table.sum(&id, &record);
            connection.execute(table.put(), params![id, record, sum])?;
        }
    }
    Ok(())
}

/// Whether every set has had its record beside its files.
pub(super) fn is_recorded(connection: &Connection, file: &Path) -> Result<bool, OpenError> {
    let found = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM marks WHERE name = ?1)",
        [RECORDED],
        |row| row.get(0),
    );
    found.map_err(failed(file))
}

/// Notes that every set has its record from now on.
pub(super) fn mark_recorded(connection: &Connection) -> rusqlite::Result<()> {
    let put = "INSERT OR IGNORE INTO marks VALUES (?1)";
    connection.execute(put, [RECORDED]).map(drop)
}

/// Looks for damage.
pub(super) fn check(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let finding: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed(file))?;
    if finding == "ok" {
        return Ok(());
    }
    Err(damaged(file, finding))
}

/// Uses a file as one of today's format; an older one is brought to that, step by step, all or none, for good if it is
/// to `keep` that.
pub(super) fn migrated<T>(
    connection: &mut Connection,
    file: &Path,
    keep: bool,
    use_it: impl FnOnce(&Connection) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed(file))?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(steps) = STEPS.get(done..) else {
        return Err(OpenError::Newer {
            file: file.to_path_buf(),
            found,
            known,
        });
    };
    if steps.is_empty() {
        return use_it(connection);
    }
    let failed = failed(file);
    let transaction = connection.transaction().map_err(&failed)?;
    let go = || {
        for step in steps {
            transaction.execute_batch(step)?;
        }
        if done < CHECKED {
            vouch(&transaction)?;
        }
        transaction.pragma_update(None, "user_version", known)
    };
    go().map_err(&failed)?;
    match keep {
        true => {
            transaction.commit().map_err(&failed)?;
            use_it(connection)
        }
        false => use_it(&transaction),
    }
}

/// Reads everything; with the number of transactions that it holds.
pub(super) fn load(connection: &Connection, file: &Path) -> Result<(State, u64), OpenError> {
    let collections = records(connection, file, Table::Collections)?;
    let sets = records(connection, file, Table::Sets)?;
    let positions: Vec<(String, _)> = records(connection, file, Table::Positions)?;
    let leftovers = records(connection, file, Table::Leftovers)?;
    let jobs = records(connection, file, Table::Jobs)?;
    let mut by_machine = BTreeMap::new();
    for (id, position) in positions {
        let machine = id
            .parse()
            .map_err(|reason| damaged(file, format!("positions: {reason}")))?;
        by_machine.insert(machine, position);
    }
    let mut state = State {
        positions: Arc::new(by_machine),
        ..State::default()
    };
    let changes = (collections
        .into_iter()
        .map(|(_, c)| Change::PutCollection(c)))
    .chain(sets.into_iter().map(|(_, s)| Change::PutSet(s)))
    .chain(leftovers.into_iter().map(|(_, l)| Change::PutLeftover(l)))
    .chain(jobs.into_iter().map(|(_, j)| Change::PutJob(j)));
    for change in changes {
        state.apply(&change);
    }
    match told(connection, file)? {
        Some((_, rows)) if rows != counts(&state) => {
            let finding = format!("it holds {} records and had {rows}", counts(&state));
            Err(damaged(file, finding))
        }
        told => Ok((state, told.map_or(0, |(number, _)| number))),
    }
}

fn records<T: DeserializeOwned>(
    connection: &Connection,
    file: &Path,
    table: Table,
) -> Result<Vec<(String, T)>, OpenError> {
    let mut statement = connection.prepare(table.all()).map_err(failed(file))?;
    let mut rows = statement.query([]).map_err(failed(file))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(failed(file))? {
        let id: String = row.get(0).map_err(failed(file))?;
        let text: String = row.get(1).map_err(failed(file))?;
        let told: String = row.get(2).map_err(failed(file))?;
        if told != table.sum(&id, &text) {
            return Err(damaged(file, format!("record {id}: its checksum is wrong")));
        }
        let record = serde_json::from_str(&text).map_err(|e| {
            damaged(
                file,
                format!("record {id}: {}", reader::told_of_json(&e).english()),
            )
        })?;
        out.push((id, record));
    }
    Ok(out)
}

/// What SQLite says of the file itself is damage, as what our own checks find; the rest is trouble around it.
fn failed(file: &Path) -> impl Fn(rusqlite::Error) -> OpenError {
    move |source| match is_damage(&source) {
        true => damaged(file, source.to_string()),
        false => OpenError::Sqlite {
            file: file.to_path_buf(),
            source,
        },
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
        NoLargeFileSupport, OperationInterrupted, OutOfMemory, PermissionDenied, ReadOnly,
        SystemIoFailure,
    };
    // A record that is no text, or a table that is not there, is none that was written.
    error.sqlite_error_code().is_none_or(|code| {
        !matches!(
            code,
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | NoLargeFileSupport
                | OperationInterrupted
                | OutOfMemory
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    })
}

fn damaged(file: &Path, finding: String) -> OpenError {
    OpenError::Damaged {
        file: file.to_path_buf(),
        finding,
    }
}
