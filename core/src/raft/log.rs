//! The part of the replicated log that is in memory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ids::{EntryId, LogIndex, Term};
use crate::message::Entry;
use crate::time::LeaseTime;

/// The entries above a base. The base is the last entry that is known by its identity alone,
/// because everything up to it was compacted away, or [`EntryId::ZERO`].
///
/// Invariants: indexes are dense from the one after the base; terms and stamps never go down, nor
/// below those of the base; `cost_end` is the sum of the costs so far.
#[derive(Clone, Debug)]
pub(super) struct Log {
    base: EntryId,
    base_stamp: LeaseTime,
    /// The sum of the costs of all entries that were compacted away since the log was made.
    base_cost: u64,
    entries: VecDeque<Stored>,
}

/// An entry, and the sum of the costs up to and including it: the bytes of any range of the log
/// are one subtraction, so nobody needs a counter that could go wrong.
#[derive(Clone, Debug)]
struct Stored {
    entry: Entry,
    cost_end: u64,
}

impl Log {
    /// An empty log that goes on after `base`.
    pub(super) fn new(base: EntryId, base_stamp: LeaseTime) -> Self {
        Self { base, base_stamp, base_cost: 0, entries: VecDeque::new() }
    }

    /// The entry before the first one.
    pub(super) fn base(&self) -> EntryId {
        self.base
    }

    /// The last entry; the base if there is none.
    pub(super) fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, |stored| stored.entry.id)
    }

    /// The index of the last entry.
    pub(super) fn last_index(&self) -> LogIndex {
        self.last().index
    }

    /// The stamp of the last entry.
    pub(super) fn last_stamp(&self) -> LeaseTime {
        self.entries.back().map_or(self.base_stamp, |stored| stored.entry.stamp)
    }

    /// The entry at `index`; `None` if it is compacted away, the base, or beyond the end.
    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.stored(index).map(|stored| &stored.entry)
    }

    /// The identity of the entry at `index`, base included.
    pub(super) fn id(&self, index: LogIndex) -> Option<EntryId> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| entry.id)
    }

    /// The term of the entry at `index`, base included.
    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        self.id(index).map(|id| id.term)
    }

    /// The stamp of the entry at `index`, base included.
    pub(super) fn stamp(&self, index: LogIndex) -> Option<LeaseTime> {
        if index == self.base.index {
            return Some(self.base_stamp);
        }
        self.entry(index).map(|entry| entry.stamp)
    }

    /// Whether the log is known to contain this entry, and so to equal every log that does.
    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.id(id.index) == Some(id)
    }

    /// The last entry whose index and whose term are both not above those of `bound`.
    ///
    /// Two logs cannot agree above this: it is where the search for their common part goes on, and
    /// it skips a whole term at a time. `None` if it is below the base.
    pub(super) fn last_within(&self, bound: EntryId) -> Option<EntryId> {
        let end = self
            .entries
            .partition_point(|Stored { entry, .. }| {
                entry.id.index <= bound.index && entry.id.term <= bound.term
            })
            .checked_sub(1);
        match end {
            Some(position) => Some(self.entries[position].entry.id),
            None => {
                Some(self.base).filter(|base| base.index <= bound.index && base.term <= bound.term)
            }
        }
    }

    /// The cost in bytes of the entries after `after`, up to and including `through`. What was
    /// compacted away costs nothing.
    pub(super) fn bytes_between(&self, after: LogIndex, through: LogIndex) -> u64 {
        self.cost_end(through).saturating_sub(self.cost_end(after))
    }

    /// A copy of the entries from `from` on: at most `count_max`, and as many as cost at most
    /// `bytes_max` together. If even the first costs more, it is copied alone.
    pub(super) fn copy_from(&self, from: LogIndex, count_max: u64, bytes_max: u64) -> Vec<Entry> {
        let Some(start) = self.position(from) else {
            return Vec::new();
        };
        let cost_start = self.cost_end(from.previous());
        let count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        self.entries
            .range(start..)
            .take(count_max)
            .enumerate()
            .take_while(|(nth, stored)| *nth == 0 || stored.cost_end - cost_start <= bytes_max)
            .map(|(_, stored)| stored.entry.clone())
            .collect()
    }

    /// Every entry from `from` on, the oldest first.
    pub(super) fn iter_from(&self, from: LogIndex) -> impl Iterator<Item = &Entry> {
        let start = self.position(from).unwrap_or(self.entries.len());
        self.entries.range(start..).map(|stored| &stored.entry)
    }

    /// Adds an entry at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.id.index == last.index.next(), "the log has no gaps");
        assert!(entry.id.index < LogIndex::MAX, "the largest index stays unused");
        assert!(entry.id.term >= last.term, "terms never go down in the log");
        assert!(entry.stamp >= self.last_stamp(), "stamps never go down in the log");
        let cost_end = self.cost_end(last.index) + entry.cost_bytes();
        self.entries.push_back(Stored { entry, cost_end });
    }

    /// Removes the entry at `from` and all after it.
    pub(super) fn truncate_from(&mut self, from: LogIndex) {
        assert!(from > self.base.index, "what is compacted away cannot be truncated");
        if let Some(position) = self.position(from) {
            self.entries.truncate(position);
        }
    }

    /// The first index, base included, after which the entries through `through` cost at most
    /// `bytes_max`.
    pub(super) fn first_within(&self, through: LogIndex, bytes_max: u64) -> LogIndex {
        let cost_min = self.cost_end(through).saturating_sub(bytes_max);
        if self.base_cost >= cost_min {
            return self.base.index;
        }
        let position = self.entries.partition_point(|stored| stored.cost_end < cost_min);
        self.base.index.plus(position as u64 + 1)
    }

    /// Makes the entry at `through` the base, unless the base is already there or beyond.
    pub(super) fn compact_through(&mut self, through: LogIndex) {
        let Some(position) = self.position(through) else {
            assert!(through <= self.base.index, "the log ends below its compaction point");
            return;
        };
        let Stored { entry, cost_end } = &self.entries[position];
        (self.base, self.base_stamp, self.base_cost) = (entry.id, entry.stamp, *cost_end);
        drop(self.entries.drain(..=position));
    }

    /// Forgets everything and goes on after another base.
    pub(super) fn reset(&mut self, base: EntryId, base_stamp: LeaseTime) {
        *self = Self::new(base, base_stamp);
    }

    /// Asserts the invariants of the struct.
    pub(super) fn check_invariants(&self) {
        let (mut last, mut stamp, mut cost) = (self.base, self.base_stamp, self.base_cost);
        for Stored { entry, cost_end } in &self.entries {
            assert!(entry.id.index == last.index.next(), "a gap in the log");
            assert!(entry.id.term >= last.term, "a term in the log goes down");
            assert!(entry.stamp >= stamp, "a stamp in the log goes down");
            assert!(*cost_end == cost + entry.cost_bytes(), "the sum of costs is wrong");
            (last, stamp, cost) = (entry.id, entry.stamp, *cost_end);
        }
    }

    /// The sum of the costs through `index`; that of the base below it, of the end above it.
    fn cost_end(&self, index: LogIndex) -> u64 {
        let index = index.min(self.last_index());
        self.stored(index).map_or(self.base_cost, |stored| stored.cost_end)
    }

    fn stored(&self, index: LogIndex) -> Option<&Stored> {
        self.entries.get(self.position(index)?)
    }

    /// Where an entry is in `entries`; `None` unless it is there.
    fn position(&self, index: LogIndex) -> Option<usize> {
        let offset = index.value().checked_sub(self.base.index.value() + 1)?;
        usize::try_from(offset).ok().filter(|position| *position < self.entries.len())
    }
}

#[cfg(test)]
mod tests;
