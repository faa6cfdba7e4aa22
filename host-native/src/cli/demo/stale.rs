//! Reads a file as one particular node has it. The client library asks only the leader; to compare the
//! nodes, each has to be asked for itself.

use std::time::Duration;

use quorlock_core::codec;
use quorlock_core::config::{FRAME_BYTES_MAX, READ_BYTES_MAX};
use quorlock_core::ids::{NodeId, RequestId};
use quorlock_core::message::{Answer, Consistency, Query, Reply, Request};
use quorlock_core::text::FileName;

use super::Failure;
use crate::tls::{Credentials, NODE_NAME};
use crate::wire::{FrameReader, HelloRequest, StreamKind, hello, write_frame};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The bytes of a file on one node.
pub(super) async fn read(
    credentials: &Credentials,
    node: NodeId,
    address: &str,
    file: &FileName,
) -> Result<Vec<u8>, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::unavailable(format!("node {node} cannot be asked for {file}: {why}"))
    };
    let reading = async {
        let endpoint = crate::endpoint::connecting(credentials).map_err(|error| failed(&error))?;
        let address = address.parse().map_err(|error| failed(&error))?;
        let connecting = endpoint.connect(address, NODE_NAME).map_err(|error| failed(&error))?;
        let connection = connecting.await.map_err(|error| failed(&error))?;
        let hello = HelloRequest { to: Some(node), peer: None };
        hello::say(&connection, &hello).await.map_err(|error| failed(&error))?;
        let (mut send, receive) = connection.open_bi().await.map_err(|error| failed(&error))?;
        let kind = [StreamKind::Requests.byte()];
        send.write_all(&kind).await.map_err(|error| failed(&error))?;
        let mut replies = FrameReader::new(receive, FRAME_BYTES_MAX);
        let mut bytes = Vec::new();
        for number in 1.. {
            let query = Query::ReadFile {
                file: file.clone(),
                offset: bytes.len() as u64,
                length: READ_BYTES_MAX,
            };
            let id = RequestId::new(number);
            let request = Request::Read { id, query, consistency: Consistency::Stale };
            let frame = codec::encode(&request);
            write_frame(&mut send, frame).await.map_err(|error| failed(&error))?;
            let reply = replies.next().await.map_err(|error| failed(&error))?;
            let reply = reply.ok_or_else(|| failed(&"it closed the connection"))?;
            let reply = codec::decode::<Reply>(&reply).map_err(|error| failed(&error))?;
            let Reply::Read { answer: Answer::Bytes { file: Some(_), bytes: more }, .. } = reply
            else {
                return Err(failed(&format!("it answered {reply:?}")));
            };
            if more.is_empty() {
                break;
            }
            bytes.extend_from_slice(&more);
        }
        connection.close(quinn::VarInt::from_u32(0), b"done");
        Ok(bytes)
    };
    tokio::time::timeout(TIMEOUT, reading).await.map_err(|_elapsed| failed(&"it takes too long"))?
}
