//! The thread that writes the log.
//!
//! It owns the [`Storage`], and does one thing after the other: takes everything that waits, writes
//! it as one group with one sync, says up to where the log is durable. The slower the disk, the
//! larger the groups.
//!
//! The queue has no limit of its own. What is in it is a part of the log that the node has in
//! memory, and `Config::log_bytes_max` bounds that: at the limit the node takes no more entries,
//! and it writes no more than it takes.
//!
//! When the disk is full, the group stays, and is tried again every [`RETRY_INTERVAL`]; what
//! arrives meanwhile waits behind it. Nothing is acknowledged, and by that the node knows: a leader
//! steps down by itself, and nobody campaigns. Any other error ends the thread for good.

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorlock_core::ids::WriteId;
use quorlock_core::message::WriteBatch;

use super::storage::{Storage, StorageError, TIDY_INTERVAL};

/// How long a full disk is left alone.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A group takes no more batches once its entries and snapshots cost this much, so that the first of
/// them does not wait too long for the last.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// What the thread says.
#[derive(Debug)]
pub(crate) enum LogEvent {
    /// All batches up to this one are durable.
    Persisted {
        /// The latest of them.
        up_to: WriteId,
        /// How many were written together.
        batches: usize,
        /// How long the write took, with its sync.
        took: Duration,
    },
    /// The disk is full. Said once, then [`LogEvent::SpaceAgain`] when the write went through.
    Full {
        /// For people.
        message: String,
    },
    /// What was held up is durable.
    SpaceAgain,
    /// The log cannot be written any more: the last that is heard. The node must stop.
    Failed(StorageError),
}

/// The handle to the thread. Dropping it finishes what was submitted and joins the thread.
#[derive(Debug)]
pub(crate) struct LogThread {
    batches: Option<Sender<WriteBatch>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread. `on_event` is called on it, and should return at once.
    pub(crate) fn start(
        storage: Box<dyn Storage>,
        on_event: impl Fn(LogEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, waiting) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            storage,
            on_event,
            waiting,
            stopping: Arc::clone(&stopping),
            group: Vec::new(),
            is_full: false,
        };
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { batches: Some(batches), stopping, thread: Some(thread) })
    }

    /// Hands over the next batch. Nothing comes of it once [`LogEvent::Failed`] was said.
    pub(crate) fn submit(&self, batch: WriteBatch) {
        if let Some(batches) = &self.batches {
            // The thread is gone after a failure, of which it told.
            drop(batches.send(batch));
        }
    }

    /// Finishes what was submitted, and ends the thread. On a full disk there is one more attempt; what
    /// it does not write was never acknowledged.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.batches = None;
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Of a panic, the thread told.
            drop(thread.join());
        }
    }
}

struct Writer<F> {
    storage: Box<dyn Storage>,
    on_event: F,
    waiting: Receiver<WriteBatch>,
    /// Set when the handle is dropped, for a thread that does not look at the queue.
    stopping: Arc<AtomicBool>,
    /// What was taken from the queue and is not durable.
    group: Vec<WriteBatch>,
    is_full: bool,
}

impl<F: Fn(LogEvent)> Writer<F> {
    fn run(mut self) {
        // A panic is a broken invariant. It must not look like a disk that hangs.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve())).unwrap_or_else(|_panic| {
            Err(StorageError::Failed { reason: "its thread panicked".to_owned() })
        });
        if let Err(error) = outcome {
            (self.on_event)(LogEvent::Failed(error));
        }
    }

    fn serve(&mut self) -> Result<(), StorageError> {
        let mut tidy_at = Instant::now();
        let mut is_tidy = false;
        loop {
            if self.is_full {
                let is_last = self.wait_for_space();
                self.write()?;
                if self.is_full && is_last {
                    return Ok(());
                }
                continue;
            }
            let first = if is_tidy {
                self.waiting.recv().map_err(|_closed| RecvTimeoutError::Disconnected)
            } else {
                self.waiting.recv_timeout(tidy_at.saturating_duration_since(Instant::now()))
            };
            match first {
                Ok(batch) => {
                    self.take_group(batch);
                    self.write()?;
                    is_tidy = false;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.tidy().map(drop),
            }
            if !is_tidy && Instant::now() >= tidy_at {
                is_tidy = !self.tidy()?;
                tidy_at = Instant::now() + TIDY_INTERVAL;
            }
        }
    }

    /// Leaves the disk alone for a while. Whether the thread is to end.
    fn wait_for_space(&self) -> bool {
        let until = Instant::now() + RETRY_INTERVAL;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let is_stopping = self.stopping.load(Ordering::Acquire);
            if is_stopping || left.is_zero() {
                return is_stopping;
            }
            thread::park_timeout(left);
        }
    }

    /// Takes what waits, up to the limit of a group.
    fn take_group(&mut self, first: WriteBatch) {
        let mut bytes = cost_bytes(&first);
        self.group.push(first);
        while bytes < GROUP_BYTES_MAX {
            let Ok(batch) = self.waiting.try_recv() else { break };
            bytes += cost_bytes(&batch);
            self.group.push(batch);
        }
    }

    /// Writes the group; keeps it if the disk is full.
    fn write(&mut self) -> Result<(), StorageError> {
        let started = Instant::now();
        match self.storage.write(&self.group) {
            Ok(()) => {}
            Err(error @ StorageError::Full { .. }) => {
                self.note_full(&error);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let took = started.elapsed();
        let up_to = self.group.last().expect("a group has a batch").id;
        let batches = self.group.len();
        self.group.clear();
        (self.on_event)(LogEvent::Persisted { up_to, batches, took });
        if self.is_full {
            self.is_full = false;
            (self.on_event)(LogEvent::SpaceAgain);
        }
        Ok(())
    }

    /// Lets the storage tidy up. A full disk shows at the next write.
    fn tidy(&mut self) -> Result<bool, StorageError> {
        match self.storage.tidy() {
            Ok(more) => Ok(more),
            Err(StorageError::Full { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn note_full(&mut self, error: &StorageError) {
        if !self.is_full {
            self.is_full = true;
            (self.on_event)(LogEvent::Full { message: error.to_string() });
        }
    }
}

/// What a batch counts for in the limit of a group.
fn cost_bytes(batch: &WriteBatch) -> u64 {
    let entries: u64 = batch.entries.iter().map(quorlock_core::message::Entry::cost_bytes).sum();
    let snapshot = batch.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len() as u64);
    entries + snapshot
}
