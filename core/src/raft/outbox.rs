//! Messages that wait to be sent: some for a write to become durable, all for the caller to take
//! them.

use alloc::collections::VecDeque;

use crate::ids::{NodeId, WriteId};
use crate::message::{Envelope, Message};

/// Messages in the order in which they were made, each with the write that it must not precede.
///
/// Invariant: at most one message of a kind for each node, but for `AppendEntries` with entries,
/// which the in-flight window of its follower bounds. So no sender can make this queue grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    /// Zero for a message that promises nothing.
    needs: WriteId,
    envelope: Envelope,
}

impl Outbox {
    /// Queues a message that must not leave before `needs` is durable. It replaces a message of
    /// its kind to the same node: the network may lose any message, and the later one knows more.
    pub(super) fn push(&mut self, needs: WriteId, envelope: Envelope) {
        self.queue.retain(|held| !is_replaced_by(&held.envelope, &envelope));
        self.queue.push_back(Held { needs, envelope });
    }

    /// The first message that may leave, given which writes are durable.
    pub(super) fn pop(&mut self, is_acked: impl Fn(WriteId) -> bool) -> Option<Envelope> {
        let position = self.queue.iter().position(|held| is_acked(held.needs))?;
        self.queue.remove(position).map(|held| held.envelope)
    }

    /// Drops everything: the term moved on, and what was promised in the old one is void.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Asserts the invariant of the struct.
    pub(super) fn check_invariants(&self) {
        for (position, held) in self.queue.iter().enumerate() {
            let mut later = self.queue.iter().skip(position + 1);
            let replaced = later.any(|other| is_replaced_by(&held.envelope, &other.envelope));
            assert!(!replaced, "two messages of a kind for one node");
        }
    }
}

/// Whether `old` need not be sent once `new` is.
fn is_replaced_by(old: &Envelope, new: &Envelope) -> bool {
    old.to == new.to
        && core::mem::discriminant(&old.message) == core::mem::discriminant(&new.message)
        && !carries_entries(&old.message)
}

fn carries_entries(message: &Message) -> bool {
    matches!(message, Message::AppendEntries(append) if !append.entries.is_empty())
}

/// An envelope from `from` to `to`.
pub(super) fn envelope(from: NodeId, to: NodeId, message: Message) -> Envelope {
    Envelope { from, to, message }
}
