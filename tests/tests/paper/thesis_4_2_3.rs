//! The thesis, 4.2.3: disruptive servers.

use quorlock_core::ids::{EntryId, NodeId, Term};
use quorlock_core::message::{Envelope, Message};
use quorlock_core::raft::{DropReason, Role};
use quorlock_core::time::Duration;

use crate::locking::{cluster, hold};
use crate::solo::{
    ELECTION_MIN, HEARTBEAT, Solo, append_entries, at, heartbeat, matched, no_vote, pre_vote,
    request_vote, request_vote_for_transfer, vote,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// "If a server receives a RequestVote request within the minimum election timeout of hearing from a
/// current leader, it does not update its term or grant its vote." (4.2.3). It may "drop the
/// request, reply with a vote denial, or delay the request"; Quorlock replies.
#[test]
fn server_that_hears_from_a_leader_neither_votes_nor_updates_its_term() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(3, EntryId::ZERO, &[3], 0));
    follower.take_written();
    for _ in 0..20 {
        follower.receive(2, heartbeat(3, at(1, 3), 1));
        follower.advance(ELECTION_MIN.saturating_sub(MILLISECOND));
        let answer = follower.receive(3, request_vote(9, at(5, 5)));
        assert_eq!(answer, [(3, no_vote(3, 9))], "a denial in its own term");
    }
    let status = follower.status();
    assert_eq!((status.term, status.leader), (Term::new(3), Some(NodeId::new(2))));
    assert_eq!(follower.take_written(), [], "neither a term nor a vote is stored");
}

/// "This does not affect normal elections, where each server waits at least a minimum election
/// timeout before starting an election." (4.2.3)
#[test]
fn server_that_heard_nothing_for_the_minimum_timeout_votes() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(3, EntryId::ZERO, &[3], 0));
    follower.pass(ELECTION_MIN);
    assert_eq!(follower.receive(3, request_vote(4, at(1, 3))), [(3, vote(4))]);
    // A candidate and a server that just started know of no leader.
    let mut candidate = Solo::new(3);
    candidate.become_candidate();
    assert_eq!(candidate.receive(3, request_vote(2, EntryId::ZERO)), [(3, vote(2))]);
    assert_eq!(Solo::new(3).receive(3, request_vote(1, EntryId::ZERO)), [(3, vote(1))]);
}

/// "While a leader is able to get heartbeats to its cluster, it will not be deposed by larger term
/// numbers." (4.2.3): the leader disregards such a request too.
#[test]
fn leader_in_touch_with_its_cluster_is_not_deposed_by_a_larger_term() {
    let mut leader = Solo::settled_leader(3, 3, &[]);
    for term in 10..30 {
        leader.advance(HEARTBEAT);
        leader.receive(2, matched(3, 1));
        let answer = leader.receive(3, request_vote(term, at(9, 9)));
        assert_eq!(answer, [(3, no_vote(3, term))]);
        assert_eq!((leader.role(), leader.term()), (Role::Leader, 3));
    }
}

/// "Servers should not be able to disrupt a leader whose cluster is receiving heartbeats." (4.2.3):
/// a server asks for votes with ever larger terms, and nobody minds.
#[test]
fn server_with_larger_terms_does_not_disrupt_the_cluster() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    let term = lab.status(1).term;
    for larger in 100..200 {
        for to in [1, 2] {
            let (from, to) = (NodeId::new(3), NodeId::new(to));
            let message = request_vote(larger, at(999, 99));
            lab.send(Envelope { from, to, message });
        }
        lab.run(HEARTBEAT);
        hold(&mut lab, 1, session, &format!("lock {larger}"));
    }
    assert_eq!((lab.leader(), lab.status(1).term), (Some(1), term));
}

/// "Without additional mechanism, servers not in Cnew can disrupt the cluster." (4.2.3): what comes
/// from outside of the membership is dropped, and counted.
#[test]
fn server_outside_of_the_membership_does_not_disrupt_the_cluster() {
    let stranger = 9;
    let messages = [
        request_vote(9, at(9, 9)),
        request_vote_for_transfer(9, at(9, 9)),
        pre_vote(9, at(9, 9)),
        vote(9),
        append_entries(9, EntryId::ZERO, &[9], 1),
        matched(9, 1),
        Message::TimeoutNow { term: Term::new(9) },
    ];
    let count = messages.len() as u64;
    let mut nodes = [Solo::with_log(3, 3, &[3]), Solo::leader(3, 4, &[3])];
    for node in &mut nodes {
        let before = node.status();
        for message in &messages {
            assert_eq!(node.receive(stranger, message.clone()), [], "{message:?}");
        }
        let after = node.status();
        assert_eq!((after.role, after.term), (before.role, before.term));
        assert_eq!((after.last, after.commit), (before.last, before.commit));
        assert_eq!(after.dropped.get(&DropReason::NotAMember), Some(&count));
    }
}

/// "Those RequestVote requests can include a special flag to indicate this behavior ('I have
/// permission to disrupt the leader - it told me to!')." (4.2.3)
#[test]
fn server_votes_for_whom_the_leader_told_to_campaign() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(3, EntryId::ZERO, &[3], 1));
    assert_eq!(follower.receive(3, request_vote_for_transfer(4, at(1, 3))), [(3, vote(4))]);
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(3, EntryId::ZERO, &[3], 1));
    let answer = follower.receive(3, request_vote_for_transfer(4, EntryId::ZERO));
    assert_eq!(answer, [(3, no_vote(4, 4))], "the flag makes no log more up-to-date");
}
