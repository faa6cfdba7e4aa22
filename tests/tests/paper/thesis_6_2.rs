//! The thesis, 6.2: routing requests to the leader, and what becomes of a leader that nobody hears.

use quorlock_core::ids::NodeId;
use quorlock_core::message::{Reply, Unavailable};
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;

use crate::locking::{acquire, cluster, holder};
use crate::solo::{ELECTION_MAX, HEARTBEAT, Solo, matched};

/// "A leader in Raft steps down if an election timeout elapses without a successful round of
/// heartbeats to a majority of its cluster." (6.2)
#[test]
fn leader_without_answers_from_a_majority_steps_down() {
    let mut leader = Solo::settled_leader(5, 1, &[]);
    for _ in 0..50 {
        leader.advance(HEARTBEAT);
        leader.receive(2, matched(1, 1));
        leader.receive(4, matched(1, 1));
        assert_eq!(leader.role(), Role::Leader, "three of five");
    }
    let last_round = leader.now();
    while leader.role() == Role::Leader {
        leader.advance(HEARTBEAT);
        leader.receive(2, matched(1, 1));
        let since = leader.now().since(last_round);
        assert!(since <= ELECTION_MAX, "two of five are no majority: {since:?}");
    }
    assert_eq!((leader.role(), leader.term()), (Role::Follower, 1), "its term stays");
}

/// "[...] this allows clients to retry their requests with another server." (6.2)
#[test]
fn client_of_a_leader_that_steps_down_is_told_to_go_elsewhere() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    let conn = lab.connection(1, session);
    lab.isolate(1);
    lab.submit(1, session, 1, acquire("printer"));
    lab.run(Duration::from_secs(2));
    let replies = lab.replies(conn);
    let [Reply::Unavailable { reason: Unavailable::LeadershipLost { .. }, .. }] = replies[..]
    else {
        panic!("one answer: {replies:?}")
    };
    let leader = lab.leader().expect("the others have elected one");
    lab.submit(leader, session, 1, acquire("printer"));
    lab.settle();
    assert_eq!(holder(&lab, leader, "printer"), Some(session));
}

/// "The first option, which we recommend [...], is for the server to reject the request and return
/// to the client the address of the leader, if known." (6.2.1)
#[test]
fn server_that_does_not_lead_says_who_does() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    for n in [2, 3] {
        let conn = lab.connection(n, session);
        lab.submit(n, session, 1, acquire("printer"));
        let replies = lab.replies(conn);
        let [Reply::Unavailable { reason, .. }] = replies[..] else {
            panic!("one answer: {replies:?}")
        };
        assert_eq!(reason, Unavailable::NotLeader { leader: Some(NodeId::new(1)) });
    }
}
