//! Bad media: bytes that flip, pages and ends that are lost, files that are none of this store.

use super::*;

/// A file of three runs of 40 transactions, closed.
fn three_runs() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let store = folder.open();
    for id in ["a", "b", "c"] {
        store.begin(&run(id)).unwrap();
        keep(&store, (0..40).map(|first| transaction(id, first)));
    }
    drop(store);
    let bytes = std::fs::read(folder.db()).unwrap();
    (folder, bytes)
}

/// Opens what a bad medium made of [`three_runs`]: whatever is read is what was written, or an error says that it is not. Gives how many
/// runs are whole.
fn examine(folder: &Folder, bytes: &[u8], what: &str) -> usize {
    let db = folder.db();
    let names = ["-wal", "-shm"].map(|ending| PathBuf::from(format!("{}{ending}", text(&db))));
    names.iter().for_each(|path| drop(std::fs::remove_file(path)));
    std::fs::write(&db, bytes).unwrap();
    let is_told = |error: &StoreError| matches!(error, StoreError::Damaged { .. } | StoreError::Format { .. });
    let store = match SqliteStore::open(&db, Durability::Normal) {
        Ok(store) => store,
        Err(error) => {
            assert!(is_told(&error), "{what}: {error}");
            return 0;
        }
    };
    let mut readable = 0;
    for id in ["a", "b", "c"] {
        match store.log(id, 0) {
            // A run that is not found has nothing that could be wrong; that it is gone is damage all the same.
            Ok(log) if log.is_empty() => {}
            Ok(log) => {
                let wanted: Vec<Stored> = (0..40).map(|first| transaction(id, first)).map(stored).collect();
                assert!(log == wanted, "{what}: run {id} is not what was written, and nothing says so");
                readable += 1;
            }
            Err(error) => assert!(is_told(&error), "{what}: {error}"),
        }
        for first in 0..40 {
            let (hash, text) = transaction(id, first).values[0].clone();
            match store.value(hash) {
                Ok(found) => assert!(found.is_none_or(|found| found == text), "{what}: a value changed"),
                Err(error) => assert!(is_told(&error), "{what}: {error}"),
            }
        }
    }
    let listed = store.runs().unwrap_or_else(|error| {
        assert!(is_told(&error), "{what}: {error}");
        Vec::new()
    });
    listed.iter().for_each(|found| assert_eq!(*found, run(&found.id), "{what}"));
    let is_whole = readable == 3 && listed.len() == 3;
    let lines = store.damage().unwrap_or_else(|error| vec![error.to_string()]);
    assert!(is_whole || !lines.is_empty(), "{what}: damage is not found");
    readable
}

fn stored(transaction: Transaction) -> Stored {
    Stored { first: transaction.first, lines: transaction.lines }
}

#[test]
fn bytes_that_flip_never_change_what_is_read() {
    let (folder, bytes) = three_runs();
    assert_eq!(examine(&folder, &bytes, "as it was"), 3);
    let (mut random, mut readable, rounds) = (Random(7), 0, 150);
    for _ in 0..rounds {
        let (at, bit) = (random.below(bytes.len() as u64) as usize, random.below(8));
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        readable += examine(&folder, &flipped, &format!("bit {bit} of byte {at}"));
    }
    assert!(readable > rounds * 2, "what is not hit can be read: {readable} of {}", rounds * 3);
}

#[test]
fn pages_that_are_lost_never_change_what_is_read() {
    let (folder, bytes) = three_runs();
    let page = 8_192;
    assert_eq!(bytes.len() % page, 0);
    let mut readable = 0;
    for number in 0..bytes.len() / page {
        let (from, middle, to) = (number * page, number * page + 3_000, (number + 1) * page);
        let (mut zeroed, mut torn) = (bytes.clone(), bytes.clone());
        zeroed[from..to].fill(0);
        torn[middle..to].fill(0xA5);
        readable += examine(&folder, &zeroed, &format!("page {number} is empty"));
        readable += examine(&folder, &torn, &format!("page {number} is torn"));
        // A file of no bytes is one that was just made.
        if number > 0 {
            examine(&folder, &bytes[..from], &format!("the file ends before page {number}"));
        }
        examine(&folder, &bytes[..middle], &format!("the file ends in page {number}"));
    }
    assert!(readable > 0, "what is not hit can be read");
}

#[test]
fn a_torn_log_of_changes_leaves_whole_transactions() {
    let folder = Folder::new();
    let db = folder.db();
    let store = folder.open();
    store.begin(&run("a")).unwrap();
    (0..60).for_each(|first| keep(&store, [transaction("a", first)]));
    let changes = std::fs::read(db.with_file_name("flowrun.db-wal")).unwrap();
    let file = std::fs::read(&db).unwrap();
    drop(store);
    let (mut random, mut seen) = (Random(3), std::collections::BTreeSet::new());
    for round in 0..40 {
        let copy = Folder::new();
        std::fs::create_dir_all(copy.db().parent().unwrap()).unwrap();
        let mut torn = changes.clone();
        let at = random.below(torn.len() as u64) as usize;
        if round % 2 == 0 {
            torn.truncate(at)
        } else {
            torn[at] ^= 1
        }
        std::fs::write(copy.db(), &file).unwrap();
        std::fs::write(copy.db().with_file_name("flowrun.db-wal"), torn).unwrap();
        let looked = SqliteStore::open_to_read(&copy.db()).unwrap();
        let found = whole(&looked, "a");
        drop(looked);
        assert_eq!(whole(&copy.open(), "a"), found);
        seen.insert(found);
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn what_is_no_store_is_not_touched() {
    let folder = Folder::new();
    drop(folder.open());
    let open = || SqliteStore::open(&folder.db(), Durability::Normal).map(drop);
    let look = || SqliteStore::open_to_read(&folder.db()).map(drop);
    let letter = "Dear database,\n".repeat(1_000);
    std::fs::write(folder.db(), &letter).unwrap();
    for error in [open().unwrap_err(), look().unwrap_err()] {
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(folder.db()).unwrap(), letter);
    for (sql, wanted) in [
        ("CREATE TABLE letter (text)", "is damaged: it is a database of another program"),
        ("PRAGMA application_id = 1718382455; PRAGMA user_version = 7", "is of format 7; this program reads format 1"),
    ] {
        std::fs::remove_file(folder.db()).unwrap();
        let other = rusqlite::Connection::open(folder.db()).unwrap();
        other.execute_batch(sql).unwrap();
        drop(other);
        for error in [open().unwrap_err(), look().unwrap_err()] {
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
