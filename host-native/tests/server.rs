//! Servers in one process, over real sockets and disks.
#![cfg(all(feature = "server", feature = "certs"))]

#[path = "server/cluster.rs"]
mod cluster;
#[path = "server/disks.rs"]
mod disks;
#[path = "server/elections.rs"]
mod elections;
#[path = "server/metrics.rs"]
mod metrics;
#[path = "server/raw.rs"]
mod raw;
#[path = "server/restarts.rs"]
mod restarts;
#[path = "server/strangers.rs"]
mod strangers;
