//! The data directory, as far as connections have to do with it.

use std::sync::{Arc, Mutex, PoisonError};

use quorlock_core::ids::NodeId;

use super::data_dir::{DataDir, PeerRefused};
use crate::wire::hello::{PeerHello, Refusal};

/// The data directory, until it is released.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<Mutex<Option<Arc<DataDir>>>>);

/// Why another node is refused.
#[derive(Debug)]
pub(super) enum Unknown {
    /// Its disk.
    Refused(Refusal),
    /// Ours: what is to be remembered cannot be written.
    Failed(String),
}

impl Directory {
    pub(super) fn new(directory: DataDir) -> Self {
        Self(Arc::new(Mutex::new(Some(Arc::new(directory)))))
    }

    /// The directory; `None` once it was released.
    pub(super) fn lease(&self) -> Option<Arc<DataDir>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets other processes use it, whoever else still holds this value.
    pub(super) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Compares what a node says of its disk with what it said before, and remembers it, durably.
    pub(super) async fn remember(&self, node: NodeId, hello: PeerHello) -> Result<(), Unknown> {
        let Some(directory) = self.lease() else {
            return Err(Unknown::Failed("this node stops".to_owned()));
        };
        let remember = move || directory.remember_peer(node, hello.incarnation, hello.starts);
        match tokio::task::spawn_blocking(remember).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(PeerRefused::OtherIncarnation { node, .. })) => {
                Err(Unknown::Refused(Refusal::OtherDisk { node }))
            }
            Ok(Err(PeerRefused::RolledBack { node, .. })) => {
                Err(Unknown::Refused(Refusal::OlderDisk { node }))
            }
            Ok(Err(PeerRefused::NotRemembered { reason, .. })) => Err(Unknown::Failed(reason)),
            Err(error) => Err(Unknown::Failed(error.to_string())),
        }
    }
}
