//! `identity.toml`: whose directory it is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{ID_MAX, NodeId};

use super::{DataDirError, NewIdentity, system};
use crate::server::storage::durable;
use crate::tls::ClusterId;

/// The format of data directories that this program writes, and the only one that it reads.
pub(super) const FORMAT: u64 = 1;

const COMMENT: &str =
    "# Whose data directory this is. Never copy or edit it: a node is its disk.\n";

/// Whose data directory it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The node.
    pub(crate) node: NodeId,
    /// Drawn at random when the directory was made: another one means another disk.
    pub(crate) incarnation: u64,
    /// How often the node was started with this directory, this time included.
    pub(crate) starts: u64,
}

impl Identity {
    pub(super) fn new(new: NewIdentity) -> std::io::Result<Self> {
        let incarnation = getrandom::u64().map_err(std::io::Error::other)?;
        Ok(Self { cluster: new.cluster, node: new.node, incarnation, starts: 1 })
    }

    /// Writes the file, durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), DataDirError> {
        durable::replace(path, self.encode().as_bytes()).map_err(system(path))
    }

    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, DataDirError> {
        let text = fs::read_to_string(path).map_err(system(path))?;
        // Before the checksum, which a later format may compute in another way.
        if let Some(found) = number(&text, "format").filter(|format| *format > FORMAT) {
            return Err(DataDirError::NewerFormat { path: path.to_path_buf(), found });
        }
        Self::decode(&text).ok_or_else(|| DataDirError::Damaged {
            path: path.to_path_buf(),
            reason: "it is not what was written".to_owned(),
        })
    }

    fn encode(&self) -> String {
        let Self { cluster, node, incarnation, starts } = self;
        let mut text = COMMENT.to_owned();
        let values = format!(
            "format = {FORMAT}\ncluster = \"{cluster}\"\nnode = {node}\n\
             incarnation = \"{incarnation:016x}\"\nstarts = {starts}\n"
        );
        text.push_str(&values);
        let checksum = Checksum::of(text.as_bytes());
        writeln!(text, "checksum = \"{checksum}\"").expect("a string takes everything");
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let node = number(text, "node").filter(|node| *node <= ID_MAX)?;
        let this = Self {
            cluster: quoted(text, "cluster")?.parse().ok()?,
            node: NodeId::new(node),
            incarnation: u64::from_str_radix(quoted(text, "incarnation")?, 16).ok()?,
            starts: number(text, "starts")?,
        };
        // Whatever else could be different, this is.
        (this.encode() == text).then_some(this)
    }
}

/// The value of a line `key = value`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
}

fn number(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.parse().ok()
}

fn quoted<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    value(text, key)?.strip_prefix('"')?.strip_suffix('"')
}
