//! The endpoint of a node.
//!
//! A node that was killed and started again is recognised at once: the keys of its connection ids and
//! of its stateless resets (RFC 9000, 10.3) come from its certificate's key, so it can tell the
//! connections of its former process apart from noise and reset them. Otherwise everybody else would
//! talk to a process that is gone until the idle time-out is over.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;

use super::{EndpointError, client_config, transport};
use crate::tls::{self, Credentials};

/// Connections that knocked and were not let in yet. quinn's default is 65,536.
const INCOMING_MAX: usize = 1024;
/// What is kept of what they sent, each and all together. quinn's defaults are 10 and 100 MiB.
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_TOTAL_BYTES_MAX: u64 = 4 << 20;

/// An endpoint that accepts and connects, on one socket.
///
/// # Errors
/// [`EndpointError`]: the credentials, or an address that is not ours or in use.
pub(crate) fn accepting(
    credentials: &Credentials,
    address: SocketAddr,
) -> Result<Endpoint, EndpointError> {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::accepting(credentials)?));
    config
        .transport_config(transport())
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    let socket =
        UdpSocket::bind(address).map_err(|source| EndpointError::Bind { address, source })?;
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(lasting(credentials), Some(config), socket, runtime)
        .map_err(|source| EndpointError::Bind { address, source })?;
    endpoint.set_default_client_config(client_config(credentials)?);
    Ok(endpoint)
}

/// The settings of an endpoint whose connection ids and reset tokens are known again after a restart.
fn lasting(credentials: &Credentials) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret());
    let derive = |purpose: &str| hmac::sign(&secret, purpose.as_bytes());
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, derive("quorlock stateless reset").as_ref());
    let ids = derive("quorlock connection ids");
    let ids = ids.as_ref().first_chunk().expect("a SHA-256 has more than eight bytes");
    let ids = u64::from_le_bytes(*ids);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}
