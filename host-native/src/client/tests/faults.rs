//! A node that is slow, mute, gone, or not what it should be.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use quorlock_core::config::Limits;

use super::fake::{Faults, issue};
use super::*;
use crate::tls::Role;
use crate::tls::authority::Authority;

#[tokio::test]
async fn a_broken_connection_is_made_again_and_nothing_is_lost() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    for number in 0..20_u64 {
        if number % 5 == 0 {
            fake.faults.disconnect();
        }
        assert_eq!(soon(lock.append("log", "x")).await, Ok(number), "once each, in order");
    }
    assert_eq!(lock.loss(), None);
    lock.release().await.expect("it is held");
}

#[tokio::test]
async fn silence_is_jeopardy_and_then_the_end() {
    let fake = Fake::start();
    let options = fake.options("ada").lease(SHORT_LEASE);
    let client = soon(Client::connect(options)).await.expect("the node is up");
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    let mut states = client.watch();
    Faults::set(&fake.faults.is_silent, true);
    let append = lock.append("log", "x");
    let told = async {
        soon(lock.in_jeopardy()).await;
        let jeopardy = states.borrow_and_update().clone();
        let loss = soon(lock.lost()).await;
        (jeopardy, loss.cause)
    };
    let (append, told) = soon(async { tokio::join!(append, told) }).await;
    let ended = LossCause::SessionEnded(Ending::LeaseRanOut);
    assert_eq!(told, (SessionState::Jeopardy, ended), "first the warning, then the loss");
    assert_eq!(append, Err(CallError::Unknown), "it may have arrived");
    let late = client.call(Op::CloseSession).await;
    assert_eq!(late, Err(CallError::SessionEnded(Ending::LeaseRanOut)));
}

#[tokio::test]
async fn jeopardy_that_ends_in_time_loses_nothing() {
    let fake = Fake::start();
    let options = fake.options("ada").lease(SHORT_LEASE);
    let client = soon(Client::connect(options)).await.expect("the node is up");
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    Faults::set(&fake.faults.is_silent, true);
    soon(lock.in_jeopardy()).await;
    Faults::set(&fake.faults.is_silent, false);
    let mut states = client.watch();
    let back = soon(states.wait_for(|state| *state != SessionState::Jeopardy)).await;
    assert_eq!(*back.expect("the session lives"), SessionState::Safe);
    assert_eq!(lock.append("log", "x").await, Ok(0));
}

#[tokio::test]
async fn bulk_does_not_delay_keep_alives() {
    let fake = Fake::start();
    let options = fake.options("ada").lease(SHORT_LEASE);
    let client = soon(Client::connect(options)).await.expect("the node is up");
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    // More than the node takes in without reading, so that the stream is stuck.
    let block = Bytes::from(vec![b'x'; 1 << 20]);
    let appends = async {
        let mut all = Vec::new();
        for _ in 0..24 {
            all.push(Box::pin(lock.append("log", block.clone())));
        }
        for (number, append) in (0_u64..).zip(all) {
            assert_eq!(append.await, Ok(number << 20));
        }
    };
    let keep_alives = || fake.faults.keep_alives.load(Ordering::Relaxed);
    let before = keep_alives();
    let watched = async {
        // Well past the lease.
        until(async || keep_alives() >= before + 8).await;
        assert_ne!(client.state(), SessionState::Ended(Ending::LeaseRanOut));
    };
    soon(async { tokio::join!(appends, watched) }).await;
    assert_eq!(lock.loss(), None);
    let length = client.file("log").await.expect("the node is up").map(|file| file.length);
    assert_eq!(length, Some(24 << 20));
}

#[tokio::test]
async fn a_stuck_stream_of_requests_leaves_the_session_alive() {
    let fake = Fake::start();
    // The answer to an append may take its time; the keep-alives must not.
    let mut options = fake.options("ada").lease(Duration::from_secs(3));
    options.config.reply_timeout = Duration::from_millis(900);
    let client = soon(Client::connect(options)).await.expect("the node is up");
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    Faults::set(&fake.faults.is_stalled, true);
    let before = fake.faults.keep_alives.load(Ordering::Relaxed);
    let block = Bytes::from(vec![b'x'; 1 << 20]);
    let append = lock.append("log", block);
    let watched = async {
        until(async || fake.faults.keep_alives.load(Ordering::Relaxed) >= before + 6).await;
        Faults::set(&fake.faults.is_stalled, false);
    };
    let (append, ()) = soon(async { tokio::join!(append, watched) }).await;
    assert_eq!(append, Ok(0), "once, however often it was sent");
    assert_eq!(lock.loss(), None);
}

#[tokio::test]
async fn a_full_window_lets_releases_and_keep_alives_through() {
    let limits = Limits { window_max: 4, ..Limits::default() };
    let fake = Fake::start_with(limits);
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    let mut held = Vec::new();
    for number in 0..8 {
        let lock = ada.acquire(&format!("l{number}"), Wait::Forever).await;
        held.push(lock.expect("it is free"));
    }
    let waits: Vec<_> = (0..8)
        .map(|number| {
            let bob = bob.clone();
            tokio::spawn(async move { bob.acquire(&format!("l{number}"), Wait::Forever).await })
        })
        .collect();
    until(async || waiters(&ada, "l0").await == 1).await;
    // His window is full of waits, but what is answered at once goes on.
    let own = soon(bob.acquire("own", Wait::Try)).await.expect("it is free");
    own.release().await.expect("it is held");
    drop(held);
    for wait in waits {
        drop(soon(wait).await.expect("no panic").expect("it comes free"));
    }
}

#[tokio::test]
async fn too_many_calls_are_refused_and_what_is_dropped_is_given_back_all_the_same() {
    let fake = Fake::start();
    let mut options = fake.options("ada");
    options.config.calls_max = 3;
    let ada = soon(Client::connect(options)).await.expect("the node is up");
    let bob = client(&fake).await;
    let mine = ada.acquire("mine", Wait::Forever).await.expect("it is free");
    Faults::set(&fake.faults.is_stalled, true);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..4 {
        let ada = ada.clone();
        calls.spawn(async move { ada.create_file(&format!("f{number}"), "a").await });
    }
    // None of them can be answered, so the one that ends found no room.
    let first = soon(calls.join_next()).await.expect("there are four").expect("no panic");
    assert_eq!(first, Err(CallError::TooManyCalls));
    drop(mine);
    Faults::set(&fake.faults.is_stalled, false);
    for call in soon(calls.join_all()).await {
        assert_eq!(call, Ok(()));
    }
    let taken = soon(bob.acquire("mine", Wait::Forever)).await.expect("it comes free");
    taken.release().await.expect("it is held");
}

#[tokio::test]
async fn nobody_listening_is_told_from_no_answer() {
    let fake = Fake::start();
    let options = fake.options("ada").open_timeout(Duration::from_millis(300));
    fake.stop().await;
    let error = soon(Client::connect(options)).await.expect_err("it is down");
    let ConnectError::Unreachable { failures, timeout } = &error else { panic!("{error}") };
    assert_eq!(failures[0].1, DialError::NobodyListens, "{error}");
    assert!(timeout.is_some());
}

#[tokio::test]
async fn a_node_that_dies_without_a_word_is_missed() {
    let (sender, started) = std::sync::mpsc::channel();
    let (kill, killed) = oneshot::channel::<()>();
    let process = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let fake = runtime.block_on(async {
            let fake = Fake::start();
            // A lease so long that it is not what tells.
            let options = fake.options("ada").lease(Duration::from_mins(10));
            sender.send(options).expect("the test waits for it");
            drop(killed.await);
            fake
        });
        // Without its runtime it cannot say anything any more, and then its socket is closed.
        runtime.shutdown_background();
        drop(fake);
    });
    let options = started.recv().expect("it starts");
    let client = soon(Client::connect(options)).await.expect("it is up");
    assert_eq!(client.node(), Some(NodeId::new(0)));
    kill.send(()).expect("it waits for that");
    until(async || client.node().is_none()).await;
    assert_eq!(client.state(), SessionState::Safe);
    process.join().expect("no panic");
}

#[tokio::test]
async fn a_node_that_does_not_lead_is_no_quorum() {
    let fake = Fake::start();
    Faults::set(&fake.faults.is_follower, true);
    let options = fake.options("ada").open_timeout(Duration::from_millis(500));
    let error = soon(Client::connect(options)).await.expect_err("nobody leads");
    let ConnectError::NoQuorum { nodes, .. } = &error else { panic!("{error}") };
    assert_eq!(nodes[0].standing, Standing::NotLeader { leader: None }, "{error}");
    // The same node, leading.
    Faults::set(&fake.faults.is_follower, false);
    client(&fake).await.close().await.expect("it is open");
}

#[tokio::test]
async fn a_lease_outside_of_the_limits_is_refused_with_the_limits() {
    let fake = Fake::start();
    let options = fake.options("ada").lease(Duration::from_secs(1));
    let error = soon(Client::connect(options)).await.expect_err("too short");
    let ConnectError::Refused(rejection) = &error else { panic!("{error}") };
    assert!(matches!(rejection, Rejection::LeaseOutOfRange { .. }), "{error}");
}

#[tokio::test]
async fn other_authorities_and_other_clusters_are_told_at_once() {
    let fake = Fake::start();
    let (other, _) = Authority::create(Duration::from_hours(1)).expect("an authority");
    let mut options = fake.options("ada");
    options.credentials = issue(&other, Role::Client("ada".into()));
    let error = soon(Client::connect(options)).await.expect_err("another authority");
    let ConnectError::Unreachable { failures, timeout: None } = &error else { panic!("{error}") };
    assert!(failures[0].1.is_about_certificates(), "{error}");
}

#[tokio::test]
async fn the_library_does_not_need_the_applications_threads() {
    let fake = Fake::start();
    let options = fake.options("ada").lease(SHORT_LEASE);
    // An application that blocks all of its threads past its lease, with another runtime for the
    // node.
    let application = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(options).await.expect("the node is up");
            let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
            std::thread::sleep(SHORT_LEASE * 2);
            (client.state(), lock.append("log", "x").await)
        })
    });
    until(async || application.is_finished()).await;
    let told = application.join().expect("no panic");
    assert_eq!(told, (SessionState::Safe, Ok(0)));
}

#[tokio::test]
async fn discovery_finds_the_members() {
    let fake = Fake::start();
    let members = soon(discover(&fake.options("ada"), PATIENCE)).await.expect("it is up");
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].address, fake.address.to_string());
    assert_eq!(members[0].version.as_deref(), Some("0"));
}
