//! The thread of the guarded files.
//!
//! It owns the [`Files`], and does what it is given in that order: effects, reads for clients, ranges
//! for peers, ranges from peers. So a read sees every effect that was handed over before it.
//!
//! # When effects are durable
//!
//! It syncs [`SYNC_INTERVAL`] after the first effect that is not durable, however many there are by
//! then. Nobody waits for it but snapshots.
//!
//! An entry can have several effects, and only the node knows which is the last. So an entry counts as
//! handed over when an effect of a later entry follows, or [`FileTask::Applied`], which the driver
//! sends at the end of each turn in which there were effects. After a sync,
//! [`FileEvent::Durable`] names the last entry that was handed over in full before it.
//!
//! # Limits
//!
//! At most [`READS_MAX`] reads and ranges wait; more are refused at once. A range has at most
//! [`FILE_RANGE_BYTES_MAX`]. Effects have no limit of
//! their own: the node keeps each entry in memory until its effects are durable, and
//! `Config::log_bytes_max` bounds those. Ranges from peers are handed over one at a time: the driver
//! waits for the answer before it asks the peer for the next.
//!
//! # Errors
//!
//! A full disk holds up everything, and the same call is made again every
//! [`RETRY_INTERVAL`]. Any other error, and a file that was changed from outside, is final: the thread
//! says so, answers everything else with an error, and touches no file any more.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorlock_core::ids::LogIndex;
use quorlock_core::message::Effect;
use quorlock_core::node::{FileRead, MissingBytes};
use quorlock_core::text::FileName;

use super::files::{Files, FilesError, RETRY_INTERVAL};
use crate::wire::report::FILE_RANGE_BYTES_MAX;

/// How long effects may wait to be made durable together.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// The most reads, for clients and for peers, that wait.
pub(crate) const READS_MAX: usize = 1024;

/// What is called, on the thread, with the outcome of a task. It should return at once.
pub(crate) type Done<T> = Box<dyn FnOnce(Result<T, FilesError>) + Send>;

/// What the thread can do.
pub(crate) enum FileTask {
    /// Carries out an effect.
    Effect(Effect),
    /// The effects of all entries up to this one were handed over.
    Applied(LogIndex),
    /// Reads for a client: exactly `read.length` bytes.
    Read {
        /// What.
        read: FileRead,
        /// Gets the bytes.
        done: Done<Bytes>,
    },
    /// Reads for a peer that lacks bytes; [`FILE_RANGE_BYTES_MAX`] bytes if it asks for more.
    /// [`FilesError::NotThere`] if this node lacks them, too.
    ReadRange {
        /// Which file.
        file: FileName,
        /// From where.
        offset: u64,
        /// How many bytes.
        length: u32,
        /// Gets the bytes.
        done: Done<Bytes>,
    },
    /// Asks where fetching a file begins: after what is there, and what was fetched earlier.
    FetchFrom {
        /// What is missing.
        missing: MissingBytes,
        /// Gets the offset; the length of the whole file, if nothing is left to fetch.
        done: Done<u64>,
    },
    /// Keeps bytes that were fetched.
    Install {
        /// What is missing.
        missing: MissingBytes,
        /// Where the bytes begin.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
        /// Gets the offset to go on at.
        done: Done<u64>,
    },
    /// Makes a file whole, and durable, of what was fetched.
    Complete {
        /// What was missing.
        missing: MissingBytes,
        /// Gets whether it has the right length and checksum now. If not, what was fetched is gone.
        done: Done<bool>,
    },
}

impl fmt::Debug for FileTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effect(effect) => f.debug_tuple("Effect").field(effect).finish(),
            Self::Applied(index) => f.debug_tuple("Applied").field(index).finish(),
            Self::Read { read, .. } => f.debug_tuple("Read").field(read).finish(),
            Self::ReadRange { file, .. } => f.debug_tuple("ReadRange").field(file).finish(),
            Self::FetchFrom { missing, .. } => f.debug_tuple("FetchFrom").field(missing).finish(),
            Self::Install { missing, .. } => f.debug_tuple("Install").field(missing).finish(),
            Self::Complete { missing, .. } => f.debug_tuple("Complete").field(missing).finish(),
        }
    }
}

/// What the thread says.
#[derive(Debug)]
pub(crate) enum FileEvent {
    /// The effects of all entries up to this one are durable.
    Durable {
        /// The entry.
        up_to: LogIndex,
        /// How long the sync took; zero if there was nothing left to sync.
        took: Duration,
    },
    /// A file was changed from outside: the last that is heard. The node has to be started again,
    /// which puts the file aside and fetches it from a peer.
    Damaged {
        /// Which.
        file: FileName,
        /// For people.
        message: String,
    },
    /// The disk is full. Said once, then [`FileEvent::SpaceAgain`] when the call went through.
    Full {
        /// For people.
        message: String,
    },
    /// What was held up is done.
    SpaceAgain,
    /// The files cannot be written any more: the last that is heard. The node must stop.
    Failed(FilesError),
}

/// The handle to the thread. Dropping it finishes what was submitted, and joins the thread.
#[derive(Debug)]
pub(crate) struct FileThread {
    tasks: Option<Sender<FileTask>>,
    reads: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FileThread {
    /// Starts the thread. `on_event` is called on it, and should return at once.
    pub(crate) fn start(
        files: Files,
        on_event: impl Fn(FileEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let (tasks, waiting) = mpsc::channel();
        let reads = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            files: Some(files),
            on_event,
            waiting,
            reads: Arc::clone(&reads),
            stopping: Arc::clone(&stopping),
            sync_at: None,
            complete: LogIndex::ZERO,
            latest_effect: LogIndex::ZERO,
            durable: LogIndex::ZERO,
        };
        let thread = thread::Builder::new().name("files".to_owned()).spawn(move || worker.run())?;
        Ok(Self { tasks: Some(tasks), reads, stopping, thread: Some(thread) })
    }

    /// Hands over the next task. Its `done`, if it has one, is called in any case.
    pub(crate) fn submit(&self, task: FileTask) {
        let Some(tasks) = &self.tasks else { return refuse(task, FilesError::Closed) };
        if is_read(&task) && self.reads.fetch_add(1, Ordering::AcqRel) >= READS_MAX {
            self.reads.fetch_sub(1, Ordering::AcqRel);
            return refuse(task, FilesError::TooManyReads);
        }
        if let Err(mpsc::SendError(task)) = tasks.send(task) {
            refuse(task, FilesError::Closed);
        }
    }

    /// Waits for no more space on a full disk: after one more attempt, everything that was submitted is
    /// answered with an error. The log has what is not written.
    pub(crate) fn stop_waiting(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Finishes what was submitted, makes it durable, and ends the thread. On a full disk, see
    /// [`FileThread::stop_waiting`].
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for FileThread {
    fn drop(&mut self) {
        self.tasks = None;
        self.stop_waiting();
        if let Some(thread) = self.thread.take() {
            // Of a panic, the thread told.
            drop(thread.join());
        }
    }
}

/// Whether a task counts towards [`READS_MAX`].
fn is_read(task: &FileTask) -> bool {
    match task {
        FileTask::Read { .. } | FileTask::ReadRange { .. } => true,
        FileTask::Effect(_)
        | FileTask::Applied(_)
        | FileTask::FetchFrom { .. }
        | FileTask::Install { .. }
        | FileTask::Complete { .. } => false,
    }
}

/// Answers a task that will not be done.
fn refuse(task: FileTask, error: FilesError) {
    match task {
        FileTask::Effect(_) | FileTask::Applied(_) => {}
        FileTask::Read { done, .. } | FileTask::ReadRange { done, .. } => done(Err(error)),
        FileTask::FetchFrom { done, .. } | FileTask::Install { done, .. } => done(Err(error)),
        FileTask::Complete { done, .. } => done(Err(error)),
    }
}

struct Worker<F> {
    /// `None` after an error that is final.
    files: Option<Files>,
    on_event: F,
    waiting: Receiver<FileTask>,
    reads: Arc<AtomicUsize>,
    /// Set when the end is near, for a thread that does not look at the queue.
    stopping: Arc<AtomicBool>,
    /// When what was written is made durable; `None` if it is.
    sync_at: Option<Instant>,
    /// The last entry whose effects were all handed over.
    complete: LogIndex,
    /// The last entry with an effect.
    latest_effect: LogIndex,
    /// The last entry that was said to be durable.
    durable: LogIndex,
}

impl<F: Fn(FileEvent)> Worker<F> {
    fn run(mut self) {
        // A panic is a broken invariant. It must not look like a disk that hangs.
        if catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            let reason = "their thread panicked".to_owned();
            self.files = None;
            (self.on_event)(FileEvent::Failed(FilesError::Failed { reason }));
            // Answers what is asked, and touches no file.
            self.serve();
        }
    }

    fn serve(&mut self) {
        loop {
            let task = match self.sync_at {
                None => self.waiting.recv().map_err(|_closed| RecvTimeoutError::Disconnected),
                Some(at) => self.waiting.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match task {
                Ok(task) => self.perform(task),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if self.sync_at.is_some_and(|at| Instant::now() >= at) {
                self.sync();
            }
        }
    }

    fn perform(&mut self, task: FileTask) {
        if is_read(&task) {
            self.reads.fetch_sub(1, Ordering::AcqRel);
        }
        match task {
            FileTask::Effect(effect) => self.write(&effect),
            FileTask::Applied(index) => {
                self.complete = self.complete.max(index);
                if self.sync_at.is_none() {
                    self.say_durable(Duration::ZERO);
                }
            }
            FileTask::Read { read, done } => {
                done(self.call(|files| files.read_at(&read.file.file, read.offset, read.length)));
            }
            FileTask::ReadRange { file, offset, length, done } => {
                let length = length.min(FILE_RANGE_BYTES_MAX);
                done(self.call(|files| files.read_at(&file, offset, length)));
            }
            FileTask::FetchFrom { missing, done } => {
                done(self.call(|files| files.fetch_from(&missing)));
            }
            FileTask::Install { missing, offset, bytes, done } => {
                done(self.call(|files| files.install(&missing, offset, &bytes)));
            }
            FileTask::Complete { missing, done } => {
                done(self.call(|files| files.complete(&missing)));
            }
        }
    }

    fn write(&mut self, effect: &Effect) {
        self.complete = self.complete.max(effect.index.previous());
        self.latest_effect = self.latest_effect.max(effect.index);
        let written = self.call(|files| files.write_at(&effect.file, effect.offset, &effect.bytes));
        // Of an error, `call` has told.
        if written.is_ok() {
            self.sync_at.get_or_insert_with(|| Instant::now() + SYNC_INTERVAL);
        }
    }

    fn sync(&mut self) {
        let started = Instant::now();
        self.sync_at = None;
        if self.call(Files::sync).is_ok() {
            self.say_durable(started.elapsed());
        }
    }

    /// Says how far the files are durable, if there were effects since it was said last.
    fn say_durable(&mut self, took: Duration) {
        if self.files.is_some() && self.durable < self.latest_effect && self.durable < self.complete
        {
            self.durable = self.complete;
            (self.on_event)(FileEvent::Durable { up_to: self.complete, took });
        }
    }

    /// Calls the files, again and again while the disk is full, and tells of errors.
    fn call<T>(
        &mut self,
        task: impl Fn(&mut Files) -> Result<T, FilesError>,
    ) -> Result<T, FilesError> {
        let mut is_full = false;
        loop {
            let Some(files) = &mut self.files else { return Err(FilesError::Closed) };
            match task(files) {
                Err(error @ FilesError::Full { .. }) => {
                    if !is_full {
                        is_full = true;
                        (self.on_event)(FileEvent::Full { message: error.to_string() });
                    } else if self.stopping.load(Ordering::Acquire) {
                        self.files = None;
                        return Err(error);
                    }
                    self.wait_for_space();
                }
                outcome => {
                    if is_full {
                        (self.on_event)(FileEvent::SpaceAgain);
                    }
                    return outcome.map_err(|error| self.note(error));
                }
            }
        }
    }

    fn wait_for_space(&self) {
        let until = Instant::now() + RETRY_INTERVAL;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopping.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(left);
        }
    }

    /// Tells of an error after which nothing more is done.
    fn note(&mut self, error: FilesError) -> FilesError {
        match error {
            FilesError::Full { .. }
            | FilesError::NotThere { .. }
            | FilesError::TooManyReads
            | FilesError::Closed => error,
            FilesError::Damaged { ref file, .. } => {
                self.files = None;
                let (file, message) = (file.clone(), error.to_string());
                (self.on_event)(FileEvent::Damaged { file, message });
                error
            }
            FilesError::Failed { .. } => {
                self.files = None;
                (self.on_event)(FileEvent::Failed(error));
                FilesError::Closed
            }
        }
    }
}
