//! The lab does what it is told; and its checks fail when something is wrong, for a check that cannot
//! fail is none.

use quorlock_core::ids::{FencingToken, LogIndex, NodeId, Sequence, SessionId, Term};
use quorlock_core::message::{
    Done, Envelope, HardState, Message, Op, Payload, Rejection, Reply, Request, VoteReply, Wait,
};
use quorlock_core::node::Input;
use quorlock_core::text::LockName;
use quorlock_core::time::Duration;

use super::{Lab, LabOptions, label, nonce};

fn lab() -> Lab {
    let mut lab = Lab::new(LabOptions::default());
    lab.elect(1);
    lab
}

fn acquire(lock: &str) -> Op {
    let lock = LockName::new(lock).expect("a name in a test is a name");
    Op::Acquire { lock, wait: Wait::Try, max_hold: None }
}

#[test]
fn a_request_goes_the_whole_way() {
    let mut lab = lab();
    let alice = lab.open(1, "alice");
    let granted = lab.perform(1, alice, acquire("db"));
    let token = FencingToken::new(3);
    assert_eq!(granted, Some(Ok(Done::Granted { token, predecessor: None })));
    lab.run(Duration::from_millis(100));
    assert_eq!(lab.node(2).digest(), lab.node(1).digest());
}

#[test]
fn a_crash_loses_what_is_not_durable() {
    let mut lab = lab();
    lab.hold_writes(2, true);
    lab.open(1, "alice");
    assert_eq!(lab.log_of(2).len(), 2);
    lab.crash(2);
    lab.restart(2);
    assert_eq!(lab.log_of(2).len(), 1);
}

#[test]
fn messages_move_as_they_are_told() {
    let mut lab = lab();
    lab.timeout(1);
    assert_eq!(lab.mail().len(), 2, "a heartbeat to each of the others");
    assert!(lab.duplicate(1, 2) && lab.drop(1, 3));
    assert!(!lab.deliver(1, 3), "it was lost");
    assert!(lab.deliver(1, 2) && lab.deliver(1, 2) && !lab.deliver(1, 2));
    lab.cut(2, 1);
    assert!(lab.mail().is_empty(), "the answers were on the way that is cut");
}

#[test]
fn equal_labs_stay_equal() {
    let mut one = lab();
    let mut other = one.clone();
    for lab in [&mut one, &mut other] {
        lab.open(1, "alice");
        lab.run(Duration::from_secs(2));
    }
    assert_eq!(one.fingerprint(), other.fingerprint());
    other.timeout(1);
    assert_ne!(one.fingerprint(), other.fingerprint());
}

#[test]
fn every_batch_is_a_place_to_start_again_from() {
    let mut lab = Lab::new(LabOptions::default());
    lab.check_restarts();
    lab.elect(1);
    let alice = lab.open(1, "alice");
    lab.perform(1, alice, acquire("db"));
    assert_eq!(lab.check_recovery_points(), 12, "four batches of each of three nodes");
}

#[test]
#[should_panic(expected = "has one entry on every node")]
fn another_past_is_found_when_starting_again_from_it() {
    let mut lab = Lab::new(LabOptions::default());
    lab.check_restarts();
    lab.elect(1);
    lab.open(1, "alice");
    let points = lab.recovery_points.as_mut().expect("they are collected");
    let point = points.last_mut().expect("there were batches");
    point.forget(Payload::Empty);
    lab.check_recovery_points();
}

#[test]
#[should_panic(expected = "not on the disks of a quorum")]
fn a_disk_that_lies_is_found() {
    let mut lab = lab();
    lab.hold_writes(1, true);
    lab.hold_writes(2, true);
    lab.isolate(3);
    let (nonce, lease) = (nonce("alice"), Duration::from_secs(10));
    lab.request(1, 1, Request::OpenSession { nonce, label: label("alice"), lease });
    lab.deliver_all();
    lab.persist(1);
    // The disk of node 2 says that it has the entry, and does not.
    let up_to = lab.lab_node_mut(2).writes.pop_front().expect("it writes the entry").id;
    lab.input(2, Input::Persisted { up_to });
    lab.deliver_all();
}

/// Node 2 campaigns in term 1 again, having forgotten that it did not win it, with a vote of node 3
/// that node 3 does not give.
fn steal_term_1(lab: &mut Lab) {
    lab.restart(2);
    lab.isolate(2);
    lab.campaign(2);
    let (from, to) = (NodeId::new(3), NodeId::new(2));
    let vote = VoteReply { term: Term::ZERO, campaign: Term::new(1), granted: true };
    let message = Message::PreVoteReply(vote.clone());
    lab.input(2, Input::Message(Envelope { from, to, message }));
    lab.persist(2);
    let message = Message::RequestVoteReply(VoteReply { term: Term::new(1), ..vote });
    lab.input(2, Input::Message(Envelope { from, to, message }));
}

#[test]
#[should_panic(expected = "votes twice in term 1")]
fn a_vote_that_is_forgotten_is_found() {
    let mut lab = lab();
    lab.crash(2);
    lab.lab_node_mut(2).durable.hard_state = HardState::default();
    lab.lab_node_mut(2).durable.entries.clear();
    steal_term_1(&mut lab);
}

#[test]
#[should_panic(expected = "term 1 has one leader")]
fn a_second_leader_is_found() {
    let mut lab = lab();
    lab.crash(2);
    let node = lab.lab_node_mut(2);
    node.durable.hard_state = HardState::default();
    node.durable.entries.clear();
    node.latest = node.durable.clone();
    steal_term_1(&mut lab);
}

#[test]
#[should_panic(expected = "has one outcome")]
fn an_outcome_that_changes_is_found() {
    let mut lab = lab();
    let reply = |outcome| Reply::Submitted {
        session: SessionId::new(2),
        sequence: Sequence::new(1),
        index: LogIndex::new(3),
        outcome,
    };
    lab.checks.reply(&reply(Ok(Done::Cancelled)));
    lab.checks.reply(&reply(Err(Rejection::SessionUnknown)));
    lab.checks.reply(&reply(Err(Rejection::NotWaiting)));
}
