//! What comes on a connection that was welcomed: its streams.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use quorlock_core::codec;
use quorlock_core::config::FRAME_BYTES_MAX;
use quorlock_core::ids::NodeId;
use quorlock_core::message::Message;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::client_outbox::{Outbox, Outgoing, Replies};
use super::client_reader::{self, ClientStream};
use super::close::Close;
use super::inputs::{Control, PeerInput};
use super::shared::Shared;
use super::{file_ranges, report};
use crate::tls::Role;
use crate::wire::{self, FrameError, FrameReader, StreamKind};

/// How long a new stream may take to say what it is for.
const KIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end.
#[derive(Debug)]
pub(super) enum Guest {
    /// A node, as a node.
    Peer {
        /// Which.
        node: NodeId,
        /// How often it was started.
        starts: u64,
    },
    /// A client, or a node that acts as one.
    Client {
        /// Its certificate.
        role: Role,
        /// Its replies.
        outbox: Arc<Outbox>,
        /// Where its streams get them.
        outgoing: Outgoing,
    },
}

/// Why a connection is ended from this side.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream broke: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the stream ended before it said what it is for, or took too long")]
    NoKind,
    #[error("a stream begins with {byte}, which is no kind of stream")]
    UnknownKind { byte: u8 },
    #[error("a {kind:?} stream is not for the holder of this certificate")]
    NotForThisRole { kind: StreamKind },
    #[error("a second {kind:?} stream")]
    SecondStream { kind: StreamKind },
    #[error("cannot be decoded: {0}")]
    Decode(codec::DecodeError),
    #[error("cannot be decoded: {0}")]
    DecodeOwn(#[from] wire::DecodeError),
    #[error("a request that does not belong on a {kind:?} stream")]
    WrongStream { kind: StreamKind },
    #[error("only admins may break locks")]
    NotAnAdmin,
    #[error("the client does not read its replies")]
    NotRead,
}

impl Fault {
    fn close(&self) -> Close {
        match self {
            Self::NotForThisRole { .. } | Self::NotAnAdmin => Close::NotPermitted,
            Self::NotRead => Close::TooSlow,
            Self::Frame(_)
            | Self::Write(_)
            | Self::NoKind
            | Self::UnknownKind { .. }
            | Self::SecondStream { .. }
            | Self::Decode(_)
            | Self::DecodeOwn(_)
            | Self::WrongStream { .. } => Close::Garbage,
        }
    }

    /// Whether it is only that the connection is gone.
    fn is_end(&self) -> bool {
        match self {
            Self::Frame(FrameError::Read(_)) | Self::Write(_) => true,
            Self::Frame(FrameError::TooLong { .. } | FrameError::CutOff | FrameError::TooSlow)
            | Self::NoKind
            | Self::UnknownKind { .. }
            | Self::NotForThisRole { .. }
            | Self::SecondStream { .. }
            | Self::Decode(_)
            | Self::DecodeOwn(_)
            | Self::WrongStream { .. }
            | Self::NotAnAdmin
            | Self::NotRead => false,
        }
    }
}

impl Guest {
    pub(super) fn peer(node: NodeId, starts: u64) -> Self {
        Self::Peer { node, starts }
    }

    pub(super) fn client(role: Role, outbox: Arc<Outbox>, outgoing: Outgoing) -> Self {
        Self::Client { role, outbox, outgoing }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection, guest: Guest) {
    match guest {
        Guest::Peer { node, starts } => {
            let span = tracing::info_span!("peer", peer = %node);
            serve_peer(shared, connection, node, starts).instrument(span).await;
        }
        Guest::Client { role, outbox, outgoing } => {
            let span = tracing::info_span!("client", conn = %outbox.id(), role = %role);
            serve_client(shared, connection, role, outbox, outgoing).instrument(span).await;
        }
    }
}

async fn serve_peer(shared: Arc<Shared>, connection: Connection, node: NodeId, starts: u64) {
    tracing::debug!(remote = %connection.remote_address(), "the peer connected");
    shared.add_caller(node, connection.clone());
    if let Some(link) = shared.links.get(&node) {
        link.heard_of(starts);
    }
    let mut streams = JoinSet::new();
    let ended = loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    streams.spawn(hear_peer(Arc::clone(&shared), node, stream).in_current_span());
                }
                Err(_gone) => break None,
            },
            stream = connection.accept_bi() => match stream {
                Ok(stream) => {
                    streams.spawn(answer_peer(Arc::clone(&shared), stream).in_current_span());
                }
                Err(_gone) => break None,
            },
            Some(ended) = streams.join_next() => {
                if let Ok(Err(fault)) = ended && !fault.is_end() { break Some(fault) }
            }
        }
    };
    if let Some(fault) = ended {
        tracing::warn!(reason = %fault, "the peer's connection is closed");
        fault.close().connection(&connection);
    }
    shared.remove_caller(node, &connection);
}

/// Reads what a stream is for.
async fn kind_of(stream: &mut RecvStream) -> Result<StreamKind, Fault> {
    let mut byte = [0];
    let read = tokio::time::timeout(KIND_TIMEOUT, stream.read_exact(&mut byte));
    read.await.map_err(|_elapsed| Fault::NoKind)?.map_err(|_ended| Fault::NoKind)?;
    StreamKind::of_byte(byte[0]).ok_or(Fault::UnknownKind { byte: byte[0] })
}

/// Takes a peer's messages in.
async fn hear_peer(shared: Arc<Shared>, node: NodeId, mut stream: RecvStream) -> Result<(), Fault> {
    let kind = kind_of(&mut stream).await?;
    match kind {
        StreamKind::Consensus | StreamKind::Snapshots => {}
        StreamKind::Requests
        | StreamKind::KeepAlives
        | StreamKind::Report
        | StreamKind::FileRange => return Err(Fault::NotForThisRole { kind }),
    }
    let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
    while let Some(frame) = reader.next().await? {
        let message = codec::decode::<Message>(&frame).map_err(Fault::Decode)?;
        let room = shared.inboxes.peer_room.take(&frame).await;
        if shared.inboxes.peers.send(PeerInput { from: node, message, room }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn answer_peer(
    shared: Arc<Shared>,
    (send, mut receive): (SendStream, RecvStream),
) -> Result<(), Fault> {
    match kind_of(&mut receive).await? {
        StreamKind::Report => report::answer(&shared, send, receive).await,
        StreamKind::FileRange => file_ranges::answer(&shared, send, receive).await,
        kind @ (StreamKind::Consensus
        | StreamKind::Snapshots
        | StreamKind::Requests
        | StreamKind::KeepAlives) => Err(Fault::NotForThisRole { kind }),
    }
}

/// The connection of a client.
struct ClientConnection {
    shared: Arc<Shared>,
    connection: Connection,
    role: Role,
    outbox: Arc<Outbox>,
    /// Until the stream is opened.
    keep_alives: Option<Replies>,
    requests: Option<Replies>,
}

/// A stream that said what it is for.
type Opened = (StreamKind, SendStream, RecvStream);

async fn serve_client(
    shared: Arc<Shared>,
    connection: Connection,
    role: Role,
    outbox: Arc<Outbox>,
    outgoing: Outgoing,
) {
    tracing::debug!(remote = %connection.remote_address(), "a client connected");
    let mut client = ClientConnection {
        shared,
        connection,
        role,
        outbox,
        keep_alives: Some(outgoing.keep_alives),
        requests: Some(outgoing.requests),
    };
    if let Some(fault) = client.serve().await {
        tracing::warn!(reason = %fault, "the client's connection is closed");
        client.outbox.close(fault.close());
    }
    client.outbox.close(Close::Done);
    client.shared.clients.remove(client.outbox.id());
    // It fails only when the driver is gone for good.
    drop(client.shared.inboxes.control.send(Control::Disconnected(client.outbox.id())));
}

impl ClientConnection {
    /// Serves its streams until the connection ends. Returns why this side has to end it.
    async fn serve(&mut self) -> Option<Fault> {
        let mut streams = JoinSet::new();
        let mut opened = JoinSet::new();
        loop {
            tokio::select! {
                stream = self.connection.accept_uni() => match stream {
                    // Nobody but nodes sends one way.
                    Ok(_) => {
                        return Some(Fault::NotForThisRole { kind: StreamKind::Consensus });
                    }
                    Err(_gone) => return None,
                },
                stream = self.connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        opened.spawn(open(send, receive));
                    }
                    Err(_gone) => return None,
                },
                Some(Ok(stream)) = opened.join_next() => {
                    let served = stream.and_then(|stream| self.serve_stream(stream));
                    match served {
                        Ok(served) => {
                            streams.spawn(served.in_current_span());
                        }
                        Err(fault) => return Some(fault),
                    }
                }
                Some(ended) = streams.join_next() => {
                    if let Ok(Err(fault)) = ended && !fault.is_end() {
                        return Some(fault);
                    }
                }
            }
        }
    }

    /// What a stream is served by.
    fn serve_stream(&mut self, (kind, send, receive): Opened) -> Result<Served, Fault> {
        let shared = Arc::clone(&self.shared);
        let replies = match kind {
            StreamKind::KeepAlives => self.keep_alives.take(),
            StreamKind::Requests => self.requests.take(),
            StreamKind::Report => {
                return Ok(Box::pin(async move { report::answer(&shared, send, receive).await }));
            }
            StreamKind::FileRange if matches!(self.role, Role::Node(_)) => {
                return Ok(Box::pin(
                    async move { file_ranges::answer(&shared, send, receive).await },
                ));
            }
            StreamKind::Consensus | StreamKind::Snapshots | StreamKind::FileRange => {
                return Err(Fault::NotForThisRole { kind });
            }
        };
        let replies = replies.ok_or(Fault::SecondStream { kind })?;
        let (is_admin, outbox) = (self.role.is_admin(), Arc::clone(&self.outbox));
        let stream = ClientStream { kind, is_admin, shared, outbox };
        Ok(Box::pin(client_reader::serve(stream, send, receive, replies)))
    }
}

type Served = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

async fn open(send: SendStream, mut receive: RecvStream) -> Result<Opened, Fault> {
    let kind = kind_of(&mut receive).await?;
    Ok((kind, send, receive))
}
