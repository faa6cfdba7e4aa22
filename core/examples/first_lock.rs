//! Two clients, one lock, a leader that dies, and an old token that is refused.
//!
//! `cargo run -p quorlock-core --features sim --example first_lock`

use std::error::Error;

use quorlock_core::message::{Op, Wait};
use quorlock_core::sim::{Cluster, Completed, Done};
use quorlock_core::text::{FileName, LockName};
use quorlock_core::time::Duration;

#[expect(clippy::print_stdout, clippy::disallowed_macros, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::new(3, 1)?;
    let (alice, bob) = (cluster.client("alice"), cluster.client("bob"));
    let (deploy, journal) = (LockName::new("deploy")?, FileName::new("journal")?);

    let first = cluster.acquire(alice, &deploy)?;
    println!("alice holds {deploy} with token {first}");
    let acquire = Op::Acquire { lock: deploy.clone(), wait: Wait::Forever, max_hold: None };
    let waiting = cluster.start(bob, acquire);
    cluster.run_for(Duration::from_millis(100));
    println!("bob waits for {deploy}");

    let leader = cluster.leader().ok_or("a cluster that granted a lock has a leader")?;
    println!("node {leader} leads; we kill it");
    cluster.crash(leader);
    cluster.run_until(Duration::from_secs(10), |cluster| cluster.leader().is_some());
    println!("node {} leads now", cluster.leader().ok_or("no new leader after ten seconds")?);

    let offset = cluster.append(alice, &deploy, first, &journal, b"one\n")?;
    cluster.release(alice, &deploy, first)?;
    println!("alice appended \"one\" at offset {offset} and released");
    let Completed::Done(Done::Granted { token: second, .. }) = cluster.finish(bob, waiting)? else {
        return Err("an acquire ends with a grant".into());
    };
    println!("bob holds {deploy} with token {second}");

    let late = cluster.append(alice, &deploy, first, &journal, b"too late\n");
    println!("alice's old token is refused: {:?}", late.expect_err("the token is old"));

    cluster.run_for(Duration::from_millis(200));
    for status in cluster.statuses().collect::<Vec<_>>() {
        let content = cluster.file(status.id, &journal).unwrap_or_default();
        assert_eq!(content, b"one\n", "node {}", status.id);
    }
    println!("journal on every node that is up: {:?}", "one\n");
    Ok(())
}
