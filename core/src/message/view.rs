//! What can be looked at, and what it looks like.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::EndCause;
use crate::capped;
use crate::checksum::Checksum;
use crate::config::{HISTORY_CEILING, PAGE_MAX};
use crate::ids::{FencingToken, Sequence, SessionId};
use crate::text::{FileName, Label, LockName, Text};
use crate::time::{Duration, LeaseTime};

/// How fresh the answer to a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Consistency {
    /// As if read at one moment between the request and its answer (ReadIndex, thesis 6.4).
    Linearizable,
    /// Whatever the node has applied; the answer says as of which index.
    Stale,
}

/// What can be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Query {
    /// One lock with its queue.
    Lock {
        /// Which.
        lock: LockName,
    },
    /// The locks that are held or waited for, by name.
    Locks {
        /// Only names that begin with this text; empty for all.
        prefix: Text,
        /// Only names after this one.
        after: Option<LockName>,
    },
    /// The past holds of a lock.
    History {
        /// Which.
        lock: LockName,
    },
    /// One file.
    File {
        /// Which.
        file: FileName,
    },
    /// All files, by name.
    Files {
        /// Only names after this one.
        after: Option<FileName>,
    },
    /// Bytes of a file.
    ReadFile {
        /// Which.
        file: FileName,
        /// From where.
        offset: u64,
        /// How many at most; never more than [`READ_BYTES_MAX`](crate::config::READ_BYTES_MAX).
        length: u32,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Lock`]. A lock that nobody holds or waits for looks like one that never was.
    Lock(LockView),
    /// To [`Query::Locks`]: at most [`PAGE_MAX`]; a full page means that there may be more.
    Locks(#[serde(deserialize_with = "capped::vec::<_, _, PAGE_MAX>")] Vec<LockSummary>),
    /// To [`Query::History`]: oldest first.
    History(#[serde(deserialize_with = "capped::vec::<_, _, HISTORY_CEILING>")] Vec<PastHold>),
    /// To [`Query::File`]; `None` when there is no such file.
    File(Option<FileView>),
    /// To [`Query::Files`]: at most [`PAGE_MAX`]; a full page means that there may be more.
    Files(#[serde(deserialize_with = "capped::vec::<_, _, PAGE_MAX>")] Vec<FileView>),
    /// To [`Query::ReadFile`].
    Bytes {
        /// The file; `None` when there is no such file.
        file: Option<FileView>,
        /// The bytes from the offset that was asked for; fewer at the end of the file.
        bytes: Bytes,
    },
}

/// A lock with its queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockView {
    /// Its name.
    pub lock: LockName,
    /// Who holds it.
    pub holder: Option<HolderView>,
    /// How many wait.
    pub waiters: u64,
    /// The first [`PAGE_MAX`] of them, in the order in which they will be granted.
    #[serde(deserialize_with = "capped::vec::<_, _, PAGE_MAX>")]
    pub queue: Vec<WaiterView>,
}

/// Who holds a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HolderView {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub label: Label,
    /// The token of the hold.
    pub token: FencingToken,
    /// How long it has held, in lease time.
    pub held_for: Duration,
    /// How long its session lives without another keep-alive, in lease time.
    pub lease_left: Duration,
    /// How long until the lock is taken back; `None` for never.
    pub hold_left: Option<Duration>,
}

/// Who waits for a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaiterView {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub label: Label,
    /// The number of the request that waits.
    pub sequence: Sequence,
    /// How long it has waited, in lease time.
    pub waited_for: Duration,
}

/// A lock in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockSummary {
    /// Its name.
    pub lock: LockName,
    /// Who holds it.
    pub holder: Option<HolderView>,
    /// How many wait.
    pub waiters: u64,
}

/// A hold that is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastHold {
    /// The session.
    pub session: SessionId,
    /// Whose it was.
    pub label: Label,
    /// The token of the hold.
    pub token: FencingToken,
    /// When it was granted.
    pub since: LeaseTime,
    /// When it ended.
    pub until: LeaseTime,
    /// Why it ended.
    pub cause: EndCause,
}

/// A guarded file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileView {
    /// Its name.
    pub file: FileName,
    /// The lock that guards it.
    pub guard: LockName,
    /// Its length in bytes.
    pub length: u64,
    /// The checksum of its content.
    pub checksum: Checksum,
}
