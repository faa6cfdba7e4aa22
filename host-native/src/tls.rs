//! Who is who: certificates, and what they say.
//!
//! Everybody proves who they are, nodes and clients alike (mutual TLS 1.3), also on loopback. One
//! authority signs all certificates of a cluster. What its holder may do is in the certificate, as a
//! URI among the subject's alternative names:
//!
//! ```text
//! quorlock:0123456789abcdef0123456789abcdef/node/3        node 3 of that cluster
//! quorlock:0123456789abcdef0123456789abcdef/client/ci     a client that calls itself "ci"
//! quorlock:0123456789abcdef0123456789abcdef/admin/alice   a client that may also break locks
//! ```
//!
//! So a client's certificate cannot speak for a node, nor one cluster's for another that happens to
//! have the same authority, and the sender of a message is never taken from its bytes. The host name is
//! no part of it: every node's certificate is for [`NODE_NAME`], wherever it runs, and which node it
//! is says the URI.

#[cfg(feature = "certs")]
pub mod authority;
mod credentials;
mod identity;

use std::sync::Arc;

#[cfg(feature = "cli")]
pub(crate) use credentials::certificates;
pub use credentials::{Credentials, CredentialsError, Validity};
pub use identity::{ClusterId, ClusterIdError, Identity, IdentityError, Role};

use quinn::crypto::rustls::QuicClientConfig;
#[cfg(feature = "server")]
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
#[cfg(feature = "server")]
use rustls::server::WebPkiClientVerifier;

/// The name that every node's certificate is for.
pub const NODE_NAME: &str = "node.quorlock";

/// The protocol, and its version: peers that do not share one do not connect.
pub const ALPN: &[u8] = b"quorlock/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The TLS of the accepting side: it asks for a certificate, and takes none of another authority.
///
/// # Errors
/// [`CredentialsError::Unusable`] if certificate, key and authority do not go together.
#[cfg(feature = "server")]
pub(crate) fn accepting(credentials: &Credentials) -> Result<QuicServerConfig, CredentialsError> {
    let provider = provider();
    let roots = Arc::new(credentials.roots()?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(CredentialsError::unusable)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain(), credentials.key())
        .map_err(CredentialsError::unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // No early data: it could be replayed (RFC 8446, section 8). No tickets either: a certificate
    // is checked at every connection, and connections are few and long.
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    QuicServerConfig::try_from(tls).map_err(CredentialsError::unusable)
}

/// The TLS of the connecting side.
///
/// # Errors
/// As [`accepting`].
pub(crate) fn connecting(credentials: &Credentials) -> Result<QuicClientConfig, CredentialsError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::unusable)?
        .with_root_certificates(credentials.roots()?)
        .with_client_auth_cert(credentials.chain(), credentials.key())
        .map_err(CredentialsError::unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    QuicClientConfig::try_from(tls).map_err(CredentialsError::unusable)
}

/// Who is at the other end of a connection, by its certificate, which TLS has verified.
///
/// # Errors
/// [`IdentityError`] if the certificate is not one of Quorlock's.
pub(crate) fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    let presented = connection.peer_identity().ok_or(IdentityError::NoCertificate)?;
    let chain = presented
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_other| IdentityError::NoCertificate)?;
    Identity::of_certificate(chain.first().ok_or(IdentityError::NoCertificate)?)
}
