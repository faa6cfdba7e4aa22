//! Every kind of message, every number in it at its extremes, to a node in every role.
//!
//! The values are put together systematically rather than at random: it is the one value next to a
//! boundary, in the one role, that gets forgotten. After each message the node must still stand: its
//! invariants hold, what it writes is a disk that it can start from, it votes once in a term, what
//! it had committed is there, and it goes on when time does.

use bytes::Bytes;
use quorlock_core::checksum::Checksum;
use quorlock_core::codec::SNAPSHOT_BYTES_MAX;
use quorlock_core::ids::{EntryId, ID_MAX, LogIndex, NodeId, ReadRound, Term};
use quorlock_core::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, InstallSnapshot,
    InstallSnapshotReply, Message, Payload, SnapshotMeta, SnapshotResult, VoteReply, VoteRequest,
};
use quorlock_core::node::Input;
use quorlock_core::raft::{DropReason, Role};
use quorlock_core::time::{Duration, LeaseTime};

use crate::log::some_request;
use crate::snapshots::snapshot_at;
use crate::solo::{Solo, append, entries, entry, id, install_piece};

const MAX: u64 = ID_MAX;
const TERMS: [u64; 6] = [0, 1, 2, 3, MAX - 1, MAX];
const INDEXES: [u64; 8] = [0, 1, 2, 3, 4, 9, MAX - 1, MAX];
const ROUNDS: [u64; 4] = [0, 1, MAX - 1, MAX];
const LENGTHS: [u64; 7] =
    [0, 1, 10, SNAPSHOT_BYTES_MAX as u64, SNAPSHOT_BYTES_MAX as u64 + 1, u64::MAX - 1, u64::MAX];

/// A node of three in each role: the log has entries 1 to 3 of term 2, the first two committed.
fn nodes() -> Vec<(&'static str, Solo)> {
    let new = Solo::new(3);
    let mut follower = Solo::new(3);
    follower.receive(3, append(2, EntryId::ZERO, entries(2, 1..=3), 2));
    follower.persist_all();
    let mut unwritten = follower.clone();
    unwritten.receive(3, append(2, id(2, 3), entries(2, 4..=5), 3));
    let mut receiving = follower.clone();
    receiving.receive(3, install_piece(2, &snapshot_at(2, 9), 0, 10));
    let mut fetched = Solo::new(3);
    fetched.receive(3, crate::solo::install(2, &snapshot_at(2, 3)));
    fetched.persist_all();
    let mut pre_candidate = follower.clone();
    pre_candidate.pre_campaign();
    let mut candidate = pre_candidate.clone();
    let campaign = candidate.status().term.next();
    let vote = VoteReply { term: campaign.previous(), campaign, granted: true };
    candidate.receive(2, Message::PreVoteReply(vote));
    candidate.persist_all();
    let mut leader = follower.clone();
    leader.elect(&[2]);
    leader.request(some_request(1));
    leader.persist_all();
    leader.matched(2, 2);
    let mut transferring = leader.clone();
    transferring.input(Input::TransferLeadership { to: Some(NodeId::new(2)) });
    vec![
        ("new", new),
        ("follower", follower),
        ("unwritten", unwritten),
        ("receiving", receiving),
        ("fetched", fetched),
        ("pre-candidate", pre_candidate),
        ("candidate", candidate),
        ("leader", leader),
        ("transferring", transferring),
    ]
}

fn entry_ids() -> impl Iterator<Item = EntryId> {
    TERMS.into_iter().flat_map(|term| INDEXES.into_iter().map(move |index| id(term, index)))
}

fn terms() -> impl Iterator<Item = Term> {
    TERMS.into_iter().map(Term::new)
}

fn vote_requests() -> Vec<Message> {
    let mut messages = Vec::new();
    for term in terms() {
        for last in entry_ids() {
            for transfer in [false, true] {
                let request = VoteRequest { term, last, transfer };
                messages.push(Message::PreVote(request.clone()));
                messages.push(Message::RequestVote(request));
            }
        }
    }
    messages
}

fn vote_replies() -> Vec<Message> {
    let mut messages = Vec::new();
    for term in terms() {
        for campaign in terms() {
            for granted in [false, true] {
                let reply = VoteReply { term, campaign, granted };
                messages.push(Message::PreVoteReply(reply.clone()));
                messages.push(Message::RequestVoteReply(reply));
            }
        }
    }
    messages.extend(terms().map(|term| Message::TimeoutNow { term }));
    messages
}

/// Lists of entries: in order after `previous`, and out of order in every way.
fn entry_lists(term: u64, previous: EntryId) -> Vec<Vec<Entry>> {
    let (before, at) = (previous.term.value(), previous.index.next().value());
    let next = entry(before.max(1), at);
    let after =
        |entry: &Entry| crate::solo::entry(entry.id.term.value(), entry.id.index.next().value());
    let stamped = |stamp, entry: &Entry| Entry { stamp, ..entry.clone() };
    vec![
        Vec::new(),
        vec![next.clone()],
        vec![next.clone(), after(&next)],
        // Out of order: twice the same, backwards, with a gap, from elsewhere.
        vec![next.clone(), next.clone()],
        vec![after(&next), next.clone()],
        vec![after(&next)],
        vec![next.clone(), after(&after(&next))],
        vec![entry(before.max(1), previous.index.value())],
        // Terms: below the one before, zero, above the message's, the largest.
        vec![entry(before.saturating_sub(1), at)],
        vec![entry(0, at)],
        vec![entry((term + 1).min(MAX), at)],
        vec![next.clone(), entry(1, after(&next).id.index.value())],
        vec![entry(MAX, at)],
        vec![entry(before.max(1), MAX)],
        // Stamps: the largest, and one that goes down.
        vec![stamped(LeaseTime::MAX, &next)],
        vec![stamped(LeaseTime::ZERO, &next)],
        vec![stamped(LeaseTime::MAX, &next), after(&next)],
        vec![Entry { payload: Payload::Command(Bytes::from_static(b"noise")), ..next }],
    ]
}

fn appends() -> Vec<Message> {
    let mut messages = Vec::new();
    for term in terms() {
        for previous in entry_ids() {
            for entries in entry_lists(term.value(), previous) {
                for (commit, round) in [(0, 0), (3, 1), (MAX - 1, MAX - 1), (MAX, 0), (0, MAX)] {
                    messages.push(Message::AppendEntries(AppendEntries {
                        term,
                        previous,
                        entries: entries.clone(),
                        commit: LogIndex::new(commit),
                        round: ReadRound::new(round),
                    }));
                }
            }
        }
    }
    messages
}

fn append_replies() -> Vec<Message> {
    let indexes = || INDEXES.into_iter().map(LogIndex::new);
    let mut results = vec![AppendResult::StaleTerm];
    results.extend(indexes().map(AppendResult::Matched));
    for previous in indexes() {
        results.extend(entry_ids().map(|hint| AppendResult::Conflict { previous, hint }));
    }
    let mut messages = Vec::new();
    for term in terms() {
        for round in ROUNDS.into_iter().map(ReadRound::new) {
            for result in results.clone() {
                let reply = AppendEntriesReply { term, round, result };
                messages.push(Message::AppendEntriesReply(reply));
            }
        }
    }
    messages
}

fn installs() -> Vec<Message> {
    let whole = snapshot_at(2, 9);
    let piece = |from: usize, to: usize| whole.data.slice(from..to);
    let end = whole.data.len();
    let mut messages = Vec::new();
    for term in terms() {
        for last in entry_ids() {
            for (offset, piece) in [
                (0, piece(0, end)),
                (10, piece(10, end)),
                (0, Bytes::new()),
                (end as u64, Bytes::new()),
                (u64::MAX, piece(0, 10)),
                (u64::MAX - 5, piece(0, 10)),
            ] {
                let plain = SnapshotMeta { last, ..whole.meta() };
                let checksum = Checksum::EMPTY;
                let metas = LENGTHS
                    .into_iter()
                    .map(|data_length| SnapshotMeta { data_length, ..plain.clone() })
                    .chain(
                        [LeaseTime::ZERO, LeaseTime::MAX]
                            .map(|stamp| SnapshotMeta { stamp, ..plain.clone() }),
                    )
                    .chain([plain.clone(), SnapshotMeta { checksum, ..plain.clone() }]);
                messages.extend(metas.map(|meta| {
                    let piece = piece.clone();
                    Message::InstallSnapshot(InstallSnapshot { term, meta, offset, piece })
                }));
            }
        }
    }
    messages
}

fn install_replies() -> Vec<Message> {
    let mut results =
        vec![SnapshotResult::Installed, SnapshotResult::Failed, SnapshotResult::StaleTerm];
    results.extend(LENGTHS.map(|length| SnapshotResult::Received { length }));
    let mut messages = Vec::new();
    for term in terms() {
        for last in entry_ids() {
            for result in results.clone() {
                let reply = InstallSnapshotReply { term, last, result };
                messages.push(Message::InstallSnapshotReply(reply));
            }
        }
    }
    messages
}

/// Whether a number in a message is the largest there is, so that nothing could follow it.
fn is_at_the_end(message: &Message) -> bool {
    let largest = |id: &EntryId| id.index == LogIndex::MAX;
    let numbers = match message {
        Message::PreVote(request) | Message::RequestVote(request) => largest(&request.last),
        Message::PreVoteReply(reply) | Message::RequestVoteReply(reply) => {
            reply.campaign == Term::MAX
        }
        Message::AppendEntries(append) => {
            largest(&append.previous)
                || append.commit == LogIndex::MAX
                || append.round == ReadRound::MAX
                || append
                    .entries
                    .iter()
                    .any(|entry| largest(&entry.id) || entry.id.term == Term::MAX)
        }
        Message::AppendEntriesReply(reply) => {
            let result = match &reply.result {
                AppendResult::Matched(index) => *index == LogIndex::MAX,
                AppendResult::Conflict { previous, hint } => {
                    *previous == LogIndex::MAX || largest(hint)
                }
                AppendResult::StaleTerm => false,
            };
            result || reply.round == ReadRound::MAX
        }
        Message::InstallSnapshot(install) => {
            largest(&install.meta.last)
                || install.meta.last.term == Term::MAX
                || install.meta.data_length == u64::MAX
                || install.offset == u64::MAX
        }
        Message::InstallSnapshotReply(reply) => largest(&reply.last),
        Message::TimeoutNow { .. } => false,
    };
    numbers || message.term() == Term::MAX
}

fn dropped(node: &Solo) -> u64 {
    node.status().dropped.values().sum()
}

/// The entries that a node has committed.
fn committed(node: &Solo) -> Vec<EntryId> {
    let commit = node.status().commit;
    let ids = node.latest().entries.into_iter().map(|entry| entry.id);
    ids.filter(|id| id.index <= commit).collect()
}

/// Gives one message to a copy of the node, and looks at what became of it.
fn try_message(name: &str, before: &Solo, message: &Message) {
    let mut node = before.clone();
    let what = || format!("{name} node, {message:?}");
    node.receive(2, message.clone());
    let (old, new) = (before.status(), node.status());
    assert!(new.term >= old.term && new.commit >= old.commit, "{}", what());
    if is_at_the_end(message) {
        assert_eq!(dropped(&node), dropped(before) + 1, "not dropped: {}", what());
        let state = |node: &Solo| {
            let status = node.status();
            (status.term, status.role, status.leader, status.commit, status.last, node.latest())
        };
        assert_eq!(state(&node), state(before), "{}", what());
    }
    let (vote, vote_before) = (node.latest().hard_state, before.latest().hard_state);
    if vote.term == vote_before.term && vote_before.vote.is_some() {
        assert_eq!(vote.vote, vote_before.vote, "a second vote: {}", what());
    }
    if new.applied == old.applied {
        assert_eq!(node.node.digest(), before.node.digest(), "{}", what());
    }
    let kept = committed(before);
    let covered = node.latest().snapshot.last.index;
    let now = committed(&node);
    for id in kept.iter().filter(|id| id.index > covered) {
        assert!(now.contains(id), "{id} was committed: {}", what());
    }
    if old.role == Role::Leader && new.role == Role::Leader {
        let by_reply =
            matches!(message, Message::AppendEntriesReply(_) | Message::InstallSnapshotReply(_));
        assert!(new.commit == old.commit || by_reply, "{}", what());
    }
    go_on(&mut node);
}

/// The node writes, is woken, starts again from its disk, and takes an entry from a new leader.
fn go_on(node: &mut Solo) {
    node.persist_all();
    for _ in 0..3 {
        node.wake();
        node.persist_all();
    }
    node.crash();
    node.pass(Duration::from_secs(1));
    let (term, last) = (node.status().term.next(), node.status().last);
    if term >= Term::MAX.previous() || last.index.next() >= LogIndex::MAX.previous() {
        return;
    }
    let latest = node.latest();
    let stamp = latest.entries.last().map_or(latest.snapshot.stamp, |entry| entry.stamp);
    let next = Entry { stamp, ..entry(term.value(), last.index.next().value()) };
    let commit = next.id.index;
    node.receive(3, append(term.value(), last, vec![next], commit.value()));
    node.persist_all();
    assert_eq!(node.status().applied, commit, "it follows whoever leads next");
}

fn try_all(messages: &[Message]) {
    for (name, node) in nodes() {
        for message in messages {
            try_message(name, &node, message);
        }
    }
}

#[test]
fn votes_with_extreme_numbers_change_nothing_they_should_not() {
    try_all(&vote_requests());
    try_all(&vote_replies());
}

#[test]
fn appends_with_extreme_numbers_change_nothing_they_should_not() {
    try_all(&appends());
}

#[test]
fn append_replies_with_extreme_numbers_change_nothing_they_should_not() {
    try_all(&append_replies());
}

#[test]
fn snapshots_with_extreme_numbers_change_nothing_they_should_not() {
    try_all(&installs());
}

#[test]
fn snapshot_replies_with_extreme_numbers_change_nothing_they_should_not() {
    try_all(&install_replies());
}

/// A stamp at the end of time: with it lease time would be there, and every lease, present and to
/// come, over at once. It is a number after which nothing can follow, like any other.
#[test]
fn a_stamp_at_the_end_of_time_is_not_taken() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=2), 2));
    node.persist_all();
    let before = node.latest();
    let stamp = LeaseTime::MAX;
    node.receive(2, append(1, id(1, 2), vec![Entry { stamp, ..entry(1, 3) }], 3));
    node.persist_all();
    assert_eq!(node.latest(), before);
    let snapshot = quorlock_core::message::Snapshot { stamp, ..snapshot_at(1, 9) };
    node.receive(2, crate::solo::install(1, &snapshot));
    node.persist_all();
    assert_eq!(node.latest(), before);
    assert_eq!(node.status().dropped[&DropReason::Implausible], 2);
}

/// A snapshot that ends one index below the largest leaves no room for the next entry, nor for a
/// start from it.
#[test]
fn a_snapshot_that_leaves_no_room_is_not_installed() {
    let mut node = Solo::new(3);
    node.receive(2, crate::solo::install(2, &snapshot_at(2, MAX - 1)));
    node.persist_all();
    assert!(node.status().applied < LogIndex::new(MAX - 1), "{:?}", node.status());
    node.crash();
    node.elect(&[2, 3]);
    node.persist_all();
}

/// Hazard N16 (an index or a term that is the largest, from a valid peer), with the reason by which
/// it is counted; and the other reasons that can be seen from the outside of a message.
#[test]
fn every_reason_to_drop_a_message_is_counted_by_its_name() {
    let mut node = Solo::new(3);
    node.elect(&[2, 3]);
    node.persist_all();
    let mut expected = std::collections::BTreeMap::new();
    let one = NodeId::new(1);
    let timeout_now = |term| Message::TimeoutNow { term: Term::new(term) };
    let mut send = |node: &mut Solo, from: u64, to: u64, message: Message, reason| {
        let (from, to) = (NodeId::new(from), NodeId::new(to));
        let before = (node.status().term, node.status().role, node.status().commit);
        node.input(Input::Message(Envelope { from, to, message }));
        *expected.entry(reason).or_insert(0) += 1;
        assert_eq!(node.status().dropped, expected);
        assert_eq!((node.status().term, node.status().role, node.status().commit), before);
    };
    send(&mut node, 2, 3, timeout_now(9), DropReason::NotForThisNode);
    send(&mut node, 1, one.value(), timeout_now(9), DropReason::OwnMessage);
    send(&mut node, 4, 1, timeout_now(9), DropReason::NotAMember);
    send(&mut node, 2, 1, timeout_now(MAX), DropReason::Implausible);
    send(&mut node, 2, 1, timeout_now(0), DropReason::Malformed);
    send(&mut node, 2, 1, append(1, EntryId::ZERO, Vec::new(), 0), DropReason::SecondLeader);
    let reply = |result| {
        let (term, round) = (Term::new(1), ReadRound::ZERO);
        Message::AppendEntriesReply(AppendEntriesReply { term, round, result })
    };
    let matched = AppendResult::Matched(LogIndex::new(2));
    send(&mut node, 2, 1, reply(matched), DropReason::NeverSent);
    send(&mut node, 2, 1, reply(AppendResult::StaleTerm), DropReason::Malformed);
}

/// Entries out of order are not taken, not even those that are in order before them.
#[test]
fn entries_out_of_order_are_not_taken() {
    let mut node = Solo::new(3);
    node.receive(2, append(1, EntryId::ZERO, entries(1, 1..=2), 0));
    node.persist_all();
    let before = node.latest();
    for bad in [
        vec![entry(1, 3), entry(1, 5)],
        vec![entry(1, 4), entry(1, 3)],
        vec![entry(1, 3), entry(1, 3)],
        vec![entry(1, 3), entry(2, 4)],
        vec![entry(1, 3), entry(0, 4)],
        vec![entry(1, 3), Entry { stamp: LeaseTime::ZERO, ..entry(1, 4) }],
        vec![Entry { stamp: LeaseTime::ZERO, ..entry(1, 3) }],
    ] {
        node.receive(2, append(1, id(1, 2), bad.clone(), 9));
        assert_eq!(node.latest(), before, "{bad:?}");
    }
    assert_eq!(node.status().dropped[&DropReason::Malformed], 7);
    assert_eq!(node.status().commit, LogIndex::ZERO);
}
