//! Keep-alives on their way into the log: those of one interval share an entry.

use alloc::vec::Vec;

use crate::ids::{ConnectionId, RequestId};
use crate::lock::KEEP_ALIVES_MAX;
use crate::message::{KeepAlive, RequestKey};
use crate::time::Time;

/// The keep-alives that will go into the log together.
///
/// Invariant: `deadline` is there exactly when something is collected, and never more than
/// [`KEEP_ALIVES_MAX`] are.
#[derive(Clone, Debug, Default)]
pub(super) struct KeepAlives {
    collected: Vec<KeepAlive>,
    /// Who asked for each of them, in the same order.
    requests: Vec<(RequestKey, ConnectionId)>,
    deadline: Option<Time>,
}

impl KeepAlives {
    /// Adds one; the first one sets the deadline of all.
    pub(super) fn add(
        &mut self,
        conn: ConnectionId,
        id: RequestId,
        keep_alive: KeepAlive,
        deadline: Time,
    ) {
        self.requests.push((RequestKey::KeepAlive(keep_alive.session, id), conn));
        self.collected.push(keep_alive);
        self.deadline.get_or_insert(deadline);
    }

    /// When the ones collected so far go into the log; `None` when there are none.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Whether no other one fits into the entry.
    pub(super) fn is_full(&self) -> bool {
        self.collected.len() >= KEEP_ALIVES_MAX
    }

    /// Takes all of them, and who asked for them.
    pub(super) fn take(&mut self) -> (Vec<KeepAlive>, Vec<(RequestKey, ConnectionId)>) {
        self.deadline = None;
        (core::mem::take(&mut self.collected), core::mem::take(&mut self.requests))
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.collected.len(), self.requests.len(), "each is asked for by someone");
        assert_eq!(self.deadline.is_some(), !self.collected.is_empty(), "none waits for ever");
        assert!(self.collected.len() <= KEEP_ALIVES_MAX, "they fit into one entry");
    }
}
