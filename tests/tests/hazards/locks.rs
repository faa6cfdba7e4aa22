//! Locks: who is granted what, in which order, and what an old token is worth.

use quorlock_core::config::Limits;
use quorlock_core::ids::{FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Applied, Command, LockEvent, LockTable, Notice};
use quorlock_core::message::{
    Acked, Done, EndCause, Op, Outcome, Rejection, Reply, SessionEnd, Submission,
};
use quorlock_core::prng::Prng;
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lab::{Lab, label, nonce};

use crate::tools::{
    acquire, acquire_at_most, append_to, granted, hold, holder, lab, lab_with, lock, release,
    section, snapshots_every, try_acquire, view,
};

const SECOND: Duration = Duration::from_secs(1);

/// Renews these sessions.
pub(crate) fn renew(lab: &mut Lab, n: u64, sessions: &[SessionId]) {
    for session in sessions {
        lab.keep_alive(n, *session, Acked::default(), LogIndex::ZERO);
    }
    lab.run(Duration::from_millis(50));
}

/// A lock table to which a test applies entries with stamps of its own.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) table: LockTable,
    sequences: std::collections::BTreeMap<SessionId, Sequence>,
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { table: LockTable::new(limits), sequences: std::collections::BTreeMap::new() }
    }

    /// Applies the next entry, so many microseconds after the beginning.
    pub(crate) fn apply(&mut self, stamp: u64, command: Option<Command>) -> Applied {
        let mut applied = Applied::default();
        let index = self.table.index().next();
        self.table.apply(index, LeaseTime::from_micros(stamp), command, &mut applied);
        self.table.check_invariants();
        applied
    }

    pub(crate) fn open(&mut self, stamp: u64, name: &str, lease: Duration) -> SessionId {
        let (nonce, label) = (nonce(name), label(name));
        self.apply(stamp, Some(Command::OpenSession { nonce, label, lease }));
        SessionId::new(self.table.index().value())
    }

    /// The next request of a session.
    pub(crate) fn submit(&mut self, stamp: u64, session: SessionId, op: Op) -> Applied {
        let sequence = self.sequences.entry(session).or_default();
        *sequence = sequence.next();
        let (sequence, acked) = (*sequence, Acked::default());
        self.apply(stamp, Some(Command::Submit(Submission { session, sequence, acked, op })))
    }
}

/// What a session's request came to, as an entry says.
fn outcome(applied: &Applied, of: SessionId) -> Option<Outcome> {
    applied.notices.iter().find_map(|notice| {
        let Notice::Submitted { session, outcome, .. } = notice else { return None };
        (*session == of).then(|| outcome.clone())
    })
}

/// Every grant of some entries.
fn grants(entries: &[Applied]) -> Vec<(SessionId, FencingToken)> {
    let events = entries.iter().flat_map(|applied| &applied.events);
    let grant = |event: &LockEvent| {
        let LockEvent::Granted { session, token, .. } = event else { return None };
        Some((*session, *token))
    };
    events.filter_map(grant).collect()
}

/// Hazard L2: the client is paused between its own look at the clock and its write. Only the token
/// can tell, and it is looked at where the write takes effect.
#[test]
fn a_write_that_comes_after_the_lock_was_lost_is_refused() {
    let mut lab = lab(3);
    lab.elect(1);
    let (paused, next) = (lab.open(1, "paused"), lab.open(1, "next"));
    let old = granted(lab.perform(1, paused, acquire_at_most("l", SECOND)));
    lab.perform(1, paused, append_to("l", old, "f", "first\n"));
    assert_eq!(lab.perform(1, next, acquire("l")), None, "it waits");
    lab.run(SECOND * 2);
    let new = granted(lab.outcome(next, 1));
    assert!(new > old);
    let late = lab.perform(1, paused, append_to("l", old, "f", "late\n"));
    assert_eq!(late, Some(Err(Rejection::NotHolder { current: Some(new) })));
    lab.perform(1, next, append_to("l", new, "f", "second\n"));
    lab.run(SECOND);
    for n in 1..=3 {
        assert_eq!(lab.lab_node(n).file("f"), Some(&b"first\nsecond\n"[..]));
    }
}

/// Hazard L3 (etcd #9921, #11456, #16221, #19597): a lock was handed to a waiter whose session had
/// died in the queue; and the waiter was told nothing while the holder stayed.
#[test]
fn a_dead_waiter_is_passed_over_and_told() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b, c) = (lab.open(1, "a"), lab.open(1, "b"), lab.open(1, "c"));
    let token = hold(&mut lab, 1, a, "l");
    assert_eq!(lab.perform(1, b, acquire("l")), None);
    assert_eq!(lab.perform(1, c, acquire("l")), None);
    let conn = lab.connection(1, b);
    for _ in 0..4 {
        lab.run(SECOND * 3);
        renew(&mut lab, 1, &[a, c]);
    }
    let ended = lab.replies(conn).into_iter().any(|reply| {
        matches!(reply, Reply::SessionEnded { session, cause: SessionEnd::Expired, .. }
            if session == b)
    });
    assert!(ended, "though the holder stays");
    assert_eq!(view(&lab, 1, "l").waiters, 1);
    lab.perform(1, a, release("l", token));
    assert_eq!(holder(&lab, 1, "l"), Some(c));
    assert_eq!(lab.outcome(b, 1), None, "never granted");
}

/// Hazard L4: expiry and release of one hold. Whichever is first in the log ends it, the other one
/// does nothing, and the lock is handed over once.
#[test]
fn of_expiry_and_release_one_ends_the_hold() {
    let second = 1_000_000;
    let mut begin = Table::new(Limits::default());
    let (a, b) = (begin.open(0, "a", SECOND * 60), begin.open(0, "b", SECOND * 60));
    begin.submit(0, a, acquire_at_most("l", SECOND));
    let token = FencingToken::new(begin.table.index().value());
    begin.submit(0, b, acquire("l"));
    // When the release is stamped, and what happens around it.
    for (before, at, after, released) in [
        (None, second - 1, Some(second), true),
        (None, second, None, false),
        (Some(second), second, None, false),
        (Some(second - 1), second + 1, Some(second + 2), false),
    ] {
        let mut table = begin.clone();
        let mut entries: Vec<Applied> = Vec::new();
        entries.extend(before.map(|stamp| table.apply(stamp, None)));
        let release = table.submit(at, a, release("l", token));
        let outcome = outcome(&release, a).expect("a release is decided at once");
        entries.push(release);
        entries.extend(after.map(|stamp| table.apply(stamp, None)));
        let grants = grants(&entries);
        assert_eq!(grants.len(), 1, "one hand-over: {entries:?}");
        assert_eq!(grants[0].0, b);
        assert!(grants[0].1 > token);
        let refused = Err(Rejection::NotHolder { current: Some(grants[0].1) });
        let expected = if released { Ok(Done::Released { offsets: Vec::new() }) } else { refused };
        assert_eq!(outcome, expected, "released at {at}");
    }
}

/// Hazard L10 (etcd #5199): a session that asks twice has one place, not two.
#[test]
fn asking_twice_gives_one_place() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
    let first = hold(&mut lab, 1, a, "l");
    assert_eq!(hold(&mut lab, 1, a, "l"), first, "the same hold, the same token");
    assert_eq!(granted(lab.perform(1, a, try_acquire("l"))), first);
    assert_eq!(lab.perform(1, b, acquire("l")), None);
    let again = lab.perform(1, b, acquire("l"));
    assert_eq!(again, Some(Err(Rejection::AlreadyWaiting)));
    assert_eq!(lab.perform(1, b, section("l", "f", "x")), Some(Err(Rejection::AlreadyWaiting)));
    let held = Rejection::AlreadyHeld { token: first };
    assert_eq!(lab.perform(1, a, section("l", "f", "x")), Some(Err(held)));
    assert_eq!(view(&lab, 1, "l").waiters, 1);
    lab.perform(1, a, release("l", first));
    let second = granted(lab.outcome(b, 1));
    lab.perform(1, b, release("l", second));
    assert_eq!(holder(&lab, 1, "l"), None, "one release is enough");
}

/// Hazard L11: a release that is repeated after the lock went to somebody else releases nothing.
#[test]
fn a_late_release_does_not_touch_the_next_holder() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
    let old = hold(&mut lab, 1, a, "l");
    assert_eq!(lab.perform(1, b, acquire("l")), None);
    let number = lab.next_sequence(a);
    lab.perform(1, a, release("l", old));
    let new = granted(lab.outcome(b, 1));
    // The same request once more, and the same wish as a new request.
    lab.submit(1, a, number, release("l", old));
    lab.settle();
    assert_eq!(lab.outcome(a, number), Some(Ok(Done::Released { offsets: Vec::new() })));
    let refused = Rejection::NotHolder { current: Some(new) };
    assert_eq!(lab.perform(1, a, release("l", old)), Some(Err(refused.clone())));
    assert_eq!(lab.perform(1, a, release("l", new)), Some(Err(refused)), "nor with its token");
    assert_eq!(holder(&lab, 1, "l"), Some(b));
}

/// Hazard L12 (Jepsen's etcd report, hazelcast PR 17697): a wait that was cancelled, or had timed
/// out, was still in the queue and got the lock. Cancel and grant have one winner, by the log.
#[test]
fn a_cancelled_wait_is_never_granted() {
    for cancel_first in [true, false] {
        let mut lab = lab(3);
        lab.elect(1);
        let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
        let token = hold(&mut lab, 1, a, "l");
        assert_eq!(lab.perform(1, b, acquire("l")), None);
        let cancel = Op::Cancel { waiting: Sequence::new(1) };
        if cancel_first {
            lab.submit(1, b, 2, cancel);
            lab.submit(1, a, 2, release("l", token));
        } else {
            lab.submit(1, a, 2, release("l", token));
            lab.submit(1, b, 2, cancel);
        }
        lab.settle();
        let (acquired, cancelled) = (lab.outcome(b, 1), lab.outcome(b, 2));
        if cancel_first {
            assert_eq!(acquired, Some(Err(Rejection::Cancelled)));
            assert_eq!(cancelled, Some(Ok(Done::Cancelled)));
            assert_eq!(holder(&lab, 1, "l"), None);
        } else {
            granted(acquired);
            assert_eq!(cancelled, Some(Err(Rejection::NotWaiting)));
            assert_eq!(holder(&lab, 1, "l"), Some(b), "and its client knows");
        }
    }
}

/// Hazard L12, for time: a wait that has timed out has left the queue.
#[test]
fn a_wait_that_timed_out_is_never_granted() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
    let token = hold(&mut lab, 1, a, "l");
    let wait = quorlock_core::message::Wait::For(SECOND);
    let op = Op::Acquire { lock: lock("l"), wait, max_hold: None };
    assert_eq!(lab.perform(1, b, op), None);
    lab.run(SECOND * 2);
    assert_eq!(lab.outcome(b, 1), Some(Err(Rejection::TimedOut)));
    lab.perform(1, a, release("l", token));
    assert_eq!(holder(&lab, 1, "l"), None);
}

/// Hazard L13: a lock is handed to a client that has just died. It keeps it for as long as its
/// session lives, and no longer.
#[test]
fn a_lock_handed_to_a_dead_client_comes_free_with_its_session() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, dead, c) = (lab.open(1, "a"), lab.open(1, "dead"), lab.open(1, "c"));
    let token = hold(&mut lab, 1, a, "l");
    assert_eq!(lab.perform(1, dead, acquire("l")), None);
    assert_eq!(lab.perform(1, c, acquire("l")), None);
    lab.run(SECOND * 9);
    renew(&mut lab, 1, &[a, c]);
    lab.perform(1, a, release("l", token));
    assert_eq!(holder(&lab, 1, "l"), Some(dead), "nobody can know yet");
    lab.run(SECOND * 2);
    assert_eq!(holder(&lab, 1, "l"), Some(c));
}

/// Hazard L14: the queue is the same on every node, and after a restart, a snapshot and a change of
/// leaders.
#[test]
fn a_queue_keeps_its_order_through_everything() {
    let mut lab = lab_with(3, snapshots_every(5));
    lab.elect(1);
    let names = ["a", "b", "c", "d", "e"];
    let sessions: Vec<SessionId> = names.iter().map(|name| lab.open(1, name)).collect();
    let mut token = hold(&mut lab, 1, sessions[0], "l");
    for session in &sessions[1..] {
        assert_eq!(lab.perform(1, *session, acquire("l")), None);
    }
    lab.isolate(3);
    lab.perform(1, sessions[0], append_to("l", token, "f", "x"));
    lab.crash(3);
    lab.restart(3);
    lab.heal();
    lab.run(SECOND * 2);
    lab.crash(2);
    lab.restart(2);
    lab.elect(3);
    lab.settle();
    let queue = |lab: &Lab, n| -> Vec<SessionId> {
        view(lab, n, "l").queue.iter().map(|waiter| waiter.session).collect()
    };
    for n in 1..=3 {
        assert_eq!(queue(&lab, n), sessions[1..], "on node {n}");
    }
    for pair in sessions.windows(2) {
        let leader = lab.leader().expect("it was elected");
        let numbered = lab.next_sequence(pair[0]);
        lab.submit(leader, pair[0], numbered, release("l", token));
        lab.settle();
        let next = view(&lab, leader, "l").holder.expect("somebody is next");
        assert_eq!(next.session, pair[1]);
        assert!(next.token > token);
        token = next.token;
    }
}

/// Hazard L18: a lock is granted twice. The lab looks at every grant; this gives it something to
/// look at: contention, leaders that change, and a node that is always behind.
#[test]
fn under_contention_and_failover_a_lock_has_one_holder() {
    let mut lab = lab_with(3, snapshots_every(20));
    let mut prng = Prng::new(48);
    lab.elect(1);
    let names = ["a", "b", "c", "d"];
    let sessions: Vec<SessionId> = names.iter().map(|name| lab.open(1, name)).collect();
    for step in 0..400 {
        if step % 40 == 39 {
            let next = step / 40 % 3 + 1;
            lab.elect(next);
        }
        let leader = lab.leader().expect("it was elected");
        let session = sessions[usize::try_from(prng.below(4)).expect("four sessions")];
        let name = if prng.below(2) == 0 { "l" } else { "m" };
        let held = view(&lab, leader, name).holder;
        let op = match (held, prng.below(3)) {
            (Some(held), 0 | 1) => {
                let next = lab.next_sequence(held.session);
                lab.submit(leader, held.session, next, release(name, held.token));
                lab.settle();
                continue;
            }
            (_, 0) => section(name, &format!("of-{name}"), "line\n"),
            _ => acquire(name),
        };
        lab.perform(leader, session, op);
        renew(&mut lab, leader, &sessions);
    }
    lab.run(SECOND);
    // A heartbeat tells what was committed last.
    lab.run(Duration::from_millis(100));
    for n in 1..=3 {
        assert_eq!(lab.node(n).digest(), lab.node(1).digest());
    }
}

/// Hazard L19: the token of a lock began anew after nobody held it, or after a snapshot.
#[test]
fn tokens_grow_for_ever() {
    let mut lab = lab_with(3, snapshots_every(3));
    lab.elect(1);
    let session = lab.open(1, "a");
    let mut last = FencingToken::ZERO;
    for round in 0..12 {
        let leader = lab.leader().expect("it was elected");
        let token = hold(&mut lab, leader, session, "l");
        assert!(token > last, "{token} after {last}");
        last = token;
        lab.perform(leader, session, release("l", token));
        assert_eq!(lab.status(leader).counts.locks, 0, "a free lock takes no memory");
        match round % 3 {
            0 => lab.elect(leader % 3 + 1),
            1 => {
                for n in 1..=3 {
                    lab.crash(n);
                }
                for n in 1..=3 {
                    lab.restart(n);
                }
                lab.elect(leader);
            }
            _ => {}
        }
    }
}

/// Hazard L19, within one entry: when a session ends and several locks change hands at once, each
/// grant has a token of its own.
#[test]
fn grants_of_one_entry_have_different_tokens() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b) = (lab.open(1, "a"), lab.open(1, "b"));
    for name in ["l", "m", "n"] {
        hold(&mut lab, 1, a, name);
        assert_eq!(lab.perform(1, b, acquire(name)), None);
    }
    lab.perform(1, a, Op::CloseSession);
    let tokens: Vec<FencingToken> = (1..=3).map(|number| granted(lab.outcome(b, number))).collect();
    assert!(tokens.is_sorted_by(|one, other| one < other), "{tokens:?}");
    let later = hold(&mut lab, 1, b, "o");
    assert!(later > tokens[2]);
}

/// Hazard L18, for an administrator: a break names the hold that it ends, so a late one cannot hit
/// the next holder.
#[test]
fn a_break_hits_the_hold_that_it_names() {
    let mut lab = lab(3);
    lab.elect(1);
    let (a, b, admin) = (lab.open(1, "a"), lab.open(1, "b"), lab.open(1, "admin"));
    let old = hold(&mut lab, 1, a, "l");
    assert_eq!(lab.perform(1, b, acquire("l")), None);
    let conn = lab.connection(1, a);
    lab.replies(conn);
    let reason = crate::tools::text("stuck");
    let break_old = || Op::Break { lock: lock("l"), token: old, reason: reason.clone() };
    assert_eq!(lab.perform(1, admin, break_old()), Some(Ok(Done::Broken)));
    let new = granted(lab.outcome(b, 1));
    let cause = EndCause::Broken { by: label("admin"), reason: reason.clone() };
    let told = lab.replies(conn).into_iter().any(|reply| {
        matches!(reply, Reply::Lost { loss, .. } if loss.token == old && loss.cause == cause)
    });
    assert!(told, "the holder hears who and why");
    let late = lab.perform(1, admin, break_old());
    assert_eq!(late, Some(Err(Rejection::NotHolder { current: Some(new) })));
    assert_eq!(holder(&lab, 1, "l"), Some(b));
}
