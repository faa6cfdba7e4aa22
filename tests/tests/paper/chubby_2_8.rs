//! Chubby, 2.8: sessions, KeepAlives and jeopardy; and what 2.9 says of leases in a fail-over.
//!
//! Two things differ:
//!
//! - A KeepAlive is answered when it is committed, not held back until the lease runs out: events are
//!   pushed on the same connection, and need no call to be waiting.
//! - Jeopardy comes before the client's own lease ends, not after it. There is no grace period in which
//!   the session may be over without anybody's knowledge: when the client's lease ends, so does the
//!   session as far as the client is concerned, and the cluster ends it a little later.

use quorlock_core::client::{
    Action, CallError, ClientConfig, Completed, Ending, HeldLock, SessionState,
};
use quorlock_core::ids::{LogIndex, Sequence, SessionId};
use quorlock_core::message::{
    Acked, Done, EndCause, Loss, Op, Rejection, Reply, Request, SessionEnd, SessionNews,
};
use quorlock_core::text::{Label, Text};
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lab::{ClientNews, Lab};

use crate::locking::{
    acked, acquire, append, cluster, hold, holder, keep_alive, lock_name, lock_view, submission,
    try_acquire,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long the sessions of these tests live without a keep-alive.
const LEASE: Duration = Duration::from_secs(10);
const NODES: &[u64] = &[1, 2, 3];

/// A cluster with a client of the core, whose session is open and holds "printer".
fn with_client() -> (Lab, SessionId) {
    let mut lab = cluster(3);
    lab.add_client("alice", ClientConfig::for_lease(LEASE), NODES);
    lab.run(100 * MILLISECOND);
    let call = lab.call("alice", Action::Op(acquire("printer")));
    lab.settle();
    let result = lab.result("alice", call);
    assert!(matches!(result, Some(Ok(Completed::Done(Done::Granted { .. })))), "{result:?}");
    assert_eq!(*lab.client("alice").state(), SessionState::Safe);
    lab.client_news("alice");
    let session = lab.client("alice").session().expect("the session is open");
    (lab, session)
}

/// Loses everything between the client and the cluster, or nothing any more.
fn cut(lab: &mut Lab, is_cut: bool) {
    for n in NODES {
        if is_cut {
            lab.cut_client("alice", *n);
        } else {
            lab.restore_client("alice", *n);
        }
    }
}

/// The states that the application was told of since this was last asked.
fn states(lab: &mut Lab) -> Vec<SessionState> {
    let news = lab.client_news("alice").into_iter();
    news.filter_map(|news| if let ClientNews::State(state) = news { Some(state) } else { None })
        .collect()
}

/// When a session that holds "printer" would end without another keep-alive, on the lease clock.
fn lease_end(lab: &Lab) -> LeaseTime {
    let now = lab.lab_node(1).latest().entries.last().map(|entry| entry.stamp);
    let holder = lock_view(lab, 1, "printer").holder.expect("the lock is held");
    now.expect("there are entries").after(holder.lease_left)
}

/// "A Chubby session [...] exists for some interval of time, and is maintained by periodic handshakes
/// called KeepAlives." (2.8)
#[test]
fn session_is_maintained_by_periodic_keep_alives() {
    let (mut lab, session) = with_client();
    lab.run(100 * SECOND);
    let news = lab.client_news("alice");
    let is_keep_alive =
        |news: &&ClientNews| matches!(news, ClientNews::Sent(_, Request::KeepAlive { .. }));
    let count = news.iter().filter(is_keep_alive).count();
    assert_eq!(count, 30, "one in each third of the lease");
    assert_eq!(*lab.client("alice").state(), SessionState::Safe);
    assert_eq!(lab.client("alice").session(), Some(session));
}

/// "Unless a Chubby client informs the master otherwise, the client's handles, locks, and cached"
/// data "all remain valid provided its session remains valid." (2.8)
#[test]
fn locks_remain_valid_while_the_session_does() {
    let (mut lab, session) = with_client();
    let token = lock_view(&lab, 1, "printer").holder.map(|holder| holder.token);
    for n in [1, 2, 3] {
        lab.run(20 * SECOND);
        if lab.is_leader(n) {
            lab.crash(n);
        }
        lab.run(20 * SECOND);
        if !lab.is_up(n) {
            lab.restart(n);
        }
    }
    let leader = lab.leader().expect("there is a leader");
    assert_eq!(holder(&lab, leader, "printer"), Some(session));
    let held: Vec<HeldLock<'_>> = lab.client("alice").held().collect();
    assert!(matches!(held[..], [HeldLock { token: held, .. }] if Some(held) == token), "{held:?}");
    assert_eq!(states(&mut lab), [], "the application noticed nothing");
}

/// "It ends the session explicitly either when it terminates, or [...]" (2.8)
#[test]
fn client_ends_its_session_explicitly() {
    let (mut lab, session) = with_client();
    let call = lab.call("alice", Action::Op(Op::CloseSession));
    lab.settle();
    let closed = Ok(Completed::Done(Done::SessionClosed));
    assert_eq!(lab.result("alice", call), Some(&closed));
    assert_eq!(holder(&lab, 1, "printer"), None, "and what it held is free at once");
    assert_eq!(states(&mut lab), [SessionState::Ended(Ending::Closed)]);
    let conn = lab.new_connection();
    lab.request(1, conn, submission(session, 3, try_acquire("printer")));
    lab.settle();
    let replies = lab.replies(conn);
    let [Reply::Submitted { outcome: Err(Rejection::SessionUnknown), .. }] = replies[..] else {
        panic!("one answer: {replies:?}")
    };
}

/// "Each session has an associated lease - an interval of time extending into the future during"
/// which "the master guarantees not to terminate the session unilaterally." (2.8)
#[test]
fn cluster_does_not_end_a_session_during_its_lease() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    hold(&mut lab, 1, session, "printer");
    // Entries that carry lease time forward end nothing too early.
    for _ in 0..99 {
        lab.run(LEASE / 100);
        lab.open(1, "somebody else");
    }
    lab.run((LEASE / 100).saturating_sub(MILLISECOND));
    assert_eq!(holder(&lab, 1, "printer"), Some(session));
    lab.run(MILLISECOND);
    assert_eq!(holder(&lab, 1, "printer"), None, "the end of this interval is the timeout");
}

/// "The master is free to advance this timeout further into the future, but may not move it
/// backwards in time." (2.8)
#[test]
fn lease_is_never_moved_backwards() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    hold(&mut lab, 1, session, "printer");
    let mut last = lease_end(&lab);
    for step in 0..20 {
        match step % 4 {
            0 => drop(keep_alive(&mut lab, 1, session)),
            1 => drop(lab.perform(1, session, try_acquire("printer"))),
            // To open the same session again, with whatever time to live, takes nothing from it.
            2 => drop(lab.open_for(1, "alice", Duration::from_secs(2))),
            _ => lab.run(SECOND),
        }
        let end = lease_end(&lab);
        assert!(end >= last, "{end:?} after {last:?}, step {step}");
        last = end;
    }
}

/// "The master advances the lease timeout in three circumstances: on creation of the session, [...]
/// and when it responds to a KeepAlive RPC from the client." (2.8)
#[test]
fn lease_is_advanced_by_creation_and_keep_alives_alone() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    let created = lab.lab_node(1).latest().entries.last().map(|entry| entry.stamp);
    hold(&mut lab, 1, session, "printer");
    assert_eq!(Some(lease_end(&lab)), created.map(|stamp| stamp.after(LEASE)));
    lab.run(3 * SECOND);
    let before = lease_end(&lab);
    let token = hold(&mut lab, 1, session, "printer");
    lab.perform(1, session, append("printer", token, "file", "bytes"));
    assert_eq!(lease_end(&lab), before, "other requests do not");
    keep_alive(&mut lab, 1, session);
    let renewed = lab.lab_node(1).latest().entries.last().map(|entry| entry.stamp);
    assert_eq!(Some(lease_end(&lab)), renewed.map(|stamp| stamp.after(LEASE)));
}

/// "The authoritative timer for session leases runs at the master, so until a new master is elected"
/// the "session lease timer is stopped; this is legal because it is equivalent to extending the
/// client's lease." (2.9)
#[test]
fn lease_clock_stands_still_while_there_is_no_leader() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    hold(&mut lab, 1, session, "printer");
    lab.run(LEASE / 2);
    lab.open(1, "somebody else");
    let left = |lab: &Lab, n| lock_view(lab, n, "printer").holder.map(|holder| holder.lease_left);
    assert_eq!(left(&lab, 1), Some(LEASE / 2));
    lab.crash(1);
    lab.crash(2);
    lab.run(10 * LEASE);
    lab.restart(2);
    lab.elect(3);
    assert!(left(&lab, 3) >= Some(LEASE / 2), "nothing was taken from it");
    lab.run((LEASE / 2).saturating_sub(MILLISECOND));
    assert_eq!(holder(&lab, 3, "printer"), Some(session));
    lab.run(SECOND);
    assert_eq!(holder(&lab, 3, "printer"), None, "and what it was given is bounded");
}

/// "As well as extending the client's lease, the KeepAlive reply is used to transmit events [...]
/// back to the client." (2.8). An event is in each reply until the client says that it has it.
#[test]
fn keep_alive_reply_transmits_what_the_client_may_have_missed() {
    let mut lab = cluster(3);
    let (alice, bob) = (lab.open(1, "alice"), lab.open(1, "bob"));
    let token = hold(&mut lab, 1, alice, "printer");
    lab.disconnect_session(1, alice);
    let reason = Text::new("out of paper").expect("a short text");
    let op = Op::Break { lock: lock_name("printer"), token, reason: reason.clone() };
    lab.perform(1, bob, op);
    let index = lab.status(1).commit;
    let by = label_of(&lab, bob);
    let loss =
        Loss { lock: lock_name("printer"), token, index, cause: EndCause::Broken { by, reason } };

    let granted = (Sequence::new(1), Ok(Done::Granted { token, predecessor: None }));
    let news = SessionNews { outcomes: vec![granted], losses: vec![loss.clone()] };
    for _ in 0..3 {
        assert_eq!(news_of(keep_alive(&mut lab, 1, alice)), Some(news.clone()));
    }
    let conn = lab.connection(1, alice);
    lab.keep_alive(1, alice, acked(1), loss.index);
    lab.run(SECOND);
    let replies = lab.replies(conn);
    assert_eq!(news_of(replies), Some(SessionNews::default()), "it has them");
}

/// What the last keep-alive told.
fn news_of(replies: Vec<Reply>) -> Option<SessionNews> {
    let reply = replies.into_iter().next_back()?;
    if let Reply::KeptAlive { result: Ok(news), .. } = reply { Some(news) } else { None }
}

/// Whose session it is, as the lab opened it.
fn label_of(lab: &Lab, session: SessionId) -> Label {
    let mut lab = lab.clone();
    hold(&mut lab, 1, session, "for its label");
    lock_view(&lab, 1, "for its label").holder.expect("it holds it").label
}

/// "The client maintains a local lease timeout that is a conservative approximation"
/// of "the master's lease timeout." (2.8)
#[test]
fn clients_lease_ends_before_the_clusters() {
    let (mut lab, session) = with_client();
    lab.run(20 * SECOND);
    cut(&mut lab, true);
    let mut since_end = None;
    for _ in 0..LEASE.as_millis() + 1000 {
        lab.run(MILLISECOND);
        let leader = lab.leader().expect("the cluster is well");
        let held = holder(&lab, leader, "printer") == Some(session);
        if matches!(lab.client("alice").state(), SessionState::Ended(_)) {
            since_end = since_end.or(Some(lab.now()));
        }
        if !held {
            break;
        }
    }
    let margin = since_end.map(|ended| lab.now().since(ended));
    let least = LEASE.saturating_sub(ClientConfig::for_lease(LEASE).own_lease());
    assert!(margin >= Some(least), "the client knew before: {margin:?}, at least {least:?}");
}

/// "It differs from the master's lease timeout because the client must make conservative"
/// assumptions "both of the time its KeepAlive reply spent in flight, and the rate at which"
/// the clock of the other side is advancing. (2.8)
#[test]
fn clients_lease_counts_from_when_it_sent_the_keep_alive() {
    let (mut lab, _) = with_client();
    let config = ClientConfig::for_lease(LEASE);
    let ends = |lab: &Lab| lab.client("alice").lease_ends_at().expect("a lease");
    let before = ends(&lab);
    lab.hold_client("alice", true);
    // The next keep-alive goes out, is long on its way, and so is its answer.
    lab.run(config.keep_alive_interval + SECOND / 2);
    lab.carry_to_node("alice");
    lab.run(SECOND / 2);
    assert_eq!(ends(&lab), before, "no answer, no lease");
    lab.carry_to_client("alice");
    assert_eq!(ends(&lab), before.after(config.keep_alive_interval));
    // The clocks may differ in rate: of the time to live, that much is left out.
    let drift = LEASE * config.drift_ppm / 1_000_000;
    assert!(config.own_lease() + drift < LEASE);
}

/// "The Chubby library can inform the application when the grace period begins via a jeopardy event.
/// When the session is known to have survived the communications problem, a safe event tells the
/// client to proceed." (2.8)
#[test]
fn application_is_told_of_jeopardy_and_of_safety() {
    let (mut lab, session) = with_client();
    cut(&mut lab, true);
    lab.run(ClientConfig::for_lease(LEASE).jeopardy_after + SECOND);
    assert_eq!(states(&mut lab), [SessionState::Jeopardy]);
    assert_eq!(lab.client("alice").held().count(), 1, "it still holds what it holds");
    cut(&mut lab, false);
    lab.run(SECOND);
    assert_eq!(states(&mut lab), [SessionState::Safe]);
    assert_eq!(lab.client("alice").session(), Some(session));
    assert_eq!(holder(&lab, 1, "printer"), Some(session));
}

/// "If the session times out instead, an expired event is sent." (2.8), after the warning.
#[test]
fn application_is_told_of_the_end_after_it_was_warned() {
    let (mut lab, _) = with_client();
    cut(&mut lab, true);
    lab.run(2 * LEASE);
    let told = [SessionState::Jeopardy, SessionState::Ended(Ending::LeaseRanOut)];
    assert_eq!(states(&mut lab), told);
    assert_eq!(lab.client("alice").held().count(), 0);
    assert_eq!(holder(&lab, 1, "printer"), None);
    cut(&mut lab, false);
    lab.run(LEASE);
    assert_eq!(states(&mut lab), [], "what has ended does not come back");
}

/// "This information allows the application to quiesce itself when it is unsure of the status of its
/// session" (2.8): also after a pause in which the lease has ended. It hears of it before anything
/// else happens, and nothing is sent in the name of the old session.
#[test]
fn application_that_was_paused_hears_of_the_end_first() {
    let (mut lab, _) = with_client();
    lab.pause_client("alice", true);
    lab.run(3 * LEASE);
    let bob = lab.open(1, "bob");
    hold(&mut lab, 1, bob, "printer");
    lab.client_news("alice");
    lab.pause_client("alice", false);
    let token = lock_view(&lab, 1, "printer").holder.expect("bob holds it").token;
    let call = lab.call("alice", Action::Op(append("printer", token, "file", "too late")));
    lab.settle();
    let news = lab.client_news("alice");
    let sent = news.iter().any(|news| matches!(news, ClientNews::Sent(..)));
    assert!(!sent, "nothing is sent: {news:?}");
    let ended = Ending::LeaseRanOut;
    let told: Vec<&ClientNews> = news
        .iter()
        .filter(|news| matches!(news, ClientNews::State(_) | ClientNews::Finished(..)))
        .collect();
    let state = ClientNews::State(SessionState::Ended(ended.clone()));
    let last = ClientNews::Finished(call, Err(CallError::SessionEnded(ended)));
    assert!(told.ends_with(&[&state, &last]), "in this order: {told:?}");
    assert_eq!(lab.lab_node(1).file("file"), None);
}

/// "This is done so that Chubby API calls do not block indefinitely when a Chubby cell becomes
/// inaccessible; calls return with an error if the grace period ends before communication is
/// re-established." (2.8)
#[test]
fn calls_do_not_block_for_ever_when_the_cluster_is_out_of_reach() {
    let (mut lab, _) = with_client();
    cut(&mut lab, true);
    let token = lock_view(&lab, 1, "printer").holder.expect("it is held").token;
    let sent = lab.call("alice", Action::Op(append("printer", token, "file", "bytes")));
    let waiting = lab.call("alice", Action::Op(acquire("another")));
    lab.run(LEASE);
    assert_eq!(lab.result("alice", sent), Some(&Err(CallError::Unknown)), "it may be there");
    let not_held = Err(CallError::SessionEnded(Ending::LeaseRanOut));
    assert_eq!(lab.result("alice", waiting), Some(&not_held), "it holds nothing, certainly");
}

/// "If [...] any operation on H fails because the associated session has expired, all subsequent
/// operations on H (except Close() and Poison()) will fail in the same way. Clients can use this to
/// guarantee that network and server outages cause only a suffix of a sequence of operations to be
/// lost, rather than an arbitrary subsequence." (2.8)
#[test]
fn only_a_suffix_of_a_sequence_of_operations_is_lost() {
    let (mut lab, _) = with_client();
    let token = lock_view(&lab, 1, "printer").holder.expect("it is held").token;
    let line =
        |lab: &mut Lab| lab.call("alice", Action::Op(append("printer", token, "file", "line\n")));
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(line(&mut lab));
        lab.run(MILLISECOND);
    }
    cut(&mut lab, true);
    for _ in 0..5 {
        calls.push(line(&mut lab));
        lab.run(MILLISECOND);
    }
    lab.run(2 * LEASE);
    cut(&mut lab, false);
    for _ in 0..5 {
        calls.push(line(&mut lab));
        lab.run(SECOND);
    }
    let done: Vec<bool> = calls
        .iter()
        .map(|call| lab.result("alice", *call).expect("each call ends").is_ok())
        .collect();
    assert_eq!(done, [vec![true; 5], vec![false; 10]].concat());
    assert_eq!(lab.lab_node(1).file("file"), Some(&b"line\n".repeat(5)[..]));
    let later = &calls[10..];
    let ended = Err(CallError::SessionEnded(Ending::LeaseRanOut));
    assert!(later.iter().all(|call| lab.result("alice", *call) == Some(&ended)));
}

/// A session can expire at the cluster first, as when the client's clock stood still. The client is
/// told so, by itself and upon its next request, and is not given another session unasked (2.8).
#[test]
fn client_whose_session_has_expired_is_told_so() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    let conn = lab.connection(1, session);
    lab.run(LEASE + SECOND);
    let pushed = lab.replies(conn);
    let is_end = |reply: &Reply| {
        let Reply::SessionEnded { session: of, cause, .. } = reply else { return false };
        *of == session && *cause == SessionEnd::Expired
    };
    assert!(pushed.iter().any(is_end), "on its connection: {pushed:?}");
    lab.keep_alive(1, session, Acked::default(), LogIndex::ZERO);
    lab.run(SECOND);
    let replies = lab.replies(conn);
    let [Reply::KeptAlive { result: Err(Rejection::SessionUnknown), .. }] = replies[..] else {
        panic!("one answer: {replies:?}")
    };
    assert_eq!(lab.status(1).counts.sessions, 0);
}
