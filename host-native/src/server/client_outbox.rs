//! What is to be said to one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use quorlock_core::codec;
use quorlock_core::config::READ_BYTES_MAX;
use quorlock_core::ids::ConnectionId;
use quorlock_core::message::{Reply, RequestKey};
use tokio::sync::mpsc;

use super::close::Close;
use super::shared::Shared;
use super::streams::Fault;
use crate::wire::frame::FRAME_TIMEOUT;
use crate::wire::write_frame;

/// How long a client may take to let one reply through.
const WRITE_TIMEOUT: Duration = FRAME_TIMEOUT;
/// The most replies that wait for one of the two streams of a client.
const REPLIES_MAX: usize = 4096;
/// The most bytes that wait for one stream. A single reply may be larger, when nothing else waits.
const REPLY_BYTES_MAX: usize = 16 << 20;
/// The most reads of files of one client whose answers are not on their way.
pub(super) const READS_MAX: u32 = 8;

// A client that reads what it asked for is not dropped because it asked for much.
const _: () = assert!(READS_MAX as usize * READ_BYTES_MAX as usize * 2 <= REPLY_BYTES_MAX);

/// The two queues of replies of a connection.
///
/// A client that does not read them until one is full is dropped: what it could not be told, it is
/// told again when it comes back.
#[derive(Debug)]
pub(super) struct Outbox {
    id: ConnectionId,
    connection: Connection,
    keep_alives: Queue,
    requests: Queue,
    reads: AtomicU32,
    closed: AtomicBool,
}

/// Replies for one stream.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Queued>,
    bytes: Arc<AtomicUsize>,
}

/// A reply that waits, with the place among the reads that it takes.
#[derive(Debug)]
struct Queued {
    reply: Bytes,
    place: Option<ReadPlace>,
}

/// A place among the reads that are not answered. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct ReadPlace {
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
}

impl Drop for ReadPlace {
    fn drop(&mut self) {
        self.shared.clients.end_read(&self.outbox);
    }
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub(super) struct Replies {
    receiver: mpsc::Receiver<Queued>,
    bytes: Arc<AtomicUsize>,
}

/// The other ends of an [`Outbox`].
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) keep_alives: Replies,
    pub(super) requests: Replies,
}

fn queue() -> (Queue, Replies) {
    let (sender, receiver) = mpsc::channel(REPLIES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { sender, bytes: Arc::clone(&bytes) }, Replies { receiver, bytes })
}

impl Queue {
    /// `false` if there is no room.
    fn push(&self, reply: Bytes, place: Option<ReadPlace>) -> bool {
        let length = reply.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = before == 0 || before + length <= REPLY_BYTES_MAX;
        if has_room && self.sender.try_send(Queued { reply, place }).is_ok() {
            return true;
        }
        self.bytes.fetch_sub(length, Ordering::Relaxed);
        false
    }
}

impl Replies {
    /// Hands replies to the stream, until the outbox is gone.
    ///
    /// Most clients that do not read are noticed by a queue that is full. This notices those that ask
    /// for little.
    pub(super) async fn write(mut self, mut stream: SendStream) -> Result<(), Fault> {
        while let Some(Queued { reply, place }) = self.receiver.recv().await {
            let length = reply.len();
            let written = tokio::time::timeout(WRITE_TIMEOUT, write_frame(&mut stream, reply));
            written.await.map_err(|_elapsed| Fault::NotRead)??;
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            drop(place);
        }
        Ok(())
    }
}

impl Outbox {
    pub(super) fn new(id: ConnectionId, connection: Connection) -> (Self, Outgoing) {
        let (keep_alives, keep_alives_out) = queue();
        let (requests, requests_out) = queue();
        let outbox = Self {
            id,
            connection,
            keep_alives,
            requests,
            reads: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        };
        (outbox, Outgoing { keep_alives: keep_alives_out, requests: requests_out })
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether the connection is gone, so that its requests are of no interest any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether every reply was handed to its stream.
    pub(super) fn is_empty(&self) -> bool {
        let bytes = |queue: &Queue| queue.bytes.load(Ordering::Relaxed);
        bytes(&self.keep_alives) == 0 && bytes(&self.requests) == 0
    }

    /// Ends it, and its connection.
    pub(super) fn close(&self, why: Close) {
        self.closed.store(true, Ordering::Release);
        why.connection(&self.connection);
    }

    /// Queues a reply. A client that leaves no room for it is dropped.
    pub(super) fn send(&self, reply: &Reply) {
        self.send_with(reply, None);
    }

    /// Queues the answer to a read of a file.
    pub(super) fn answer_read(&self, reply: &Reply, place: ReadPlace) {
        self.send_with(reply, Some(place));
    }

    fn send_with(&self, reply: &Reply, place: Option<ReadPlace>) {
        if self.is_closed() {
            return;
        }
        let queue = if goes_with_keep_alives(reply) { &self.keep_alives } else { &self.requests };
        if !queue.push(codec::encode(reply).into(), place) {
            tracing::warn!(conn = %self.id, "the client does not read its replies: dropped");
            self.close(Close::TooSlow);
        }
    }

    /// Takes a place among the reads of files that are not answered; `false` if there is none.
    pub(super) fn begin_read(&self) -> bool {
        let place = |reads: u32| (reads < READS_MAX).then_some(reads + 1);
        self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_ok()
    }

    /// Gives it back.
    pub(super) fn end_read(&self) {
        self.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a reply goes back on the stream of the keep-alives.
fn goes_with_keep_alives(reply: &Reply) -> bool {
    match reply {
        Reply::Opened { .. } | Reply::KeptAlive { .. } | Reply::SessionEnded { .. } => true,
        Reply::Submitted { .. } | Reply::Lost { .. } | Reply::Read { .. } => false,
        Reply::Unavailable { request, .. } => match request {
            RequestKey::Open(_) | RequestKey::KeepAlive(..) => true,
            RequestKey::Submit(..) | RequestKey::Read(_) => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_wait_have_limits() {
        let (many, _waiting) = queue();
        let pushed =
            (0..=REPLIES_MAX).take_while(|_| many.push(Bytes::from_static(b"reply"), None)).count();
        assert_eq!(pushed, REPLIES_MAX);

        let (large, mut waiting) = queue();
        let reply = Bytes::from(vec![0; REPLY_BYTES_MAX / 4]);
        let pushed = (0..9).take_while(|_| large.push(reply.clone(), None)).count();
        assert_eq!(pushed, 4);
        let taken = waiting.receiver.try_recv().expect("one waits");
        assert!(!large.push(reply.clone(), None), "it is not written yet");
        waiting.bytes.fetch_sub(taken.reply.len(), Ordering::Relaxed);
        assert!(large.push(reply, None));
    }

    #[test]
    fn a_single_reply_may_be_larger_than_the_limit() {
        let (queue, _waiting) = queue();
        assert!(queue.push(Bytes::from(vec![0; REPLY_BYTES_MAX + 1]), None));
        assert!(!queue.push(Bytes::from_static(b"reply"), None));
    }
}
