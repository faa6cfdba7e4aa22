//! What is on its way between nodes, and which ways are cut.

use std::collections::BTreeSet;

use quorlock_core::ids::NodeId;
use quorlock_core::message::Envelope;
use quorlock_core::node::Input;

use super::trace::{LossReason, TraceEvent};
use super::{Lab, on_the_wire};

/// What is on its way between nodes, and which ways are cut.
///
/// Invariant: nothing is on its way where the way is cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// In the order in which they were sent, but for what a test has moved.
    mail: Vec<Envelope>,
    /// From whom, to whom.
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Lab {
    /// What is on its way, in the order in which [`Lab::deliver_all`] would deliver it.
    #[must_use]
    pub fn mail(&self) -> &[Envelope] {
        &self.network.mail
    }

    /// Puts a message into the mail, whoever wrote it.
    pub fn send(&mut self, envelope: Envelope) {
        let message = on_the_wire(&envelope.message);
        let envelope = Envelope { message, ..envelope };
        if self.network.cuts.contains(&(envelope.from, envelope.to)) {
            self.lose(envelope, LossReason::Cut);
        } else {
            self.trace(|| TraceEvent::Sent(envelope.clone()));
            self.network.mail.push(envelope);
        }
    }

    fn lose(&mut self, envelope: Envelope, reason: LossReason) {
        self.trace(|| TraceEvent::Lost { envelope, reason });
    }

    /// Delivers the message at a position of [`Lab::mail`]; false when there is none.
    pub fn deliver_at(&mut self, position: usize) -> bool {
        if position >= self.network.mail.len() {
            return false;
        }
        let envelope = self.network.mail.remove(position);
        let to = envelope.to;
        if self.nodes.get(&to).is_none_or(|node| node.node.is_none()) {
            self.lose(envelope, LossReason::Down);
        } else {
            self.trace(|| TraceEvent::Delivered(envelope.clone()));
            self.input(to.value(), Input::Message(envelope));
        }
        true
    }

    /// Delivers the oldest message from one node to another; false when there is none.
    pub fn deliver(&mut self, from: u64, to: u64) -> bool {
        self.position(from, to, 0).is_some_and(|position| self.deliver_at(position))
    }

    /// Delivers messages until none is left, without making anything durable.
    ///
    /// # Panics
    /// If there is no end to it.
    pub fn deliver_all(&mut self) {
        for _ in 0..super::STEPS_MAX {
            if !self.deliver_at(0) {
                return;
            }
        }
        panic!("the nodes do not stop talking");
    }

    /// Delivers what is in the mail now, and nothing that is sent meanwhile.
    pub fn deliver_round(&mut self) {
        for _ in 0..self.network.mail.len() {
            self.deliver_at(0);
        }
    }

    /// Loses the oldest message from one node to another; false when there is none.
    pub fn drop(&mut self, from: u64, to: u64) -> bool {
        self.position(from, to, 0).is_some_and(|position| self.drop_at(position))
    }

    /// Loses the message at a position of [`Lab::mail`]; false when there is none.
    pub fn drop_at(&mut self, position: usize) -> bool {
        if position >= self.network.mail.len() {
            return false;
        }
        let envelope = self.network.mail.remove(position);
        self.lose(envelope, LossReason::Test);
        true
    }

    /// Loses everything that is on its way.
    pub fn drop_all(&mut self) {
        while self.drop_at(0) {}
    }

    /// The oldest message from one node to another will arrive twice, the second time after all
    /// that is on its way now; false when there is none.
    pub fn duplicate(&mut self, from: u64, to: u64) -> bool {
        self.position(from, to, 0).is_some_and(|position| self.duplicate_at(position))
    }

    /// The same for the message at a position of [`Lab::mail`].
    pub fn duplicate_at(&mut self, position: usize) -> bool {
        let Some(envelope) = self.network.mail.get(position).cloned() else {
            return false;
        };
        self.trace(|| TraceEvent::Sent(envelope.clone()));
        self.network.mail.push(envelope);
        true
    }

    /// Moves the message from one node to another that has `before` older ones of its kind before
    /// all of them; false when there are not so many.
    pub fn reorder(&mut self, from: u64, to: u64, before: usize) -> bool {
        let first = self.position(from, to, 0);
        let moved = self.position(from, to, before);
        let (Some(first), Some(moved)) = (first, moved) else {
            return false;
        };
        let envelope = self.network.mail.remove(moved);
        self.network.mail.insert(first, envelope);
        true
    }

    /// Where in the mail a message from one node to another is that has `before` older ones.
    fn position(&self, from: u64, to: u64, before: usize) -> Option<usize> {
        let ends = (NodeId::new(from), NodeId::new(to));
        let mail = self.network.mail.iter().enumerate();
        let mut of_pair = mail.filter(|(_, envelope)| (envelope.from, envelope.to) == ends);
        of_pair.nth(before).map(|(position, _)| position)
    }

    /// Cuts the way from one node to another: what is on it, and what is sent later, is lost.
    pub fn cut(&mut self, from: u64, to: u64) {
        let ends = (NodeId::new(from), NodeId::new(to));
        self.network.cuts.insert(ends);
        while let Some(position) = self.position(from, to, 0) {
            let envelope = self.network.mail.remove(position);
            self.lose(envelope, LossReason::Cut);
        }
    }

    /// Cuts every way from and to a node.
    pub fn isolate(&mut self, n: u64) {
        for other in self.ids().filter(|other| *other != n) {
            self.cut(n, other);
            self.cut(other, n);
        }
    }

    /// Cuts every way between two groups of nodes.
    pub fn partition(&mut self, one: &[u64], other: &[u64]) {
        for a in one {
            for b in other {
                self.cut(*a, *b);
                self.cut(*b, *a);
            }
        }
    }

    /// Restores the way from one node to another.
    pub fn restore(&mut self, from: u64, to: u64) {
        self.network.cuts.remove(&(NodeId::new(from), NodeId::new(to)));
    }

    /// Restores every way.
    pub fn heal(&mut self) {
        self.network.cuts.clear();
    }
}
