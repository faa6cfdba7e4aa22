//! Sessions across what happens to servers.

use std::time::Duration;

use bytes::Bytes;
use quorlock::client::{
    AcquireError, CallError, Client, ConnectError, Consistency, Ending, FileAppend, FileName,
    LossCause, Op, SessionState, Standing, Wait, discover, report,
};
use quorlock::quorlock_core::ids::NodeId;
use quorlock::wire::ReportedRole;

use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::{PATIENCE, SHORT_LEASE, client, endpoints, options, soon, until};

#[tokio::test]
async fn a_session_survives_the_stop_of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let ada = client(&cluster, "ada").await;
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    assert_eq!(lock.append("log", "one\n").await, Ok(0));
    let mut tail = ada.tail("log", 0, Consistency::Linearizable).expect("a good name");
    assert_eq!(soon(tail.next()).await.expect("the cluster is up").bytes, "one\n");
    // An append is under way while the leader goes.
    let (append, ()) = tokio::join!(lock.append("log", "two\n"), cluster.stop_node(leader));
    assert_eq!(append, Ok(4));
    assert_eq!(soon(lock.append("log", "six\n")).await, Ok(8));
    assert_eq!(lock.loss(), None);
    assert_eq!(soon(tail.next()).await.expect("the cluster is up").offset, 4);
    lock.release().await.expect("it is held");
    ada.close().await.expect("it is open");
}

#[tokio::test]
async fn a_session_survives_the_crash_of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (ada, bob) = (client(&cluster, "ada").await, client(&cluster, "bob").await);
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let waiting = tokio::spawn(async move { bob.acquire("a", Wait::Forever).await });
    until(async || ada.inspect("a").await.is_ok_and(|view| view.waiters == 1)).await;
    drop(cluster.servers.remove(&leader));
    assert_eq!(soon(lock.append("log", "x")).await, Ok(0));
    let token = lock.token();
    lock.release().await.expect("it is held");
    // The queue has moved to another leader, too.
    let next = soon(waiting).await.expect("no panic").expect("it is his turn");
    assert!(next.token() > token);
}

#[tokio::test]
async fn without_a_cluster_comes_the_warning_and_then_the_loss() {
    let mut cluster = Cluster::start(3).await;
    let options = options(&cluster, "ada").lease(SHORT_LEASE);
    let ada = soon(Client::connect(options)).await.expect("the cluster is up");
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let mut states = ada.watch();
    cluster.servers.clear();
    let (append, read, seen) = soon(async {
        let seen = async {
            lock.in_jeopardy().await;
            let jeopardy = states.borrow_and_update().clone();
            assert_eq!(lock.loss(), None, "there is time after the warning");
            (jeopardy, lock.lost().await.cause)
        };
        tokio::join!(lock.append("log", "x"), ada.inspect("a"), seen)
    })
    .await;
    let ended = LossCause::SessionEnded(Ending::LeaseRanOut);
    assert_eq!(seen, (SessionState::Jeopardy, ended));
    assert_eq!(read, Err(CallError::SessionEnded(Ending::LeaseRanOut)));
    assert!(matches!(append, Err(CallError::Unknown | CallError::SessionEnded(_))), "{append:?}");
    assert_eq!(ada.state(), SessionState::Ended(Ending::LeaseRanOut));
}

#[tokio::test]
async fn waiters_are_served_in_order() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let first = client(&cluster, "first").await;
    let held = first.acquire("a", Wait::Forever).await.expect("it is free");
    let (sender, mut granted) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..4_u64 {
        let (waiting, sender) = (client(&cluster, "others").await, sender.clone());
        tokio::spawn(async move {
            let lock = waiting.acquire("a", Wait::Forever).await.expect("it comes free");
            sender.send((number, lock.token())).expect("the test waits for it");
            lock.release().await.expect("it is held");
        });
        until(async || first.inspect("a").await.is_ok_and(|view| view.waiters == number + 1)).await;
    }
    let mut last = held.token();
    held.release().await.expect("it is held");
    for number in 0..4 {
        let (who, token) = soon(granted.recv()).await.expect("one more waits");
        assert_eq!(who, number);
        assert!(token > last, "tokens grow");
        last = token;
    }
}

#[tokio::test]
async fn dropping_an_acquire_leaves_the_queue() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let (ada, bob) = (client(&cluster, "ada").await, client(&cluster, "bob").await);
    let held = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let refused = bob.acquire("a", Wait::Try).await;
    assert!(matches!(refused, Err(AcquireError::NotObtained { .. })), "{refused:?}");
    let waiting = {
        let bob = bob.clone();
        tokio::spawn(async move { bob.acquire("a", Wait::Forever).await })
    };
    until(async || ada.inspect("a").await.is_ok_and(|view| view.waiters == 1)).await;
    waiting.abort();
    until(async || ada.inspect("a").await.is_ok_and(|view| view.waiters == 0)).await;
    held.release().await.expect("it is held");
    soon(bob.acquire("a", Wait::Forever)).await.expect("it is free").release().await.expect("held");
}

#[tokio::test]
async fn bulk_appends_leave_a_short_lease_alive() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let ada = soon(Client::connect(options(&cluster, "ada").lease(SHORT_LEASE))).await;
    let ada = ada.expect("the cluster is up");
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    // As many bytes as the client takes at once, until twice the lease is over.
    let block = Bytes::from(vec![b'x'; 256 << 10]);
    let started = std::time::Instant::now();
    let mut length = 0;
    while started.elapsed() < SHORT_LEASE * 2 {
        let mut appends = JoinSet::new();
        for _ in 0..32 {
            let (ada, name, token) = (ada.clone(), lock.name().clone(), lock.token());
            let file = FileName::new("log").expect("a good name");
            let append = FileAppend { file, bytes: block.clone() };
            let op = Op::Append { lock: name, token, append };
            appends.spawn(async move { ada.call(op).await });
        }
        for done in soon(appends.join_all()).await {
            done.expect("the session lives");
            length += block.len() as u64;
        }
    }
    assert_eq!(lock.loss(), None);
    let file = ada.file("log").await.expect("the cluster is up").expect("it was appended to");
    assert_eq!(file.length, length);
}

#[tokio::test]
async fn too_few_nodes_are_no_quorum_and_the_error_says_who_is_missing() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let up = NodeId::new(1);
    cluster.servers.retain(|node, _| *node == up);
    let options = options(&cluster, "ada").open_timeout(Duration::from_secs(2));
    let error = soon(Client::connect(options)).await.expect_err("one of three is no majority");
    let ConnectError::NoQuorum { nodes, .. } = &error else { panic!("{error}") };
    assert_eq!(nodes.len(), 3, "{error}");
    for node in nodes {
        let is_down = matches!(node.standing, Standing::Unreachable(_));
        assert!(node.node != up || !is_down, "{error}");
    }
}

#[tokio::test]
async fn discovery_and_reports_need_no_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // One endpoint is enough.
    let mut options = options(&cluster, "ada");
    options.endpoints = endpoints(&cluster)[..1].to_vec();
    let members = soon(discover(&options, PATIENCE)).await.expect("the cluster is up");
    assert_eq!(members.len(), 3);
    for member in &members {
        let report = soon(report(&options, &member.address, PATIENCE)).await.expect("it is up");
        assert_eq!(report.id, member.node);
        assert_eq!(report.role == ReportedRole::Leader, member.node == leader);
    }
    cluster.servers.retain(|node, _| *node == members[0].node);
    let alone = soon(report(&options, &members[0].address, PATIENCE)).await.expect("it is up");
    assert_eq!(alone.id, members[0].node);
    let gone = soon(report(&options, &members[1].address, Duration::from_secs(2))).await;
    gone.expect_err("it is down");
}
