//! The paper, figure 7: "When the leader at the top comes to power, it is possible that any of
//! scenarios (a-f) could occur in follower logs."
//!
//! Each test starts one follower with the log of a scenario, and compares what it answers. The last
//! tests put all seven servers into one cluster.

use std::collections::BTreeMap;

use quorlock_core::ids::{LogIndex, NodeId, Term};
use quorlock_core::message::AppendResult;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

use crate::solo::{Solo, at, converse, disk};

/// The log of "leader for term 8": the terms of its entries.
const LEADER: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
const A: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6];
const B: &[u64] = &[1, 1, 1, 4];
const C: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6];
const D: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7];
const E: &[u64] = &[1, 1, 1, 4, 4, 4, 4];
const F: &[u64] = &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3];

/// What a refusal says: the entry that is missing is before the one of term 8, and the last of the
/// follower's that the leader can have is this one.
fn refused(hint_index: u64, hint_term: u64) -> AppendResult {
    AppendResult::Conflict { previous: LogIndex::new(10), hint: at(hint_index, hint_term) }
}

fn matches(index: u64) -> AppendResult {
    AppendResult::Matched(LogIndex::new(index))
}

/// Lets the leader come to power with a follower that has this log. In the end the logs are equal,
/// and everything is committed and applied on both. Returns what the follower answered.
fn answers_with(log: &[u64]) -> (Vec<AppendResult>, Vec<LogIndex>) {
    let mut leader = Solo::with_log(2, 7, LEADER);
    let mut follower = Solo::with_log(2, 7, log);
    let said = leader.become_leader();
    assert_eq!(leader.term(), 8);
    let answers = converse(&mut leader, said, &mut follower);
    let said = leader.advance(Duration::from_millis(50));
    converse(&mut leader, said, &mut follower);
    assert_eq!(follower.log(), [LEADER, &[8]].concat());
    assert_eq!(follower.disk().entries, leader.disk().entries);
    assert_eq!((leader.applied(), follower.applied()), (11, 11));
    let written = follower.take_written();
    (answers, written.iter().filter_map(|batch| batch.truncate_from).collect())
}

/// "A follower may be missing entries (a-b)": one at the end.
#[test]
fn scenario_a_lacks_one_entry() {
    assert_eq!(answers_with(A), (vec![refused(9, 6), matches(11)], vec![]));
}

/// "A follower may be missing entries (a-b)": many.
#[test]
fn scenario_b_lacks_most_entries() {
    assert_eq!(answers_with(B), (vec![refused(4, 4), matches(11)], vec![]));
}

/// "[It] may have extra uncommitted entries (c-d)": one of a term that the leader has too.
#[test]
fn scenario_c_has_one_entry_too_many() {
    assert_eq!(answers_with(C), (vec![matches(11)], vec![LogIndex::new(11)]));
}

/// "[It] may have extra uncommitted entries (c-d)": of a term that the leader has never seen.
#[test]
fn scenario_d_has_entries_of_a_later_term() {
    assert_eq!(answers_with(D), (vec![matches(11)], vec![LogIndex::new(11)]));
}

/// "[...] or both (e-f)": two entries of term 4 in place of those of terms 5 and 6.
#[test]
fn scenario_e_has_entries_that_differ() {
    assert_eq!(answers_with(E), (vec![refused(7, 4), matches(11)], vec![LogIndex::new(6)]));
}

/// "Scenario (f) could occur if that server was the leader for term 2, added several entries to its
/// log, then crashed before committing any of them; it restarted quickly, became leader for term 3,
/// and added a few more entries to its log; before any of the entries in either term 2 or term 3
/// were committed, the server crashed again and remained down for several terms." One refusal is
/// enough to skip both terms.
#[test]
fn scenario_f_has_entries_of_terms_that_nobody_else_knows() {
    assert_eq!(answers_with(F), (vec![refused(10, 3), matches(11)], vec![LogIndex::new(4)]));
}

/// The leader of the figure as node 1, and the followers (a) to (f) as nodes 2 to 7, after term 7.
fn seven_servers() -> Lab {
    let logs = [LEADER, A, B, C, D, E, F];
    let disks: BTreeMap<u64, _> = (1..).zip(logs.map(|log| disk(7, 7, log))).collect();
    Lab::from_recovered(LabOptions { nodes: 7, ..LabOptions::default() }, disks)
}

/// Figure 7 and 5.4.1: the leader is elected by (a), (b), (e) and (f). The logs of (c) and (d) are
/// more up-to-date than its own, so they do not vote for it.
#[test]
fn leader_is_elected_by_those_whose_logs_are_not_more_up_to_date() {
    let mut lab = seven_servers();
    lab.elect(1);
    assert_eq!(lab.status(1).term, Term::new(8));
    for (n, votes) in [(2, true), (3, true), (4, false), (5, false), (6, true), (7, true)] {
        let vote = lab.lab_node(n).durable().hard_state.vote;
        assert_eq!(vote, votes.then_some(NodeId::new(1)), "node {n}");
    }
}

/// Figure 7, all at once: "the leader handles inconsistencies by forcing the followers' logs to
/// duplicate its own" (5.3).
#[test]
fn all_followers_end_with_the_log_of_the_leader() {
    let mut lab = seven_servers();
    lab.elect(1);
    lab.run(Duration::from_millis(100));
    for n in lab.ids() {
        let terms: Vec<u64> = lab.log_of(n).iter().map(|id| id.term.value()).collect();
        assert_eq!(terms, [LEADER, &[8]].concat(), "node {n}");
        assert_eq!(lab.status(n).applied, LogIndex::new(11), "node {n}");
    }
}

/// Figure 7 and 5.4.1: had (d), whose log ends with the latest term, come to power instead, its log
/// would be everybody's. (b), (e) and (f) find too few whose logs are no better than theirs.
#[test]
fn server_with_the_latest_term_could_have_won_as_well() {
    let mut lab = seven_servers();
    lab.elect(5);
    lab.run(Duration::from_millis(100));
    for n in lab.ids() {
        let terms: Vec<u64> = lab.log_of(n).iter().map(|id| id.term.value()).collect();
        assert_eq!(terms, [D, &[8]].concat(), "node {n}");
    }
    for hopeless in [3, 6, 7] {
        let mut lab = seven_servers();
        lab.campaign(hopeless);
        lab.settle();
        assert!(!lab.is_leader(hopeless), "node {hopeless} finds no majority");
    }
}
