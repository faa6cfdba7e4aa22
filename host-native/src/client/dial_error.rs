//! Why a node could not be reached.

use std::time::Duration;

use quorlock_core::ids::NodeId;

use crate::tls::{ClusterId, IdentityError};
use crate::wire::Refusal;

/// Why a node is of no use: it was not reached, or one side would not talk to the other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DialError {
    /// The name of the host could not be looked up.
    #[error("the host name cannot be looked up: {reason}; check it, and the network")]
    NoSuchHost {
        /// What the system says.
        reason: String,
    },
    /// The machine is there, and no program uses that port.
    #[error("nobody listens there; start the node, or check host and port")]
    NobodyListens,
    /// Nothing came back.
    #[error("no answer within {after:?}; the machine may be down, or a firewall between (UDP)")]
    NoAnswer {
        /// How long was waited.
        after: Duration,
    },
    /// The node's certificate is not good for us.
    #[error(
        "its certificate is refused: {reason}; check that `ca` is the authority of this cluster"
    )]
    BadCertificate {
        /// Why.
        reason: String,
    },
    /// Our certificate is not good for the node.
    #[error(
        "it refused our certificate: {reason}; check that it is of this cluster's authority and \
         not expired"
    )]
    CertificateRefused {
        /// Why.
        reason: String,
    },
    /// The node is of another cluster.
    #[error("it belongs to cluster {theirs}, our certificate to {ours}; check the address")]
    OtherCluster {
        /// Ours.
        ours: ClusterId,
        /// Its.
        theirs: ClusterId,
    },
    /// Whoever is there is no node.
    #[error("it presents the certificate of {role}, not of a node; check the address")]
    NotANode {
        /// What it says it is.
        role: String,
    },
    /// Its certificate does not say who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another node than the one that was looked for.
    #[error("node {found} is there, not node {expected}; check the ids of the endpoints")]
    OtherNode {
        /// Who was looked for.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// The node refused the connection.
    #[error("{0}")]
    Refused(Refusal),
    /// The programs do not understand each other.
    #[error("it speaks another language: {reason}; use the same version everywhere")]
    OtherVersion {
        /// Why.
        reason: String,
    },
    /// Nothing could be tried: our own side has a problem.
    #[error("cannot connect to anything: {reason}")]
    Local {
        /// Which.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
}

impl DialError {
    /// Whether trying again is pointless until somebody changes something.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::BadCertificate { .. }
            | Self::CertificateRefused { .. }
            | Self::OtherCluster { .. }
            | Self::NotANode { .. }
            | Self::Identity(_)
            | Self::OtherNode { .. }
            | Self::Local { .. }
            | Self::OtherVersion { .. } => true,
            Self::Refused(refusal) => match refusal {
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
            Self::NoSuchHost { .. }
            | Self::NobodyListens
            | Self::NoAnswer { .. }
            | Self::Broken { .. } => false,
        }
    }

    /// Whether the certificates are to blame, on either side.
    pub fn is_about_certificates(&self) -> bool {
        match self {
            Self::BadCertificate { .. }
            | Self::CertificateRefused { .. }
            | Self::OtherCluster { .. }
            | Self::NotANode { .. }
            | Self::Identity(_) => true,
            Self::Refused(Refusal::OtherCluster { .. } | Refusal::WrongRole) => true,
            Self::Refused(
                Refusal::OtherNode { .. }
                | Refusal::NotAMember { .. }
                | Refusal::OtherLimits
                | Refusal::OtherDisk { .. }
                | Refusal::OlderDisk { .. }
                | Refusal::Unreadable { .. }
                | Refusal::TooManyConnections
                | Refusal::Stopping,
            )
            | Self::NoSuchHost { .. }
            | Self::NobodyListens
            | Self::NoAnswer { .. }
            | Self::OtherNode { .. }
            | Self::OtherVersion { .. }
            | Self::Local { .. }
            | Self::Broken { .. } => false,
        }
    }
}
