//! Clusters on disks that fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use quorlock_core::config::Limits;
use quorlock_core::ids::{LogIndex, NodeId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{Effect, Recovered, WriteBatch};
use quorlock_core::text::FileName;
use tempfile::TempDir;

use super::data_dir::{DataDir, NewIdentity};
use super::disk::{DiskEvent, OpenDisk, Opened, Space, open_with};
use super::error::StartError;
use super::files::{self, Files, SystemDisk};
use super::storage::{Storage, StorageError};
use super::{Server, ServerConfig, ServerError, Start, start};
use crate::tls::authority::Authority;
use crate::tls::{ClusterId, Credentials, Role};
use crate::wire::ReportedRole;
use crate::wire::report::DiskState;

const PATIENCE: Duration = Duration::from_mins(1);

/// What a disk does from now on.
#[derive(Debug, Default)]
struct Weather(AtomicU8);

impl Weather {
    const FINE: u8 = 0;
    const FULL: u8 = 1;
    const BROKEN: u8 = 2;

    fn set(&self, weather: u8) {
        self.0.store(weather, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StorageError> {
        match self.0.load(Ordering::SeqCst) {
            Self::FINE => Ok(()),
            Self::FULL => Err(StorageError::Full { reason: "for a test".to_owned() }),
            _ => Err(StorageError::Failed { reason: "for a test".to_owned() }),
        }
    }
}

/// A log that does as it is told.
struct Fickle {
    storage: Box<dyn Storage>,
    weather: Arc<Weather>,
}

impl Storage for Fickle {
    fn recover(&mut self) -> Result<Option<Recovered>, StorageError> {
        self.storage.recover()
    }

    fn write(&mut self, batches: &[WriteBatch]) -> Result<(), StorageError> {
        self.weather.check()?;
        self.storage.write(batches)
    }

    fn tidy(&mut self) -> Result<bool, StorageError> {
        self.storage.tidy()
    }
}

fn open_fickle(weather: Arc<Weather>) -> OpenDisk {
    Arc::new(move |directory| {
        let log = |error: StorageError| StartError::Log(error.to_string());
        let storage = Box::new(directory.open_log().map_err(log)?);
        let files = Files::open(directory.path());
        let files = files.map_err(|error| StartError::Files(error.to_string()))?;
        let weather = Arc::clone(&weather);
        open_with(Box::new(Fickle { storage, weather }), files)
    })
}

struct Cluster {
    folder: TempDir,
    servers: BTreeMap<NodeId, Server>,
    weathers: BTreeMap<NodeId, Arc<Weather>>,
}

fn credentials(folder: &Path, authority: &Authority, id: NodeId) -> Credentials {
    let issued = authority.issue(Role::Node(id), Duration::from_hours(1)).expect("a good role");
    let file = |name: &str, content: &str| {
        let path = folder.join(format!("{id}-{name}"));
        std::fs::write(&path, content).expect("a file");
        path
    };
    let ca = file("ca.pem", authority.certificate());
    let certificate = file("cert.pem", &issued.certificate);
    let key = file("key.pem", &issued.key);
    Credentials::from_files(&ca, &certificate, &key).expect("credentials that go together")
}

impl Cluster {
    async fn start(size: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (authority, _) = Authority::create(Duration::from_hours(1)).expect("an authority");
        let bind = |id| (NodeId::new(id), UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let sockets: BTreeMap<NodeId, UdpSocket> = (0..size).map(bind).collect();
        let address = |socket: &UdpSocket| socket.local_addr().expect("it is bound");
        let addresses: BTreeMap<NodeId, _> =
            sockets.iter().map(|(id, socket)| (*id, address(socket))).collect();
        drop(sockets);
        let members: BTreeMap<NodeId, String> =
            addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        let mut cluster = Self { folder, servers: BTreeMap::new(), weathers: BTreeMap::new() };
        for (id, address) in addresses {
            let folder = cluster.folder.path();
            let config = ServerConfig::new(
                id,
                address,
                members.clone(),
                folder.join(id.to_string()),
                credentials(folder, &authority, id),
                Start::Bootstrap(Limits::default()),
            );
            let weather = Arc::new(Weather::default());
            let server = start::start(config, open_fickle(Arc::clone(&weather))).await;
            cluster.servers.insert(id, server.expect("it starts"));
            cluster.weathers.insert(id, weather);
        }
        cluster
    }

    fn is_leading(&self, id: NodeId) -> bool {
        self.servers[&id].report().role == ReportedRole::Leader
    }

    async fn leader(&self) -> NodeId {
        let mut leader = None;
        wait_for("a leader", || {
            leader = self.servers.keys().copied().find(|id| self.is_leading(*id));
            leader.is_some()
        })
        .await;
        leader.expect("it was there just now")
    }
}

async fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited too long for {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_out_without_a_restart() {
    let cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    let weather = &cluster.weathers[&first];
    wait_for("a leader whose first entry is durable", || {
        let report = cluster.servers[&first].report();
        report.commit == report.last
    })
    .await;
    weather.set(Weather::FULL);
    // It notices with its next write: the vote for another one.
    let others: Vec<NodeId> = cluster.servers.keys().copied().filter(|id| *id != first).collect();
    cluster.servers[&first].transfer_leadership();
    wait_for("another leader", || others.iter().any(|id| cluster.is_leading(*id))).await;
    wait_for("the report", || {
        cluster.servers[&first].report().disk == DiskState::Full && !cluster.is_leading(first)
    })
    .await;
    weather.set(Weather::FINE);
    wait_for("space", || cluster.servers[&first].report().disk == DiskState::Ok).await;
    wait_for("an equal log", || {
        let reports: Vec<_> = cluster.servers.values().map(Server::report).collect();
        reports.iter().all(|report| report.applied == reports[0].applied)
            && reports.iter().all(|report| report.durable == reports[0].durable)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_of_the_log_ends_the_node() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster.weathers[&first].set(Weather::BROKEN);
    let mut server = cluster.servers.remove(&first).expect("it runs");
    server.transfer_leadership();
    let failed = tokio::time::timeout(PATIENCE, server.failed()).await.expect("it fails");
    assert!(matches!(failed, ServerError::Log(_)), "{failed}");
    assert_ne!(cluster.leader().await, first, "the others go on");
    assert!(matches!(server.stop().await, Err(ServerError::Log(_))));
}

/// A disk on which there is no space for files.
struct FullDisk;

impl files::Disk for FullDisk {
    fn write_at(&mut self, _: &File, _: &[u8], _: u64) -> io::Result<usize> {
        Err(rustix::io::Errno::NOSPC.into())
    }

    fn read_at(&mut self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        SystemDisk.read_at(file, bytes, offset)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        SystemDisk.sync(file)
    }
}

/// The disk of a new node, with no space for files.
fn full_disk(folder: &Path) -> Opened {
    let node = NodeId::new(0);
    let membership = Membership::new([node]).expect("a node is enough");
    let state = Recovered::bootstrap(membership, Limits::default()).expect("good limits");
    let new = NewIdentity { cluster: ClusterId::random().expect("there is randomness"), node };
    let (directory, _) = DataDir::bootstrap(folder, &new, &state).expect("there is space");
    let storage = directory.open_log().expect("it was just made");
    let files = Files::with_disk(folder, Box::new(FullDisk)).expect("it was just made");
    open_with(Box::new(storage), files).expect("there is nothing wrong")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_of_files_nobody_holds_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let Opened { disk, mut events, .. } = full_disk(folder.path());
    let file = FileName::new("journal").expect("a name");
    let (index, bytes) = (LogIndex::new(1), b"line".as_slice().into());
    disk.effect(Effect { index, file: file.clone(), offset: 0, bytes });
    assert!(matches!(events.recv().await, Some(DiskEvent::FilesFull { .. })));
    // A peer that asks has a handle until it is answered.
    let handle = disk.files();
    let asked = tokio::spawn(async move { handle.range(file, 0, 4).await });
    let (sender, stopped) = mpsc::channel();
    std::thread::spawn(move || {
        disk.stop();
        sender.send(())
    });
    stopped.recv_timeout(PATIENCE).expect("it ends");
    assert!(asked.await.expect("it does not panic").is_err());
}

#[test]
fn what_is_said_of_space_ends_with_the_disk_that_said_it() {
    let space = Space::default();
    let reason = || "for a test".to_owned();
    space.note(&DiskEvent::LogFull { reason: reason() });
    space.note(&DiskEvent::FilesFull { reason: reason() });
    space.note(&DiskEvent::FilesSpaceAgain);
    assert!(space.is_full());
    space.forget();
    assert!(!space.is_full());
}
