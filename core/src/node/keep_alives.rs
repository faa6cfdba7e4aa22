//! Keep-alives on their way into the log: those of one interval share an entry.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{ConnectionId, RequestId, SessionId};
use crate::lock::KEEP_ALIVES_MAX;
use crate::message::{KeepAlive, RequestKey};
use crate::time::Time;

/// The most bytes of the keep-alives that are collected, about.
const BYTES_MAX: usize = 1 << 20;

/// The keep-alives that will go into the log together: one of each session, the latest.
///
/// Invariants: `deadline` is there exactly when something is collected; there are never more than
/// [`KEEP_ALIVES_MAX`] requests, nor many more than [`BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct KeepAlives {
    collected: BTreeMap<SessionId, KeepAlive>,
    /// Who asked for them.
    requests: Vec<(RequestKey, ConnectionId)>,
    bytes: usize,
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
        self.bytes += size(&keep_alive);
        if let Some(earlier) = self.collected.insert(keep_alive.session, keep_alive) {
            self.bytes -= size(&earlier);
        }
        self.deadline.get_or_insert(deadline);
    }

    /// When the ones collected so far go into the log; `None` when there are none.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Whether they should go into the log before any other is added.
    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= KEEP_ALIVES_MAX || self.bytes >= BYTES_MAX
    }

    /// Takes all of them, by session, and who asked for them.
    pub(super) fn take(&mut self) -> (Vec<KeepAlive>, Vec<(RequestKey, ConnectionId)>) {
        let taken = core::mem::take(self);
        (taken.collected.into_values().collect(), taken.requests)
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.collected.len() <= self.requests.len(), "each is asked for by someone");
        assert_eq!(self.deadline.is_some(), !self.collected.is_empty(), "none waits for ever");
        assert!(self.requests.len() <= KEEP_ALIVES_MAX, "they fit into one entry");
        let bytes: usize = self.collected.values().map(size).sum();
        assert_eq!(self.bytes, bytes, "the bytes are those of what is collected");
    }
}

/// About how many bytes a keep-alive has at most: every number in it has up to eight.
fn size(keep_alive: &KeepAlive) -> usize {
    8 * (3 + keep_alive.acked.except.len())
}
