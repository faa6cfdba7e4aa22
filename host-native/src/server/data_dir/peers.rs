//! `peers.toml`: what is known of the disks of the other nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use quorlock_core::ids::{ID_MAX, NodeId};

use super::{DataDirError, system};
use crate::server::storage::durable;

/// The most peers that are remembered: more than a cluster has, over all its changes.
pub(super) const PEERS_MAX: usize = 256;

const COMMENT: &str = "\
# The disks of the other nodes, as last heard. A node whose disk is another one, or an older copy, is
# refused: it may have forgotten what it promised. Remove its line only if the node was taken out of
# the cluster and brought in as a new one.
";

/// Why a peer is not talked to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PeerRefused {
    /// Its disk was wiped, or is a copy of another one.
    #[error(
        "node {node} comes with another disk (incarnation {found:016x}, it was {known:016x}): it must not \
         vote without what it promised; restore its data directory as it was, or leave it out"
    )]
    OtherIncarnation {
        /// The peer.
        node: NodeId,
        /// What it says.
        found: u64,
        /// What it said before.
        known: u64,
    },
    /// Its disk is an older one, from a backup or an image.
    #[error(
        "node {node} comes with an older state of its disk (start {found}, start {known} was heard of): \
         it must not vote without what it promised since; restore its data directory as it was, \
         or leave it out"
    )]
    RolledBack {
        /// The peer.
        node: NodeId,
        /// The number of the start that it says.
        found: u64,
        /// The highest that it said before.
        known: u64,
    },
    /// It cannot be remembered, so it cannot be recognised later.
    #[error("node {node} cannot be remembered ({reason}), and so is not talked to")]
    NotRemembered {
        /// The peer.
        node: NodeId,
        /// Why not.
        reason: String,
    },
}

/// What is known of all peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Peer {
    incarnation: u64,
    starts: u64,
}

impl Peers {
    /// Reads the file; nobody is known if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, DataDirError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(system(path)(error)),
        };
        let lines = text.lines().map(str::trim).enumerate();
        let known = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(nth, line)| {
                parse(line).ok_or_else(|| DataDirError::Damaged {
                    path: path.to_path_buf(),
                    reason: format!("line {} cannot be read", nth + 1),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { known })
    }

    pub(super) fn remember(
        &mut self,
        path: &Path,
        node: NodeId,
        incarnation: u64,
        starts: u64,
    ) -> Result<(), PeerRefused> {
        let peer = Peer { incarnation, starts };
        let refused = |reason| PeerRefused::NotRemembered { node, reason };
        match self.known.get(&node) {
            Some(known) if known.incarnation != incarnation => {
                let (found, known) = (incarnation, known.incarnation);
                return Err(PeerRefused::OtherIncarnation { node, found, known });
            }
            Some(known) if known.starts > starts => {
                return Err(PeerRefused::RolledBack { node, found: starts, known: known.starts });
            }
            Some(known) if *known == peer => return Ok(()),
            None if self.known.len() >= PEERS_MAX => {
                return Err(refused(format!("{PEERS_MAX} others are")));
            }
            Some(_) | None => {}
        }
        let mut known = self.known.clone();
        known.insert(node, peer);
        durable::replace(path, encode(&known).as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        self.known = known;
        Ok(())
    }
}

fn encode(known: &BTreeMap<NodeId, Peer>) -> String {
    let mut text = COMMENT.to_owned();
    for (node, Peer { incarnation, starts }) in known {
        writeln!(text, "{node} = {{ incarnation = \"{incarnation:016x}\", starts = {starts} }}")
            .expect("a string takes everything");
    }
    text
}

fn parse(line: &str) -> Option<(NodeId, Peer)> {
    let (node, rest) = line.split_once(" = { incarnation = \"")?;
    let (incarnation, rest) = rest.split_once("\", starts = ")?;
    let starts = rest.strip_suffix(" }")?.parse().ok()?;
    let node = node.parse().ok().filter(|node| *node <= ID_MAX)?;
    let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
    Some((NodeId::new(node), Peer { incarnation, starts }))
}
