//! A node that lost its disk, or a part of it.

use quorlock::quorlock_core::config::Limits;
use quorlock::quorlock_core::ids::NodeId;
use quorlock::server::{Server, ServerError, Start, StartError};

use crate::cluster::{Cluster, PATIENCE, client, wait_for};

const FILE: &str = "journal";

fn path(cluster: &Cluster, node: NodeId) -> std::path::PathBuf {
    cluster.configs[&node].data_dir.join("files").join(FILE)
}

fn content(cluster: &Cluster, node: NodeId) -> Vec<u8> {
    std::fs::read(path(cluster, node)).unwrap_or_default()
}

async fn start_error(cluster: &Cluster, node: NodeId) -> StartError {
    Server::start(cluster.configs[&node].clone()).await.expect_err("it must not start")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_refused_by_the_node_and_by_its_peers() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let node = *cluster.configs.keys().find(|node| **node != leader).expect("a follower");
    cluster.stop_node(node).await;
    std::fs::remove_dir_all(&cluster.configs[&node].data_dir).expect("it is there");

    let error = start_error(&cluster, node).await;
    assert!(matches!(&error, StartError::Directory(reason) if reason.contains("holds no node")));

    // Somebody insists.
    let config = cluster.configs.get_mut(&node).expect("a node");
    config.start = Start::Bootstrap(Limits::default());
    cluster.start_node(node).await;
    let server = cluster.servers.remove(&node).expect("it runs");
    client(&cluster).await.append(FILE, b"x").await.expect("the other two go on");
    cluster.servers.insert(node, server);
    let report = cluster.report(node);
    assert!(report.peers.iter().all(|peer| !peer.connected), "{report:?}");
    assert_eq!(report.applied.value(), 0, "it hears nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_for_one_node_and_one_process() {
    let mut cluster = Cluster::start(3).await;
    let (one, two) = (NodeId::new(1), NodeId::new(2));
    let mut second = cluster.configs[&one].clone();
    second.listen.set_port(0);
    let error = Server::start(second).await.expect_err("a process has it");
    assert!(matches!(&error, StartError::Directory(reason) if reason.contains("is used by")));

    cluster.stop_node(one).await;
    cluster.stop_node(two).await;
    let other = cluster.configs[&two].data_dir.clone();
    cluster.configs.get_mut(&one).expect("a node").data_dir = other;
    let error = start_error(&cluster, one).await;
    assert!(matches!(&error, StartError::Directory(reason) if reason.contains("belongs to node")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_or_other_members_are_refused() {
    let mut cluster = Cluster::start(3).await;
    let (one, two) = (NodeId::new(1), NodeId::new(2));
    cluster.stop_node(one).await;
    let good = cluster.configs[&one].clone();

    let config = cluster.configs.get_mut(&one).expect("a node");
    config.members.remove(&two);
    let error = start_error(&cluster, one).await;
    assert!(matches!(error, StartError::OtherMembers { .. }), "{error}");

    let mut wrong = good;
    wrong.credentials = cluster.configs[&two].credentials.clone();
    let error = Server::start(wrong).await.expect_err("it must not start");
    assert!(matches!(error, StartError::OtherIdentity { .. }), "{error}");
}

/// Takes snapshots after every few entries, so that files are compared with one at start.
fn with_snapshots(size: u64) -> Cluster {
    let mut cluster = Cluster::new(size);
    for config in cluster.configs.values_mut() {
        config.node.snapshot_entries = 5;
        config.node.retained_entries = 0;
    }
    cluster
}

async fn append(cluster: &Cluster, lines: std::ops::Range<u32>) -> Vec<u8> {
    let mut client = client(cluster).await;
    let mut all = Vec::new();
    for line in lines {
        let line = format!("line {line}\n").into_bytes();
        client.append(FILE, &line).await.expect("it is served");
        all.extend(line);
    }
    all
}

/// Waits until every node has taken a snapshot that covers most of its log.
async fn snapshots(cluster: &Cluster) {
    wait_for("snapshots", || cluster.reports().iter().all(|report| report.first.value() > 5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_catches_up_with_a_snapshot_and_the_files() {
    let mut cluster = with_snapshots(3);
    for node in (0..3).map(NodeId::new) {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader().await;
    let node = *cluster.configs.keys().find(|node| **node != leader).expect("a follower");
    cluster.stop_node(node).await;
    let mut all = append(&cluster, 0..40).await;
    let large = vec![b'a'; 900_000];
    for _ in 0..3 {
        client(&cluster).await.append(FILE, &large).await.expect("it is served");
        all.extend(&large);
    }
    snapshots(&cluster).await;
    cluster.start_node(node).await;
    wait_for("the file", || content(&cluster, node) == all).await;
    assert_eq!(cluster.leader().await, leader, "no election");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_fetched_again_at_start() {
    let mut cluster = with_snapshots(3);
    for node in (0..3).map(NodeId::new) {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader().await;
    let node = *cluster.configs.keys().find(|node| **node != leader).expect("a follower");
    let all = append(&cluster, 0..40).await;
    snapshots(&cluster).await;
    wait_for("the file", || content(&cluster, node) == all).await;
    cluster.stop_node(node).await;
    let mut wrong = all.clone();
    wrong[3] ^= 1;
    std::fs::write(path(&cluster, node), wrong).expect("it is there");
    cluster.start_node(node).await;
    wait_for("the file", || content(&cluster, node) == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_short_while_the_node_runs_is_repaired() {
    let mut cluster = with_snapshots(3);
    for node in (0..3).map(NodeId::new) {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader().await;
    let node = *cluster.configs.keys().find(|node| **node != leader).expect("a follower");
    let mut all = append(&cluster, 0..40).await;
    snapshots(&cluster).await;
    wait_for("the file", || content(&cluster, node) == all).await;
    let file = std::fs::OpenOptions::new().write(true).open(path(&cluster, node));
    file.and_then(|file| file.set_len(10)).expect("it is there");
    all.extend(append(&cluster, 40..45).await);
    wait_for("the file", || content(&cluster, node) == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_with_a_damaged_file_does_not_start() {
    let mut cluster = with_snapshots(1);
    let node = NodeId::new(0);
    cluster.start_node(node).await;
    append(&cluster, 0..40).await;
    snapshots(&cluster).await;
    cluster.stop_node(node).await;
    std::fs::remove_file(path(&cluster, node)).expect("it is there");
    let error = start_error(&cluster, node).await;
    assert!(matches!(error, StartError::NobodyToFetchFrom { files: 1 }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_whose_file_is_damaged_while_it_runs_ends() {
    let mut cluster = with_snapshots(1);
    let node = NodeId::new(0);
    cluster.start_node(node).await;
    append(&cluster, 0..40).await;
    snapshots(&cluster).await;
    let mut client = client(&cluster).await;
    std::fs::remove_file(path(&cluster, node)).expect("it is there");
    // It may or may not be told: the append is in the log.
    drop(tokio::time::timeout(PATIENCE, client.append(FILE, b"x")).await);
    let mut server = cluster.servers.remove(&node).expect("it was started");
    let failed = tokio::time::timeout(PATIENCE, server.failed()).await.expect("it fails");
    assert!(matches!(&failed, ServerError::Restart(reason) if reason.contains("the only node")));
}

/// For measurements by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a while, and shows numbers"]
async fn a_node_catches_up_with_200_megabytes() {
    let mut cluster = with_snapshots(3);
    for node in (0..3).map(NodeId::new) {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader().await;
    let node = *cluster.configs.keys().find(|node| **node != leader).expect("a follower");
    cluster.stop_node(node).await;
    let mut client = client(&cluster).await;
    let piece = vec![b'a'; 1 << 20];
    let started = std::time::Instant::now();
    for _ in 0..200 {
        client.append(FILE, &piece).await.expect("it is served");
    }
    println!("200 appends of 1 MiB: {:?}", started.elapsed());
    let started = std::time::Instant::now();
    for _ in 0..200 {
        client.append("small", b"0123456789").await.expect("it is served");
    }
    println!("200 sections, one after the other: {:?}", started.elapsed());
    snapshots(&cluster).await;
    let term = cluster.report(leader).term;
    let started = std::time::Instant::now();
    cluster.start_node(node).await;
    let length = || std::fs::metadata(path(&cluster, node)).map_or(0, |found| found.len());
    wait_for("the file", || length() == 200 << 20).await;
    println!("200 MiB fetched: {:?}", started.elapsed());
    let applied = cluster.report(leader).applied;
    wait_for("the log", || cluster.report(node).applied >= applied).await;
    println!("caught up: {:?}", started.elapsed());
    assert_eq!(
        (cluster.leader().await, cluster.report(leader).term),
        (leader, term),
        "no election"
    );
}
