//! Everything that crosses the boundary of the core as data: what nodes say to each other
//! ([`peer`]), what clients and nodes say to each other ([`client`], [`view`]), and what a node
//! writes to its disk ([`log`]).
//!
//! Nothing here decides anything. Every list has a cap that decoding enforces before it allocates,
//! no type recurses, and no list has elements of zero size (see [`codec`](crate::codec)).

pub mod client;
pub mod log;
pub mod peer;
pub mod view;

pub use client::{
    Acked, Done, EndCause, FileAppend, KeepAlive, Loss, Op, Opened, Outcome, Rejection, Reply,
    Request, RequestKey, SessionEnd, SessionNews, Submission, Unavailable, Wait,
};
pub use log::{Effect, Entry, HardState, Payload, Recovered, Snapshot, SnapshotMeta, WriteBatch};
pub use peer::{
    AppendEntries, AppendEntriesReply, AppendResult, Envelope, InstallSnapshot,
    InstallSnapshotReply, Message, SnapshotResult, VoteReply, VoteRequest,
};
pub use view::{
    Answer, Consistency, FileView, HolderView, LockSummary, LockView, PastHold, Query, WaiterView,
};
