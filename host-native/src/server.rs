//! A node of a cluster, as a server: the core's node with a network, a disk and a clock.
//!
//! ```text
//!  peers ─► peer streams ─┐                   ┌─► log thread ──► log on disk
//!                         ├─► driver (Node) ──┼─► file thread ─► guarded files
//!  clients ► their streams┘        │          ├─► a link to each peer
//!                                  └──────────┴─► an outbox for each client
//! ```
//!
//! - One task, the driver, owns the node. It never waits for a disk or a connection.
//! - Whoever connects passes three gates: handshake, certificate, hello.
//! - Each node dials all others and sends on connections that it dialled, so a pair has two.
//! - Every queue has a limit in number and in bytes. Towards the node a full queue makes the sender
//!   wait, from it messages to peers are dropped, and a client that does not read is.
//! - The node runs within a `life`: repair what is missing of the files, run, and again if a file turns
//!   out to be damaged. Connections outlive that.

mod accept;
mod client_outbox;
mod client_reader;
mod clients;
mod close;
mod config;
mod data_dir;
mod directory;
mod disk;
mod driver;
mod error;
mod fetch;
mod file_ranges;
mod file_thread;
mod files;
mod inputs;
mod life;
mod log_thread;
mod metrics;
mod peer_link;
mod peers;
mod report;
mod shared;
mod start;
mod storage;
mod streams;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::Endpoint;
use tokio::task::{JoinError, JoinHandle, JoinSet};

pub use config::{ServerConfig, Start};
pub use error::{ServerError, StartError};

use close::Close;
use inputs::Control;
use shared::Shared;

use crate::wire::NodeReport;

/// How long clients may take to read their last replies.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long connections may take to hear that they are closed. One that was being dialled takes long,
/// and nobody misses it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// A node that is up.
///
/// Dropping it stops it at once, as a crash would: nothing that was acknowledged is lost. To hand
/// leadership over first, use [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// `None` once it is given up.
    endpoint: Option<Endpoint>,
    life: JoinHandle<Result<(), ServerError>>,
    outcome: Option<ServerError>,
    tasks: JoinSet<()>,
    span: tracing::Span,
}

impl Server {
    /// Starts a node. It serves as soon as it finds the others.
    ///
    /// # Errors
    /// [`StartError`]: settings, certificate, data directory or address are not good for it.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        start::start(config, Arc::new(disk::open)).await
    }

    /// Where it accepts connections.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// How it is now.
    pub fn report(&self) -> NodeReport {
        report::report(&self.shared)
    }

    /// Waits until the node fails by itself: the disk, or a broken invariant. The process should end
    /// then.
    pub async fn failed(&mut self) -> ServerError {
        if self.outcome.is_none() {
            let outcome = outcome((&mut self.life).await);
            self.outcome = Some(outcome.err().unwrap_or(ServerError::Stopped));
        }
        self.outcome.clone().unwrap_or(ServerError::Stopped)
    }

    /// Hands leadership over, and goes on.
    #[cfg(test)]
    fn transfer_leadership(&self) {
        drop(self.shared.inboxes.control.send(Control::Transfer));
    }

    /// Hands leadership over, answers what was asked, and stops.
    ///
    /// # Errors
    /// Why the node had failed before.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.shared.stopping.store(true, Ordering::Release);
        // It fails only when the node has ended.
        drop(self.shared.inboxes.control.send(Control::Stop));
        let result = match self.outcome.take() {
            Some(error) => Err(error),
            None => outcome((&mut self.life).await),
        };
        let told = async {
            while !self.shared.clients.are_told() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        drop(tokio::time::timeout(DRAIN_TIMEOUT, told).await);
        self.shared.clients.close_all(Close::Stopping);
        if let Some(endpoint) = self.endpoint.take() {
            Close::Stopping.endpoint(&endpoint);
            drop(tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await);
            self.tasks.shutdown().await;
            give_up(endpoint).await;
        }
        self.shared.directory.release();
        self.span.in_scope(|| tracing::info!("stopped"));
        result
    }
}

/// Gives up an endpoint, and waits until its socket is closed: whoever stops a server can start
/// another one at the same address at once.
///
/// quinn keeps the socket for as long as a connection drains, which can take seconds. So it is given
/// others; it keeps the last two.
async fn give_up(endpoint: Endpoint) {
    let address = endpoint.local_addr();
    for _ in 0..2 {
        let other = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        if let Err(error) = other.and_then(|other| endpoint.rebind(other)) {
            tracing::debug!(%error, "the socket is closed later");
        }
    }
    drop(endpoint);
    let closed = async {
        while address.as_ref().is_ok_and(|address| std::net::UdpSocket::bind(address).is_err()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    drop(tokio::time::timeout(CLOSE_TIMEOUT, closed).await);
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            Close::Stopping.endpoint(&endpoint);
        }
        self.life.abort();
    }
}

fn outcome(joined: Result<Result<(), ServerError>, JoinError>) -> Result<(), ServerError> {
    joined.unwrap_or_else(|error| Err(ServerError::Panicked(error.to_string())))
}
