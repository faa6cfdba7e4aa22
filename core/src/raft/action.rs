//! What [`Raft`](super::Raft) asks of its caller, and the words in which it reports on itself.

use core::fmt;

use crate::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};
use crate::message::{Envelope, Snapshot, WriteBatch};

/// Something that the caller of [`Raft`](super::Raft) must do.
///
/// All of it may be done at once and in any order, except that batches are written in the order of
/// their ids: whatever depends on a write comes out only after that write was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RaftAction {
    /// Make this durable, then call [`Raft::handle_persisted`](super::Raft::handle_persisted).
    Persist(WriteBatch),
    /// Send this. It may be lost, repeated or overtaken.
    Send(Envelope),
    /// This node was still the leader when the round began: every read of that round may be
    /// answered once `index` is applied (thesis, 6.4).
    ReadConfirmed {
        /// What [`Raft::request_read`](super::Raft::request_read) returned.
        round: ReadRound,
        /// What must be applied first.
        index: LogIndex,
    },
    /// A snapshot has arrived in full. Check it, fetch what it refers to, then call
    /// [`Raft::snapshot_ready`](super::Raft::snapshot_ready). A later one replaces it.
    SnapshotReceived(Snapshot),
    /// The snapshot that was checked, [`Raft::snapshot`](super::Raft::snapshot), took the place of
    /// the log up to this entry, and `applied` jumped there: restore the applied state from it
    /// before the next entry is applied.
    SnapshotInstalled {
        /// The last entry that the snapshot covers.
        last: EntryId,
    },
    /// Leadership was not handed over in time, or the target left the cluster: this node goes on
    /// leading. Nothing of the kind comes when it loses its leadership meanwhile.
    TransferExpired {
        /// To whom it was to be handed.
        to: NodeId,
    },
    /// The role, the term or the known leader changed. Changes that follow each other directly
    /// may be reported as one, but never so that the end of a leadership is missed. Unless `role` is still the leader of the same term, rounds of reads
    /// that are not confirmed are lost, and what was proposed may or may not be committed.
    RoleChanged {
        /// The new role.
        role: Role,
        /// The term.
        term: Term,
        /// The leader of that term, as far as is known.
        leader: Option<NodeId>,
    },
}

/// The part that a node plays in its term (paper, figure 4; thesis, 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It answers others.
    Follower,
    /// It asks whether it would be voted for.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It replicates its log.
    Leader,
}

/// What [`Raft::poll_timeout`](super::Raft::poll_timeout) waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RaftTimer {
    /// No leader was heard: campaign.
    Election,
    /// The leader's next sign of life.
    Heartbeat,
    /// The leader has not heard a quorum for too long.
    CheckQuorum,
    /// The leader's disk does not answer, or lets no snapshot be finished while the log runs full.
    WriteStall,
    /// A transfer of leadership does not come about.
    Transfer,
}

/// Why a message was dropped. Each is a fault of the sender or of the network below, and worth an
/// alarm when it grows; messages that merely come late are not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// It is for another node.
    NotForThisNode,
    /// It says that this node itself sent it.
    OwnMessage,
    /// The sender has no say in this cluster.
    NotAMember,
    /// A number in it is so large that hardly anything could follow it.
    Implausible,
    /// It breaks the rules of its kind: entries with gaps, a term that goes down, a piece beyond
    /// the end of its snapshot.
    Malformed,
    /// A second leader of the same term.
    SecondLeader,
    /// It contradicts an entry that is committed, or that this very leader sent before.
    ContradictsLog,
    /// A reply to something that was never sent: it acknowledges entries, a round or bytes of a
    /// snapshot that do not exist.
    NeverSent,
    /// The data of a snapshot does not have its checksum.
    Checksum,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferRefused {
    /// This node has none.
    NotLeader,
    /// A transfer is under way already.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// The node that was named is this one, or has no vote; or none was named, and no other voter
    /// answers.
    NoTarget,
}

impl fmt::Display for TransferRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => f.write_str("this node is not the leader"),
            Self::Transferring { to } => write!(f, "leadership is being handed to node {to}"),
            Self::NoTarget => f.write_str("there is no other voter to hand leadership to"),
        }
    }
}

impl core::error::Error for TransferRefused {}
