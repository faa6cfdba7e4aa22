//! The paper, figure 8: "A time sequence showing why a leader cannot determine commitment using log
//! entries from older terms."
//!
//! The servers S1 to S5 are the nodes 1 to 5. In the figure each leader accepts one entry, which
//! here is the first entry of its term. Each message carries one entry, so that the sequence can be
//! stopped where the figure stops it.

use std::collections::BTreeMap;

use quorlock_core::config::Config;
use quorlock_core::ids::{LogIndex, NodeId, Term};
use quorlock_core::message::{Envelope, Message};
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

use crate::solo::{at, disk, request_vote, vote};

/// Has a node campaign until it is elected, and loses what it sends as the leader.
fn elect(lab: &mut Lab, n: u64) {
    // The first campaign can be in vain: it may be how the node learns of a later term.
    for _ in 0..3 {
        lab.campaign(n);
        // Two rounds of requests and answers: whether it would be elected, and whether it is.
        for _ in 0..4 {
            lab.deliver_round();
        }
        if lab.is_leader(n) {
            return;
        }
        lab.drop_all();
    }
    panic!("node {n} is elected")
}

/// The terms of the entries of each log.
fn logs(lab: &Lab) -> [Vec<u64>; 5] {
    let terms = |n| lab.log_of(n).iter().map(|id| id.term.value()).collect();
    [1, 2, 3, 4, 5].map(terms)
}

/// Who has given a node its vote in its present term.
fn voters_of(lab: &Lab, candidate: u64) -> Vec<u64> {
    let term = lab.lab_node(candidate).durable().hard_state.term;
    let voted = |n: &u64| {
        let hard_state = lab.lab_node(*n).durable().hard_state;
        hard_state.term == term && hard_state.vote == Some(NodeId::new(candidate))
    };
    lab.ids().filter(voted).collect()
}

/// (a): "S1 is leader and partially replicates the log entry at index 2."
fn until_a() -> Lab {
    let config = Config { message_entries_max: 1, ..Config::default() };
    let disks: BTreeMap<u64, _> = (1..=5).map(|n| (n, disk(5, 1, &[1]))).collect();
    let mut lab = Lab::from_recovered(LabOptions { config, ..LabOptions::default() }, disks);
    lab.auto_persist(true);
    elect(&mut lab, 1);
    assert!(lab.deliver(1, 2), "S2 gets the entry");
    lab.drop_all();
    lab
}

/// (b): "S1 crashes; S5 is elected leader for term 3 with votes from S3, S4, and itself, and accepts
/// a different entry at log index 2."
fn until_b() -> Lab {
    let mut lab = until_a();
    lab.crash(1);
    elect(&mut lab, 5);
    lab.drop_all();
    lab
}

/// (c): "S5 crashes; S1 restarts, is elected leader, and continues replication. At this point, the
/// log entry from term 2 has been replicated on a majority of the servers, but it is not committed."
fn until_c() -> Lab {
    let mut lab = until_b();
    lab.crash(5);
    lab.restart(1);
    elect(&mut lab, 1);
    // S3 is asked for the entry before that of term 4, lacks it, and gets it.
    assert!(lab.deliver(1, 3) && lab.deliver(3, 1), "S3 refuses what it cannot place");
    assert!(lab.deliver(1, 3) && lab.deliver(3, 1), "S3 gets the entry of term 2");
    // What follows is lost, and S1 asks again how far the others are.
    lab.drop_all();
    lab.timeout(1);
    for peer in [2, 3] {
        assert!(lab.deliver(1, peer) && lab.deliver(peer, 1), "S{peer} says what it has");
    }
    lab.drop_all();
    lab
}

/// Figure 8 (a).
#[test]
fn a_leader_replicates_an_entry_partially() {
    let lab = until_a();
    assert_eq!(lab.status(1).term, Term::new(2));
    assert_eq!(logs(&lab), [vec![1, 2], vec![1, 2], vec![1], vec![1], vec![1]]);
}

/// Figure 8 (b).
#[test]
fn b_another_leader_accepts_a_different_entry() {
    let lab = until_b();
    assert_eq!((lab.leader(), lab.status(5).term), (Some(5), Term::new(3)));
    assert_eq!(voters_of(&lab, 5), [3, 4, 5]);
    assert_eq!(logs(&lab), [vec![1, 2], vec![1, 2], vec![1], vec![1], vec![1, 3]]);
}

/// Figure 8 (c): "At this point, the log entry from term 2 has been replicated on a majority of the
/// servers, but it is not committed."
#[test]
fn c_entry_of_an_earlier_term_is_on_a_majority_and_not_committed() {
    let lab = until_c();
    assert_eq!((lab.leader(), lab.status(1).term), (Some(1), Term::new(4)));
    assert_eq!(logs(&lab), [vec![1, 2, 4], vec![1, 2], vec![1, 2], vec![1], vec![1, 3]]);
    for peer in lab.status(1).progress.iter().filter(|peer| peer.node <= NodeId::new(3)) {
        assert_eq!(peer.matched, LogIndex::new(2), "S1 knows that S{} has it", peer.node);
    }
    for n in 1..=4 {
        assert_eq!(lab.status(n).commit, LogIndex::ZERO, "S{n}");
    }
}

/// Figure 8 (d): "If S1 crashes as in (d), S5 could be elected leader (with votes from S2, S3, and
/// S4) and overwrite the entry with its own entry from term 3."
#[test]
fn d_that_entry_can_be_overwritten() {
    let mut lab = until_c();
    lab.crash(1);
    lab.restart(5);
    elect(&mut lab, 5);
    assert_eq!(voters_of(&lab, 5), [2, 3, 4, 5]);
    lab.settle();
    let after = vec![1, 3, 5];
    let [_, others @ ..] = logs(&lab);
    assert_eq!(others, [after.clone(), after.clone(), after.clone(), after.clone()]);
    assert_eq!(lab.status(5).commit, LogIndex::new(3));
    lab.restart(1);
    lab.run(Duration::from_millis(100));
    assert_eq!(logs(&lab)[0], after, "S1 loses it too, and its entry of term 4 with it");
}

/// Figure 8 (e): "However, if S1 replicates an entry from its current term on a majority of the
/// servers before crashing, as in (e), then this entry is committed (S5 cannot win an election). At
/// this point all preceding entries in the log are committed as well."
#[test]
fn e_entry_of_the_current_term_commits_it() {
    let mut lab = until_c();
    lab.cut(1, 4);
    lab.timeout(1);
    lab.settle();
    let with_4 = vec![1, 2, 4];
    let expected = [with_4.clone(), with_4.clone(), with_4.clone(), vec![1], vec![1, 3]];
    assert_eq!(logs(&lab), expected);
    assert_eq!(lab.status(1).commit, LogIndex::new(3));

    lab.crash(1);
    lab.restart(5);
    for _ in 0..5 {
        lab.campaign(5);
        lab.settle();
        assert_ne!(lab.status(5).role, Role::Leader, "S5 cannot win an election");
    }
    lab.elect(2);
    lab.run(Duration::from_millis(100));
    let [_, s2, s3, s4, s5] = logs(&lab);
    assert!(s2.starts_with(&with_4), "what was committed stays");
    assert_eq!((&s3, &s4, &s5), (&s2, &s2, &s2));
}

/// Figure 8 (d) and (e) with real votes instead of pre-votes: not even a `RequestVote` gets S5 the
/// votes of those that have the entry of term 4, and every one of the others' in (d).
#[test]
fn outcome_depends_on_the_entry_of_the_current_term_alone() {
    let votes_for_5 = |lab: &mut Lab| {
        lab.crash(1);
        lab.pass(Duration::from_secs(1));
        for n in [2, 3, 4] {
            let (from, to) = (NodeId::new(5), NodeId::new(n));
            let message = request_vote(9, at(2, 3));
            lab.send(Envelope { from, to, message });
            lab.deliver(5, n);
        }
        let is_vote = |message: &Message| *message == vote(9);
        lab.mail().iter().filter(|envelope| is_vote(&envelope.message)).count()
    };
    let mut without = until_c();
    assert_eq!(votes_for_5(&mut without), 3);
    let mut with = until_c();
    with.cut(1, 4);
    with.timeout(1);
    with.settle();
    assert_eq!(votes_for_5(&mut with), 1);
}
