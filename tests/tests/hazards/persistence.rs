//! Promises and the disk: what was said before it was durable, and what was believed to be.

use quorlock_core::ids::{EntryId, LogIndex, NodeId, WriteId};
use quorlock_core::message::{AppendResult, Message, SnapshotResult, VoteReply};
use quorlock_core::raft::Role;
use quorlock_core::time::Duration;

use crate::snapshots::snapshot_at;
use crate::solo::{Solo, append, entries, entry, id, install, matched, vote_request};
use crate::tools::{acquire, hold, holder, lab, lab_with, snapshots_every};

/// The entries on a disk.
fn on_disk(node: &Solo) -> Vec<EntryId> {
    node.disk.entries.iter().map(|entry| entry.id).collect()
}

/// A follower in term 1 whose leader is node 2, with this many entries that are durable.
fn follower(count: u64) -> Solo {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=count), 0));
    node.persist_all();
    assert_eq!(node.results(), [matched(count)]);
    node
}

/// Hazard 1 (TiKV #994): a follower acknowledged entries before its fsync. They were lost in a
/// crash, and the next heartbeat with a commit index above its log made it panic.
#[test]
fn an_acknowledgement_waits_for_the_disk() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=3), 0));
    assert_eq!(node.results(), [], "nothing is durable yet");
    node.crash();
    node.receive(2, append(1, id(1, 3), Vec::new(), 3));
    node.persist_all();
    let previous = LogIndex::new(3);
    assert_eq!(node.results(), [AppendResult::Conflict { previous, hint: EntryId::ZERO }]);
    assert_eq!(node.status().commit, LogIndex::ZERO, "it commits nothing that it does not have");
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=3), 3));
    node.persist_all();
    assert_eq!(node.results(), [matched(3)]);
    assert_eq!(node.status().commit, LogIndex::new(3));
}

/// Hazard 2 (YugabyteDB #32875): the wait for the disk was skipped when a repeated message had no
/// new entries left, so that its answer acknowledged entries in memory.
#[test]
fn a_repeated_append_is_acknowledged_no_further_than_the_disk() {
    let mut node = follower(1);
    node.receive(2, append(1, id(1, 1), entries(1, 2..=4), 0));
    node.receive(2, append(1, id(1, 1), entries(1, 2..=4), 0));
    node.receive(2, append(1, id(1, 2), entries(1, 3..=3), 0));
    node.receive(2, append(1, id(1, 4), Vec::new(), 0));
    for result in node.results() {
        assert_eq!(result, matched(1), "only the first is durable");
    }
    node.persist_all();
    assert_eq!(node.results().last(), Some(&matched(4)));
}

/// Hazard 3 (etcd #14370): a node that is a cluster by itself answered before its log was written.
#[test]
fn a_cluster_of_one_answers_when_its_log_is_durable() {
    let mut lab = lab(1);
    lab.elect(1);
    let session = lab.open(1, "a");
    lab.hold_writes(1, true);
    lab.submit(1, session, 1, acquire("l"));
    lab.settle();
    assert_eq!(lab.outcome(session, 1), None, "its entry could still be lost");

    let mut lost = lab.clone();
    lost.crash(1);
    lost.restart(1);
    lost.hold_writes(1, false);
    lost.elect(1);
    assert_eq!(holder(&lost, 1, "l"), None, "and here it was");

    lab.persist_all(1);
    lab.settle();
    assert!(lab.outcome(session, 1).is_some());
    lab.crash(1);
    lab.restart(1);
    lab.hold_writes(1, false);
    lab.elect(1);
    assert_eq!(holder(&lab, 1, "l"), Some(session));
}

/// Hazard 4 (etcd-raft e9e525d): a candidate counted its vote for itself before it was durable. It
/// could win, crash, and vote for somebody else in the same term.
#[test]
fn a_vote_for_oneself_counts_once_it_is_durable() {
    let mut alone = Solo::new(1);
    alone.wake_until("a campaign", |node| node.status().role != Role::Follower);
    assert_eq!(alone.status().role, Role::Candidate, "alone, and still not elected");
    alone.persist();
    assert_eq!(alone.status().role, Role::Leader);

    let mut node = Solo::new(3);
    node.pre_campaign();
    node.sent();
    let granted = |term, campaign| VoteReply { term, campaign, granted: true };
    let (zero, one) = (id(0, 0).term, id(1, 1).term);
    node.receive(2, Message::PreVoteReply(granted(zero, one)));
    assert_eq!(node.status().role, Role::Candidate);
    assert_eq!(node.sent(), [], "nobody is asked before the vote for itself is durable");
    node.receive(2, Message::RequestVoteReply(granted(one, one)));
    assert_eq!(node.status().role, Role::Candidate, "one vote of three is on a disk");
    node.crash();
    node.receive(3, Message::RequestVote(vote_request(1, EntryId::ZERO)));
    node.persist_all();
    assert_eq!(node.votes(), [granted(one, one)], "nobody was promised anything");
}

/// Hazard 5 (hashicorp/raft 901ac15): a candidate's vote for itself was not on its disk.
#[test]
fn a_vote_for_oneself_survives_a_crash() {
    let mut node = Solo::new(3);
    node.pre_campaign();
    let campaign = id(1, 0).term;
    let reply = VoteReply { term: campaign.previous(), campaign, granted: true };
    node.receive(2, Message::PreVoteReply(reply));
    node.persist_all();
    assert!(node.sent().iter().any(|it| matches!(it.message, Message::RequestVote(_))));
    node.crash();
    assert_eq!(node.disk.hard_state.vote, Some(NodeId::new(1)));
    node.receive(3, Message::RequestVote(vote_request(1, id(0, 0))));
    node.persist_all();
    assert_eq!(node.votes(), [VoteReply { term: campaign, campaign, granted: false }]);
}

/// Hazard 6 (Redpanda #14, #19): the vote was forgotten on stepping down in the same term, and a
/// second one given: two leaders.
#[test]
fn the_vote_of_a_term_outlives_every_role() {
    let mut node = Solo::new(3);
    node.pre_campaign();
    let campaign = id(1, 0).term;
    let reply = VoteReply { term: campaign.previous(), campaign, granted: true };
    node.receive(2, Message::PreVoteReply(reply));
    node.persist_all();
    // Another one is elected in this very term.
    node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(node.status().role, Role::Follower);
    node.pass(Duration::from_secs(5));
    node.sent();
    node.receive(3, Message::RequestVote(vote_request(1, id(0, 9))));
    node.persist_all();
    assert_eq!(node.votes(), [VoteReply { term: campaign, campaign, granted: false }]);

    // The same for a vote for another.
    let mut node = Solo::new(3);
    node.receive(2, Message::RequestVote(vote_request(1, EntryId::ZERO)));
    node.persist_all();
    node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    node.pass(Duration::from_secs(5));
    node.sent();
    node.receive(3, Message::RequestVote(vote_request(1, id(0, 9))));
    node.persist_all();
    assert_eq!(node.votes(), [VoteReply { term: campaign, campaign, granted: false }]);
}

/// Hazard 7 (openraft a9f696a9): a new leader counted its first entry as written, and reported
/// as committed what only others had.
#[test]
fn a_leader_counts_its_own_disk_like_any_other() {
    let mut node = Solo::new(3);
    node.elect(&[2]);
    assert_eq!(node.writes.len(), 1, "its first entry is on the way to the disk");
    node.matched(2, 1);
    assert_eq!(node.status().commit, LogIndex::ZERO, "one disk of three has it");
    node.persist_all();
    assert_eq!(node.status().commit, LogIndex::new(1));
}

/// Hazard 8 (openraft ee460f37): answers left when some write was done, not the one that they
/// depended on.
#[test]
fn each_answer_waits_for_its_own_write() {
    let mut node = follower(1);
    node.receive(2, append(1, id(1, 1), entries(1, 2..=3), 0));
    node.receive(2, append(1, id(1, 3), entries(1, 4..=5), 0));
    node.pass(Duration::from_secs(5));
    node.receive(3, Message::RequestVote(vote_request(2, id(1, 9))));
    assert_eq!(node.writes.len(), 3);
    node.persist();
    assert!(node.sent().is_empty(), "its term is over, and the new one is not durable");
    node.persist();
    assert!(node.sent().is_empty());
    node.persist();
    let term = id(2, 0).term;
    assert_eq!(node.votes(), [VoteReply { term, campaign: term, granted: true }]);

    let mut node = follower(1);
    node.receive(2, append(1, id(1, 1), entries(1, 2..=3), 0));
    node.receive(2, append(1, id(1, 3), entries(1, 4..=5), 0));
    node.persist();
    assert_eq!(node.results(), [matched(3)]);
    node.persist();
    assert_eq!(node.results(), [matched(5)]);
}

/// Hazard 9 (openraft #1960): an older completion overwrote the progress of a newer one, and a
/// cluster of one waited for ever.
#[test]
fn an_older_completion_takes_nothing_back() {
    let mut lab = lab(1);
    lab.elect(1);
    let session = lab.open(1, "a");
    lab.hold_writes(1, true);
    for sequence in 1..=3 {
        lab.submit(1, session, sequence, acquire("l"));
    }
    let batches: Vec<WriteId> = lab.lab_node(1).writes().map(|batch| batch.id).collect();
    assert_eq!(batches.len(), 3);
    lab.persist_together(1);
    let status = lab.status(1);
    assert_eq!(status.durable, status.last.index);
    for batch in batches {
        lab.input(1, quorlock_core::node::Input::Persisted { up_to: batch });
        assert_eq!(lab.status(1), status, "{batch} was covered already");
    }
    lab.hold_writes(1, false);
    lab.settle();
    assert!(lab.outcome(session, 3).is_some(), "and it goes on");
}

/// Hazard 10 (etcd-raft, the append ABA race): the late completion of a write of entries that
/// were overwritten meanwhile was taken for that of the entries that are there now.
#[test]
fn a_late_completion_of_overwritten_entries_counts_for_nothing() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=2), 0));
    node.receive(3, append(2, EntryId::ZERO, Vec::new(), 0));
    node.receive(3, append(2, EntryId::ZERO, entries(2, 1..=2), 0));
    assert_eq!(node.writes.len(), 3, "the old entries, the new term, the new entries");
    node.persist();
    node.persist();
    for result in node.results() {
        assert_eq!(result, matched(0), "the disk has what is not in the log any more");
    }
    assert_eq!(node.status().durable, LogIndex::ZERO);
    node.persist();
    assert_eq!(node.results(), [matched(2)]);
    assert_eq!(on_disk(&node), [id(2, 1), id(2, 2)]);
}

/// Hazard 11 (raft-rs #417): a write was acknowledged after a newer snapshot had moved the first
/// index, and how far the disk was got lost.
#[test]
fn acknowledgements_count_with_two_snapshots_under_way() {
    let mut lab = lab_with(3, snapshots_every(3));
    lab.elect(1);
    let session = lab.open(1, "a");
    lab.hold_writes(2, true);
    for _ in 0..9 {
        hold(&mut lab, 1, session, "l");
    }
    let snapshots = lab.lab_node(2).writes().filter(|batch| batch.snapshot.is_some()).count();
    assert!(snapshots >= 2, "{snapshots} snapshots are on the way to the disk");
    while lab.persist(2) {
        let (durable, last) = (lab.status(2).durable, lab.status(2).last.index);
        assert!(durable <= last);
    }
    lab.settle();
    assert_eq!(lab.status(2).durable, lab.status(2).last.index, "all of it is durable");
    let progress = lab.status(1).progress;
    let of_two = progress.iter().find(|it| it.node == NodeId::new(2)).map(|it| it.matched);
    assert_eq!(of_two, Some(lab.status(1).last.index), "and the leader knows");
}

/// Hazard 12 (etcd-raft 0675f3d, raft-rs #372): whether a change had to be synced before the
/// next message was decided by a flag of its own, and wrongly.
#[test]
fn nothing_is_promised_before_its_write() {
    // A vote.
    let mut node = Solo::new(3);
    node.receive(2, Message::RequestVote(vote_request(1, EntryId::ZERO)));
    assert_eq!((node.votes().len(), node.writes.len()), (0, 1));
    node.persist();
    assert_eq!(node.votes().len(), 1);
    // Even a refusal is a promise once it has raised the term.
    let mut node = follower(2);
    node.pass(Duration::from_secs(5));
    node.receive(3, Message::RequestVote(vote_request(4, EntryId::ZERO)));
    assert_eq!((node.votes().len(), node.writes.len()), (0, 1));
    node.persist();
    assert!(node.votes().iter().all(|vote| !vote.granted));
    // A term alone, for a sign of life.
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, Vec::new(), 0));
    assert_eq!((node.results().len(), node.writes.len()), (0, 1));
    node.persist();
    assert_eq!(node.results(), [matched(0)]);
    // A snapshot.
    let mut node = follower(1);
    node.receive(2, install(1, &snapshot_at(1, 5)));
    let installed = |node: &mut Solo| {
        node.sent().iter().any(|envelope| {
            matches!(&envelope.message, Message::InstallSnapshotReply(reply)
                if reply.result == SnapshotResult::Installed)
        })
    };
    assert!(!installed(&mut node), "it is not durable");
    node.persist_all();
    assert!(installed(&mut node));
}

/// Hazard 13 (etcd #14140, #14143): what was committed depended on a commit index that was
/// not synced. Here it may be lost, together with everything else that is not durable.
#[test]
fn nothing_depends_on_a_durable_commit_index() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    hold(&mut lab, 1, session, "l");
    for n in 1..=3 {
        lab.crash(n);
    }
    for n in 1..=3 {
        lab.restart(n);
        assert_eq!(lab.status(n).commit, LogIndex::ZERO, "nobody knows what is committed");
    }
    lab.elect(2);
    lab.run(Duration::from_secs(1));
    for n in 1..=3 {
        assert_eq!(holder(&lab, n, "l"), Some(session), "and nothing of it is lost");
    }
}

/// Hazard 14 (etcd #13766, #14685): the index up to which entries were applied was persisted
/// apart from the data. Here both are in one snapshot, in one batch, and each batch is a place to
/// start again from.
#[test]
fn state_and_applied_index_are_durable_together() {
    let mut lab = lab_with(3, snapshots_every(4));
    lab.check_restarts();
    lab.elect(1);
    let session = lab.open(1, "a");
    for number in 0..10 {
        hold(&mut lab, 1, session, &format!("l{}", number % 3));
    }
    lab.elect(2);
    let points = lab.check_recovery_points();
    assert!(points > 30, "every batch of every node: {points}");
}

/// Hazard 15 (etcd #10817, #13509, #15699, #16220; cockroach #127905): a node came back with an
/// older disk under its own name, and `tocommit out of range` brought it down. To refuse such a
/// disk is the host's part. Here: neither it nor its leader panics or counts what it has lost.
#[test]
fn a_disk_that_was_put_back_brings_nobody_down() {
    let mut leader = Solo::new(3);
    leader.elect(&[2, 3]);
    leader.persist_all();
    leader.matched(2, 1);
    leader.matched(3, 1);
    let (previous, hint) = (LogIndex::new(1), EntryId::ZERO);
    leader.append_reply(2, AppendResult::Conflict { previous, hint });
    leader.append_reply(2, matched(0));
    leader.wake();
    assert_eq!(leader.status().commit, LogIndex::new(1));

    let mut old = Solo::new(3);
    old.receive(2, append(1, id(1, 8), Vec::new(), 8));
    old.receive(2, append(1, id(1, 8), vec![entry(1, 9)], 9));
    old.persist_all();
    assert_eq!(old.status().commit, LogIndex::ZERO);
    assert!(old.results().iter().all(|it| matches!(it, AppendResult::Conflict { .. })));
}
