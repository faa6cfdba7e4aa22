//! A client that says what a test tells it to, and nothing by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use quorlock::quorlock_core::codec;
use quorlock::quorlock_core::config::FRAME_BYTES_MAX;
use quorlock::quorlock_core::ids::{ClientNonce, LogIndex, NodeId, RequestId, Sequence, SessionId};
use quorlock::quorlock_core::message::{
    Acked, Consistency, Done, KeepAlive, Op, Outcome, Query, Reply, Request, Submission,
};
use quorlock::quorlock_core::text::{FileName, Label, LockName};
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{ALPN, NODE_NAME};
use quorlock::wire::hello::PeerHello;
use quorlock::wire::{FrameReader, HelloReply, HelloRequest, StreamKind, write_frame};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::cluster::PATIENCE;

/// An endpoint that shows a certificate, whatever it is.
pub(crate) fn endpoint(authority: &Authority, issued: &Issued) -> Endpoint {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(authority.certificate())).expect("an authority");
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate(&issued.certificate)], key)
        .expect("a key and its certificate");
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("good for QUIC");
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    endpoint
}

/// Connects, and says hello.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
    to: Option<NodeId>,
    peer: Option<PeerHello>,
) -> Result<(Connection, HelloReply), String> {
    let connecting = endpoint.connect(address, NODE_NAME).expect("a good address");
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let reply = hello(&connection, &HelloRequest { to, peer }).await?;
    Ok((connection, reply))
}

async fn hello(connection: &Connection, request: &HelloRequest) -> Result<HelloReply, String> {
    let (mut send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let frame = encode(request);
    write_frame(&mut send, frame).await.map_err(|error| error.to_string())?;
    let frame = FrameReader::new(receive, 1 << 20).next().await;
    let frame = frame.map_err(|error| error.to_string())?.ok_or("no answer")?;
    Ok(postcard::from_bytes(&frame[1..]).expect("a hello of this version"))
}

/// A value as this host encodes it.
pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).expect("a plain value")
}

/// Opens a stream, both ways.
pub(crate) async fn open(connection: &Connection, kind: StreamKind) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&[kind.byte()]).await.expect("the connection is up");
    (send, receive)
}

/// One of the two streams of a client.
struct Stream {
    send: SendStream,
    reader: FrameReader,
}

impl Stream {
    async fn open(connection: &Connection, kind: StreamKind) -> Self {
        let (send, receive) = open(connection, kind).await;
        Self { send, reader: FrameReader::new(receive, FRAME_BYTES_MAX) }
    }

    async fn ask(&mut self, request: &Request) -> Option<Reply> {
        write_frame(&mut self.send, codec::encode(request)).await.ok()?;
        self.reply().await
    }

    async fn reply(&mut self) -> Option<Reply> {
        let frame = self.reader.next().await.ok()??;
        Some(codec::decode(&frame).expect("a reply"))
    }
}

/// Every session is another one.
static NONCES: AtomicU64 = AtomicU64::new(0);

/// A client with a session, that asks one thing after the other.
pub(crate) struct RawClient {
    pub(crate) connection: Connection,
    keep_alives: Stream,
    requests: Stream,
    pub(crate) session: SessionId,
    sequence: Sequence,
}

impl RawClient {
    /// Connects to a node that should lead.
    pub(crate) async fn open(endpoint: &Endpoint, address: SocketAddr) -> Option<Self> {
        let connected = connect(endpoint, address, None, None);
        let (connection, reply) = tokio::time::timeout(PATIENCE, connected).await.ok()?.ok()?;
        if let HelloReply::Refused(_) = reply {
            return None;
        }
        let mut keep_alives = Stream::open(&connection, StreamKind::KeepAlives).await;
        let requests = Stream::open(&connection, StreamKind::Requests).await;
        let open = Request::OpenSession {
            nonce: ClientNonce(7, NONCES.fetch_add(1, Ordering::Relaxed)),
            label: Label::default(),
            lease: Duration::from_secs(30),
        };
        let Reply::Opened { result: Ok(opened), .. } = keep_alives.ask(&open).await? else {
            return None;
        };
        let (session, sequence) = (opened.session, Sequence::ZERO);
        Some(Self { connection, keep_alives, requests, session, sequence })
    }

    pub(crate) async fn submit(&mut self, op: Op) -> Option<Outcome> {
        let through = self.sequence;
        self.sequence = self.sequence.next();
        let acked = Acked { through, except: Vec::new() };
        let (session, sequence) = (self.session, self.sequence);
        let submission = Request::Submit(Submission { session, sequence, acked, op });
        let Reply::Submitted { outcome, .. } = self.requests.ask(&submission).await? else {
            return None;
        };
        Some(outcome)
    }

    /// Says something on the stream of requests, and waits for no answer.
    pub(crate) async fn say(&mut self, frame: Bytes) {
        write_frame(&mut self.requests.send, frame).await.expect("the connection is up");
    }

    /// Locks `lock`, appends to a file of the same name, releases.
    pub(crate) async fn append(&mut self, lock: &str, bytes: &[u8]) -> Option<u64> {
        use quorlock::quorlock_core::message::{FileAppend, Wait};
        let file = FileName::new(lock).expect("a good name");
        let append = FileAppend { file, bytes: bytes.to_vec().into() };
        let section = Op::Section {
            lock: LockName::new(lock).expect("a good name"),
            wait: Wait::Forever,
            appends: vec![append],
        };
        let done = self.submit(section).await?.expect("nothing speaks against it");
        let Done::Sectioned { offsets, .. } = done else {
            panic!("a section is answered: {done:?}")
        };
        Some(offsets[0])
    }

    pub(crate) async fn read(&mut self, file: &str, offset: u64, length: u32) -> Option<Reply> {
        write_frame(&mut self.requests.send, read_request(file, offset, length)).await.ok()?;
        self.requests.reply().await
    }

    /// The next reply on the stream of requests.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        self.requests.reply().await
    }

    pub(crate) async fn keep_alive(&mut self) -> Option<Reply> {
        let keep_alive = KeepAlive {
            session: self.session,
            acked: Acked::default(),
            losses_seen: LogIndex::ZERO,
        };
        let id = RequestId::new(1);
        self.keep_alives.ask(&Request::KeepAlive { id, keep_alive }).await
    }
}

/// An encoded read of a file, from whatever the node has.
pub(crate) fn read_request(file: &str, offset: u64, length: u32) -> Bytes {
    let file = FileName::new(file).expect("a good name");
    let query = Query::ReadFile { file, offset, length };
    let consistency = Consistency::Stale;
    codec::encode(&Request::Read { id: RequestId::new(1), query, consistency }).into()
}
