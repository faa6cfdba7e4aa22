//! The replicated log and what a node keeps on disk of it.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::checksum::Checksum;
use crate::config::ENTRY_OVERHEAD_BYTES;
use crate::ids::{EntryId, LogIndex, NodeId, Term, WriteId};
use crate::membership::Membership;
use crate::text::FileName;
use crate::time::LeaseTime;

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity.
    pub id: EntryId,
    /// The lease time at which the leader created it; never below that of the entry before.
    pub stamp: LeaseTime,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry carries. Consensus looks into no command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing but its stamp: the first entry of a term (paper, section 8), and what carries lease
    /// time forward when nothing else does.
    Empty,
    /// The voters from this entry on.
    Membership(Membership),
    /// An encoded command of the lock table.
    Command(Bytes),
}

impl Entry {
    /// What this entry counts for in every limit in bytes: its payload and a fixed part for
    /// everything around it.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        let payload = match &self.payload {
            Payload::Empty | Payload::Membership(_) => 0,
            Payload::Command(bytes) => bytes.len() as u64,
        };
        payload + ENTRY_OVERHEAD_BYTES
    }
}

/// The part of Raft's state that must be on disk before a promise that depends on it is sent
/// (paper, figure 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// The candidate that got this node's vote in `term`.
    pub vote: Option<NodeId>,
}

/// The applied state as of one log index, in place of the entries up to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last entry that the snapshot covers. [`EntryId::ZERO`] for the one that a cluster is
    /// bootstrapped with.
    pub last: EntryId,
    /// The stamp of that entry.
    pub stamp: LeaseTime,
    /// The membership as of that entry.
    pub membership: Membership,
    /// The lock table, encoded. Guarded files are in it by length and checksum only.
    pub data: Bytes,
}

/// A snapshot without its data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// As in [`Snapshot`].
    pub last: EntryId,
    /// As in [`Snapshot`].
    pub stamp: LeaseTime,
    /// As in [`Snapshot`].
    pub membership: Membership,
    /// The length of the data in bytes.
    pub data_length: u64,
    /// The checksum of the data.
    pub checksum: Checksum,
}

impl Snapshot {
    /// Everything but the data.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last: self.last,
            stamp: self.stamp,
            membership: self.membership.clone(),
            data_length: self.data.len() as u64,
            checksum: Checksum::of(&self.data),
        }
    }
}

/// What the host must make durable as one atomic step.
///
/// Applied in the order of the fields: the new hard state; removal of the log from
/// `truncate_from` on; the entries, which follow what is left; the snapshot, in place of the
/// earlier one; removal of the log up to and including `compact_through`.
///
/// Batches are written in the order of their ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteBatch {
    /// Dense from 1 for each start of the node.
    pub id: WriteId,
    /// `None`: as it was.
    pub hard_state: Option<HardState>,
    /// Entries at this index and above are gone.
    pub truncate_from: Option<LogIndex>,
    /// New entries, dense, following what the truncation left.
    pub entries: Vec<Entry>,
    /// A snapshot to keep in place of the one before.
    pub snapshot: Option<Snapshot>,
    /// Entries at this index and below are gone; never above the index of the latest snapshot.
    pub compact_through: Option<LogIndex>,
}

/// What a node starts from: what was durable when it stopped, or a bootstrap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The latest hard state.
    pub hard_state: HardState,
    /// The latest snapshot. Always there: a cluster is bootstrapped with one.
    pub snapshot: Snapshot,
    /// The log: dense; it may begin below the snapshot's index, and must not begin more than one
    /// above it.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// Changes what is durable as a [`WriteBatch`] says: the reference for every host's storage,
    /// and the storage of hosts made of memory.
    pub fn write(&mut self, batch: WriteBatch) {
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.entries.retain(|entry| entry.id.index < from);
        }
        self.entries.extend(batch.entries);
        if let Some(snapshot) = batch.snapshot {
            self.snapshot = snapshot;
        }
        if let Some(through) = batch.compact_through {
            self.entries.retain(|entry| entry.id.index > through);
        }
    }
}

/// A write to a guarded file, decided by the log: doing it twice is harmless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    /// The entry that decided it.
    pub index: LogIndex,
    /// The file; it is created if it is not there.
    pub file: FileName,
    /// Where the bytes go: the file's length before this effect.
    pub offset: u64,
    /// The bytes. Empty when the effect is the creation of the file.
    pub bytes: Bytes,
}
