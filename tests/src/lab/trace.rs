//! What happens in a lab, one value for each thing.

use quorlock_core::ids::{ConnectionId, EntryId, LogIndex, NodeId, WriteId};
use quorlock_core::message::{Effect, Envelope, Reply, Request, WriteBatch};
use quorlock_core::node::{Event, Timer};
use quorlock_core::time::Time;

use super::Lab;
use super::clients::ClientNews;
use super::node::MissingFiles;

/// Something that happened in a lab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TraceEvent {
    /// A message is on its way.
    Sent(Envelope),
    /// A message arrived.
    Delivered(Envelope),
    /// A message will never arrive.
    Lost {
        /// The message.
        envelope: Envelope,
        /// Why.
        reason: LossReason,
    },
    /// A node wants a batch to be made durable.
    Writes {
        /// The node.
        node: NodeId,
        /// The batch.
        batch: WriteBatch,
    },
    /// A node was told that its batches up to this one are durable.
    Durable {
        /// The node.
        node: NodeId,
        /// The batch.
        up_to: WriteId,
    },
    /// A node wrote to a guarded file.
    Effect {
        /// The node.
        node: NodeId,
        /// What it wrote.
        effect: Effect,
    },
    /// A node was told that its effects up to this index are durable.
    EffectsDurable {
        /// The node.
        node: NodeId,
        /// The index.
        up_to: LogIndex,
    },
    /// A node asks for parts of files that it lacks.
    FetchBegun {
        /// The node.
        node: NodeId,
        /// What it lacks.
        missing: MissingFiles,
    },
    /// A node was told how that went.
    Fetched {
        /// The node.
        node: NodeId,
        /// For which snapshot.
        snapshot: EntryId,
        /// Whether it now has everything.
        complete: bool,
    },
    /// A node was told something by a client.
    Request {
        /// The node.
        node: NodeId,
        /// The connection.
        conn: ConnectionId,
        /// What.
        request: Request,
    },
    /// A node told a client something.
    Reply {
        /// The node.
        node: NodeId,
        /// The connection.
        conn: ConnectionId,
        /// What.
        reply: Reply,
    },
    /// A node was told that a connection is gone.
    Disconnected {
        /// The node.
        node: NodeId,
        /// The connection.
        conn: ConnectionId,
    },
    /// A node has applied its log up to here.
    Applied {
        /// The node.
        node: NodeId,
        /// The index.
        up_to: LogIndex,
    },
    /// A node reported something.
    Event {
        /// The node.
        node: NodeId,
        /// What.
        event: Event,
    },
    /// A node was woken.
    Woken {
        /// The node.
        node: NodeId,
        /// When.
        at: Time,
        /// What it waited for.
        timer: Option<Timer>,
    },
    /// A node stopped at once.
    Crashed {
        /// The node.
        node: NodeId,
    },
    /// A node started from what was durable.
    Restarted {
        /// The node.
        node: NodeId,
    },
    /// A client of the core did or learned something.
    Client {
        /// Its name.
        name: String,
        /// What.
        news: ClientNews,
    },
}

/// Why a message will never arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossReason {
    /// The way was cut.
    Cut,
    /// The other node was down when it came.
    Down,
    /// The test said so.
    Test,
}

impl Lab {
    /// Keeps a record of what happens from now on, or stops keeping it.
    pub fn record(&mut self, on: bool) {
        self.trace = on.then(Vec::new);
    }

    /// What has happened since this was last asked, if a record is kept.
    pub fn take_trace(&mut self) -> Vec<TraceEvent> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn trace(&mut self, event: impl FnOnce() -> TraceEvent) {
        if let Some(trace) = &mut self.trace {
            trace.push(event());
        }
    }
}
