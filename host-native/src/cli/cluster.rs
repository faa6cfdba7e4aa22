//! A cluster of real processes on this machine, in one folder.
//!
//! ```text
//! quorlock.lock    held while the cluster runs
//! cluster.toml     its nodes and their ports
//! client.toml      how clients find it
//! certs/           the authority and all certificates
//! node-0.toml      how node 0 is started: quorlock server --config node-0.toml
//! node-0/          what it keeps
//! logs/node-0.log  what it said
//! ```
//!
//! Every node is a process of this very program. It is in a process group of its own, so that Ctrl-C
//! reaches us alone, and we can stop the nodes in good order. If we end in any other way, the system
//! kills the nodes (see `--die-with-parent`): nothing is left behind, and what they acknowledged is on
//! their disks. For that the thread that starts nodes must live as long as they do: it is the main one.

mod folder;
mod ports;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use quorlock_core::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::connection::Connection;
use super::exit::Failure;
use super::server::child_arguments;
use crate::client::ClientOptions;
use folder::{ClusterFile, NodeEntry};

pub(crate) use folder::{clear, program};

/// How long a node may take to be ready. It may have files to fetch.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The most nodes of a cluster on one machine.
pub(crate) const NODES_MAX: u64 = 15;

/// A cluster in a folder.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    file: ClusterFile,
    running: BTreeMap<u64, Child>,
    /// Held until the end.
    _lock: File,
}

impl Cluster {
    /// The cluster of a folder, made if there is none. It does not run yet.
    ///
    /// # Errors
    /// Somebody else runs it, it has another number of nodes than asked for, or the folder belongs to
    /// something else.
    pub(crate) fn open(
        folder: &Path,
        nodes: Option<u64>,
        first_port: u16,
    ) -> Result<Self, Failure> {
        let lock = folder::lock(folder)?;
        let folder =
            std::path::absolute(folder).map_err(|error| folder::unusable(folder, error))?;
        let found = ClusterFile::read(&folder)?;
        let mut file = match (found, nodes) {
            (Some(found), Some(nodes)) if found.nodes.len() as u64 != nodes => {
                let what = format!(
                    "{} has a cluster of {} nodes, not of {nodes}",
                    folder.display(),
                    found.nodes.len()
                );
                return Err(Failure::configuration(what).hint(
                    "leave --nodes out, name another folder with --data, or empty it with --fresh",
                ));
            }
            (Some(found), _) => found,
            (None, nodes) => ClusterFile::create(&folder, nodes.unwrap_or(DEFAULT_NODES))?,
        };
        ports::choose(&mut file.nodes, first_port)?;
        file.write(&folder)?;
        Ok(Self { folder, file, running: BTreeMap::new(), _lock: lock })
    }

    /// Where it is, as an absolute path.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster id.
    pub(crate) fn id(&self) -> &str {
        &self.file.cluster
    }

    /// The ids of all nodes.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.file.nodes.iter().map(|node| node.id).collect()
    }

    /// Where a node listens.
    pub(crate) fn address(&self, id: u64) -> String {
        self.entry(id).address()
    }

    /// The data directory of a node.
    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.folder.join(folder::node_name(id))
    }

    /// The log of a node.
    pub(crate) fn log(&self, id: u64) -> PathBuf {
        folder::log(&self.folder, id)
    }

    /// The node file of a node.
    pub(crate) fn node_file(&self, id: u64) -> PathBuf {
        folder::node_file(&self.folder, id)
    }

    /// The client file.
    pub(crate) fn client_file(&self) -> PathBuf {
        self.folder.join(folder::CLIENT_FILE)
    }

    /// The process of a node, while it runs.
    pub(crate) fn pid(&self, id: u64) -> Option<u32> {
        self.running.get(&id).and_then(Child::id)
    }

    /// Whether any node runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// How clients reach it, as an admin.
    pub(crate) fn connection(&self) -> Connection {
        let certs = folder::certs(&self.folder);
        let name = folder::ADMIN;
        Connection {
            endpoints: self.file.nodes.iter().map(NodeEntry::peer).collect(),
            ca: certs.certificate("ca"),
            cert: certs.certificate(name),
            key: certs.key(name),
        }
    }

    /// The same, for the client library.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        self.connection().options()
    }

    fn entry(&self, id: u64) -> &NodeEntry {
        let found = self.file.nodes.iter().find(|node| node.id == id);
        found.expect("callers name nodes of this cluster")
    }

    /// Starts all nodes, and waits until each is ready.
    ///
    /// # Errors
    /// One does not start: then none is left running.
    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        let mut starting = Vec::new();
        for id in self.nodes() {
            starting.push((id, self.spawn(id)?));
        }
        let mut ready = Ok(());
        for (id, mut child) in starting {
            if ready.is_ok() {
                ready = self.wait_until_ready(id, &mut child).await;
            }
            self.running.insert(id, child);
        }
        if ready.is_err() {
            self.kill_all().await;
        }
        ready
    }

    /// Starts one node, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) async fn start_node(&mut self, id: u64) -> Result<(), Failure> {
        let mut child = self.spawn(id)?;
        self.wait_until_ready(id, &mut child).await?;
        self.running.insert(id, child);
        Ok(())
    }

    fn spawn(&self, id: u64) -> Result<Child, Failure> {
        // The first start of a node makes its data directory; that is complete once it says who it
        // belongs to.
        let has_state = self.data(id).join("identity.toml").exists();
        let bootstrap = !self.entry(id).started && !has_state;
        let program = program()?;
        Command::new(&program)
            .args(child_arguments(&self.node_file(id), bootstrap))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(folder::open_log(&self.folder, id)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Failure::internal(format!("cannot start {}: {error}", program.display()))
            })
    }

    async fn wait_until_ready(&mut self, id: u64, child: &mut Child) -> Result<(), Failure> {
        let stdout = child.stdout.take().expect("it was asked for when the process was started");
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(READY_TIMEOUT, reader.read_line(&mut line)).await;
        let why = match read {
            Ok(Ok(read)) if read > 0 => {
                let entry = self.file.nodes.iter_mut().find(|node| node.id == id);
                if let Some(entry) = entry.filter(|entry| !entry.started) {
                    entry.started = true;
                    self.file.write(&self.folder)?;
                }
                return Ok(());
            }
            Ok(Ok(_ended)) => "it ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("it was not ready within {READY_TIMEOUT:?}"),
        };
        let log = self.log(id);
        let last = folder::last_lines(&log);
        Err(Failure::configuration(format!("node {id} did not start: {why}{last}"))
            .hint(format!("its log is {}", log.display())))
    }

    /// Sends a signal to a node that runs.
    fn signal(&self, id: u64, signal: Signal) {
        let pid = self.pid(id).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // It was not waited for, so the id is its own still; it may have ended, though.
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, ?signal, "a signal did not arrive");
        }
    }

    /// Ends a node at once, as a crash would.
    pub(crate) async fn kill(&mut self, id: u64) {
        if let Some(mut child) = self.running.remove(&id) {
            drop(child.kill().await);
        }
    }

    /// The next node that ends by itself, and how. Never, when none runs.
    pub(crate) async fn ended(&mut self) -> (u64, ExitStatus) {
        let ended = poll_fn(|context| {
            for (id, child) in &mut self.running {
                if let Poll::Ready(Ok(status)) = pin!(child.wait()).poll(context) {
                    return Poll::Ready((*id, status));
                }
            }
            Poll::Pending
        });
        let (id, status) = ended.await;
        self.running.remove(&id);
        (id, status)
    }

    /// Stops all nodes in good order; who takes too long is killed.
    pub(crate) async fn stop(&mut self) {
        for id in self.nodes() {
            self.signal(id, Signal::TERM);
        }
        let all_ended = async {
            while self.is_running() {
                self.ended().await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all_ended).await.is_err() {
            self.kill_all().await;
        }
    }

    /// Ends all nodes at once.
    pub(crate) async fn kill_all(&mut self) {
        for id in self.nodes() {
            self.kill(id).await;
        }
    }
}

/// How many nodes a cluster has, unless somebody says otherwise.
const DEFAULT_NODES: u64 = 5;

/// The id of a node, for the library.
pub(crate) fn node_id(id: u64) -> NodeId {
    NodeId::new(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_found_again() {
        let temporary = tempfile::tempdir().expect("there is room");
        let folder = temporary.path().join("cluster");
        let first = Cluster::open(&folder, Some(3), 21_000).expect("it can be made");
        let (id, addresses) = (first.id().to_owned(), [0, 1, 2].map(|id| first.address(id)));
        let options = first.options().expect("the certificates are there");
        assert!(options.credentials.identity().role.is_admin());
        assert_eq!(options.endpoints.len(), 3);
        let busy = Cluster::open(&folder, None, 21_000).expect_err("it is in use");
        assert!(busy.to_string().contains("runs already"), "{busy}");
        drop(first);
        let again = Cluster::open(&folder, None, 22_000).expect("it is there");
        assert_eq!(again.id(), id);
        assert_eq!([0, 1, 2].map(|id| again.address(id)), addresses);
        drop(again);
        let other = Cluster::open(&folder, Some(5), 21_000).expect_err("it has three");
        assert!(other.to_string().contains("--fresh"), "{other}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("there is room");
        std::fs::write(folder.path().join("thesis.txt"), "years of work").expect("there is room");
        Cluster::open(folder.path(), None, 21_100).expect_err("it is not ours");
        clear(folder.path()).expect_err("it is not ours");
        assert!(folder.path().join("thesis.txt").exists());
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
    }

    #[test]
    fn fresh_begins_anew() {
        let temporary = tempfile::tempdir().expect("there is room");
        let folder = temporary.path().join("cluster");
        let first = Cluster::open(&folder, Some(3), 21_200).expect("it can be made");
        let id = first.id().to_owned();
        clear(&folder).expect_err("it is in use");
        drop(first);
        clear(&folder).expect("it is ours");
        let second = Cluster::open(&folder, Some(5), 21_200).expect("it is empty");
        assert_ne!(second.id(), id);
    }
}
