//! The thesis, 3.10: leadership transfer.

use quorlock_core::ids::{NodeId, Term};
use quorlock_core::message::{Envelope, Message, Reply, Unavailable};
use quorlock_core::node::Input;
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;

use crate::locking::{cluster, hold, one_request_of_each_kind, open_session};
use crate::solo::{
    ELECTION_MAX, HEARTBEAT, Sent, Solo, append_to, at, conflict, heartbeat, ids, matched,
    request_vote_for_transfer, to_each, vote,
};

/// Tells a leader to hand over to node 2.
fn transfer(leader: &mut Solo) -> Vec<Sent> {
    leader.input(Input::TransferLeadership { to: Some(NodeId::new(2)) })
}

fn timeout_now(term: u64) -> Message {
    Message::TimeoutNow { term: Term::new(term) }
}

/// "The prior leader stops accepting new client requests." (3.10, step 1)
#[test]
fn prior_leader_stops_accepting_requests() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    transfer(&mut leader);
    let request = open_session(1);
    let key = request.key();
    leader.request(request);
    let reason = Unavailable::Transferring { to: NodeId::new(2) };
    assert_eq!(leader.take_replies(), [Reply::Unavailable { request: key, reason }]);
    assert_eq!(leader.log(), [1], "nothing goes into the log");
    for request in one_request_of_each_kind() {
        leader.request(request);
    }
    leader.advance(HEARTBEAT);
    assert_eq!(leader.log(), [1], "of whatever kind, keep-alives included");
}

/// "The prior leader fully updates the target server's log to match its own, using the normal log
/// replication mechanism." (3.10, step 2)
#[test]
fn prior_leader_fully_updates_the_log_of_the_target_first() {
    let mut leader = Solo::leader(3, 4, &[1, 2, 3]);
    leader.receive(3, matched(4, 4));
    let mut sent = transfer(&mut leader);
    sent.extend(leader.receive(2, conflict(4, 3, at(1, 1))));
    let append = append_to(&sent, 2);
    assert_eq!(ids(&append.entries), [at(2, 2), at(3, 3), at(4, 4)]);
    assert!(!sent.contains(&(2, timeout_now(4))), "not before it has everything");
    assert_eq!(leader.receive(2, matched(4, 4)), [(2, timeout_now(4))]);
}

/// "The prior leader sends a TimeoutNow request to the target server." (3.10, step 3): once, and to
/// nobody else.
#[test]
fn prior_leader_tells_the_target_to_campaign() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    assert_eq!(transfer(&mut leader), [(2, timeout_now(1))], "at once if it has everything");
    assert_eq!(leader.receive(3, matched(1, 1)), []);
    assert_eq!(leader.role(), Role::Leader, "until it hears of a later term");
}

/// "This request has the same effect as the target server's election timer firing: the target server
/// starts a new election (incrementing its term and becoming a candidate)." (3.10, step 3). It has
/// the leader's permission, so it does not ask the others for theirs.
#[test]
fn target_starts_an_election_without_waiting_for_a_timeout() {
    let mut target = Solo::with_log(3, 4, &[1, 4]);
    target.receive(2, heartbeat(4, at(2, 4), 2));
    let sent = target.receive(2, timeout_now(4));
    assert_eq!(sent, to_each([2, 3], &request_vote_for_transfer(5, at(2, 4))));
    assert_eq!((target.role(), target.term()), (Role::Candidate, 5));
}

/// Only the leader of the present term can tell a server to campaign (3.10).
#[test]
fn nobody_but_the_leader_makes_a_server_campaign() {
    let mut follower = Solo::with_log(3, 4, &[1, 4]);
    assert_eq!(follower.receive(2, timeout_now(4)), [], "not yet known to be the leader");
    follower.receive(2, heartbeat(4, at(2, 4), 2));
    assert_eq!(follower.receive(3, timeout_now(4)), [], "another server");
    assert_eq!(follower.receive(2, timeout_now(3)), [], "of an earlier term");
    assert_eq!((follower.role(), follower.term()), (Role::Follower, 4));
}

/// "Its next message to the prior leader will include its new term number, causing the prior leader
/// to step down. At this point, leadership transfer is complete." (3.10)
#[test]
fn prior_leader_steps_down_when_it_hears_from_the_target() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    transfer(&mut leader);
    let answer = leader.receive(2, request_vote_for_transfer(2, at(1, 1)));
    assert_eq!(answer, [(2, vote(2))], "and votes for it");
    assert_eq!((leader.role(), leader.term()), (Role::Follower, 2));
}

/// "Once the target server receives the TimeoutNow request, it is highly likely to start an election
/// before any other server and become leader in the next term." (3.10)
#[test]
fn target_becomes_leader_in_the_next_term() {
    for target in [2, 3] {
        let mut lab = cluster(3);
        let session = lab.open(1, "alice");
        let (before, term) = (lab.now(), lab.status(1).term);
        lab.transfer(1, Some(target));
        lab.settle();
        assert_eq!((lab.leader(), lab.status(target).term), (Some(target), term.next()));
        assert_eq!(lab.now(), before, "nobody waited for anything");
        hold(&mut lab, target, session, "printer");
    }
}

/// "The prior leader thus ensures that the target server has all committed entries at the start of
/// its term." (3.10)
#[test]
fn target_has_all_committed_entries_at_the_start_of_its_term() {
    let mut lab = cluster(3);
    lab.cut(1, 3);
    let session = lab.open(1, "alice");
    hold(&mut lab, 1, session, "printer");
    let committed = lab.log_of(1);
    lab.heal();
    // The target's log is found to be short at the next heartbeat.
    lab.transfer(1, Some(3));
    lab.run(Duration::from_millis(100));
    assert_eq!(lab.leader(), Some(3));
    assert!(lab.log_of(3).starts_with(&committed));
}

/// "As in normal elections, the majority voting guarantees the safety properties (such as the Leader
/// Completeness Property) are maintained." (3.10): being told to campaign is not being elected.
#[test]
fn target_that_lacks_entries_is_not_elected() {
    let mut lab = cluster(3);
    lab.cut(1, 3);
    let session = lab.open(1, "alice");
    hold(&mut lab, 1, session, "printer");
    let committed = lab.log_of(1);
    lab.heal();
    let (from, to) = (NodeId::new(1), NodeId::new(3));
    let message = timeout_now(lab.status(1).term.value());
    lab.send(Envelope { from, to, message });
    lab.settle();
    assert!(!lab.is_leader(3), "those who have more do not vote for it");
    lab.run(Duration::from_secs(2));
    let leader = lab.leader().expect("another one is elected");
    assert!(lab.log_of(leader).starts_with(&committed));
}

/// "If leadership transfer does not complete after about an election timeout, the prior leader aborts
/// the transfer and resumes accepting client requests." (3.10)
#[test]
fn prior_leader_resumes_if_the_target_fails() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    transfer(&mut leader);
    let end = leader.now().after(ELECTION_MAX);
    while leader.now() < end {
        leader.request(open_session(1));
        let replies = leader.take_replies();
        assert!(matches!(replies[..], [Reply::Unavailable { .. }]), "still: {replies:?}");
        leader.advance(HEARTBEAT);
        leader.receive(3, matched(1, 1));
    }
    leader.request(open_session(1));
    assert_eq!((leader.role(), leader.log()), (Role::Leader, vec![1, 1]));
    leader.receive(3, matched(1, 2));
    assert!(matches!(leader.take_replies()[..], [Reply::Opened { result: Ok(_), .. }]));
}

/// "If the prior leader was mistaken and the target server is actually operational, then at worst
/// this mistake will result in an extra election, after which client operations will be restored."
/// (3.10)
#[test]
fn late_campaign_of_the_target_costs_one_election() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.transfer(1, Some(2));
    let is_timeout_now =
        |envelope: &Envelope| matches!(envelope.message, Message::TimeoutNow { .. });
    let late = lab.mail().iter().find(|envelope| is_timeout_now(envelope)).cloned();
    lab.drop_all();
    lab.run(Duration::from_secs(1));
    hold(&mut lab, 1, session, "resumed");
    let term = lab.status(1).term;
    lab.send(late.expect("the target was told"));
    lab.settle();
    assert_eq!((lab.leader(), lab.status(2).term), (Some(2), term.next()), "one election");
    hold(&mut lab, 2, session, "restored");
}
