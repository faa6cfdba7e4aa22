//! The client library against real servers.
#![cfg(feature = "cli")]

#[path = "client/certificates.rs"]
mod certificates;
#[path = "client/cluster.rs"]
mod cluster;
#[path = "client/sessions.rs"]
mod sessions;

use std::time::Duration;

use cluster::{Cluster, PATIENCE};
use quorlock::client::{Client, ClientOptions, Endpoint};
use quorlock::tls::Role;

/// The shortest that a cluster allows by default.
const SHORT_LEASE: Duration = Duration::from_secs(2);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens within a minute")
}

/// Waits until something is so.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    soon(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn endpoints(cluster: &Cluster) -> Vec<Endpoint> {
    let endpoint = |config: &quorlock::server::ServerConfig| {
        config.listen.to_string().parse().expect("an address is an endpoint")
    };
    cluster.configs.values().map(endpoint).collect()
}

fn options(cluster: &Cluster, name: &str) -> ClientOptions {
    ClientOptions::new(endpoints(cluster), cluster.credentials(Role::Client(name.into())))
}

async fn client(cluster: &Cluster, name: &str) -> Client {
    soon(Client::connect(options(cluster, name))).await.expect("the cluster is up")
}
