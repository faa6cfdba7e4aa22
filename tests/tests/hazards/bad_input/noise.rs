//! Sequences of messages that nobody planned: random ones to one node, and real ones to a cluster,
//! late, twice and in any order.

use proptest::collection::vec;
use proptest::prelude::*;
use quorlock_core::ids::{EntryId, LogIndex, NodeId, ReadRound, Term};
use quorlock_core::message::{
    AppendEntries, AppendEntriesReply, AppendResult, Entry, Envelope, InstallSnapshotReply,
    Message, SnapshotResult, VoteReply, VoteRequest,
};
use quorlock_core::prng::Prng;
use quorlock_core::time::Duration;
use quorlock_tests::lab::{Lab, TraceEvent};

use crate::snapshots::snapshot_at;
use crate::solo::{Solo, entry, install, install_piece};
use crate::tools::{acquire, lab_with, section, snapshots_every};

/// Something that happens to the node.
#[derive(Clone, Debug)]
enum Step {
    Receive { from: u64, message: Message },
    Persist,
    Wake,
    Crash,
    Request,
}

fn small() -> impl Strategy<Value = u64> {
    0..6_u64
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    (small(), small()).prop_map(|(term, index)| crate::solo::id(term, index))
}

/// Entries that follow each other, most of the time.
fn entry_list() -> impl Strategy<Value = Vec<Entry>> {
    (small(), small(), vec(0..2_u64, 0..4), any::<bool>()).prop_map(
        |(term, index, steps, in_order)| {
            let mut term = term;
            let mut list = Vec::new();
            for (step, position) in steps.into_iter().zip(index..) {
                term += step;
                list.push(entry(term, position + u64::from(!in_order && step == 1)));
            }
            list
        },
    )
}

fn append() -> impl Strategy<Value = Message> {
    (small(), entry_list(), entry_id(), small(), any::<bool>()).prop_map(
        |(term, entries, previous, commit, joined)| {
            let before = entries.first().map(|first| first.id.index.previous());
            let previous = match before {
                Some(index) if joined => {
                    let term = if index == LogIndex::ZERO { Term::ZERO } else { previous.term };
                    EntryId { term, index }
                }
                Some(_) | None => previous,
            };
            let (term, commit) = (Term::new(term), LogIndex::new(commit));
            let round = ReadRound::ZERO;
            Message::AppendEntries(AppendEntries { term, previous, entries, commit, round })
        },
    )
}

fn reply() -> impl Strategy<Value = Message> {
    let index = || small().prop_map(LogIndex::new);
    let result = prop_oneof![
        3 => index().prop_map(AppendResult::Matched),
        2 => (index(), entry_id())
            .prop_map(|(previous, hint)| AppendResult::Conflict { previous, hint }),
        1 => Just(AppendResult::StaleTerm),
    ];
    (small(), 0..4_u64, result).prop_map(|(term, round, result)| {
        let (term, round) = (Term::new(term), ReadRound::new(round));
        Message::AppendEntriesReply(AppendEntriesReply { term, round, result })
    })
}

fn vote_request() -> impl Strategy<Value = VoteRequest> {
    (small(), entry_id(), any::<bool>()).prop_map(|(term, last, transfer)| VoteRequest {
        term: Term::new(term),
        last,
        transfer,
    })
}

fn vote_reply() -> impl Strategy<Value = VoteReply> {
    (small(), small(), any::<bool>()).prop_map(|(term, campaign, granted)| VoteReply {
        term: Term::new(term),
        campaign: Term::new(campaign),
        granted,
    })
}

fn vote() -> impl Strategy<Value = Message> {
    prop_oneof![
        vote_request().prop_map(Message::PreVote),
        vote_request().prop_map(Message::RequestVote),
        vote_reply().prop_map(Message::PreVoteReply),
        vote_reply().prop_map(Message::RequestVoteReply),
        small().prop_map(|term| Message::TimeoutNow { term: Term::new(term) }),
    ]
}

fn snapshot() -> impl Strategy<Value = Message> {
    let whole = (1..6_u64, 1..6_u64, 1..6_u64)
        .prop_map(|(term, of, index)| install(term, &snapshot_at(of.min(term), index)));
    let pieces =
        (1..6_u64, 1..6_u64, 0..60_usize, 0..60_usize).prop_map(|(term, index, from, to)| {
            let snapshot = snapshot_at(term, index);
            let end = snapshot.data.len();
            install_piece(term, &snapshot, from.min(to).min(end), from.max(to).min(end))
        });
    let result = prop_oneof![
        Just(SnapshotResult::Installed),
        Just(SnapshotResult::Failed),
        Just(SnapshotResult::StaleTerm),
        (0..300_u64).prop_map(|length| SnapshotResult::Received { length }),
    ];
    let reply = (small(), entry_id(), result).prop_map(|(term, last, result)| {
        Message::InstallSnapshotReply(InstallSnapshotReply { term: Term::new(term), last, result })
    });
    prop_oneof![whole, pieces, reply]
}

fn step() -> impl Strategy<Value = Step> {
    let message = prop_oneof![4 => append(), 3 => reply(), 3 => vote(), 2 => snapshot()];
    let receive = (2..4_u64, message).prop_map(|(from, message)| Step::Receive { from, message });
    prop_oneof![
        12 => receive,
        3 => Just(Step::Persist),
        3 => Just(Step::Wake),
        1 => Just(Step::Crash),
        1 => Just(Step::Request),
    ]
}

/// Takes one step; the node, and every promise that leaves it, is checked by [`Solo`].
fn take(node: &mut Solo, step: Step, number: u64) {
    match step {
        Step::Receive { from, message } => node.receive(from, message),
        Step::Persist => {
            node.persist();
        }
        Step::Wake => node.wake(),
        Step::Crash => node.crash(),
        Step::Request => node.request(crate::log::some_request(number)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    })]

    /// Peers that say anything at all: the node stands, votes once in a term, keeps what it has
    /// committed, and promises only what is on its disk.
    #[test]
    fn a_node_stands_whatever_its_peers_say(steps in vec(step(), 1..60)) {
        let mut node = Solo::with(3, snapshots_every(3));
        let mut votes = std::collections::BTreeMap::new();
        for (step, number) in steps.into_iter().zip(0..) {
            let before = node.status();
            let crashed = matches!(step, Step::Crash);
            take(&mut node, step, number);
            let now = node.status();
            prop_assert!(crashed || now.term >= before.term, "the term goes down");
            prop_assert!(crashed || now.commit >= before.commit, "what is committed is taken back");
            prop_assert!(now.applied <= now.commit && now.commit <= now.last.index);
            let durable = node.disk.hard_state;
            if let Some(vote) = durable.vote {
                let first = *votes.entry(durable.term).or_insert(vote);
                prop_assert_eq!(first, vote, "two votes in term {}", durable.term);
            }
        }
        node.persist_all();
        node.crash();
    }
}

/// Messages of a cluster that works, again and again: each may come late, twice, or to a node that
/// has crashed since. The lab checks every promise between the nodes.
#[test]
fn old_messages_do_no_harm_to_a_cluster() {
    for seed in 0..8 {
        let mut prng = Prng::new(seed);
        let mut lab = lab_with(3, snapshots_every(15));
        lab.record(true);
        lab.elect(1);
        let sessions = [lab.open(1, "a"), lab.open(1, "b")];
        let mut old: Vec<Envelope> = Vec::new();
        for _ in 0..60 {
            old.extend(lab.take_trace().into_iter().filter_map(|event| {
                if let TraceEvent::Sent(envelope) = event { Some(envelope) } else { None }
            }));
            for _ in 0..prng.below(10) {
                again(&mut lab, &mut prng, &old);
            }
            something_else(&mut lab, &mut prng);
            let Some(leader) = lab.leader() else { continue };
            let session = sessions[usize::from(prng.below(2) == 0)];
            let op = if prng.below(2) == 0 { acquire("l") } else { section("m", "f", "line\n") };
            lab.perform(leader, session, op);
        }
        lab.heal();
        for n in 1..=3 {
            if !lab.is_up(n) {
                lab.restart(n);
            }
        }
        lab.run(Duration::from_secs(5));
        let leader = lab.leader().expect("once nothing is in its way, there is a leader");
        let commit = lab.status(leader).commit;
        lab.request(leader, 1, crate::log::some_request(seed));
        lab.run(Duration::from_secs(1));
        assert!(lab.status(leader).commit > commit, "and it can commit: seed {seed}");
    }
}

/// One of the old messages once more: to whom it was for, or to somebody else, or from a stranger.
fn again(lab: &mut Lab, prng: &mut Prng, old: &[Envelope]) {
    let place = usize::try_from(prng.below(old.len() as u64)).expect("a place in memory");
    let Some(envelope) = old.get(place) else { return };
    let mut envelope = envelope.clone();
    match prng.below(6) {
        0 => envelope.from = NodeId::new(7),
        1 => envelope.from = envelope.to,
        _ => {}
    }
    let before = lab.mail().len();
    lab.send(envelope);
    // Where the way is cut, nothing is sent.
    lab.deliver_at(before);
}

/// Time, a crash, a cut, or another leader.
fn something_else(lab: &mut Lab, prng: &mut Prng) {
    let n = prng.below(3) + 1;
    let down = lab.ids().find(|n| !lab.is_up(*n));
    match (prng.below(12), down) {
        (0, None) => lab.crash(n),
        (1, _) => lab.isolate(n),
        (2 | 3, _) => lab.heal(),
        (4 | 5, Some(down)) => lab.restart(down),
        (6, _) if lab.is_up(n) && !lab.is_leader(n) => lab.campaign(n),
        (7 | 8, _) => lab.run(Duration::from_millis(700)),
        (_, _) => lab.run(Duration::from_millis(50)),
    }
}
