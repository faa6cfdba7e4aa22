//! Chubby, 2.4: locks and sequencers.
//!
//! A fencing token is Chubby's lock generation number, and the sequencer is the pair of lock and token
//! that every append carries. Two things differ:
//!
//! - Quorlock's locks are exclusive; there are no shared ones.
//! - There is no lock-delay. It protects servers that check no sequencers, and "while imperfect" (2.4)
//!   is what Chubby says of it. Here the guarded files are in the same log as the locks, so every
//!   append is checked, and a lock can be granted again at once.

use quorlock_core::ids::{FencingToken, SessionId};
use quorlock_core::message::{
    Answer, Consistency, Done, EndCause, Op, Outcome, Query, Rejection, Reply, Wait,
};
use quorlock_core::text::Text;
use quorlock_core::time::Duration;
use quorlock_tests::lab::Lab;

use crate::locking::{
    acquire, append, cluster, file_append, file_name, hold, holder, lock_name, lock_view,
    open_long, release, submission, token, try_acquire,
};

const SHORT: Duration = Duration::from_secs(2);

/// Two sessions; the first one's lease is short.
fn two_sessions() -> (Lab, SessionId, SessionId) {
    let mut lab = cluster(3);
    let first = lab.open_for(1, "alice", SHORT).expect("a session").session;
    let second = lab.open(1, "bob");
    (lab, first, second)
}

fn not_holder(current: Option<FencingToken>) -> Outcome {
    Err(Rejection::NotHolder { current })
}

/// "Either one client handle may hold the lock in exclusive (writer) mode, or [...]" (2.4)
#[test]
fn one_client_holds_a_lock() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "printer");
    assert_eq!(lab.perform(1, bob, try_acquire("printer")), Some(Err(Rejection::NotObtained)));
    assert_eq!(lab.perform(1, bob, acquire("printer")), None, "it waits");
    let view = lock_view(&lab, 1, "printer");
    assert_eq!(view.holder.map(|holder| (holder.session, holder.token)), Some((alice, first)));
    assert_eq!(view.queue.iter().map(|waiter| waiter.session).collect::<Vec<_>>(), [bob]);
}

/// "Locks [...] conflict only with other attempts to acquire the same lock." (2.4)
#[test]
fn lock_conflicts_only_with_attempts_to_acquire_the_same_lock() {
    let (mut lab, alice, bob) = two_sessions();
    hold(&mut lab, 1, alice, "a/b");
    for other in ["a", "b", "a/b/c", "a/c", "A/b"] {
        hold(&mut lab, 1, bob, other);
    }
    assert_eq!(lab.perform(1, bob, try_acquire("a/b")), Some(Err(Rejection::NotObtained)));
}

/// "Holding a lock called F neither is necessary to access the file F, nor prevents other clients
/// from doing so." (2.4). In Quorlock that is so for reading; to append takes the lock.
#[test]
fn reading_a_file_takes_no_lock() {
    let (mut lab, alice, bob) = two_sessions();
    let token = hold(&mut lab, 1, alice, "F");
    lab.perform(1, alice, append("F", token, "F", "content"));
    let conn = lab.new_connection();
    let query = Query::ReadFile { file: file_name("F"), offset: 0, length: 100 };
    lab.read(1, conn, query, Consistency::Linearizable);
    lab.settle();
    let replies = lab.replies(conn);
    let [Reply::Read { answer: Answer::Bytes { bytes, .. }, .. }] = &replies[..] else {
        panic!("one answer: {replies:?}")
    };
    assert_eq!(&bytes[..], b"content");
    let stolen = lab.perform(1, bob, append("F", token, "F", "more"));
    assert_eq!(stolen, Some(not_holder(Some(token))), "the token is the holder's alone");
}

/// "A process holding a lock L may issue a request R, but then fail. Another process may acquire L
/// and perform some action before R arrives at its destination. If R later arrives, it may be acted
/// on without the protection of L." (2.4). Not here: R carries the token that it was issued under.
#[test]
fn request_that_arrives_after_the_lock_has_passed_on_is_rejected() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "L");
    lab.perform(1, alice, append("L", first, "file", "alice\n"));
    lab.perform(1, bob, acquire("L"));
    let reason = Text::new("it does not answer").expect("a short text");
    let op = Op::Break { lock: lock_name("L"), token: first, reason };
    assert_eq!(lab.perform(1, bob, op), Some(Ok(Done::Broken)));
    let second = token(lab.outcome(bob, 1));
    lab.perform(1, bob, append("L", second, "file", "bob\n"));
    // R arrives.
    let late = lab.perform(1, alice, append("L", first, "file", "alice again\n"));
    assert_eq!(late, Some(not_holder(Some(second))));
    assert_eq!(lab.perform(1, alice, release("L", first)), Some(not_holder(Some(second))));
    assert_eq!(lab.lab_node(1).file("file"), Some(&b"alice\nbob\n"[..]));
    assert_eq!(holder(&lab, 1, "L"), Some(bob));
}

/// "A lock generation number; this increases when the node's lock transitions from free to held."
/// (2.3): it grows over all locks, failovers and restarts.
#[test]
fn generation_number_increases_with_each_grant() {
    let mut lab = cluster(3);
    let session = open_long(&mut lab, 1, "alice");
    let mut last = FencingToken::ZERO;
    for round in 0..30 {
        let leader = lab.leader().expect("there is a leader");
        let lock = ["a", "b", "c"][round % 3];
        let next = hold(&mut lab, leader, session, lock);
        assert!(next > last, "{next} after {last}");
        last = next;
        lab.perform(leader, session, release(lock, next));
        if round % 5 == 4 {
            lab.crash(leader);
            lab.run(SHORT);
            lab.restart(leader);
            lab.run(SHORT);
        }
    }
}

/// "At any time, a lock holder may request a sequencer." (2.4): to acquire again what one holds gives
/// the same token, and changes nothing.
#[test]
fn holder_can_ask_for_its_token_at_any_time() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "printer");
    lab.perform(1, bob, acquire("printer"));
    let forever = Op::Acquire { lock: lock_name("printer"), wait: Wait::Forever, max_hold: None };
    for op in [try_acquire("printer"), forever] {
        assert_eq!(token(lab.perform(1, alice, op)), first);
    }
    assert_eq!(
        lab.perform(1, alice, release("printer", first)),
        Some(Ok(Done::Released { offsets: vec![] }))
    );
    assert_eq!(holder(&lab, 1, "printer"), Some(bob), "one release is enough");
}

/// "The recipient server is expected to test whether the sequencer is still valid [...]; if not, it
/// should reject the request." (2.4)
#[test]
fn append_without_a_valid_token_is_rejected() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "L");
    let (earlier, later) = (first.previous(), first.next());
    for wrong in [FencingToken::ZERO, earlier, later, FencingToken::MAX] {
        let outcome = lab.perform(1, alice, append("L", wrong, "file", "bytes"));
        assert_eq!(outcome, Some(not_holder(Some(first))), "token {wrong}");
    }
    assert_eq!(lab.perform(1, bob, append("free", first, "file", "bytes")), Some(not_holder(None)));
    assert_eq!(lab.lab_node(1).file("file"), None, "nothing was written");
}

/// "It contains the name of the lock, the mode in which it was acquired (exclusive or shared), and
/// the lock generation number." (2.4): the token of one lock is worth nothing for a file that
/// another one guards.
#[test]
fn token_is_valid_only_for_what_its_lock_guards() {
    let (mut lab, alice, bob) = two_sessions();
    let a = hold(&mut lab, 1, alice, "a");
    let b = hold(&mut lab, 1, bob, "b");
    lab.perform(1, alice, append("a", a, "file of a", "bytes"));
    let guard = Rejection::WrongGuard { guard: lock_name("a") };
    assert_eq!(lab.perform(1, bob, append("b", b, "file of a", "bytes")), Some(Err(guard)));
    assert_eq!(
        lab.perform(1, bob, append("a", b, "file of a", "bytes")),
        Some(not_holder(Some(a)))
    );
    assert_eq!(lab.lab_node(1).file("file of a"), Some(&b"bytes"[..]));
}

/// The same for several operations in one: they are all accepted, or none is (2.4).
#[test]
fn release_with_an_old_token_appends_nothing() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "L");
    lab.perform(1, alice, release("L", first));
    let second = hold(&mut lab, 1, bob, "L");
    let appends = vec![file_append("file", "one"), file_append("file", "two")];
    let late = Op::Release { lock: lock_name("L"), token: first, appends };
    assert_eq!(lab.perform(1, alice, late), Some(not_holder(Some(second))));
    assert_eq!((holder(&lab, 1, "L"), lab.lab_node(1).file("file")), (Some(bob), None));
}

/// "If a client releases a lock in the normal way, it is immediately available for other clients to
/// claim, as one would expect." (2.4)
#[test]
fn released_lock_is_immediately_available() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "printer");
    lab.perform(1, bob, acquire("printer"));
    let before = lab.now();
    lab.perform(1, alice, release("printer", first));
    let outcome = lab.outcome(bob, 1);
    let second = token(outcome.clone());
    let predecessor = Some(first);
    assert_eq!(outcome, Some(Ok(Done::Granted { token: second, predecessor })));
    assert_eq!(lab.now(), before);
}

/// "If a lock becomes free because the holder has failed or become inaccessible [...]" (2.4): the
/// next client has it at once, and the old holder's token is worth nothing from then on.
#[test]
fn lock_of_a_failed_holder_is_granted_and_its_token_is_void() {
    let (mut lab, alice, bob) = two_sessions();
    let first = hold(&mut lab, 1, alice, "printer");
    lab.perform(1, bob, acquire("printer"));
    lab.run(SHORT.saturating_sub(Duration::from_millis(10)));
    assert_eq!(holder(&lab, 1, "printer"), Some(alice), "not before its lease ends");
    lab.run(Duration::from_millis(10));
    let second = token(lab.outcome(bob, 1));
    assert!(second > first);
    let answer = lab.node(1).answer(&Query::History { lock: lock_name("printer") });
    let Answer::History(history) = answer else { panic!("a history: {answer:?}") };
    assert_eq!(history.last().map(|hold| &hold.cause), Some(&EndCause::SessionExpired));
    let conn = lab.new_connection();
    lab.request(1, conn, submission(alice, 2, append("printer", first, "file", "too late")));
    lab.settle();
    let replies = lab.replies(conn);
    let [Reply::Submitted { outcome: Err(Rejection::SessionUnknown), .. }] = replies[..] else {
        panic!("one answer: {replies:?}")
    };
}
