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

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

const VALID_FOR: Duration = Duration::from_hours(1);

/// Credentials signed by an authority.
fn credentials(folder: &Path, authority: &Authority, role: Role) -> Credentials {
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
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sockets: Vec<UdpSocket> = (0..count).map(bind).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect()
}

pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) configs: BTreeMap<NodeId, ServerConfig>,
    pub(crate) servers: BTreeMap<NodeId, Server>,
}

impl Cluster {
    /// Prepares a cluster whose nodes are not started yet.
    fn new(size: u64) -> Self {
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
        Self { folder, authority, configs, servers: BTreeMap::new() }
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
        let server = Server::start(config.clone()).await.expect("the node starts");
        config.start = Start::Load;
        self.servers.insert(id, server);
    }

    pub(crate) async fn stop_node(&mut self, id: NodeId) {
        let server = self.servers.remove(&id).expect("a node that runs");
        server.stop().await.expect("nothing failed before");
    }

    fn reports(&self) -> Vec<NodeReport> {
        self.servers.values().map(Server::report).collect()
    }

    pub(crate) fn credentials(&self, role: Role) -> Credentials {
        credentials(self.folder.path(), &self.authority, role)
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

/// Waits until something is true.
async fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited too long for {what}");
}
