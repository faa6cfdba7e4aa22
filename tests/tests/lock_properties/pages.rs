//! Lists that are longer than a page.

use quorlock_core::config::Limits;
use quorlock_core::config::PAGE_MAX;
use quorlock_core::ids::{ClientNonce, Sequence, SessionId};
use quorlock_core::lock::{Command, LockTable};
use quorlock_core::message::{Acked, Answer, Op, Query, Submission, Wait};
use quorlock_core::text::{FileName, LockName, Text};
use quorlock_core::time::{Duration, LeaseTime};
use quorlock_tests::lock_model::Model;

use crate::drive::{Entry, label, lock_name};
use crate::pair::apply;

/// Enough for a page and a bit.
const COUNT: u64 = PAGE_MAX as u64 + 5;

/// A table and its model, compared only when asked: looking at everything after every entry would
/// take too long here.
struct Tables {
    table: LockTable,
    model: Model,
}

impl Tables {
    fn new() -> Self {
        let limits = Limits { places_per_session_max: 2000, ..Limits::default() };
        Self { table: LockTable::new(limits.clone()), model: Model::new(limits) }
    }

    fn run(&mut self, command: Command) {
        let index = self.model.index.next();
        let entry = Entry { index, stamp: LeaseTime::ZERO, command: Some(command) };
        let found = apply(&mut self.table, &entry);
        assert_eq!(found, self.model.apply(index, entry.stamp, entry.command));
    }

    fn open(&mut self, client: u64) -> SessionId {
        let nonce = ClientNonce(client, 0);
        self.run(Command::OpenSession { nonce, label: label(0), lease: Duration::from_mins(1) });
        SessionId::new(self.model.index.value())
    }

    fn submit(&mut self, session: SessionId, op: Op) {
        let sequence = self.model.session(session).expect("it is open").last.next();
        let acked = Acked { through: sequence.previous(), except: Vec::new() };
        self.run(Command::Submit(Submission { session, sequence, acked, op }));
    }

    fn answer(&self, query: &Query) -> Answer {
        let answer = self.table.answer(query);
        assert_eq!(answer, self.model.answer(query), "to {query:?}");
        answer
    }
}

fn numbered(number: u64) -> LockName {
    LockName::new(format!("many/{number}")).expect("a proper name")
}

fn acquire(lock: LockName) -> Op {
    Op::Acquire { lock, wait: Wait::Forever, max_hold: None }
}

#[test]
fn locks_come_in_pages() {
    let mut tables = Tables::new();
    let session = tables.open(0);
    for number in 0..COUNT {
        tables.submit(session, acquire(numbered(number)));
    }
    let prefix = Text::new("many").expect("a proper text");
    let mut seen: Vec<LockName> = Vec::new();
    for length in [PAGE_MAX, 5, 0] {
        let query = Query::Locks { prefix: prefix.clone(), after: seen.last().cloned() };
        let Answer::Locks(page) = tables.answer(&query) else {
            panic!("an answer to another question")
        };
        assert_eq!(page.len(), length);
        seen.extend(page.into_iter().map(|it| it.lock));
    }
    assert!(seen.is_sorted(), "by name");
}

#[test]
fn files_come_in_pages() {
    let mut tables = Tables::new();
    let session = tables.open(0);
    for number in 0..COUNT {
        let file = FileName::new(format!("many/{number}")).expect("a proper name");
        tables.submit(session, Op::CreateFile { file, guard: lock_name(0) });
    }
    let mut seen: Vec<FileName> = Vec::new();
    for length in [PAGE_MAX, 5, 0] {
        let query = Query::Files { after: seen.last().cloned() };
        let Answer::Files(page) = tables.answer(&query) else {
            panic!("an answer to another question")
        };
        assert_eq!(page.len(), length);
        seen.extend(page.into_iter().map(|it| it.file));
    }
    assert!(seen.is_sorted(), "by name");
}

#[test]
fn a_queue_is_cut_after_a_page_and_counted_to_its_end() {
    let mut tables = Tables::new();
    for client in 0..=COUNT {
        let session = tables.open(client);
        tables.submit(session, acquire(lock_name(0)));
    }
    let Answer::Lock(view) = tables.answer(&Query::Lock { lock: lock_name(0) }) else {
        panic!("an answer to another question")
    };
    assert_eq!((view.waiters, view.queue.len()), (COUNT, PAGE_MAX));
    let first = view.queue.first().map(|it| it.sequence);
    assert_eq!(first, Some(Sequence::new(1)));
}
