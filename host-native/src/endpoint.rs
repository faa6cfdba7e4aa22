//! QUIC, with every limit set by us.
//!
//! quinn's defaults are for servers that trust their users: any amount of buffered data per
//! connection, no sign of life, any number of accepted connections. Here each is a decision.

#[cfg(feature = "server")]
mod accepting;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, Endpoint, IdleTimeout, TransportConfig, VarInt};

#[cfg(feature = "server")]
pub(crate) use accepting::accepting;

use crate::tls::{self, Credentials, CredentialsError};

/// A connection that is silent for so long is dead.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Signs of life on a connection that has nothing to say: two may get lost.
const KEEP_ALIVE: Duration = Duration::from_millis(1500);

/// The first guess at a round trip, which decides when the first packet is sent again. quinn's
/// default, a third of a second, is for the whole world; nodes are closer, and the guess is
/// corrected by the first answer.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// What one stream may have sent without being read. A frame may be longer: it is read as it comes.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all streams of one connection may have sent without being read: what one peer can make us
/// keep. quinn's default has no limit.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What we keep of what the other side has not acknowledged.
const SEND_WINDOW: u64 = 8 << 20;

/// Streams that one peer may have open in each direction. Two are for consensus, two for a client's
/// requests, the others for files and reports.
const STREAMS_MAX: u32 = 16;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The socket.
    #[error("cannot use the address {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("a few seconds are a time-out");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        // Nobody sends any.
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}

/// The settings of the connecting side.
///
/// # Errors
/// [`CredentialsError`] if the credentials do not go together.
pub(crate) fn client_config(credentials: &Credentials) -> Result<ClientConfig, CredentialsError> {
    let mut config = ClientConfig::new(Arc::new(tls::connecting(credentials)?));
    config.transport_config(transport());
    Ok(config)
}

/// An endpoint that only connects. It has a socket of its own.
///
/// # Errors
/// [`EndpointError`]: the credentials, or no socket.
pub(crate) fn connecting(credentials: &Credentials) -> Result<Endpoint, EndpointError> {
    let config = client_config(credentials)?;
    let bind = |address: SocketAddr| {
        Endpoint::client(address).map_err(|source| EndpointError::Bind { address, source })
    };
    // A socket for both families where there are both; for the older one where there is only that.
    let mut endpoint = bind((Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_no_ipv6| bind(([0, 0, 0, 0], 0).into()))?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

#[cfg(all(test, feature = "server", feature = "certs"))]
mod tests;
