//! The thesis, 6.3: implementing linearizable semantics. Each request takes effect exactly once.
//!
//! The thesis lets sessions go by an upper bound or by an agreed time. Quorlock does it by time alone:
//! a bound on sessions refuses new ones, and never ends one that is alive.

use std::collections::{BTreeMap, BTreeSet};

use quorlock_core::config::Limits;
use quorlock_core::ids::{FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::LockEvent;
use quorlock_core::message::{
    Done, Op, Outcome, Rejection, Reply, Request, RequestKey, SessionEnd, Submission, Unavailable,
};
use quorlock_core::node::Event;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions, TraceEvent};

use crate::locking::{
    acked, acquire, append, cluster, hold, holder, keep_alive, open_session, submission, token,
    try_acquire,
};

const LEASE: Duration = Duration::from_secs(2);

/// What a connection was told of the requests of a session, by number.
fn answers(lab: &mut Lab, conn: u64) -> Vec<(u64, Outcome)> {
    let answer = |reply| match reply {
        Reply::Submitted { sequence, outcome, .. } => Some((sequence.value(), outcome)),
        Reply::Opened { .. }
        | Reply::KeptAlive { .. }
        | Reply::Lost { .. }
        | Reply::SessionEnded { .. }
        | Reply::Read { .. }
        | Reply::Unavailable { .. } => None,
    };
    lab.replies(conn).into_iter().filter_map(answer).collect()
}

/// Where in the log each node saw a session end, and why.
fn ends(lab: &mut Lab, of: SessionId) -> BTreeMap<u64, (LogIndex, SessionEnd)> {
    let mut ends = BTreeMap::new();
    for traced in lab.take_trace() {
        let TraceEvent::Event { node, event: Event::Lock { index, event } } = traced else {
            continue;
        };
        if let LockEvent::SessionEnded { session, cause } = event
            && session == of
        {
            ends.insert(node.value(), (index, cause));
        }
    }
    ends
}

/// A session with the lock "ledger", which guards the file "ledger".
fn ledger(lab: &mut Lab) -> (SessionId, FencingToken) {
    let session = lab.open(1, "alice");
    let token = hold(lab, 1, session, "ledger");
    (session, token)
}

/// "To achieve linearizability in Raft, servers must filter out duplicate requests. The basic idea is
/// that servers save the results of client operations and use them to skip executing the same request
/// multiple times." (6.3)
#[test]
fn servers_filter_out_duplicate_requests() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    for _ in 0..5 {
        lab.submit(1, session, 2, append("ledger", token, "ledger", "once\n"));
        lab.settle();
        assert_eq!(lab.outcome(session, 2), Some(Ok(Done::Appended { offset: 0 })));
    }
    for n in lab.ids() {
        assert_eq!(lab.lab_node(n).file("ledger"), Some(&b"once\n"[..]), "node {n}");
    }
}

/// "Each client is given a unique identifier, and clients assign unique serial numbers to every
/// command." (6.3)
#[test]
fn each_client_gets_an_identifier_of_its_own() {
    let mut lab = cluster(3);
    let sessions: BTreeSet<SessionId> =
        (0..20).map(|name| lab.open(1, &format!("client {name}"))).collect();
    assert_eq!(sessions.len(), 20);
    // The same number is another command in each of them.
    for session in sessions {
        let lock = format!("lock of {session}");
        let outcome = lab.perform(1, session, try_acquire(&lock));
        assert!(matches!(outcome, Some(Ok(Done::Granted { .. }))), "{outcome:?}");
    }
}

/// "The session tracks the latest serial number processed for the client, along with the associated
/// response. If a server receives a command whose serial number has already been executed, it
/// responds immediately without re-executing the request." (6.3). It does so on every server.
#[test]
fn repeated_command_gets_the_response_of_the_first() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    lab.perform(1, session, append("ledger", token, "ledger", "first\n"));
    lab.perform(1, session, append("ledger", token, "ledger", "second\n"));
    lab.crash(1);
    lab.elect(2);
    lab.submit(2, session, 2, append("ledger", token, "ledger", "first\n"));
    lab.settle();
    let conn = lab.connection(2, session);
    assert_eq!(answers(&mut lab, conn), [(2, Ok(Done::Appended { offset: 0 }))]);
    assert_eq!(lab.lab_node(2).file("ledger"), Some(&b"first\nsecond\n"[..]));
}

/// The saved results are part of the state, so they are in snapshots too (6.3, with 3.8).
#[test]
fn response_is_remembered_across_a_restart_from_a_snapshot() {
    let mut options = LabOptions::default();
    options.config.snapshot_entries = 2;
    options.config.retained_entries = 0;
    let mut lab = Lab::new(options);
    lab.elect(1);
    let (session, token) = ledger(&mut lab);
    lab.perform(1, session, append("ledger", token, "ledger", "once\n"));
    lab.run(Duration::from_millis(100));
    for n in lab.ids() {
        assert!(lab.lab_node(n).durable().snapshot.last.index > LogIndex::ZERO, "node {n}");
        lab.crash(n);
        lab.restart(n);
    }
    lab.elect(3);
    lab.submit(3, session, 2, append("ledger", token, "ledger", "once\n"));
    lab.settle();
    let conn = lab.connection(3, session);
    assert_eq!(answers(&mut lab, conn), [(2, Ok(Done::Appended { offset: 0 }))]);
    assert_eq!(lab.lab_node(3).file("ledger"), Some(&b"once\n"[..]));
}

/// "Commands take effect instantaneously and exactly once according to their first appearance in the
/// Raft log, since any subsequent appearances are filtered out by the state machines." (6.3)
#[test]
fn command_takes_effect_at_its_first_appearance_in_the_log() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    let before = lab.status(1).last.index;
    // Two copies are in the log before either is committed, with another command in between.
    lab.submit(1, session, 2, append("ledger", token, "ledger", "2"));
    lab.submit(1, session, 3, append("ledger", token, "ledger", "3"));
    lab.submit(1, session, 2, append("ledger", token, "ledger", "2"));
    assert_eq!(lab.status(1).last.index, before.plus(3));
    lab.settle();
    assert_eq!(lab.lab_node(1).file("ledger"), Some(&b"23"[..]));
    let conn = lab.connection(1, session);
    let first = (2, Ok(Done::Appended { offset: 0 }));
    let expected = [first.clone(), (3, Ok(Done::Appended { offset: 1 })), first];
    assert!(answers(&mut lab, conn).ends_with(&expected));
}

/// "This approach also generalizes to allow concurrent requests from a single client. Instead of the
/// client's session tracking just the client's most recent sequence number and response, it includes
/// a set of sequence number and response pairs." (6.3)
#[test]
fn session_keeps_a_response_for_each_of_several_requests() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    let line = |sequence| (sequence, append("ledger", token, "ledger", "line\n"));
    for (sequence, op) in (2..=9).map(line) {
        lab.submit(1, session, sequence, op);
    }
    lab.settle();
    let conn = lab.new_connection();
    // Asked for again in another order.
    for (sequence, op) in (2..=9).rev().map(line) {
        lab.request(1, conn, submission(session, sequence, op));
    }
    lab.settle();
    let offset = |sequence| (sequence, Ok(Done::Appended { offset: 5 * (sequence - 2) }));
    let expected: Vec<_> = (2..=9).rev().map(offset).collect();
    assert_eq!(answers(&mut lab, conn), expected);
}

/// As above: a request of a session with a gap before it is not applied. A session's requests take
/// effect in the order of their numbers. (6.3)
#[test]
fn request_after_a_gap_is_not_applied() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    lab.submit(1, session, 4, append("ledger", token, "ledger", "too early"));
    lab.settle();
    let conn = lab.connection(1, session);
    let early = Rejection::OutOfOrder { expected: Sequence::new(2) };
    assert_eq!(answers(&mut lab, conn).last(), Some(&(4, Err(early))));
    assert_eq!(lab.lab_node(1).file("ledger"), None);
}

/// "With each request, the client includes the lowest sequence number for which it has not yet
/// received a response, and the state machine then discards all responses for lower sequence
/// numbers." (6.3). To ask again for one that is discarded is an error, and takes no effect.
#[test]
fn responses_that_the_client_has_are_discarded() {
    let mut lab = cluster(3);
    let (session, token) = ledger(&mut lab);
    lab.perform(1, session, append("ledger", token, "ledger", "2"));
    lab.perform(1, session, append("ledger", token, "ledger", "3"));
    lab.submit_acked(1, session, 4, acked(2), append("ledger", token, "ledger", "4"));
    lab.settle();
    let conn = lab.new_connection();
    for sequence in [1, 2, 3] {
        let op = append("ledger", token, "ledger", "again");
        lab.request(1, conn, submission(session, sequence, op));
    }
    lab.settle();
    let expected = [
        (1, Err(Rejection::ResultEvicted)),
        (2, Err(Rejection::ResultEvicted)),
        (3, Ok(Done::Appended { offset: 1 })),
    ];
    assert_eq!(answers(&mut lab, conn), expected);
    assert_eq!(lab.lab_node(1).file("ledger"), Some(&b"234"[..]));
}

/// "Servers must agree on when to expire a client's session; otherwise, servers' state machines could
/// diverge from each other." (6.3)
#[test]
fn servers_agree_on_when_a_session_expires() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    hold(&mut lab, 1, session, "printer");
    lab.record(true);
    lab.run(LEASE + Duration::from_millis(100));
    let ends = ends(&mut lab, session);
    let (index, cause) = ends[&1];
    assert_eq!(cause, SessionEnd::Expired);
    assert_eq!(ends, (1..=3).map(|n| (n, (index, cause))).collect(), "at one index on each");
    for n in lab.ids() {
        assert_eq!(lab.node(n).digest(), lab.node(1).digest(), "node {n}");
        assert_eq!(holder(&lab, n, "printer"), None, "node {n}");
    }
}

/// "In LogCabin, the leader augments each command that it appends to the Raft log with its current
/// time. Servers reach agreement on this time as part of committing the log entry." (6.3)
#[test]
fn leader_augments_each_entry_with_its_time() {
    let mut lab = cluster(3);
    let steps = [10, 250, 0, 700, 3];
    let mut expected = Vec::new();
    let first = lab.lab_node(1).latest().entries[0].stamp;
    let started = lab.now();
    for (name, step) in (0..).zip(steps) {
        lab.run(Duration::from_millis(step));
        lab.request(1, 1, open_session(name));
        expected.push(lab.now().since(started));
        lab.settle();
    }
    lab.run(Duration::from_millis(100));
    for n in lab.ids() {
        let entries = lab.lab_node(n).latest().entries.iter().skip(1);
        let since: Vec<Duration> = entries.map(|entry| entry.stamp.since(first)).collect();
        assert_eq!(since, expected, "node {n}");
    }
}

/// "Live clients issue keep-alive requests during periods of inactivity, which are also augmented
/// with the leader's timestamp and committed to the Raft log, in order to maintain their sessions."
/// (6.3)
#[test]
fn keep_alives_are_committed_and_maintain_the_session() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    hold(&mut lab, 1, session, "printer");
    for _ in 0..10 {
        let before = lab.status(1).commit;
        let replies = keep_alive(&mut lab, 1, session);
        assert!(matches!(replies.last(), Some(Reply::KeptAlive { result: Ok(_), .. })));
        assert_eq!(lab.status(1).commit, before.next(), "by an entry in the log");
        lab.run(LEASE * 9 / 10);
    }
    assert_eq!(holder(&lab, 1, "printer"), Some(session), "nine times its time to live");
    lab.run(LEASE);
    assert_eq!(holder(&lab, 1, "printer"), None, "without keep-alives it ends");
}

/// "If a state machine encounters a command with no record of the session, it does not process the
/// command and instead returns an error to the client." (6.3)
#[test]
fn command_with_no_record_of_the_session_is_not_processed() {
    let mut lab = cluster(3);
    let session = lab.open_for(1, "alice", LEASE).expect("a session").session;
    lab.run(LEASE + Duration::from_millis(100));
    let digest_of_locks = lab.status(1).counts;
    for unknown in [session, SessionId::new(12_345)] {
        let conn = lab.new_connection();
        lab.request(1, conn, submission(unknown, 1, acquire("printer")));
        lab.settle();
        assert_eq!(answers(&mut lab, conn), [(1, Err(Rejection::SessionUnknown))]);
    }
    assert_eq!(holder(&lab, 1, "printer"), None);
    assert_eq!(lab.status(1).counts, digest_of_locks);
}

/// "When a client first starts up, it can register itself with the cluster using the RegisterClient
/// RPC. This allocates the new client's session and returns the client its identifier." (6.3). To
/// register twice with one nonce is to register once.
#[test]
fn registering_allocates_one_session_and_returns_its_identifier() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    assert_eq!(session.value(), lab.status(1).commit.value(), "the index of its entry");
    lab.crash(1);
    lab.elect(2);
    assert_eq!(lab.open(2, "alice"), session);
    assert_eq!(lab.status(2).counts.sessions, 1);
    assert_ne!(lab.open(2, "bob"), session);
}

/// "[...] there is always some risk of it, however, since there is generally no way to know when
/// clients have exited." (6.3): a bound on sessions refuses new ones, and ends none that is alive.
#[test]
fn bound_on_sessions_ends_none_that_is_alive() {
    let limits = Limits { sessions_max: 2, ..Limits::default() };
    let mut lab = Lab::new(LabOptions { limits, ..LabOptions::default() });
    lab.elect(1);
    let (alice, bob) = (lab.open(1, "alice"), lab.open(1, "bob"));
    let refused = lab.open_for(1, "carol", LEASE);
    assert_eq!(refused, Err(Rejection::TooManySessions));
    hold(&mut lab, 1, alice, "printer");
    assert_eq!(lab.perform(1, bob, Op::CloseSession), Some(Ok(Done::SessionClosed)));
    assert!(lab.open_for(1, "carol", LEASE).is_ok(), "there is room again");
}

/// "As described so far, Raft provides at-least-once semantics for clients": "If the leader crashes
/// after committing the log entry but before responding to the client, the client will retry." (6.3)
#[test]
fn retry_after_a_lost_response_takes_no_second_effect() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.submit(1, session, 1, try_acquire("printer"));
    let entry = lab.status(1).last.index;
    // Both followers have the entry, and the leader is gone before it hears of that.
    lab.deliver_round();
    lab.persist_all(2);
    lab.persist_all(3);
    lab.crash(1);
    assert_eq!(lab.outcome(session, 1), None, "nobody was told anything");
    lab.elect(2);
    lab.submit(2, session, 1, try_acquire("printer"));
    lab.settle();
    let granted = token(lab.outcome(session, 1));
    assert_eq!(granted.value(), entry.value(), "it is the grant of the first attempt");
}

/// A reply that cannot be given any more does not say that nothing happened (6.3, with the design's
/// promise G8): the request may be in the log.
#[test]
fn loss_of_leadership_is_not_reported_as_a_refusal() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    let conn = lab.connection(1, session);
    lab.submit(1, session, 1, try_acquire("printer"));
    lab.deliver_round();
    lab.isolate(1);
    lab.run(Duration::from_secs(2));
    let request = RequestKey::Submit(session, Sequence::new(1));
    let replies = lab.replies(conn);
    let lost = |reply: &Reply| {
        let Reply::Unavailable { request: of, reason } = reply else { return false };
        *of == request && matches!(reason, Unavailable::LeadershipLost { .. })
    };
    assert!(matches!(&replies[..], [only] if lost(only)), "{replies:?}");
    let leader = lab.leader().expect("the others have elected one");
    assert_eq!(holder(&lab, leader, "printer"), Some(session), "it took effect after all");
    let again = Submission {
        session,
        sequence: Sequence::new(1),
        acked: acked(0),
        op: try_acquire("printer"),
    };
    let conn = lab.new_connection();
    lab.request(leader, conn, Request::Submit(again));
    lab.settle();
    assert!(matches!(answers(&mut lab, conn)[..], [(1, Ok(Done::Granted { .. }))]));
}
