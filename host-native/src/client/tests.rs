//! The client against one node in memory that can be told to misbehave.

mod fake;
mod faults;
mod locks;

use std::time::Duration;

use fake::Fake;

use super::*;

/// For what must happen some time.
const PATIENCE: Duration = Duration::from_mins(1);
/// The shortest that the cluster allows.
const SHORT_LEASE: Duration = Duration::from_secs(2);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens within a minute")
}

/// Waits until something is so.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    soon(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn client(fake: &Fake) -> Client {
    soon(Client::connect(fake.options("ada"))).await.expect("the node is up")
}

async fn waiters(client: &Client, lock: &str) -> u64 {
    client.inspect(lock).await.expect("the node is up").waiters
}
