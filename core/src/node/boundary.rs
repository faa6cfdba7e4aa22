//! What crosses the boundary of a node: inputs, outputs, and the deadlines between them.

use alloc::vec::Vec;
use core::fmt;

use crate::checksum::Checksum;
use crate::codec::DecodeError;
use crate::config::ConfigError;
use crate::ids::{ConnectionId, EntryId, LogIndex, NodeId, RequestId, Term, WriteId};
use crate::lock::LockEvent;
use crate::message::{Effect, Envelope, FileView, Reply, Request, WriteBatch};
use crate::raft::{RaftTimer, RecoveredError, Role, TransferRefused};
use crate::text::FileName;

/// What the host tells a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A message from another node. The transport vouches for `from`.
    Message(Envelope),
    /// A request from a client.
    Request {
        /// The connection it came on.
        conn: ConnectionId,
        /// The request.
        request: Request,
    },
    /// A client connection is gone. Replies to it that are on their way may be dropped.
    Disconnected {
        /// Which.
        conn: ConnectionId,
    },
    /// All [`WriteBatch`]es up to this one are durable.
    Persisted {
        /// The latest of them.
        up_to: WriteId,
    },
    /// All [`Effect`]s of entries up to this one are in the files, durably.
    EffectsDurable {
        /// The index of that entry.
        up_to: LogIndex,
    },
    /// The answer to [`Output::FetchFiles`]. When it succeeded, the bytes that were asked for are
    /// durable; nothing is said of those before them, for which [`Input::EffectsDurable`] speaks.
    FilesFetched {
        /// The snapshot that the files were fetched for.
        snapshot: EntryId,
        /// Whether every file has the length and the checksum that were asked for.
        complete: bool,
    },
    /// Hand leadership over, as before a planned stop. It ends with a change of
    /// [`Event::Role`], with [`Event::TransferRefused`], or with [`Event::TransferExpired`].
    TransferLeadership {
        /// To whom; `None` leaves the choice to the leader.
        to: Option<NodeId>,
    },
    /// It is time for what [`Node::poll_timeout`](super::Node::poll_timeout) announced. Too early
    /// does no harm.
    Timeout,
}

/// What a node wants done.
///
/// The host may do everything at once and in any order, except that batches are written in the
/// order of their ids: a node holds back what depends on a write until it hears that the write is
/// durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make this durable, atomically; then [`Input::Persisted`].
    Persist(WriteBatch),
    /// Send a message to another node. It may be lost.
    Send(Envelope),
    /// Write to a guarded file. When it is durable, some time, [`Input::EffectsDurable`].
    Effect(Effect),
    /// Answer a client, or tell it something. It may be lost.
    Reply {
        /// The connection.
        conn: ConnectionId,
        /// What to say.
        reply: Reply,
    },
    /// Read from a guarded file, after every effect that was output earlier, and answer the client
    /// with [`Answer::Bytes`](crate::message::Answer::Bytes).
    ReadFile(FileRead),
    /// Get from another node what this one's files lack; then [`Input::FilesFetched`]. Supersedes
    /// an earlier one.
    FetchFiles {
        /// The snapshot that these files belong to.
        snapshot: EntryId,
        /// Who sent the snapshot, and so has the files.
        from: NodeId,
        /// What is missing.
        files: Vec<MissingBytes>,
    },
    /// Something that an observer may want to know.
    Event(Event),
}

/// A read of a guarded file for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRead {
    /// The client's connection.
    pub conn: ConnectionId,
    /// The client's number of the request.
    pub id: RequestId,
    /// The log index as of which the answer is true.
    pub index: LogIndex,
    /// The file as of that index.
    pub file: FileView,
    /// Where to start reading.
    pub offset: u64,
    /// How many bytes to read: never beyond the length of `file`, so that no byte is shown that is
    /// not committed.
    pub length: u32,
}

/// The bytes that a file lacks. What is there before `offset` is right: files only grow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingBytes {
    /// The file.
    pub file: FileName,
    /// The first byte that is missing.
    pub offset: u64,
    /// The length of the whole file.
    pub length: u64,
    /// The checksum of the whole file.
    pub checksum: Checksum,
}

/// Something that happened in a node, for metrics, logs, pages and checkers. It decides nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The node changed its role or its term, or learned who leads.
    Role {
        /// The role it has now.
        role: Role,
        /// Its term.
        term: Term,
        /// The leader of that term, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Leadership was to be handed over, and will not be.
    TransferRefused(TransferRefused),
    /// Leadership was to be handed over, and was not in time: this node goes on leading.
    TransferExpired {
        /// To whom.
        to: NodeId,
    },
    /// The lock table did something.
    Lock {
        /// At this index.
        index: LogIndex,
        /// What.
        event: LockEvent,
    },
    /// A snapshot was taken.
    SnapshotTaken {
        /// The last entry that it covers.
        last: EntryId,
    },
    /// A snapshot from the leader replaced the state.
    SnapshotInstalled {
        /// The last entry that it covers.
        last: EntryId,
    },
}

/// What the next deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// One of consensus.
    Raft(RaftTimer),
    /// The keep-alives that were collected go into the log.
    KeepAlives,
    /// Something in the lock table is due, and no entry carries lease time that far.
    LeaseDue,
    /// A snapshot of a log that grows slowly.
    Snapshot,
}

/// Why a node cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartError {
    /// Its settings.
    Config(ConfigError),
    /// What its storage gave back is no log.
    Recovered(RecoveredError),
    /// What its storage gave back is no lock table.
    Snapshot(DecodeError),
    /// The lock table is of another index, or of a later time, than the snapshot that it is in.
    OtherState {
        /// Where in the log the lock table is.
        state: LogIndex,
        /// The last entry that the snapshot covers.
        snapshot: EntryId,
    },
    /// An entry of the log carries a command that this program cannot read: it was written by a
    /// later version, or is damaged.
    Unreadable {
        /// The entry.
        entry: EntryId,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "the settings do not work: {error}"),
            Self::Recovered(error) => write!(f, "the stored log is damaged: {error}"),
            Self::Snapshot(error) => write!(f, "the stored snapshot is damaged: {error}"),
            Self::OtherState { state, snapshot } => {
                write!(f, "the stored snapshot of {snapshot} holds the state at {state}")
            }
            Self::Unreadable { entry } => write!(
                f,
                "entry {entry} of the stored log cannot be read: it is damaged, or was written by \
                 a later version"
            ),
        }
    }
}

impl core::error::Error for StartError {}
