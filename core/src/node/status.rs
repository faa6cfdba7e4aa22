//! What a node says of itself.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Node;
use crate::checksum::Checksum;
use crate::ids::{EntryId, LogIndex, NodeId, Term};
use crate::lock::Counts;
use crate::membership::Membership;
use crate::message::{Answer, FileView, Query};
use crate::raft::{DropReason, ProgressView, Role};

/// A copy of what a node knows of itself and of its peers, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of that term, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub commit: LogIndex,
    /// The last entry that it applied; equal to `commit` once all outputs were taken.
    pub applied: LogIndex,
    /// The index of the first entry of its log; one after `last` when the log is empty.
    pub first: LogIndex,
    /// The last entry of its log.
    pub last: EntryId,
    /// The last entry of its log that its own disk has.
    pub durable: LogIndex,
    /// The voters, as of the end of its log.
    pub membership: Membership,
    /// How far each peer has come; empty unless this node leads.
    pub progress: Vec<ProgressView>,
    /// Messages that were dropped since the start because they made no sense.
    pub dropped: BTreeMap<DropReason, u64>,
    /// How much its lock table holds: sessions, locks, waiters, files.
    pub counts: Counts,
}

impl Node {
    /// What the node knows of itself and of its peers.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.raft;
        let counts = self.locks.counts();
        let mut dropped = raft.drops().clone();
        if self.unreadable > 0 {
            *dropped.entry(DropReason::Malformed).or_default() += self.unreadable;
        }
        Status {
            id: raft.id(),
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit(),
            applied: self.applied,
            first: raft.log_base().index.next(),
            last: raft.log_last(),
            durable: raft.durable(),
            membership: raft.membership().clone(),
            progress: raft.progress().collect(),
            dropped,
            counts,
        }
    }

    /// The checksum of the applied state. Equal on every node that has applied the same log up to
    /// the same index. Costs a pass over the whole state.
    #[must_use]
    pub fn digest(&self) -> Checksum {
        self.locks.digest()
    }

    /// Answers a query from the applied state of this node, however old it is.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Answer {
        self.locks.answer(query)
    }

    /// The guarded files as of the applied state, by name: what the host's files must be.
    pub fn files(&self) -> impl Iterator<Item = FileView> + '_ {
        self.locks.files()
    }
}
