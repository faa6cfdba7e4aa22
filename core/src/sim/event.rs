//! What is on its way, in the order in which it will arrive.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::ClientId;
use crate::ids::{AttemptId, ConnectionId, EntryId, NodeId};
use crate::message::{Effect, WriteBatch};
use crate::node::MissingBytes;
use crate::time::Time;

/// How often a node was started. What is on its way to an earlier start of it never arrives.
pub(super) type Incarnation = u64;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A message reaches a node.
    Message { from: NodeId, to: NodeId, bytes: Vec<u8> },
    /// A request reaches a node.
    Request { node: NodeId, conn: ConnectionId, bytes: Vec<u8> },
    /// A reply reaches a client.
    Reply { client: ClientId, attempt: AttemptId, bytes: Vec<u8> },
    /// A node answers an attempt to connect, if it is up.
    Connect { client: ClientId, attempt: AttemptId, node: NodeId },
    /// A client sees that a connection is gone.
    ClientDisconnected { client: ClientId, attempt: AttemptId },
    /// A node sees that a connection is gone.
    NodeDisconnected { node: NodeId, conn: ConnectionId },
    /// A batch is durable.
    Written { node: NodeId, incarnation: Incarnation, batch: WriteBatch },
    /// A write to a file is durable.
    EffectDurable { node: NodeId, incarnation: Incarnation, effect: Effect },
    /// The bytes that a node's files lacked are there.
    Fetched { fetch: Fetch, incarnation: Incarnation },
}

/// Bytes of files on their way from one node to another.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    pub(super) node: NodeId,
    pub(super) from: NodeId,
    pub(super) snapshot: EntryId,
    pub(super) files: Vec<MissingBytes>,
}

/// Events by time; those of one time in the order in which they were put in.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    events: BTreeMap<(Time, u64), Event>,
    count: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        self.events.first_key_value().map(|((time, _), _)| *time)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.events.pop_first().map(|(_, event)| event)
    }
}
