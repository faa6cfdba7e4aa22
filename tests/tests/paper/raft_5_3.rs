//! The paper, 5.3: log replication.

use quorlock_core::codec;
use quorlock_core::ids::{EntryId, LogIndex, SessionId};
use quorlock_core::lock::Command;
use quorlock_core::message::{AppendResult, Message, Payload, Reply, WriteBatch};
use quorlock_core::raft::{DropReason, ProgressState};
use quorlock_core::time::Duration;
use quorlock_tests::lab::{LossReason, TraceEvent};

use crate::locking::{cluster, hold, open_session, try_acquire};
use crate::solo::{
    HEARTBEAT, Solo, append_entries, append_to, appends, at, conflict, converse, heartbeat, ids,
    matched,
};

/// The log that these batches add up to, if none of them removes anything.
fn appended(batches: &[WriteBatch]) -> Vec<EntryId> {
    assert!(batches.iter().all(|batch| batch.truncate_from.is_none()), "{batches:?}");
    batches.iter().flat_map(|batch| ids(&batch.entries)).collect()
}

fn session_of(replies: &[Reply]) -> Option<SessionId> {
    if let [Reply::Opened { result: Ok(opened), .. }] = replies {
        return Some(opened.session);
    }
    assert_eq!(replies, [], "nothing else is said");
    None
}

/// "Once a leader has been elected, it begins servicing client requests." (5.3)
#[test]
fn leader_begins_servicing_requests_once_it_is_elected() {
    let mut leader = Solo::leader(3, 1, &[]);
    leader.request(open_session(1));
    assert_eq!(leader.take_replies(), [], "it is not refused");
    assert_eq!(leader.log(), [1, 1], "although nothing of its term is committed yet");
    leader.receive(2, matched(1, 1));
    leader.receive(2, matched(1, 2));
    assert_eq!(session_of(&leader.take_replies()), Some(SessionId::new(2)));
}

/// "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
/// parallel to each of the other servers to replicate the entry." (5.3)
#[test]
fn leader_appends_a_command_and_sends_it_to_all_others_in_parallel() {
    let mut leader = Solo::settled_leader(4, 1, &[]);
    let sent = leader.request(open_session(1));
    assert_eq!(appended(&leader.take_written()), [at(2, 1)]);
    assert_eq!(sent.len(), 3);
    for peer in [2, 3, 4] {
        let append = append_to(&sent, peer);
        assert_eq!((append.previous, ids(&append.entries)), (at(1, 1), vec![at(2, 1)]));
        assert_eq!(append.entries, leader.disk().entries[1..]);
    }
}

/// "When the entry has been safely replicated (as described below), the leader applies the entry to
/// its state machine and returns the result of that execution to the client." (5.3)
#[test]
fn leader_applies_and_answers_when_the_entry_is_safely_replicated() {
    let mut leader = Solo::settled_leader(5, 1, &[]);
    leader.request(open_session(1));
    leader.receive(4, matched(1, 2));
    assert_eq!(session_of(&leader.take_replies()), None, "two of five have it");
    assert_eq!(leader.status().counts.sessions, 0);
    leader.receive(2, matched(1, 2));
    assert_eq!(session_of(&leader.take_replies()), Some(SessionId::new(2)));
    assert_eq!(leader.status().counts.sessions, 1);
    leader.receive(3, matched(1, 2));
    assert_eq!(leader.take_replies(), [], "once");
}

/// "If followers crash or run slowly, or if network packets are lost, the leader retries
/// AppendEntries RPCs indefinitely (even after it has responded to the client) until all followers
/// eventually store all log entries." (5.3)
#[test]
fn leader_retries_until_all_followers_store_all_entries() {
    let mut lab = cluster(3);
    lab.cut(1, 3);
    let session = lab.open(1, "alice");
    hold(&mut lab, 1, session, "printer");
    lab.record(true);
    lab.run(Duration::from_mins(1));
    let is_retry = |event: &&TraceEvent| {
        let TraceEvent::Lost { envelope, reason } = event else { return false };
        *reason == LossReason::Cut && matches!(envelope.message, Message::AppendEntries(_))
    };
    let retries = lab.take_trace().iter().filter(is_retry).count();
    assert!(retries >= 1000, "in each heartbeat of a minute: {retries}");
    assert_ne!(lab.log_of(3), lab.log_of(1));
    lab.heal();
    lab.run(Duration::from_secs(1));
    assert_eq!(lab.log_of(3), lab.log_of(1));
    assert_eq!(lab.status(3).commit, lab.status(1).commit);
}

/// "Each log entry stores a state machine command along with the term number when the entry was
/// received by the leader. [...] Each log entry also has an integer index identifying its position
/// in the log." (5.3)
#[test]
fn entry_stores_a_command_a_term_and_an_index() {
    let mut leader = Solo::leader(3, 7, &[1, 4]);
    leader.request(open_session(42));
    let entries = &leader.disk().entries;
    assert_eq!(ids(entries), [at(1, 1), at(2, 4), at(3, 7), at(4, 7)]);
    assert_eq!(entries[2].payload, Payload::Empty, "the first entry of a term");
    let Payload::Command(bytes) = &entries[3].payload else {
        panic!("the last one is a command: {entries:?}")
    };
    let command: Command = codec::decode(bytes).expect("a command of the lock table");
    assert!(matches!(command, Command::OpenSession { nonce, .. } if nonce.0 == 42));
}

/// "A log entry is committed once the leader that created the entry has replicated it on a majority
/// of the servers." (5.3)
#[test]
fn entry_is_committed_once_a_majority_of_the_servers_have_it() {
    // How many servers there are, and how many beside the leader are a majority with it.
    for (nodes, others) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)] {
        let mut leader = Solo::leader(nodes, 1, &[]);
        for peer in (2..).take(others) {
            assert_eq!(leader.commit(), 0, "{nodes} servers, before {peer}");
            leader.receive(peer, matched(1, 1));
            leader.receive(peer, matched(1, 1));
        }
        assert_eq!(leader.commit(), 1, "{nodes} servers, {others} followers");
    }
}

/// "This also commits all preceding entries in the leader's log, including entries created by
/// previous leaders." (5.3)
#[test]
fn commit_includes_all_preceding_entries() {
    for log in [&[1][..], &[1, 1, 2], &[2, 2, 2], &[1, 2, 3, 4]] {
        let mut leader = Solo::leader(3, 5, log);
        let last = log.len() as u64 + 1;
        leader.receive(2, matched(5, last));
        assert_eq!((leader.commit(), leader.applied()), (last, last));
    }
}

/// "The leader keeps track of the highest index it knows to be committed, and it includes that index
/// in future AppendEntries RPCs (including heartbeats) so that the other servers eventually find
/// out." (5.3)
#[test]
fn leader_includes_its_commit_index_in_all_that_it_sends() {
    let mut leader = Solo::leader(3, 1, &[]);
    leader.receive(2, matched(1, 1));
    leader.receive(3, matched(1, 1));
    let sent = leader.request(open_session(1));
    assert_eq!(append_to(&sent, 2).commit, LogIndex::new(1), "with entries");
    leader.receive(2, matched(1, 2));
    let sent = leader.advance(HEARTBEAT);
    for peer in [2, 3] {
        assert_eq!(append_to(&sent, peer).commit, LogIndex::new(2), "with none");
    }
}

/// "Once a follower learns that a log entry is committed, it applies the entry to its local state
/// machine (in log order)." (5.3)
#[test]
fn follower_applies_in_log_order_what_it_learns_to_be_committed() {
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(4, EntryId::ZERO, &[1, 1, 2, 4, 4], 0));
    assert_eq!(follower.applied(), 0);
    for commit in [1, 3, 3, 5] {
        follower.receive(2, heartbeat(4, at(5, 4), commit));
        assert_eq!((follower.commit(), follower.applied()), (commit, commit));
    }
    follower.receive(2, heartbeat(4, at(5, 4), 2));
    assert_eq!(follower.applied(), 5, "a message that comes late takes nothing back");
}

/// "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)."
/// (Figure 2): what follows that entry can be left over from another leader.
#[test]
fn follower_commits_no_further_than_its_log_is_known_to_match() {
    let mut follower = Solo::with_log(3, 2, &[1, 2, 2, 2]);
    follower.receive(2, heartbeat(3, at(1, 1), 4));
    assert_eq!(follower.commit(), 1);
    follower.receive(2, append_entries(3, at(1, 1), &[2], 4));
    assert_eq!(follower.commit(), 2);
    follower.receive(2, append_entries(3, at(2, 2), &[3, 3], 4));
    assert_eq!((follower.commit(), follower.log()), (4, vec![1, 2, 3, 3]));
}

/// "A leader creates at most one entry with a given log index in a given term, and log entries never
/// change their position in the log." (5.3)
#[test]
fn leader_creates_one_entry_for_each_index() {
    let mut leader = Solo::leader(3, 3, &[1, 2]);
    for name in 0..20 {
        leader.request(open_session(name));
        leader.receive(2, matched(3, 3 + name));
        leader.advance(HEARTBEAT);
    }
    let expected: Vec<EntryId> = (3..=23).map(|index| at(index, 3)).collect();
    assert_eq!(appended(&leader.take_written()), expected);
}

/// "When sending an AppendEntries RPC, the leader includes the index and term of the entry in its
/// log that immediately precedes the new entries." (5.3)
#[test]
fn leader_includes_the_entry_that_precedes_the_new_ones() {
    let mut leader = Solo::settled_leader(3, 3, &[1, 2]);
    for index in 4..10 {
        let append = append_to(&leader.request(open_session(index)), 2);
        assert_eq!((append.previous, ids(&append.entries)), (at(index - 1, 3), vec![at(index, 3)]));
    }
}

/// "If the follower does not find an entry in its log with the same index and term, then it refuses
/// the new entries." (5.3). It says which entry of its own can be the last that both have.
#[test]
fn follower_refuses_entries_that_do_not_follow_its_log() {
    let mut follower = Solo::with_log(3, 3, &[1, 1, 2, 3]);
    let requests = [
        (at(9, 5), at(4, 3)), // It has no such index.
        (at(5, 1), at(2, 1)), // Nor that one, and nothing of its terms 2 and 3 can be there.
        (at(4, 5), at(4, 3)), // Another term at the same index.
        (at(4, 2), at(3, 2)),
        (at(3, 1), at(2, 1)),
    ];
    for (previous, hint) in requests {
        let request = append_entries(5, previous, &[5], 0);
        let refusal = conflict(5, previous.index.value(), hint);
        assert_eq!(follower.receive(2, request), [(2, refusal)], "after {previous}");
        assert_eq!(follower.log(), [1, 1, 2, 3]);
    }
}

/// "Whenever AppendEntries returns successfully, the leader knows that the follower's log is
/// identical to its own log up through the new entries." (5.3): that far, and no further.
#[test]
fn success_means_that_the_logs_are_identical_up_through_the_new_entries() {
    let mut follower = Solo::with_log(3, 1, &[1, 1, 1, 1, 1, 1]);
    let requests = [
        (heartbeat(2, at(1, 1), 0), 1),
        (append_entries(2, at(1, 1), &[1, 1], 0), 3),
        (heartbeat(2, at(4, 1), 0), 4),
        (append_entries(2, at(4, 1), &[2], 0), 5),
    ];
    for (request, index) in requests {
        assert_eq!(follower.receive(2, request.clone()), [(2, matched(2, index))], "{request:?}");
    }
    assert_eq!(follower.log(), [1, 1, 1, 1, 2]);
}

/// "Conflicting entries in follower logs will be overwritten with entries from the leader's log."
/// (5.3)
#[test]
fn conflicting_entries_are_overwritten() {
    struct Case {
        log: &'static [u64],
        /// After which entry the leader sends, and the terms of what it sends.
        after: u64,
        sent: &'static [u64],
        result: &'static [u64],
    }
    let cases = [
        Case { log: &[1, 1], after: 2, sent: &[3], result: &[1, 1, 3] },
        Case { log: &[1, 1], after: 0, sent: &[2, 3], result: &[2, 3] },
        Case { log: &[1, 1, 2, 2], after: 2, sent: &[3], result: &[1, 1, 3] },
        Case { log: &[1, 1, 2, 2], after: 1, sent: &[1, 3, 3, 3], result: &[1, 1, 3, 3, 3] },
    ];
    for Case { log, after, sent, result } in cases {
        let mut follower = Solo::with_log(3, 2, log);
        let previous = if after == 0 { EntryId::ZERO } else { at(after, 1) };
        let answer = follower.receive(2, append_entries(3, previous, sent, 0));
        assert_eq!(answer, [(2, matched(3, after + sent.len() as u64))]);
        assert_eq!(follower.log(), result, "{log:?}");
    }
}

/// "When a leader first comes to power, it initializes all nextIndex values to the index just after
/// the last one in its log." (5.3)
#[test]
fn next_index_begins_just_after_the_leaders_last_entry() {
    let mut leader = Solo::with_log(3, 5, &[1, 1, 4]);
    let sent = leader.become_leader();
    for peer in [2, 3] {
        let append = append_to(&sent, peer);
        assert_eq!((append.previous, ids(&append.entries)), (at(3, 4), vec![at(4, 6)]));
    }
    for progress in leader.status().progress {
        assert_eq!((progress.matched, progress.next), (LogIndex::ZERO, LogIndex::new(4)));
    }
}

/// "After a rejection, the leader decrements nextIndex and retries the AppendEntries RPC. Eventually
/// nextIndex will reach a point where the leader and follower logs match." (5.3)
#[test]
fn leader_goes_back_after_a_rejection_and_retries() {
    let mut leader = Solo::leader(3, 5, &[1, 1, 2, 4]);
    let sent = leader.receive(2, conflict(5, 4, at(3, 3)));
    let append = append_to(&sent, 2);
    assert_eq!((append.previous, append.entries.len()), (at(3, 2), 2));
    let sent = leader.receive(2, conflict(5, 3, at(2, 1)));
    let append = append_to(&sent, 2);
    assert_eq!(
        (append.previous, ids(&append.entries)),
        (at(2, 1), ids(&leader.disk().entries[2..]))
    );
    let sent = leader.receive(2, matched(5, 5));
    assert!(appends(&sent).iter().all(|(_, append)| append.entries.is_empty()), "{sent:?}");
    let progress = &leader.status().progress[0];
    assert_eq!((progress.matched, progress.next), (LogIndex::new(5), LogIndex::new(6)));
    assert_eq!(progress.state, ProgressState::Replicate);
}

/// "One AppendEntries RPC will be required for each term with conflicting entries, rather than one
/// RPC per entry." (5.3)
#[test]
fn one_rejection_for_each_term_with_conflicting_entries_is_enough() {
    // The leader's log, the follower's, and how many rejections it takes at most.
    let cases: [(&[u64], &[u64], usize); 5] = [
        (&[1, 4, 4, 4, 5, 5, 5, 5], &[1, 2, 2, 2, 3, 3, 3, 3], 1),
        (&[1, 2, 2, 2, 5], &[1, 1, 1, 3, 3], 2),
        (&[1; 50], &[1], 1),
        (&[7; 50], &[6; 50], 1),
        (&[1, 3, 3, 3, 5, 5, 5, 7], &[1, 2, 2, 2, 4, 4, 4, 6, 6, 6], 3),
    ];
    for (ours, theirs, rejections_max) in cases {
        let mut leader = Solo::with_log(3, 9, ours);
        let mut follower = Solo::with_log(3, 9, theirs);
        let said = leader.become_leader();
        let results = converse(&mut leader, said, &mut follower);
        let is_rejection = |result: &&AppendResult| matches!(result, AppendResult::Conflict { .. });
        let rejections = results.iter().filter(is_rejection).count();
        assert!(rejections <= rejections_max, "{theirs:?} takes {results:?}");
        assert_eq!(follower.disk().entries, leader.disk().entries);
    }
}

/// "A leader never overwrites or deletes entries in its own log (the Leader Append-Only Property in
/// Figure 3)." (5.3)
#[test]
fn leader_never_overwrites_or_deletes_its_own_entries() {
    let mut leader = Solo::leader(3, 3, &[1, 2]);
    leader.receive(2, append_entries(3, at(1, 1), &[3], 0));
    leader.receive(2, append_entries(3, EntryId::ZERO, &[3], 1));
    leader.receive(3, append_entries(2, at(1, 1), &[2, 2, 2, 2], 4));
    leader.receive(3, conflict(3, 2, at(1, 1)));
    assert_eq!(leader.log(), [1, 2, 3]);
    assert_eq!(appended(&leader.take_written()), [at(3, 3)]);
    assert_eq!(leader.status().dropped.get(&DropReason::SecondLeader), Some(&2));
}

/// "Raft can accept, replicate, and apply new log entries as long as a majority of the servers are
/// up." (5.3)
#[test]
fn entries_are_accepted_as_long_as_a_majority_is_up() {
    let mut lab = cluster(5);
    let session = lab.open(1, "alice");
    lab.crash(4);
    lab.crash(5);
    hold(&mut lab, 1, session, "with three of five");
    lab.crash(3);
    assert_eq!(lab.perform(1, session, try_acquire("with two of five")), None);
    lab.restart(3);
    lab.run(Duration::from_millis(200));
    assert!(lab.outcome(session, 2).is_some_and(|outcome| outcome.is_ok()), "three again");
}

/// "In the normal case a new entry can be replicated with a single round of RPCs to a majority of
/// the cluster." (5.3)
#[test]
fn entry_is_replicated_in_a_single_round() {
    let mut leader = Solo::settled_leader(3, 1, &[]);
    let mut follower = Solo::new(3);
    follower.receive(2, append_entries(1, EntryId::ZERO, &[1], 1));
    let sent = leader.request(open_session(1));
    assert_eq!(appends(&sent).len(), 2, "one to each");
    let Message::AppendEntries(append) = sent[0].1.clone() else { panic!("{sent:?}") };
    let answer = follower.receive(2, Message::AppendEntries(append));
    let [(2, answer)] = &answer[..] else { panic!("one answer: {answer:?}") };
    leader.receive(2, answer.clone());
    assert_eq!(session_of(&leader.take_replies()), Some(SessionId::new(2)));
}

/// "A single slow follower will not impact performance." (5.3)
#[test]
fn single_slow_follower_makes_no_difference() {
    let mut lab = cluster(3);
    let session = lab.open(1, "alice");
    lab.hold_writes(3, true);
    lab.cut(3, 1);
    let before = lab.now();
    for name in 0..100 {
        hold(&mut lab, 1, session, &format!("lock {name}"));
    }
    assert_eq!(lab.now(), before, "no request waited for a time-out");
    lab.hold_writes(3, false);
    lab.heal();
    lab.run(Duration::from_millis(200));
    assert_eq!(lab.log_of(3), lab.log_of(1));
    let known = lab.status(1).progress;
    assert!(known.iter().all(|peer| peer.matched == lab.status(1).last.index));
}
