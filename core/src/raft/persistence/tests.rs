//! Acknowledgements that come late, in a bunch, or for what is no longer there.

use super::*;
use crate::ids::{EntryId, Term};
use crate::membership::Membership;
use crate::message::{Entry, Payload};
use crate::time::LeaseTime;
use bytes::Bytes;

struct Disk {
    log: Log,
    persistence: Persistence,
    snapshot: Snapshot,
}

fn disk() -> Disk {
    let membership = Membership::new([crate::ids::NodeId::new(1)]).expect("one voter");
    let (last, stamp) = (EntryId::ZERO, LeaseTime::ZERO);
    Disk {
        log: Log::new(last, stamp),
        persistence: Persistence::new(LogIndex::ZERO),
        snapshot: Snapshot { last, stamp, membership, data: Bytes::new() },
    }
}

impl Disk {
    fn push(&mut self, term: u64) {
        let id = EntryId::new(Term::new(term), self.log.last_index().next());
        self.log.push(Entry { id, stamp: LeaseTime::ZERO, payload: Payload::Empty });
    }

    fn truncate(&mut self, from: u64) {
        self.log.truncate_from(LogIndex::new(from));
        self.persistence.truncated(LogIndex::new(from));
    }

    fn take(&mut self) -> Option<WriteBatch> {
        let (now, hard_state) = (Time::ZERO, HardState::default());
        let batch = self.persistence.take_batch(now, hard_state, &self.log, &self.snapshot);
        self.persistence.check_invariants(&self.log);
        batch
    }

    fn ack(&mut self, write: u64) -> u64 {
        self.persistence.acknowledge(WriteId::new(write));
        self.persistence.check_invariants(&self.log);
        self.persistence.durable().value()
    }
}

#[test]
fn nothing_changed_makes_no_batch() {
    let mut disk = disk();
    assert_eq!(disk.take(), None);
    disk.push(1);
    assert!(disk.take().is_some());
    assert_eq!(disk.take(), None);
}

#[test]
fn one_batch_has_all_that_changed() {
    let mut disk = disk();
    disk.persistence.hard_state_changed();
    disk.push(1);
    disk.push(1);
    let batch = disk.take().expect("something changed");
    assert_eq!(batch.id, WriteId::new(1));
    assert_eq!(batch.hard_state, Some(HardState::default()));
    assert_eq!(batch.entries.len(), 2);
    assert_eq!(batch.truncate_from, None);
}

#[test]
fn a_later_acknowledgement_covers_the_earlier_ones() {
    let mut disk = disk();
    for _ in 0..3 {
        disk.push(1);
        assert!(disk.take().is_some());
    }
    assert_eq!(disk.ack(2), 2);
    assert_eq!(disk.ack(1), 2);
    assert_eq!(disk.ack(3), 3);
}

/// The late acknowledgement of entries that were overwritten (etcd's append race): the first
/// batch has entry 2 of term 1, which is not in the log any more when it becomes durable.
#[test]
fn an_acknowledgement_of_overwritten_entries_counts_for_nothing() {
    let mut disk = disk();
    disk.push(1);
    disk.push(1);
    assert!(disk.take().is_some());
    disk.truncate(2);
    disk.push(2);
    assert_eq!(disk.ack(1), 1);
    let batch = disk.take().expect("something changed");
    assert_eq!(batch.truncate_from, Some(LogIndex::new(2)));
    assert_eq!(disk.ack(2), 2);
}

#[test]
fn what_was_durable_and_is_overwritten_is_no_longer() {
    let mut disk = disk();
    disk.push(1);
    disk.push(1);
    assert!(disk.take().is_some());
    assert_eq!(disk.ack(1), 2);
    disk.truncate(1);
    disk.push(2);
    assert_eq!(disk.persistence.durable(), LogIndex::ZERO);
}

#[test]
fn what_was_in_no_batch_needs_no_truncation() {
    let mut disk = disk();
    disk.push(1);
    assert!(disk.take().is_some());
    disk.push(1);
    disk.truncate(2);
    disk.push(2);
    let batch = disk.take().expect("something changed");
    assert_eq!(batch.truncate_from, None);
    assert_eq!(batch.entries.len(), 1);
}

/// What is committed is applied, and may be compacted away, before the own disk has it.
#[test]
fn entries_after_a_compaction_that_overtook_the_disk_follow_nothing() {
    let mut disk = disk();
    for _ in 0..5 {
        disk.push(1);
    }
    disk.log.compact_through(LogIndex::new(3));
    disk.persistence.compacted(LogIndex::new(3));
    let batch = disk.take().expect("something changed");
    assert_eq!(batch.truncate_from, Some(LogIndex::new(1)));
    assert_eq!(batch.entries.first().map(|entry| entry.id.index), Some(LogIndex::new(4)));
    assert_eq!(batch.compact_through, Some(LogIndex::new(3)));
    assert_eq!(disk.ack(1), 5);
}

#[test]
#[should_panic(expected = "never issued")]
fn an_acknowledgement_of_nothing_is_a_fault_of_the_host() {
    disk().ack(1);
}
