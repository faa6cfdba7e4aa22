//! Snapshots: taken, sent in pieces, installed, refused.

use alloc::vec;

use bytes::Bytes;

use super::cluster::{Cluster, bootstrap, config, entry, id, index, node};
use crate::checksum::Checksum;
use crate::config::Config;
use crate::ids::{EntryId, ID_MAX, Term};
use crate::membership::Membership;
use crate::message::{
    Entry, Envelope, InstallSnapshot, InstallSnapshotReply, Message, Payload, Recovered, Snapshot,
    SnapshotResult,
};
use crate::raft::{DropReason, ProgressState, Raft, RaftAction, RecoveredError};
use crate::time::{Duration, LeaseTime, Time};

/// Node 3 is down while the others go on and compact what it lacks.
fn behind() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    cluster.crash(3);
    for _ in 0..10 {
        cluster.propose(1);
        cluster.settle();
    }
    for number in [1, 2] {
        cluster.run(Duration::from_millis(100));
        cluster.compact(number, 0);
    }
    cluster
}

/// A piece of a snapshot that ends at `last`, from node 1 to node 2.
fn piece(term: u64, last: EntryId, data: &[u8], offset: usize, end: usize) -> Envelope {
    let snapshot = Snapshot {
        last,
        stamp: LeaseTime::from_micros(1000),
        membership: Membership::new((1..=3).map(node)).expect("three voters"),
        data: Bytes::copy_from_slice(data),
    };
    let message = Message::InstallSnapshot(InstallSnapshot {
        term: Term::new(term),
        meta: snapshot.meta(),
        offset: offset as u64,
        piece: snapshot.data.slice(offset..end),
    });
    Envelope { from: node(1), to: node(2), message }
}

fn result(cluster: &mut Cluster) -> SnapshotResult {
    let envelope = cluster.network.pop_front().expect("an answer");
    let Message::InstallSnapshotReply(InstallSnapshotReply { result, .. }) = envelope.message
    else {
        panic!("another answer");
    };
    result
}

const DATA: &[u8] = &[0; 32];

#[test]
fn a_follower_that_is_too_far_behind_gets_a_snapshot() {
    let mut cluster = behind();
    cluster.start(3);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.seen.get("snapshot installed"), Some(&1));
    let (leader, follower) = (cluster.raft(1).log_last(), cluster.raft(3).log_last());
    assert_eq!(leader, follower);
    let progress = cluster.raft(1).progress().find(|view| view.node == node(3));
    assert_eq!(progress.map(|view| view.state), Some(ProgressState::Replicate));
}

/// openraft #1828: the whole log is compacted away and nothing new is written.
#[test]
fn an_idle_leader_without_a_log_sends_its_snapshot_to_an_empty_follower() {
    let mut cluster = behind();
    cluster.host(3).disk = bootstrap(3);
    cluster.start(3);
    assert_eq!(cluster.raft(1).log_base(), cluster.raft(1).log_last());
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
}

/// What is retained below a snapshot spares a follower that is a little behind a snapshot.
#[test]
fn retained_entries_are_enough_for_a_follower_that_is_a_little_behind() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    cluster.crash(3);
    cluster.propose(1);
    cluster.run(Duration::from_millis(100));
    cluster.compact(1, 5);
    cluster.start(3);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.raft(3).applied(), cluster.raft(1).applied());
    assert_eq!(cluster.seen.get("snapshot installed"), None);
}

/// RedisLabs/raft #49: a longer log of another leader is no reason to refuse.
#[test]
fn a_longer_log_that_differs_makes_way() {
    let mut cluster = behind();
    let term = cluster.raft(1).term().value();
    let disk = &mut cluster.host(3).disk;
    disk.entries = (1..=40).map(|at| entry(1, at)).collect();
    disk.hard_state.term = Term::new(term - 1).max(Term::new(1));
    cluster.start(3);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.raft(3).log_last(), cluster.raft(1).log_last());
    assert_eq!(cluster.seen.get("snapshot installed"), Some(&1));
}

/// openraft 674e78aa: after a crash right after the installation, nothing of the old log is left.
#[test]
fn an_installation_is_one_step_for_the_disk() {
    let mut cluster = Cluster::new(3);
    for at in 1..=5 {
        let disk = &mut cluster.host(2).disk;
        disk.entries.push(entry(1, at));
        disk.hard_state.term = Term::new(1);
    }
    cluster.crash(2);
    cluster.start(2);
    cluster.host(2).writes_at_once = false;
    cluster.deliver(piece(2, id(2, 4), DATA, 0, 32));
    let answer = cluster.act(2, |raft, now| {
        raft.snapshot_ready(now, id(2, 4), true);
        raft.poll_action()
    });
    assert_eq!(answer, Some(RaftAction::SnapshotInstalled { last: id(2, 4) }));
    assert!(cluster.network.is_empty(), "nothing is promised yet");
    cluster.crash(2);
    cluster.start(2);
    assert_eq!(cluster.raft(2).log_last(), id(1, 5));
}

#[test]
fn pieces_of_two_leaders_never_mix() {
    let mut cluster = Cluster::new(3);
    cluster.deliver(piece(1, id(1, 4), DATA, 0, 10));
    assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 10 });
    cluster.deliver(piece(1, id(1, 4), DATA, 0, 10));
    assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 10 });
    cluster.deliver(piece(2, id(1, 4), DATA, 10, 20));
    assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 0 });
    cluster.deliver(piece(2, id(2, 5), DATA, 0, 20));
    assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 20 });
}

/// etcd #18055, camunda #14367: the same snapshot twice, or two in a row.
#[test]
fn a_snapshot_that_arrives_twice_is_received_once() {
    let mut cluster = Cluster::new(3);
    for _ in 0..3 {
        cluster.deliver(piece(1, id(1, 4), DATA, 0, 32));
        assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 32 });
    }
    assert_eq!(cluster.seen.get("snapshot received"), Some(&1));
}

#[test]
fn data_with_another_checksum_is_forgotten() {
    let mut cluster = Cluster::new(3);
    let mut envelope = piece(1, id(1, 4), DATA, 0, 32);
    if let Message::InstallSnapshot(install) = &mut envelope.message {
        install.meta.checksum = Checksum::of(b"other data");
    }
    cluster.deliver(envelope);
    assert_eq!(result(&mut cluster), SnapshotResult::Failed);
    assert_eq!(cluster.raft(2).drops().get(&DropReason::Checksum), Some(&1));
    assert_eq!(cluster.host(2).received, None);
    cluster.deliver(piece(1, id(1, 4), DATA, 0, 32));
    assert_eq!(cluster.host(2).received, Some(id(1, 4)));
}

#[test]
fn a_snapshot_that_the_node_cannot_use_is_sent_again_later() {
    let mut cluster = behind();
    cluster.start(3);
    while cluster.host(3).received.is_none() {
        cluster.sleep(Duration::from_millis(5));
        cluster.fire();
        while let Some(envelope) = cluster.network.pop_front() {
            cluster.deliver(envelope);
        }
    }
    cluster.judge(3, false);
    assert_eq!(cluster.seen.get("snapshot installed"), None);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.seen.get("snapshot installed"), Some(&1));
}

/// openraft #1892: what is committed is never replaced.
#[test]
fn what_is_committed_needs_no_snapshot() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let before = cluster.raft(follower).applied();
    let term = cluster.raft(leader).term().value();
    let mut envelope = piece(term, id(term, before.index.value()), DATA, 0, 32);
    (envelope.from, envelope.to) = (node(leader), node(follower));
    cluster.deliver(envelope);
    assert_eq!(result(&mut cluster), SnapshotResult::Installed);
    assert_eq!(cluster.raft(follower).snapshot().last, EntryId::ZERO);
    assert_eq!(cluster.host(follower).received, None);
}

/// nebula PR 1769: a follower that waits for a snapshot may campaign, and then takes it all the
/// same.
#[test]
fn a_pre_candidate_goes_on_with_its_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.deliver(piece(1, id(1, 4), DATA, 0, 10));
    cluster.sleep(Duration::from_secs(1));
    cluster.fire();
    cluster.network.clear();
    cluster.deliver(piece(1, id(1, 4), DATA, 10, 32));
    assert_eq!(result(&mut cluster), SnapshotResult::Received { length: 32 });
    assert_eq!(cluster.host(2).received, Some(id(1, 4)));
}

/// canonical/raft, scylladb PR 30984: truncation brings the membership before back into force,
/// not none, and a snapshot brings its own (openraft #1808).
#[test]
fn the_membership_follows_the_log() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    let of = |numbers: &[u64]| Membership::new(numbers.iter().map(|n| node(*n))).expect("voters");
    let joint = Membership::joint([2, 3].map(node), [1, 2, 3].map(node)).expect("voters");
    let propose = |cluster: &mut Cluster, membership: &Membership| {
        let payload = Payload::Membership(membership.clone());
        cluster.act(1, |raft, now| raft.propose(now, payload)).is_ok()
    };
    assert!(propose(&mut cluster, &joint));
    assert!(!propose(&mut cluster, &of(&[2, 3])), "one change at a time");
    cluster.settle();
    // The next one is lost together with its leader.
    cluster.isolate(&[1]);
    assert!(propose(&mut cluster, &of(&[2, 3])));
    assert_eq!(cluster.raft(1).membership(), &of(&[2, 3]));
    cluster.run(Duration::from_secs(3));
    cluster.cut.clear();
    let leader = cluster.leader();
    cluster.propose(leader);
    cluster.run(Duration::from_secs(3));
    for number in 1..=3 {
        assert_eq!(cluster.raft(number).membership(), &joint);
        cluster.compact(number, 0);
        cluster.crash(number);
        cluster.start(number);
        assert_eq!(cluster.raft(number).membership(), &joint);
    }
}

fn recovered(entries: &[(u64, u64)], last: EntryId, term: u64) -> Recovered {
    let entries = entries.iter().map(|(term, at)| entry(*term, *at)).collect();
    let mut recovered = bootstrap(3);
    recovered.snapshot.last = last;
    recovered.snapshot.stamp = LeaseTime::from_micros(last.index.value());
    recovered.hard_state.term = Term::new(term);
    Recovered { entries, ..recovered }
}

fn start(recovered: Recovered) -> Result<Raft, RecoveredError> {
    Raft::new(node(1), &config(), recovered, 1, Time::ZERO)
}

#[test]
fn a_node_starts_from_a_snapshot_and_what_follows_or_was_retained() {
    let tails: [&[(u64, u64)]; 3] =
        [&[], &[(1, 6), (2, 7)], &[(1, 3), (1, 4), (1, 5), (2, 6), (2, 7)]];
    for (tail, base) in tails.into_iter().zip([5, 5, 3]) {
        let raft = start(recovered(tail, id(1, 5), 2)).expect("it fits together");
        raft.check_invariants();
        assert_eq!((raft.commit(), raft.applied()), (index(5), id(1, 5)));
        assert_eq!(raft.log_base().index, index(base));
    }
    let raft = start(recovered(&[(1, 1), (1, 2)], EntryId::ZERO, 2)).expect("it fits together");
    assert_eq!((raft.log_base(), raft.log_last()), (EntryId::ZERO, id(1, 2)));
}

#[test]
fn a_node_does_not_start_from_what_does_not_fit() {
    let last = id(1, 5);
    let refused = |entries: &[(u64, u64)]| start(recovered(entries, last, 2)).err();
    let gap = RecoveredError::Gap { before: id(1, 6), after: id(1, 8) };
    assert_eq!(refused(&[(1, 6), (1, 8)]), Some(gap));
    assert_eq!(refused(&[(2, 6), (1, 7)]), Some(RecoveredError::GoesDown { at: id(1, 7) }));
    let unjoined = |at| Some(RecoveredError::DoesNotJoin { entry: at, snapshot: last });
    assert_eq!(refused(&[(1, 7)]), unjoined(id(1, 7)), "a gap after the snapshot");
    assert_eq!(refused(&[(1, 3), (1, 4)]), unjoined(id(1, 4)), "the log ends below the snapshot");
    let other = [(1, 3), (1, 4), (2, 5), (2, 6)];
    assert_eq!(refused(&other), unjoined(id(2, 6)), "another entry where the snapshot ends");
    let unknown = RecoveredError::TermUnknown { entry: id(3, 6), term: Term::new(2) };
    assert_eq!(refused(&[(3, 6)]), Some(unknown));
}

#[test]
fn a_node_does_not_start_from_a_stamp_that_nobody_believes() {
    for stamp in [LeaseTime::from_micros(ID_MAX / 2 + 1), LeaseTime::MAX] {
        let mut in_snapshot = recovered(&[], id(1, 5), 2);
        in_snapshot.snapshot.stamp = stamp;
        assert_eq!(start(in_snapshot).err(), Some(RecoveredError::Implausible));
        let mut in_entry = recovered(&[(1, 6)], id(1, 5), 2);
        in_entry.entries[0].stamp = stamp;
        assert_eq!(start(in_entry).err(), Some(RecoveredError::Implausible));
    }
}

/// Large entries, of which the number to retain is more than the log has room for.
#[test]
fn what_is_retained_leaves_room_for_what_comes() {
    let log_bytes_max = 64 << 20;
    let mut cluster = Cluster::with(3, Config { log_bytes_max, ..config() });
    cluster.lead(1);
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    for round in 0..200 {
        let proposed = cluster.act(1, |raft, now| raft.propose(now, payload.clone()));
        assert!(proposed.is_ok(), "the log is full for ever: {round}");
        cluster.settle();
        if round % 32 == 31 {
            for number in 1..=3 {
                cluster.compact(number, 1000);
            }
            let raft = cluster.raft(1);
            let kept = raft.bytes_between(raft.log_base().index, raft.snapshot().last.index);
            assert!((15 << 20..=log_bytes_max / 4).contains(&kept), "{kept} bytes are retained");
        }
    }
}

/// The setting was larger when the node stopped.
#[test]
fn what_was_retained_makes_way_at_a_start() {
    let large =
        |at| Entry { payload: Payload::Command(Bytes::from(vec![0; 1 << 20])), ..entry(1, at) };
    let mut recovered = recovered(&[], id(1, 40), 1);
    recovered.entries = (1..=42).map(large).collect();
    let config = Config { log_bytes_max: 64 << 20, ..config() };
    let raft = Raft::new(node(1), &config, recovered, 1, Time::ZERO).expect("it fits together");
    raft.check_invariants();
    assert_eq!((raft.log_base(), raft.log_last()), (id(1, 25), id(1, 42)));
}
