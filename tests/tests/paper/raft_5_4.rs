//! The paper, 5.4: safety.

use quorlock_core::ids::{EntryId, LogIndex, NodeId};
use quorlock_core::message::Message;
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;

use crate::locking::{acquire, cluster, hold, holder, open_long};
use crate::solo::{
    Solo, append_entries, append_to, at, conflict, ids, matched, no_vote, request_vote, to_each,
    vote,
};

/// What a voter whose log ends with an entry of term 3 at index 3 says to a candidate.
fn answer_to(last: EntryId) -> Message {
    let mut voter = Solo::with_log(3, 6, &[1, 1, 3]);
    let mut answer = voter.receive(2, request_vote(7, last));
    assert_eq!(answer.len(), 1, "a candidate is answered");
    answer.remove(0).1
}

/// "The restriction ensures that the leader for any given term contains all of the entries committed
/// in previous terms (the Leader Completeness Property)." (5.4)
#[test]
fn leader_of_any_term_contains_all_that_was_committed_before() {
    let mut lab = cluster(5);
    let session = open_long(&mut lab, 1, "alice");
    let mut committed = Vec::new();
    for round in 0..20 {
        let leader = lab.leader().expect("there is a leader");
        hold(&mut lab, leader, session, &format!("lock {round}"));
        let commit = lab.status(leader).commit.value();
        committed = lab.log_of(leader);
        committed.truncate(usize::try_from(commit).expect("a short log"));
        lab.crash(leader);
        lab.run(Duration::from_secs(2));
        let next = lab.leader().expect("another one is elected");
        assert!(lab.log_of(next).starts_with(&committed), "all of it, from the beginning");
        lab.restart(leader);
        lab.run(Duration::from_millis(100));
    }
    assert!(committed.len() > 40, "twenty terms with something in each");
}

/// "All the committed entries from previous terms are present on each new leader from the moment of
/// its election, without the need to transfer those entries to the leader." (5.4.1)
#[test]
fn new_leader_has_all_committed_entries_from_the_moment_of_its_election() {
    let mut lab = cluster(3);
    lab.cut(1, 3);
    let session = lab.open(1, "alice");
    hold(&mut lab, 1, session, "printer");
    let committed = lab.log_of(1);
    lab.crash(1);
    lab.heal();
    // The node without these entries is the first to time out, again and again.
    for _ in 0..5 {
        lab.campaign(3);
        lab.settle();
        assert!(!lab.is_leader(3), "it cannot be elected");
    }
    lab.elect(2);
    assert!(lab.log_of(2).starts_with(&committed));
}

/// "Log entries only flow in one direction, from leaders to followers, and leaders never overwrite
/// existing entries in their logs." (5.4.1)
#[test]
fn entries_flow_only_from_leaders_to_followers() {
    let mut leader = Solo::leader(3, 5, &[1, 2]);
    // A follower with a longer log gets the leader's, and the leader nothing of it.
    let sent = leader.receive(2, conflict(5, 2, at(2, 1)));
    let append = append_to(&sent, 2);
    assert_eq!((append.previous, ids(&append.entries)), (at(1, 1), vec![at(2, 2), at(3, 5)]));
    let mut follower = Solo::with_log(3, 4, &[1, 1, 4, 4, 4, 4]);
    follower.receive(2, Message::AppendEntries(append));
    assert_eq!((follower.log(), leader.log()), (vec![1, 2, 5], vec![1, 2, 5]));
}

/// "The RPC includes information about the candidate's log, and the voter denies its vote if its own
/// log is more up-to-date than that of the candidate." (5.4.1)
#[test]
fn voter_denies_its_vote_if_its_own_log_is_more_up_to_date() {
    let mut candidate = Solo::with_log(3, 6, &[1, 1, 3, 3]);
    let sent = candidate.become_candidate();
    assert_eq!(sent, to_each([2, 3], &request_vote(7, at(4, 3))));
    for last in [EntryId::ZERO, at(2, 3), at(3, 2), at(9, 1)] {
        assert_eq!(answer_to(last), no_vote(7, 7), "to a log that ends with {last}");
    }
    assert_eq!(answer_to(at(3, 3)), vote(7), "to one that is as up-to-date");
}

/// "If the logs have last entries with different terms, then the log with the later term is more
/// up-to-date." (5.4.1)
#[test]
fn log_with_the_later_term_is_more_up_to_date() {
    for index in [1, 2, 3, 4, 100] {
        assert_eq!(answer_to(at(index, 2)), no_vote(7, 7), "however long it is: {index}");
        assert_eq!(answer_to(at(index, 4)), vote(7), "however short it is: {index}");
    }
}

/// "If the logs end with the same term, then whichever log is longer is more up-to-date." (5.4.1)
#[test]
fn longer_log_is_more_up_to_date_if_both_end_with_the_same_term() {
    for index in 1..6 {
        let expected = if index < 3 { no_vote(7, 7) } else { vote(7) };
        assert_eq!(answer_to(at(index, 3)), expected, "{index}");
    }
}

/// A vote that is denied is not cast: of those whose logs are good enough, the first gets it (5.4.1,
/// with 5.2).
#[test]
fn denied_vote_is_still_to_be_had() {
    let mut voter = Solo::with_log(3, 6, &[1, 1, 3]);
    assert_eq!(voter.receive(2, request_vote(7, at(2, 3))), [(2, no_vote(7, 7))]);
    assert_eq!(voter.receive(3, request_vote(7, at(3, 3))), [(3, vote(7))]);
    assert_eq!(voter.disk().hard_state.vote, Some(NodeId::new(3)));
}

/// "A leader knows that an entry from its current term is committed once that entry is stored on a
/// majority of the servers." (5.4.2)
#[test]
fn entry_of_the_current_term_is_committed_once_a_majority_stores_it() {
    let mut leader = Solo::leader(5, 4, &[1, 2, 3]);
    leader.receive(2, matched(4, 4));
    assert_eq!(leader.commit(), 0);
    leader.receive(3, matched(4, 4));
    assert_eq!(leader.commit(), 4);
}

/// "If a leader crashes before committing an entry, future leaders will attempt to finish
/// replicating the entry." (5.4.2)
#[test]
fn future_leader_finishes_replicating_what_was_not_committed() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.cut(1, 3);
    lab.submit(1, session, 1, acquire("printer"));
    let unfinished = *lab.log_of(1).last().expect("the request is in the log");
    assert!(lab.deliver(1, 2), "one follower gets it");
    lab.crash(1);
    lab.elect(2);
    assert!(lab.log_of(3).contains(&unfinished), "with its index and its term");
    assert!(lab.status(2).commit > unfinished.index, "with the first entry of its own term");
    assert_eq!(holder(&lab, 2, "printer"), Some(session));
}

/// "A leader cannot immediately conclude that an entry from a previous term is committed once it is
/// stored on a majority of servers." (5.4.2)
#[test]
fn entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut leader = Solo::leader(5, 4, &[1, 2, 2]);
    for peer in [2, 3, 4, 5] {
        leader.receive(peer, matched(4, 3));
        assert_eq!(leader.commit(), 0, "{peer} has all but the entry of this term");
    }
}

/// "Once an entry from the current term has been committed in this way, then all prior entries are
/// committed indirectly because of the Log Matching Property." (5.4.2)
#[test]
fn earlier_entries_are_committed_indirectly() {
    let mut leader = Solo::leader(5, 4, &[1, 2, 2]);
    for peer in [2, 3, 4, 5] {
        leader.receive(peer, matched(4, 3));
    }
    leader.receive(2, matched(4, 4));
    leader.receive(5, matched(4, 4));
    assert_eq!((leader.commit(), leader.applied()), (4, 4));
}

/// "Log entries retain their original term numbers when a leader replicates entries from previous
/// terms." (5.4.2)
#[test]
fn entries_retain_their_term_when_another_leader_replicates_them() {
    let mut leader = Solo::leader(3, 5, &[1, 2, 2, 4]);
    let sent = leader.receive(2, conflict(5, 4, EntryId::ZERO));
    let append = append_to(&sent, 2);
    let original = [at(1, 1), at(2, 2), at(3, 2), at(4, 4), at(5, 5)];
    assert_eq!((append.previous, ids(&append.entries)), (EntryId::ZERO, original.to_vec()));
    assert_eq!(append.entries, leader.disk().entries, "with all that they carry");
}

/// "If a server has applied a log entry at a given index to its state machine, no other server will
/// ever apply a different log entry for the same index (State Machine Safety)." (5.4.3, Figure 3).
/// The lab looks at every entry that any node applies.
#[test]
fn no_two_servers_apply_different_entries_at_an_index() {
    let mut lab = cluster(3);
    let (alice, bob) = (lab.open(1, "alice"), lab.open(1, "bob"));
    // The leader goes on for a while where nobody hears it.
    lab.isolate(1);
    lab.submit(1, alice, 1, acquire("heard by nobody"));
    let unheard = *lab.log_of(1).last().expect("the request is in the log");
    lab.persist_all(1);
    lab.elect(2);
    hold(&mut lab, 2, bob, "heard by a majority");
    lab.heal();
    lab.run(Duration::from_millis(900));
    assert_eq!(lab.status(1).role, Role::Follower);
    assert!(!lab.log_of(1).contains(&unheard), "it was never applied, and gives way");
    let last = lab.status(2).applied;
    for n in lab.ids() {
        assert_eq!(lab.status(n).applied, last, "node {n}");
        assert_eq!(lab.node(n).digest(), lab.node(2).digest(), "node {n}");
    }
    assert!(last > LogIndex::ZERO);
}

/// "The voter must have accepted the committed entry from leaderT before voting for leaderU;
/// otherwise it would have rejected the AppendEntries request from leaderT." (5.4.3, step 3)
#[test]
fn voter_takes_nothing_more_from_the_leader_it_voted_to_replace() {
    let mut voter = Solo::with_log(3, 2, &[1, 2]);
    assert_eq!(voter.receive(3, request_vote(3, at(2, 2))), [(3, vote(3))]);
    voter.receive(2, append_entries(2, at(2, 2), &[2], 3));
    assert_eq!((voter.log(), voter.commit()), (vec![1, 2], 0));
}
