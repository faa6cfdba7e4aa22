//! Who gets in.
//!
//! Three gates, each cheaper to be turned away at than the next: handshakes under way (in all, and
//! from one address), with a proof of the address above a threshold, so that forged ones cost nothing;
//! the certificate, which TLS checks; the hello. A stranger gets through none of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use quorlock_core::ids::NodeId;
use tokio::task::JoinSet;

use super::client_outbox::{Outbox, Outgoing};
use super::close::Close;
use super::directory::Unknown;
use super::shared::Shared;
use super::streams::{self, Guest};
use crate::tls::{self, Identity, IdentityError, Role};
use crate::wire::hello::{self, HelloError, HelloReply, HelloRequest, PeerHello, Refusal, Welcome};

/// The most handshakes under way.
const HANDSHAKES_MAX: u32 = 256;
/// The most from one address.
const HANDSHAKES_PER_ADDRESS_MAX: u32 = 128;
/// With so many under way, a newcomer has to prove its address first.
const RETRY_ABOVE: u32 = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most refusals that are logged in each span of [`REFUSALS_SPAN`]; the others are only counted.
const REFUSALS_LOGGED_MAX: u64 = 50;
const REFUSALS_SPAN: Duration = Duration::from_secs(10);

/// The handshakes under way.
#[derive(Debug, Default)]
struct Handshakes(Mutex<BTreeMap<IpAddr, u32>>);

/// A place among them.
#[derive(Debug)]
struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u32 {
        self.lock().values().sum()
    }

    fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let mut by_address = self.lock();
        let same = by_address.get(&address).copied().unwrap_or_default();
        if same >= HANDSHAKES_PER_ADDRESS_MAX || by_address.values().sum::<u32>() >= HANDSHAKES_MAX
        {
            return None;
        }
        by_address.insert(address, same + 1);
        Some(Handshake { all: Arc::clone(self), address })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut by_address = self.all.lock();
        if let Some(same) = by_address.get_mut(&self.address) {
            *same -= 1;
            if *same == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Limits how much strangers can make us log.
#[derive(Debug)]
struct RefusalLog {
    since: Mutex<tokio::time::Instant>,
    count: AtomicU64,
}

impl RefusalLog {
    fn new() -> Self {
        Self { since: Mutex::new(tokio::time::Instant::now()), count: AtomicU64::new(0) }
    }

    fn note(&self, remote: std::net::SocketAddr, reason: &str) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.elapsed() >= REFUSALS_SPAN {
            *since = tokio::time::Instant::now();
            let before = self.count.swap(0, Ordering::Relaxed);
            if before > REFUSALS_LOGGED_MAX {
                tracing::warn!(
                    refusals = before - REFUSALS_LOGGED_MAX,
                    "more were refused, not logged"
                );
            }
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < REFUSALS_LOGGED_MAX {
            tracing::warn!(%remote, reason, "connection refused");
        }
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake failed: {0}")]
    Handshake(#[from] quinn::ConnectionError),
    #[error("the handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// Lets connections in until the endpoint is closed, and serves them.
pub(super) async fn run(endpoint: Endpoint, shared: Arc<Shared>) {
    let handshakes = Arc::new(Handshakes::default());
    let log = Arc::new(RefusalLog::new());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                let remote = incoming.remote_address();
                let is_proven = incoming.remote_address_validated() || !incoming.may_retry();
                if !is_proven && handshakes.count() >= RETRY_ABOVE {
                    // It fails only for those that may not retry.
                    drop(incoming.retry());
                } else if let Some(handshake) = handshakes.begin(remote.ip()) {
                    let served = serve(incoming, Arc::clone(&shared), handshake, Arc::clone(&log));
                    connections.spawn(tracing::Instrument::in_current_span(served));
                } else {
                    log.note(remote, "too many handshakes are under way");
                    incoming.refuse();
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(
    incoming: Incoming,
    shared: Arc<Shared>,
    handshake: Handshake,
    log: Arc<RefusalLog>,
) {
    let remote = incoming.remote_address();
    match greet(incoming, &shared, handshake).await {
        Ok((connection, guest)) => streams::serve(shared, connection, guest).await,
        Err(refused) => log.note(remote, &refused.to_string()),
    }
}

/// Handshake, certificate, hello.
async fn greet(
    incoming: Incoming,
    shared: &Arc<Shared>,
    handshake: Handshake,
) -> Result<(Connection, Guest), Refused> {
    let connecting = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming.accept()?);
    let connection = connecting.await.map_err(|_elapsed| Refused::Slow)??;
    let greeted = greet_connected(&connection, shared).await;
    drop(handshake);
    match greeted {
        Ok(guest) => Ok((connection, guest)),
        Err(refused) => {
            Close::Refused.connection(&connection);
            Err(refused)
        }
    }
}

async fn greet_connected(connection: &Connection, shared: &Arc<Shared>) -> Result<Guest, Refused> {
    let identity = tls::peer_identity(connection)?;
    let mut place = None;
    let answered = hello::answer(connection, async |request| {
        let decided = match request {
            Ok(request) => decide(shared, connection, &identity, &request).await,
            Err(error) => Err(Refusal::Unreadable { reason: error.to_string() }),
        };
        match decided {
            Ok(admitted) => {
                place = admitted;
                HelloReply::Welcome(welcome(shared))
            }
            Err(refusal) => HelloReply::Refused(refusal),
        }
    });
    let answered = answered.await;
    match (answered, place, &identity.role) {
        (Ok(_), Some((outbox, outgoing)), role) => {
            Ok(Guest::client(role.clone(), outbox, outgoing))
        }
        (Ok(request), None, Role::Node(node)) => {
            let starts = request.peer.map_or(0, |peer| peer.starts);
            Ok(Guest::peer(*node, starts))
        }
        (Ok(_), None, Role::Client(_) | Role::Admin(_)) => {
            Err(HelloError::Refused(Refusal::WrongRole).into())
        }
        (Err(error), place, _) => {
            if let Some((outbox, _)) = place {
                shared.clients.remove(outbox.id());
            }
            Err(error.into())
        }
    }
}

/// A place among the clients; `None` for a peer, which needs none.
type Place = Option<(Arc<Outbox>, Outgoing)>;

async fn decide(
    shared: &Arc<Shared>,
    connection: &Connection,
    identity: &Identity,
    request: &HelloRequest,
) -> Result<Place, Refusal> {
    if identity.cluster != shared.cluster {
        return Err(Refusal::OtherCluster { ours: shared.cluster.to_string() });
    }
    if request.to.is_some_and(|node| node != shared.id) {
        return Err(Refusal::OtherNode { ours: shared.id });
    }
    if shared.is_stopping() {
        return Err(Refusal::Stopping);
    }
    match (&identity.role, &request.peer) {
        (Role::Node(node), Some(peer)) => {
            check_peer(shared, *node, peer).await?;
            Ok(None)
        }
        (Role::Client(_) | Role::Admin(_), Some(_)) => Err(Refusal::WrongRole),
        (role, None) => {
            let place = shared.clients.admit(role, connection);
            place.map(Some).ok_or(Refusal::TooManyConnections)
        }
    }
}

/// Whether a node is the one that is known.
pub(super) async fn check_peer(
    shared: &Shared,
    node: NodeId,
    peer: &PeerHello,
) -> Result<(), Refusal> {
    if node == shared.id || !shared.members.contains_key(&node) {
        return Err(Refusal::NotAMember { node });
    }
    if peer.limits != shared.own.limits {
        return Err(Refusal::OtherLimits);
    }
    match shared.directory.remember(node, peer.clone()).await {
        Ok(()) => Ok(()),
        Err(Unknown::Refused(refusal)) => Err(refusal),
        Err(Unknown::Failed(reason)) => {
            tracing::error!(peer = %node, reason, "cannot write down what is known of a peer");
            Err(Refusal::Stopping)
        }
    }
}

fn welcome(shared: &Shared) -> Welcome {
    Welcome {
        node: shared.id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        members: shared.members.iter().map(|(node, address)| (*node, address.clone())).collect(),
        peer: shared.own.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_have_limits() {
        let handshakes = Arc::new(Handshakes::default());
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let same: Vec<_> = std::iter::from_fn(|| handshakes.begin(address(1))).collect();
        assert_eq!(same.len(), HANDSHAKES_PER_ADDRESS_MAX as usize);
        let others = (2..=255).filter_map(|last| handshakes.begin(address(last)));
        let others: Vec<_> = others.collect();
        assert_eq!(same.len() + others.len(), HANDSHAKES_MAX as usize);
        drop(same);
        assert!(handshakes.begin(address(1)).is_some());
        drop(others);
        assert_eq!(handshakes.count(), 0);
    }
}
