//! What needs the inside of the store: its writer's connection, and formats that are not today's.

use std::path::Path;
use std::sync::{Arc, mpsc};

use tempfile::TempDir;

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{Durability, RunInfo, Store, StoreError, Transaction};

use super::schema::{self, Access, MIGRATIONS};
use super::{SqliteStore, write};

fn run(id: &str) -> RunInfo {
    let origin = serde_json::json!({"file": "w.yaml"});
    RunInfo { id: id.to_owned(), workflow: "w".to_owned(), started_ms: 1, origin, summary: None }
}

fn transaction(run: &str, bytes: usize) -> Transaction {
    let text = format!("\"{}\"", run.repeat(bytes));
    let values = vec![(ValueHash::of_bytes(text.as_bytes()), Arc::from(text))];
    Transaction { run: run.into(), first: 0, lines: "{}\n".to_owned(), values, entries: Vec::new(), summary: None }
}

#[test]
fn one_that_finds_no_room_does_not_take_others_along() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&folder.path().join("flowrun.db"), Durability::Normal).unwrap();
    ["a", "b", "c"].iter().for_each(|id| store.begin(&run(id)).unwrap());
    let (go, wait) = mpsc::channel();
    let hold = move |writer: &mut super::Writer| {
        let pages: i64 = writer.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        writer.connection.execute_batch(&format!("PRAGMA max_page_count = {}", pages + 20)).unwrap();
        wait.recv().unwrap();
    };
    assert!(store.desk().unwrap().task(hold));
    // All of these wait together, so that they are written together.
    let (sender, receiver) = mpsc::channel();
    for (id, bytes) in [("a", 10), ("b", 1 << 20), ("c", 10)] {
        let sender = sender.clone();
        store.append(transaction(id, bytes), Box::new(move |result| sender.send((id, result)).unwrap()));
    }
    go.send(()).unwrap();
    let results: Vec<_> = receiver.iter().take(3).map(|(id, result)| (id, result.is_ok())).collect();
    assert_eq!(results, [("a", true), ("b", false), ("c", true)]);
    let logged = ["a", "b", "c"].map(|id| store.log(id, 0).unwrap().len());
    assert_eq!(logged, [1, 0, 1]);
    let (hash, _) = transaction("b", 1 << 20).values[0].clone();
    assert_eq!(store.value(hash), Ok(None), "nothing of it is kept");
}

#[test]
fn a_file_of_format_1_becomes_one_of_any_later_format() {
    let folder = TempDir::new().unwrap();
    let path: &Path = &folder.path().join("flowrun.db");
    let mut connection = schema::connect(path, Access::Write(Durability::Normal)).unwrap();
    schema::apply(&mut connection, path, &MIGRATIONS[..1]).unwrap();
    write::begin(&mut connection, &run("a")).unwrap();
    let next = [MIGRATIONS, &["ALTER TABLE run ADD COLUMN note TEXT NOT NULL DEFAULT 'none'"]].concat();
    schema::apply(&mut connection, path, &next).unwrap();
    schema::apply(&mut connection, path, &next).unwrap();
    let note = "SELECT note FROM run WHERE id = 'a'";
    assert_eq!(connection.query_row(note, [], |row| row.get::<_, String>(0)).unwrap(), "none");
    drop(connection);
    let (found, known) = (next.len() as u64, MIGRATIONS.len() as u64);
    let error = SqliteStore::open(path, Durability::Normal).map(drop).unwrap_err();
    assert_eq!(error, StoreError::Format { place: path.display().to_string(), found, known });
    assert_eq!(SqliteStore::open_to_read(path).map(drop).unwrap_err(), error);
}

#[test]
fn a_file_that_is_being_made_is_empty_or_whole() {
    let folder = TempDir::new().unwrap();
    for round in 0..200 {
        let path = folder.path().join(format!("{round}.db"));
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| SqliteStore::open(&path, Durability::Normal).map(drop));
            while !maker.is_finished() {
                let looked = SqliteStore::open_to_read(&path).and_then(|store| store.runs());
                assert_eq!(looked, Ok(Vec::new()), "round {round}");
            }
            assert_eq!(maker.join().unwrap(), Ok(()));
        });
    }
}

#[test]
fn whoever_appends_does_not_wait_for_another_writer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("flowrun.db");
    let store = SqliteStore::open(&path, Durability::Normal).unwrap();
    store.begin(&run("a")).unwrap();
    let mut other = schema::connect(&path, Access::Write(Durability::Normal)).unwrap();
    let writing = schema::begin_writing(&mut other).unwrap();
    let (sender, receiver) = mpsc::channel();
    store.append(transaction("a", 10), Box::new(move |result| sender.send(result).unwrap()));
    // It has come back, and the other one still writes.
    assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
    writing.commit().unwrap();
    assert_eq!(receiver.recv(), Ok(Ok(())));
    assert_eq!(store.log("a", 0).unwrap().len(), 1);
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("flowrun.db");
    let store = Arc::new(SqliteStore::open(&path, Durability::Normal).unwrap());
    store.begin(&run("a")).unwrap();
    let (go, wait) = mpsc::channel();
    assert!(store.desk().unwrap().task(move |_| wait.recv().unwrap()));
    let (sender, receiver) = mpsc::channel();
    let inside = store.clone();
    let done = move |result| {
        drop(inside);
        sender.send((result, std::thread::current().id())).unwrap();
    };
    store.append(transaction("a", 10), Box::new(done));
    drop(store);
    go.send(()).unwrap();
    let (result, on) = receiver.recv().unwrap();
    assert_eq!(result, Ok(()));
    assert_ne!(on, std::thread::current().id(), "the store's thread has dropped the store");
    assert_eq!(SqliteStore::open(&path, Durability::Normal).unwrap().log("a", 0).unwrap().len(), 1);
}
