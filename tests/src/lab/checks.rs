//! What must hold between nodes, whatever happens: looked at after every input and every write.
//!
//! | check | promise |
//! |---|---|
//! | one leader in a term | Raft, election safety (figure 3) |
//! | one vote in a term, on the disk | Raft 5.2 |
//! | what is applied is on the disks of a quorum, and stays in every log that has it | G5 |
//! | the same entry at the same index, on every node | Raft, state machine safety |
//! | the same digest, the same lock events and the same files at the same index | G6 |
//! | one holder of a lock, tokens that grow, queues first in, first out | G1, G4 |
//! | appends under the token of the present holder, without gaps | G2 |
//! | an outcome that was told once is told the same for ever | G3 |
//! | a snapshot covers only effects that are durable | design, section 6 |
//!
//! A check that fails panics, with what it knows.

mod disk;
mod locks;

use std::collections::BTreeMap;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{EntryId, LogIndex, NodeId, Sequence, SessionId, Term};
use quorlock_core::lock::LockEvent;
use quorlock_core::message::{Entry, Outcome, Recovered, Rejection, Reply};
use quorlock_core::node::{Event, Node};
use quorlock_core::raft::Role;

use super::files::is_content;
use super::node::LabNode;
pub(super) use disk::check_disk;
use locks::LockCheck;

/// What has been seen of the whole cluster.
///
/// Invariant: `committed`, `digests` and `events` are only added to. They outlive every crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    /// Who led each term, and in which of its lives.
    leaders: BTreeMap<Term, (NodeId, u64)>,
    /// Every entry that any node has applied.
    committed: BTreeMap<LogIndex, Entry>,
    /// Its identity, also of entries that a snapshot stood for from the beginning.
    committed_ids: BTreeMap<LogIndex, EntryId>,
    digests: BTreeMap<LogIndex, Checksum>,
    /// What the lock table did at each index.
    events: BTreeMap<LogIndex, Vec<LockEvent>>,
    /// `None` when the cluster began with locks that nobody saw being granted.
    locks: Option<LockCheck>,
    outcomes: BTreeMap<(SessionId, Sequence), Outcome>,
    /// Of each node: what it had applied when it was last looked at, and what it has said since.
    seen: BTreeMap<NodeId, Seen>,
}

/// What one life of a node has said.
#[derive(Clone, Debug, Default)]
struct Seen {
    applied: LogIndex,
    commit: LogIndex,
    events: BTreeMap<LogIndex, Vec<LockEvent>>,
    /// The latest snapshot that it installed.
    installed: Option<EntryId>,
    /// The snapshots that it wanted to keep, with the checksum of their data.
    snapshots: Vec<(EntryId, Checksum)>,
}

impl Checks {
    pub(super) fn new(disks: &BTreeMap<u64, Recovered>) -> Self {
        let snapshots = disks.values().map(|disk| disk.snapshot.last);
        let locks = snapshots.max().is_none_or(|last| last == EntryId::ZERO);
        Self { locks: locks.then(LockCheck::default), ..Self::default() }
    }

    /// What a session was told of a request, by whichever node.
    pub(super) fn outcome(&self, session: SessionId, sequence: Sequence) -> Option<&Outcome> {
        self.outcomes.get(&(session, sequence))
    }

    /// Every entry that any node has applied.
    pub(super) fn committed(&self) -> &BTreeMap<LogIndex, Entry> {
        &self.committed
    }

    /// The identity of the entry at an index, if it is known to be committed.
    pub(super) fn committed_id(&self, index: LogIndex) -> Option<EntryId> {
        self.committed_ids.get(&index).copied()
    }

    /// The digest of the state at an index, if some node was looked at there.
    pub(super) fn digest(&self, index: LogIndex) -> Option<Checksum> {
        self.digests.get(&index).copied()
    }

    /// How far a node had applied its log when it was last looked at.
    pub(super) fn applied_by(&self, id: NodeId) -> LogIndex {
        self.seen.get(&id).map_or(LogIndex::ZERO, |seen| seen.applied)
    }

    /// A node began a life.
    pub(super) fn started(&mut self, id: NodeId, node: &LabNode) {
        let last = node.durable.snapshot.last;
        let seen = Seen { applied: last.index, commit: last.index, ..Seen::default() };
        self.seen.insert(id, seen);
        self.commit_id(last);
    }

    /// A node said that something happened.
    pub(super) fn event(&mut self, id: NodeId, event: Event) {
        let seen = self.seen.entry(id).or_default();
        match event {
            Event::Lock { index, event } => seen.events.entry(index).or_default().push(event),
            Event::SnapshotInstalled { last } => seen.installed = Some(last),
            Event::Role { .. }
            | Event::TransferRefused(_)
            | Event::TransferExpired { .. }
            | Event::SnapshotTaken { .. } => (),
        }
    }

    /// A node told a client something.
    pub(super) fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Submitted { session, sequence, outcome, .. } => {
                self.told(*session, *sequence, outcome);
            }
            Reply::KeptAlive { session, result: Ok(news), .. } => {
                for (sequence, outcome) in &news.outcomes {
                    self.told(*session, *sequence, outcome);
                }
            }
            Reply::KeptAlive { .. }
            | Reply::Opened { .. }
            | Reply::Lost { .. }
            | Reply::SessionEnded { .. }
            | Reply::Read { .. }
            | Reply::Unavailable { .. } => (),
        }
    }

    fn told(&mut self, session: SessionId, sequence: Sequence, outcome: &Outcome) {
        if outcome.as_ref().is_err_and(is_about_the_number) {
            return;
        }
        let first = self.outcomes.entry((session, sequence)).or_insert_with(|| outcome.clone());
        assert_eq!(first, outcome, "request {sequence} of session {session} has one outcome");
    }

    /// Looks at a node that was just given an input.
    pub(super) fn observe(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, LabNode>) {
        let lab_node = &nodes[&id];
        let Some(node) = &lab_node.node else { return };
        let status = node.status();
        if status.role == Role::Leader {
            let leader = (id, lab_node.starts);
            let first = *self.leaders.entry(status.term).or_insert(leader);
            assert_eq!(first, leader, "term {} has one leader (node, life)", status.term);
        }
        let seen = self.seen.entry(id).or_default();
        assert!(status.commit >= seen.commit, "node {id} takes back what is committed");
        seen.commit = status.commit;
        let applied = std::mem::replace(&mut seen.applied, status.applied);
        if status.applied > applied {
            self.advanced(id, applied, status.applied, nodes);
        }
        self.snapshots_are_true(id);
        let events = &self.seen[&id].events;
        assert!(events.is_empty(), "node {id} tells of what it has not applied: {events:?}");
    }

    /// A node applied the entries after `from`, up to `to`, or installed a snapshot on the way.
    fn advanced(
        &mut self,
        id: NodeId,
        from: LogIndex,
        to: LogIndex,
        nodes: &BTreeMap<NodeId, LabNode>,
    ) {
        let seen = self.seen.get_mut(&id).expect("it was looked at before");
        let mut told = std::mem::take(&mut seen.events);
        let installed = seen.installed.take();
        if let Some(last) = installed {
            self.commit_id(last);
            assert!(last.index <= to, "a snapshot that is installed is applied");
        }
        let start = installed.map_or(from, |last| last.index.max(from));
        for index in (start.value()..to.value()).map(|index| LogIndex::new(index).next()) {
            self.applied(id, index, nodes);
            self.happened(id, index, told.remove(&index).unwrap_or_default());
        }
        assert!(told.is_empty(), "node {id} tells of what it has not applied now: {told:?}");
        let node = nodes[&id].node.as_ref().expect("it has just applied something");
        self.same_state(id, to, node, &nodes[&id]);
    }

    /// A node applied this entry: it is committed.
    fn applied(&mut self, id: NodeId, index: LogIndex, nodes: &BTreeMap<NodeId, LabNode>) {
        let log = &nodes[&id].latest.entries;
        let found = log.iter().find(|entry| entry.id.index == index);
        let entry = found.unwrap_or_else(|| panic!("node {id} applied {index}, not in its log"));
        self.commit_id(entry.id);
        if let Some(first) = self.committed.get(&index) {
            assert_eq!(first, entry, "index {index} has one entry on every node");
            return;
        }
        let node = nodes[&id].node.as_ref().expect("it has just applied something");
        let membership = node.status().membership;
        let has = |peer: NodeId| nodes.get(&peer).is_some_and(|peer| peer.disk_has(entry.id));
        assert!(
            membership.is_quorum(has),
            "node {id} applied {}, which is not on the disks of a quorum",
            entry.id
        );
        self.committed.insert(index, entry.clone());
    }

    fn commit_id(&mut self, id: EntryId) {
        let first = *self.committed_ids.entry(id.index).or_insert(id);
        assert_eq!(first, id, "index {} has one entry on every node", id.index);
    }

    /// The lock table of a node did this at an index.
    fn happened(&mut self, id: NodeId, index: LogIndex, events: Vec<LockEvent>) {
        if let Some(first) = self.events.get(&index) {
            assert_eq!(first, &events, "entry {index} does the same on node {id} as on the first");
            return;
        }
        if let Some(locks) = &mut self.locks {
            locks.happened(index, &events);
        }
        self.events.insert(index, events);
    }

    /// The state of a node at an index is everybody's state at that index, and so are its files.
    fn same_state(&mut self, id: NodeId, index: LogIndex, node: &Node, lab_node: &LabNode) {
        let digest = node.digest();
        let first = *self.digests.entry(index).or_insert(digest);
        assert_eq!(first, digest, "the state of node {id} at {index} is that of the first there");
        for file in node.files() {
            let content = lab_node.file(file.file.as_str());
            let right = content.is_some_and(|content| is_content(content, &file));
            assert!(right, "node {id} at {index} has the file {file:?}");
        }
    }
}

impl LabNode {
    /// Whether its disk has an entry, or a snapshot that covers it.
    fn disk_has(&self, id: EntryId) -> bool {
        self.durable.snapshot.last.index >= id.index
            || self.durable.entries.iter().any(|entry| entry.id == id)
    }
}

/// Whether a rejection is about the number of a request, so that the log did not decide the request
/// itself.
fn is_about_the_number(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::SessionUnknown
            | Rejection::OutOfOrder { .. }
            | Rejection::ResultEvicted
            | Rejection::WindowFull
    )
}
