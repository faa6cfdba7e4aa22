//! The thesis, 3.8: persisted state and server restarts.

use quorlock_core::config::Config;
use quorlock_core::ids::{EntryId, LogIndex, Term};
use quorlock_core::message::{AppendResult, HardState};
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, LabOptions};

use crate::locking::{cluster, hold, holder};
use crate::solo::{
    Solo, append_entries, append_reply, at, heartbeat, matched, no_vote, request_vote, to_each,
    vote,
};

/// "Each server persists its current term and vote; this is necessary to prevent the server from
/// voting twice in the same term." (3.8)
#[test]
fn server_does_not_vote_twice_in_a_term_when_it_restarts() {
    let mut voter = Solo::new(3);
    assert_eq!(voter.receive(2, request_vote(1, EntryId::ZERO)), [(2, vote(1))]);
    let mut voter = voter.restart();
    assert_eq!(voter.receive(3, request_vote(1, EntryId::ZERO)), [(3, no_vote(1, 1))]);
    let mut candidate = Solo::new(3);
    candidate.become_candidate();
    let mut candidate = candidate.restart();
    assert_eq!(candidate.role(), Role::Follower);
    assert_eq!(candidate.receive(3, request_vote(1, EntryId::ZERO)), [(3, no_vote(1, 1))]);
}

/// "[...] or replacing log entries from a newer leader with those from a deposed leader." (3.8)
#[test]
fn server_takes_nothing_from_a_deposed_leader_when_it_restarts() {
    let mut follower = Solo::new(3);
    follower.receive(3, append_entries(5, EntryId::ZERO, &[1, 5], 1));
    let mut follower = follower.restart();
    let answer = follower.receive(2, append_entries(4, at(1, 1), &[4, 4, 4], 4));
    assert_eq!(answer, [(2, append_reply(5, AppendResult::StaleTerm))]);
    assert_eq!(follower.log(), [1, 5]);
}

/// Figure 3.1: "Persistent state on all servers (updated on stable storage before responding to
/// RPCs)": a vote.
#[test]
fn vote_leaves_when_it_is_durable() {
    let mut voter = Solo::new(3);
    voter.hold_disk();
    assert_eq!(voter.receive(2, request_vote(1, EntryId::ZERO)), []);
    // A crash here forgets the vote, which nobody has been promised.
    let mut forgetful = voter.clone().restart();
    assert_eq!(forgetful.receive(3, request_vote(1, EntryId::ZERO)), [(3, vote(1))]);
    assert_eq!(voter.persist(), [(2, vote(1))]);
}

/// Figure 3.1, as above: a candidate's vote for itself. Before it is durable it neither asks for
/// other votes nor counts its own.
#[test]
fn candidate_asks_for_votes_when_its_own_is_durable() {
    let mut candidate = Solo::new(3);
    candidate.hold_disk();
    assert_eq!(candidate.become_candidate(), []);
    candidate.receive(2, vote(1));
    assert_eq!(candidate.role(), Role::Candidate, "one vote of three counts");
    let asked = to_each([2, 3], &request_vote(1, EntryId::ZERO));
    assert_eq!(candidate.clone().persist()[..2], asked[..]);
    candidate.persist();
    assert_eq!(candidate.role(), Role::Leader, "two of three");

    let mut only = Solo::new(1);
    only.hold_disk();
    only.campaign();
    assert_eq!(only.role(), Role::Candidate, "not even alone");
    only.persist();
    assert_eq!(only.role(), Role::Leader);
}

/// Figure 3.1, as above: the term. An answer in a term that a crash could take back is none.
#[test]
fn answer_in_a_new_term_leaves_when_the_term_is_durable() {
    let mut follower = Solo::new(3);
    follower.hold_disk();
    assert_eq!(follower.receive(2, heartbeat(4, EntryId::ZERO, 0)), []);
    assert_eq!(follower.persist(), [(2, matched(4, 0))]);
    let hard_state = HardState { term: Term::new(4), vote: None };
    assert_eq!(follower.disk().hard_state, hard_state);
}

/// "Each server also persists new log entries before they are counted towards the entries'
/// commitment; this prevents committed entries from being lost or 'uncommitted' when servers
/// restart." (3.8), for a follower.
#[test]
fn follower_acknowledges_entries_when_they_are_durable() {
    let mut follower = Solo::with_log(3, 1, &[1]);
    follower.hold_disk();
    assert_eq!(follower.receive(2, append_entries(1, at(1, 1), &[1, 1], 0)), []);
    let beat = follower.receive(2, heartbeat(1, at(3, 1), 0));
    assert_eq!(beat, [(2, matched(1, 1))], "a sign of life acknowledges only what is durable");
    let again = follower.receive(2, append_entries(1, at(1, 1), &[1, 1], 0));
    assert!(again.is_empty() || again == [(2, matched(1, 1))], "nor does a repetition: {again:?}");
    assert_eq!(follower.persist(), [(2, matched(1, 3))]);
}

/// "Each server also persists new log entries before they are counted towards the entries'
/// commitment." (3.8), for a leader.
#[test]
fn leader_counts_its_own_entries_when_they_are_durable() {
    let mut leader = Solo::with_log(3, 0, &[]);
    leader.become_candidate();
    leader.hold_disk();
    leader.receive(2, vote(1));
    leader.receive(2, matched(1, 1));
    assert_eq!(leader.commit(), 0, "it is on one disk of three");
    leader.persist();
    assert_eq!(leader.commit(), 1, "on two");
}

/// "[...] this prevents committed entries from being lost or 'uncommitted' when servers restart."
/// (3.8)
#[test]
fn committed_entries_survive_a_restart_of_all_servers() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    let token = hold(&mut lab, 1, session, "printer");
    let committed = lab.log_of(1);
    for n in lab.ids() {
        lab.crash(n);
    }
    for n in lab.ids() {
        lab.restart(n);
        assert_eq!(lab.log_of(n), committed, "node {n}");
    }
    lab.elect(3);
    assert_eq!(holder(&lab, 3, "printer"), Some(session));
    assert_eq!(hold(&mut lab, 3, session, "printer"), token, "it is held as before");
}

/// "The commit index [...] can safely be reinitialized to zero on a restart. Even if every server
/// restarts at the same time, the commit index will only temporarily lag behind its true value."
/// (3.8)
#[test]
fn commit_index_lags_behind_for_a_while_after_a_restart() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    hold(&mut lab, 1, session, "printer");
    let true_value = lab.status(1).commit;
    for n in lab.ids() {
        lab.crash(n);
        lab.restart(n);
        assert_eq!(lab.status(n).commit, LogIndex::ZERO, "node {n}");
    }
    lab.elect(2);
    lab.run(Duration::from_millis(100));
    for n in lab.ids() {
        assert_eq!(
            lab.status(n).commit,
            true_value.next(),
            "node {n}, with the leader's new entry"
        );
    }
}

/// "Once a leader is elected and is able to commit a new entry, its commit index will increase, and
/// it will quickly propagate this commit index to its followers." (3.8)
#[test]
fn commit_index_comes_back_with_the_first_entry_of_a_leader() {
    let mut leader = Solo::leader(3, 4, &[1, 2, 3]);
    assert_eq!(leader.commit(), 0, "elected, and yet it does not know");
    leader.receive(3, matched(4, 4));
    assert_eq!(leader.commit(), 4);
}

/// "A volatile state machine must be recovered after restarts by reapplying log entries (after
/// applying the latest snapshot)." (3.8)
#[test]
fn state_is_recovered_from_the_latest_snapshot_and_the_entries_after_it() {
    let config = Config { snapshot_entries: 5, retained_entries: 0, ..Config::default() };
    let mut lab = Lab::new(LabOptions { config, ..LabOptions::default() });
    lab.elect(1);
    let session = lab.open(1, "alice");
    for name in 0..9 {
        hold(&mut lab, 1, session, &format!("lock {name}"));
    }
    lab.run(Duration::from_millis(100));
    let (digest, applied) = (lab.node(1).digest(), lab.status(1).applied);
    let snapshot = lab.lab_node(1).durable().snapshot.last.index;
    assert!(snapshot > LogIndex::ZERO && snapshot < applied, "a snapshot, and entries after it");
    for n in lab.ids() {
        lab.crash(n);
        lab.restart(n);
        assert_eq!(lab.status(n).applied, snapshot, "node {n} begins with its snapshot");
    }
    lab.elect(1);
    assert!(lab.status(1).applied > applied);
    assert_eq!(holder(&lab, 1, "lock 0"), Some(session));
    assert_eq!(holder(&lab, 1, "lock 8"), Some(session));
    assert_ne!(lab.node(1).digest(), digest, "the new leader's entry is applied too");
}
