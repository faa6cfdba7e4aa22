//! The paper, 5.1: the basics of Raft.

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{EntryId, NodeId, Term};
use quorlock_core::membership::Membership;
use quorlock_core::message::{
    AppendResult, InstallSnapshot, InstallSnapshotReply, Message, Reply, SnapshotMeta,
    SnapshotResult, Unavailable,
};
use quorlock_core::node::Event;
use quorlock_core::raft::Role;
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lab::{Lab, LabOptions, TraceEvent};

use crate::locking::one_request_of_each_kind;
use crate::solo::{
    HEARTBEAT, Solo, append_entries, append_reply, at, heartbeat, matched, no_vote, pre_vote,
    pre_vote_reply, request_vote, to_each, vote,
};

/// The first piece of a snapshot, from the leader of a term.
fn install_snapshot(term: u64) -> Message {
    let meta = SnapshotMeta {
        last: at(5, 1),
        stamp: LeaseTime::ZERO,
        membership: Membership::new((1..=3).map(NodeId::new)).expect("three nodes"),
        data_length: 100,
        checksum: Checksum::of(&[0; 100]),
    };
    let piece = Bytes::from_static(&[0; 10]);
    Message::InstallSnapshot(InstallSnapshot { term: Term::new(term), meta, offset: 0, piece })
}

fn install_snapshot_reply(term: u64, last: EntryId, result: SnapshotResult) -> Message {
    Message::InstallSnapshotReply(InstallSnapshotReply { term: Term::new(term), last, result })
}

/// A message of each kind that tells the sender's term, from a node in that term.
///
/// Missing are `PreVote`, which tells a term that the sender is not in, `TimeoutNow`, which only the
/// leader of the present term may send, and `RequestVote`, which a leader in touch with a quorum
/// disregards (thesis, 4.2.3).
fn messages_of(term: u64) -> Vec<Message> {
    vec![
        pre_vote_reply(term, 3, false),
        no_vote(term, 2),
        heartbeat(term, EntryId::ZERO, 0),
        append_reply(term, AppendResult::StaleTerm),
        install_snapshot(term),
        install_snapshot_reply(term, at(5, 1), SnapshotResult::StaleTerm),
    ]
}

fn changes_of_role(lab: &mut Lab) -> usize {
    let is_change =
        |event: &TraceEvent| matches!(event, TraceEvent::Event { event: Event::Role { .. }, .. });
    lab.take_trace().iter().filter(|event| is_change(event)).count()
}

/// "In normal operation there is exactly one leader and all of the other servers are followers."
/// (5.1)
#[test]
fn in_normal_operation_there_is_one_leader_and_all_others_follow() {
    let mut lab = Lab::new(LabOptions { nodes: 5, ..LabOptions::default() });
    lab.elect(3);
    lab.record(true);
    lab.run(Duration::from_secs(10));
    for n in lab.ids() {
        let expected = if n == 3 { Role::Leader } else { Role::Follower };
        assert_eq!(lab.status(n).role, expected, "node {n}");
        assert_eq!(lab.status(n).leader, Some(NodeId::new(3)), "node {n} knows the leader");
    }
    assert_eq!(changes_of_role(&mut lab), 0, "nothing changes in normal operation");
}

/// "Followers are passive: they issue no requests on their own but simply respond to requests from
/// leaders and candidates." (5.1)
#[test]
fn follower_issues_no_requests_on_its_own() {
    let mut follower = Solo::new(3);
    for _ in 0..100 {
        let answer = follower.receive(2, heartbeat(1, EntryId::ZERO, 0));
        assert_eq!(answer, [(2, matched(1, 0))]);
        assert_eq!(follower.advance(HEARTBEAT), [], "nothing without a request");
        assert_eq!(follower.wake(), [], "to be woken early is harmless");
    }
}

/// "The leader handles all client requests (if a client contacts a follower, the follower redirects
/// it to the leader)." (5.1)
#[test]
fn follower_redirects_a_client_to_the_leader() {
    let mut follower = Solo::new(3);
    follower.receive(2, heartbeat(1, EntryId::ZERO, 0));
    for request in one_request_of_each_kind() {
        let key = request.key();
        let sent = follower.request(request);
        assert_eq!(sent, [], "a follower passes no request on");
        let reason = Unavailable::NotLeader { leader: Some(NodeId::new(2)) };
        let reply = Reply::Unavailable { request: key, reason };
        assert_eq!(follower.take_replies(), [reply]);
    }
}

/// "Terms are numbered with consecutive integers. Each term begins with an election." (5.1)
#[test]
fn each_term_begins_with_an_election_and_is_one_after_the_last() {
    let mut node = Solo::with_log(3, 6, &[]);
    for term in 7..20 {
        let sent = node.become_candidate();
        assert_eq!(sent, to_each([2, 3], &request_vote(term, EntryId::ZERO)));
        assert_eq!((node.role(), node.term()), (Role::Candidate, term));
    }
}

/// "If a candidate wins the election, then it serves as leader for the rest of the term." (5.1)
#[test]
fn winner_serves_as_leader_for_the_rest_of_the_term() {
    let mut leader = Solo::settled_leader(3, 2, &[1]);
    for _ in 0..100 {
        leader.advance(HEARTBEAT);
        leader.receive(2, matched(2, 2));
        let answer = leader.receive(3, request_vote(2, at(9, 1)));
        assert_eq!(answer, [(3, no_vote(2, 2))], "its vote of this term is its own");
        assert_eq!((leader.role(), leader.term()), (Role::Leader, 2));
    }
}

/// "In some situations an election will result in a split vote. In this case the term will end with
/// no leader; a new term (with a new election) will begin shortly." (5.1)
#[test]
fn term_with_a_split_vote_ends_without_leader_and_a_new_one_begins() {
    let mut lab = Lab::new(LabOptions { nodes: 4, ..LabOptions::default() });
    lab.auto_persist(true);
    lab.campaign(1);
    lab.campaign(2);
    // Both learn that they would be voted for, and both ask.
    lab.deliver_round();
    lab.deliver_round();
    assert!(lab.deliver(1, 3) && lab.deliver(2, 4), "both ask for votes");
    lab.settle();
    for n in lab.ids() {
        assert_eq!(lab.status(n).term, Term::new(1), "node {n} voted in term 1");
        assert_eq!(lab.status(n).role, Role::Follower, "two of four votes are no majority");
    }
    lab.run(Duration::from_secs(2));
    let leader = lab.leader().expect("a new election has a winner");
    assert!(lab.status(leader).term > Term::new(1));
}

/// "Raft ensures that there is at most one leader in a given term." (5.1)
#[test]
fn there_is_at_most_one_leader_in_a_term() {
    let mut lab = Lab::new(LabOptions { nodes: 5, ..LabOptions::default() });
    lab.auto_persist(true);
    lab.campaign(1);
    lab.campaign(2);
    lab.deliver_round();
    lab.deliver_round();
    // Three servers vote for 1 before 2 asks them. What 2 was promised by 5 is not enough, however
    // often it is said.
    assert!(lab.deliver(2, 5), "2 asks 5");
    assert!(lab.duplicate(5, 2), "the vote of 5 arrives twice");
    assert!(lab.deliver(1, 3) && lab.deliver(1, 4), "1 asks 3 and 4");
    assert!(lab.deliver(3, 1) && lab.deliver(4, 1), "and has their votes");
    assert_eq!(lab.leader(), Some(1));
    assert!(lab.deliver(5, 2) && lab.deliver(5, 2), "both copies arrive");
    assert_eq!(lab.status(2).role, Role::Candidate);
    lab.settle();
    assert_eq!(lab.status(1).role, Role::Leader);
    assert_eq!(lab.status(2).leader, Some(NodeId::new(1)));
}

/// "In some situations a server may not observe an election or even entire terms." (5.1)
#[test]
fn server_may_miss_entire_terms() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(1, EntryId::ZERO, &[1], 1));
    let answer = follower.receive(3, append_entries(7, at(1, 1), &[4, 6, 7], 1));
    assert_eq!(answer, [(3, matched(7, 4))]);
    assert_eq!(follower.term(), 7);
    assert_eq!(follower.log(), [1, 4, 6, 7]);
}

/// "Each server stores a current term number, which increases monotonically over time." (5.1)
#[test]
fn current_term_never_goes_down() {
    let mut node = Solo::with_log(3, 5, &[1]);
    for term in 1..5 {
        for message in messages_of(term) {
            node.receive(2, message);
            node.receive(3, request_vote(term, at(9, term - 1)));
            node.receive(3, Message::TimeoutNow { term: Term::new(term) });
            assert_eq!(node.term(), 5);
        }
    }
    assert_eq!(node.take_written(), [], "and neither does what is stored");
    assert_eq!(node.restart().term(), 5);
}

/// "Current terms are exchanged whenever servers communicate; if one server's current term is
/// smaller than the other's, then it updates its current term to the larger value." (5.1)
#[test]
fn smaller_term_is_updated_to_the_larger_one() {
    let mut messages = messages_of(9);
    messages.push(request_vote(9, at(4, 4)));
    for message in messages {
        let mut node = Solo::with_log(3, 2, &[1]);
        node.receive(2, message.clone());
        assert_eq!(node.term(), 9, "{message:?}");
        assert_eq!(node.disk().hard_state.term, Term::new(9), "{message:?}");
    }
}

/// "If a candidate or leader discovers that its term is out of date, it immediately reverts to
/// follower state." (5.1), for a candidate.
#[test]
fn candidate_with_an_old_term_reverts_to_follower() {
    let mut messages = messages_of(9);
    messages.push(request_vote(9, at(4, 4)));
    for message in messages {
        let mut candidate = Solo::with_log(3, 2, &[1]);
        candidate.become_candidate();
        candidate.receive(2, message.clone());
        assert_eq!((candidate.role(), candidate.term()), (Role::Follower, 9), "{message:?}");
        candidate.receive(2, vote(3));
        assert_eq!(candidate.role(), Role::Follower, "votes of the old term come too late");
    }
}

/// "If a candidate or leader discovers that its term is out of date, it immediately reverts to
/// follower state." (5.1), for a leader.
#[test]
fn leader_with_an_old_term_reverts_to_follower() {
    for message in messages_of(9) {
        let mut leader = Solo::leader(3, 2, &[1]);
        leader.receive(2, message.clone());
        assert_eq!((leader.role(), leader.term()), (Role::Follower, 9), "{message:?}");
        leader.receive(3, matched(2, 2));
        assert_eq!(leader.commit(), 0, "acknowledgements of the old term come too late");
    }
}

/// "If a server receives a request with a stale term number, it rejects the request." (5.1)
#[test]
fn request_with_a_stale_term_is_rejected() {
    let rejections = [
        (request_vote(3, at(9, 2)), vec![(2, no_vote(5, 3))]),
        (pre_vote(3, at(9, 2)), vec![(2, pre_vote_reply(5, 3, false))]),
        (append_entries(3, at(1, 1), &[3], 2), vec![(2, append_reply(5, AppendResult::StaleTerm))]),
        (
            install_snapshot(3),
            vec![(2, install_snapshot_reply(5, at(5, 1), SnapshotResult::StaleTerm))],
        ),
        (Message::TimeoutNow { term: Term::new(3) }, vec![]),
    ];
    let mut node = Solo::with_log(3, 5, &[1, 1]);
    for (request, rejection) in rejections {
        assert_eq!(node.receive(2, request.clone()), rejection, "{request:?}");
        let status = node.status();
        assert_eq!((status.role, status.leader), (Role::Follower, None), "{request:?}");
        assert_eq!((node.log(), node.commit()), (vec![1, 1], 0), "{request:?}");
    }
}

/// "Servers retry RPCs if they do not receive a response in a timely manner." (5.1)
#[test]
fn request_without_response_is_sent_again() {
    let mut leader = Solo::leader(3, 1, &[]);
    for _ in 0..100 {
        leader.receive(2, matched(1, 1));
        let sent = leader.advance(HEARTBEAT);
        let to_silent = sent.iter().filter(|(to, _)| *to == 3).count();
        assert!(to_silent >= 1, "node 3 is asked again: {sent:?}");
    }
    let mut candidate = Solo::new(3);
    candidate.become_candidate();
    let sent = candidate.become_candidate();
    assert_eq!(sent, to_each([2, 3], &request_vote(2, EntryId::ZERO)), "in a new election");
}
