//! The thesis, 6.4: processing read-only queries more efficiently (ReadIndex).

use quorlock_core::ids::{LogIndex, ReadRound, Term};
use quorlock_core::message::{
    Answer, AppendEntriesReply, AppendResult, Consistency, LockView, Message, Payload, Query,
    Reply, Unavailable,
};
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;

use crate::locking::{cluster, hold, lock_name, open_session, read};
use crate::solo::{HEARTBEAT, Sent, Solo, appends, at, heartbeat, matched};

/// The answer of a follower in a round.
fn echo(term: u64, index: u64, round: ReadRound) -> Message {
    let (term, result) = (Term::new(term), AppendResult::Matched(LogIndex::new(index)));
    Message::AppendEntriesReply(AppendEntriesReply { term, round, result })
}

/// The round in which a leader asks whether it still leads.
fn round_of(sent: &[Sent]) -> ReadRound {
    let rounds: Vec<ReadRound> = appends(sent).iter().map(|(_, append)| append.round).collect();
    let latest = rounds.iter().max().copied();
    latest.unwrap_or_else(|| panic!("the leader asks: {sent:?}"))
}

/// The reads that were answered since this was last asked, and as of which index.
fn answered(leader: &mut Solo) -> Vec<(u64, u64)> {
    let answer = |reply| match reply {
        Reply::Read { id, index, .. } => Some((id.value(), index.value())),
        Reply::Opened { .. }
        | Reply::KeptAlive { .. }
        | Reply::Submitted { .. }
        | Reply::Lost { .. }
        | Reply::SessionEnded { .. }
        | Reply::Unavailable { .. } => None,
    };
    leader.take_replies().into_iter().filter_map(answer).collect()
}

fn query(lock: &str) -> Query {
    Query::Lock { lock: lock_name(lock) }
}

/// The lock in the last answer to a connection.
fn last_view(replies: &[Reply]) -> Option<&LockView> {
    if let Some(Reply::Read { answer: Answer::Lock(view), .. }) = replies.last() {
        Some(view)
    } else {
        None
    }
}

/// "If the leader has not yet marked an entry from its current term committed, it waits until it has
/// done so." (6.4, step 1)
#[test]
fn read_waits_until_an_entry_of_the_term_is_committed() {
    let mut leader = Solo::leader(3, 4, &[1, 2, 3]);
    let sent = leader.request(read(1, "printer"));
    assert_eq!(sent, [], "there is nothing to ask yet");
    // Followers that answer, but have not the entry of this term.
    let beat = round_of(&leader.advance(HEARTBEAT));
    leader.receive(2, echo(4, 3, beat));
    leader.receive(3, echo(4, 3, beat));
    assert_eq!(answered(&mut leader), []);
    let sent = leader.receive(2, echo(4, 4, beat));
    let round = round_of(&sent);
    leader.receive(2, echo(4, 4, round));
    assert_eq!(answered(&mut leader), [(1, 4)]);
}

/// "Raft handles this by having each leader commit a blank no-op entry into the log at the start of
/// its term." (6.4)
#[test]
fn leader_begins_its_term_with_an_empty_entry() {
    let mut leader = Solo::with_log(3, 3, &[1, 2]);
    leader.become_leader();
    let last = &leader.disk().entries[2];
    assert_eq!((last.id, &last.payload), (at(3, 4), &Payload::Empty));
    leader.receive(3, matched(4, 3));
    assert_eq!(leader.commit(), 3);
}

/// "The leader saves its current commit index in a local variable readIndex. This will be used as a
/// lower bound for the version of the state that the query operates against." (6.4, step 2)
#[test]
fn read_is_answered_as_of_the_commit_index_or_later() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    for name in 0..5 {
        leader.request(open_session(name));
        leader.receive(2, matched(1, 2 + name));
        let commit = leader.commit();
        let round = round_of(&leader.request(read(name, "printer")));
        leader.receive(3, echo(1, 1, round));
        assert_eq!(answered(&mut leader), [(name, commit)]);
    }
}

/// "It issues a new round of heartbeats and waits for their acknowledgments from a majority of the
/// cluster." (6.4, step 3)
#[test]
fn read_waits_for_a_majority_to_acknowledge_a_round_of_heartbeats() {
    let mut leader = Solo::settled_leader(5, 1, &[]);
    let sent = leader.request(read(1, "printer"));
    let to: Vec<u64> = appends(&sent).iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [2, 3, 4, 5], "at once, and to all");
    let round = round_of(&sent);
    leader.receive(4, echo(1, 1, round));
    leader.receive(4, echo(1, 1, round));
    assert_eq!(answered(&mut leader), [], "two of five");
    leader.receive(2, echo(1, 1, round));
    assert_eq!(answered(&mut leader), [(1, 1)]);

    let mut only = Solo::new(1);
    only.campaign();
    only.request(read(1, "printer"));
    assert_eq!(answered(&mut only), [(1, 1)], "alone it is a majority");
}

/// "It issues a new round of heartbeats." (6.4, step 3): what acknowledges a heartbeat from before
/// the read says nothing about now.
#[test]
fn acknowledgement_of_an_earlier_heartbeat_confirms_nothing() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    let earlier = round_of(&leader.advance(HEARTBEAT));
    let round = round_of(&leader.request(read(1, "printer")));
    assert!(round > earlier);
    leader.receive(2, echo(1, 1, earlier));
    leader.receive(3, echo(1, 1, earlier));
    leader.receive(3, matched(1, 1));
    assert_eq!(answered(&mut leader), []);
    leader.receive(3, echo(1, 1, round));
    assert_eq!(answered(&mut leader), [(1, 1)]);
    // The same reply again, for a read that came after it.
    leader.request(read(2, "printer"));
    leader.receive(3, echo(1, 1, round));
    leader.receive(2, echo(1, 1, round));
    assert_eq!(answered(&mut leader), []);
}

/// "The leader needs to make sure it hasn't been superseded by a newer leader of which it is
/// unaware." (6.4, step 3)
#[test]
fn superseded_leader_answers_no_read() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.isolate(1);
    lab.elect(2);
    hold(&mut lab, 2, session, "printer");
    // It is as yet unaware, and would say that the lock is free.
    assert_eq!(lab.status(1).role, Role::Leader);
    let conn = lab.new_connection();
    lab.read(1, conn, query("printer"), Consistency::Linearizable);
    lab.settle();
    assert_eq!(lab.replies(conn), []);
    lab.run(Duration::from_secs(1));
    let replies = lab.replies(conn);
    let [Reply::Unavailable { reason: Unavailable::LeadershipLost { .. }, .. }] = replies[..]
    else {
        panic!("it is told to go elsewhere: {replies:?}")
    };
}

/// "Linearizability requires the results of a read to reflect a state of the system sometime after
/// the read was initiated; each read must at least return the results of the latest committed
/// write." (6.4)
#[test]
fn read_returns_the_latest_committed_write() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    for round in 0..10 {
        let leader = lab.leader().expect("there is a leader");
        let lock = format!("lock {round}");
        let token = hold(&mut lab, leader, session, &lock);
        // A leader that was elected since answers too.
        if round % 3 == 2 {
            lab.transfer(leader, None);
            lab.settle();
        }
        let leader = lab.leader().expect("there is a leader");
        let conn = lab.new_connection();
        lab.read(leader, conn, query(&lock), Consistency::Linearizable);
        lab.settle();
        let replies = lab.replies(conn);
        let holder = last_view(&replies).and_then(|view| view.holder.as_ref());
        assert_eq!(holder.map(|holder| (holder.session, holder.token)), Some((session, token)));
    }
}

/// "It can use a single round of heartbeats for any number of read-only queries that it has
/// accumulated." (6.4)
#[test]
fn single_round_confirms_all_reads_that_have_accumulated() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    let first = round_of(&leader.request(read(1, "printer")));
    for id in 2..=50 {
        assert_eq!(leader.request(read(id, "printer")), [], "they wait for the next round");
    }
    let sent = leader.receive(2, echo(1, 1, first));
    assert_eq!(answered(&mut leader), [(1, 1)], "which they joined too late");
    assert_eq!(appends(&sent).len(), 2, "one message to each: {sent:?}");
    leader.receive(3, echo(1, 1, round_of(&sent)));
    let all: Vec<(u64, u64)> = (2..=50).map(|id| (id, 1)).collect();
    assert_eq!(answered(&mut leader), all);
}

/// "This approach is more efficient than committing read-only queries as new entries in the log,
/// since it avoids synchronous disk writes." (6.4)
#[test]
fn read_writes_nothing_to_any_disk() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    let round = round_of(&leader.request(read(1, "printer")));
    leader.receive(2, echo(1, 1, round));
    assert_eq!(answered(&mut leader), [(1, 1)]);
    assert_eq!((leader.take_written(), leader.log()), (vec![], vec![1]));

    let mut follower = Solo::with_log(3, 1, &[1]);
    follower.receive(2, heartbeat(1, at(1, 1), 1));
    assert_eq!(follower.take_written(), []);
}

/// "Without additional precautions, bypassing the log could lead to stale results for read-only
/// queries." (6.4): who wants such a read asks for it, and is told as of when it is true.
#[test]
fn stale_read_says_as_of_which_index_it_is_true() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.run(Duration::from_millis(100));
    lab.isolate(3);
    let behind = lab.status(3).applied;
    hold(&mut lab, 1, session, "printer");
    let conn = lab.new_connection();
    lab.read(3, conn, query("printer"), Consistency::Linearizable);
    lab.settle();
    let replies = lab.replies(conn);
    assert!(
        matches!(replies[..], [Reply::Unavailable { .. }]),
        "a follower cannot say: {replies:?}"
    );
    lab.read(3, conn, query("printer"), Consistency::Stale);
    let replies = lab.replies(conn);
    let [Reply::Read { index, answer: Answer::Lock(view), .. }] = &replies[..] else {
        panic!("one answer: {replies:?}")
    };
    assert_eq!((*index, &view.holder), (behind, &None));
    assert!(lab.status(1).applied > behind);
}
