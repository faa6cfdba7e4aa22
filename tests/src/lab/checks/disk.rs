//! What must hold of every disk, and of every batch that is to be written to one.

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{LogIndex, NodeId};
use quorlock_core::lock::LockTable;
use quorlock_core::message::{Entry, Recovered, Snapshot, WriteBatch};

use super::super::files::is_content;
use super::super::node::LabNode;
use super::Checks;

impl Checks {
    /// A node wants to write a batch. `node` is as it was before.
    pub(in super::super) fn batch(&mut self, id: NodeId, node: &LabNode, batch: &WriteBatch) {
        let before = node.writes.back().map_or(0, |batch| batch.id.value());
        let dense = before == 0 || batch.id.value() == before + 1;
        assert!(dense, "node {id} writes batch {} after {before}", batch.id);
        if let Some(hard_state) = batch.hard_state {
            let earlier = node.latest.hard_state;
            let kept = earlier.vote.is_none() || hard_state.vote == earlier.vote;
            assert!(hard_state.term >= earlier.term, "the term of node {id} goes down");
            assert!(
                hard_state.term > earlier.term || kept,
                "node {id} votes twice in term {}: {earlier:?}, {hard_state:?}",
                hard_state.term
            );
        }
        if let Some(from) = batch.truncate_from {
            self.truncated(id, node, from, batch.snapshot.as_ref());
        }
        if let Some(snapshot) = &batch.snapshot {
            assert_files_durable(id, node, snapshot);
            let digest = Checksum::of(&snapshot.data);
            self.seen.entry(id).or_default().snapshots.push((snapshot.last, digest));
        }
        let snapshot = batch.snapshot.as_ref().unwrap_or(&node.latest.snapshot);
        let compact = batch.compact_through.unwrap_or(LogIndex::ZERO);
        assert!(compact <= snapshot.last.index, "node {id} compacts beyond its snapshot");
    }

    /// A node removes the end of its log: nothing of it may be committed, unless the snapshot that
    /// comes with it covers it.
    fn truncated(&self, id: NodeId, node: &LabNode, from: LogIndex, with: Option<&Snapshot>) {
        let covered = with.map_or(LogIndex::ZERO, |snapshot| snapshot.last.index);
        for entry in &node.latest.entries {
            let index = entry.id.index;
            let committed = self.committed_ids.get(&index) == Some(&entry.id);
            assert!(
                index < from || index <= covered || !committed,
                "node {id} removes {} from its log, which is committed",
                entry.id
            );
        }
    }

    /// The snapshots that a node wanted to keep are the state at their index. Asked when the node has
    /// been looked at, for it may take a snapshot of what it has only just applied.
    pub(super) fn snapshots_are_true(&mut self, id: NodeId) {
        let Some(seen) = self.seen.get_mut(&id) else { return };
        for (last, digest) in std::mem::take(&mut seen.snapshots) {
            let committed = self.committed_id(last.index);
            assert_eq!(committed, Some(last), "a snapshot covers only what is committed");
            let known = self.digest(last.index);
            assert!(
                known.is_none_or(|known| known == digest),
                "snapshot {last} of node {id} is the state at its index"
            );
        }
    }
}

/// A disk has changed, or a node starts from it.
pub(in super::super) fn check_disk(id: NodeId, node: &LabNode) {
    assert_dense(id, &node.durable);
    assert_files_durable(id, node, &node.durable.snapshot);
}

/// The log on a disk has no gaps, follows the snapshot, and neither terms nor stamps go down.
fn assert_dense(id: NodeId, disk: &Recovered) {
    let follows = |pair: &[Entry]| {
        let [before, after] = pair else { return true };
        after.id.index == before.id.index.next()
            && after.id.term >= before.id.term
            && after.stamp >= before.stamp
    };
    assert!(disk.entries.windows(2).all(follows), "the log of node {id} has a gap: {disk:#?}");
    let snapshot = disk.snapshot.last;
    let first = disk.entries.first().map_or(snapshot.index, |entry| entry.id.index);
    assert!(first <= snapshot.index.next(), "the log of node {id} begins after its snapshot");
    let at_snapshot = disk.entries.iter().find(|entry| entry.id.index == snapshot.index);
    assert!(
        at_snapshot.is_none_or(|entry| entry.id == snapshot),
        "the log of node {id} and its snapshot {snapshot} are of one history"
    );
}

/// The files that a snapshot speaks of are durable: nothing will output those effects again.
fn assert_files_durable(id: NodeId, node: &LabNode, snapshot: &Snapshot) {
    let table = LockTable::decode(&snapshot.data).expect("a snapshot is a lock table");
    for file in table.files() {
        let content = node.durable_file(file.file.as_str());
        let right = content.is_some_and(|content| is_content(content, &file));
        assert!(right, "node {id} keeps a snapshot without the bytes of {file:?}: {content:?}");
    }
}
