//! Why a server does not start, and why it ends.

use std::net::SocketAddr;

use quorlock_core::config::ConfigError;
use quorlock_core::ids::NodeId;

use crate::endpoint::EndpointError;
use crate::tls::Role;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate is not that of this node.
    #[error("the certificate is for {role}, and this is node {node}: use the one of node {node}")]
    OtherIdentity {
        /// The node that was to be started.
        node: NodeId,
        /// What the certificate says.
        role: Role,
    },
    /// The node is not among the members.
    #[error("node {node} is not among the members: name the address of every node, its own too")]
    NotAMember {
        /// The node.
        node: NodeId,
    },
    /// The members that were named are not those of the data directory.
    #[error(
        "the members that were named are {named:?}, those of the cluster are {members:?}: name the \
         address of every node, and no others"
    )]
    OtherMembers {
        /// What was named.
        named: Vec<NodeId>,
        /// The voters of the log.
        members: Vec<NodeId>,
    },
    /// The settings.
    #[error("the settings do not work: {0}")]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error("{0}")]
    Directory(String),
    /// The log.
    #[error("{0}")]
    Log(String),
    /// The guarded files.
    #[error("{0}")]
    Files(String),
    /// What the log has is no state to start from.
    #[error("the node cannot start: {0}")]
    State(#[from] quorlock_core::node::StartError),
    /// The state in the data directory cannot be read.
    #[error("the stored state is damaged: {0}; restore the data directory, or leave this node out")]
    Snapshot(quorlock_core::codec::DecodeError),
    /// Guarded files are damaged, and there is no other node to fetch them from.
    #[error(
        "{files} guarded files are missing or damaged, and this is the only node: there is nobody \
         to fetch them from; restore the folder `files` of the data directory (what was found is in \
         `quarantine`)"
    )]
    NobodyToFetchFrom {
        /// How many.
        files: usize,
    },
    /// The address to serve at.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The address for metrics.
    #[error("metrics cannot be served at {address}: {reason}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The system has no randomness.
    #[error("cannot draw a seed: {0}")]
    Random(#[from] getrandom::Error),
    /// A part of the server ended before it began.
    #[error("the server could not be started: {0}")]
    Internal(String),
}

/// Why a server ends by itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServerError {
    /// A write or a sync of the log failed.
    #[error("{0}")]
    Log(String),
    /// A write or a sync of a guarded file failed.
    #[error("{0}")]
    Files(String),
    /// Damaged files were to be repaired, and the node cannot start again.
    #[error("the node cannot start again: {0}")]
    Restart(String),
    /// A part of the server panicked.
    #[error("the server lost track of itself and ended: {0}")]
    Panicked(String),
    /// It was stopped.
    #[error("the server was stopped")]
    Stopped,
}
