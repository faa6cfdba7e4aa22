//! The first words on a connection.

use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use quorlock_core::checksum::Checksum;
use quorlock_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::{DecodeError, FrameError, FrameReader, decode, encode, write_frame};

/// How long the first words may take.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of a hello, in either direction.
const HELLO_BYTES_MAX: usize = 64 << 10;

/// What the side that connects says. Who it is, its certificate says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelloRequest {
    /// The node that it wants to talk to; `None` for whichever this is.
    pub to: Option<NodeId>,
    /// What a node must say of itself, and a client does not.
    pub peer: Option<PeerHello>,
}

/// What a node says of itself to another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerHello {
    /// A random number that its data directory got when it was made. Another one means another disk.
    pub incarnation: u64,
    /// How often it was started with that directory. Fewer than before means an older copy of the disk.
    pub starts: u64,
    /// The digest of the cluster's limits.
    pub limits: Checksum,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloReply {
    /// Go on.
    Welcome(Welcome),
    /// The connection ends here.
    Refused(Refusal),
}

/// What a node says of itself and its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The node.
    pub node: NodeId,
    /// The version of its program.
    pub version: String,
    /// The addresses of all nodes, as `host:port`.
    pub members: Vec<(NodeId, String)>,
    /// What a node says of itself.
    pub peer: PeerHello,
}

/// Why a connection is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The certificate is of another cluster.
    #[error("this node belongs to cluster {ours}, the certificate is of another one")]
    OtherCluster {
        /// The cluster of the node.
        ours: String,
    },
    /// This is not the node that was asked for.
    #[error("this is node {ours}: check the addresses of the nodes")]
    OtherNode {
        /// The node.
        ours: NodeId,
    },
    /// The certificate is that of a node which is not a member.
    #[error("node {node} is no member of this cluster")]
    NotAMember {
        /// Who asked.
        node: NodeId,
    },
    /// A node's certificate, but without what a node says of itself; or a client's with it.
    #[error("the certificate is not good for this: nodes talk to nodes, clients do not")]
    WrongRole,
    /// The cluster's limits differ.
    #[error("this cluster was bootstrapped with other limits")]
    OtherLimits,
    /// The node's disk is not the one that was known.
    #[error(
        "node {node} was here before with another data directory: its disk was wiped or copied, and it \
         could break what it promised; give it its own directory back, or leave it out"
    )]
    OtherDisk {
        /// Who asked.
        node: NodeId,
    },
    /// The node's disk is an older copy of the one that was known.
    #[error(
        "node {node} was here before with a later state of its data directory: an older copy of its \
         disk was put back, and it could break what it promised; leave it out"
    )]
    OlderDisk {
        /// Who asked.
        node: NodeId,
    },
    /// As many connections are open as this node takes.
    #[error("this node has as many connections as it takes; try again later")]
    TooManyConnections,
    /// The node is about to stop.
    #[error("this node is about to stop")]
    Stopping,
    /// Its own first words cannot be read.
    #[error("the hello cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// Why there was no welcome.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The other side refused.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// It took too long.
    #[error("no hello within {HELLO_TIMEOUT:?}")]
    TooSlow,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The words could not be sent.
    #[error("the connection broke: {0}")]
    Write(#[from] quinn::WriteError),
    /// The words could not be received.
    #[error("the connection broke: {0}")]
    Frame(#[from] FrameError),
    /// The stream ended before them.
    #[error("the other side closed the connection without a word")]
    Silent,
    /// They could not be understood.
    #[error("the other side speaks another language: {0}")]
    Decode(#[from] DecodeError),
}

/// Says hello, on a new connection, and waits for the answer.
///
/// # Errors
/// [`HelloError`]; the connection is of no use then.
pub(crate) async fn say(
    connection: &Connection,
    request: &HelloRequest,
) -> Result<Welcome, HelloError> {
    let exchange = async {
        let (mut send, receive) = connection.open_bi().await?;
        write_frame(&mut send, encode(request)).await?;
        // That the stream is over is all that this says; it is not an error if it is gone already.
        drop(send.finish());
        match decode(&read_one(receive).await?)? {
            HelloReply::Welcome(welcome) => Ok(welcome),
            HelloReply::Refused(refusal) => Err(HelloError::Refused(refusal)),
        }
    };
    tokio::time::timeout(HELLO_TIMEOUT, exchange).await.map_err(|_elapsed| HelloError::TooSlow)?
}

/// Waits for the hello of whoever connected, and answers it with what `decide` says.
///
/// # Errors
/// [`HelloError`]: there was none, or it was refused.
#[cfg(feature = "server")]
pub(crate) async fn answer(
    connection: &Connection,
    decide: impl AsyncFnOnce(Result<HelloRequest, DecodeError>) -> HelloReply,
) -> Result<HelloRequest, HelloError> {
    let exchange = async {
        let (mut send, receive) = connection.accept_bi().await?;
        let request = decode::<HelloRequest>(&read_one(receive).await?);
        let reply = decide(request.clone()).await;
        write_frame(&mut send, encode(&reply)).await?;
        drop(send.finish());
        match reply {
            HelloReply::Welcome(_) => Ok(request?),
            HelloReply::Refused(refusal) => {
                // The answer should arrive before the connection is closed.
                drop(tokio::time::timeout(Duration::from_secs(1), send.stopped()).await);
                Err(HelloError::Refused(refusal))
            }
        }
    };
    tokio::time::timeout(HELLO_TIMEOUT, exchange).await.map_err(|_elapsed| HelloError::TooSlow)?
}

async fn read_one(receive: quinn::RecvStream) -> Result<Bytes, HelloError> {
    FrameReader::new(receive, HELLO_BYTES_MAX).next().await?.ok_or(HelloError::Silent)
}
