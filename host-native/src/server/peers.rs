//! Dialling the other nodes, for as long as the server runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use quorlock_core::ids::NodeId;

use super::accept::check_peer;
use super::close::Close;
use super::peer_link::{Link, Linked, Outgoing};
use super::shared::Shared;
use crate::tls::{self, IdentityError, Role};
use crate::wire::hello::{self, HelloError, HelloRequest, Refusal};

/// The pause before a second attempt, which doubles with each failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause while nobody answers.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause after a refusal that will not change by itself.
const PAUSE_REFUSED: Duration = Duration::from_secs(5);
/// How long an attempt may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the address {address:?} cannot be resolved: {reason}")]
    Address { address: String, reason: String },
    #[error("cannot dial: {0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("nobody answers")]
    Silent,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate at this address is for {role} of cluster {cluster}")]
    Other { role: Role, cluster: String },
    #[error("it {0}")]
    Hello(#[from] HelloError),
    #[error("we refuse it: {0}")]
    Refused(Refusal),
}

impl DialError {
    /// Whether it would be the same again in a moment.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Identity(_) | Self::Other { .. } => true,
            Self::Refused(refusal) | Self::Hello(HelloError::Refused(refusal)) => match refusal {
                Refusal::OtherCluster { .. }
                | Refusal::OtherNode { .. }
                | Refusal::NotAMember { .. }
                | Refusal::WrongRole
                | Refusal::OtherLimits
                | Refusal::OtherDisk { .. }
                | Refusal::OlderDisk { .. }
                | Refusal::Unreadable { .. } => true,
                Refusal::TooManyConnections | Refusal::Stopping => false,
            },
            Self::Address { .. }
            | Self::Connect(_)
            | Self::Connection(_)
            | Self::Silent
            | Self::Hello(_) => false,
        }
    }
}

/// What another node says, as it may be in a line of our log.
fn capped(mut text: String) -> String {
    const BYTES_MAX: usize = 300;
    text.truncate(text.floor_char_boundary(BYTES_MAX));
    text
}

/// Keeps one link up, for ever.
pub(super) async fn keep_up(
    endpoint: Endpoint,
    shared: Arc<Shared>,
    link: Arc<Link>,
    mut outgoing: Outgoing,
) {
    let mut pause = PAUSE_MIN;
    let mut last_cause = String::new();
    loop {
        let dialled = tokio::select! {
            dialled = dial(&endpoint, &shared, &link) => dialled,
            // It was not there when this attempt began: QUIC would wait long before it knocks again.
            () = link.wait_heard() => continue,
        };
        match dialled {
            Ok(linked) => {
                tracing::info!(peer = %link.node, remote = %linked.connection.remote_address(), "connected");
                last_cause.clear();
                let since = Instant::now();
                run(&shared, &link, linked, &mut outgoing).await;
                let was_short = since.elapsed() < PAUSE_MAX;
                pause = if was_short { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            }
            Err(error) => {
                let cause = capped(error.to_string());
                // Once for each cause: a peer that is down for a night fills no disk.
                if cause == last_cause {
                    tracing::debug!(peer = %link.node, cause, "still not connected");
                } else {
                    tracing::warn!(peer = %link.node, address = ?link.address, cause, "not connected");
                }
                last_cause = cause;
                pause = if error.is_lasting() { PAUSE_REFUSED } else { (pause * 2).min(PAUSE_MAX) };
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = link.wait_heard() => {}
        }
    }
}

/// Between half of a pause and all of it, so that nodes that fail together do not try together.
fn jittered(pause: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or_default() % 512;
    pause * (512 + part) / 1024
}

async fn dial(endpoint: &Endpoint, shared: &Shared, link: &Link) -> Result<Linked, DialError> {
    let failed = |reason: String| DialError::Address { address: link.address.clone(), reason };
    let addresses = tokio::net::lookup_host(&link.address).await;
    let addresses = addresses.map_err(|error| failed(error.to_string()))?;
    let mut last_error = failed("it has no addresses".to_owned());
    for address in addresses {
        let connecting = match endpoint.connect(address, tls::NODE_NAME) {
            Ok(connecting) => connecting,
            Err(error) => {
                last_error = error.into();
                continue;
            }
        };
        match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => match greet(shared, link.node, &connection).await {
                Ok(starts) => return Ok(Linked { connection, starts }),
                Err(error) => {
                    Close::Refused.connection(&connection);
                    last_error = error;
                }
            },
            Ok(Err(error)) => last_error = error.into(),
            Err(_elapsed) => last_error = DialError::Silent,
        }
    }
    Err(last_error)
}

/// Says hello, and checks who answers. Returns how often the peer was started.
async fn greet(shared: &Shared, node: NodeId, connection: &Connection) -> Result<u64, DialError> {
    let identity = tls::peer_identity(connection)?;
    if identity.cluster != shared.cluster || identity.role != Role::Node(node) {
        let cluster = identity.cluster.to_string();
        return Err(DialError::Other { role: identity.role, cluster });
    }
    let request = HelloRequest { to: Some(node), peer: Some(shared.own.clone()) };
    let welcome = hello::say(connection, &request).await?;
    check_peer(shared, node, &welcome.peer).await.map_err(DialError::Refused)?;
    Ok(welcome.peer.starts)
}

/// Sends what is queued, until the connection breaks or is of no use any more.
async fn run(shared: &Shared, link: &Link, linked: Linked, outgoing: &mut Outgoing) {
    let connection = linked.connection.clone();
    outgoing.consensus.clear();
    outgoing.snapshots.clear();
    link.set_linked(Some(linked));
    let ended = tokio::select! {
        error = connection.closed() => error.to_string(),
        error = outgoing.consensus.send_all(&connection) => broken(error),
        error = outgoing.snapshots.send_all(&connection) => broken(error),
        () = link.wait_outdated() => "the peer was started again".to_owned(),
        () = measure(shared, link.node, &connection) => String::new(),
    };
    link.set_linked(None);
    Close::Done.connection(&connection);
    tracing::info!(peer = %link.node, cause = capped(ended), "disconnected");
}

fn broken(error: Option<quinn::WriteError>) -> String {
    error.map_or_else(|| "this node stops".to_owned(), |error| error.to_string())
}

/// Keeps the metric of the round trip up to date.
async fn measure(shared: &Shared, node: NodeId, connection: &Connection) {
    loop {
        shared.metrics.round_trip(node, connection.rtt());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
