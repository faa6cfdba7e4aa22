//! Locks, files, and what handles that are dropped leave behind.

use super::*;
use crate::tls::Role;

#[tokio::test]
async fn acquire_append_release_and_read_back() {
    let fake = Fake::start();
    let client = client(&fake).await;
    assert_eq!(client.state(), SessionState::Safe);
    assert!(client.lease_left().is_some_and(|left| !left.is_zero()));
    assert_eq!(client.node(), Some(NodeId::new(0)));

    let lock = client.acquire("deploy", Wait::Forever).await.expect("it is free");
    assert_eq!(lock.append("log", "one\n").await, Ok(0));
    assert_eq!(lock.append("log", "two\n").await, Ok(4));
    let view = client.inspect("deploy").await.expect("the node is up");
    assert_eq!(view.holder.map(|holder| holder.token), Some(lock.token()));
    let token = lock.token();
    let offsets = lock.release_with([("log", "three\n"), ("other", "x")]).await;
    assert_eq!(offsets.expect("it is held"), [8, 0]);

    let reader = client.read_file("log", .., Consistency::Linearizable).expect("a good name");
    assert_eq!(reader.read_to_end().await, Ok(b"one\ntwo\nthree\n".to_vec()));
    let part = client.read_file("log", 4..7, Consistency::Stale).expect("a good name");
    assert_eq!(part.read_to_end().await, Ok(b"two".to_vec()));
    let missing = client.read_file("none", .., Consistency::Linearizable).expect("a good name");
    assert!(matches!(missing.read_to_end().await, Err(CallError::NoSuchFile(_))));
    let history = client.history("deploy").await.expect("the node is up");
    assert_eq!(history.last().map(|hold| hold.token), Some(token));
    client.close().await.expect("the session was open");
}

#[tokio::test]
async fn section_runs_in_one_step() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let sectioned = client.section("a", Wait::Forever, [("log", "line\n")]).await;
    assert_eq!(sectioned.expect("it is free").offsets, [0]);
    let _lock = client.acquire("a", Wait::Try).await.expect("it is free again");
}

#[tokio::test]
async fn a_second_client_waits_and_gets_a_higher_token() {
    let fake = Fake::start();
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    let first = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let error = bob.acquire("a", Wait::Try).await.expect_err("ada holds it");
    assert!(matches!(error, AcquireError::NotObtained { .. }), "{error}");
    let error = bob.acquire("a", Wait::For(Duration::from_millis(30))).await;
    assert!(matches!(error, Err(AcquireError::TimedOut { .. })), "{error:?}");
    let waiting = tokio::spawn({
        let bob = bob.clone();
        async move { bob.acquire("a", Wait::Forever).await }
    });
    until(async || waiters(&ada, "a").await == 1).await;
    let token = first.token();
    first.release().await.expect("it is held");
    let second = soon(waiting).await.expect("no panic").expect("it is his turn");
    assert!(second.token() > token);
    assert_eq!(second.predecessor(), Some(token));
}

#[tokio::test]
async fn one_client_is_one_holder() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    let again = client.acquire("a", Wait::Forever).await;
    assert!(matches!(again, Err(AcquireError::AlreadyHeld { .. })), "{again:?}");
    assert_eq!(lock.loss(), None);
    // A guard that is dropped is given back, and whoever asks at once gets it after that.
    let token = lock.token();
    drop(lock);
    let next = soon(client.acquire("a", Wait::Forever)).await.expect("it comes free");
    assert!(next.token() > token);
    // Without any guard, the same: the call has none.
    next.release().await.expect("it is held");
    let name = LockName::new("a").expect("a good name");
    let op = Op::Acquire { lock: name.clone(), wait: Wait::Try, max_hold: None };
    let done = client.call(op).await;
    let Ok(Done::Granted { token, .. }) = done else { panic!("{done:?}") };
    let again = client.acquire("a", Wait::Forever).await;
    assert!(matches!(again, Err(AcquireError::AlreadyHeld { .. })), "{again:?}");
    let op = Op::Release { lock: name, token, appends: Vec::new() };
    client.call(op).await.expect("it is held");
    client.acquire("a", Wait::Try).await.expect("it is free").release().await.expect("held");
}

#[tokio::test]
async fn dropping_an_acquire_leaves_the_queue() {
    let fake = Fake::start();
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    let held = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let waiting = tokio::spawn({
        let bob = bob.clone();
        async move { bob.acquire("a", Wait::Forever).await }
    });
    until(async || waiters(&ada, "a").await == 1).await;
    waiting.abort();
    until(async || waiters(&ada, "a").await == 0).await;
    held.release().await.expect("it is held");
    // Bob may ask again.
    soon(bob.acquire("a", Wait::Forever)).await.expect("it is free").release().await.expect("held");
}

#[tokio::test]
async fn dropping_a_section_leaves_the_queue() {
    let fake = Fake::start();
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    let _held = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let waiting = tokio::spawn({
        let bob = bob.clone();
        async move { bob.section("a", Wait::Forever, [("log", "x")]).await }
    });
    until(async || waiters(&ada, "a").await == 1).await;
    waiting.abort();
    until(async || waiters(&ada, "a").await == 0).await;
}

#[tokio::test]
async fn a_grant_that_nobody_takes_is_given_back() {
    let fake = Fake::start();
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    for _ in 0..50 {
        let asked = ada.acquire("a", Wait::Forever);
        // Dropped at whatever point it has come to.
        drop(tokio::time::timeout(Duration::from_micros(300), asked).await);
        let next = soon(bob.acquire("a", Wait::Forever)).await.expect("it comes free");
        next.release().await.expect("it is held");
    }
}

#[tokio::test]
async fn dropping_all_handles_closes_the_session() {
    let fake = Fake::start();
    let (ada, bob) = (client(&fake).await, client(&fake).await);
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    drop(ada);
    assert_eq!(waiters(&bob, "a").await, 0, "a lock keeps its session");
    assert_eq!(lock.append("log", "x").await, Ok(0));
    // This guard is forgotten: only the end of its session can free it.
    let name = LockName::new("b").expect("a good name");
    let op = Op::Acquire { lock: name, wait: Wait::Try, max_hold: None };
    lock.client().call(op).await.expect("it is free");
    drop(lock);
    let taken = soon(bob.acquire("b", Wait::Forever)).await.expect("the session ends");
    taken.release().await.expect("it is held");
    let history = bob.history("b").await.expect("the node is up");
    assert_eq!(history[0].cause, EndCause::SessionClosed);
}

#[tokio::test]
async fn calls_after_the_end_say_so() {
    let fake = Fake::start();
    let ada = client(&fake).await;
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let other = ada.clone();
    ada.close().await.expect("it was open");
    assert_eq!(other.ended().await, Ending::Closed);
    assert_eq!(lock.lost().await.cause, LossCause::SessionEnded(Ending::Closed));
    let error = other.acquire("a", Wait::Forever).await.expect_err("it is closed");
    assert_eq!(error, AcquireError::Call(CallError::SessionEnded(Ending::Closed)));
    assert_eq!(other.lease_left(), None);
}

#[tokio::test]
async fn only_admins_break_locks_and_the_holder_hears_why() {
    let fake = Fake::start();
    let ada = client(&fake).await;
    let admin = fake.options_as(Role::Admin("root".into()));
    let admin = Client::connect(admin).await.expect("the node is up");
    let lock = ada.acquire("a", Wait::Forever).await.expect("it is free");
    let refused = ada.break_lock("a", lock.token(), "mine").await;
    assert!(matches!(refused, Err(CallError::NotAdmin { .. })), "{refused:?}");
    admin.break_lock("a", lock.token(), "too long").await.expect("it is held");
    let LossCause::Taken(EndCause::Broken { reason, .. }) = soon(lock.lost()).await.cause else {
        panic!("it was broken");
    };
    assert_eq!(reason.as_str(), "too long");
    let late = lock.append("log", "x").await;
    assert!(matches!(late, Err(CallError::Rejected(Rejection::NotHolder { .. }))), "{late:?}");
}

#[tokio::test]
async fn a_release_that_is_refused_keeps_the_lock() {
    let fake = Fake::start();
    let client = client(&fake).await;
    client.create_file("log", "other").await.expect("it is new");
    let lock = client.acquire("a", Wait::Forever).await.expect("it is free");
    let error = lock.release_with([("log", "x")]).await.expect_err("another lock guards it");
    assert!(error.to_string().contains("guards the file"), "{error}");
    error.lock.expect("it is still held").release().await.expect("it is held");
}

#[tokio::test]
async fn hold_that_lasts_too_long_is_lost() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let max_hold = Some(Duration::from_millis(50));
    let options = AcquireOptions { wait: Wait::Forever, max_hold };
    let lock = client.acquire_with("a", options).await.expect("it is free");
    let report = soon(lock.lost()).await;
    assert_eq!(report.cause, LossCause::Taken(EndCause::HoldTimedOut));
    assert_eq!(lock.loss(), Some(report));
    assert_eq!(client.state(), SessionState::Safe, "the session lives on");
    let _again = client.acquire("a", Wait::Try).await.expect("it is free");
}

#[tokio::test]
async fn tail_follows_a_file_that_comes_later() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let mut tail = client.tail("log", 0, Consistency::Linearizable).expect("a good name");
    let following = tokio::spawn(async move {
        let mut all = Vec::new();
        while all.len() < 12 {
            all.extend_from_slice(&tail.next().await.expect("the node is up").bytes);
        }
        (all, tail.offset())
    });
    for line in ["one\n", "two\n", "six\n"] {
        client.section("a", Wait::Forever, [("log", line)]).await.expect("it is free");
        fake.faults.disconnect();
    }
    let (all, offset) = soon(following).await.expect("no panic");
    assert_eq!((all.as_slice(), offset), (&b"one\ntwo\nsix\n"[..], 12));
}

#[tokio::test]
async fn lists_come_whole() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let count = quorlock_core::config::PAGE_MAX + 7;
    for number in 0..count {
        client.create_file(&format!("f{number:05}"), "a").await.expect("there is room");
    }
    let files = client.files().await.expect("the node is up");
    assert_eq!(files.len(), count);
    assert!(files.is_sorted_by(|a, b| a.file < b.file));
    let _locks = [
        client.acquire("x/1", Wait::Try).await.expect("it is free"),
        client.acquire("x/2", Wait::Try).await.expect("it is free"),
        client.acquire("y", Wait::Try).await.expect("it is free"),
    ];
    assert_eq!(client.locks("x/").await.expect("the node is up").len(), 2);
    assert_eq!(client.locks("").await.expect("the node is up").len(), 3);
}

#[tokio::test]
async fn callers_beyond_the_queue_wait_for_their_turn() {
    let fake = Fake::start();
    let client = client(&fake).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..command::COMMANDS_MAX * 4 {
        let client = client.clone();
        calls.spawn(async move { client.create_file(&format!("f{number}"), "a").await });
    }
    assert!(soon(calls.join_all()).await.into_iter().all(|call| call.is_ok()));
    assert_eq!(client.files().await.map(|files| files.len()), Ok(command::COMMANDS_MAX * 4));
}
