//! What the durable store promises: order, all or nothing, survival of SIGKILL and of a full disk.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::*;
use crate::audit::About;
use crate::id::{CollectionId, SetId, SnapshotId, VmId};
use crate::inventory::{Collection, CollectionKind, Consistency, Format, Leftover, Position};
use crate::inventory::{Ending, Query, What};
use crate::inventory::{Seal, Sealed, SetKind, Snapshot, SnapshotSet};
use crate::store::feed::News;
use crate::store::{self, Change, look_back};

fn collection(n: u128) -> Collection {
    Collection {
        id: CollectionId::from_u128(n),
        name: format!("group {n}"),
        kind: CollectionKind::Machines,
        machines: vec![VmId::from_u128(n)],
        collections: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
    }
}

fn set(id: u128, members: &[u128]) -> SnapshotSet {
    let member = |n: &u128| Snapshot {
        id: SnapshotId::from_u128(*n),
        machine: VmId::from_u128(*n),
        machine_name: "web".to_owned(),
        name: "before".to_owned(),
        parent: None,
        disks: Vec::new(),
        left_out: Vec::new(),
        consistency: Consistency::Crash,
        definition: "/vm.toml".into(),
        definition_sha256: None,
        cut_at: Timestamp::UNIX_EPOCH,
    };
    SnapshotSet {
        id: SetId::from_u128(id),
        name: "before".to_owned(),
        kind: SetKind::Standard,
        collection: None,
        created: Timestamp::UNIX_EPOCH,
        members: members.iter().map(member).collect(),
        window: jiff::SignedDuration::ZERO,
        owner: "ann".to_owned(),
        job: crate::id::JobId::from_u128(1),
    }
}

async fn put(store: &SqliteStore, change: Change) -> Result<Arc<State>, StoreError> {
    store.transact(Box::new(move |_| vec![change])).await
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let position = Position {
        parent: Some(SnapshotId::from_u128(7)),
        last_applied: None,
    };
    let machine = VmId::from_u128(3);
    let changes = vec![
        Change::PutCollection(collection(1)),
        Change::PutCollection(collection(2)),
        Change::PutSet(set(4, &[7, 8])),
        Change::PutPosition(machine, position),
    ];
    store.transact(Box::new(|_| changes)).await.unwrap();
    put(&store, Change::RemoveCollection(CollectionId::from_u128(2)))
        .await
        .unwrap();
    let before = store.state();
    drop(store);

    let store = SqliteStore::open(dir.path()).unwrap();
    let after = store.state();
    assert_eq!(after.collections, before.collections);
    assert_eq!(after.collections.len(), 1);
    assert_eq!(after.sets, before.sets);
    assert_eq!(after.snapshots, before.snapshots);
    assert_eq!(after.positions, before.positions);
    let (found, member) = after.snapshot(SnapshotId::from_u128(8)).unwrap();
    assert_eq!(
        (found.id, member.machine),
        (SetId::from_u128(4), VmId::from_u128(8))
    );
}

#[tokio::test]
async fn the_index_of_snapshots_follows_its_sets() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    put(&store, Change::PutSet(set(4, &[7, 8]))).await.unwrap();
    let state = put(&store, Change::PutSet(set(4, &[8]))).await.unwrap();
    assert!(state.snapshot(SnapshotId::from_u128(7)).is_none());
    assert!(state.snapshot(SnapshotId::from_u128(8)).is_some());
    let id = SetId::from_u128(4);
    let state = put(&store, Change::RemoveSet(id)).await.unwrap();
    assert!(state.snapshots.is_empty() && state.sets.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_decision_sees_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let add = |_| {
        let store = store.clone();
        tokio::spawn(async move {
            let decided = store::decide(&*store, |state| {
                let next = u128::try_from(state.collections.len()).unwrap();
                let changes = vec![Change::PutCollection(collection(next))];
                Ok::<_, ()>((changes, next))
            });
            decided.await.unwrap().unwrap()
        })
    };
    let tasks: Vec<_> = (0..200).map(add).collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert_eq!(store.state().revision, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribers_hear_each_change_once_in_order_whatever_commits_it_shared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let mut commits = store.subscribe();
    let add = |n| {
        let store = store.clone();
        let decide = move |_: &State| vec![Change::PutCollection(collection(n))];
        tokio::spawn(async move { store.transact(Box::new(decide)).await.unwrap() })
    };
    let tasks: Vec<_> = (0..200).map(add).collect();
    // A refusal commits nothing, and nobody hears of it.
    store.transact(Box::new(|_| Vec::new())).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let (mut heard, mut known) = (Vec::new(), 0);
    while heard.len() < 200 {
        let Some(News::Commit(commit)) = commits.next().await else {
            panic!("missed at {}", heard.len());
        };
        for change in &*commit.changes {
            let Change::PutCollection(one) = change else {
                panic!("{change:?}");
            };
            assert!(commit.state.collections.contains_key(&one.id));
            heard.push(one.id);
        }
        known += commit.changes.len();
        assert_eq!(commit.state.collections.len(), known);
    }
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard.len(), 200);
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_gives_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let decided = store::decide(&store, |_| Err::<(Vec<Change>, ()), _>("no")).await;
    assert_eq!(decided, Ok(Err("no")));
    assert_eq!(store.state().revision, 0);
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut bad = set(1, &[1]);
    bad.members[0].definition = std::ffi::OsStr::from_bytes(b"/\xff").into();
    let changes = vec![Change::PutCollection(collection(1)), Change::PutSet(bad)];
    let refused = store.transact(Box::new(|_| changes)).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert!(store.state().collections.is_empty());
    put(&store, Change::PutCollection(collection(2)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_panic_in_a_decision_hits_its_caller_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let same = store.clone();
    let panics = tokio::spawn(async move { same.transact(Box::new(|_| panic!("bug"))).await });
    assert!(panics.await.unwrap_err().is_panic());
    put(&store, Change::PutCollection(collection(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn after_a_failed_commit_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    drop(SqliteStore::open(dir.path()).unwrap());
    let saboteur =
        "CREATE TRIGGER saboteur BEFORE INSERT ON sets BEGIN SELECT RAISE(ABORT, 'no'); END";
    Connection::open(&file)
        .and_then(|c| c.execute_batch(saboteur))
        .unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    put(&store, Change::PutCollection(collection(1)))
        .await
        .unwrap();
    let changes = vec![
        Change::RemoveCollection(collection(1).id),
        Change::PutSet(set(1, &[1])),
    ];
    let failed = store.transact(Box::new(|_| changes)).await.unwrap_err();
    let StoreError::Broken(reason) = &failed else {
        panic!("{failed}");
    };
    assert_eq!(&store.broken().await, reason);
    let later = put(&store, Change::PutCollection(collection(2))).await;
    assert_eq!(later.unwrap_err(), failed);
    assert_eq!(
        store.state().revision,
        1,
        "readers still see what was committed"
    );
    drop(store);
    let sql = "SELECT count(*) FROM collections";
    let reader = Connection::open(&file).unwrap();
    let kept: u32 = reader.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "nothing of the failed transaction is kept");
}

#[test]
fn a_directory_has_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let _store = SqliteStore::open(dir.path()).unwrap();
    let second = SqliteStore::open(dir.path());
    assert!(matches!(
        second,
        Err(OpenError::Lock(LockError::Busy { .. }))
    ));
}

#[tokio::test]
async fn a_file_of_the_first_format_takes_up_what_deleted_sets_have_left() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let old = Connection::open(dir.path().join(FILE)).unwrap();
    old.execute_batch(
        "DROP TABLE leftovers; DROP TABLE commits; DROP TABLE history; DROP TABLE marks",
    )
    .unwrap();
    for table in ["collections", "sets", "positions", "jobs"] {
        let plain = format!("ALTER TABLE {table} DROP COLUMN sum");
        old.execute(&plain, []).unwrap();
    }
    std::fs::remove_file(counter::path(dir.path())).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    let file = PathBuf::from("/images/.groupshot/S/M-disk0.raw");
    let seal = Seal {
        inode: 1,
        length: 2,
        modified: (3, 4),
        changed: (5, 6),
    };
    let left = Leftover {
        machine: VmId::from_u128(3),
        machine_name: "web".into(),
        disk: "disk0".into(),
        file: file.clone(),
        format: Format::Raw,
        sealed: Some(Sealed {
            file: file.clone(),
            seal,
        }),
    };
    let store = SqliteStore::open(dir.path()).unwrap();
    put(&store, Change::PutLeftover(left.clone()))
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.state().leftovers.get(&file), Some(&left));
    put(&store, Change::RemoveLeftover(file)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.state().leftovers.is_empty());
}

#[test]
fn a_newer_or_damaged_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let file = dir.path().join(FILE);
    let version = |n: i64| {
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "user_version", n).unwrap();
        connection
    };
    let today: i64 = {
        let connection = Connection::open(&file).unwrap();
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        version.unwrap()
    };
    drop(version(99));
    let newer = SqliteStore::open(dir.path()).unwrap_err();
    assert!(
        matches!(newer, OpenError::Newer { found: 99, .. }),
        "{newer}"
    );
    version(today)
        .execute("INSERT INTO jobs VALUES ('x', '{', '')", [])
        .unwrap();
    let unreadable = SqliteStore::open(dir.path()).unwrap_err();
    assert!(unreadable.to_string().contains("record x"), "{unreadable}");
    std::fs::write(&file, [7_u8; 8192]).unwrap();
    let garbage = SqliteStore::open(dir.path()).unwrap_err().to_string();
    assert!(garbage.contains("groupshot.db"), "{garbage}");
}

/// What a process that is killed leaves in its directory, by name.
fn left(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let wal = format!("{FILE}-wal");
    let names = [FILE.to_owned(), wal, counter::FILE.to_owned()];
    let there = names.into_iter().filter(|name| dir.join(name).exists());
    let read = |name: String| {
        let bytes = std::fs::read(dir.join(&name)).unwrap();
        (name, bytes)
    };
    there.map(read).collect()
}

fn lay_out(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn all(state: &State) -> String {
    let State {
        collections,
        sets,
        positions,
        leftovers,
        jobs,
        ..
    } = state;
    format!("{collections:?} {sets:?} {positions:?} {leftovers:?} {jobs:?}")
}

/// Every file, with `change` made to one of them: it is refused by name, or nothing is missing.
fn assert_refused_or_whole(
    files: &[(String, Vec<u8>)],
    whole: &str,
    what: &str,
    change: impl FnOnce(&mut Vec<(String, Vec<u8>)>),
) -> bool {
    let mut changed = files.to_vec();
    change(&mut changed);
    let dir = lay_out(&changed);
    match SqliteStore::open(dir.path()) {
        Ok(store) => {
            assert_eq!(all(&store.state()), whole, "{what}");
            false
        }
        Err(error) => {
            assert!(error.to_string().contains("groupshot."), "{what}: {error}");
            let log = format!("{FILE}-wal");
            let told = |(name, bytes): &(String, Vec<u8>)| *name != log || !bytes.is_empty();
            let mut now = left(dir.path());
            now.retain(told);
            changed.retain(told);
            assert!(now == changed, "{what}: not left as it was: {error}");
            true
        }
    }
}

#[tokio::test]
async fn no_flipped_bit_and_no_cut_of_a_file_loses_a_record_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    for n in 1..=6 {
        put(&store, Change::PutCollection(collection(n)))
            .await
            .unwrap();
        put(&store, Change::PutSet(set(n, &[n * 10, n * 10 + 1])))
            .await
            .unwrap();
    }
    let gone = Change::RemoveCollection(CollectionId::from_u128(2));
    put(&store, gone).await.unwrap();
    let whole = all(&store.state());
    let killed = left(dir.path());
    assert_eq!(killed.len(), 3, "with a log");
    drop(store);
    let closed = left(dir.path());
    let long = std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
    let samples = if long { 4000 } else { 120 };
    // An empty log is none.
    for files in [&killed, &closed] {
        assert!(!assert_refused_or_whole(files, &whole, "as it is", |_| {}));
        let mut refused = 0;
        for (n, (name, bytes)) in files.iter().enumerate() {
            for sample in 0..samples {
                // Spread over the file, each time another bit.
                let at = (bytes.len() * sample / samples + sample * 37) % bytes.len();
                let what = format!("{name}, bit {} of byte {at}", sample % 8);
                refused += usize::from(assert_refused_or_whole(files, &whole, &what, |all| {
                    all[n].1[at] ^= 1 << (sample % 8);
                }));
            }
            for part in 0..8 {
                let what = format!("{name}, cut to {part} eighths");
                refused += usize::from(assert_refused_or_whole(files, &whole, &what, |all| {
                    all[n].1.truncate(bytes.len() * part / 8);
                }));
            }
        }
        assert!(refused >= 20, "{refused}");
    }
    // A log that is gone altogether, and what jobs alone have written.
    assert!(assert_refused_or_whole(&killed, &whole, "no log", |all| {
        all.remove(1);
    }));
}

#[tokio::test]
async fn a_counter_that_is_behind_or_gone_is_made_right_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    put(&store, Change::PutCollection(collection(1)))
        .await
        .unwrap();
    let behind = left(dir.path()).pop().unwrap();
    put(&store, Change::PutCollection(collection(2)))
        .await
        .unwrap();
    drop(store);
    let file = counter::path(dir.path());
    std::fs::write(&file, behind.1).unwrap();
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(&file).unwrap();
        }
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.state().collections.len(), 2);
        drop(store);
        assert_eq!(counter::read(&file).unwrap(), Ok(Some(2)), "gone: {gone}");
    }
}

/// More rows than one checkpoint period, so that the log is folded into the file on the way.
#[tokio::test]
async fn checkpoints_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    for round in 0..5_u128 {
        let changes = (0..600).map(|n| Change::PutCollection(collection(round * 600 + n)));
        let changes: Vec<_> = changes.collect();
        store.transact(Box::new(|_| changes)).await.unwrap();
    }
    // A copy in the midst of a checkpoint is none.
    let copied = || {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join(FILE), copy.path().join(FILE)).unwrap();
        let store = SqliteStore::open(copy.path()).ok()?;
        Some(store.state().collections.len())
    };
    let checkpointed = (0..100).find_map(|_| copied()).unwrap();
    assert!(
        checkpointed >= 1200,
        "{checkpointed} rows in the file without its log"
    );
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.state().collections.len(), 3000);
}

fn ended(n: i64, outcome: Ending) -> Change {
    let time = Timestamp::from_second(n).unwrap();
    Change::Ended(Ended {
        what: What::Create,
        outcome,
        job: None,
        user: if n % 2 == 0 { "ann" } else { "bob" }.to_owned(),
        about: About::default().set(n, &format!("set {n}")),
        started: time,
        ended: time,
        reason: String::new(),
        code: None,
        recovered: false,
    })
}

async fn seconds(store: &SqliteStore, query: Query, now: i64) -> Vec<i64> {
    let now = Timestamp::from_second(now).unwrap();
    let found = look_back(store, &query, now).await.unwrap();
    found.iter().map(|e| e.ended.as_second()).collect()
}

#[tokio::test]
async fn the_beginning_of_several_ids_is_told_and_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let with = |n: i64, id: &str, name: &str| match ended(n, Ending::Completed) {
        Change::Ended(ended) => {
            let about = About::default().set(id, name);
            Change::Ended(Ended { about, ..ended })
        }
        other => other,
    };
    let mut changes = vec![
        with(0, "8A3D0000-0000-0000-0000-000000000001", "first"),
        with(1, "8A3D0000-0000-0000-0000-000000000002", "second"),
        with(2, "8A3E0000-0000-0000-0000-000000000003", "nightly"),
        with(3, "8A3F0000-0000-0000-0000-000000000004", "nightly"),
        with(4, "8A400000-0000-0000-0000-000000000005", "8a3e"),
        with(4, "8A3E0000-0000-0000-0000-000000000006", "other"),
    ];
    // More than a page, and than the limit.
    changes.extend((5..400).map(|n| with(n, "8A3D0000-0000-0000-0000-000000000001", "first")));
    store.transact(Box::new(|_| changes)).await.unwrap();
    let now = Timestamp::from_second(500).unwrap();
    let find = async |wanted: &str| {
        let query = Query {
            set: Some(wanted.to_owned()),
            limit: 3,
            ..Query::default()
        };
        let found = look_back(&store, &query, now).await;
        found.map(|found| found.len()).map_err(|e| e.to_string())
    };
    let refused = find("8a3d").await.unwrap_err();
    for part in [
        "begins several ids of snapshot sets",
        "8A3D0000-0000-0000-0000-000000000001 (first)",
        "8A3D0000-0000-0000-0000-000000000002 (second)",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    for (wanted, count) in [
        ("8A3D0000-0000-0000-0000-000000000001", 3),
        ("{8a3d0000-0000-0000-0000-000000000002}", 1),
        ("8A3F", 1),
        ("nightly", 2),
        ("8a4", 0),
        ("8a40", 1),
        // The name counts before the beginning of another id.
        ("8a3e", 1),
    ] {
        assert_eq!(find(wanted).await, Ok(count), "{wanted}");
    }
}

#[tokio::test]
async fn the_history_survives_a_restart_is_searched_by_page_and_shows_thirty_days() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let changes = (0..300).map(|n| ended(n, Ending::Completed)).collect();
    store.transact(Box::new(|_| changes)).await.unwrap();
    put(&store, ended(300, Ending::Failed)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    let limit = 1000;
    let all = seconds(
        &store,
        Query {
            limit,
            ..Query::default()
        },
        300,
    )
    .await;
    assert_eq!(all, (0..=300).rev().collect::<Vec<_>>());
    let query = |set: &str| Query {
        set: Some(set.to_owned()),
        limit,
        ..Query::default()
    };
    assert_eq!(seconds(&store, query("set 7"), 300).await, [7]);
    assert_eq!(seconds(&store, query("12"), 300).await, [12]);
    let failed = Query {
        failed: true,
        limit,
        ..Query::default()
    };
    assert_eq!(seconds(&store, failed, 300).await, [300]);
    let of_ann = Query {
        user: Some("ann".to_owned()),
        limit: 2,
        ..Query::default()
    };
    assert_eq!(seconds(&store, of_ann, 300).await, [300, 298]);
    let later = 30 * 86_400 + 299;
    let young = seconds(
        &store,
        Query {
            limit,
            ..Query::default()
        },
        later,
    )
    .await;
    assert_eq!(young, [300, 299]);
}

#[tokio::test]
async fn an_entry_of_the_history_that_was_changed_is_told_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let changes = (0..3).map(|n| ended(n, Ending::Completed)).collect();
    store.transact(Box::new(|_| changes)).await.unwrap();
    drop(store);
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    let changed = [
        // As an older version has written it.
        ("substr(record, 1, instr(record, ',\"sum\"') - 1) || '}'", 1),
        ("replace(record, 'completed', 'failed')", 2),
    ];
    for (record, number) in changed {
        let sql = format!("UPDATE history SET record = {record} WHERE number = {number}");
        assert_eq!(file.execute(&sql, []).unwrap(), 1);
    }
    drop(file);
    let store = SqliteStore::open(dir.path()).unwrap();
    let query = Query {
        limit: 10,
        ..Query::default()
    };
    assert_eq!(seconds(&store, query, 3).await, [2, 0]);
}

#[tokio::test]
async fn pages_of_the_history_of_which_nothing_can_be_read_do_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let changes = (0..300).map(|n| ended(n, Ending::Completed)).collect();
    store.transact(Box::new(|_| changes)).await.unwrap();
    drop(store);
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    let changed = [
        (
            "replace(record, 'completed', 'failed')",
            "number BETWEEN 4 AND 290",
        ),
        ("CAST(x'7BFF7D' AS TEXT)", "number = 2"),
    ];
    for (record, which) in changed {
        let sql = format!("UPDATE history SET record = {record} WHERE {which}");
        assert!(file.execute(&sql, []).unwrap() > 0);
    }
    drop(file);
    let store = SqliteStore::open(dir.path()).unwrap();
    let query = Query {
        limit: 1000,
        ..Query::default()
    };
    let newest: Vec<_> = (290..300).rev().collect();
    assert_eq!(
        seconds(&store, query, 3).await,
        [newest, vec![2, 0]].concat()
    );
}

#[tokio::test]
async fn the_history_is_bounded_and_what_was_refused_pushes_out_only_its_like() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    put(&store, ended(0, Ending::Completed)).await.unwrap();
    for start in [0, 1500] {
        let changes = (start..start + 1500)
            .map(|n| ended(n, Ending::Refused))
            .collect();
        store.transact(Box::new(|_| changes)).await.unwrap();
    }
    let limit = 10_000;
    let query = Query {
        limit,
        ..Query::default()
    };
    let all = seconds(&store, query.clone(), 3000).await;
    assert_eq!(all.len(), 2001);
    assert_eq!(all.last(), Some(&0), "what was no refusal stays");
    assert_eq!(all[1999], 1000, "the oldest refusals are gone");
    put(&store, ended(31 * 86_400, Ending::Completed))
        .await
        .unwrap();
    let changes = (0..64)
        .map(|n| ended(31 * 86_400 + n, Ending::Completed))
        .collect();
    store.transact(Box::new(|_| changes)).await.unwrap();
    drop(store);
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    let sql = "SELECT count(*) FROM history";
    let kept: u32 = file.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 65, "what is older than thirty days goes");
}

const CHILD: &str = "GROUPSHOT_TEST_STORE_CHILD";

/// Not a test of its own: what the kill test runs and kills. Writes rows from eight tasks for ever and
/// prints the number of each row that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn kill_test_child() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let store = Arc::new(SqliteStore::open(Path::new(&dir)).unwrap());
    let first = u128::try_from(store.state().collections.len()).unwrap();
    let writer = |task: u128| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let row = first + n * 8 + task;
                put(&store, Change::PutCollection(collection(row)))
                    .await
                    .unwrap();
                writeln!(io::stdout(), "acked {row}.").unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..8).map(writer).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn every_acknowledged_row_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    for rows in [1, 100, 1500] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::sqlite::tests::kill_test_child",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acked: Vec<u128> = Vec::new();
        let row = |line: &str| {
            line.split_once("acked ")?
                .1
                .strip_suffix('.')?
                .parse::<u128>()
                .ok()
        };
        while acked.len() < rows {
            acked.extend(row(&lines.next().unwrap().unwrap()));
        }
        child.kill().unwrap();
        acked.extend(lines.map_while(Result::ok).filter_map(|line| row(&line)));
        child.wait().unwrap();

        let store = SqliteStore::open(dir.path()).unwrap();
        let state = store.state();
        for n in &acked {
            let id = CollectionId::from_u128(*n);
            assert!(
                state.collections.contains_key(&id),
                "row {n} of {} is lost",
                acked.len()
            );
        }
    }
}

/// A small file system, gone with the test however it ends.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success());
        Self(dir)
    }

    /// btrfs with a quota of two megabytes, on a file in `home`.
    fn with_quota(home: &Path) -> Self {
        let image = home.join("image");
        File::create(&image)
            .and_then(|f| f.set_len(200 << 20))
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (image.to_str().unwrap(), dir.path().to_str().unwrap());
        for line in [
            format!("mkfs.btrfs -q {image}"),
            format!("mount -o loop {image} {at}"),
            format!("btrfs quota enable {at}"),
            format!("btrfs qgroup limit 2M {at}"),
        ] {
            let mut words = line.split(' ');
            let out = Command::new(words.next().unwrap()).args(words).output();
            assert!(out.unwrap().status.success(), "{line}");
        }
        Self(dir)
    }
}

impl Drop for SmallDisk {
    #[expect(clippy::disallowed_methods, reason = "a bound for a test that fails")]
    fn drop(&mut self) {
        // A process that another test is about to start may have its files open for a moment.
        let unmounts = |_| {
            let status = Command::new("umount").arg(self.0.path()).status();
            let done = status.unwrap().success();
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            done
        };
        assert!((0..300).any(unmounts));
    }
}

/// Mounts a small file system of its own.
#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn a_full_disk_refuses_the_change_and_the_store_goes_on() {
    refuses_while_full(&SmallDisk::mount(), 400 << 10).await;
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn a_quota_that_is_used_up_refuses_the_change_and_the_store_goes_on() {
    let home = tempfile::tempdir().unwrap();
    refuses_while_full(&SmallDisk::with_quota(home.path()), 1 << 20).await;
}

async fn refuses_while_full(disk: &SmallDisk, ballast_size: usize) {
    let dir = disk.0.path();
    let store = SqliteStore::open(dir).unwrap();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1_u8; ballast_size]).unwrap();
    let mut kept = 0;
    let full = loop {
        match put(&store, Change::PutCollection(collection(kept))).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    let acknowledged = usize::try_from(kept).unwrap();
    assert_eq!(store.state().collections.len(), acknowledged);
    std::fs::remove_file(&ballast).unwrap();
    put(&store, Change::PutCollection(collection(kept)))
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(dir).unwrap();
    assert_eq!(store.state().collections.len(), acknowledged + 1);
}
