//! The storage does what its reference does, whatever happens in between.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    HardState(u64),
    Append {
        count: u64,
        bytes: usize,
    },
    /// Truncates so many entries, or all, and appends others.
    Replace {
        back: u64,
        count: u64,
    },
    /// A snapshot of the entry that is so far back; so many before it are retained.
    Snapshot {
        back: u64,
        retained: u64,
    },
    /// A snapshot from the leader that is so far ahead, and entries behind it.
    Install {
        ahead: u64,
        count: u64,
    },
    /// What came before is one group.
    Write,
    /// The same, but the disk is full at first.
    WriteFull(super::Step),
    Tidy,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..9_u64).prop_map(Step::HardState),
        6 => (1..40_u64, 0..300_usize)
            .prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => (0..30_u64, 0..10_u64).prop_map(|(back, count)| Step::Replace { back, count }),
        2 => (0..20_u64, 0..40_u64).prop_map(|(back, retained)| Step::Snapshot { back, retained }),
        1 => (1..50_u64, 0..5_u64).prop_map(|(ahead, count)| Step::Install { ahead, count }),
        6 => Just(Step::Write),
        1 => prop_oneof![
            Just(super::Step::Snapshot),
            Just(super::Step::Commit),
            Just(super::Step::Committed),
        ]
        .prop_map(Step::WriteFull),
        2 => Just(Step::Tidy),
        2 => Just(Step::Reopen),
    ]
}

/// A run: the log, the storage, what waits to be written, and the model with all of that.
struct Run {
    log: Log,
    storage: Option<FjallStorage>,
    group: Vec<WriteBatch>,
    ahead: Recovered,
    term: u64,
}

impl Run {
    fn new() -> Self {
        let log = Log::new();
        let (storage, ahead) = (Some(log.open()), log.model.clone());
        Self { log, storage, group: Vec::new(), ahead, term: 1 }
    }

    fn last(&self) -> EntryId {
        self.ahead.entries.last().map_or(self.ahead.snapshot.last, |entry| entry.id)
    }

    fn push(&mut self, batch: WriteBatch) {
        self.ahead.write(batch.clone());
        self.group.push(batch);
    }

    fn entries(&self, after: LogIndex, count: u64, bytes: usize) -> Vec<Entry> {
        (1..=count).map(|nth| entry(after.plus(nth), self.term, bytes)).collect()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::HardState(term) => {
                self.term += term;
                let hard_state = HardState { term: Term::new(self.term), vote: None };
                let batch = WriteBatch { hard_state: Some(hard_state), ..self.log.batch() };
                self.push(batch);
            }
            Step::Append { count, bytes } => {
                let entries = self.entries(self.last().index, count, bytes);
                let batch = WriteBatch { entries, ..self.log.batch() };
                self.push(batch);
            }
            Step::Replace { back, count } => {
                self.term += 1;
                let kept = LogIndex::new(self.last().index.value().saturating_sub(back))
                    .max(self.ahead.snapshot.last.index);
                let entries = self.entries(kept, count, 10);
                let truncate_from = Some(kept.next());
                let batch = WriteBatch { truncate_from, entries, ..self.log.batch() };
                self.push(batch);
            }
            Step::Snapshot { back, retained } => self.snapshot(back, retained),
            Step::Install { ahead, count } => {
                let last = EntryId::new(Term::new(self.term), self.last().index.plus(ahead));
                let snapshot = Snapshot { last, ..self.ahead.snapshot.clone() };
                let batch = WriteBatch {
                    truncate_from: Some(LogIndex::ZERO.next()),
                    entries: self.entries(last.index, count, 20),
                    snapshot: Some(snapshot),
                    compact_through: Some(last.index),
                    ..self.log.batch()
                };
                self.push(batch);
            }
            Step::Write => self.write(),
            Step::WriteFull(at) => {
                let storage = self.storage.as_mut().expect("it is open");
                storage.faults.push_back(Fault { step: at, error: full() });
                if !self.group.is_empty() {
                    let refused = storage.write(&self.group).expect_err("the disk is full");
                    assert!(matches!(refused, StorageError::Full { .. }), "{refused}");
                }
                storage.faults.clear();
                self.write();
            }
            Step::Tidy => {
                self.storage.as_mut().expect("it is open").tidy().expect("there is space");
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn snapshot(&mut self, back: u64, retained: u64) {
        let wanted = LogIndex::new(self.last().index.value().saturating_sub(back));
        let Some(entry) = self.ahead.entries.iter().find(|entry| entry.id.index == wanted) else {
            return;
        };
        if wanted < self.ahead.snapshot.last.index {
            return;
        }
        let data = Bytes::from(format!("snapshot {wanted}"));
        let snapshot = Snapshot { last: entry.id, data, ..self.ahead.snapshot.clone() };
        let compact_through = Some(LogIndex::new(wanted.value().saturating_sub(retained)));
        let snapshot = Some(snapshot);
        let batch = WriteBatch { snapshot, compact_through, ..self.log.batch() };
        self.push(batch);
    }

    fn write(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.log.write(self.storage.as_mut().expect("it is open"), group);
    }

    /// What was not written is lost.
    fn reopen(&mut self) {
        self.storage = None;
        self.group.clear();
        self.ahead = self.log.model.clone();
        self.log.check();
        self.storage = Some(self.log.open());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
        }
        run.reopen();
    }
}

/// What was compacted away does not stay on the disk.
#[test]
fn removes_what_was_compacted_away() {
    let mut log = Log::new();
    let mut storage = log.open();
    let batch = log.append(10_000, 10);
    log.write(&mut storage, vec![batch]);
    let batch = log.snapshot(100);
    log.write(&mut storage, vec![batch]);
    while storage.tidy().expect("there is space") {}
    assert_eq!(storage.entries_in_store(), 0);
    drop(storage);
    log.check();

    // Also when it is interrupted, and when there is never a quiet moment.
    let mut storage = log.open();
    let batch = log.append(1000, 10);
    log.write(&mut storage, vec![batch]);
    let batch = log.snapshot(100);
    log.write(&mut storage, vec![batch]);
    assert!(storage.entries_in_store() > 900);
    drop(storage);
    let mut storage = log.open();
    for _ in 0..20 {
        let batch = log.append(1, 10);
        log.write(&mut storage, vec![batch]);
    }
    assert_eq!(storage.entries_in_store(), 20);
    drop(storage);
    log.check();
}

/// A group that reached the disk, though the disk was said to be full, and does not follow itself.
#[test]
fn a_group_is_not_written_twice() {
    let mut log = Log::new();
    let mut storage = log.open();
    let batch = log.append(9, 10);
    log.write(&mut storage, vec![batch]);
    let longer = log.append(1, 10);
    let truncate_from = Some(LogIndex::new(3));
    let shorter = WriteBatch {
        truncate_from,
        entries: vec![entry(LogIndex::new(3), 2, 10)],
        hard_state: Some(HardState { term: Term::new(2), vote: None }),
        ..log.batch()
    };
    let mut group = vec![longer, shorter];
    storage.faults.push_back(Fault { step: super::Step::Committed, error: full() });
    storage.write(&group).expect_err("the disk is full, after all was written");
    let entries = vec![entry(LogIndex::new(4), 2, 10)];
    group.push(WriteBatch { entries, ..log.batch() });
    log.write(&mut storage, group);
    assert_eq!(log.model.entries.len(), 4);
    drop(storage);
    log.check();
}

#[test]
fn entries_that_are_compacted_as_they_come_are_not_kept() {
    let mut log = Log::new();
    let mut storage = log.open();
    let mut group = vec![log.append(10, 40)];
    group[0].entries.iter().cloned().for_each(|entry| log.model.entries.push(entry));
    group.push(log.snapshot(40));
    log.model.entries.clear();
    log.write(&mut storage, group);
    while storage.tidy().expect("there is space") {}
    assert_eq!(storage.entries_in_store(), 0);
    drop(storage);
    log.check();
}
