//! What is durable on this node's own disk, and what still has to be written.
//!
//! Raft's safety rests on promises that survive a crash: a vote, and the acknowledgement of an
//! entry. Here is the only place that decides what is durable, and it decides by the acknowledged
//! [`WriteId`] alone.

use alloc::collections::VecDeque;

use crate::ids::{LogIndex, WriteId};
use crate::message::{HardState, Snapshot, WriteBatch};
use crate::time::Time;

use super::log::Log;

/// A truncation from here leaves nothing.
const FIRST: LogIndex = LogIndex::ZERO.next();

/// Batches on their way to the disk, and what the next one must contain.
///
/// Invariants: `acked <= issued`; `in_flight` holds the ids between them, dense; `covers` never
/// goes down along `in_flight`, nor below `durable`.
#[derive(Clone, Debug)]
pub(super) struct Persistence {
    issued: WriteId,
    acked: WriteId,
    in_flight: VecDeque<InFlight>,
    durable: LogIndex,
    /// The batch that makes the present hard state durable; the next one while it is in none.
    hard_state_write: WriteId,
    next: Unsaved,
}

/// A batch that was handed out and not acknowledged.
#[derive(Clone, Debug)]
struct InFlight {
    id: WriteId,
    issued_at: Time,
    /// Once this batch is durable, the disk has the log of now up to here. A truncation lowers it:
    /// a late acknowledgement of entries that were overwritten meanwhile counts for nothing.
    covers: LogIndex,
}

/// What changed since the last batch.
#[derive(Clone, Debug, Default)]
struct Unsaved {
    hard_state: bool,
    truncate_from: Option<LogIndex>,
    /// Entries from here on are in no batch.
    entries_from: LogIndex,
    snapshot: bool,
    compact_through: Option<LogIndex>,
}

impl Persistence {
    /// Everything recovered is durable, through `last`.
    pub(super) fn new(last: LogIndex) -> Self {
        Self {
            issued: WriteId::ZERO,
            acked: WriteId::ZERO,
            in_flight: VecDeque::new(),
            durable: last,
            hard_state_write: WriteId::ZERO,
            next: Unsaved { entries_from: last.next(), ..Unsaved::default() },
        }
    }

    /// Up to where the disk has the log as it is now.
    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The write that a promise made now must wait for: the one with the present hard state.
    pub(super) fn hard_state_write(&self) -> WriteId {
        self.hard_state_write
    }

    /// The write that will have everything changed so far.
    pub(super) fn next_write(&self) -> WriteId {
        self.issued.next()
    }

    /// Whether a write, and so all before it, is durable.
    pub(super) fn is_acked(&self, write: WriteId) -> bool {
        write <= self.acked
    }

    /// Whether the present hard state is durable.
    pub(super) fn is_hard_state_durable(&self) -> bool {
        self.is_acked(self.hard_state_write)
    }

    /// When the oldest batch that is not durable was handed out.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        self.in_flight.front().map(|batch| batch.issued_at)
    }

    /// The hard state changed.
    pub(super) fn hard_state_changed(&mut self) {
        self.next.hard_state = true;
        self.hard_state_write = self.next_write();
    }

    /// Entries from `from` on were removed from the log.
    pub(super) fn truncated(&mut self, from: LogIndex) {
        self.forget_after(from.previous());
        if from < self.next.entries_from {
            // Some of them are in a batch already, so the disk has to remove them too.
            self.next.entries_from = from;
            self.next.truncate_from = Some(self.next.truncate_from.map_or(from, |f| f.min(from)));
        }
    }

    /// A snapshot of this node's own took the place of the log through `through`.
    pub(super) fn compacted(&mut self, through: LogIndex) {
        self.next.snapshot = true;
        self.next.compact_through = Some(through);
    }

    /// A snapshot from the leader took the place of the log through `last`, and of what followed
    /// unless it fitted. The entries through `committed` are the same in both.
    pub(super) fn installed(&mut self, last: LogIndex, committed: LogIndex, log_kept: bool) {
        self.compacted(last);
        if !log_kept {
            self.forget_after(committed);
            self.next.truncate_from = Some(FIRST);
            self.next.entries_from = last.next();
        }
    }

    /// The next batch; `None` while nothing changed.
    pub(super) fn take_batch(
        &mut self,
        now: Time,
        hard_state: HardState,
        log: &Log,
        snapshot: &Snapshot,
    ) -> Option<WriteBatch> {
        if !self.is_unsaved(log) {
            return None;
        }
        let mut next = core::mem::take(&mut self.next);
        self.next.entries_from = log.last_index().next();
        let first = log.base().index.next();
        if next.entries_from < first {
            // Compaction overtook the disk. What the disk has does not reach up to the entries
            // that are left, and the snapshot in this batch covers all of it.
            (next.truncate_from, next.entries_from) = (Some(FIRST), first);
        }
        self.issued = self.next_write();
        let covers = log.last_index();
        self.in_flight.push_back(InFlight { id: self.issued, issued_at: now, covers });
        Some(WriteBatch {
            id: self.issued,
            hard_state: next.hard_state.then_some(hard_state),
            truncate_from: next.truncate_from,
            entries: log.iter_from(next.entries_from).cloned().collect(),
            snapshot: next.snapshot.then(|| snapshot.clone()),
            compact_through: next.compact_through,
        })
    }

    /// All batches through `up_to` are durable. One that was acknowledged before changes nothing.
    pub(super) fn acknowledge(&mut self, up_to: WriteId) {
        assert!(up_to <= self.issued, "the host acknowledged a write that was never issued");
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.id <= up_to) {
            self.durable = self.durable.max(batch.covers);
            self.acked = batch.id;
        }
    }

    /// Asserts the invariants of the struct.
    pub(super) fn check_invariants(&self, log: &Log) {
        assert!(self.acked <= self.issued, "more acknowledged than issued");
        assert!(self.hard_state_write <= self.next_write(), "a promise waits for ever");
        let (mut id, mut covers) = (self.acked, self.durable);
        for batch in &self.in_flight {
            assert!(batch.id == id.next(), "a gap between batches");
            assert!(batch.covers >= covers, "a later batch covers less");
            (id, covers) = (batch.id, batch.covers);
        }
        assert!(id == self.issued, "a batch is missing");
        assert!(covers <= log.last_index(), "more durable than there is");
        assert!(self.next.entries_from <= log.last_index().next(), "unsaved beyond the end");
    }

    fn is_unsaved(&self, log: &Log) -> bool {
        self.next.hard_state
            || self.next.truncate_from.is_some()
            || self.next.entries_from <= log.last_index()
            || self.next.snapshot
            || self.next.compact_through.is_some()
    }

    /// What the disk has after `index` is no longer this node's log.
    fn forget_after(&mut self, index: LogIndex) {
        self.durable = self.durable.min(index);
        for batch in &mut self.in_flight {
            batch.covers = batch.covers.min(index);
        }
    }
}

#[cfg(test)]
mod tests;
