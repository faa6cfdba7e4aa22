//! Linearizable reads: what confirms that a leader still leads, and what does not.

use quorlock_core::ids::{LogIndex, ReadRound, RequestId};
use quorlock_core::message::{
    Answer, AppendEntriesReply, Consistency, Message, Query, Reply, Request, Unavailable,
};
use quorlock_core::time::Duration;

use crate::solo::{Solo, matched};
use crate::tools::{acquire, hold, lab, lock, release};

fn read(id: u64) -> Request {
    let query = Query::Lock { lock: lock("l") };
    let (id, consistency) = (RequestId::new(id), Consistency::Linearizable);
    Request::Read { id, query, consistency }
}

/// The reads that were answered, by number and index.
fn answered(replies: &[Reply]) -> Vec<(u64, u64)> {
    let answer = |reply: &Reply| match reply {
        Reply::Read { id, index, .. } => Some((id.value(), index.value())),
        Reply::Opened { .. }
        | Reply::KeptAlive { .. }
        | Reply::Submitted { .. }
        | Reply::Lost { .. }
        | Reply::SessionEnded { .. }
        | Reply::Unavailable { .. } => None,
    };
    replies.iter().filter_map(answer).collect()
}

/// The latest round that a leader has sent to node 2 since anything was last asked for.
fn round(node: &mut Solo) -> Option<ReadRound> {
    let rounds = node.sent_to(2).into_iter().filter_map(|message| match message {
        Message::AppendEntries(append) => Some(append.round),
        Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshot(_)
        | Message::InstallSnapshotReply(_)
        | Message::TimeoutNow { .. } => None,
    });
    rounds.max()
}

/// The answer of a peer to a round, which acknowledges entries up to an index.
fn echo(node: &Solo, round: ReadRound, index: u64) -> Message {
    let term = node.status().term;
    Message::AppendEntriesReply(AppendEntriesReply { term, round, result: matched(index) })
}

/// Hazard 60 (etcd #7331, raft-rs 8c95a3f, TiKV #9208, RedisRaft #19): a new leader answered reads
/// before it had committed an entry of its term, and so without what was committed before it.
#[test]
fn a_new_leader_reads_nothing_before_its_first_commit() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.request(read(1));
    let before = round(&mut node).unwrap_or_default();
    for peer in [2, 3] {
        let message = echo(&node, before, 0);
        node.receive(peer, message);
    }
    assert_eq!(answered(&node.replies()), [], "it may lack what the last leader committed");
    node.persist_all();
    node.matched(2, 1);
    assert_eq!(node.status().commit, LogIndex::new(1));
    assert_eq!(answered(&node.replies()), [], "and its own leadership is confirmed only now");
    let now = round(&mut node).expect("the round begins");
    let message = echo(&node, now, 1);
    node.receive(3, message);
    assert_eq!(answered(&node.replies()), [(1, 1)]);
}

/// Hazard 61 (etcd-raft 63903dd, etcd #20418): a read that was asked again was confirmed by answers
/// to the first time.
#[test]
fn late_answers_confirm_no_later_read() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.sent();
    node.request(read(1));
    let first = round(&mut node).expect("a round for the first read");
    // It is asked again, with the same number, while the answers are on their way.
    node.request(read(1));
    let message = echo(&node, first, 1);
    node.receive(2, message.clone());
    assert_eq!(answered(&node.replies()), [(1, 1)], "the first time");
    let second = round(&mut node).expect("a round for the second time");
    assert!(second > first);
    for _ in 0..3 {
        node.receive(2, message.clone());
        node.receive(3, message.clone());
    }
    assert_eq!(answered(&node.replies()), [], "these are answers to the first");
    let message = echo(&node, second, 1);
    node.receive(3, message);
    assert_eq!(answered(&node.replies()), [(1, 1)]);
}

/// Hazard 61, over a change of leaders: rounds of a later leadership of the same node are others.
#[test]
fn rounds_of_an_earlier_leadership_confirm_nothing() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.sent();
    node.request(read(1));
    let old_round = round(&mut node).expect("a round");
    let old = echo(&node, old_round, 1);
    node.wake_until("the end of its leadership", |node| node.status().leader.is_none());
    let refused = node.replies();
    assert!(matches!(refused[..], [Reply::Unavailable { .. }]), "lost with it: {refused:?}");
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 2);
    node.sent();
    node.request(read(2));
    let new_round = round(&mut node).expect("a round");
    assert!(new_round > old_round, "rounds never repeat while the node runs");
    node.receive(2, old);
    // The same echo, from a peer that is mixed up about the term.
    let mixed_up = echo(&node, old_round, 2);
    node.receive(2, mixed_up);
    assert_eq!(answered(&node.replies()), []);
}

/// Hazard 62 (Xline #870, consul #54) and hazard L17: the old leader, in a minority, answered reads.
#[test]
fn a_leader_in_a_minority_answers_no_read() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.partition(&[1], &[2, 3]);
    lab.elect(2);
    assert!(lab.is_leader(1), "it does not know yet");
    lab.perform(2, session, release("l", token));
    let other = lab.open(2, "b");
    hold(&mut lab, 2, other, "l");
    let query = Query::Lock { lock: lock("l") };
    lab.read(1, 7, query.clone(), Consistency::Linearizable);
    lab.read(1, 8, query.clone(), Consistency::Stale);
    lab.settle();
    assert_eq!(lab.replies(7), [], "no answer is better than a wrong one");
    let stale = lab.replies(8);
    let [Reply::Read { index, answer: Answer::Lock(view), .. }] = &stale[..] else {
        panic!("a stale read is answered: {stale:?}");
    };
    assert_eq!(view.holder.as_ref().map(|holder| holder.session), Some(session));
    assert_eq!(*index, lab.status(1).applied, "and says how old it is");
    lab.run(Duration::from_secs(1));
    let refused = lab.replies(7);
    let lost = |reply: &Reply| {
        matches!(reply, Reply::Unavailable { reason: Unavailable::LeadershipLost { .. }, .. })
    };
    assert!(matches!(&refused[..], [reply] if lost(reply)), "{refused:?}");
    lab.heal();
    lab.run(Duration::from_secs(1));
    lab.read(2, 9, query, Consistency::Linearizable);
    lab.settle();
    let fresh = lab.replies(9);
    let [Reply::Read { answer: Answer::Lock(view), .. }] = &fresh[..] else {
        panic!("the leader answers: {fresh:?}");
    };
    assert_eq!(view.holder.as_ref().map(|holder| holder.session), Some(other));
}

/// Hazard 62 (raft-rs #169): a read was dropped, and nobody heard of it. Each is answered, once, with
/// what was asked for or with a reason.
#[test]
fn every_read_is_answered_once() {
    let mut lab = lab(3);
    lab.elect(1);
    let query = || Query::Lock { lock: lock("l") };
    for conn in 1..=20 {
        lab.read(1, conn, query(), Consistency::Linearizable);
        if conn == 10 {
            lab.deliver_round();
        }
    }
    lab.transfer(1, Some(2));
    for conn in 21..=25 {
        lab.read(1, conn, query(), Consistency::Linearizable);
    }
    lab.run(Duration::from_secs(1));
    for conn in 1..=25 {
        let replies = lab.replies(conn);
        assert_eq!(replies.len(), 1, "read {conn}: {replies:?}");
    }
}

/// Hazard 60 and 62 together, as a client sees it: what was acknowledged is seen by every later
/// read, whoever leads.
#[test]
fn a_read_sees_what_was_acknowledged_under_any_leader() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    for (number, leader) in [(1, 2), (2, 3), (3, 1), (4, 2)] {
        let before = lab.leader().expect("there is one");
        let name = format!("l{number}");
        lab.perform(before, session, acquire(&name));
        lab.elect(leader);
        lab.read(leader, number, Query::Lock { lock: lock(&name) }, Consistency::Linearizable);
        lab.settle();
        let replies = lab.replies(number);
        let [Reply::Read { answer: Answer::Lock(view), .. }] = &replies[..] else {
            panic!("node {leader} leads: {replies:?}");
        };
        assert_eq!(view.holder.as_ref().map(|holder| holder.session), Some(session), "{name}");
    }
}
