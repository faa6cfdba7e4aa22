//! A fixed list of runs, to compare platforms and builds by: each is the same to the last byte in
//! debug and release builds, natively and in WebAssembly.
//!
//! The digests that are expected are checked in with the tests of this project. A change of the
//! protocol, of its time-outs or of its messages changes them; a change of anything else must not.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::{Action, ClientId, Cluster, Completed, Done, Options, PATIENCE};
use crate::checksum::Checksum;
use crate::config::Config;
use crate::ids::{CallId, NodeId};
use crate::message::{Consistency, FileAppend, Op, Query, Wait};
use crate::node::{Node, StartError};
use crate::text::{FileName, LockName};
use crate::time::Duration;

/// A run: what it is called, and what happens.
type Run = (&'static str, fn() -> Result<Cluster, StartError>);

/// The runs, in an order that does not change.
pub const RUNS: [Run; 8] = [
    ("one node, one cycle", one_node),
    ("three nodes, ten cycles", three_nodes),
    ("five nodes, five clients, one lock", contention),
    ("leader crashes in the middle of a hand-over", leader_crash),
    ("holder vanishes, its lease runs out", vanished_holder),
    ("sections queue behind a holder", sections),
    ("a node that was down catches up by a snapshot", catch_up),
    ("linearizable and stale reads", reads),
];

/// Plays a run; gives the checksum of everything that happened in it, and of the state it ended in.
///
/// # Panics
/// If there is no run of that number.
#[must_use]
pub fn digest(run: usize) -> Checksum {
    let (name, play) = RUNS[run];
    let cluster = play().unwrap_or_else(|error| panic!("{name}: {error}"));
    let states = cluster.hosts.keys().filter_map(|id| cluster.node(*id)).map(Node::digest);
    states.fold(cluster.trace_digest(), |all, state| all.extended(&state.value().to_le_bytes()))
}

fn lock() -> LockName {
    LockName::new("jobs/print").expect("a valid name")
}

fn file() -> FileName {
    FileName::new("journal").expect("a valid name")
}

fn line(text: &str) -> FileAppend {
    FileAppend { file: file(), bytes: format!("{text}\n").into_bytes().into() }
}

fn acquire() -> Op {
    Op::Acquire { lock: lock(), wait: Wait::Forever, max_hold: None }
}

/// Acquires, appends a line, releases.
fn cycle(cluster: &mut Cluster, client: ClientId, text: &str) {
    let call = cluster.start(client, acquire());
    finish_cycle(cluster, client, call, text);
}

/// The rest of a cycle whose acquire is under way.
fn finish_cycle(cluster: &mut Cluster, client: ClientId, acquire: CallId, text: &str) {
    let granted = cluster.finish(client, acquire).expect("an acquire that waits is granted");
    let Completed::Done(Done::Granted { token, .. }) = granted else {
        panic!("an acquire ended as {granted:?}");
    };
    let FileAppend { file, bytes } = line(text);
    cluster.append(client, &lock(), token, &file, &bytes).expect("the holder appends");
    cluster.release(client, &lock(), token).expect("the holder releases");
}

/// Which of some calls ends first; `None` when there are none.
fn first_to_end(cluster: &mut Cluster, calls: &[(ClientId, CallId)]) -> Option<usize> {
    let ended =
        |cluster: &Cluster, call: &(ClientId, CallId)| cluster.result(call.0, call.1).is_some();
    cluster.run_until(PATIENCE, |cluster| calls.iter().any(|call| ended(cluster, call)));
    calls.iter().position(|call| ended(cluster, call))
}

/// Waits for calls of several clients, in whatever order they end.
fn finish_all(cluster: &mut Cluster, calls: Vec<(ClientId, CallId)>) {
    for (client, call) in calls {
        cluster.finish(client, call).expect("the call ends well");
    }
}

fn one_node() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(1, 11)?;
    let client = cluster.client("alone");
    cycle(&mut cluster, client, "one");
    Ok(cluster)
}

fn three_nodes() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(3, 12)?;
    let client = cluster.client("cycling");
    for number in 0..10 {
        cycle(&mut cluster, client, &format!("line {number}"));
    }
    cluster.run_for(Duration::from_secs(30));
    Ok(cluster)
}

fn contention() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(5, 13)?;
    let clients: Vec<ClientId> = (0..5).map(|n| cluster.client(&format!("client {n}"))).collect();
    for _ in 0..3 {
        let mut calls: Vec<(ClientId, CallId)> =
            clients.iter().map(|client| (*client, cluster.start(*client, acquire()))).collect();
        while let Some(position) = first_to_end(&mut cluster, &calls) {
            let (client, call) = calls.remove(position);
            finish_cycle(&mut cluster, client, call, "mine");
        }
    }
    Ok(cluster)
}

fn leader_crash() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(5, 14)?;
    let (first, second) = (cluster.client("first"), cluster.client("second"));
    let token = cluster.acquire(first, &lock()).expect("the lock is free");
    let waiting = cluster.start(second, acquire());
    cluster.run_for(Duration::from_millis(100));
    let release = Op::Release { lock: lock(), token, appends: vec![line("last words")] };
    let released = cluster.start(first, release);
    cluster.run_for(Duration::from_micros(2500));
    let leader = cluster.leader().unwrap_or(NodeId::new(1));
    cluster.crash(leader);
    finish_all(&mut cluster, vec![(first, released), (second, waiting)]);
    cluster.restart(leader);
    cluster.run_for(Duration::from_secs(2));
    Ok(cluster)
}

fn vanished_holder() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(3, 15)?;
    let (holder, waiter) = (cluster.client("vanishing"), cluster.client("waiting"));
    cluster.acquire(holder, &lock()).expect("the lock is free");
    let waiting = cluster.start(waiter, acquire());
    cluster.run_for(Duration::from_secs(1));
    cluster.remove_client(holder);
    finish_all(&mut cluster, vec![(waiter, waiting)]);
    Ok(cluster)
}

fn sections() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(3, 16)?;
    let clients: Vec<ClientId> = (0..4).map(|n| cluster.client(&format!("client {n}"))).collect();
    let token = cluster.acquire(clients[0], &lock()).expect("the lock is free");
    let section =
        |text| Op::Section { lock: lock(), wait: Wait::Forever, appends: vec![line(text)] };
    let calls: Vec<(ClientId, CallId)> =
        clients[1..].iter().map(|client| (*client, cluster.start(*client, section("x")))).collect();
    cluster.run_for(Duration::from_secs(1));
    cluster.release(clients[0], &lock(), token).expect("the holder releases");
    finish_all(&mut cluster, calls);
    Ok(cluster)
}

fn catch_up() -> Result<Cluster, StartError> {
    let config = Config { snapshot_entries: 20, retained_entries: 5, ..Config::default() };
    let mut cluster = Cluster::with(Options { seed: 17, config, ..Options::default() })?;
    let client = cluster.client("writing");
    cycle(&mut cluster, client, "before");
    let leader = cluster.leader();
    let follower = (1..=3).map(NodeId::new).find(|id| Some(*id) != leader);
    let follower = follower.unwrap_or(NodeId::new(3));
    cluster.crash(follower);
    for number in 0..30 {
        cycle(&mut cluster, client, &format!("while it was down {number}"));
    }
    cluster.restart(follower);
    cluster.run_for(Duration::from_secs(5));
    Ok(cluster)
}

fn reads() -> Result<Cluster, StartError> {
    let mut cluster = Cluster::new(3, 18)?;
    let client = cluster.client("reading");
    cycle(&mut cluster, client, "to be read");
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let queries = [
            Query::Lock { lock: lock() },
            Query::History { lock: lock() },
            Query::ReadFile { file: file(), offset: 3, length: 100 },
        ];
        for query in queries {
            cluster.call(client, Action::Read { query, consistency }).expect("a read is answered");
        }
    }
    Ok(cluster)
}
