//! What the parts of a server know together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::Connection;
use quorlock_core::ids::NodeId;
use quorlock_core::node::Status;
use tokio::sync::watch;

use super::clients::Clients;
use super::close::Close;
use super::directory::Directory;
use super::disk::{DiskFiles, Space};
use super::file_ranges::Ranges;
use super::inputs::Inboxes;
use super::metrics::Metrics;
use super::peer_link::Link;
use crate::tls::ClusterId;
use crate::wire::hello::PeerHello;

/// What the parts of a server know together. Nothing in here belongs to the node itself: that is the
/// driver's alone.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: NodeId,
    pub(super) cluster: ClusterId,
    /// Where it accepts connections.
    pub(super) address: SocketAddr,
    /// All nodes, this one too.
    pub(super) members: BTreeMap<NodeId, String>,
    /// What it says of itself to other nodes.
    pub(super) own: PeerHello,
    pub(super) started: Instant,
    pub(super) directory: Directory,
    pub(super) metrics: Metrics,
    pub(super) inboxes: Inboxes,
    /// The ways to the other nodes.
    pub(super) links: BTreeMap<NodeId, Arc<Link>>,
    pub(super) clients: Clients,
    /// The newest connection that each other node dialled.
    callers: Mutex<BTreeMap<NodeId, Connection>>,
    /// What the node said of itself last.
    pub(super) status: watch::Sender<Status>,
    /// The files, while they are open.
    files: Mutex<Option<DiskFiles>>,
    /// How many ranges of files may be sent at one time.
    pub(super) ranges: Ranges,
    pub(super) space: Space,
    /// No more connections are welcome.
    pub(super) stopping: AtomicBool,
    /// Messages from peers that came while the node was not running.
    ignored: AtomicU64,
}

/// What a [`Shared`] is made of.
pub(super) struct Parts {
    pub(super) id: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) address: SocketAddr,
    pub(super) members: BTreeMap<NodeId, String>,
    pub(super) own: PeerHello,
    pub(super) directory: Directory,
    pub(super) metrics: Metrics,
    pub(super) inboxes: Inboxes,
    pub(super) links: BTreeMap<NodeId, Arc<Link>>,
    pub(super) clients: Clients,
    pub(super) status: Status,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            id: parts.id,
            cluster: parts.cluster,
            address: parts.address,
            members: parts.members,
            own: parts.own,
            started: Instant::now(),
            directory: parts.directory,
            metrics: parts.metrics,
            inboxes: parts.inboxes,
            links: parts.links,
            clients: parts.clients,
            callers: Mutex::default(),
            status: watch::Sender::new(parts.status),
            files: Mutex::default(),
            ranges: Ranges::new(),
            space: Space::default(),
            stopping: AtomicBool::new(false),
            ignored: AtomicU64::new(0),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn set_files(&self, files: Option<DiskFiles>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    pub(super) fn files(&self) -> Option<DiskFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node connected. It takes the place of an earlier connection, which is probably dead, though
    /// nobody noticed yet: a node that was started again must get in at once.
    pub(super) fn add_caller(&self, node: NodeId, connection: Connection) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = callers.insert(node, connection) {
            Close::Replaced.connection(&earlier);
        }
    }

    pub(super) fn remove_caller(&self, node: NodeId, connection: &Connection) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.get(&node).is_some_and(|other| other.stable_id() == connection.stable_id()) {
            callers.remove(&node);
        }
    }

    /// Open connections, of nodes and clients.
    pub(super) fn connections(&self) -> u64 {
        let callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner).len();
        let linked = self.links.values().filter(|link| link.connection().is_some()).count();
        (callers + linked + self.clients.count()) as u64
    }

    /// A message from a peer could not be given to the node.
    pub(super) fn ignore_message(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages to and from peers that were dropped.
    pub(super) fn dropped_messages(&self) -> u64 {
        let by_links: u64 = self.links.values().map(|link| link.dropped()).sum();
        let by_node: u64 = self.status.borrow().dropped.values().sum();
        by_links + by_node + self.ignored.load(Ordering::Relaxed)
    }
}
