//! Snapshots: pieces, repetitions, contradictions, and followers that need one.

use quorlock_core::config::{Config, Limits};
use quorlock_core::ids::{EntryId, LogIndex, NodeId};
use quorlock_core::lock::{Applied, LockTable};
use quorlock_core::membership::Membership;
use quorlock_core::message::{
    Envelope, Message, Payload, Recovered, Reply, Snapshot, SnapshotResult, Unavailable,
};
use quorlock_core::node::{Event, Input, Output, Timer};
use quorlock_core::raft::{DropReason, ProgressState, Role};
use quorlock_core::time::{Duration, LeaseTime};

use crate::log::some_request;
use crate::solo::{Solo, append, bootstrap, entries, entry, id, install, install_piece, matched};
use crate::tools::{append_to, hold, holder, lab_with, snapshots_every};

/// A snapshot of an empty lock table as of an entry, for nodes 1 to 3.
pub(crate) fn snapshot_at(term: u64, index: u64) -> Snapshot {
    let stamp = entry(term, index).stamp;
    let mut table = LockTable::new(Limits::default());
    table.apply(LogIndex::new(index), stamp, None, &mut Applied::default());
    let membership = bootstrap(3).snapshot.membership;
    Snapshot { last: id(term, index), stamp, membership, data: table.encode() }
}

/// How pieces were answered since anything was last asked for.
fn results(node: &mut Solo) -> Vec<(EntryId, SnapshotResult)> {
    let replies = node.sent().into_iter().filter_map(|envelope| match envelope.message {
        Message::InstallSnapshotReply(reply) => Some((reply.last, reply.result)),
        Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntries(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshot(_)
        | Message::TimeoutNow { .. } => None,
    });
    replies.collect()
}

fn received(length: usize) -> SnapshotResult {
    SnapshotResult::Received { length: length as u64 }
}

/// How often the node put a snapshot of the leader in the place of its state.
fn installations(node: &Solo) -> usize {
    let is = |output: &&Output| matches!(output, Output::Event(Event::SnapshotInstalled { .. }));
    node.others.iter().filter(is).count()
}

fn dropped(node: &Solo, reason: DropReason) -> u64 {
    node.status().dropped.get(&reason).copied().unwrap_or(0)
}

/// A follower of node 2 in term 1, with this many committed entries.
fn follower(count: u64) -> Solo {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=count), count));
    node.persist_all();
    node.sent();
    node
}

/// Hazard 31 (hashicorp/raft #212): a follower that refused a snapshot in the middle took the rest
/// of it for the next message, without end.
#[test]
fn a_snapshot_that_breaks_off_leaves_nothing_behind() {
    let mut node = follower(1);
    let snapshot = snapshot_at(1, 5);
    let (whole, last) = (snapshot.data.len(), snapshot.last);
    node.receive(2, install_piece(1, &snapshot, 0, 10));
    assert_eq!(results(&mut node), [(last, received(10))]);
    for (from, to) in [(20, 30), (0, 10), (5, 15), (whole, whole)] {
        node.receive(2, install_piece(1, &snapshot, from, to));
        assert_eq!(results(&mut node), [(last, received(10))], "a piece at {from} does not fit");
    }
    let Message::InstallSnapshot(mut broken) = install_piece(1, &snapshot, 10, whole) else {
        panic!("it is a piece of a snapshot");
    };
    broken.piece = broken.piece.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>().into();
    node.receive(2, Message::InstallSnapshot(broken));
    assert_eq!(results(&mut node), [(last, SnapshotResult::Failed)]);
    assert_eq!(dropped(&node, DropReason::Checksum), 1);
    node.receive(2, append(1, id(1, 1), entries(1, 2..=2), 2));
    node.persist_all();
    assert_eq!(node.results(), [matched(2)], "what follows is a message like any other");
    node.receive(2, install(1, &snapshot));
    node.persist_all();
    assert_eq!(node.status().applied, last.index);
}

/// Hazard 32 (etcd #18055, camunda #14367): two snapshots in a short time made a node panic, and
/// the same one twice made a follower stop.
#[test]
fn repeated_and_overlapping_snapshots_are_installed_once() {
    let mut node = follower(1);
    let (older, newer, newest) = (snapshot_at(1, 5), snapshot_at(1, 9), snapshot_at(1, 12));
    let end = older.data.len();
    node.receive(2, install_piece(1, &older, 0, 10));
    node.receive(2, install_piece(1, &newer, 0, 10));
    node.receive(2, install_piece(1, &older, 10, end));
    assert_eq!(installations(&node), 0, "pieces of two snapshots make none");
    for _ in 0..3 {
        node.receive(2, install_piece(1, &newer, 10, end));
        node.receive(2, install_piece(1, &older, 10, end));
        node.receive(2, install(1, &newer));
        node.receive(2, install(1, &older));
    }
    node.persist_all();
    assert_eq!((installations(&node), node.status().applied), (1, LogIndex::new(9)));
    for _ in 0..3 {
        node.receive(2, install(1, &newest));
        node.receive(2, install(1, &newer));
    }
    node.persist_all();
    assert_eq!((installations(&node), node.status().applied), (2, LogIndex::new(12)));
    let covered = (newer.last, SnapshotResult::Installed);
    assert!(results(&mut node).contains(&covered), "the leader learns that it is not needed");
    node.receive(2, append(1, id(1, 12), entries(1, 13..=13), 13));
    assert_eq!(node.status().applied, LogIndex::new(13));
}

/// Hazard 33 (openraft #1892): a snapshot was accepted that had another entry at an index that was
/// committed.
#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_not_installed() {
    for index in 1..=5 {
        let mut node = follower(5);
        let before = (node.node.digest(), node.latest());
        node.receive(3, install(2, &snapshot_at(2, index)));
        let installed = (id(2, index), SnapshotResult::Installed);
        node.persist_all();
        assert_eq!(installations(&node), 0);
        let acknowledged = results(&mut node).contains(&installed);
        assert!(!acknowledged, "it says that {} is covered, which it contradicts", installed.0);
        assert_eq!(node.node.digest(), before.0);
        assert_eq!(node.latest().entries, before.1.entries);
        assert_eq!(node.status().applied, LogIndex::new(5));
    }
}

/// Hazard 34 (openraft #1808): a membership of the log stayed in force when a snapshot had taken
/// the place of that part of the log.
#[test]
fn a_snapshot_brings_its_own_membership() {
    let mut node = Solo::new(3);
    let mut change = entry(1, 2);
    let five = Membership::new((1..=5).map(NodeId::new)).expect("five voters");
    change.payload = Payload::Membership(five.clone());
    node.receive(2, append(1, EntryId::ZERO, vec![entry(1, 1), change], 0));
    assert_eq!(node.status().membership, five, "a membership counts from when it is in the log");
    let four = Membership::new((1..=4).map(NodeId::new)).expect("four voters");
    let snapshot = Snapshot { membership: four.clone(), ..snapshot_at(2, 4) };
    node.receive(3, install(2, &snapshot));
    node.persist_all();
    assert_eq!(node.status().membership, four);
    node.crash();
    assert_eq!(node.status().membership, four);
}

/// Hazard 35 (openraft #1828): a leader that had compacted its whole log never spoke to a follower
/// that it knew nothing of, as long as nothing new was written.
#[test]
fn an_idle_leader_without_a_log_serves_a_follower_that_has_nothing() {
    let mut lab = lab_with(3, snapshots_every(1));
    lab.elect(1);
    lab.isolate(3);
    let session = lab.open(1, "a");
    hold(&mut lab, 1, session, "l");
    lab.elect(2);
    lab.settle();
    assert!(lab.status(2).first > lab.status(2).last.index, "everything is compacted");
    let end = lab.status(2).last;
    lab.heal();
    lab.run(Duration::from_secs(3));
    assert!(lab.status(3).applied >= end.index);
    assert_eq!(holder(&lab, 3, "l"), Some(session));
}

/// Hazard 36 (nebula PR 1769): a follower that waited for a snapshot campaigned, and as a candidate
/// refused the snapshot, without end.
#[test]
fn a_candidate_takes_the_snapshot_of_its_leader() {
    let mut node = follower(1);
    let snapshot = snapshot_at(1, 5);
    node.receive(2, install_piece(1, &snapshot, 0, 10));
    node.pre_campaign();
    node.sent();
    node.receive(2, install_piece(1, &snapshot, 10, snapshot.data.len()));
    node.persist_all();
    assert_eq!((node.status().role, node.status().applied), (Role::Follower, snapshot.last.index));
}

/// Hazard 36 (RedisLabs/raft #49): a follower with a longer log of its own refused the snapshot.
#[test]
fn a_longer_log_of_another_term_gives_way_to_a_snapshot() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=20), 0));
    node.persist_all();
    node.receive(3, install(2, &snapshot_at(2, 5)));
    node.persist_all();
    assert_eq!((node.status().applied, node.status().last), (LogIndex::new(5), id(2, 5)));
    assert!(results(&mut node).contains(&(id(2, 5), SnapshotResult::Installed)));
    assert_eq!(node.disk.entries, []);
}

/// Hazard 37 (etcd-raft d87942f): a leader that was sending a snapshot accepted only that one,
/// though the follower had got an older one that its log goes on from.
#[test]
fn an_older_snapshot_that_joins_the_log_is_enough() {
    let config = Config { retained_entries: 6, ..snapshots_every(8) };
    let mut node = Solo::with(3, config);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(3, 1);
    for number in 0..9 {
        node.request(some_request(number));
        node.persist_all();
        node.matched(3, 2 + number);
    }
    let state = |node: &Solo| {
        let progress = node.status().progress.into_iter().find(|it| it.node == NodeId::new(2));
        progress.map(|it| (it.state, it.matched))
    };
    let base = node.status().first.previous();
    assert!(base > LogIndex::new(1), "the log begins later than what node 2 lacks");
    let (previous, hint) = (LogIndex::ZERO, EntryId::ZERO);
    node.append_reply(2, quorlock_core::message::AppendResult::Conflict { previous, hint });
    node.matched(2, 0);
    assert_eq!(state(&node), Some((ProgressState::Snapshot, LogIndex::ZERO)));
    node.sent();
    node.matched(2, base.value() + 1);
    let now = state(&node);
    assert!(matches!(now, Some((ProgressState::Probe | ProgressState::Replicate, _))), "{now:?}");
    let resumed = node.sent_to(2).into_iter().any(|message| {
        matches!(message, Message::AppendEntries(append)
            if append.previous.index > base && !append.entries.is_empty())
    });
    assert!(resumed, "entries go on from there");
}

fn snapshots_taken(node: &Solo) -> usize {
    let is = |output: &&Output| matches!(output, Output::Event(Event::SnapshotTaken { .. }));
    node.others.iter().filter(is).count()
}

/// Hazard 39 (arcadedb #5345): snapshots came after so many entries only. With few but large
/// ones, or with few at all, the log filled the disk.
#[test]
fn snapshots_are_taken_by_size_and_by_time_too() {
    let by_size = Config { snapshot_bytes: 1024, ..Config::default() };
    let mut node = Solo::alone(by_size);
    for number in 0..30 {
        node.request(some_request(number));
        node.persist_all();
    }
    assert!(snapshots_taken(&node) >= 2, "{:?}", node.others);

    let mut node = Solo::alone(Config::default());
    node.request(some_request(1));
    node.persist_all();
    let end = node.now.after(Config::default().snapshot_interval);
    while node.node.poll_timeout().is_some_and(|(at, _)| at <= end) {
        let is_snapshot = node.node.poll_timeout().is_some_and(|(_, it)| it == Timer::Snapshot);
        node.wake();
        node.persist_all();
        if is_snapshot {
            break;
        }
    }
    assert_eq!(snapshots_taken(&node), 1, "of a few entries, after a while");
}

/// Hazard 39, the end of it: once the disk was full, nothing but a restart helped. A host that does
/// not get its files durable holds up every snapshot; then requests are turned away, until it does.
#[test]
fn a_full_log_takes_requests_again_once_it_can_be_compacted() {
    let tight = Config {
        snapshot_bytes: 1 << 20,
        uncommitted_bytes_max: 4 << 20,
        log_bytes_max: 40 << 20,
        ..Config::default()
    };
    let mut lab = lab_with(1, tight);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.hold_effects(1, true);
    let conn = lab.connection(1, session);
    let refused = |replies: Vec<Reply>| {
        replies.into_iter().any(|reply| {
            matches!(reply, Reply::Unavailable { reason: Unavailable::Overloaded, .. })
        })
    };
    let mut sequence = lab.next_sequence(session);
    let large = "a line\n".repeat(100_000);
    let full = (0..100).any(|_| {
        lab.submit(1, session, sequence, append_to("l", token, "f", &large));
        lab.settle();
        sequence += 1;
        refused(lab.replies(conn))
    });
    assert!(full, "the log has a limit: {:?}", lab.status(1));
    lab.hold_effects(1, false);
    lab.settle();
    // The number of the request that was turned away is not used up.
    lab.submit(1, session, sequence - 1, append_to("l", token, "f", "the last\n"));
    lab.settle();
    assert!(lab.outcome(session, sequence - 1).is_some(), "{:?}", lab.replies(conn));
}

/// Hazard 33, hazard 11 and the files: whatever a snapshot's data is, it must be the state at its
/// last entry; the next entry would be applied to another state otherwise, or could not be at all.
#[test]
fn a_snapshot_whose_data_is_of_another_index_is_not_installed() {
    for index in [1, 4, 6, 100] {
        let mut node = follower(1);
        let data = snapshot_at(1, index).data;
        let snapshot = Snapshot { data, ..snapshot_at(1, 5) };
        node.receive(2, install(1, &snapshot));
        node.receive(2, append(1, id(1, 5), entries(1, 6..=6), 6));
        node.persist_all();
        let applied = node.status().applied;
        assert!(
            applied < LogIndex::new(5),
            "the state of {index} was taken for that of 5: {applied}"
        );
    }
}

/// The same on a disk: a damaged snapshot is said to be one at the start.
#[test]
fn a_stored_snapshot_whose_data_is_of_another_index_is_refused() {
    for index in [4, 6, 100] {
        let mut disk: Recovered = bootstrap(3);
        disk.hard_state.term = id(1, 0).term;
        disk.snapshot = Snapshot { data: snapshot_at(1, index).data, ..snapshot_at(1, 5) };
        let now = quorlock_core::time::Time::ZERO;
        let started =
            quorlock_core::node::Node::new(NodeId::new(1), Config::default(), disk, 1, now);
        assert!(started.is_err(), "the state of {index} was taken for that of 5");
    }
}

/// Hazard F10 (openraft 946dc3f9): pieces of one leader's snapshot were put together with those of
/// the next leader's.
#[test]
fn pieces_of_two_leaders_never_mix() {
    // The same snapshot, even.
    let theirs = snapshot_at(1, 5);
    let end = theirs.data.len();
    let mut node = follower(1);
    node.receive(2, install_piece(1, &theirs, 0, 10));
    node.receive(3, install_piece(2, &theirs, 10, end));
    node.persist_all();
    assert_eq!(
        (installations(&node), results(&mut node).last()),
        (0, Some(&(theirs.last, received(0))))
    );

    let mut node = follower(1);
    let stamp = LeaseTime::from_micros(6_000);
    let ours = Snapshot { last: id(2, 5), stamp, ..theirs.clone() };
    node.receive(2, install_piece(1, &theirs, 0, 10));
    node.receive(3, install_piece(2, &ours, 10, end));
    node.persist_all();
    assert_eq!(installations(&node), 0);
    let answered = results(&mut node);
    assert_eq!(answered.last(), Some(&(ours.last, received(0))), "it begins anew: {answered:?}");
    // What the old leader still sends is of a term that is over.
    node.receive(2, install_piece(1, &theirs, 10, end));
    assert_eq!(results(&mut node), [(theirs.last, SnapshotResult::StaleTerm)]);
    node.receive(3, install_piece(2, &ours, 0, end));
    node.persist_all();
    assert_eq!((installations(&node), node.status().applied), (1, ours.last.index));
    let (from, to) = (NodeId::new(3), NodeId::new(1));
    let message = install_piece(2, &ours, 0, end);
    node.input(Input::Message(Envelope { from, to, message }));
    assert_eq!(installations(&node), 1);
}
