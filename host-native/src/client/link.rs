//! One connection of a session: its streams, and what goes over them.
//!
//! Keep-alives have a stream of their own, with its own writer and reader and a higher priority, so
//! that neither a large append on its way nor a reader that is busy delays them.

use std::convert::Infallible;

use quinn::{Connection, RecvStream, SendStream};
use quorlock_core::codec;
use quorlock_core::config::FRAME_BYTES_MAX;
use quorlock_core::ids::{AttemptId, NodeId};
use quorlock_core::message::{Reply, Request};
use tokio::sync::mpsc;

use super::DialError;
use super::background::Aborting;
use super::dial::{self, Dialled, Dialler};
use crate::wire::{FrameReader, StreamKind, write_frame};

/// The most replies that wait for the driver, on each stream. Beyond that the stream is not read,
/// and the node waits.
const REPLIES_MAX: usize = 16;

/// What the driver hears of its connections.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Up { attempt: AttemptId, outgoing: Outgoing },
    Reply { attempt: AttemptId, reply: Reply },
    Down { attempt: AttemptId, error: DialError },
}

/// The queues of requests that are to be written.
///
/// Their length is not limited here but by the core: one open or keep-alive is under way at a time,
/// and of the others it sends each at most once on a connection, within `calls_max` and
/// `call_bytes_max`, or once more for each time that the node says it is overloaded. They share
/// their bytes with the core's copies, and are encoded when it is their turn.
#[derive(Debug)]
pub(super) struct Outgoing {
    keep_alives: mpsc::UnboundedSender<Request>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Outgoing {
    /// Queues a request. If the connection is gone, so is the request: the core sends it again.
    pub(super) fn send(&self, request: Request) {
        let queue = match request {
            Request::OpenSession { .. } | Request::KeepAlive { .. } => &self.keep_alives,
            Request::Submit(_) | Request::Read { .. } => &self.requests,
        };
        drop(queue.send(request));
    }
}

/// Where links report, past each other: what keeps the session alive does not wait behind the rest.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    keep_alives: mpsc::Sender<LinkEvent>,
    others: mpsc::Sender<LinkEvent>,
}

/// The driver's end of [`Reports`].
#[derive(Debug)]
pub(super) struct LinkEvents {
    pub(super) keep_alives: mpsc::Receiver<LinkEvent>,
    pub(super) others: mpsc::Receiver<LinkEvent>,
}

pub(super) fn reports() -> (Reports, LinkEvents) {
    let (keep_alives, keep_alives_end) = mpsc::channel(REPLIES_MAX);
    let (others, others_end) = mpsc::channel(REPLIES_MAX);
    let events = LinkEvents { keep_alives: keep_alives_end, others: others_end };
    (Reports { keep_alives, others }, events)
}

/// Connects to a node and serves the connection until it breaks, or until the task is dropped.
pub(super) fn start(
    dialler: Dialler,
    reports: Reports,
    attempt: AttemptId,
    node: NodeId,
    address: String,
) -> Aborting<()> {
    Aborting(tokio::spawn(async move {
        let Err(error) = serve(&dialler, &reports, attempt, node, &address).await;
        tracing::debug!(%node, ?address, %error, "no connection");
        // If the driver is gone, nobody needs to know.
        drop(reports.others.send(LinkEvent::Down { attempt, error }).await);
    }))
}

async fn serve(
    dialler: &Dialler,
    reports: &Reports,
    attempt: AttemptId,
    node: NodeId,
    address: &str,
) -> Result<Infallible, DialError> {
    let Dialled { connection, .. } = dialler.dial(address, Some(node)).await?;
    tracing::debug!(%node, ?address, "connected");
    let (keep_alives_send, keep_alives_receive) = open(&connection, StreamKind::KeepAlives).await?;
    let (requests_send, requests_receive) = open(&connection, StreamKind::Requests).await?;
    let (keep_alives, keep_alives_queue) = mpsc::unbounded_channel();
    let (requests, requests_queue) = mpsc::unbounded_channel();
    let outgoing = Outgoing { keep_alives, requests };
    drop(reports.others.send(LinkEvent::Up { attempt, outgoing }).await);
    let error = tokio::select! {
        error = write(keep_alives_send, keep_alives_queue) => error,
        error = read(keep_alives_receive, attempt, &reports.keep_alives) => error,
        error = write(requests_send, requests_queue) => error,
        error = read(requests_receive, attempt, &reports.others) => error,
        error = dial::is_gone(&connection) => return Err(error),
    };
    // What ended the connection says more than what it did to a stream.
    Err(connection.close_reason().map_or(DialError::Broken { reason: error }, dial::dial_error))
}

async fn open(
    connection: &Connection,
    kind: StreamKind,
) -> Result<(SendStream, RecvStream), DialError> {
    let (mut send, receive) = connection.open_bi().await.map_err(dial::dial_error)?;
    let broken = |reason: String| DialError::Broken { reason };
    send.set_priority(kind.priority()).map_err(|error| broken(error.to_string()))?;
    send.write_all(&[kind.byte()]).await.map_err(|error| broken(error.to_string()))?;
    Ok((send, receive))
}

/// Returns why it ended.
async fn write(mut stream: SendStream, mut queue: mpsc::UnboundedReceiver<Request>) -> String {
    while let Some(request) = queue.recv().await {
        if let Err(error) = write_frame(&mut stream, codec::encode(&request)).await {
            return error.to_string();
        }
    }
    "the session is over".into()
}

/// Returns why it ended.
async fn read(stream: RecvStream, attempt: AttemptId, replies: &mpsc::Sender<LinkEvent>) -> String {
    let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return "the node closed a stream".into(),
            Err(error) => return error.to_string(),
        };
        let reply = match codec::decode::<Reply>(&frame) {
            Ok(reply) => reply,
            Err(error) => return format!("the node sent what is no reply: {error}"),
        };
        if replies.send(LinkEvent::Reply { attempt, reply }).await.is_err() {
            return "the session is over".into();
        }
    }
}
