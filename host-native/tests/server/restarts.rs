//! What was acknowledged is there after a stop, a crash, a lost disk and a damaged file.

use quorlock::quorlock_core::ids::NodeId;
use quorlock::quorlock_core::message::{Answer, Reply};

use crate::cluster::{Cluster, client, wait_for};

const FILE: &str = "journal";

fn line(number: u32) -> Vec<u8> {
    format!("line {number}\n").into_bytes()
}

/// What a node has of the file on its disk.
fn content(cluster: &Cluster, node: NodeId) -> Vec<u8> {
    let path = cluster.configs[&node].data_dir.join("files").join(FILE);
    std::fs::read(path).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_has_everything_after_stop_and_crash() {
    let mut cluster = Cluster::start(1).await;
    let node = NodeId::new(0);
    for round in 0..3 {
        cluster.leader().await;
        let mut client = client(&cluster).await;
        let offset = client.append(FILE, &line(round)).await.expect("it is served");
        assert_eq!(offset, u64::from(round) * 7, "nothing is lost or doubled");
        let Some(Reply::Read { answer: Answer::Bytes { bytes, .. }, .. }) =
            client.read(FILE, offset, 7).await
        else {
            panic!("a read is answered with bytes")
        };
        assert_eq!(bytes, line(round));
        if round == 1 {
            cluster.crash_node(node).await;
        } else {
            cluster.stop_node(node).await;
        }
        cluster.start_node(node).await;
    }
    cluster.leader().await;
    let all = (0..3).flat_map(line).collect::<Vec<u8>>();
    wait_for("the file", || content(&cluster, node) == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_go_on_while_each_of_them_restarts() {
    let mut cluster = Cluster::start(3).await;
    let nodes: Vec<NodeId> = cluster.configs.keys().copied().collect();
    for (round, node) in (0..).zip(nodes.clone()) {
        client(&cluster).await.append(FILE, &line(round)).await.expect("it is served");
        cluster.stop_node(node).await;
        cluster.leader().await;
        cluster.start_node(node).await;
    }
    let all = (0..3).flat_map(line).collect::<Vec<u8>>();
    wait_for("equal files", || nodes.iter().all(|node| content(&cluster, *node) == all)).await;
}
