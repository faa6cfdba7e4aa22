//! The cluster in memory (`quorlock_core::sim`), as somebody uses it who tests their own code.

use std::collections::BTreeSet;

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{LogIndex, NodeId};
use quorlock_core::message::{
    Answer, Consistency, FileAppend, LockView, Op, Query, Rejection, Wait,
};
use quorlock_core::sim::{Action, CallError, Cluster, Completed, Done, Options, SessionState};
use quorlock_core::text::{FileName, LockName};
use quorlock_core::time::Duration;

fn lock() -> LockName {
    LockName::new("printer").expect("a valid name")
}

fn file() -> FileName {
    FileName::new("journal").expect("a valid name")
}

fn acquire() -> Op {
    Op::Acquire { lock: lock(), wait: Wait::Forever, max_hold: None }
}

/// Every node that is up has this content in the file, and all have the same state.
fn assert_equal_files(cluster: &mut Cluster, content: &[u8]) {
    cluster.run_for(Duration::from_secs(1));
    // A leader carries lease time into the log now and then: wait until no entry is on its way.
    let is_at_rest = |cluster: &Cluster| {
        let applied: BTreeSet<LogIndex> = cluster.statuses().map(|node| node.applied).collect();
        applied.len() == 1
    };
    assert!(cluster.run_until(Duration::from_secs(1), is_at_rest), "all nodes catch up");
    let statuses: Vec<_> = cluster.statuses().collect();
    let digest = |id| cluster.node(id).expect("it is up").digest();
    for status in &statuses {
        assert_eq!(cluster.file(status.id, &file()), Some(content), "node {}", status.id);
        assert_eq!(digest(status.id), digest(statuses[0].id));
    }
}

#[test]
fn three_nodes_two_clients_one_lock() {
    let mut cluster = Cluster::new(3, 1).expect("three nodes with default settings");
    let (alice, bob) = (cluster.client("alice"), cluster.client("bob"));
    let first = cluster.acquire(alice, &lock()).expect("the lock is free");
    let waiting = cluster.start(bob, acquire());
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.result(bob, waiting), None, "Alice holds it");
    cluster.append(alice, &lock(), first, &file(), b"one\n").expect("Alice holds it");
    cluster.release(alice, &lock(), first).expect("Alice holds it");
    let granted = cluster.finish(bob, waiting).expect("it is Bob's turn");
    let Completed::Done(Done::Granted { token, predecessor }) = granted else {
        panic!("an acquire ended as {granted:?}");
    };
    assert!(token > first);
    assert_eq!(predecessor, Some(first));
    let late = cluster.append(alice, &lock(), first, &file(), b"late\n");
    assert_eq!(late, Err(CallError::Rejected(Rejection::NotHolder { current: Some(token) })));
    assert_equal_files(&mut cluster, b"one\n");
}

#[test]
fn a_dead_holders_lock_goes_to_the_next_one_when_its_lease_is_over() {
    let mut cluster = Cluster::new(3, 2).expect("three nodes with default settings");
    let (holder, waiter) = (cluster.client("holder"), cluster.client("waiter"));
    cluster.acquire(holder, &lock()).expect("the lock is free");
    let waiting = cluster.start(waiter, acquire());
    cluster.run_for(Duration::from_secs(1));
    cluster.remove_client(holder);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.result(waiter, waiting), None, "the lease of ten seconds goes on");
    cluster.finish(waiter, waiting).expect("the lease is over");
    assert!(matches!(cluster.session_state(waiter), Some(SessionState::Safe)));
}

#[test]
fn every_line_once_though_leaders_crash() {
    let mut cluster = Cluster::new(5, 3).expect("five nodes with default settings");
    let client = cluster.client("writer");
    let mut content = Vec::new();
    for number in 0..10 {
        let line = format!("line {number}\n");
        let token = cluster.acquire(client, &lock()).expect("nobody else wants it");
        let append = FileAppend { file: file(), bytes: line.clone().into_bytes().into() };
        let op = Op::Append { lock: lock(), token, append };
        let call = cluster.start(client, op);
        cluster.run_for(Duration::from_micros(number * 400));
        let leader = cluster.leader().expect("somebody granted the lock");
        cluster.crash(leader);
        cluster.finish(client, call).expect("it is appended, by whoever leads");
        cluster.restart(leader);
        cluster.release(client, &lock(), token).expect("the token is still good");
        content.extend_from_slice(line.as_bytes());
    }
    assert_equal_files(&mut cluster, &content);
}

#[test]
fn a_node_that_missed_what_was_compacted_gets_a_snapshot_and_the_files() {
    let config = Config { snapshot_entries: 20, retained_entries: 0, ..Config::default() };
    let options = Options { config, ..Options::default() };
    let mut cluster = Cluster::with(options).expect("settings that work");
    let client = cluster.client("writer");
    let token = cluster.acquire(client, &lock()).expect("the lock is free");
    cluster.append(client, &lock(), token, &file(), b"before\n").expect("it is the holder");
    let leader = cluster.leader();
    let follower = (1..=3).map(NodeId::new).find(|id| Some(*id) != leader).expect("a follower");
    cluster.crash(follower);
    let mut content = b"before\n".to_vec();
    for _ in 0..50 {
        cluster.append(client, &lock(), token, &file(), b"x").expect("it is the holder");
    }
    content.extend([b'x'; 50]);
    cluster.restart(follower);
    assert_equal_files(&mut cluster, &content);
    let status = cluster.node(follower).expect("it is up").status();
    assert!(status.first > LogIndex::new(20), "it has no log from before the snapshot: {status:?}");
}

#[test]
fn reads_are_answered_from_the_lock_table_and_the_files() {
    let mut cluster = Cluster::new(3, 4).expect("three nodes with default settings");
    let client = cluster.client("reader");
    let token = cluster.acquire(client, &lock()).expect("the lock is free");
    cluster.append(client, &lock(), token, &file(), b"0123456789").expect("it is the holder");
    let query = Query::ReadFile { file: file(), offset: 7, length: 100 };
    let read = Action::Read { query, consistency: Consistency::Linearizable };
    let Ok(Completed::Read { answer: Answer::Bytes { bytes, .. }, .. }) =
        cluster.call(client, read)
    else {
        panic!("bytes of a file are answered with bytes");
    };
    assert_eq!(bytes.as_ref(), b"789");
    let query = Query::Lock { lock: lock() };
    let read = Action::Read { query, consistency: Consistency::Linearizable };
    let Ok(Completed::Read { answer: Answer::Lock(LockView { holder, .. }), .. }) =
        cluster.call(client, read)
    else {
        panic!("a lock is answered with a lock");
    };
    assert_eq!(holder.map(|holder| holder.token), Some(token));
}

#[test]
fn settings_that_do_not_work_are_refused_before_anything_starts() {
    assert!(Cluster::new(0, 1).is_err(), "no nodes");
    assert!(Cluster::new(16, 1).is_err(), "more than any cluster has");
    let limits = Limits { session_lease_min: Duration::from_millis(100), ..Limits::default() };
    assert!(Cluster::with(Options { limits, ..Options::default() }).is_err(), "a short lease");
}

#[test]
fn a_copy_of_a_cluster_goes_its_own_way() {
    let mut one = Cluster::new(3, 5).expect("three nodes with default settings");
    let client = one.client("both");
    one.run_for(Duration::from_secs(1));
    let mut other = one.clone();
    let token = one.acquire(client, &lock()).expect("the lock is free");
    assert_eq!(other.acquire(client, &lock()), Ok(token), "the same past, the same future");
    assert_eq!(one.trace_digest(), other.trace_digest());
    one.release(client, &lock(), token).expect("it is the holder");
    assert_ne!(one.trace_digest(), other.trace_digest());
}
