//! Disks that are not what they were: wiped, swapped, edited, damaged, full.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use quorlock::client::{Client, Wait};
use quorlock::wire::report::DiskState;
use quorlock_tests::native::{Cluster, Node, Spec, free_ports};

use crate::observer::{logged, says};
use crate::workload::{FILE, LOCK, Workload};

/// The exit code for directories, certificates and settings that cannot be used.
const CONFIGURATION: Option<i32> = Some(78);

/// Nodes that take snapshots after every few entries. Files are compared with a snapshot at the start.
const SMALL_SNAPSHOTS: &[&str] = &["--set", "snapshot_entries=5", "--set", "retained_entries=0"];

/// Starts a node, which must refuse for this reason.
fn is_refused(node: &Node, reason: &str) {
    let (status, logged) = node.start_in_vain(&[]);
    assert_eq!(status.code(), CONFIGURATION, "{logged}");
    assert!(logged.contains(reason), "{reason:?} is not in {logged}");
}

/// The same node at another port, on another directory.
fn elsewhere(node: &Node, data: &Path) -> Node {
    let mut spec: Spec = node.spec().clone();
    spec.address.set_port(free_ports(1)[0]);
    data.clone_into(&mut spec.data);
    Node::new(spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_directory_is_refused_by_the_node_and_then_by_its_peers() {
    let mut cluster = Cluster::start(3).await;
    let workload = Workload::start(&cluster, 2).await;
    workload.progress(&cluster, 10).await;
    let victim = (cluster.leader().await + 1) % 3;
    cluster.node_mut(victim).kill();
    fs::remove_dir_all(&cluster.node(victim).spec().data).expect("it is there");
    is_refused(cluster.node(victim), "holds no node");

    // Somebody insists.
    let others = cluster.ids().into_iter().filter(|id| *id != victim);
    let others: Vec<(u64, usize)> = others.map(|id| (id, logged(&cluster, id))).collect();
    cluster.node_mut(victim).start(&["--bootstrap"]);
    for (other, before) in others {
        says(&cluster, other, before, "its disk was wiped or copied").await;
    }
    workload.progress(&cluster, 20).await;
    let report = cluster.wait_for("a report", async || cluster.report(victim).await).await;
    assert!(report.peers.iter().all(|peer| !peer.connected), "{report:?}");
    assert_eq!(report.applied.value(), 0, "it hears nothing, and leads nobody: {report:?}");
    cluster.node_mut(victim).kill();
    workload.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_for_one_process_of_one_node_of_one_cluster() {
    let mut cluster = Cluster::start(3).await;
    let mut other = Cluster::start(1).await;
    other.node_mut(0).kill();
    let workload = Workload::start(&cluster, 2).await;
    workload.progress(&cluster, 10).await;
    let node = cluster.node(1);
    let pid = node.pid().expect("it runs");
    let second = elsewhere(node, &node.spec().data);
    is_refused(&second, "is used by");
    assert!(second.logged().contains(&pid.to_string()), "it says which process");
    workload.progress(&cluster, 10).await;

    cluster.node_mut(1).kill();
    let data = cluster.node(1).spec().data.clone();
    is_refused(&elsewhere(cluster.node(2), &data), "belongs to node 1, and this is node 2");
    let data = other.node(0).spec().data.clone();
    is_refused(&elsewhere(cluster.node(2), &data), "belongs to cluster");
    workload.progress(&cluster, 10).await;
    cluster.restart(1);
    workload.finish(&cluster).await;
}

/// A file that one client writes to, and nobody else: nothing is written unless a test says so.
struct Journal {
    client: Client,
    content: String,
}

impl Journal {
    async fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client().await, content: String::new() }
    }

    async fn write(&mut self, line: &str) {
        let text = format!("{line}\n");
        let written = self.client.section(LOCK, Wait::Forever, [(FILE, text.clone())]).await;
        let written = written.expect("the cluster serves");
        assert_eq!(written.offsets, [self.content.len() as u64], "nothing is lost or doubled");
        self.content.push_str(&text);
    }

    async fn write_lines(&mut self, count: u32) {
        for number in 0..count {
            self.write(&format!("line {number}")).await;
        }
    }

    /// Waits until every node has the file, and nothing else in its place.
    async fn is_everywhere(&self, cluster: &Cluster) {
        cluster.settle().await;
        let view = self.client.file(FILE).await.expect("the cluster serves").expect("it is there");
        let content = cluster.file_everywhere(&view).await;
        assert!(content == self.content.as_bytes(), "{}", String::from_utf8_lossy(&content));
    }

    /// Writes until the snapshot of each node knows the file, and all of it is on the disks.
    async fn is_in_every_snapshot(&mut self, cluster: &Cluster) {
        self.write_lines(15).await;
        for id in cluster.ids() {
            cluster
                .wait_for("a snapshot", async || {
                    (cluster.report(id).await?.first.value() > 10).then_some(())
                })
                .await;
        }
        self.is_everywhere(cluster).await;
    }
}

/// What people do to files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Harm {
    Cut,
    Edited,
    Removed,
    /// Replaced by a symbolic link.
    Linked,
}

impl Harm {
    fn inflict(self, file: &Path, decoy: &Path) {
        let open = || OpenOptions::new().write(true).open(file);
        match self {
            Self::Cut => open().and_then(|file| file.set_len(10)),
            Self::Edited => open().and_then(|file| file.write_all_at(b"#", 3)),
            Self::Removed => fs::remove_file(file),
            Self::Linked => fs::remove_file(file).and_then(|()| symlink(decoy, file)),
        }
        .expect("the file is there");
    }
}

fn put_aside(node: &Node) -> usize {
    fs::read_dir(node.spec().data.join("quarantine")).expect("it is there").count()
}

fn make_decoy(cluster: &Cluster) -> PathBuf {
    let decoy = cluster.path("decoy");
    fs::write(&decoy, "not ours").expect("the folder is ours");
    decoy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_damaged_before_a_start_are_repaired_from_peers() {
    let mut cluster = Cluster::with_arguments(3, SMALL_SNAPSHOTS).await;
    let mut journal = Journal::new(&cluster).await;
    let decoy = make_decoy(&cluster);
    let harms = [Harm::Cut, Harm::Edited, Harm::Removed, Harm::Linked];
    for (victim, harm) in [0, 1, 2, 0].into_iter().zip(harms) {
        journal.is_in_every_snapshot(&cluster).await;
        let aside = put_aside(cluster.node(victim));
        cluster.node_mut(victim).kill();
        harm.inflict(&cluster.node(victim).spec().data.join("files").join(FILE), &decoy);
        let before = logged(&cluster, victim);
        journal.write_lines(2).await;
        cluster.restart(victim);
        says(&cluster, victim, before, "all guarded files are there").await;
        journal.write_lines(2).await;
        journal.is_everywhere(&cluster).await;
        let expected = aside + usize::from(harm != Harm::Removed);
        assert_eq!(put_aside(cluster.node(victim)), expected, "{harm:?}");
    }
    assert_eq!(fs::read(decoy).expect("it is there"), b"not ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_damaged_under_a_node_are_repaired_from_peers() {
    let cluster = Cluster::with_arguments(3, SMALL_SNAPSHOTS).await;
    let mut journal = Journal::new(&cluster).await;
    let decoy = make_decoy(&cluster);
    // The leader first, then a follower. What is edited within its length is found at the next start.
    for (further, harm) in (0..).zip([Harm::Cut, Harm::Removed, Harm::Linked]) {
        journal.is_in_every_snapshot(&cluster).await;
        let victim = (cluster.leader().await + further) % 3;
        let aside = put_aside(cluster.node(victim));
        let before = logged(&cluster, victim);
        harm.inflict(&cluster.node(victim).spec().data.join("files").join(FILE), &decoy);
        journal.write_lines(2).await;
        says(&cluster, victim, before, "a guarded file is not what it was").await;
        says(&cluster, victim, before, "all guarded files are there").await;
        journal.write_lines(2).await;
        journal.is_everywhere(&cluster).await;
        let expected = aside + usize::from(harm != Harm::Removed);
        assert_eq!(put_aside(cluster.node(victim)), expected, "{harm:?}");
    }
    assert_eq!(fs::read(decoy).expect("it is there"), b"not ours");
}

/// The journal of a node's log: the latest, with room for more at its end.
fn log_of(node: &Node) -> PathBuf {
    let store = node.spec().data.join("log/store");
    let entries = fs::read_dir(store).expect("a node that ran has one");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let journals = paths.filter(|path| path.extension().is_some_and(|it| it == "jnl"));
    journals.max().expect("a log has a journal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_flipped_bit_is_refused_and_one_with_a_torn_end_is_not() {
    const MARKED: &str = "a line that can be found again";
    let mut cluster = Cluster::start(3).await;
    let mut journal = Journal::new(&cluster).await;
    journal.write(MARKED).await;
    journal.write_lines(20).await;
    journal.is_everywhere(&cluster).await;
    let victim = (cluster.leader().await + 1) % 3;
    cluster.node_mut(victim).kill();
    let path = log_of(cluster.node(victim));
    let sound = fs::read(&path).expect("it is there");

    let marked = sound.windows(MARKED.len()).position(|window| window == MARKED.as_bytes());
    let mut flipped = sound.clone();
    flipped[marked.expect("entries are in the log as they are")] ^= 1;
    fs::write(&path, &flipped).expect("there is space");
    is_refused(cluster.node(victim), "the log is damaged");
    is_refused(cluster.node(victim), "restore its data directory as it was");
    assert!(fs::read(&path).expect("it is there") == flipped, "what is refused is left alone");
    journal.write_lines(5).await;

    // As of a write that a crash interrupted: nobody was told of it.
    let used = sound.iter().rposition(|byte| *byte != 0).expect("it is not empty") + 1;
    let torn = [&sound[..used], &[0xa5; 700]].concat();
    fs::write(&path, torn).expect("there is space");
    for _ in 0..2 {
        cluster.restart(victim);
        journal.write_lines(5).await;
        journal.is_everywhere(&cluster).await;
        cluster.node_mut(victim).kill();
    }
}

/// A file system of its own, in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` if this user may not mount.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).expect("the folder is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=128m,mode=700", "quorlock-test"]).arg(&path);
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then_some(Self(path))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the space that there is.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("there is space for a name");
        for size in [1 << 20, 4096] {
            let piece = vec![1; size];
            loop {
                match ballast.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may still be there.
        let status = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_moves_leadership_and_is_waited_out_without_a_restart() {
    let mut cluster = Cluster::prepare(3, &[]);
    let mut disks = Vec::new();
    for id in cluster.ids() {
        let Some(disk) = SmallDisk::mount(cluster.path(&format!("disk-{id}"))) else {
            eprintln!("SKIPPED: only root can mount the small file system that this test fills");
            return;
        };
        cluster.node_mut(id).spec_mut().data = disk.0.join("data");
        cluster.node_mut(id).start(&["--bootstrap"]);
        disks.push(disk);
    }
    let workload = Workload::start(&cluster, 2).await;
    workload.progress(&cluster, 10).await;
    let victim = cluster.leader().await;
    let before = logged(&cluster, victim);
    let disk = &disks[usize::try_from(victim).expect("it is small")];
    disk.fill();
    says(&cluster, victim, before, "the disk of the log is full").await;
    cluster
        .wait_for("another leader", async || (cluster.leader().await != victim).then_some(()))
        .await;
    workload.progress(&cluster, 20).await;
    let report = cluster.wait_for("a report", async || cluster.report(victim).await).await;
    assert_eq!(report.disk, DiskState::Full, "{report:?}");

    disk.make_room();
    says(&cluster, victim, before, "the log has space again").await;
    workload.progress(&cluster, 20).await;
    assert!(!cluster.node_mut(victim).has_ended(), "it was never started again");
    // Every node, this one too.
    workload.finish(&cluster).await;
}
