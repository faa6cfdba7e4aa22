//! Tests of the storage.

mod damage;
mod faults;
mod measure;
mod model;
mod torn;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorlock_core::config::Limits;
use quorlock_core::ids::{EntryId, LogIndex, NodeId, Term, WriteId};
use quorlock_core::membership::Membership;
use quorlock_core::message::{Entry, HardState, Payload, Recovered, Snapshot, WriteBatch};
use quorlock_core::time::LeaseTime;

use super::{FjallStorage, Storage, StorageError};

/// Where a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Snapshot,
    Commit,
    Committed,
}

/// An error to come.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) step: Step,
    pub(super) error: StorageError,
}

impl Fault {
    /// Gives the first fault if it is one of this step.
    pub(super) fn strike(faults: &mut VecDeque<Self>, step: Step) -> Result<(), StorageError> {
        match faults.pop_front_if(|fault| fault.step == step) {
            Some(fault) => Err(fault.error),
            None => Ok(()),
        }
    }
}

/// A log on a disk, and what must be in it.
struct Log {
    directory: tempfile::TempDir,
    model: Recovered,
    writes: WriteId,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is space");
        let membership = Membership::new((1..=3).map(NodeId::new)).expect("three nodes");
        let model = Recovered::bootstrap(membership, Limits::default()).expect("the defaults work");
        FjallStorage::create(directory.path(), &model).expect("there is space");
        Self { directory, model, writes: WriteId::ZERO }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn open(&self) -> FjallStorage {
        FjallStorage::open(self.path()).expect("nothing is wrong with it")
    }

    /// Opens the log and compares it with the model.
    fn check(&self) {
        assert_eq!(recover(self.path()).expect("nothing is wrong with it"), self.model);
    }

    /// An empty batch with the next number.
    fn batch(&mut self) -> WriteBatch {
        self.writes = self.writes.next();
        WriteBatch {
            id: self.writes,
            hard_state: None,
            truncate_from: None,
            entries: Vec::new(),
            snapshot: None,
            compact_through: None,
        }
    }

    /// A batch with entries that follow those that are there.
    fn append(&mut self, count: u64, bytes: usize) -> WriteBatch {
        let last = self.model.entries.last().map_or(self.model.snapshot.last, |entry| entry.id);
        let entries = (1..=count).map(|nth| entry(last.index.plus(nth), 1, bytes)).collect();
        let hard_state = Some(HardState { term: Term::new(1), vote: Some(NodeId::new(1)) });
        WriteBatch { entries, hard_state, ..self.batch() }
    }

    /// A batch with a snapshot of everything so far.
    fn snapshot(&mut self, bytes: usize) -> WriteBatch {
        let last = self.model.entries.last().map_or(self.model.snapshot.last, |entry| entry.id);
        let snapshot =
            Snapshot { last, data: Bytes::from(vec![7; bytes]), ..self.model.snapshot.clone() };
        let compact_through = Some(last.index);
        WriteBatch { snapshot: Some(snapshot), compact_through, ..self.batch() }
    }

    /// Writes a group to the storage and the model.
    fn write(&mut self, storage: &mut FjallStorage, group: Vec<WriteBatch>) {
        storage.write(&group).expect("there is space");
        for batch in group {
            self.model.write(batch);
        }
    }
}

fn entry(index: LogIndex, term: u64, bytes: usize) -> Entry {
    let byte = u8::try_from(index.value() % 251).expect("less than 251");
    Entry {
        id: EntryId::new(Term::new(term), index),
        stamp: LeaseTime::ZERO,
        payload: Payload::Command(Bytes::from(vec![byte; bytes])),
    }
}

/// Opens a log, and reads it.
fn recover(directory: &Path) -> Result<Recovered, StorageError> {
    let mut storage = FjallStorage::open(directory)?;
    Ok(storage.recover()?.expect("a log that was made is there"))
}

fn full() -> StorageError {
    StorageError::Full { reason: "a test".to_owned() }
}

/// Copies a directory with everything below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("there is space");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has one").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("there is space");
        }
    }
}

/// The journal of a log, without the zeros at its end, which only reserve space.
fn shorten_journal(directory: &Path) -> (PathBuf, Vec<u8>) {
    let store = directory.join(super::fjall_storage::STORE);
    let journals = fs::read_dir(store).expect("it is there").filter_map(|entry| {
        let path = entry.expect("it can be read").path();
        path.extension().is_some_and(|extension| extension == "jnl").then_some(path)
    });
    let journal = journals.max().expect("there is a journal");
    let mut content = fs::read(&journal).expect("it is there");
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    content.truncate(used);
    fs::write(&journal, &content).expect("there is space");
    (journal, content)
}
