//! Clusters of several sizes elect a leader, and another one when it stops.

use crate::cluster::{Cluster, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_leads_itself() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_a_leader() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster.stop_node(first).await;
    assert_ne!(cluster.leader().await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_commit_the_first_entry_of_their_leader() {
    let cluster = Cluster::start(5).await;
    cluster.leader().await;
    wait_for("an entry that all applied", || {
        cluster.reports().iter().all(|report| report.applied.value() > 0)
    })
    .await;
}
