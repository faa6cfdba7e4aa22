//! Restart from what is durable, after every batch.
//!
//! A crash can come after any batch. With [`Lab::check_restarts`] on, the lab takes each batch that
//! becomes durable for a place where a node might have to start again.
//!
//! At once, a fresh node is started from a copy of the disk: it must start, its invariants must
//! hold, its log, term and snapshot must be those of the disk, and its state the one that the
//! cluster had at the snapshot's index.
//!
//! At the end of a test, [`Lab::check_recovery_points`] takes up each of these disks again and asks
//! whether the same end is reached from it. The node starts from the old disk in a clone of the lab
//! where nobody else runs, and a leader of a later term, played by the test, sends it the committed
//! log. What it had and was not committed must give way, what was committed must still be there, and
//! every check of the lab is in force: at each index the node must do what everybody did there, it
//! must write the same bytes to its files, and it must end with the same digest.
//!
//! A disk that is put back in time breaks the promises of its node, so it must not take part in an
//! ordinary election: the others might lose what they rely on. That is why they do not run, and
//! why the leader is played. The only node of a cluster has nobody to get the rest from: its disk is
//! only compared with what was committed.

use quorlock_core::ids::{LogIndex, NodeId, ReadRound, Term, WriteId};
use quorlock_core::message::{AppendEntries, Entry, Envelope, Message, Recovered};
use quorlock_core::node::Node;

use super::Lab;
use super::node::{Files, LabNode};

/// A disk that a node may have to start from.
#[derive(Clone, Debug)]
pub(super) struct RecoveryPoint {
    node: u64,
    batch: WriteId,
    disk: Recovered,
    files: Files,
}

impl RecoveryPoint {
    pub(super) fn new(node: u64, batch: WriteId, lab_node: &LabNode) -> Self {
        let (disk, files) = (lab_node.durable.clone(), lab_node.durable_files.clone());
        Self { node, batch, disk, files }
    }

    /// Puts another payload in the place of the last one, to see whether anybody notices.
    #[cfg(test)]
    pub(super) fn forget(&mut self, payload: quorlock_core::message::Payload) {
        self.disk.entries.last_mut().expect("there is an entry").payload = payload;
    }
}

impl Lab {
    /// From now on, every batch that becomes durable is tried as a place to start again from.
    pub fn check_restarts(&mut self) {
        self.recovery_points.get_or_insert_default();
    }

    /// A node can start from this disk, and has what is on it.
    pub(super) fn check_recovers(&self, point: &RecoveryPoint) {
        let (id, batch, disk) = (NodeId::new(point.node), point.batch, &point.disk);
        let config = self.options.config.clone();
        let node = Node::new(id, config, disk.clone(), 1, self.now);
        let node = node.unwrap_or_else(|e| panic!("node {id} cannot start after {batch}: {e}"));
        node.check_invariants();
        let status = node.status();
        let snapshot = disk.snapshot.last;
        let last = disk.entries.last().map_or(snapshot, |entry| entry.id);
        assert_eq!(status.term, disk.hard_state.term, "the term after {batch}");
        assert_eq!(status.last.index, last.index.max(snapshot.index), "the end of the log");
        assert_eq!(status.durable, status.last.index, "what was recovered is durable");
        assert_eq!(status.applied, snapshot.index, "the state is that of the snapshot");
        if let Some(digest) = self.checks.digest(snapshot.index) {
            assert_eq!(node.digest(), digest, "the state after {batch} is that of the cluster");
        }
    }

    /// From every disk that [`Lab::check_restarts`] has collected, the same end is reached.
    ///
    /// Returns how many disks there were.
    pub fn check_recovery_points(&self) -> usize {
        let points = self.recovery_points.as_deref().unwrap_or_default();
        for point in points {
            self.check_reaches_the_end(point);
        }
        points.len()
    }

    fn check_reaches_the_end(&self, point: &RecoveryPoint) {
        let Some((&end, last)) = self.checks.committed().last_key_value() else {
            return;
        };
        let mut lab = self.alone_from(point);
        let n = point.node;
        let peer = lab.status(n).membership.nodes().find(|peer| peer.value() != n);
        let Some(peer) = peer else {
            return self.check_is_prefix(point);
        };
        lab.replay_from(peer, n, end);
        let applied = lab.status(n).applied;
        let state = (point.batch, last.id);
        assert_eq!(applied, end, "node {n} gets to the end (after, end): {state:?}");
        if let Some(digest) = self.checks.digest(end) {
            assert_eq!(lab.node(n).digest(), digest, "node {n} ends in another state: {state:?}");
        }
    }

    /// The only node of a cluster has nobody to get the rest from: what its disk has is the
    /// beginning of what was committed.
    fn check_is_prefix(&self, point: &RecoveryPoint) {
        for entry in &point.disk.entries {
            let committed = self.checks.committed().get(&entry.id.index);
            let same = committed.is_none_or(|committed| committed == entry);
            assert!(same, "{} after {} is not what was committed", entry.id, point.batch);
        }
    }

    /// A clone of the lab where only one node runs, from an earlier disk.
    fn alone_from(&self, point: &RecoveryPoint) -> Self {
        let mut lab = self.clone();
        lab.recovery_points = None;
        lab.trace = None;
        lab.drop_all();
        lab.heal();
        for n in self.ids() {
            lab.crash(n);
        }
        let node = lab.lab_node_mut(point.node);
        let starts = node.starts;
        *node = LabNode { starts, ..LabNode::down(point.disk.clone()) };
        node.files.clone_from(&point.files);
        node.durable_files.clone_from(&point.files);
        lab.restart(point.node);
        lab
    }

    /// A leader of a term after all others sends a node the committed log, as far as it lacks it.
    fn replay_from(&mut self, leader: NodeId, n: u64, end: LogIndex) {
        let terms = self.nodes.values().map(|node| node.durable.hard_state.term);
        let term = terms.max().unwrap_or(Term::ZERO).next();
        let entries: Vec<Entry> = self.checks.committed().values().cloned().collect();
        while self.status(n).applied < end {
            let applied = self.status(n).applied;
            let previous = self.checks.committed_id(applied);
            let previous = previous.expect("what is applied is committed");
            let rest = entries.iter().filter(|entry| entry.id.index > applied);
            // Few at a time, so that the node can compact its log as it goes.
            let part: Vec<Entry> = rest.take(64).cloned().collect();
            let append = AppendEntries {
                term,
                previous,
                entries: part,
                commit: end,
                round: ReadRound::ZERO,
            };
            let (from, to) = (leader, NodeId::new(n));
            self.send(Envelope { from, to, message: Message::AppendEntries(append) });
            self.settle();
            assert!(self.status(n).applied > applied, "node {n} takes what it is sent");
        }
    }
}
