//! Peers that break the rules: nothing they say panics, and nothing they say counts.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::cluster::{Cluster, bootstrap, config, entry, id, index, node};
use crate::checksum::Checksum;
use crate::ids::{EntryId, ID_MAX, LogIndex, NodeId, ReadRound, Term, WriteId};
use crate::membership::Membership;
use crate::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, InstallSnapshot,
    InstallSnapshotReply, Message, Payload, SnapshotMeta, SnapshotResult, Unavailable, VoteReply,
    VoteRequest,
};
use crate::raft::{DropReason, Raft, RaftAction};
use crate::time::{LeaseTime, Time};

fn append(term: u64, previous: EntryId, entries: Vec<Entry>, commit: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term::new(term),
        previous,
        entries,
        commit: index(commit),
        round: ReadRound::ZERO,
    })
}

/// How often node 2 drops a message from node 1 for this reason.
fn drops(message: Message, reason: DropReason) -> u64 {
    let mut cluster = Cluster::new(3);
    for known in [append(3, EntryId::ZERO, (1..=4).map(|at| entry(2, at)).collect(), 3), message] {
        cluster.deliver(Envelope { from: node(1), to: node(2), message: known });
    }
    assert_eq!(cluster.raft(2).log_last(), id(2, 4), "nothing changed");
    cluster.raft(2).drops().get(&reason).copied().unwrap_or(0)
}

#[test]
fn entries_that_do_not_follow_each_other_are_dropped() {
    let malformed = [
        append(3, id(2, 4), vec![entry(3, 6)], 0),
        append(3, id(2, 4), vec![entry(3, 5), entry(2, 6)], 0),
        append(3, id(2, 4), vec![entry(4, 5)], 0),
        append(3, id(4, 4), vec![], 0),
        append(3, id(0, 4), vec![], 0),
        append(3, id(2, 0), vec![], 0),
        append(0, EntryId::ZERO, vec![], 0),
    ];
    for message in malformed {
        assert_eq!(drops(message.clone(), DropReason::Malformed), 1, "{message:?}");
    }
    let mut early = entry(3, 5);
    early.stamp = LeaseTime::ZERO;
    assert_eq!(drops(append(3, id(2, 4), vec![early], 0), DropReason::Malformed), 1);
}

#[test]
fn committed_or_verified_entries_are_not_overwritten() {
    for at in 1..=4 {
        let previous = if at == 1 { EntryId::ZERO } else { id(2, at - 1) };
        let message = append(3, previous, vec![entry(3, at)], 0);
        assert_eq!(drops(message, DropReason::ContradictsLog), 1);
    }
    assert_eq!(drops(append(3, id(1, 2), vec![], 0), DropReason::ContradictsLog), 1);
}

/// The first stamp that nobody believes.
const TOO_LATE: LeaseTime = LeaseTime::from_micros(ID_MAX / 2 + 1);

fn stamped(at: u64, stamp: LeaseTime) -> Entry {
    Entry { stamp, ..entry(3, at) }
}

fn snapshot_stamped(stamp: LeaseTime) -> Message {
    let data = Bytes::from_static(b"data");
    let meta = SnapshotMeta {
        last: id(3, 9),
        stamp,
        membership: Membership::new((1..=3).map(node)).expect("three voters"),
        data_length: data.len() as u64,
        checksum: Checksum::of(&data),
    };
    let install = InstallSnapshot { term: Term::new(3), meta, offset: 0, piece: data };
    Message::InstallSnapshot(install)
}

#[test]
fn the_latest_stamp_that_is_believed_is_taken() {
    let mut cluster = Cluster::new(3);
    let stamp = LeaseTime::from_micros(ID_MAX / 2);
    let message = append(3, EntryId::ZERO, vec![stamped(1, stamp)], 0);
    cluster.deliver(Envelope { from: node(1), to: node(2), message });
    assert_eq!(cluster.raft(2).last_stamp(), stamp);
}

/// Else its followers would drop the entry, and this node could not start again.
#[test]
fn a_leader_makes_no_stamp_that_nobody_believes() {
    let mut cluster = Cluster::new(1);
    cluster.crash(1);
    let disk = &mut cluster.host(1).disk;
    disk.entries = vec![Entry { stamp: LeaseTime::from_micros(ID_MAX / 2), ..entry(1, 1) }];
    disk.hard_state.term = Term::new(1);
    cluster.start(1);
    cluster.leader();
    let last = cluster.raft(1).log_last();
    assert_eq!(cluster.propose(1), None);
    let lease = cluster.act(1, |raft, now| raft.propose_lease(now, Payload::Empty));
    assert_eq!(lease, Err(Unavailable::Overloaded));
    assert_eq!(cluster.raft(1).log_last(), last);
}

#[test]
fn numbers_near_the_end_of_their_range_are_dropped() {
    let (last, max) = (EntryId::ZERO, Term::MAX);
    let request = VoteRequest { term: max, last, transfer: true };
    let end = EntryId::new(Term::new(3), LogIndex::MAX);
    let implausible = [
        Message::PreVote(request.clone()),
        Message::RequestVote(request.clone()),
        Message::RequestVote(VoteRequest { last: end, term: Term::new(9), transfer: true }),
        Message::PreVoteReply(VoteReply { term: max, campaign: max, granted: false }),
        Message::RequestVoteReply(VoteReply { term: max, campaign: max, granted: true }),
        append(max.value(), EntryId::ZERO, vec![], 0),
        append(3, end, vec![], 0),
        append(3, id(2, 4), vec![], LogIndex::MAX.value()),
        Message::TimeoutNow { term: max },
        append(3, id(2, 4), vec![stamped(5, TOO_LATE)], 0),
        append(3, id(2, 4), vec![stamped(5, LeaseTime::MAX)], 0),
        append(3, id(2, 4), vec![entry(3, 5), stamped(6, TOO_LATE)], 0),
        snapshot_stamped(TOO_LATE),
        snapshot_stamped(LeaseTime::MAX),
    ];
    for message in implausible {
        assert_eq!(drops(message.clone(), DropReason::Implausible), 1, "{message:?}");
    }
}

#[test]
fn the_sender_must_be_a_member_and_another_node() {
    let mut cluster = Cluster::new(3);
    let message = append(9, EntryId::ZERO, vec![], 0);
    for (from, to) in [(9, 2), (2, 2), (1, 3)] {
        let envelope = Envelope { from: node(from), to: node(to), message: message.clone() };
        cluster.act(2, |raft, now| raft.handle_message(now, envelope));
    }
    let drops = cluster.raft(2).drops().clone();
    let reasons = [DropReason::NotForThisNode, DropReason::OwnMessage, DropReason::NotAMember];
    assert!(drops.into_iter().eq(reasons.map(|reason| (reason, 1))));
    assert_eq!(cluster.raft(2).term(), Term::ZERO);
}

#[test]
fn a_term_has_one_leader() {
    let mut cluster = Cluster::new(3);
    for from in [1, 3] {
        let message = append(1, EntryId::ZERO, vec![], 0);
        cluster.deliver(Envelope { from: node(from), to: node(2), message });
    }
    assert_eq!(cluster.raft(2).drops().get(&DropReason::SecondLeader), Some(&1));
    assert_eq!(cluster.raft(2).leader(), Some(node(1)));
}

#[test]
fn what_was_never_sent_is_not_acknowledged() {
    let mut cluster = Cluster::new(3);
    cluster.lead(1);
    let term = cluster.raft(1).term();
    let last = cluster.raft(1).log_last().index;
    let replies = [(AppendResult::Matched(last.next()), 0), (AppendResult::Matched(last), 1000)];
    for (result, round) in replies {
        let reply = AppendEntriesReply { term, round: ReadRound::new(round), result };
        let message = Message::AppendEntriesReply(reply);
        cluster.deliver(Envelope { from: node(2), to: node(1), message });
    }
    assert_eq!(cluster.raft(1).drops().get(&DropReason::NeverSent), Some(&2));
}

fn small_id() -> impl Strategy<Value = EntryId> {
    (0..5u64, 0..9u64).prop_map(|(term, at)| id(term, at))
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let honest = (1..4u64, 1..6u64, 0..4u64)
        .prop_map(|(term, from, count)| (from..from + count).map(|at| entry(term, at)).collect());
    let wild = prop::collection::vec(small_id(), 0..4).prop_map(|ids| {
        let entry = |id| Entry { id, stamp: LeaseTime::ZERO, payload: Payload::Empty };
        ids.into_iter().map(entry).collect()
    });
    prop_oneof![3 => honest, 1 => wild]
}

fn any_message() -> impl Strategy<Value = Message> {
    let term = || (0..6u64).prop_map(Term::new);
    let at = || (0..9u64).prop_map(LogIndex::new);
    let round = || (0..4u64).prop_map(ReadRound::new);
    let request = || {
        (term(), small_id(), any::<bool>()).prop_map(|(term, last, transfer)| VoteRequest {
            term,
            last,
            transfer,
        })
    };
    let reply = || {
        (term(), term(), any::<bool>()).prop_map(|(term, campaign, granted)| VoteReply {
            term,
            campaign,
            granted,
        })
    };
    let appended = prop_oneof![
        at().prop_map(AppendResult::Matched),
        (at(), small_id()).prop_map(|(previous, hint)| AppendResult::Conflict { previous, hint }),
        Just(AppendResult::StaleTerm),
    ];
    let installed = prop_oneof![
        (0..12u64).prop_map(|length| SnapshotResult::Received { length }),
        Just(SnapshotResult::Installed),
        Just(SnapshotResult::Failed),
        Just(SnapshotResult::StaleTerm),
    ];
    prop_oneof![
        1 => request().prop_map(Message::PreVote),
        1 => request().prop_map(Message::RequestVote),
        1 => reply().prop_map(Message::PreVoteReply),
        1 => reply().prop_map(Message::RequestVoteReply),
        4 => (term(), small_id(), any_entries(), at(), round()).prop_map(
            |(term, previous, entries, commit, round)| Message::AppendEntries(AppendEntries {
                term, previous, entries, commit, round,
            })
        ),
        2 => (term(), round(), appended).prop_map(|(term, round, result)| {
            Message::AppendEntriesReply(AppendEntriesReply { term, round, result })
        }),
        2 => (term(), small_id(), 0..6u64, 0..6usize).prop_map(|(term, last, offset, length)| {
            let meta = SnapshotMeta {
                last,
                stamp: LeaseTime::from_micros(last.index.value()),
                membership: Membership::new((1..=3).map(node)).expect("three voters"),
                data_length: 6,
                checksum: Checksum::of(&[0; 6]),
            };
            let piece = Bytes::from(vec![0; length]);
            Message::InstallSnapshot(InstallSnapshot { term, meta, offset, piece })
        }),
        1 => (term(), small_id(), installed).prop_map(|(term, last, result)| {
            Message::InstallSnapshotReply(InstallSnapshotReply { term, last, result })
        }),
        1 => term().prop_map(|term| Message::TimeoutNow { term }),
    ]
}

/// Something that can happen to one node.
#[derive(Clone, Debug)]
enum Happening {
    Message(NodeId, Message),
    Persisted,
    Time(u64),
    Propose,
    Read,
    Compact(u64),
    Ready(bool),
    Transfer,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => (2..4u64, any_message()).prop_map(|(from, m)| Happening::Message(node(from), m)),
        4 => Just(Happening::Persisted),
        2 => (0..600u64).prop_map(Happening::Time),
        2 => Just(Happening::Propose),
        1 => Just(Happening::Read),
        1 => (0..3u64).prop_map(Happening::Compact),
        2 => any::<bool>().prop_map(Happening::Ready),
        1 => Just(Happening::Transfer),
    ]
}

/// One node among liars: what must hold whatever the others say.
struct Victim {
    raft: Raft,
    now: Time,
    issued: WriteId,
    received: Option<EntryId>,
    /// What this node once took for committed, it keeps.
    committed: Vec<EntryId>,
}

impl Victim {
    fn happens(&mut self, happening: Happening) {
        let (raft, now) = (&mut self.raft, self.now);
        match happening {
            Happening::Message(from, message) => {
                raft.handle_message(now, Envelope { from, to: node(1), message });
            }
            Happening::Persisted => raft.handle_persisted(now, self.issued),
            Happening::Time(millis) => {
                self.now = Time::from_micros(now.as_micros() + 1000 * millis);
                raft.handle_timeout(self.now);
            }
            Happening::Propose => drop(raft.propose(now, Payload::Empty)),
            Happening::Read => drop(raft.request_read(now)),
            Happening::Compact(retained) => {
                let snapshot = raft.snapshot_of(Bytes::new());
                raft.compact(snapshot, retained);
            }
            Happening::Ready(ok) => {
                if let Some(last) = self.received.take() {
                    raft.snapshot_ready(now, last, ok);
                }
            }
            Happening::Transfer => {
                let _refused = raft.transfer_leadership(now, None);
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.raft.poll_action() {
            match action {
                RaftAction::Persist(batch) => {
                    assert_eq!(batch.id, self.issued.next());
                    self.issued = batch.id;
                }
                RaftAction::SnapshotReceived(snapshot) => self.received = Some(snapshot.last),
                RaftAction::Send(_)
                | RaftAction::ReadConfirmed { .. }
                | RaftAction::SnapshotInstalled { .. }
                | RaftAction::TransferExpired { .. }
                | RaftAction::RoleChanged { .. } => {}
            }
        }
        while let Some(entry) = self.raft.next_to_apply() {
            self.committed.push(entry.id);
        }
        self.raft.check_invariants();
        for id in &self.committed {
            let own = self.raft.entry(id.index).map(|entry| entry.id);
            assert!(own.is_none_or(|own| own == *id), "{id} was committed and is gone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_that_peers_say_breaks_a_node(
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let raft = Raft::new(node(1), &config(), bootstrap(3), 7, Time::ZERO)
            .expect("a new node starts");
        let mut victim = Victim {
            raft,
            now: Time::ZERO,
            issued: WriteId::ZERO,
            received: None,
            committed: Vec::new(),
        };
        for happening in happenings {
            victim.happens(happening);
        }
    }
}
