//! A cluster of servers in this process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use quorlock::quorlock_core::config::Limits;
use quorlock::quorlock_core::ids::NodeId;
use quorlock::server::{Server, ServerConfig, Start};
use quorlock::tls::authority::{Authority, Issued};
use quorlock::tls::{Credentials, Role};
use quorlock::wire::{NodeReport, ReportedRole};
use tempfile::TempDir;

use crate::raw::RawClient;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const VALID_FOR: Duration = Duration::from_hours(1);

/// Credentials signed by an authority.
pub(crate) fn credentials(folder: &Path, authority: &Authority, role: Role) -> Credentials {
    let issued = authority.issue(role, VALID_FOR).expect("a good role");
    credentials_of(folder, authority, &issued)
}

pub(crate) fn credentials_of(folder: &Path, authority: &Authority, issued: &Issued) -> Credentials {
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    };
    let ca = file("ca.pem", authority.certificate());
    let certificate = file("cert.pem", &issued.certificate);
    let key = file("key.pem", &issued.key);
    Credentials::from_files(&ca, &certificate, &key).expect("credentials that go together")
}

/// Addresses that nobody uses now.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sockets: Vec<UdpSocket> = (0..count).map(bind).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect()
}

pub(crate) struct Cluster {
    /// Removed with everything in it when this is dropped.
    _folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) configs: BTreeMap<NodeId, ServerConfig>,
    pub(crate) servers: BTreeMap<NodeId, Server>,
}

/// Shows the log of the servers of a test that fails, if `QUORLOCK_LOG` asks for it.
fn show_log() {
    if let Ok(filter) = std::env::var("QUORLOCK_LOG") {
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
        // Another test of this process may have done it.
        drop(subscriber.try_init());
    }
}

impl Cluster {
    /// Prepares a cluster whose nodes are not started yet.
    pub(crate) fn new(size: u64) -> Self {
        show_log();
        let folder = tempfile::tempdir().expect("a folder");
        let (authority, _) = Authority::create(VALID_FOR).expect("an authority");
        let ids: Vec<NodeId> = (0..size).map(NodeId::new).collect();
        let addresses = free_addresses(ids.len());
        let members: BTreeMap<NodeId, String> =
            ids.iter().zip(&addresses).map(|(id, address)| (*id, address.to_string())).collect();
        let config = |(id, address): (&NodeId, &SocketAddr)| {
            let credentials = credentials(folder.path(), &authority, Role::Node(*id));
            let data_dir = folder.path().join(format!("node-{id}"));
            let start = Start::Bootstrap(Limits::default());
            let config =
                ServerConfig::new(*id, *address, members.clone(), data_dir, credentials, start);
            (*id, config)
        };
        let configs = ids.iter().zip(&addresses).map(config).collect();
        Self { _folder: folder, authority, configs, servers: BTreeMap::new() }
    }

    /// A cluster whose nodes run.
    pub(crate) async fn start(size: u64) -> Self {
        let mut cluster = Self::new(size);
        let ids: Vec<NodeId> = cluster.configs.keys().copied().collect();
        for id in ids {
            cluster.start_node(id).await;
        }
        cluster
    }

    /// Starts a node: the first time with a new data directory, then with that one.
    pub(crate) async fn start_node(&mut self, id: NodeId) {
        let config = self.configs.get_mut(&id).expect("a node of the cluster");
        let started = Server::start(config.clone()).await;
        let server = started.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        config.start = Start::Load;
        self.servers.insert(id, server);
    }

    pub(crate) async fn stop_node(&mut self, id: NodeId) {
        let server = self.servers.remove(&id).expect("a node that runs");
        server.stop().await.expect("nothing failed before");
    }

    /// Ends a node as a crash would, and waits until its directory is free.
    pub(crate) async fn crash_node(&mut self, id: NodeId) {
        drop(self.servers.remove(&id).expect("a node that runs"));
        let lock = self.configs[&id].data_dir.join("lock");
        let lock = std::fs::File::open(lock).expect("a node that ran has one");
        wait_for("the data directory", || lock.try_lock().is_ok()).await;
        let address = self.configs[&id].listen;
        wait_for("the address", || UdpSocket::bind(address).is_ok()).await;
    }

    pub(crate) fn report(&self, id: NodeId) -> NodeReport {
        self.servers[&id].report()
    }

    pub(crate) fn reports(&self) -> Vec<NodeReport> {
        self.servers.values().map(Server::report).collect()
    }

    /// Waits until all nodes that run agree on a leader among them.
    pub(crate) async fn leader(&self) -> NodeId {
        let mut leader = None;
        wait_for("a leader that all nodes know", || {
            let reports = self.reports();
            leader =
                reports.iter().find(|report| report.role == ReportedRole::Leader).map(|r| r.id);
            leader.is_some() && reports.iter().all(|report| report.leader == leader)
        })
        .await;
        leader.expect("it was there just now")
    }
}

/// A client with a session at the leader.
pub(crate) async fn client(cluster: &Cluster) -> RawClient {
    let role = Role::Client("test".to_owned());
    let issued = cluster.authority.issue(role, VALID_FOR).expect("a good name");
    let endpoint = crate::raw::endpoint(&cluster.authority, &issued);
    let opened = async {
        loop {
            let leader = cluster.leader().await;
            let address = cluster.configs[&leader].listen;
            if let Some(client) = RawClient::open(&endpoint, address).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("a leader that opens a session")
}

/// Waits until something is true.
pub(crate) async fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited too long for {what}");
}
