//! Writes to disks, crashes, restarts.

use quorlock_core::ids::NodeId;
use quorlock_core::message::WriteBatch;
use quorlock_core::node::{Input, Node};

use super::Lab;
use super::checks;
use super::node::{LabNode, Work};
use super::recovery::RecoveryPoint;
use super::trace::TraceEvent;

impl LabNode {
    /// Forgets the entries that the latest batches let go.
    pub(super) fn compact_latest(&mut self) {
        if let Some(through) = self.compact.take() {
            self.latest.entries.retain(|entry| entry.id.index > through);
        }
    }

    /// Whether the last thing that its disk was told is durable.
    fn is_written(&self) -> bool {
        self.written > 0
    }
}

impl Lab {
    /// A node wants a batch to be made durable.
    pub(super) fn begin_write(&mut self, id: NodeId, batch: WriteBatch) {
        self.trace(|| TraceEvent::Writes { node: id, batch: batch.clone() });
        self.checks.batch(id, &self.nodes[&id], &batch);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.compact = node.compact.max(batch.compact_through);
        node.latest.write(WriteBatch { compact_through: None, ..batch.clone() });
        node.writes.push_back(batch);
    }

    /// Makes a node's oldest write durable and tells the node; false when there is none.
    pub fn persist(&mut self, n: u64) -> bool {
        if !self.lab_node(n).is_written() && !self.write_unacknowledged(n) {
            return false;
        }
        let node = self.lab_node_mut(n);
        node.written -= 1;
        let batch = node.writes.pop_front().expect("it was written and not acknowledged");
        let up_to = batch.id;
        self.trace(|| TraceEvent::Durable { node: NodeId::new(n), up_to });
        self.input(n, Input::Persisted { up_to });
        true
    }

    /// Makes all of a node's writes durable, one by one, also those that this brings about.
    pub fn persist_all(&mut self, n: u64) {
        while self.persist(n) {}
    }

    /// Makes all of a node's writes durable, and tells the node of the last one alone, as it is told
    /// when one sync covers several batches.
    pub fn persist_together(&mut self, n: u64) {
        while self.write_unacknowledged(n) {}
        let node = self.lab_node_mut(n);
        node.written = 0;
        let Some(up_to) = node.writes.drain(..).last().map(|batch| batch.id) else {
            return;
        };
        self.trace(|| TraceEvent::Durable { node: NodeId::new(n), up_to });
        self.input(n, Input::Persisted { up_to });
    }

    /// A node's oldest write that is not durable becomes so, but the node is not told; false when
    /// there is none. A crash now finds it on the disk.
    pub fn write_unacknowledged(&mut self, n: u64) -> bool {
        let node = self.lab_node_mut(n);
        let Some(batch) = node.writes.get(node.written).cloned() else {
            return false;
        };
        node.durable.write(batch.clone());
        node.written += 1;
        checks::check_disk(NodeId::new(n), self.lab_node(n));
        if let Some(mut points) = self.recovery_points.take() {
            let point = RecoveryPoint::new(n, batch.id, self.lab_node(n));
            self.check_recovers(&point);
            points.push(point);
            self.recovery_points = Some(points);
        }
        true
    }

    /// A node's writes wait from now on until the test makes them durable.
    pub fn hold_writes(&mut self, n: u64, hold: bool) {
        self.lab_node_mut(n).hold(Work::Writes, hold);
        self.finish_automatically(NodeId::new(n));
    }

    /// A node's outputs wait from now on, so that all inputs until they are taken share a batch.
    /// Nothing is checked meanwhile.
    pub fn hold_outputs(&mut self, n: u64, hold: bool) {
        self.lab_node_mut(n).hold(Work::Outputs, hold);
        if self.is_up(n) {
            self.take_outputs(NodeId::new(n));
        }
    }

    /// Stops a node at once. What was not durable is lost. Messages that it sent stay on their way.
    pub fn crash(&mut self, n: u64) {
        self.trace(|| TraceEvent::Crashed { node: NodeId::new(n) });
        let node = self.lab_node_mut(n);
        let disk = node.durable.clone();
        *node = LabNode {
            starts: node.starts,
            files: node.durable_files.clone(),
            durable_files: std::mem::take(&mut node.durable_files),
            holds: std::mem::take(&mut node.holds),
            ..LabNode::down(disk)
        };
        self.break_connections(NodeId::new(n));
    }

    /// Starts a node that is down from what is durable.
    ///
    /// # Panics
    /// If it runs already, or cannot start.
    pub fn restart(&mut self, n: u64) {
        assert!(!self.is_up(n), "node {n} runs already");
        self.trace(|| TraceEvent::Restarted { node: NodeId::new(n) });
        self.start(NodeId::new(n));
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let (seed, now) = (self.options.seed, self.now);
        let config = self.options.config.clone();
        let node = self.lab_node_mut(id.value());
        node.starts += 1;
        // Distinct for every node and every start; the factors only keep them apart.
        let seed =
            seed.wrapping_mul(1_000_003) ^ id.value().wrapping_mul(1009) ^ (node.starts << 32);
        let started = Node::new(id, config, node.durable.clone(), seed, now);
        node.node = Some(started.expect("a node starts from what it made durable"));
        checks::check_disk(id, &self.nodes[&id]);
        self.checks.started(id, &self.nodes[&id]);
        self.take_outputs(id);
    }
}
