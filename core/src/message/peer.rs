//! What nodes say to each other: Raft's messages, in the words of the paper and the thesis.
//!
//! The sender of a message is not in its bytes: the transport knows it from the certificate.

use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::log::{Entry, SnapshotMeta};
use crate::capped;
use crate::config::ENTRIES_PER_MESSAGE_MAX;
use crate::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};

/// A message and its two ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Who sent it, as the transport knows.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
}

/// A message between nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me? (thesis, 9.6)
    PreVote(VoteRequest),
    /// The answer to a [`Message::PreVote`].
    PreVoteReply(VoteReply),
    /// Vote for me. (paper, 5.2)
    RequestVote(VoteRequest),
    /// The answer to a [`Message::RequestVote`].
    RequestVoteReply(VoteReply),
    /// New entries, or none as a sign of life. (paper, 5.3)
    AppendEntries(AppendEntries),
    /// The answer to an [`AppendEntries`].
    AppendEntriesReply(AppendEntriesReply),
    /// A piece of a snapshot. (paper, section 7)
    InstallSnapshot(InstallSnapshot),
    /// The answer to an [`InstallSnapshot`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// Campaign at once: the leader hands its leadership over. (thesis, 3.10)
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
}

/// The body of a `PreVote` or a `RequestVote`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The term of the campaign. For a `PreVote`, the term that the sender would campaign in.
    pub term: Term,
    /// The end of the sender's log.
    pub last: EntryId,
    /// Whether the leader asked for this election ([`Message::TimeoutNow`]), so that nodes that
    /// still hear from it should vote all the same.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VoteReply {
    /// The replier's own term.
    pub term: Term,
    /// The term of the campaign that is answered, so that a late reply counts for no other.
    pub campaign: Term,
    /// Whether the vote is granted.
    pub granted: bool,
}

/// New entries for a follower; without entries, a sign of life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry before the new ones.
    pub previous: EntryId,
    /// Dense from the index after `previous`, with terms that do not go down.
    #[serde(deserialize_with = "capped::vec::<_, _, ENTRIES_PER_MESSAGE_MAX>")]
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// The leader's latest round of confirming its leadership for reads (thesis, 6.4).
    pub round: ReadRound,
}

/// The answer to an [`AppendEntries`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AppendEntriesReply {
    /// The replier's term.
    pub term: Term,
    /// The round of the request that is answered.
    pub round: ReadRound,
    /// How it went.
    pub result: AppendResult,
}

/// How an [`AppendEntries`] went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AppendResult {
    /// The replier's log equals the leader's up to here, durably.
    Matched(LogIndex),
    /// The replier does not have the entry `previous`.
    Conflict {
        /// The index of that entry, which tells which request is answered.
        previous: LogIndex,
        /// The last entry of the replier's log that can be in the leader's: its index is not above
        /// that of `previous`, nor its term above that of `previous`.
        hint: EntryId,
    },
    /// The sender's term is over.
    StaleTerm,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// What the snapshot is.
    pub meta: SnapshotMeta,
    /// Where in its data this piece belongs.
    pub offset: u64,
    /// The piece. The last one ends at `meta.data_length`.
    pub piece: Bytes,
}

/// The answer to an [`InstallSnapshot`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstallSnapshotReply {
    /// The replier's term.
    pub term: Term,
    /// Which snapshot.
    pub last: EntryId,
    /// How it went.
    pub result: SnapshotResult,
}

/// How an [`InstallSnapshot`] went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SnapshotResult {
    /// The replier has the data up to here and waits for the rest, or fetches files.
    Received {
        /// How many bytes of the data it has, from the start.
        length: u64,
    },
    /// The replier's state covers the snapshot, durably.
    Installed,
    /// It did not work out (a checksum, a file that could not be fetched): start again.
    Failed,
    /// The sender's term is over.
    StaleTerm,
}

impl Message {
    /// The term of the sender, or of its campaign.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::PreVote(request) | Self::RequestVote(request) => request.term,
            Self::PreVoteReply(reply) | Self::RequestVoteReply(reply) => reply.term,
            Self::AppendEntries(append) => append.term,
            Self::AppendEntriesReply(reply) => reply.term,
            Self::InstallSnapshot(install) => install.term,
            Self::InstallSnapshotReply(reply) => reply.term,
            Self::TimeoutNow { term } => *term,
        }
    }
}
