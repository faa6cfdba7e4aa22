//! Reads on their way: first until leadership is confirmed, then until enough is applied.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::ids::{ConnectionId, LogIndex, ReadRound, RequestId};
use crate::message::Query;

/// A linearizable read that was not answered yet.
#[derive(Clone, Debug)]
pub(super) struct PendingRead {
    pub(super) conn: ConnectionId,
    pub(super) id: RequestId,
    pub(super) query: Query,
}

/// The reads of a leader, in the order of their rounds (thesis, 6.4).
///
/// Invariant: the indexes in `confirmed` do not go down.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Waiting for a quorum to say that this node still leads.
    unconfirmed: BTreeMap<ReadRound, Vec<PendingRead>>,
    /// Waiting for the state to reach an index.
    confirmed: VecDeque<(LogIndex, PendingRead)>,
}

impl Reads {
    /// How many reads wait.
    pub(super) fn count(&self) -> usize {
        self.unconfirmed.values().map(Vec::len).sum::<usize>() + self.confirmed.len()
    }

    /// A read that `round` will confirm.
    pub(super) fn add(&mut self, round: ReadRound, read: PendingRead) {
        self.unconfirmed.entry(round).or_default().push(read);
    }

    /// All reads of `round` and before may be answered from any state that has reached `index`.
    pub(super) fn confirm(&mut self, round: ReadRound, index: LogIndex) {
        let later = self.unconfirmed.split_off(&round.next());
        let confirmed = core::mem::replace(&mut self.unconfirmed, later);
        for read in confirmed.into_values().flatten() {
            self.confirmed.push_back((index, read));
        }
    }

    /// The next read that a state as of `applied` can answer.
    pub(super) fn next_ready(&mut self, applied: LogIndex) -> Option<PendingRead> {
        let (index, _) = self.confirmed.front()?;
        if *index > applied {
            return None;
        }
        self.confirmed.pop_front().map(|(_, read)| read)
    }

    /// Takes the reads that nobody will confirm any more. Those that are confirmed stay: they will
    /// be true whoever leads by then.
    pub(super) fn take_unconfirmed(&mut self) -> impl Iterator<Item = PendingRead> + use<> {
        core::mem::take(&mut self.unconfirmed).into_values().flatten()
    }

    pub(super) fn check_invariants(&self) {
        assert!(
            self.confirmed.iter().map(|(index, _)| index).is_sorted(),
            "later rounds confirm later indexes"
        );
    }
}
