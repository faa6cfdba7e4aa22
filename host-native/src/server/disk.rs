//! The disk, as the driver sees it: what it hands over, and what it hears back.
//!
//! Behind it are two threads, since a disk makes its callers wait: one writes the log, the other one the
//! guarded files. What they say comes back through one queue. It has no limit of its own: it holds at
//! most one event for each thing that was handed over, which the node limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorlock_core::ids::{LogIndex, WriteId};
use quorlock_core::lock::LockTable;
use quorlock_core::message::{Effect, Recovered, WriteBatch};
use quorlock_core::node::{FileRead, MissingBytes};
use quorlock_core::text::FileName;
use tokio::sync::{mpsc, oneshot};

use super::data_dir::DataDir;
use super::error::StartError;
use super::file_thread::{Done, FileEvent, FileTask, FileThread};
use super::files::{Files, FilesError};
use super::log_thread::{LogEvent, LogThread};
use super::storage::Storage;

/// How long ending waits for those who still read files.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// What the driver hears from the disk.
#[derive(Debug)]
pub(super) enum DiskEvent {
    /// All batches up to this one are durable.
    Persisted { up_to: WriteId, batches: usize, took: Duration },
    /// All effects of entries up to this one are durable.
    EffectsDurable { up_to: LogIndex, took: Duration },
    /// There is no space for the log.
    LogFull { reason: String },
    /// There is again.
    LogSpaceAgain,
    /// The log cannot be written any more.
    LogFailed { reason: String },
    /// A file is not what it was.
    Damaged { file: FileName, reason: String },
    /// There is no space for the files.
    FilesFull { reason: String },
    /// There is again.
    FilesSpaceAgain,
    /// The files cannot be written any more.
    FilesFailed { reason: String },
}

impl From<LogEvent> for DiskEvent {
    fn from(event: LogEvent) -> Self {
        match event {
            LogEvent::Persisted { up_to, batches, took } => {
                Self::Persisted { up_to, batches, took }
            }
            LogEvent::Full { message } => Self::LogFull { reason: message },
            LogEvent::SpaceAgain => Self::LogSpaceAgain,
            LogEvent::Failed(error) => Self::LogFailed { reason: error.to_string() },
        }
    }
}

impl From<FileEvent> for DiskEvent {
    fn from(event: FileEvent) -> Self {
        match event {
            FileEvent::Durable { up_to, took } => Self::EffectsDurable { up_to, took },
            FileEvent::Damaged { file, message } => Self::Damaged { file, reason: message },
            FileEvent::Full { message } => Self::FilesFull { reason: message },
            FileEvent::SpaceAgain => Self::FilesSpaceAgain,
            FileEvent::Failed(error) => Self::FilesFailed { reason: error.to_string() },
        }
    }
}

/// Whether there is space, as the disk said last.
#[derive(Debug, Default)]
pub(super) struct Space {
    log_full: AtomicBool,
    files_full: AtomicBool,
}

impl Space {
    /// Takes what the disk says, and tells people of it.
    pub(super) fn note(&self, event: &DiskEvent) {
        match event {
            DiskEvent::LogFull { reason } => {
                tracing::warn!(reason, "the disk of the log is full: waiting for space");
                self.log_full.store(true, Ordering::Relaxed);
            }
            DiskEvent::LogSpaceAgain => {
                tracing::info!("the log has space again");
                self.log_full.store(false, Ordering::Relaxed);
            }
            DiskEvent::FilesFull { reason } => {
                tracing::warn!(reason, "the disk of the guarded files is full: waiting for space");
                self.files_full.store(true, Ordering::Relaxed);
            }
            DiskEvent::FilesSpaceAgain => {
                tracing::info!("the guarded files have space again");
                self.files_full.store(false, Ordering::Relaxed);
            }
            DiskEvent::Persisted { .. }
            | DiskEvent::EffectsDurable { .. }
            | DiskEvent::LogFailed { .. }
            | DiskEvent::Damaged { .. }
            | DiskEvent::FilesFailed { .. } => {}
        }
    }

    /// The disk is opened anew. If there still is no space, its threads say so again.
    pub(super) fn forget(&self) {
        self.log_full.store(false, Ordering::Relaxed);
        self.files_full.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.log_full.load(Ordering::Relaxed) || self.files_full.load(Ordering::Relaxed)
    }
}

/// The disk of a node that runs.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    log: Arc<LogThread>,
    files: DiskFiles,
}

/// The files of a disk, for whoever reads and fetches ranges of them.
#[derive(Clone, Debug)]
pub(super) struct DiskFiles(Arc<FileThread>);

/// What a node starts from.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Disk,
    pub(super) events: mpsc::UnboundedReceiver<DiskEvent>,
    pub(super) recovered: Recovered,
    /// The lock table of the snapshot.
    pub(super) locks: LockTable,
    /// What the files lack, or have otherwise.
    pub(super) missing: Vec<MissingBytes>,
}

impl Opened {
    /// Whether there is anybody to fetch from what is missing.
    pub(super) fn check_sources(&self, nodes: usize) -> Result<(), StartError> {
        if self.missing.is_empty() || nodes > 1 {
            return Ok(());
        }
        Err(StartError::NobodyToFetchFrom { files: self.missing.len() })
    }
}

/// How the disk of a node is opened. A test puts in one that fails.
pub(super) type OpenDisk = Arc<dyn Fn(&DataDir) -> Result<Opened, StartError> + Send + Sync>;

/// Opens log and files, compares the files with what the snapshot says of them, and starts the threads.
/// It blocks.
pub(super) fn open(directory: &DataDir) -> Result<Opened, StartError> {
    let storage = directory.open_log().map_err(|error| StartError::Log(error.to_string()))?;
    open_with(Box::new(storage), Files::open(directory.path()).map_err(files_error)?)
}

/// The same, with another log or other files.
pub(super) fn open_with(
    mut storage: Box<dyn Storage>,
    mut files: Files,
) -> Result<Opened, StartError> {
    let recovered = storage.recover().map_err(|error| StartError::Log(error.to_string()))?;
    let recovered = recovered.ok_or_else(|| StartError::Log("the log has no state".to_owned()))?;
    let locks = LockTable::decode(&recovered.snapshot.data).map_err(StartError::Snapshot)?;
    let missing = files.verify(locks.files()).map_err(files_error)?;
    let (sender, events) = mpsc::unbounded_channel();
    let log_events = sender.clone();
    let log = LogThread::start(storage, move |event| tell(&log_events, event));
    let log = log.map_err(|error| StartError::Internal(error.to_string()))?;
    let files = FileThread::start(files, move |event| tell(&sender, event));
    let files = files.map_err(|error| StartError::Internal(error.to_string()))?;
    let disk = Disk { log: Arc::new(log), files: DiskFiles(Arc::new(files)) };
    Ok(Opened { disk, events, recovered, locks, missing })
}

fn files_error(error: FilesError) -> StartError {
    StartError::Files(error.to_string())
}

/// It fails only when the driver is gone, which has no use for it then.
fn tell(events: &mpsc::UnboundedSender<DiskEvent>, event: impl Into<DiskEvent>) {
    drop(events.send(event.into()));
}

impl Disk {
    pub(super) fn files(&self) -> DiskFiles {
        self.files.clone()
    }

    pub(super) fn persist(&self, batch: WriteBatch) {
        self.log.submit(batch);
    }

    pub(super) fn effect(&self, effect: Effect) {
        self.files.0.submit(FileTask::Effect(effect));
    }

    /// The effects of all entries up to this one were handed over.
    pub(super) fn applied(&self, up_to: LogIndex) {
        self.files.0.submit(FileTask::Applied(up_to));
    }

    /// Reads for a client. `done` is called on the thread of the files.
    pub(super) fn read(&self, read: FileRead, done: Done<Bytes>) {
        self.files.0.submit(FileTask::Read { read, done });
    }

    /// Finishes what was handed over, and ends the threads. It blocks, also for as long as others have
    /// a handle to the files: until they are answered.
    pub(super) fn stop(self) {
        let Self { log, files } = self;
        last_handle(log).stop();
        // On a full disk, those who wait for an answer would keep their handles for as long as it is full.
        files.0.stop_waiting();
        last_handle(files.0).stop();
    }
}

/// Waits until there is no other handle.
fn last_handle<T>(mut handle: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(handle) {
            Ok(value) => return value,
            Err(shared) => handle = shared,
        }
        std::thread::sleep(STOP_PAUSE);
    }
}

impl DiskFiles {
    /// Bytes for a peer.
    pub(super) async fn range(
        &self,
        file: FileName,
        offset: u64,
        length: u32,
    ) -> Result<Bytes, FilesError> {
        self.ask(|done| FileTask::ReadRange { file, offset, length, done }).await
    }

    /// Where fetching a file begins.
    pub(super) async fn fetch_from(&self, missing: MissingBytes) -> Result<u64, FilesError> {
        self.ask(|done| FileTask::FetchFrom { missing, done }).await
    }

    /// Keeps bytes that were fetched; where to go on.
    pub(super) async fn install(
        &self,
        missing: MissingBytes,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, FilesError> {
        self.ask(|done| FileTask::Install { missing, offset, bytes, done }).await
    }

    /// Whether a file is whole and right now.
    pub(super) async fn complete(&self, missing: MissingBytes) -> Result<bool, FilesError> {
        self.ask(|done| FileTask::Complete { missing, done }).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(Done<T>) -> FileTask,
    ) -> Result<T, FilesError> {
        let (sender, answer) = oneshot::channel();
        // It fails only when nobody waits any more.
        self.0.submit(task(Box::new(|outcome| drop(sender.send(outcome)))));
        answer.await.unwrap_or(Err(FilesError::Closed))
    }
}
