//! The history: rows that are added, read by page and forgotten; never in memory.

use rusqlite::{Connection, params};

use crate::inventory::{Ended, Ending};
use crate::store::{HISTORY_KEPT, Number};

use super::counter::sum;

/// Most operations that are kept, and most that were refused: whoever asks for nonsense all day pushes out only
/// what was refused as well.
const MOST: [(bool, i64); 2] = [(false, 20_000), (true, 2000)];

/// So many are added before the oldest are looked for again.
const BETWEEN: usize = 64;

/// Entries of one page: so long does the writer not look at its queue.
const PAGE: i64 = 128;

/// The table (step 3 of the format).
pub(super) const TABLE: &str = "
    CREATE TABLE history (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        ended   INTEGER NOT NULL,
        refused INTEGER NOT NULL,
        record  TEXT NOT NULL
    ) STRICT;
    CREATE INDEX history_ended ON history (ended);
    CREATE INDEX history_refused ON history (refused, number);
";

/// An entry to be added.
pub(super) struct Entry {
    /// When it ended, seconds since 1970.
    ended: i64,
    refused: bool,
    record: String,
}

impl Entry {
    /// The row; the reason if it has no JSON text.
    pub(super) fn of(ended: &Ended) -> Result<Self, String> {
        let record = serde_json::to_string(ended);
        let record = record.map_err(|e| format!("the end of an operation cannot be kept: {e}"))?;
        Ok(Self {
            ended: ended.ended.as_second(),
            refused: ended.outcome == Ending::Refused,
            record: vouch(&record),
        })
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO history (ended, refused, record) VALUES (?1, ?2, ?3)";
        let mut insert = connection.prepare_cached(sql)?;
        insert.execute(params![self.ended, self.refused, self.record])?;
        Ok(())
    }
}

/// Before the checksum of an entry, which is the last field of its record: so a version that knows none reads it too.
const SUM: &str = ",\"sum\":\"";
/// After it.
const END: &str = "\"}";

/// The record with its checksum.
fn vouch(record: &str) -> String {
    let fields = record.strip_suffix('}').unwrap_or(record);
    let sum = sum(&[b"history", record.as_bytes()]);
    format!("{fields}{SUM}{sum}{END}")
}

/// Whether a record is as it was written; one of an older version has no checksum.
pub(super) fn is_whole(record: &str) -> bool {
    let Some((fields, told)) = record.rsplit_once(SUM) else {
        return true;
    };
    let record = format!("{fields}}}");
    let sum = sum(&[b"history", record.as_bytes()]);
    told.strip_suffix(END) == Some(&*sum)
}

/// When the oldest entries are looked for.
#[derive(Debug, Default)]
pub(super) struct Trim(usize);

impl Trim {
    /// Forgets what is too old or too much, the first time and then now and then.
    pub(super) fn after(
        &mut self,
        added: &[&Entry],
        connection: &Connection,
    ) -> rusqlite::Result<()> {
        let Some(newest) = added.last() else {
            return Ok(());
        };
        self.0 = self.0.saturating_sub(added.len());
        if self.0 > 0 {
            return Ok(());
        }
        self.0 = BETWEEN;
        let kept = i64::try_from(HISTORY_KEPT.as_secs()).unwrap_or(i64::MAX);
        let old = "DELETE FROM history WHERE ended < ?1";
        connection
            .prepare_cached(old)?
            .execute([newest.ended.saturating_sub(kept)])?;
        let surplus = "DELETE FROM history WHERE refused = ?1 AND number <= (SELECT number FROM history \
             WHERE refused = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
        for (refused, most) in MOST {
            connection
                .prepare_cached(surplus)?
                .execute(params![refused, most])?;
        }
        Ok(())
    }
}

/// The entries before this number, the newest first. One that a later version wrote in another form is passed over.
pub(super) fn page(
    connection: &Connection,
    before: Option<Number>,
) -> rusqlite::Result<Vec<(Number, String)>> {
    let sql = "SELECT number, record FROM history WHERE number < ?1 ORDER BY number DESC LIMIT ?2";
    let mut select = connection.prepare_cached(sql)?;
    let rows = select.query_map(params![before.unwrap_or(Number::MAX), PAGE], |row| {
        // What is no text any more is told as damaged with all else that was changed.
        let record = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
        Ok((row.get(0)?, record))
    })?;
    rows.collect()
}
