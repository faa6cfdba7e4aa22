//! The paper, 5.2: leader election.
//!
//! Before the election of the paper there is a pre-vote (thesis, 9.6), which has its own file. Here
//! it is always granted.

use std::collections::BTreeSet;

use quorlock_core::ids::{EntryId, LogIndex, NodeId, Term};
use quorlock_core::message::{AppendResult, HardState};
use quorlock_core::raft::Role;
use quorlock_core::time::{Duration, Time};
use quorlock_tests::lab::{Lab, LabOptions};

use crate::solo::{
    ELECTION_MAX, ELECTION_MIN, HEARTBEAT, Solo, append_entries, append_reply, appends, at, disk,
    heartbeat, matched, no_vote, pre_vote, pre_vote_reply, request_vote, to_each, vote,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Whether a deadline lies in the interval of election time-outs that begins now.
fn is_election_timeout(deadline: Time, now: Time) -> bool {
    let wait = deadline.since(now);
    (ELECTION_MIN..ELECTION_MAX).contains(&wait)
}

/// "When servers start up, they begin as followers." (5.2)
#[test]
fn servers_begin_as_followers() {
    for disk in [disk(1, 0, &[]), disk(3, 0, &[]), disk(5, 7, &[1, 4, 7])] {
        let status = Solo::start(disk).status();
        assert_eq!((status.role, status.leader), (Role::Follower, None));
    }
}

/// "A server remains in follower state as long as it receives valid RPCs from a leader or
/// candidate." (5.2), from a leader.
#[test]
fn server_remains_follower_while_it_hears_from_a_leader() {
    let mut follower = Solo::new(3);
    follower.receive(2, heartbeat(1, EntryId::ZERO, 0));
    for _ in 0..100 {
        assert_eq!(
            follower.advance(ELECTION_MIN.saturating_sub(MILLISECOND)),
            [],
            "it does not campaign"
        );
        let answer = follower.receive(2, heartbeat(1, EntryId::ZERO, 0));
        assert_eq!(answer, [(2, matched(1, 0))]);
    }
    assert_eq!((follower.role(), follower.term()), (Role::Follower, 1));
}

/// "A server remains in follower state as long as it receives valid RPCs from a leader or
/// candidate." (5.2), from a candidate that it votes for.
#[test]
fn server_remains_follower_when_it_votes() {
    let mut follower = Solo::new(3);
    for term in 1..50 {
        let wait = follower.deadline().since(follower.now());
        assert_eq!(follower.advance(wait.saturating_sub(MILLISECOND)), [], "it does not campaign");
        assert_eq!(follower.receive(2, request_vote(term, EntryId::ZERO)), [(2, vote(term))]);
        assert!(is_election_timeout(follower.deadline(), follower.now()));
    }
    assert_eq!(follower.role(), Role::Follower);
}

/// "If election timeout elapses without receiving AppendEntries RPC from current leader or granting
/// vote to candidate: convert to candidate." (Figure 2). What else arrives makes no difference.
#[test]
fn nothing_but_a_leader_or_a_vote_postpones_an_election() {
    let mut follower = Solo::with_log(3, 3, &[3]);
    let deadline = follower.deadline();
    follower.pass(MILLISECOND);
    let refused = [
        (request_vote(4, EntryId::ZERO), no_vote(4, 4)),
        (pre_vote(9, at(1, 3)), pre_vote_reply(4, 9, true)),
        (append_entries(2, EntryId::ZERO, &[2], 0), append_reply(4, AppendResult::StaleTerm)),
    ];
    for (message, answer) in refused {
        assert_eq!(follower.receive(2, message), [(2, answer)]);
        assert_eq!(follower.deadline(), deadline);
    }
}

/// "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all
/// followers in order to maintain their authority." (5.2)
#[test]
fn leader_sends_periodic_heartbeats_without_entries_to_all_followers() {
    let mut leader = Solo::settled_leader(4, 1, &[]);
    for _ in 0..100 {
        let sent = leader.advance(HEARTBEAT);
        let heartbeats = appends(&sent);
        let to: Vec<u64> = heartbeats.iter().map(|(to, _)| *to).collect();
        assert_eq!((to, sent.len()), (vec![2, 3, 4], 3), "one for each in each interval");
        for (to, append) in heartbeats {
            assert_eq!((append.term, append.entries.len()), (Term::new(1), 0));
            leader.receive(to, matched(1, 1));
        }
    }
}

/// "If a follower receives no communication over a period of time called the election timeout, then
/// it assumes there is no viable leader and begins an election to choose a new leader." (5.2)
#[test]
fn follower_without_communication_begins_an_election() {
    let mut follower = Solo::new(3);
    follower.receive(2, heartbeat(1, EntryId::ZERO, 0));
    let timeout = follower.deadline().since(follower.now());
    assert!(is_election_timeout(follower.deadline(), follower.now()));
    assert_eq!(follower.advance(timeout.saturating_sub(MILLISECOND)), [], "not before");
    let sent = follower.advance(MILLISECOND);
    assert_eq!(sent, to_each([2, 3], &pre_vote(2, EntryId::ZERO)));
    assert_eq!(follower.status().leader, None, "there is no viable leader");
}

/// "To begin an election, a follower increments its current term and transitions to candidate
/// state. It then votes for itself and issues RequestVote RPCs in parallel to each of the other
/// servers in the cluster." (5.2)
#[test]
fn candidate_increments_its_term_votes_for_itself_and_asks_all_others_in_parallel() {
    let mut node = Solo::with_log(5, 3, &[1, 3]);
    let sent = node.become_candidate();
    assert_eq!((node.role(), node.term()), (Role::Candidate, 4));
    let hard_state = HardState { term: Term::new(4), vote: Some(NodeId::new(1)) };
    assert_eq!(node.disk().hard_state, hard_state);
    assert_eq!(sent, to_each([2, 3, 4, 5], &request_vote(4, at(2, 3))));
}

/// "A candidate wins an election if it receives votes from a majority of the servers in the full
/// cluster for the same term." (5.2)
#[test]
fn candidate_wins_with_votes_of_a_majority_of_the_full_cluster() {
    // How many servers there are, and how many votes beside the candidate's own it takes.
    for (nodes, votes) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)] {
        let mut candidate = Solo::new(nodes);
        candidate.become_candidate();
        for peer in (2..).take(votes) {
            assert_eq!(candidate.role(), Role::Candidate, "{nodes} servers, asking {peer}");
            candidate.receive(peer, vote(1));
        }
        assert_eq!(candidate.role(), Role::Leader, "{nodes} servers, {votes} votes");
    }
    let mut only = Solo::new(1);
    only.campaign();
    assert_eq!(only.role(), Role::Leader, "it is a majority by itself");
}

/// "A candidate wins an election if it receives votes from a majority of the servers in the full
/// cluster for the same term." (5.2): one server's vote counts once.
#[test]
fn server_is_counted_once_however_often_its_vote_arrives() {
    let mut candidate = Solo::new(5);
    candidate.become_candidate();
    for _ in 0..5 {
        candidate.receive(2, vote(1));
    }
    assert_eq!(candidate.role(), Role::Candidate);
    candidate.receive(3, vote(1));
    assert_eq!(candidate.role(), Role::Leader);
}

/// "A candidate wins an election if it receives votes from a majority of the servers in the full
/// cluster for the same term." (5.2): votes of another term do not count.
#[test]
fn votes_of_another_term_do_not_count() {
    let mut candidate = Solo::new(3);
    candidate.become_candidate();
    candidate.become_candidate();
    candidate.receive(2, vote(1));
    candidate.receive(3, vote(1));
    assert_eq!((candidate.role(), candidate.term()), (Role::Candidate, 2));
    candidate.receive(3, vote(2));
    assert_eq!(candidate.role(), Role::Leader);
}

/// "Each server will vote for at most one candidate in a given term, on a first-come-first-served
/// basis." (5.2)
#[test]
fn vote_of_a_term_goes_to_the_candidate_that_comes_first() {
    let mut voter = Solo::new(5);
    let ask = |term| request_vote(term, EntryId::ZERO);
    assert_eq!(voter.receive(2, ask(1)), [(2, vote(1))]);
    assert_eq!(voter.receive(3, ask(1)), [(3, no_vote(1, 1))]);
    assert_eq!(voter.receive(2, ask(1)), [(2, vote(1))], "the answer may have been lost");
    assert_eq!(voter.receive(3, ask(2)), [(3, vote(2))], "a new term, a new vote");
    assert_eq!(voter.receive(2, ask(2)), [(2, no_vote(2, 2))]);
    assert_eq!(voter.take_written().len(), 2, "two votes were cast");
}

/// "Once a candidate wins an election, it becomes leader. It then sends heartbeat messages to all of
/// the other servers to establish its authority and prevent new elections." (5.2)
#[test]
fn winner_sends_to_all_others_at_once() {
    let mut candidate = Solo::new(5);
    candidate.become_candidate();
    candidate.receive(2, vote(1));
    let sent = candidate.receive(3, vote(1));
    let to: Vec<u64> = appends(&sent).iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [2, 3, 4, 5], "{sent:?}");
    assert!(appends(&sent).iter().all(|(_, append)| append.term == Term::new(1)));
}

/// "If the leader's term (included in its RPC) is at least as large as the candidate's current term,
/// then the candidate recognizes the leader as legitimate and returns to follower state." (5.2)
#[test]
fn candidate_recognizes_a_leader_of_its_own_or_a_later_term() {
    for term in [4, 5] {
        let mut candidate = Solo::with_log(3, 3, &[]);
        candidate.become_candidate();
        let answer = candidate.receive(3, heartbeat(term, EntryId::ZERO, 0));
        assert_eq!(answer, [(3, matched(term, 0))]);
        let status = candidate.status();
        assert_eq!((status.role, status.leader), (Role::Follower, Some(NodeId::new(3))));
        assert_eq!(status.term, Term::new(term));
        candidate.receive(2, vote(4));
        assert_eq!(candidate.role(), Role::Follower, "a vote comes too late");
        let vote_of_4 = candidate.receive(2, request_vote(4, EntryId::ZERO));
        assert_eq!(vote_of_4, [(2, no_vote(term, 4))], "and its own vote of term 4 stays cast");
    }
}

/// "If the term in the RPC is smaller than the candidate's current term, then the candidate rejects
/// the RPC and continues in candidate state." (5.2)
#[test]
fn candidate_rejects_a_leader_of_an_earlier_term_and_continues() {
    let mut candidate = Solo::with_log(3, 3, &[]);
    candidate.become_candidate();
    let answer = candidate.receive(3, append_entries(3, EntryId::ZERO, &[3], 1));
    assert_eq!(answer, [(3, append_reply(4, AppendResult::StaleTerm))]);
    assert_eq!((candidate.role(), candidate.log()), (Role::Candidate, vec![]));
    candidate.receive(2, vote(4));
    assert_eq!(candidate.role(), Role::Leader);
}

/// "When this happens, each candidate will time out and start a new election by incrementing its
/// term and initiating another round of RequestVote RPCs." (5.2)
#[test]
fn candidate_without_majority_times_out_and_starts_a_new_election() {
    let mut candidate = Solo::new(5);
    candidate.become_candidate();
    // A vote for each of two candidates, and one server that is down.
    candidate.receive(2, vote(1));
    candidate.receive(3, no_vote(1, 1));
    candidate.receive(4, no_vote(1, 1));
    let sent = candidate.become_candidate();
    assert_eq!((candidate.role(), candidate.term()), (Role::Candidate, 2));
    assert_eq!(sent, to_each([2, 3, 4, 5], &request_vote(2, EntryId::ZERO)));
    candidate.receive(2, vote(2));
    assert_eq!(candidate.role(), Role::Candidate, "the earlier vote does not count again");
}

/// "To prevent split votes in the first place, election timeouts are chosen randomly from a fixed
/// interval (e.g., 150-300ms)." (5.2)
#[test]
fn election_timeouts_are_chosen_randomly_from_a_fixed_interval() {
    let timeout = |seed| Solo::start_seeded(disk(3, 0, &[]), seed).deadline();
    let timeouts: BTreeSet<Time> = (0..1000).map(timeout).collect();
    assert!(timeouts.iter().all(|timeout| is_election_timeout(*timeout, Time::ZERO)));
    assert!(timeouts.len() > 900, "they differ: {}", timeouts.len());
    let interval = ELECTION_MAX.saturating_sub(ELECTION_MIN);
    for tenth in 0..10 {
        let start = Time::ZERO.after(ELECTION_MIN + interval * tenth / 10);
        let count = timeouts.range(start..start.after(interval / 10)).count();
        assert!((50..200).contains(&count), "{count} of 1000 are in the tenth {tenth}");
    }
}

/// "This spreads out the servers so that in most cases only a single server will time out; it wins
/// the election and sends heartbeats before any other servers time out." (5.2)
#[test]
fn in_most_cases_a_single_server_times_out_and_wins() {
    let mut single = 0;
    for seed in 0..50 {
        let mut lab = Lab::new(LabOptions { nodes: 5, seed, ..LabOptions::default() });
        let mut deadlines: Vec<Time> = lab.ids().filter_map(|n| lab.deadline(n)).collect();
        deadlines.sort_unstable();
        // Time enough for the messages of an election in a network of this age.
        single += u32::from(deadlines[1].since(deadlines[0]) > 5 * MILLISECOND);
        lab.run(ELECTION_MAX);
        let leader = lab.leader().expect("the first to time out wins");
        assert_eq!(lab.status(leader).term, Term::new(1), "in the first election");
        assert_eq!(lab.status(leader).commit, LogIndex::new(1));
    }
    assert!(single >= 40, "in {single} of 50 clusters");
}

/// "Each candidate restarts its randomized election timeout at the start of an election, and it
/// waits for that timeout to elapse before starting the next election." (5.2)
#[test]
fn candidate_draws_a_new_timeout_for_each_election_and_waits_for_it() {
    let mut candidate = Solo::new(3);
    let mut waits = BTreeSet::new();
    for _ in 0..50 {
        candidate.become_candidate();
        let (now, deadline) = (candidate.now(), candidate.deadline());
        assert!(is_election_timeout(deadline, now), "{deadline:?} from {now:?}");
        let wait = deadline.since(now);
        waits.insert(wait);
        assert_eq!(candidate.advance(wait.saturating_sub(MILLISECOND)), []);
    }
    assert!(waits.len() > 45, "a fresh one each time: {waits:?}");
}
