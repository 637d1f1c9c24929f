//! Where whatever is to be written is handed in.
//!
//! A transaction that finds nobody before it is written at once, by whoever hands it in: to wake the store's thread and to be woken
//! takes about as long as to write it. As soon as others wait, or the disk turns out to be slow, it lines up for the thread, which
//! writes together whatever waits there.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flowrun_engine::store::{StoreError, Transaction};

use super::writer::{Acknowledgement, Writer};

/// Most transactions in a group, and most bytes of them: what a crash at `Off` may take, and what memory a commit needs.
const GROUP_MAX: usize = 4_096;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// With so many transactions in the last group others are likely to come in a moment, and the thread waits for them: the fewer
/// the groups, the less a transaction costs. A run that goes on alone never waits.
const CROWD: usize = 64;
const MOMENT: Duration = Duration::from_micros(250);

/// A transaction that took whoever handed it in longer than this shows that the disk is slow: as many of the next ones go to the thread.
const LONG: Duration = Duration::from_millis(1);
const DETOURS: u32 = 64;

/// What the thread is asked for, in the order of asking.
enum Job {
    /// To keep a transaction.
    Append(Transaction, Acknowledgement),
    /// Anything else.
    Task(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// Takes what is handed in. Dropping it has everything written that waits.
#[derive(Debug)]
pub(super) struct Desk {
    /// `None` at the end alone.
    jobs: Option<Arc<Sender<Job>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    /// Jobs that the thread has not done yet.
    waiting: AtomicUsize,
    /// How many transactions go to the thread though nobody waits there.
    detours: AtomicU32,
}

impl Desk {
    /// With a thread of its own.
    pub(super) fn new(writer: Writer) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let writer = Mutex::new(writer);
        let shared = Arc::new(Shared { writer, waiting: AtomicUsize::new(0), detours: AtomicU32::new(0) });
        let behind = shared.clone();
        let thread = thread::Builder::new().name("flowrun-store".into()).spawn(move || behind.serve(&waiting))?;
        Ok(Self { jobs: Some(Arc::new(jobs)), shared, thread: Some(thread) })
    }

    /// Keeps a transaction and calls back, now or later.
    pub(super) fn append(&self, transaction: Transaction, acknowledgement: Acknowledgement) {
        match self.at_once(&transaction, &acknowledgement) {
            Some(result) => acknowledgement.give(result),
            // One that nobody takes calls back as it is dropped.
            None => _ = self.send(Job::Append(transaction, acknowledgement)),
        }
    }

    /// Has the thread do something; whether it will.
    pub(super) fn task(&self, task: impl FnOnce(&mut Writer) + Send + 'static) -> bool {
        self.send(Job::Task(Box::new(task)))
    }

    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| self.shared.send(jobs, job))
    }

    /// Whether the thread has something to do.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.idle_writer().is_none()
    }

    /// Something that is dropped only after all that was handed in before has been written.
    pub(super) fn hold<T: Send + 'static>(&self, held: T) -> HeldBack<T> {
        let jobs = self.jobs.as_ref().map(Arc::downgrade).unwrap_or_default();
        HeldBack { held: Some(held), jobs, shared: self.shared.clone() }
    }

    /// Writes a transaction here and now, if somebody waits for it and nobody is before it, in this process or another one.
    fn at_once(&self, transaction: &Transaction, to: &Acknowledgement) -> Option<Result<(), StoreError>> {
        let detours = &self.shared.detours;
        let one_less = |detours: u32| detours.checked_sub(1);
        if !to.is_awaited() || detours.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return None;
        }
        let mut writer = self.shared.idle_writer()?;
        let began = Instant::now();
        let result = writer.keep_now(transaction);
        if began.elapsed() > LONG {
            detours.store(DETOURS, Ordering::Relaxed);
        }
        let is_log_long = writer.is_log_long();
        drop(writer);
        if is_log_long {
            self.task(Writer::shorten_log);
        }
        result
    }
}

/// See [`Desk::hold`].
pub(super) struct HeldBack<T: Send + 'static> {
    held: Option<T>,
    /// Gone with the desk, which has then written everything.
    jobs: Weak<Sender<Job>>,
    shared: Arc<Shared>,
}

impl<T: Send + 'static> Drop for HeldBack<T> {
    fn drop(&mut self) {
        let held = self.held.take();
        if self.shared.idle_writer().is_none()
            && let Some(jobs) = self.jobs.upgrade()
        {
            self.shared.send(&jobs, Job::Task(Box::new(move |_| drop(held))));
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last handle may go in a callback, on the thread that would be waited for; it ends by itself then.
        if let Some(thread) = self.thread.take().filter(|writer| writer.thread().id() != thread::current().id()) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn send(&self, jobs: &Sender<Job>, job: Job) -> bool {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        jobs.send(job).is_ok()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, if nobody has anything for it to do.
    fn idle_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return None;
        }
        self.writer.try_lock().ok()
    }

    /// Works until nobody can ask any more.
    fn serve(&self, jobs: &Receiver<Job>) {
        let mut held = None;
        let mut crowded = false;
        while let Some(job) = held.take().or_else(|| jobs.recv().ok()) {
            match job {
                Job::Task(task) => {
                    let mut writer = self.writer();
                    // Whoever gets an answer finds nobody before it.
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                    task(&mut writer);
                }
                Job::Append(transaction, acknowledgement) => {
                    if crowded {
                        thread::sleep(MOMENT);
                    }
                    let mut group = vec![(transaction, acknowledgement)];
                    held = gather(&mut group, jobs);
                    crowded = group.len() >= CROWD;
                    self.keep(group);
                }
            }
        }
    }

    fn keep(&self, group: Vec<(Transaction, Acknowledgement)>) {
        let count = group.len();
        let kept = self.writer().keep(group);
        // Whoever is called back finds nobody before it.
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        for (acknowledgement, result) in kept {
            acknowledgement.give(result);
        }
        let mut writer = self.writer();
        if writer.is_log_long() {
            writer.shorten_log();
        }
    }
}

/// Adds the transactions that wait, and gives back what ends the group.
fn gather(group: &mut Vec<(Transaction, Acknowledgement)>, jobs: &Receiver<Job>) -> Option<Job> {
    let mut bytes: usize = group.iter().map(|(transaction, _)| size(transaction)).sum();
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        match jobs.try_recv() {
            Ok(Job::Append(transaction, acknowledgement)) => {
                bytes += size(&transaction);
                group.push((transaction, acknowledgement));
            }
            Ok(task) => return Some(task),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
        }
    }
    None
}

/// Bytes of a transaction.
pub(super) fn size(transaction: &Transaction) -> usize {
    transaction.lines.len() + transaction.values.iter().map(|(_, text)| text.len()).sum::<usize>()
}
