//! What a node tells whoever asks how it is, and what nodes ask each other for beside consensus.

use quorlock_core::ids::{LogIndex, NodeId, Term};
use quorlock_core::raft::{ProgressState, Role};
use quorlock_core::text::FileName;
use serde::{Deserialize, Serialize};

/// How a node is, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node.
    pub id: NodeId,
    /// Where it accepts connections.
    pub address: String,
    /// Its cluster.
    pub cluster: String,
    /// The version of its program.
    pub version: String,
    /// How long it has been up.
    pub uptime_ms: u64,
    /// How often it was started with its data directory.
    pub starts: u64,
    /// Its part in consensus.
    pub role: ReportedRole,
    /// Its term.
    pub term: Term,
    /// The leader of that term, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub commit: LogIndex,
    /// The last entry that it applied.
    pub applied: LogIndex,
    /// The first entry of its log.
    pub first: LogIndex,
    /// The last entry of its log.
    pub last: LogIndex,
    /// The last entry of its log that its disk has.
    pub durable: LogIndex,
    /// Whether its disk takes what it writes.
    pub disk: DiskState,
    /// Open sessions.
    pub sessions: u64,
    /// Locks that are held.
    pub locks: u64,
    /// Requests that wait for a lock.
    pub waiters: u64,
    /// Guarded files.
    pub files: u64,
    /// Connections that are open, of nodes and of clients.
    pub connections: u64,
    /// Messages that were dropped since the start because they made no sense, or since a queue was full.
    pub dropped_messages: u64,
    /// What it knows of the others.
    pub peers: Vec<PeerReport>,
}

/// What a node knows of another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerReport {
    /// The other one.
    pub node: NodeId,
    /// Its address.
    pub address: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Up to where its log is known to equal the leader's; only a leader knows.
    pub matched: Option<LogIndex>,
    /// How entries get to it; only a leader knows.
    pub state: Option<ReportedProgress>,
    /// The round trip to it, in microseconds, while there is a connection.
    pub round_trip_us: Option<u64>,
}

/// The part that a node plays in its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportedRole {
    /// It answers others.
    Follower,
    /// It asks whether it would be voted for.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It replicates its log.
    Leader,
}

impl From<Role> for ReportedRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Follower => Self::Follower,
            Role::PreCandidate => Self::PreCandidate,
            Role::Candidate => Self::Candidate,
            Role::Leader => Self::Leader,
        }
    }
}

/// How entries get to a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportedProgress {
    /// One message at a time.
    Probe,
    /// A stream of messages.
    Replicate,
    /// A snapshot.
    Snapshot,
}

impl From<ProgressState> for ReportedProgress {
    fn from(state: ProgressState) -> Self {
        match state {
            ProgressState::Probe => Self::Probe,
            ProgressState::Replicate => Self::Replicate,
            ProgressState::Snapshot => Self::Snapshot,
        }
    }
}

/// Whether a node's disk takes what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// It does.
    Ok,
    /// It is full: the node waits for space.
    Full,
}

/// Asks for bytes of a guarded file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRangeRequest {
    /// Which file.
    pub file: FileName,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

/// The most bytes that one [`FileRangeRequest`] may ask for.
pub const FILE_RANGE_BYTES_MAX: u32 = 1 << 20;

/// The answer to a [`FileRangeRequest`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileRangeReply {
    /// They follow in the next frame: as many as were asked for.
    Bytes,
    /// The file is not that long here, or not here at all.
    Missing,
    /// Not now.
    Busy,
}
