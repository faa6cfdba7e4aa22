//! Metrics over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use quorlock::quorlock_core::ids::NodeId;
use quorlock::server::{Server, StartError};

use crate::cluster::{Cluster, client, wait_for};

fn fetch(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_of_one_process_measure_apart() {
    let mut cluster = Cluster::new(3);
    for config in cluster.configs.values_mut() {
        config.metrics = Some(free_port());
    }
    for node in (0..3).map(NodeId::new) {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader().await;
    client(&cluster).await.append("journal", b"x").await.expect("it is served");
    for (node, config) in cluster.configs.clone() {
        let address = config.metrics.expect("it was set");
        let role = if node == leader { 3 } else { 0 };
        let wanted = [
            format!("quorlock_role{{node=\"{node}\"}} {role}"),
            format!("quorlock_grants_total{{node=\"{node}\"}} 1"),
            "# HELP quorlock_term".to_owned(),
            "quorlock_log_write_seconds_bucket".to_owned(),
            "quorlock_rejections_total".to_owned(),
            "quorlock_peer_round_trip_seconds".to_owned(),
        ];
        let mut answer = String::new();
        wait_for("all metrics", || {
            answer = fetch(address).unwrap_or_default();
            wanted.iter().all(|wanted| answer.contains(wanted))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_not_for_strangers() {
    let mut cluster = Cluster::new(1);
    let config = cluster.configs.get_mut(&NodeId::new(0)).expect("a node");
    config.metrics = Some(([0, 0, 0, 0], 0).into());
    let error = Server::start(config.clone()).await.expect_err("it must not start");
    assert!(matches!(error, StartError::Metrics { .. }), "{error}");
}
