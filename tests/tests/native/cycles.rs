//! The main job, on clusters of every usual size and of one that is even.

use quorlock_tests::native::Cluster;

use crate::workload::Workload;

async fn cycles(nodes: u64) {
    let cluster = Cluster::start(nodes).await;
    let workload = Workload::start(&cluster, 4).await;
    workload.progress(&cluster, 200).await;
    workload.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node() {
    cycles(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes() {
    cycles(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes() {
    cycles(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes() {
    cycles(5).await;
}
