//! The log: what is at its two ends, what is overwritten, and how much of it is under way.

use quorlock_core::config::Config;
use quorlock_core::ids::{ClientNonce, EntryId, LogIndex, NodeId, Term};
use quorlock_core::message::{
    AppendResult, Entry, Message, Op, Recovered, Reply, Request, Unavailable,
};
use quorlock_core::node::{Node, StartError};
use quorlock_core::raft::ProgressState;
use quorlock_core::text::Label;
use quorlock_core::time::{Duration, LeaseTime, Time};

use crate::snapshots::snapshot_at;
use crate::solo::{Solo, append, bootstrap, entries, entry, id, install, matched};
use crate::tools::{append_to, hold, lab, lab_with, snapshots_every};

/// A request that adds an entry to a leader's log, whatever it then does.
pub(crate) fn some_request(number: u64) -> Request {
    let (label, lease) = (Label::default(), Duration::from_secs(10));
    Request::OpenSession { nonce: ClientNonce(number, 0), label, lease }
}

/// A leader in term 1 of three voters, with its first entry committed.
fn leader(config: Config) -> Solo {
    let mut node = Solo::with(3, config);
    node.elect(&[2, 3]);
    node.persist_all();
    node.matched(2, 1);
    node.matched(3, 1);
    node.sent();
    node
}

/// The entries of messages with entries.
fn batches(messages: &[Message]) -> Vec<Vec<EntryId>> {
    let batch = |message: &Message| match message {
        Message::AppendEntries(append) if !append.entries.is_empty() => {
            Some(append.entries.iter().map(|entry| entry.id).collect())
        }
        Message::AppendEntries(_)
        | Message::PreVote(_)
        | Message::PreVoteReply(_)
        | Message::RequestVote(_)
        | Message::RequestVoteReply(_)
        | Message::AppendEntriesReply(_)
        | Message::InstallSnapshot(_)
        | Message::InstallSnapshotReply(_)
        | Message::TimeoutNow { .. } => None,
    };
    messages.iter().filter_map(batch).collect()
}

fn start(disk: Recovered) -> Result<Node, StartError> {
    Node::new(NodeId::new(1), Config::default(), disk, 1, Time::ZERO)
}

/// A disk in term 5 with these entries above the snapshot of the bootstrap.
fn disk(entries: Vec<Entry>) -> Recovered {
    let mut disk = bootstrap(3);
    disk.hard_state.term = Term::new(5);
    disk.entries = entries;
    disk
}

/// Hazards 17, 20 and 24 (hashicorp/raft-wal #10, dqlite #190, hashicorp/raft 1.4.0): a log whose
/// parts did not fit together was opened, and failed later. Here it is refused, and why is said.
#[test]
fn a_log_that_does_not_fit_together_is_refused_at_the_start() {
    let stamped =
        |stamp: u64, entry: Entry| Entry { stamp: LeaseTime::from_micros(stamp), ..entry };
    let with_snapshot = |term, index, entries| {
        let mut disk = disk(entries);
        disk.snapshot = snapshot_at(term, index);
        disk
    };
    let bad = [
        ("a gap between entries", disk(vec![entry(1, 1), entry(1, 3)])),
        ("the same index twice", disk(vec![entry(1, 1), entry(1, 1)])),
        ("a gap after the snapshot", with_snapshot(1, 4, entries(1, 6..=7))),
        ("no entry of a log begins at 2 after nothing", disk(entries(1, 2..=3))),
        ("an end before the snapshot", with_snapshot(1, 4, entries(1, 2..=3))),
        ("another entry than the snapshot's", with_snapshot(2, 4, entries(1, 3..=5))),
        ("a term that goes down", disk(vec![entry(2, 1), entry(1, 2)])),
        ("a term that the node never saw", disk(vec![entry(6, 1)])),
        ("a snapshot of such a term", with_snapshot(6, 4, Vec::new())),
        ("a term before the first", disk(vec![entry(0, 1)])),
        ("a stamp that goes down", disk(vec![stamped(9, entry(1, 1)), stamped(8, entry(1, 2))])),
        ("index zero", disk(vec![entry(1, 0), entry(1, 1)])),
    ];
    for (what, disk) in bad {
        let refused = start(disk);
        assert!(matches!(refused, Err(StartError::Recovered(_))), "{what}: {refused:?}");
        let error = refused.expect_err("as above").to_string();
        assert!(error.starts_with("the stored log is damaged: ") && error.len() > 40, "{error}");
    }
    for good in [
        disk(entries(1, 1..=3)),
        with_snapshot(1, 4, Vec::new()),
        with_snapshot(1, 4, entries(1, 5..=7)),
        with_snapshot(1, 4, entries(1, 2..=4)),
        with_snapshot(1, 4, entries(1, 1..=9)),
    ] {
        start(good.clone()).unwrap_or_else(|error| panic!("{error}: {good:?}")).check_invariants();
    }
}

/// Hazard 21 (canonical/raft #372, #450): a truncation met a snapshot that was under way, and went
/// beyond what had been appended.
#[test]
fn a_truncation_meets_appends_and_a_snapshot_under_way() {
    let mut node = Solo::with(3, snapshots_every(3));
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=8), 4));
    assert_eq!(node.status().applied, LogIndex::new(4));
    // Entries 1 to 8, then a snapshot of the first 4, then other entries from 6 on: none durable.
    node.receive(3, append(2, id(1, 5), entries(2, 6..=7), 5));
    assert!(node.writes.iter().any(|batch| batch.snapshot.is_some()), "{:?}", node.writes);
    assert!(node.writes.iter().any(|batch| batch.truncate_from.is_some()));
    for _ in 0..=node.writes.len() {
        // After each batch, what is on the disk is a log.
        let mut crashed = node.clone();
        crashed.crash();
        crashed.node.check_invariants();
        node.persist();
    }
    assert_eq!(node.results().last(), Some(&matched(7)));
    assert_eq!(node.disk.entries.last().map(|entry| entry.id), Some(id(2, 7)));
    node.crash();
    assert_eq!(node.status().last, id(2, 7));
}

/// Hazard 23 (openraft 674e78aa): the log that a snapshot had made void was still there after a
/// crash. One batch does both, so a crash leaves either state and nothing between.
#[test]
fn a_snapshot_and_the_end_of_the_old_log_are_one_write() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=9), 0));
    node.persist_all();
    node.receive(3, install(2, &snapshot_at(2, 5)));
    while !node.writes.is_empty() {
        let mut crashed = node.clone();
        crashed.crash();
        let state = (crashed.status().applied.value(), crashed.status().last);
        assert!(state == (0, id(1, 9)) || state == (5, id(2, 5)), "half of it: {state:?}");
        node.persist();
    }
    node.crash();
    assert_eq!((node.status().last, node.disk.entries.len()), (id(2, 5), 0));
    node.receive(3, append(2, id(2, 5), entries(2, 6..=6), 6));
    node.persist_all();
    assert_eq!(node.results().last(), Some(&matched(6)));
}

/// Hazard 24 (hashicorp/raft 1.4.0): after a snapshot was restored, the next entry was a gap to
/// the log store.
#[test]
fn entries_go_on_after_a_snapshot_without_a_gap() {
    let mut node = Solo::new(3);
    node.receive(2, install(1, &snapshot_at(1, 5)));
    node.persist_all();
    node.receive(2, append(1, id(1, 5), entries(1, 6..=8), 7));
    for _ in 0..2 {
        node.persist_all();
        node.crash();
        assert_eq!(node.disk.entries.first().map(|entry| entry.id), Some(id(1, 6)));
        assert_eq!(node.status().first, LogIndex::new(6));
        node.receive(2, append(1, id(1, 8), Vec::new(), 8));
    }
    assert_eq!(node.status().applied, LogIndex::new(8));
}

/// Hazard 25 (etcd-raft 76f1249): what a slow follower lacked was compacted away; the leader
/// sent a term of 0 for the entry before, which the follower took for a match, and it committed
/// beyond its log.
#[test]
fn a_slow_follower_of_a_compacted_log_gets_a_snapshot() {
    let few = Config { message_entries_max: 2, in_flight_entries_max: 2, ..snapshots_every(4) };
    let mut node = leader(few);
    for number in 0..10 {
        node.request(some_request(number));
        node.persist_all();
        node.matched(3, 2 + number);
    }
    let mut sent = node.sent_to(2);
    for message in &sent {
        let Message::AppendEntries(append) = message else { continue };
        let real = append.previous.term == Term::new(1) && append.previous.index.value() <= 11;
        let nothing = append.previous == EntryId::ZERO && append.entries.is_empty();
        assert!(real || nothing, "an entry before that is none: {append:?}");
    }
    assert!(node.status().first > LogIndex::new(4), "what node 2 lacks is gone");
    node.matched(2, 3);
    let state =
        node.status().progress.iter().find(|it| it.node == NodeId::new(2)).map(|it| it.state);
    assert_eq!(state, Some(ProgressState::Snapshot));
    sent.extend(node.sent_to(2));
    assert!(sent.iter().any(|it| matches!(it, Message::InstallSnapshot(_))));

    // The follower's side: what matches nothing says nothing about its log.
    let mut follower = Solo::new(3);
    follower.receive(2, append(1, EntryId::ZERO, entries(1, 1..=5), 0));
    follower.persist_all();
    follower.sent();
    follower.receive(3, append(2, EntryId::ZERO, Vec::new(), 5));
    follower.persist_all();
    assert_eq!(follower.results(), [matched(0)]);
    assert_eq!(follower.status().commit, LogIndex::ZERO, "none of it is known to be the leader's");
}

/// Hazards 26 and 27 (etcd-raft 0c22de0, openraft 71a290cd): an append that began below the first
/// entry made the look-up of a term panic, or was taken for a conflict and cost the log.
#[test]
fn an_append_from_before_the_snapshot_is_no_conflict() {
    let mut node = Solo::new(3);
    node.receive(2, install(1, &snapshot_at(1, 5)));
    node.receive(2, append(1, id(1, 5), entries(1, 6..=8), 6));
    node.persist_all();
    node.sent();
    for (previous, sent) in [
        (EntryId::ZERO, entries(1, 1..=2)),
        (id(1, 2), Vec::new()),
        (id(1, 2), entries(1, 3..=4)),
        (id(1, 2), entries(1, 3..=7)),
        (id(1, 4), entries(1, 5..=5)),
        (id(1, 5), Vec::new()),
    ] {
        node.receive(2, append(1, previous, sent, 6));
        assert_eq!(node.results(), [matched(8)], "after {previous}");
        assert_eq!((node.status().last, node.writes.len()), (id(1, 8), 0), "nothing was removed");
    }
    node.receive(2, append(1, id(1, 2), entries(1, 3..=9), 9));
    node.persist_all();
    assert_eq!(node.results(), [matched(9)]);
    assert_eq!(node.status().applied, LogIndex::new(9));
}

/// Hazard 28 (etcd-raft 8ecce32, cockroach #28918): entries that came in pages let the commit
/// index go back, or left some out.
#[test]
fn pages_of_one_entry_leave_none_out() {
    let small = Config { message_bytes_max: 1024, in_flight_bytes_max: 1024, ..Config::default() };
    let mut lab = lab_with(3, small);
    lab.elect(1);
    let session = lab.open(1, "a");
    let token = hold(&mut lab, 1, session, "l");
    lab.isolate(3);
    for number in 0..20 {
        let line = format!("{number}\n").repeat(600);
        lab.perform(1, session, append_to("l", token, "f", &line));
    }
    lab.crash(3);
    lab.restart(3);
    lab.heal();
    lab.run(Duration::from_millis(2100));
    assert_eq!(lab.status(3).applied, lab.status(1).applied);
    assert_eq!(lab.node(3).digest(), lab.node(1).digest());
    assert_eq!(lab.lab_node(3).file("f"), lab.lab_node(1).file("f"));
}

/// Hazard 29 (etcd-raft a370b6f, cockroach #31618): the counter of what was not committed leaked,
/// until every proposal was refused.
#[test]
fn the_limit_on_uncommitted_entries_does_not_leak() {
    let few = Config { uncommitted_entries_max: 2, ..snapshots_every(16) };
    let mut node = Solo::alone(few);
    let overloaded = |replies: &[Reply]| {
        let is = |reply: &&Reply| {
            matches!(reply, Reply::Unavailable { reason: Unavailable::Overloaded, .. })
        };
        replies.iter().filter(is).count()
    };
    let mut proposed = 0;
    for _ in 0..5000 {
        for _ in 0..3 {
            proposed += 1;
            node.request(close_of_nobody(proposed));
        }
        assert_eq!(overloaded(&node.replies()), 1, "two of three, always");
        node.persist_all();
        node.replies();
        node.others.clear();
    }
    assert_eq!(node.status().commit, node.status().last.index);
}

/// A request that leaves the state as it was.
fn close_of_nobody(sequence: u64) -> Request {
    use quorlock_core::ids::{Sequence, SessionId};
    use quorlock_core::message::{Acked, Submission};
    Request::Submit(Submission {
        session: SessionId::MAX,
        sequence: Sequence::new(sequence),
        acked: Acked::default(),
        op: Op::CloseSession,
    })
}

/// Hazard 29, when the entries are not committed but overwritten.
#[test]
fn entries_that_are_overwritten_leave_the_limit() {
    let few = Config { uncommitted_entries_max: 2, ..Config::default() };
    let mut node = leader(few);
    for round in 0..50 {
        let term = node.status().term;
        for number in 0..3 {
            node.request(some_request(round * 3 + number));
        }
        assert_eq!(node.replies().len(), 1, "one of three is turned away");
        // Another leader overwrites what this one did not commit; then this one leads again.
        let (other, commit) = (term.next().value(), node.status().commit);
        let committed = node.latest().entries.into_iter().find(|it| it.id.index == commit);
        let Entry { id: before, stamp, .. } = committed.expect("the first of the term");
        let first = commit.next().value();
        let theirs = Entry { stamp, ..entry(other, first) };
        node.receive(2, append(other, before, vec![theirs], first));
        node.persist_all();
        node.elect(&[2, 3]);
        node.persist_all();
        let last = node.status().last.index.value();
        node.matched(2, last);
        assert_eq!(node.status().commit.value(), last);
        node.replies();
    }
}

/// Hazard 30 (etcd-raft e419ba5): the count of bytes in flight was not reset with the state, and
/// the stream to the follower stopped.
#[test]
fn the_window_to_a_follower_opens_again_after_a_probe() {
    let window = Config { message_entries_max: 1, in_flight_entries_max: 3, ..Config::default() };
    let mut node = leader(window);
    for number in 0..60 {
        node.request(some_request(number));
    }
    node.persist_all();
    let mut has = 1;
    assert_eq!(batches(&node.sent_to(2)).len(), 3, "the window is full");
    for _ in 0..10 {
        // The second message got lost, so the third does not fit.
        let (previous, hint) = (LogIndex::new(has + 2), id(1, has + 1));
        node.append_reply(2, AppendResult::Conflict { previous, hint });
        let probe = batches(&node.sent_to(2));
        assert_eq!(probe, [vec![id(1, has + 2)]], "one message, to find out");
        node.matched(2, has + 2);
        has += 2;
        let stream = batches(&node.sent_to(2));
        let expected: Vec<Vec<EntryId>> = (1..=3).map(|after| vec![id(1, has + after)]).collect();
        assert_eq!(stream, expected, "the whole window again");
    }
}

/// Hazard 18 is about a torn record on a disk; what consensus adds is that a log that was cut
/// short can be written to, and opened, twice.
#[test]
fn a_log_that_was_cut_short_goes_on_through_two_restarts() {
    let mut lab = lab(3);
    lab.elect(1);
    let session = lab.open(1, "a");
    hold(&mut lab, 1, session, "l");
    lab.hold_writes(3, true);
    hold(&mut lab, 1, session, "m");
    for _ in 0..2 {
        lab.crash(3);
        lab.restart(3);
        lab.hold_writes(3, false);
        lab.run(Duration::from_secs(1));
        hold(&mut lab, 1, session, "n");
        assert_eq!(lab.log_of(3), lab.log_of(1));
        lab.hold_writes(3, true);
        hold(&mut lab, 1, session, "o");
    }
}
