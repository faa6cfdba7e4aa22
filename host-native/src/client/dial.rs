//! Connecting to a node: look up its name, try every address, see who is there, say hello.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use quorlock_core::ids::NodeId;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::DialError;
use super::background::Background;
use crate::tls::{self, ClusterId, Credentials, Role};
use crate::wire::hello::{self, HelloError, HelloRequest, Welcome};
use crate::{EndpointError, endpoint};

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// By how much the attempt at each further address of a name starts later (RFC 8305 has 250 ms,
/// for networks that are further away).
const STAGGER: Duration = Duration::from_millis(100);
/// Between two looks whether a node that is silent is still there.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How many looks in a row must say that nobody is there.
const PROBES_MIN: u32 = 2;

/// Makes connections to nodes, with one socket.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    endpoint: quinn::Endpoint,
    cluster: ClusterId,
}

/// A connection on which both sides know each other.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) connection: Connection,
    pub(super) welcome: Welcome,
}

impl Dialler {
    /// Must be called on a runtime.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, EndpointError> {
        let endpoint = endpoint::connecting(credentials)?;
        Ok(Self { endpoint, cluster: credentials.identity().cluster.clone() })
    }

    /// Connects to whatever node is at `address` (`host:port`), or to `expected` and no other.
    pub(super) async fn dial(
        &self,
        address: &str,
        expected: Option<NodeId>,
    ) -> Result<Dialled, DialError> {
        let mut attempts = JoinSet::new();
        for (number, address) in (0_u32..).zip(look_up(address).await?) {
            let dialler = self.clone();
            attempts.spawn(async move {
                tokio::time::sleep(STAGGER * number).await;
                dialler.dial_address(address, expected).await
            });
        }
        let mut first_error = None;
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(dialled)) => return Ok(dialled),
                Ok(Err(error)) => first_error = Some(more_telling(first_error, error)),
                Err(failed) => {
                    let reason = failed.to_string();
                    first_error = Some(more_telling(first_error, DialError::Broken { reason }));
                }
            }
        }
        Err(first_error
            .unwrap_or_else(|| DialError::NoSuchHost { reason: "the name has no address".into() }))
    }

    async fn dial_address(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
    ) -> Result<Dialled, DialError> {
        let connecting = self
            .endpoint
            .connect(address, tls::NODE_NAME)
            .map_err(|error| DialError::Broken { reason: error.to_string() })?;
        let connection = tokio::select! {
            connection = connecting => connection.map_err(dial_error)?,
            () = nobody_listens(address) => return Err(DialError::NobodyListens),
        };
        let certified = self.check_identity(&connection)?;
        let request = HelloRequest { to: expected, peer: None };
        let welcome = match hello::say(&connection, &request).await {
            Ok(welcome) => welcome,
            Err(error) => return Err(hello_error(&connection, error)),
        };
        let expected = expected.unwrap_or(certified);
        for found in [welcome.node, certified] {
            if found != expected {
                return Err(DialError::OtherNode { expected, found });
            }
        }
        Ok(Dialled { connection, welcome })
    }

    /// Which node it is, by its certificate.
    fn check_identity(&self, connection: &Connection) -> Result<NodeId, DialError> {
        let identity = tls::peer_identity(connection)?;
        if identity.cluster != self.cluster {
            return Err(DialError::OtherCluster {
                ours: self.cluster.clone(),
                theirs: identity.cluster,
            });
        }
        match identity.role {
            Role::Node(node) => Ok(node),
            role @ (Role::Client(_) | Role::Admin(_)) => {
                Err(DialError::NotANode { role: role.to_string() })
            }
        }
    }

    /// Closes all connections, and lets nobody wait for that.
    pub(super) fn close_soon(self, background: Background) {
        tokio::spawn(async move {
            self.close().await;
            drop(background);
        });
    }

    /// Closes all connections, and waits a little for the other sides to be told.
    pub(super) async fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"done");
        let idle = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle());
        // If it takes longer, they find out by themselves.
        drop(idle.await);
    }
}

/// Of two reasons, the one that says more about what to do.
fn more_telling(earlier: Option<DialError>, later: DialError) -> DialError {
    match earlier {
        Some(earlier) if earlier.is_lasting() || !later.is_lasting() => earlier,
        Some(_) | None => later,
    }
}

async fn look_up(address: &str) -> Result<Vec<SocketAddr>, DialError> {
    let found = tokio::net::lookup_host(address).await;
    let found = found.map_err(|error| DialError::NoSuchHost { reason: error.to_string() })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(ADDRESSES_MAX) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Resolves when the system says that nobody uses this address; never, if it says nothing.
///
/// QUIC does not believe such news, since anybody could forge them, and waits for its time-out
/// (RFC 9000, 14.2.1). To us they only mean to try another node sooner.
async fn nobody_listens(address: SocketAddr) {
    let silent = async || -> Option<()> {
        let probe = Probe::new(address).await?;
        for _ in 0..PROBES_MIN {
            probe.refused().await;
        }
        Some(())
    };
    if silent().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the other end of a connection has gone without a word, as a process does that is
/// killed: nothing was heard, and the system says that nobody uses its address any more.
pub(super) async fn is_gone(connection: &Connection) -> DialError {
    let heard = || connection.stats().udp_rx.datagrams;
    let Some(probe) = Probe::new(connection.remote_address()).await else {
        return std::future::pending().await;
    };
    let mut refusals = 0;
    let mut before = heard();
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        if heard() != before {
            before = heard();
            refusals = 0;
            continue;
        }
        let refused = tokio::time::timeout(PROBE_INTERVAL, probe.refused()).await;
        refusals = if refused.is_ok() && heard() == before { refusals + 1 } else { 0 };
        if refusals >= PROBES_MIN {
            return DialError::NobodyListens;
        }
    }
}

/// A socket that the system tells when nobody is at the other end: it is connected, and quinn's is
/// not.
struct Probe(Arc<UdpSocket>);

impl Probe {
    async fn new(address: SocketAddr) -> Option<Self> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let any: IpAddr = match address.ip() {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => [0_u16; 8].into(),
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        socket.connect(address).await.ok()?;
        Some(Self(Arc::new(socket)))
    }

    /// Sends a byte, which every node throws away, and resolves when the system refuses it.
    async fn refused(&self) {
        let is_refusal = |result: std::io::Result<usize>| {
            result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        if is_refusal(self.0.send(&[0]).await) {
            return;
        }
        // Whatever else comes is not for us; the next one may be.
        while !is_refusal(self.0.recv(&mut [0; 1]).await) {
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }
}

/// A failed hello; the end of the connection says more than what it did to the stream.
fn hello_error(connection: &Connection, error: HelloError) -> DialError {
    match error {
        HelloError::Refused(refusal) => DialError::Refused(refusal),
        HelloError::TooSlow => DialError::NoAnswer { after: hello::HELLO_TIMEOUT },
        HelloError::Decode(error) => DialError::OtherVersion { reason: error.to_string() },
        HelloError::Connection(error) => dial_error(error),
        HelloError::Write(_) | HelloError::Frame(_) | HelloError::Silent => {
            match connection.close_reason() {
                Some(reason) => dial_error(reason),
                None => DialError::Broken { reason: error.to_string() },
            }
        }
    }
}

/// TLS alerts (RFC 8446, 6).
const NO_APPLICATION_PROTOCOL: u64 = 120;

pub(super) fn dial_error(error: ConnectionError) -> DialError {
    let broken = |reason: String| DialError::Broken { reason };
    match error {
        ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
            Some(NO_APPLICATION_PROTOCOL) => DialError::OtherVersion { reason: error.to_string() },
            Some(number) => DialError::BadCertificate { reason: say_alert(number, &error.reason) },
            None => broken(error.to_string()),
        },
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(NO_APPLICATION_PROTOCOL) => DialError::OtherVersion { reason: close.to_string() },
            Some(number) => {
                let words = String::from_utf8_lossy(&close.reason);
                DialError::CertificateRefused { reason: say_alert(number, &words) }
            }
            None => broken(close.to_string()),
        },
        ConnectionError::VersionMismatch => DialError::OtherVersion { reason: error.to_string() },
        ConnectionError::TimedOut => DialError::NoAnswer { after: endpoint::IDLE_TIMEOUT },
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => broken(error.to_string()),
    }
}

/// The TLS alert that a QUIC error code carries (RFC 9001, 4.8).
fn alert(code: u64) -> Option<u64> {
    (0x100..0x200).contains(&code).then_some(code & 0xff)
}

fn say_alert(number: u64, words: &str) -> String {
    match number {
        45 => "it has expired, or a clock is wrong".into(),
        // By its name, or by its signature under a name that is right.
        48 | 51 => "another authority signed it".into(),
        116 => "there was none".into(),
        _ if words.is_empty() => format!("TLS alert {number}"),
        // The other side chose them.
        _ => format!("TLS alert {number}, {:?}", words.chars().take(200).collect::<String>()),
    }
}
