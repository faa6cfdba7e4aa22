//! The settings of a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::NodeId;

use crate::tls::Credentials;

/// How a server finds its data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// There is none yet: the first start of a node of a new cluster. Every node must be given the
    /// same members and the same limits.
    Bootstrap(Limits),
    /// It is there.
    Load,
}

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The node. It is the one of the certificate, too.
    pub id: NodeId,
    /// Where to accept connections (UDP). With port 0 the system chooses one, which is of use only to
    /// a cluster of one.
    pub listen: SocketAddr,
    /// All nodes of the cluster, this one included, as `host:port`.
    pub members: BTreeMap<NodeId, String>,
    /// Where the node keeps its log and the guarded files.
    pub data_dir: PathBuf,
    /// The certificate of the node, and the authority of the cluster.
    pub credentials: Credentials,
    /// Whether the data directory is there already.
    pub start: Start,
    /// The settings of consensus.
    pub node: Config,
    /// Where to serve metrics over HTTP; a loopback address. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The most connections of clients. Default 4096. Nodes have room of their own.
    pub connections_max: u32,
    /// The most connections with one client certificate. Default 2048.
    pub connections_per_client_max: u32,
}

impl ServerConfig {
    /// Settings with the defaults for whatever has one.
    pub fn new(
        id: NodeId,
        listen: SocketAddr,
        members: BTreeMap<NodeId, String>,
        data_dir: PathBuf,
        credentials: Credentials,
        start: Start,
    ) -> Self {
        Self {
            id,
            listen,
            members,
            data_dir,
            credentials,
            start,
            node: Config::default(),
            metrics: None,
            connections_max: 4096,
            connections_per_client_max: 2048,
        }
    }
}
