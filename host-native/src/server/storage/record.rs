//! The record that is written anew in every write: what of the log counts.
//!
//! Everything that the store holds is either named by this record or left over. It makes the
//! parts check each other: there are as many entries as it says, no entry is beyond them, the
//! snapshot is the one that it names. And its number, which grows by one with every write, is what
//! the [mark](super::mark) compares.

use std::collections::BTreeMap;

use quorlock_core::checksum::Checksum;
use quorlock_core::codec;
use quorlock_core::ids::LogIndex;
use quorlock_core::message::{HardState, Snapshot, WriteBatch};
use serde::{Deserialize, Serialize};

use super::snapshot_file::SnapshotFile;

/// What counts.
///
/// Invariant: `first <= next`; the log is the entries from `first` up to, and without, `next`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// How many writes there were.
    pub(super) written: u64,
    /// The hard record.
    pub(super) hard_state: HardState,
    /// The first entry of the log.
    pub(super) first: LogIndex,
    /// The one after the last.
    pub(super) next: LogIndex,
    /// The snapshot.
    pub(super) snapshot: SnapshotFile,
}

impl Record {
    /// The bytes of the record: what it says, and a checksum. The store has checksums of its own, but
    /// not for everything that decides which of several versions of a record is the latest.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = postcard::to_allocvec(self).expect("numbers can be encoded");
        let checksum = Checksum::of(&bytes).value().to_be_bytes();
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// What [`Record::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, checksum) = bytes.split_last_chunk::<8>()?;
        if Checksum::of(bytes).value().to_be_bytes() != *checksum {
            return None;
        }
        let (record, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && record.first <= record.next).then_some(record)
    }
}

/// What a group of batches changes, as one step.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// The new record. Its snapshot is the old one until the new one has a file.
    pub(super) record: Record,
    /// What becomes of single entries: their bytes, or `None` for those that are removed now. Each
    /// once, because within one step the store knows no order.
    pub(super) entries: BTreeMap<LogIndex, Option<Vec<u8>>>,
    /// The latest snapshot among the batches.
    pub(super) snapshot: Option<&'a Snapshot>,
    /// Entries up to here are no longer part of the log, and can be removed later.
    pub(super) compacted: LogIndex,
}

impl<'a> Change<'a> {
    /// The sum of batches, in their order.
    pub(super) fn of(record: &Record, batches: &'a [WriteBatch]) -> Self {
        let mut change = Self {
            record: Record { written: record.written + 1, ..record.clone() },
            entries: BTreeMap::new(),
            snapshot: None,
            compacted: LogIndex::ZERO,
        };
        for batch in batches {
            change.add(batch);
        }
        change
    }

    fn add(&mut self, batch: &'a WriteBatch) {
        if let Some(hard_state) = batch.hard_state {
            self.record.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.truncate(from);
        }
        if let Some(first) = batch.entries.first() {
            let is_empty = self.record.first == self.record.next;
            assert!(is_empty || first.id.index == self.record.next, "entries follow the last one");
            if is_empty {
                self.record.first = first.id.index;
            }
            self.record.next = first.id.index.plus(batch.entries.len() as u64);
        }
        for entry in &batch.entries {
            self.entries.insert(entry.id.index, Some(codec::encode(entry)));
        }
        if let Some(snapshot) = &batch.snapshot {
            self.snapshot = Some(snapshot);
        }
        if let Some(through) = batch.compact_through {
            self.compact(through);
        }
    }

    fn truncate(&mut self, from: LogIndex) {
        let record = &mut self.record;
        let from = from.max(record.first);
        for index in from.value()..record.next.value() {
            self.entries.insert(LogIndex::new(index), None);
        }
        record.next = record.next.min(from);
    }

    fn compact(&mut self, through: LogIndex) {
        let record = &mut self.record;
        if through >= record.first {
            record.first = through.next().min(record.next);
            self.compacted = self.compacted.max(record.first.previous());
            // Nor are those written that came with this very step.
            for (_, bytes) in self.entries.range_mut(..record.first) {
                *bytes = None;
            }
        }
    }
}
