//! The store in one SQLite file, beyond what every store promises: it outlives crashes, full disks and bad ones, and is shared.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use flowrun::engine::store::{Durability, RunInfo, Store, StoreError, Stored, Transaction, conformance};
use flowrun::engine::testing::Random;
use flowrun::{SqliteStore, ValueHash};
use serde_json::json;
use tempfile::TempDir;

mod media;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn db(&self) -> PathBuf {
        self.0.path().join(".flowrun/flowrun.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.db(), Durability::Normal).unwrap()
    }
}

fn run(id: &str) -> RunInfo {
    RunInfo {
        id: id.to_owned(),
        workflow: "w".to_owned(),
        started_ms: 1,
        origin: json!({"file": "w.yaml"}),
        summary: None,
    }
}

fn value(text: &str) -> (ValueHash, Arc<str>) {
    (ValueHash::of_bytes(text.as_bytes()), text.into())
}

/// A transaction with a value of its own, which its lines name.
fn transaction(run: &str, first: u64) -> Transaction {
    let value = value(&format!("\"{} of {run}\"", first.to_string().repeat(20)));
    let lines = format!("{{\"seq\":{first},\"run\":\"{run}\",\"value\":\"{}\"}}\n", value.0).repeat(2);
    Transaction { run: run.into(), first, lines, values: vec![value], entries: Vec::new(), summary: None }
}

fn append(store: &SqliteStore, transactions: impl IntoIterator<Item = Transaction>) -> Vec<Result<(), StoreError>> {
    let queue = |transaction| {
        let (sender, receiver) = mpsc::channel();
        store.append(transaction, Box::new(move |result| drop(sender.send(result))));
        receiver
    };
    let waiting: Vec<_> = transactions.into_iter().map(queue).collect();
    waiting.into_iter().map(|done| done.recv().unwrap()).collect()
}

fn keep(store: &SqliteStore, transactions: impl IntoIterator<Item = Transaction>) {
    append(store, transactions).into_iter().for_each(|result| result.unwrap());
}

/// Asserts that a log is whole transactions from 0 on without a gap, with their values; gives how many.
fn whole(store: &SqliteStore, run: &str) -> u64 {
    let log = store.log(run, 0).unwrap();
    for (first, found) in log.iter().enumerate() {
        let wanted = transaction(run, first as u64);
        assert_eq!(*found, Stored { first: wanted.first, lines: wanted.lines });
        let (hash, text) = &wanted.values[0];
        assert_eq!(store.value(*hash).unwrap().as_ref(), Some(text));
    }
    log.len() as u64
}

#[test]
fn a_file_is_a_store() {
    for durability in [Durability::Normal, Durability::Full] {
        let (folder, number) = (Folder::new(), AtomicUsize::new(0));
        conformance::check(|| {
            let name = format!("{}.db", number.fetch_add(1, Ordering::Relaxed));
            SqliteStore::open(&folder.0.path().join(name), durability).unwrap()
        });
    }
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let folder = Folder::new();
    let store = folder.open();
    store.begin(&run("a")).unwrap();
    keep(&store, (0..20).map(|first| transaction("a", first)));
    drop(store);
    let ignore = folder.db().with_file_name(".gitignore");
    assert_eq!(std::fs::read_to_string(&ignore).unwrap(), "*\n");
    let store = folder.open();
    assert_eq!((store.run("a").unwrap(), whole(&store, "a")), (Some(run("a")), 20));
    assert_eq!(store.damage().unwrap(), [""; 0]);
}

#[test]
fn two_handles_of_one_file_see_each_other() {
    let folder = Folder::new();
    let (one, two) = (folder.open(), folder.open());
    one.begin(&run("a")).unwrap();
    assert_eq!(two.begin(&run("a")), Err(StoreError::RunExists("a".to_owned())));
    for first in 0..40 {
        let (writer, reader) = if first % 2 == 0 { (&one, &two) } else { (&two, &one) };
        // Only who drives a run writes its log.
        let lock = writer.lock("a").unwrap().unwrap();
        keep(writer, [transaction("a", first)]);
        drop(lock);
        assert_eq!(whole(reader, "a"), first + 1);
    }
    let lock = one.lock("a").unwrap();
    assert!(two.lock("a").unwrap().is_none() && two.is_driven("a").unwrap());
    drop(lock);
    assert!(!two.is_driven("a").unwrap() && two.lock("a").unwrap().is_some());
    let locks = std::fs::read_dir(folder.db().with_file_name("flowrun.db.locks")).unwrap().count();
    assert_eq!(locks, 1, "only the gate stays");
}

#[test]
fn after_a_transaction_that_failed_none_of_its_run_is_kept() {
    let folder = Folder::new();
    let store = folder.open();
    ["a", "b"].iter().for_each(|id| store.begin(&run(id)).unwrap());
    let order = [("a", 0), ("b", 0), ("a", 0), ("a", 1), ("b", 1), ("a", 2)];
    let results = append(&store, order.map(|(run, first)| transaction(run, first)));
    let kept: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(kept, [true, true, false, false, true, false], "{results:?}");
    let message = results[5].clone().unwrap_err().to_string();
    assert!(message.contains("flowrun.db: run `a`: event 0 cannot follow event 0"), "{message}");
    assert_eq!((whole(&store, "a"), whole(&store, "b")), (1, 2));
    let _lock = store.lock("a").unwrap().unwrap();
    keep(&store, [transaction("a", 1)]);
    assert_eq!(whole(&store, "a"), 2, "whoever drives it anew goes on from what is there");
}

#[test]
fn without_waiting_nothing_is_hidden_and_losses_are_told() {
    let folder = Folder::new();
    let store = SqliteStore::open(&folder.db(), Durability::Off).unwrap();
    store.begin(&run("a")).unwrap();
    for first in 0..200 {
        keep(&store, [transaction("a", first)]);
        let (hash, text) = transaction("a", first).values[0].clone();
        assert_eq!(store.value(hash).unwrap(), Some(text), "what was called kept is there");
    }
    assert_eq!((whole(&store, "a"), store.problem()), (200, None));
    keep(&store, [transaction("nowhere", 0), transaction("a", 7)]);
    assert_eq!(store.problem(), Some(StoreError::NoRun("nowhere".to_owned())), "the first loss");
}

/// What the tests below run in processes of their own: `FLOWRUN_STORE_CHILD` says what. It says `kept N` for each transaction that
/// is kept.
#[test]
fn child() {
    let Ok(words) = std::env::var("FLOWRUN_STORE_CHILD") else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [what, db, id, level, number] = words[..] else { panic!("{words:?}") };
    let say = |line: String| writeln!(std::io::stdout(), "\n{line}").unwrap();
    let (_, durability) = Durability::WORDS.into_iter().find(|(word, _)| *word == level).unwrap();
    let (db, number): (&Path, u64) = (Path::new(db), number.parse().unwrap());
    if what == "look" {
        let store = SqliteStore::open_to_read(db).unwrap();
        say(format!("kept {}", whole(&store, id)));
        let error = SqliteStore::open(db, durability).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        return;
    }
    let store = SqliteStore::open(db, durability).unwrap();
    store.begin(&run(id)).unwrap();
    let began = Instant::now();
    for group in (0..).step_by(50) {
        let one = |first| {
            let mut one = transaction(id, first);
            // Ballast, so that a disk is full sooner.
            one.values.extend((what == "fill").then(|| value(&format!("\"{first}{}\"", "x".repeat(number as usize)))));
            one
        };
        for (first, result) in (group..).zip(append(&store, (group..group + 50).map(one))) {
            match result {
                Ok(()) => say(format!("kept {first}")),
                Err(StoreError::Full { .. }) if what == "fill" => return full(&store, id, first),
                Err(error) => panic!("{error}"),
            }
        }
        if what == "write" && began.elapsed().as_secs() >= number {
            return;
        }
    }
}

/// On a full disk: what was kept can be read, and the run stays where it is.
fn full(store: &SqliteStore, id: &str, kept: u64) {
    assert!(append(store, [transaction(id, kept + 50)])[0].is_err(), "nothing follows what was lost");
    assert_eq!(whole(store, id), kept);
    assert!(matches!(store.post(id, "s", &json!("x".repeat(1 << 20))), Err(StoreError::Full { .. })));
    let error = store.post(id, "s", &json!("x".repeat(1 << 20))).unwrap_err().to_string();
    assert!(error.contains("no room is left") && error.contains("--db"), "{error}");
}

/// A process that does what the words say, begun by a shell after `before`.
fn child_after(before: &str, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    command.args(["store::child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env("FLOWRUN_STORE_CHILD", words.join(" ")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The number that a line of a child says.
fn kept(line: &str) -> Option<u64> {
    line.strip_prefix("kept ")?.parse().ok()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_writer_that_is_killed_leaves_whole_transactions_and_all_that_were_kept() {
    for (round, level) in [("normal", 40), ("full", 150), ("normal", 1_300)].into_iter().map(|(a, b)| (b, a)) {
        let folder = Folder::new();
        let db = folder.db();
        let mut writer = child_after("", &["write", text(&db), "a", level, "1000"]).spawn().unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reached = lines.by_ref().filter_map(|line| kept(&line)).find(|kept| *kept >= round);
        writer.kill().unwrap();
        writer.wait().unwrap();
        let last = lines.filter_map(|line| kept(&line)).last().or(reached).expect("it wrote something");
        let look = SqliteStore::open_to_read(&db).unwrap();
        let seen = whole(&look, "a");
        assert!(seen > last, "{level}: {seen} transactions are there, {last} was kept");
        assert!(!look.is_driven("a").unwrap());
        let store = folder.open();
        assert_eq!((whole(&store, "a"), store.damage().unwrap()), (seen, Vec::new()));
        keep(&store, [transaction("a", seen)]);
    }
}

#[test]
fn a_full_disk_is_said_and_takes_nothing_that_was_kept() {
    // Kilobytes of the largest file: first the write-ahead log finds no room, then the file itself.
    for (kilobytes, ballast) in [(600, "0"), (18_000, "100000")] {
        let folder = Folder::new();
        let db = folder.db();
        let before = format!("trap '' XFSZ; ulimit -f {};", kilobytes * 2);
        let filled = child_after(&before, &["fill", text(&db), "a", "normal", ballast]).output().unwrap();
        let said = String::from_utf8_lossy(&filled.stdout);
        assert!(filled.status.success(), "{said}{}", String::from_utf8_lossy(&filled.stderr));
        let last = said.lines().rev().find_map(kept).expect("something had room");
        let store = folder.open();
        assert_eq!((whole(&store, "a"), store.damage().unwrap()), (last + 1, Vec::new()));
        keep(&store, [transaction("a", last + 1)]);
    }
}

#[test]
fn many_processes_share_one_file() {
    let soak = std::env::var("FLOWRUN_SOAK").is_ok();
    let (processes, seconds) = if soak { (32, "60") } else { (16, "2") };
    let folder = Folder::new();
    let (db, ids) = (folder.db(), (0..processes).map(|n| format!("run-{n}")));
    let spawn = |id: String| {
        let child = child_after("", &["write", text(&db), &id, "normal", seconds]).spawn().unwrap();
        (id, thread::spawn(move || child.wait_with_output().unwrap()))
    };
    let children: Vec<_> = ids.map(spawn).collect();
    let ended: Vec<_> = children.into_iter().map(|(id, child)| (id, child.join().unwrap())).collect();
    let store = folder.open();
    for (id, output) in ended {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        let last = said.lines().rev().find_map(kept).expect("it wrote something");
        assert_eq!(whole(&store, &id), last + 1);
    }
    assert_eq!((store.runs().unwrap().len(), store.damage().unwrap()), (processes, Vec::new()));
}

#[test]
fn where_nothing_can_be_written_that_is_said() {
    let folder = Folder::new();
    let file = folder.0.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = SqliteStore::open(&file.join("flowrun.db"), Durability::Normal).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("--db"), "{error}");
}

#[test]
fn looking_makes_nothing() {
    let folder = Folder::new();
    let store = SqliteStore::open_to_read(&folder.db()).unwrap();
    assert_eq!((store.runs(), store.log("a", 0), store.size().unwrap().runs), (Ok(Vec::new()), Ok(Vec::new()), 0));
    let (hash, _) = value("1");
    assert_eq!((store.value(hash), store.is_driven("a")), (Ok(None), Ok(false)));
    assert!(matches!(store.begin(&run("a")), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(append(&store, [transaction("a", 0)])[0], Err(StoreError::ReadOnly { .. })));
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0);
    // Somebody begins to write, and stops again: whoever looks sees it each time.
    for round in 1..4 {
        let writer = folder.open();
        let _begun = writer.begin(&run("a"));
        keep(&writer, [transaction("a", round - 1)]);
        assert_eq!(whole(&store, "a"), round);
        drop(writer);
        assert_eq!(whole(&store, "a"), round);
    }
    drop(store);
    let before = names(&folder);
    assert_eq!(whole(&SqliteStore::open_to_read(&folder.db()).unwrap(), "a"), 3);
    assert_eq!(names(&folder), before);
}

fn names(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.db().parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a child where the folder cannot be written, by the means that this machine has; `None` if it has none.
fn child_in_closed_folder(folder: &Folder, words: &[&str]) -> Option<Output> {
    let home = folder.db().parent().unwrap().to_owned();
    let mount = format!("mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}' || exit 77;", text(&home));
    for unshare in ["unshare -m", "unshare -rm"] {
        let mut inner = child_after(&mount, words);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {unshare} sh \"$@\" || exit 77"), "sh"]).args(inner.get_args());
        let output = command.env("FLOWRUN_STORE_CHILD", words.join(" ")).output().unwrap();
        if output.status.success() || String::from_utf8_lossy(&output.stdout).contains("running 1 test") {
            return Some(output);
        }
        inner.env_clear();
    }
    let closed = |mode| std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    closed(0o555);
    let is_closed = std::fs::write(home.join("try"), "").is_err();
    let output = is_closed.then(|| child_after("", words).output().unwrap());
    closed(0o755);
    output
}

#[test]
fn a_store_in_a_closed_folder_can_be_looked_at() {
    for left_by_a_crash in [false, true] {
        let folder = Folder::new();
        let db = folder.db();
        let mut writer = child_after("", &["write", text(&db), "a", "normal", "1000"]).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        lines.filter_map(|line| kept(&line)).find(|kept| *kept > 200).unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();
        let shared = db.with_file_name("flowrun.db-shm");
        assert!(shared.exists() && db.with_file_name("flowrun.db-wal").exists());
        let seen = if left_by_a_crash {
            std::fs::remove_file(&shared).unwrap();
            whole(&SqliteStore::open_to_read(&db).unwrap(), "a")
        } else {
            whole(&folder.open(), "a")
        };
        let before = names(&folder);
        assert!(seen > 200 && before.contains(&"flowrun.db-wal".to_owned()) == left_by_a_crash, "{before:?}");
        let Some(looked) = child_in_closed_folder(&folder, &["look", text(&db), "a", "normal", "0"]) else {
            return skipped("a_store_in_a_closed_folder_can_be_looked_at: no folder can be closed to this user here");
        };
        let said = String::from_utf8_lossy(&looked.stdout);
        assert!(looked.status.success(), "{said}{}", String::from_utf8_lossy(&looked.stderr));
        assert_eq!(said.lines().find_map(kept), Some(seen));
        assert_eq!(names(&folder), before);
    }
}

fn skipped(why: &str) {
    let _unseen = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
