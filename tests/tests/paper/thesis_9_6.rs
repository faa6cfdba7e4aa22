//! The thesis, 9.6: preventing disruptions when a server rejoins the cluster (Pre-Vote).

use quorlock_core::ids::{EntryId, NodeId, Term};
use quorlock_core::message::{Envelope, Message};
use quorlock_core::node::Input;
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;
use quorlock_tests::lab::TraceEvent;

use crate::locking::{cluster, hold};
use crate::solo::{
    ELECTION_MIN, HEARTBEAT, Solo, append_entries, at, heartbeat, matched, pre_vote,
    pre_vote_reply, request_vote, to_each, vote,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// "In the Pre-Vote algorithm, a candidate only increments its term if it first learns from a
/// majority of the cluster that they would be willing to grant the candidate their votes." (9.6)
#[test]
fn candidate_increments_its_term_only_with_permission_of_a_majority() {
    let mut node = Solo::with_log(5, 3, &[1, 3]);
    assert_eq!(node.campaign(), to_each([2, 3, 4, 5], &pre_vote(4, at(2, 3))));
    assert_eq!((node.role(), node.term()), (Role::PreCandidate, 3));
    assert_eq!(node.receive(2, pre_vote_reply(3, 4, true)), []);
    assert_eq!(node.receive(2, pre_vote_reply(3, 4, true)), [], "the same server again");
    assert_eq!((node.role(), node.term()), (Role::PreCandidate, 3));
    assert_eq!(node.take_written(), [], "so far it costs nothing");
    let sent = node.receive(5, pre_vote_reply(3, 4, true));
    assert_eq!(sent, to_each([2, 3, 4, 5], &request_vote(4, at(2, 3))));
    assert_eq!((node.role(), node.term()), (Role::Candidate, 4));
}

/// "[...] if the candidate's log is sufficiently up-to-date." (9.6)
#[test]
fn permission_is_refused_to_a_log_that_is_not_up_to_date() {
    let mut voter = Solo::with_log(3, 6, &[1, 1, 3]);
    for (last, granted) in [
        (EntryId::ZERO, false),
        (at(9, 1), false),
        (at(2, 3), false),
        (at(3, 3), true),
        (at(4, 3), true),
        (at(1, 4), true),
    ] {
        let answer = voter.receive(2, pre_vote(7, last));
        assert_eq!(answer, [(2, pre_vote_reply(6, 7, granted))], "{last}");
    }
    let too_early = voter.receive(2, pre_vote(6, at(9, 5)));
    assert_eq!(too_early, [(2, pre_vote_reply(6, 6, false))], "nor for a term that it is in");
}

/// "[...] and the voters have not received heartbeats from a valid leader for at least a baseline
/// election timeout." (9.6)
#[test]
fn permission_is_refused_by_those_who_hear_from_a_leader() {
    let mut voter = Solo::new(3);
    voter.receive(2, append_entries(3, EntryId::ZERO, &[3], 1));
    voter.pass(ELECTION_MIN.saturating_sub(MILLISECOND));
    assert_eq!(voter.receive(3, pre_vote(4, at(1, 3))), [(3, pre_vote_reply(3, 4, false))]);
    voter.pass(MILLISECOND);
    assert_eq!(voter.receive(3, pre_vote(4, at(1, 3))), [(3, pre_vote_reply(3, 4, true))]);
    let mut leader = Solo::settled_leader(3, 3, &[]);
    assert_eq!(leader.receive(3, pre_vote(4, at(1, 3))), [(3, pre_vote_reply(3, 4, false))]);
}

/// A leader that asks for permission leads no longer, so those who followed it have no leader to be
/// loyal to (9.6; else two of three servers may never elect one, as in hashicorp/raft issue 606).
#[test]
fn permission_is_given_to_the_former_leader_itself() {
    let mut voter = Solo::new(3);
    voter.receive(2, append_entries(3, EntryId::ZERO, &[3], 1));
    assert_eq!(voter.receive(2, pre_vote(4, at(1, 3))), [(2, pre_vote_reply(3, 4, true))]);
}

/// A permission is no vote, and no promise: nothing changes on the server that gives it (9.6).
#[test]
fn permission_changes_nothing_on_the_server_that_gives_it() {
    let mut voter = Solo::with_log(3, 3, &[3]);
    let (status, deadline) = (voter.status(), voter.deadline());
    for _ in 0..10 {
        voter.pass(MILLISECOND);
        assert_eq!(voter.receive(2, pre_vote(4, at(1, 3))), [(2, pre_vote_reply(3, 4, true))]);
        assert_eq!(voter.receive(3, pre_vote(9, at(1, 3))), [(3, pre_vote_reply(3, 9, true))]);
    }
    assert_eq!((voter.status(), voter.deadline()), (status, deadline));
    assert_eq!(voter.take_written(), []);
    assert_eq!(voter.receive(3, request_vote(4, at(1, 3))), [(3, vote(4))], "its vote is free");
}

/// "While a server is partitioned, it won't be able to increment its term, since it can't receive
/// permission from a majority of the cluster." (9.6)
#[test]
fn partitioned_server_does_not_increment_its_term() {
    let mut lab = cluster(5);
    let term = lab.status(1).term;
    lab.partition(&[4, 5], &[1, 2, 3]);
    lab.run(Duration::from_mins(1));
    for n in lab.ids() {
        assert_eq!(lab.status(n).term, term, "node {n}");
        assert_eq!(lab.lab_node(n).durable().hard_state.term, term, "node {n}");
    }
    assert_eq!(lab.leader(), Some(1));
}

/// "Then, when it rejoins the cluster, it still won't be able to increment its term, since the other
/// servers will have been receiving regular heartbeats from the leader." (9.6)
#[test]
fn server_that_rejoins_does_not_disturb_the_leader() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    let term = lab.status(1).term;
    // Everybody hears node 3, while node 3 hears nobody: it asks again and again.
    lab.cut(1, 3);
    lab.cut(2, 3);
    lab.record(true);
    for lock in ["a", "b", "c"] {
        lab.run(Duration::from_secs(3));
        hold(&mut lab, 1, session, lock);
    }
    let is_asked = |event: &&TraceEvent| {
        let TraceEvent::Delivered(envelope) = event else { return false };
        matches!(envelope.message, Message::PreVote(_))
    };
    assert!(lab.take_trace().iter().filter(is_asked).count() >= 20, "of both others");
    lab.heal();
    lab.run(HEARTBEAT);
    for n in lab.ids() {
        assert_eq!(lab.status(n).leader, Some(NodeId::new(1)), "node {n}");
        assert_eq!(lab.status(n).term, term, "node {n}");
    }
}

/// "Once the server receives a heartbeat from the leader itself, it will return to the follower state
/// (in the same term)." (9.6)
#[test]
fn heartbeat_returns_the_server_to_follower_state_in_the_same_term() {
    let mut node = Solo::with_log(3, 3, &[3]);
    for _ in 0..5 {
        node.campaign();
    }
    assert_eq!((node.role(), node.term()), (Role::PreCandidate, 3));
    assert_eq!(node.receive(2, heartbeat(3, at(1, 3), 1)), [(2, matched(3, 1))]);
    let status = node.status();
    assert_eq!((status.role, status.leader), (Role::Follower, Some(NodeId::new(2))));
    assert_eq!(status.term, Term::new(3));
    node.receive(3, pre_vote_reply(3, 4, true));
    assert_eq!((node.role(), node.term()), (Role::Follower, 3), "permission comes too late");
}

/// "[...] if it first learns from a majority of the cluster that they would be willing." (9.6):
/// permission for another term counts for nothing, and a refusal is not permission.
#[test]
fn only_permission_for_this_very_campaign_counts() {
    // It asks for term 4, learns of term 5, and asks for term 6. Only then come the first answers.
    let mut node = Solo::with_log(5, 3, &[3]);
    node.campaign();
    node.receive(2, pre_vote_reply(5, 4, false));
    assert_eq!(node.campaign(), to_each([2, 3, 4, 5], &pre_vote(6, at(1, 3))));
    for peer in [3, 4, 5] {
        node.receive(peer, pre_vote_reply(3, 4, true));
        node.receive(peer, pre_vote_reply(3, 9, true));
        node.receive(peer, vote(4));
        assert_eq!((node.role(), node.term()), (Role::PreCandidate, 5));
    }
    node.receive(3, pre_vote_reply(3, 6, true));
    node.receive(4, pre_vote_reply(3, 6, true));
    assert_eq!((node.role(), node.term()), (Role::Candidate, 6));

    let mut node = Solo::with_log(5, 3, &[3]);
    node.campaign();
    for peer in [2, 3, 4, 5] {
        node.receive(peer, pre_vote_reply(3, 4, false));
        assert_eq!(node.term(), 3);
    }
    assert_ne!(node.role(), Role::Candidate);
}

/// A server that is behind learns of the later term from the refusal: else it would ask in vain for
/// ever (9.6; openraft issue 1796).
#[test]
fn refusal_in_a_later_term_updates_the_term() {
    let mut node = Solo::with_log(3, 3, &[3]);
    node.campaign();
    node.receive(2, pre_vote_reply(7, 4, false));
    assert_eq!((node.role(), node.term()), (Role::Follower, 7));
    assert_eq!(node.campaign(), to_each([2, 3], &pre_vote(8, at(1, 3))));
}

/// A server in an earlier term can give permission all the same: it would follow into the new one
/// (9.6).
#[test]
fn server_in_an_earlier_term_gives_permission() {
    let mut voter = Solo::with_log(3, 2, &[1]);
    assert_eq!(voter.receive(2, pre_vote(9, at(1, 1))), [(2, pre_vote_reply(2, 9, true))]);
    let mut node = Solo::with_log(3, 8, &[1]);
    node.campaign();
    node.receive(2, pre_vote_reply(2, 9, true));
    assert_eq!((node.role(), node.term()), (Role::Candidate, 9));
}

/// "This will force the cluster leader to step down" (9.6) is what Pre-Vote prevents. A server whose
/// term is later all the same must not stay outside for ever: it tells the leader, once.
#[test]
fn server_with_a_later_term_is_not_left_outside() {
    let mut lab = cluster(3);
    lab.run(HEARTBEAT);
    let session = lab.open(1, "alice");
    // A real campaign in vain: the request of an earlier leader to take over, while it was cut off.
    lab.isolate(3);
    let message = Message::TimeoutNow { term: lab.status(1).term };
    let (from, to) = (NodeId::new(1), NodeId::new(3));
    let envelope = Envelope { from, to, message };
    lab.input(3, Input::Message(envelope));
    lab.settle();
    assert!(lab.status(3).term > lab.status(1).term);
    lab.heal();
    lab.run(Duration::from_secs(2));
    let leader = lab.leader().expect("there is a leader");
    hold(&mut lab, leader, session, "printer");
    for n in lab.ids() {
        assert_eq!(lab.status(n).term, lab.status(leader).term, "node {n}");
        assert_eq!(lab.status(n).leader, Some(NodeId::new(leader)), "node {n}");
    }
}
