//! Apply: the same everywhere, in the same order, whoever repeats what.

use quorlock_core::config::Limits;
use quorlock_core::ids::LogIndex;
use quorlock_core::lock::{Applied, LockTable};
use quorlock_core::message::{Op, Wait};
use quorlock_core::prng::Prng;
use quorlock_core::raft::DropReason;
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lab::Lab;

use crate::locks::{Table, renew};
use crate::tools::{
    acquire, append_to, file, hold, lab_with, lock, section, snapshots_every, view,
};

const SECOND: Duration = Duration::from_secs(1);

/// A little of everything, under a leader.
fn work(lab: &mut Lab, prng: &mut Prng, n: u64, steps: u64) {
    let sessions: Vec<_> = ["a", "b", "c"].iter().map(|name| lab.open(n, name)).collect();
    for step in 0..steps {
        let session = sessions[usize::try_from(prng.below(3)).expect("three sessions")];
        let name = format!("l{}", prng.below(3));
        let held = view(lab, n, &name).holder.filter(|holder| holder.session == session);
        let op = match (prng.below(5), held) {
            (0, Some(held)) => append_to(&name, held.token, &format!("of-{name}"), "line\n"),
            (1, Some(held)) => {
                Op::Release { lock: lock(&name), token: held.token, appends: Vec::new() }
            }
            (2, _) => section(&name, &format!("of-{name}"), "section\n"),
            (3, _) => Op::CreateFile { file: file(&format!("f{step}")), guard: lock(&name) },
            (_, _) => Op::Acquire {
                lock: lock(&name),
                wait: Wait::For(SECOND * 3),
                max_hold: Some(SECOND * 5),
            },
        };
        lab.perform(n, session, op);
        if step % 5 == 0 {
            renew(lab, n, &sessions);
        }
    }
}

/// Hazard 64 (CCF #2814, rabbitmq #14100, formance #1565, monad-bft #827, linera #1760): apply went
/// over a map whose order differed from node to node. The lab compares the digest, the events and
/// the files of every node at every index; here is something to compare.
#[test]
fn every_node_comes_to_the_same_state() {
    let mut prng = Prng::new(64);
    let mut lab = lab_with(3, snapshots_every(30));
    for (leader, down) in [(1, 3), (2, 1), (3, 2)] {
        lab.elect(leader);
        lab.crash(down);
        work(&mut lab, &mut prng, leader, 40);
        lab.restart(down);
        lab.run(SECOND * 2);
    }
    let digests: Vec<_> = (1..=3).map(|n| lab.node(n).digest()).collect();
    assert_eq!(digests, [digests[0]; 3]);
}

/// Hazard 64, over restarts (openraft #1246, #607, #920): a node that started again had not applied
/// its log, or applied it to another state.
#[test]
fn a_restart_comes_to_the_same_state() {
    for nodes in [1, 3] {
        for config in [snapshots_every(7), quorlock_core::config::Config::default()] {
            let mut prng = Prng::new(nodes);
            let mut lab = lab_with(nodes, config);
            lab.elect(1);
            work(&mut lab, &mut prng, 1, 40);
            let (applied, digest) = (lab.status(1).applied, lab.node(1).digest());
            for n in 1..=nodes {
                lab.crash(n);
            }
            for n in 1..=nodes {
                lab.restart(n);
            }
            lab.elect(1);
            assert!(lab.status(1).applied > applied, "it applied its log, and more");
            // The same state but for the entry that began the term.
            let mut table = before_restart(&lab, applied);
            assert_eq!(table.digest(), digest, "{nodes} nodes");
            table.check_invariants();
            table.apply(LogIndex::MAX, LeaseTime::ZERO, None, &mut Applied::default());
        }
    }
}

/// The state at an index, from the disk of node 1 alone.
fn before_restart(lab: &Lab, index: LogIndex) -> LockTable {
    let disk = lab.lab_node(1).durable();
    let mut table = LockTable::decode(&disk.snapshot.data).expect("a snapshot is a lock table");
    for entry in &disk.entries {
        if entry.id.index > table.index() && entry.id.index <= index {
            let command = match &entry.payload {
                quorlock_core::message::Payload::Command(bytes) => {
                    quorlock_core::codec::decode(bytes).ok()
                }
                quorlock_core::message::Payload::Empty
                | quorlock_core::message::Payload::Membership(_) => None,
            };
            table.apply(entry.id.index, entry.stamp, command, &mut Applied::default());
        }
    }
    table
}

/// Hazard 63: what makes a retry harmless was not in the snapshot. A copy of the state, decoded,
/// answers a repeated request as the original does.
#[test]
fn a_copy_of_the_state_remembers_what_was_done() {
    let mut table = Table::new(Limits::default());
    let session = table.open(0, "a", SECOND * 60);
    table.submit(0, session, acquire("l"));
    table.submit(0, session, section("m", "f", "line\n"));
    let mut copy = table.clone();
    copy.table = LockTable::decode(&table.table.encode()).expect("its own encoding");
    let again = |table: &mut Table| {
        let submission = quorlock_core::message::Submission {
            session,
            sequence: quorlock_core::ids::Sequence::new(2),
            acked: quorlock_core::message::Acked::default(),
            op: section("m", "f", "line\n"),
        };
        let applied = table.apply(0, Some(quorlock_core::lock::Command::Submit(submission)));
        assert_eq!(applied.effects, [], "nothing is done again");
        applied.notices
    };
    assert_eq!(again(&mut table), again(&mut copy));
    assert_eq!(table.table.digest(), copy.table.digest());
}

/// Hazard 64, for what a node cannot read, as from a later version: to skip it would be to differ from
/// those who can, so it is not even taken; and it brings nobody down.
#[test]
fn an_entry_that_is_no_command_is_not_taken() {
    use crate::solo::{Solo, append, entry};
    use quorlock_core::ids::EntryId;
    use quorlock_core::message::{Entry, Payload};
    let mut node = Solo::new(3);
    let other = Solo::new(3);
    let noise = [&b""[..], b"\x01", b"\x01\x07", b"\xff\xff\xff", &[1, 7, 2, 0, 0, 0, 0, 9, 9, 9]];
    let entries: Vec<Entry> = noise
        .iter()
        .zip(1..)
        .map(|(bytes, index)| {
            let payload = Payload::Command(bytes::Bytes::copy_from_slice(bytes));
            Entry { payload, ..entry(1, index) }
        })
        .collect();
    for entry in &entries {
        let first = Entry { id: crate::solo::id(1, 1), ..entry.clone() };
        node.receive(2, append(1, EntryId::ZERO, vec![first], 1));
        node.persist_all();
        assert_eq!(node.status().last, EntryId::ZERO);
    }
    assert_eq!(node.status().dropped[&DropReason::Malformed], noise.len() as u64);
    assert_eq!(node.status().counts, other.status().counts);
}

/// Hazard 28, for state: however the log is cut into batches, the end is the same.
#[test]
fn batches_of_any_size_come_to_the_same_state() {
    let mut one = lab_with(1, snapshots_every(1000));
    one.elect(1);
    let session = one.open(1, "a");
    let token = hold(&mut one, 1, session, "l");
    let mut other = one.clone();
    other.hold_outputs(1, true);
    for (number, lab) in [(0, &mut one), (1, &mut other)] {
        for sequence in 2..20 {
            lab.submit(1, session, sequence, append_to("l", token, "f", "line\n"));
            if number == 0 {
                lab.settle();
            }
        }
    }
    other.hold_outputs(1, false);
    assert_eq!(other.lab_node(1).writes().len(), 1, "one batch of all");
    other.settle();
    assert_eq!(one.node(1).digest(), other.node(1).digest());
    assert_eq!(one.lab_node(1).file("f"), other.lab_node(1).file("f"));
}
