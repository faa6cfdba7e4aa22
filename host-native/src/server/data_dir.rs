//! The data directory of a node.
//!
//! | name | what |
//! |---|---|
//! | `identity.toml` | whose it is: cluster, node, incarnation, how often it was started |
//! | `peers.toml` | the incarnation of each peer, and how often it was started, as last heard |
//! | `lock` | held while a node runs; says which process |
//! | `log/` | hard state, entries, snapshot ([`storage`](super::storage)) |
//! | `files/` | the guarded files ([`files`](super::files)) |
//! | `fetched/` | bytes of files that are on their way from a peer |
//! | `quarantine/` | files that were not what they had to be |
//!
//! A node is its disk. It promised votes and acknowledged entries, and with an empty disk, or with
//! that of yesterday, it would not know of them and break them: two leaders, or an acknowledged
//! append that is gone. So a directory is used only as what it is. It is made once, by
//! [`DataDir::bootstrap`]; after that, everything that [`DataDir::open`] finds missing or different is
//! refused, with what to do.
//!
//! What a node cannot see by itself is that its whole disk was copied or is an old one. Its peers see
//! that: each remembers the incarnation, a number drawn when the directory is made, and the number of
//! starts, which grows before a node says its first word ([`DataDir::remember_peer`]).
//!
//! `identity.toml` is written last when a directory is made: with it, everything is there; without it,
//! the directory is no data directory, and what a crash left may be removed by the next attempt.

mod identity;
mod leftovers;
mod lock_file;
mod peers;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use quorlock_core::ids::NodeId;
use quorlock_core::message::Recovered;

use super::storage::{FjallStorage, StorageError, durable};
use crate::tls::ClusterId;
pub(crate) use identity::Identity;
use lock_file::LockFile;
pub(crate) use peers::PeerRefused;
use peers::Peers;

const IDENTITY: &str = "identity.toml";
const PEERS: &str = "peers.toml";
const LOCK: &str = "lock";
const LOG: &str = "log";
const DIRECTORIES: [&str; 4] = [LOG, "files", "fetched", "quarantine"];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// There is no node in it.
    #[error(
        "{path} holds no node. If this node is new, and so is its cluster, start it with --bootstrap. If it \
         ran before, its disk is lost: it must not vote without what it promised; restore the \
         directory as it was, or leave this node out",
        path = path.display()
    )]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// It holds a node already.
    #[error(
        "{path} holds node {node} of cluster {cluster} already: start it without --bootstrap",
        path = path.display(), node = identity.node, cluster = identity.cluster
    )]
    Bootstrapped {
        /// The directory.
        path: PathBuf,
        /// Who is in it.
        identity: Box<Identity>,
    },
    /// It holds something else.
    #[error(
        "{path} is no data directory, and not empty: it holds {found:?}; choose another directory",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, and the certificate is of cluster {expected}: check the \
         data directory and the certificates",
        path = path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// It belongs to another node.
    #[error(
        "{path} belongs to node {found}, and this is node {expected}: check the data directory and \
         the certificate",
        path = path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        expected: NodeId,
    },
    /// A later version made it.
    #[error(
        "{path} has format {found}, and this program reads format {format}: use the program that wrote \
         it, or a later one",
        path = path.display(), format = identity::FORMAT
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// A process uses it.
    #[error(
        "{path} is used by {holder}: there can be one node to a directory; stop that one first",
        path = path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Which process, as far as that is known.
        holder: String,
    },
    /// A file in it cannot be understood.
    #[error(
        "{path} is damaged ({reason}): restore the data directory as it was, or leave this node out",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The log in it.
    #[error(transparent)]
    Log(#[from] StorageError),
    /// The system said no.
    #[error("{path}: {source}; check the path, who may use it, and the disk", path = path.display())]
    System {
        /// What was to be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a new data directory is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewIdentity {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The node.
    pub(crate) node: NodeId,
}

/// A data directory that is in use by this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    peers: Mutex<Peers>,
    /// Unlocked when it is dropped.
    _lock: LockFile,
}

impl DataDir {
    /// Makes the data directory of a new node that starts from `state`. The directory must be missing
    /// or empty, or hold what an earlier attempt left that did not end.
    pub(crate) fn bootstrap(
        path: &Path,
        new: &NewIdentity,
        state: &Recovered,
    ) -> Result<(Self, Identity), DataDirError> {
        make_directories(path).map_err(system(path))?;
        leftovers::check(path)?;
        let lock = LockFile::acquire(path)?;
        // Now that nobody else is about to do the same.
        leftovers::check(path)?;
        leftovers::remove(path).map_err(system(path))?;
        for name in DIRECTORIES {
            make_directory(&path.join(name)).map_err(system(&path.join(name)))?;
        }
        FjallStorage::create(&path.join(LOG), state)?;
        durable::sync_directory(path).map_err(system(path))?;
        let identity = Identity::new(new.clone()).map_err(system(path))?;
        identity.write(&path.join(IDENTITY))?;
        let peers = Mutex::new(Peers::open(&path.join(PEERS))?);
        Ok((Self { path: path.to_path_buf(), peers, _lock: lock }, identity))
    }

    /// Opens the data directory of a node, and counts the start, durably.
    pub(crate) fn open(
        path: &Path,
        cluster: &ClusterId,
        node: NodeId,
    ) -> Result<(Self, Identity), DataDirError> {
        if !path.join(IDENTITY).exists() {
            // Nothing in it, or what is in it is no node, or not yet one.
            leftovers::check(path)?;
            return Err(DataDirError::Empty { path: path.to_path_buf() });
        }
        let lock = LockFile::acquire(path)?;
        let mut identity = Identity::read(&path.join(IDENTITY))?;
        let (found, expected) = (identity.cluster.clone(), cluster.clone());
        if found != expected {
            return Err(DataDirError::OtherCluster { path: path.to_path_buf(), found, expected });
        }
        let (found, expected) = (identity.node, node);
        if found != expected {
            return Err(DataDirError::OtherNode { path: path.to_path_buf(), found, expected });
        }
        let peers = Mutex::new(Peers::open(&path.join(PEERS))?);
        for name in DIRECTORIES {
            make_directory(&path.join(name)).map_err(system(&path.join(name)))?;
        }
        identity.starts += 1;
        identity.write(&path.join(IDENTITY))?;
        Ok((Self { path: path.to_path_buf(), peers, _lock: lock }, identity))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log in it.
    pub(crate) fn open_log(&self) -> Result<FjallStorage, StorageError> {
        FjallStorage::open(&self.path.join(LOG))
    }

    /// Compares what a peer says of itself with what it said before, and remembers it, durably before it
    /// returns. To be called when a peer has said hello, before anything else that it says is heard.
    ///
    /// It blocks when there is something new, for as long as a sync takes.
    pub(crate) fn remember_peer(
        &self,
        node: NodeId,
        incarnation: u64,
        starts: u64,
    ) -> Result<(), PeerRefused> {
        let mut peers = self.peers.lock().map_err(|_poisoned| PeerRefused::NotRemembered {
            node,
            reason: "an earlier attempt did not end".to_owned(),
        })?;
        peers.remember(&self.path.join(PEERS), node, incarnation, starts)
    }
}

/// The system said no, about a path.
fn system(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_path_buf();
    move |source| DataDirError::System { path, source }
}

/// Makes a directory that only its owner may use, if it is not there.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => durable::sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(path) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same, with those above it.
fn make_directories(path: &Path) -> io::Result<()> {
    if is_directory(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directories(parent)?;
    }
    make_directory(path)
}

fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
