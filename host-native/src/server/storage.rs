//! What a node keeps of the log, durably.
//!
//! [`Storage`] is the seam: the node's [`LogThread`](super::log_thread::LogThread) owns one and
//! knows no more about it than these three verbs, so that a test can put in a disk that fails.
//! [`FjallStorage`] is the one that nodes have.

pub(super) mod durable;
mod fjall_storage;
mod journal;
mod mark;
mod record;
mod snapshot_file;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::time::Duration;

use quorlock_core::message::{Recovered, WriteBatch};

pub(crate) use fjall_storage::FjallStorage;

/// How often [`Storage::tidy`] is called while there is something to write.
pub(crate) const TIDY_INTERVAL: Duration = Duration::from_millis(100);

/// Where a node keeps its log. It belongs to one thread.
pub(crate) trait Storage: Send {
    /// What is durable. `None` if nothing was ever written here.
    ///
    /// To be called once, before the first write.
    fn recover(&mut self) -> Result<Option<Recovered>, StorageError>;

    /// Makes batches durable, all of them or none, each as [`Recovered::write`] does, in this order.
    ///
    /// [`StorageError::Full`]: none of them counts, and the same batches may be handed over
    /// again, with others behind them, as soon as there may be space. After any other error the
    /// storage takes no more writes: what was in flight may or may not be on the disk, and nobody
    /// may find out by trying again.
    fn write(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError>;

    /// Does a part of what can wait. To be called every so often, best while there is nothing to
    /// write. Whether anything is left.
    ///
    /// Errors mean what they mean for [`Storage::write`].
    fn tidy(&mut self) -> Result<bool, StorageError>;
}

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// No space, or no quota. Everything that was acknowledged is there.
    #[error(
        "the disk of the log is full ({reason}): the node goes on by itself once there is space"
    )]
    Full {
        /// What the system said.
        reason: String,
    },
    /// A write or a sync failed, and what it was about may or may not be on the disk.
    #[error(
        "the log cannot be written ({reason}): the node must stop, since what was written last may be \
         lost; check the disk, then start it again"
    )]
    Failed {
        /// What the system said.
        reason: String,
    },
    /// What is on the disk is not what was written.
    #[error(
        "the log is damaged ({reason}): the node must not start, since it could break promises that \
         it no longer knows of; restore its data directory as it was, or leave this node out"
    )]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Writes that were acknowledged are not there.
    #[error(
        "the log lost acknowledged entries (it ends at write {found}, and write {marked} was \
         durable): the node must not vote without them; restore its data directory as it was, or \
         leave this node out"
    )]
    Lost {
        /// The number of the last write that is there.
        found: u64,
        /// The number of a write that was durable.
        marked: u64,
    },
    /// The directory of the log cannot be read or made.
    #[error("the log cannot be opened ({doing}: {source}): check the directory and who may use it")]
    Open {
        /// At what.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl StorageError {
    /// A call of the system failed while the log was opened.
    fn open(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Open { doing, source }
    }

    /// A write failed: for lack of space, or for good.
    fn writing(doing: &str, error: &io::Error) -> Self {
        let reason = format!("{doing}: {error}");
        if durable::is_full(error) { Self::Full { reason } } else { Self::Failed { reason } }
    }

    /// A sync failed. It does not matter why: what was not synced may be lost, though the system
    /// may go on to show it.
    fn syncing(doing: &str, error: &io::Error) -> Self {
        Self::Failed { reason: format!("{doing}: {error}") }
    }
}

fn damaged(reason: String) -> StorageError {
    StorageError::Damaged { reason }
}

/// Whether a name is one of those in the directory of a log.
pub(super) fn is_part_of_log(name: &str) -> bool {
    let mark = durable::temporary(Path::new(fjall_storage::MARK));
    [fjall_storage::STORE, fjall_storage::MARK].contains(&name)
        || Path::new(name) == mark
        || snapshot_file::is_name(name)
}
