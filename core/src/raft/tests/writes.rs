//! Disks that are slow, that stop, and that a crash takes by surprise.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::cluster::{Cluster, entry, id, index, node};
use crate::config::Config;
use crate::ids::{EntryId, LogIndex, ReadRound, Term};
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, Message, Payload,
};
use crate::raft::{Raft, Role};
use crate::time::Duration;

/// What node 1 sends as the leader of `term`.
fn append(term: u64, previous: EntryId, entries: &[Entry], commit: u64) -> Envelope {
    let message = Message::AppendEntries(AppendEntries {
        term: Term::new(term),
        previous,
        entries: entries.to_vec(),
        commit: index(commit),
        round: ReadRound::ZERO,
    });
    Envelope { from: node(1), to: node(2), message }
}

/// What node 2 acknowledged since, in order.
fn matched(cluster: &mut Cluster) -> Vec<u64> {
    let matched = |envelope: Envelope| {
        let Message::AppendEntriesReply(AppendEntriesReply {
            result: AppendResult::Matched(index),
            ..
        }) = envelope.message
        else {
            panic!("not an acknowledgement: {envelope:?}");
        };
        index.value()
    };
    cluster.network.drain(..).map(matched).collect()
}

/// A follower in term 1 whose disk waits to be told.
fn follower() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.deliver(append(1, EntryId::ZERO, &[], 0));
    assert_eq!(matched(&mut cluster), [0]);
    cluster.host(2).writes_at_once = false;
    cluster
}

#[test]
fn entries_are_acknowledged_once_they_are_durable() {
    let mut cluster = follower();
    cluster.deliver(append(1, EntryId::ZERO, &[entry(1, 1), entry(1, 2)], 0));
    cluster.deliver(append(1, id(1, 2), &[entry(1, 3)], 0));
    assert!(cluster.network.is_empty());
    cluster.write(2, 1);
    assert_eq!(matched(&mut cluster), [2]);
    cluster.write(2, 1);
    assert_eq!(matched(&mut cluster), [3]);
}

/// YugabyteDB #32875: a repetition, or a sign of life, has nothing to write and must all the same
/// not acknowledge what is in memory only.
#[test]
fn a_repetition_acknowledges_no_more_than_what_is_durable() {
    let mut cluster = follower();
    let entries = [entry(1, 1), entry(1, 2)];
    cluster.deliver(append(1, EntryId::ZERO, &entries[..1], 0));
    cluster.write(2, 1);
    cluster.deliver(append(1, EntryId::ZERO, &entries, 0));
    cluster.network.clear();
    cluster.deliver(append(1, EntryId::ZERO, &entries, 0));
    assert_eq!(matched(&mut cluster), []);
    cluster.deliver(append(1, id(1, 2), &[], 2));
    assert_eq!(matched(&mut cluster), [1]);
    assert_eq!(cluster.raft(2).commit(), index(2), "it is committed, if not durable here");
}

#[test]
fn an_answer_waits_for_its_term_to_be_durable() {
    let mut cluster = follower();
    cluster.deliver(append(2, EntryId::ZERO, &[], 0));
    assert!(cluster.network.is_empty());
    cluster.write(2, 1);
    assert_eq!(matched(&mut cluster), [0]);
}

/// The end of a log that another leader left behind equals nothing yet.
#[test]
fn leftovers_are_neither_acknowledged_nor_committed() {
    let mut cluster = follower();
    cluster.host(2).writes_at_once = true;
    let old = [entry(1, 1), entry(1, 2), entry(1, 3)];
    cluster.deliver(append(1, EntryId::ZERO, &old, 0));
    cluster.network.clear();
    cluster.deliver(append(2, id(1, 1), &[], 3));
    assert_eq!(matched(&mut cluster), [1]);
    assert_eq!(cluster.raft(2).commit(), index(1));
}

/// The acknowledgement of entries that were overwritten meanwhile, and of those that took their
/// place, in one order of the disk or another.
#[test]
fn overwritten_entries_are_not_acknowledged() {
    let mut cluster = follower();
    cluster.deliver(append(1, EntryId::ZERO, &[entry(1, 1), entry(1, 2)], 0));
    cluster.deliver(append(2, id(1, 1), &[entry(2, 2)], 0));
    cluster.write(2, 1);
    assert!(cluster.network.is_empty(), "the term is not durable");
    cluster.write(2, 1);
    assert_eq!(matched(&mut cluster), [2]);
    assert_eq!(cluster.raft(2).entry(index(2)).map(|entry| entry.id), Some(id(2, 2)));
}

/// Messages that arrive late must not shorten the log (paper, figure 2, step 3).
#[test]
fn an_old_message_removes_nothing() {
    let mut cluster = follower();
    cluster.host(2).writes_at_once = true;
    let entries = [entry(1, 1), entry(1, 2), entry(1, 3)];
    cluster.deliver(append(1, EntryId::ZERO, &entries, 3));
    cluster.deliver(append(1, EntryId::ZERO, &entries[..1], 1));
    assert_eq!(cluster.raft(2).log_last(), id(1, 3));
    assert_eq!(cluster.raft(2).commit(), index(3));
}

#[test]
fn a_leader_counts_itself_once_it_is_durable() {
    let mut cluster = Cluster::new(2);
    cluster.lead(1);
    cluster.settle();
    cluster.host(1).writes_at_once = false;
    let last = cluster.propose(1).expect("a leader takes proposals");
    cluster.settle();
    assert_eq!(cluster.raft(2).durable(), last.index, "it did not wait with sending");
    assert!(cluster.raft(1).commit() < last.index);
    cluster.write(1, 1);
    assert_eq!(cluster.raft(1).commit(), last.index);
}

/// A quorum of followers commits what the leader's own disk does not have yet; then the leader
/// loses it, and gets it back from them.
#[test]
fn a_leader_that_loses_what_is_committed_gets_it_back() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.host(1).writes_at_once = false;
    let last = cluster.propose(1).expect("a leader takes proposals");
    cluster.settle();
    assert_eq!(cluster.raft(1).commit(), last.index);
    cluster.crash(1);
    cluster.host(1).writes_at_once = true;
    cluster.start(1);
    assert!(cluster.raft(1).log_last().index < last.index);
    cluster.run(Duration::from_secs(3));
    assert!(cluster.raft(1).commit() >= last.index);
}

/// Tarantool #9399: a leader that sends signs of life and cannot write holds everything up.
#[test]
fn a_leader_that_cannot_write_steps_down_and_stays_down() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.host(1).writes_at_once = false;
    cluster.propose(1);
    cluster.run(Duration::from_millis(1100));
    assert_ne!(cluster.raft(1).role(), Role::Leader);
    let leader = cluster.leader();
    assert_ne!(leader, 1);
    // The disk works again: nothing needs to be restarted.
    cluster.host(1).writes_at_once = true;
    cluster.write(1, usize::MAX);
    assert!(
        !cluster.hosts[&node(1)].raft.as_ref().is_some_and(|r| r.is_write_stalled(cluster.now))
    );
    cluster.crash(leader);
    assert!([1, 2, 3].contains(&cluster.leader()));
}

#[test]
fn a_node_that_cannot_write_does_not_campaign() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let stalled = if leader == 1 { 2 } else { 1 };
    cluster.host(stalled).writes_at_once = false;
    cluster.propose(leader);
    cluster.run(Duration::from_secs(2));
    cluster.isolate(&[stalled]);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.raft(stalled).role(), Role::Follower);
    assert_eq!(cluster.raft(stalled).leader(), None);
}

/// Entries that are proposed together travel and are written together.
#[test]
fn proposals_share_a_batch_and_a_message() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.run(Duration::from_millis(100));
    cluster.host(1).writes_at_once = false;
    let now = cluster.now;
    for _ in 0..3 {
        let proposed = cluster.raft(1).propose(now, Payload::Empty);
        assert!(proposed.is_ok());
    }
    cluster.act(1, |_, _| ());
    assert_eq!(cluster.host(1).unwritten.len(), 1);
    let sizes: Vec<usize> = cluster
        .network
        .iter()
        .map(|envelope| {
            let Message::AppendEntries(append) = &envelope.message else {
                panic!("not new entries: {envelope:?}");
            };
            append.entries.len()
        })
        .collect();
    assert_eq!(sizes, [3, 3]);
}

/// cockroach #31618: a counter of what is not committed must not be needed at all.
#[test]
fn there_is_room_again_whatever_happened_before() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    for _ in 0..200 {
        while cluster.propose(1).is_some() {}
        cluster.settle();
    }
    cluster.isolate(&[1]);
    let taken = (0..100).filter(|_| cluster.propose(1).is_some()).count();
    assert_eq!(taken, 20, "as many as may be uncommitted");
    assert!(cluster.raft(1).commit() > LogIndex::new(1000));
}

/// A disk of files that hangs holds up every snapshot, and so every compaction.
#[test]
fn a_log_that_cannot_be_compacted_stops_growing_and_goes_on_when_it_can() {
    let log_bytes_max = 64 << 20;
    let config = Config { log_bytes_max, snapshot_bytes: 1 << 20, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.lead(1);
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    let propose = |cluster: &mut Cluster| {
        cluster.act(1, |raft, now| raft.propose(now, payload.clone())).is_ok()
    };
    let mut taken = 0;
    while propose(&mut cluster) {
        taken += 1;
        assert!(taken < 100, "the log grows without end");
        cluster.settle();
    }
    let kept = |raft: &Raft| raft.bytes_between(raft.log_base().index, raft.log_last().index);
    assert!(kept(cluster.raft(1)) <= log_bytes_max);
    assert!(taken >= 60, "all that is not compacted was taken, and that is nearly all: {taken}");
    cluster.compact(1, 0);
    assert!(propose(&mut cluster), "there is room again");
}

/// The same on a follower, whose leader has room: it takes what fits, and the rest when it can.
#[test]
fn a_follower_whose_log_is_full_takes_what_fits_and_the_rest_later() {
    let config = Config { log_bytes_max: 64 << 20, snapshot_bytes: 1 << 20, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.lead(1);
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    for round in 0..84 {
        let proposed = cluster.act(1, |raft, now| raft.propose(now, payload.clone()));
        assert!(proposed.is_ok(), "the leader compacts, and so has room: {round}");
        cluster.settle();
        for node in [1, 2] {
            cluster.compact(node, 20);
        }
    }
    let full = cluster.raft(3).log_last().index;
    assert!(full < cluster.raft(1).log_last().index, "the log of node 3 is full");
    cluster.compact(3, 0);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.raft(3).log_last(), cluster.raft(1).log_last());
}

/// Requests that fill the log must not end the sessions of those who wait for them.
#[test]
fn what_keeps_leases_alive_has_room_when_requests_have_none() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    cluster.settle();
    cluster.isolate(&[1]);
    let lease = |cluster: &mut Cluster| {
        cluster.act(1, |raft, now| raft.propose_lease(now, Payload::Empty)).is_ok()
    };
    while cluster.propose(1).is_some() {}
    let taken = (0..100).take_while(|_| lease(&mut cluster)).count();
    assert_eq!(taken, 5, "a quarter of what may be uncommitted, and no more");
    assert_eq!(cluster.propose(1), None);
}

/// The same in bytes, and with a log that is full; followers whose logs are as full go along.
#[test]
fn what_keeps_leases_alive_is_committed_when_the_log_is_full() {
    let log_bytes_max = 64 << 20;
    let mut cluster = Cluster::with(3, Config { log_bytes_max, ..Config::default() });
    cluster.lead(1);
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    while cluster.act(1, |raft, now| raft.propose(now, payload.clone())).is_ok() {
        cluster.settle();
    }
    let commit = cluster.raft(1).commit();
    let mut taken = 0;
    while cluster.act(1, |raft, now| raft.propose_lease(now, payload.clone())).is_ok() {
        taken += 1;
        assert!(taken < 100, "the log grows without end");
        cluster.settle();
    }
    assert_eq!(taken, 16, "a quarter of the log");
    assert_eq!(cluster.raft(1).commit(), commit.plus(taken));
}

/// What a leader sends to a follower that takes nothing more is one message at each heartbeat.
#[test]
fn a_follower_whose_log_is_full_is_not_sent_a_window_at_each_heartbeat() {
    let config = Config { log_bytes_max: 64 << 20, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.lead(1);
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    for round in 0..100 {
        let proposed = cluster.act(1, |raft, now| raft.propose(now, payload.clone()));
        assert!(proposed.is_ok(), "the leader compacts, and so has room: {round}");
        cluster.settle();
        // From here on the leader keeps what node 3 will lack, so that it sends no snapshot.
        for node in [1, 2].into_iter().filter(|_| round < 70) {
            cluster.compact(node, 1000);
        }
    }
    cluster.run(Duration::from_secs(1));
    assert!(cluster.raft(3).log_last().index < cluster.raft(1).log_last().index);
    let mut sent = 0;
    for _ in 0..200 {
        cluster.sleep(Duration::from_millis(5));
        cluster.fire();
        while let Some(envelope) = cluster.network.pop_front() {
            if let Message::AppendEntries(append) = &envelope.message {
                sent += append.entries.len();
            }
            cluster.deliver(envelope);
        }
    }
    assert!(sent > 0, "it is asked again and again");
    assert!(sent <= 21, "{sent} large entries in 20 heartbeats");
    cluster.compact(3, 0);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.raft(3).log_last(), cluster.raft(1).log_last());
}

/// The files of the leader's host hang, and its log runs full; those of others work.
#[test]
fn a_leader_whose_snapshots_are_held_up_steps_down_before_its_log_is_full() {
    let config = Config { log_bytes_max: 64 << 20, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.lead(1);
    cluster.raft(1).set_snapshot_stalled(true);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.raft(1).role(), Role::Leader, "its log has room");
    let payload = Payload::Command(Bytes::from(vec![0; 1 << 20]));
    let now = cluster.now;
    while cluster.raft(1).poll_timeout().is_none_or(|(at, _)| at > now) {
        let proposed = cluster.act(1, |raft, now| raft.propose(now, payload.clone()));
        assert!(proposed.is_ok(), "it steps down before it turns anything away");
        cluster.settle();
        for number in [2, 3] {
            cluster.compact(number, 0);
        }
    }
    cluster.act(1, Raft::handle_timeout);
    assert_eq!(cluster.raft(1).role(), Role::Follower);
    assert!(cluster.raft(1).poll_timeout().is_some_and(|(at, _)| at > now), "no busy loop");
    let leader = cluster.leader();
    assert_ne!(leader, 1);
    cluster.run(Duration::from_secs(3));
    let other = 5 - leader;
    cluster.crash(other);
    cluster.crash(leader);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.raft(1).role(), Role::Follower, "it does not campaign");
    // The files work again: nothing needs to be restarted.
    cluster.raft(1).set_snapshot_stalled(false);
    cluster.start(other);
    cluster.leader();
}
