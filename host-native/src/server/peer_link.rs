//! The way to one peer: the connection that this node dials, and what waits to go over it.
//!
//! Raft's messages may be lost, so nothing waits for a connection: without one, and when a queue is
//! full, messages are dropped and counted. What is queued when a connection breaks is dropped too: by
//! the time there is another one it would only be old.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quinn::{Connection, SendStream};
use quorlock_core::codec;
use quorlock_core::ids::NodeId;
use quorlock_core::message::Message;
use tokio::sync::{Notify, mpsc, watch};

use crate::wire::{StreamKind, write_frame};

/// The most messages that wait for one stream.
const MESSAGES_MAX: usize = 1024;
/// The most bytes that wait for one stream. A single message may be larger.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// What a message counts for beside its entries.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// A connection that was welcomed.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    pub(super) connection: Connection,
    /// How often the peer had been started by then.
    pub(super) starts: u64,
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) address: String,
    consensus: Queue,
    snapshots: Queue,
    linked: watch::Sender<Option<Linked>>,
    /// The latest start of the peer that was heard of.
    heard: AtomicU64,
    redial: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<(Message, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a queue.
#[derive(Debug)]
pub(super) struct Waiting {
    kind: StreamKind,
    receiver: mpsc::Receiver<(Message, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// The other ends of a link's queues.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) consensus: Waiting,
    pub(super) snapshots: Waiting,
}

fn queue(kind: StreamKind) -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { sender, bytes: Arc::clone(&bytes) }, Waiting { kind, receiver, bytes })
}

impl Queue {
    /// `false` if there is no room.
    fn push(&self, message: Message) -> bool {
        let cost = cost_bytes(&message);
        let before = self.bytes.fetch_add(cost, Ordering::Relaxed);
        let has_room = before == 0 || before + cost <= MESSAGE_BYTES_MAX;
        if has_room && self.sender.try_send((message, cost)).is_ok() {
            return true;
        }
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
        false
    }
}

impl Waiting {
    /// Sends what is queued, until the stream breaks.
    pub(super) async fn send_all(&mut self, connection: &Connection) -> Option<quinn::WriteError> {
        let mut stream: Option<SendStream> = None;
        while let Some((message, cost)) = self.receiver.recv().await {
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
            let frame = codec::encode(&message);
            let sent = async {
                if stream.is_none() {
                    stream = Some(open(connection, self.kind).await?);
                }
                let stream = stream.as_mut().expect("it was opened just now");
                write_frame(stream, frame).await
            };
            if let Err(error) = sent.await {
                return Some(error);
            }
        }
        None
    }

    /// Forgets what is queued.
    pub(super) fn clear(&mut self) {
        while let Ok((_, cost)) = self.receiver.try_recv() {
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
        }
    }
}

async fn open(connection: &Connection, kind: StreamKind) -> Result<SendStream, quinn::WriteError> {
    let mut stream = connection.open_uni().await.map_err(quinn::WriteError::ConnectionLost)?;
    stream.set_priority(kind.priority()).map_err(|_closed| quinn::WriteError::ClosedStream)?;
    stream.write_all(&[kind.byte()]).await?;
    Ok(stream)
}

/// About how many bytes a message has.
fn cost_bytes(message: &Message) -> usize {
    let payload = match message {
        Message::AppendEntries(append) => {
            let bytes: u64 =
                append.entries.iter().map(quorlock_core::message::Entry::cost_bytes).sum();
            usize::try_from(bytes).unwrap_or(usize::MAX / 2)
        }
        Message::InstallSnapshot(install) => install.piece.len(),
        Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshotReply(_)
        | Message::TimeoutNow { .. } => 0,
    };
    payload + MESSAGE_OVERHEAD_BYTES
}

/// Whether a message goes over the stream of snapshots.
fn is_bulk(message: &Message) -> bool {
    match message {
        Message::InstallSnapshot(_) => true,
        Message::AppendEntries(_)
        | Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshotReply(_)
        | Message::TimeoutNow { .. } => false,
    }
}

impl Link {
    pub(super) fn new(node: NodeId, address: String) -> (Self, Outgoing) {
        let (consensus, consensus_out) = queue(StreamKind::Consensus);
        let (snapshots, snapshots_out) = queue(StreamKind::Snapshots);
        let link = Self {
            node,
            address,
            consensus,
            snapshots,
            linked: watch::Sender::new(None),
            heard: AtomicU64::new(0),
            redial: Notify::new(),
            dropped: AtomicU64::new(0),
        };
        (link, Outgoing { consensus: consensus_out, snapshots: snapshots_out })
    }

    /// Queues a message, if there is a connection and room.
    pub(super) fn send(&self, message: Message) {
        let queue = if is_bulk(&message) { &self.snapshots } else { &self.consensus };
        if self.linked.borrow().is_none() || !queue.push(message) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many messages were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The connection, while there is one.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.linked.borrow().as_ref().map(|linked| linked.connection.clone())
    }

    pub(super) fn set_linked(&self, linked: Option<Linked>) {
        self.linked.send_replace(linked);
    }

    /// The peer was heard of, having been started so many times: a connection to an earlier start
    /// of it is dead, though QUIC does not know yet.
    pub(super) fn heard_of(&self, starts: u64) {
        self.heard.fetch_max(starts, Ordering::AcqRel);
        self.redial.notify_one();
    }

    /// Waits until the peer is heard of.
    pub(super) async fn wait_heard(&self) {
        self.redial.notified().await;
    }

    /// Waits until a later start of the peer is heard of than the one that the connection is to.
    pub(super) async fn wait_outdated(&self) {
        loop {
            let heard = self.heard.load(Ordering::Acquire);
            if self.linked.borrow().as_ref().is_some_and(|linked| linked.starts < heard) {
                return;
            }
            self.wait_heard().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorlock_core::ids::Term;

    use super::*;

    #[test]
    fn messages_that_wait_have_limits() {
        let (queue, mut waiting) = queue(StreamKind::Consensus);
        let message = || Message::TimeoutNow { term: Term::ZERO };
        let pushed = (0..=MESSAGES_MAX).take_while(|_| queue.push(message())).count();
        assert_eq!(pushed, MESSAGES_MAX);
        waiting.clear();
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
        queue.bytes.store(MESSAGE_BYTES_MAX, Ordering::Relaxed);
        assert!(!queue.push(message()), "no room in bytes");
    }

    #[test]
    fn without_a_connection_messages_are_dropped_and_counted() {
        let (link, _outgoing) = Link::new(NodeId::new(1), "nowhere:1".to_owned());
        link.send(Message::TimeoutNow { term: Term::ZERO });
        assert_eq!(link.dropped(), 1);
    }
}
