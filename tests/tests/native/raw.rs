//! A client that says what a test tells it to, with any certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use quorlock::tls::authority::Issued;
use quorlock::tls::{ALPN, NODE_NAME};
use quorlock::wire::hello::PeerHello;
use quorlock::wire::{FrameReader, HelloReply, HelloRequest, StreamKind, write_frame};
use quorlock_tests::native::Cluster;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The version of the encoding of a hello.
const VERSION: u8 = 1;

/// An endpoint that believes the nodes of a cluster, and shows a certificate, whatever it is.
pub(crate) fn endpoint(cluster: &Cluster, issued: &Issued) -> Endpoint {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(cluster.authority().certificate())).expect("an authority");
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

/// Connects, and says hello. The error is what the connection ended with.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    address: SocketAddr,
    peer: Option<PeerHello>,
) -> Result<(Connection, HelloReply), String> {
    let connecting = endpoint.connect(address, NODE_NAME).expect("a good address");
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let reply = hello(&connection, &HelloRequest { to: None, peer }).await?;
    Ok((connection, reply))
}

async fn hello(connection: &Connection, request: &HelloRequest) -> Result<HelloReply, String> {
    let (mut send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let frame = postcard::to_extend(request, vec![VERSION]).expect("a plain value");
    write_frame(&mut send, frame).await.map_err(|error| error.to_string())?;
    let frame = FrameReader::new(receive, 1 << 20).next().await;
    let frame = frame.map_err(|error| error.to_string())?.ok_or("no answer")?;
    Ok(postcard::from_bytes(&frame[1..]).expect("a hello of this version"))
}

/// Opens a stream, both ways.
pub(crate) async fn open(connection: &Connection, kind: StreamKind) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&[kind.byte()]).await.expect("the connection is up");
    (send, receive)
}
