//! Which membership is in force: the latest in the log, committed or not (thesis, 4.1).

use alloc::vec::Vec;

use crate::ids::LogIndex;
use crate::membership::Membership;
use crate::message::{Entry, Payload};

/// The membership of the latest snapshot, and every later one in the log.
///
/// Keeping all of them means that truncation needs no search: the one before is still here.
///
/// Invariant: the indexes of `changes` ascend, and are above `base_index`.
#[derive(Clone, Debug)]
pub(super) struct Memberships {
    base_index: LogIndex,
    base: Membership,
    changes: Vec<(LogIndex, Membership)>,
}

impl Memberships {
    /// The membership as of a snapshot.
    pub(super) fn new(base_index: LogIndex, base: Membership) -> Self {
        Self { base_index, base, changes: Vec::new() }
    }

    /// The one in force.
    pub(super) fn latest(&self) -> &Membership {
        self.changes.last().map_or(&self.base, |(_, membership)| membership)
    }

    /// The index of the entry that carries the one in force.
    pub(super) fn latest_index(&self) -> LogIndex {
        self.changes.last().map_or(self.base_index, |(index, _)| *index)
    }

    /// The one that was in force at `index`, which is not below the snapshot.
    pub(super) fn at(&self, index: LogIndex) -> &Membership {
        let later = self.changes.partition_point(|(change, _)| *change <= index);
        self.changes[..later].last().map_or(&self.base, |(_, membership)| membership)
    }

    /// The one of the snapshot.
    pub(super) fn base(&self) -> &Membership {
        &self.base
    }

    /// Takes note of an entry that was added to the log.
    pub(super) fn note(&mut self, entry: &Entry) {
        match &entry.payload {
            Payload::Membership(membership) if entry.id.index > self.base_index => {
                self.changes.push((entry.id.index, membership.clone()));
            }
            Payload::Empty | Payload::Command(_) | Payload::Membership(_) => {}
        }
    }

    /// Forgets those of entries that were truncated: the one before is in force again.
    pub(super) fn truncate_from(&mut self, from: LogIndex) {
        self.changes.retain(|(index, _)| *index < from);
    }

    /// A snapshot brings its own in place of all, since it replaces the log.
    pub(super) fn replace(&mut self, index: LogIndex, membership: Membership) {
        *self = Self::new(index, membership);
    }

    /// A snapshot brings its own in place of those that it covers.
    pub(super) fn rebase(&mut self, index: LogIndex, membership: Membership) {
        self.changes.retain(|(change, _)| *change > index);
        (self.base_index, self.base) = (index, membership);
    }

    /// Asserts the invariant of the struct.
    pub(super) fn check_invariants(&self) {
        let mut before = self.base_index;
        for (index, _) in &self.changes {
            assert!(*index > before, "memberships out of order");
            before = *index;
        }
    }
}
