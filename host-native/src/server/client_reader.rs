//! The two streams of a client: requests in, replies out.

use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use quorlock_core::codec;
use quorlock_core::config::REQUEST_BYTES_MAX;
use quorlock_core::message::{Op, Request};

use super::client_outbox::{Outbox, Replies};
use super::inputs::ClientInput;
use super::shared::Shared;
use super::streams::Fault;
use crate::wire::{FrameReader, StreamKind};

/// The most bytes of a keep-alive or an opening.
const KEEP_ALIVE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams of a client.
pub(super) struct ClientStream {
    /// Which of the two.
    pub(super) kind: StreamKind,
    pub(super) is_admin: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
}

/// Serves a stream until the client closes its side of it and the connection ends.
pub(super) async fn serve(
    stream: ClientStream,
    send: SendStream,
    receive: RecvStream,
    replies: Replies,
) -> Result<(), Fault> {
    send.set_priority(stream.kind.priority()).map_err(|_closed| quinn::WriteError::ClosedStream)?;
    tokio::try_join!(stream.read(receive), replies.write(send))?;
    Ok(())
}

impl ClientStream {
    fn bytes_max(&self) -> usize {
        if self.kind == StreamKind::KeepAlives { KEEP_ALIVE_BYTES_MAX } else { REQUEST_BYTES_MAX }
    }

    async fn read(&self, receive: RecvStream) -> Result<(), Fault> {
        let is_keep_alive = self.kind == StreamKind::KeepAlives;
        let (inbox, room) = self.shared.inboxes.of_client(is_keep_alive);
        let mut reader = FrameReader::new(receive, self.bytes_max());
        while let Some(frame) = reader.next().await? {
            let request = codec::decode::<Request>(&frame).map_err(Fault::Decode)?;
            self.check(&request)?;
            let room = room.take(&frame).await;
            let input = ClientInput { outbox: Arc::clone(&self.outbox), request, room };
            if inbox.send(input).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), Fault> {
        let kind = match request {
            Request::OpenSession { .. } | Request::KeepAlive { .. } => StreamKind::KeepAlives,
            Request::Submit(submission) => {
                if matches!(submission.op, Op::Break { .. }) && !self.is_admin {
                    return Err(Fault::NotAnAdmin);
                }
                StreamKind::Requests
            }
            Request::Read { .. } => StreamKind::Requests,
        };
        if kind == self.kind { Ok(()) } else { Err(Fault::WrongStream { kind: self.kind }) }
    }
}
