//! The table and the model, side by side.

use quorlock_core::codec;
use quorlock_core::config::Limits;
use quorlock_core::ids::{LogIndex, SessionId};
use quorlock_core::lock::{Applied, Command, LockTable, Notice};
use quorlock_core::message::Query;
use quorlock_core::time::LeaseTime;
use quorlock_tests::lock_model::{Model, Output};

use crate::chronicle::Chronicle;
use crate::drive::{Driver, Entry, file_name, lock_name, text};
use crate::history::{FILES, LOCKS, Step};
use crate::witness::Witness;

/// A table, its model, a witness, and the clients that use them.
pub(crate) struct Pair {
    pub(crate) table: LockTable,
    pub(crate) model: Model,
    pub(crate) driver: Driver,
    witness: Witness,
    chronicle: Chronicle,
    /// What came of the last entry.
    pub(crate) applied: Applied,
}

impl Pair {
    pub(crate) fn new(limits: &Limits) -> Self {
        limits.check().expect("the limits are in their ranges");
        Self {
            table: LockTable::new(limits.clone()),
            model: Model::new(limits.clone()),
            driver: Driver::default(),
            witness: Witness::default(),
            chronicle: Chronicle::default(),
            applied: Applied::default(),
        }
    }

    /// Takes a step.
    pub(crate) fn step(&mut self, step: &Step) -> Entry {
        let entry = self.driver.entry(step, &self.model);
        self.apply(entry.clone());
        entry
    }

    /// Applies an entry to both, and panics where they differ.
    pub(crate) fn apply(&mut self, entry: Entry) -> Output {
        let Entry { index, stamp, command } = entry;
        if let Some(command) = &command {
            let decoded = codec::decode::<Command>(&codec::encode(command));
            assert_eq!(decoded.as_ref(), Ok(command), "the command as it lies in the log");
        }
        let ends: Vec<SessionId> = self.model.sessions.iter().map(|it| it.id).collect();
        let before = self.queues();
        self.applied.clear();
        self.table.apply(index, stamp, command.clone(), &mut self.applied);
        self.table.check_invariants();
        let expected = self.model.apply(index, stamp, command.clone());
        let found =
            Output { effects: self.applied.effects.clone(), notices: self.applied.notices.clone() };
        compare_outputs(&found, &expected, &ends);
        compare_states(&self.table, &self.model);
        let after = self.queues();
        self.witness.saw(index, command.as_ref(), &found);
        Witness::saw_queues(&before, &after);
        self.witness.saw_files(&self.table);
        self.chronicle.saw(&self.applied.events, &self.table);
        expected
    }

    /// The next entry, at the present time, with this command.
    pub(crate) fn now(&self, command: Option<Command>) -> Entry {
        self.at(self.model.now, command)
    }

    /// The next entry.
    pub(crate) fn at(&self, stamp: LeaseTime, command: Option<Command>) -> Entry {
        Entry { index: self.model.index.next(), stamp, command }
    }

    /// What the table says of each lock.
    fn queues(&self) -> Vec<quorlock_core::message::Answer> {
        (0..LOCKS).map(|it| self.table.answer(&Query::Lock { lock: lock_name(it) })).collect()
    }
}

/// The outputs of one table for one entry.
pub(crate) fn apply(table: &mut LockTable, entry: &Entry) -> Output {
    let mut applied = Applied::default();
    table.apply(entry.index, entry.stamp, entry.command.clone(), &mut applied);
    Output { effects: applied.effects.clone(), notices: applied.notices.clone() }
}

fn compare_outputs(found: &Output, expected: &Output, sessions: &[SessionId]) {
    assert_eq!(found.effects, expected.effects, "the effects differ");
    let mut left = expected.notices.clone();
    for notice in &found.notices {
        let position = left.iter().position(|it| it == notice).unwrap_or_else(|| {
            panic!("the table says {notice:?}; the model says {:?}", expected.notices)
        });
        left.remove(position);
    }
    assert!(left.is_empty(), "the table does not say {left:?}");
    for session in sessions {
        let of = |notices: &[Notice]| -> Vec<Notice> {
            notices.iter().filter(|it| addressee(it) == Some(*session)).cloned().collect()
        };
        let (found, expected) = (of(&found.notices), of(&expected.notices));
        assert_eq!(found, expected, "session {session} is told in another order");
    }
}

/// The session that a notice is for, if there is one.
pub(crate) fn addressee(notice: &Notice) -> Option<SessionId> {
    match notice {
        Notice::Opened { nonce: _, result } => result.as_ref().ok().map(|it| it.session),
        Notice::KeptAlive { session, .. }
        | Notice::Submitted { session, .. }
        | Notice::Lost { session, .. }
        | Notice::SessionEnded { session, .. } => Some(*session),
    }
}

/// Every query that there is, on every name that there is.
pub(crate) fn queries() -> Vec<Query> {
    let mut all = vec![Query::Files { after: None }];
    for prefix in ["", "m", "m/", "x"] {
        all.push(Query::Locks { prefix: text(prefix), after: None });
        for lock in 0..LOCKS {
            all.push(Query::Locks { prefix: text(prefix), after: Some(lock_name(lock)) });
        }
    }
    for lock in 0..LOCKS {
        all.push(Query::Lock { lock: lock_name(lock) });
        all.push(Query::History { lock: lock_name(lock) });
    }
    for file in 0..FILES {
        all.push(Query::File { file: file_name(file) });
        all.push(Query::Files { after: Some(file_name(file)) });
        all.push(Query::ReadFile { file: file_name(file), offset: 1, length: 2 });
    }
    all
}

/// Compares all that can be seen of a state.
pub(crate) fn compare_states(table: &LockTable, model: &Model) {
    for query in queries() {
        assert_eq!(table.answer(&query), model.answer(&query), "to {query:?}");
    }
    assert_eq!(table.now(), model.now, "the lease clock");
    assert_eq!(table.next_due(), model.next_due(), "what is due next");
    assert_eq!(table.limits(), &model.limits, "the limits");
    for session in &model.sessions {
        assert_eq!(table.news(session.id), Some(session.news()), "to session {}", session.id);
    }
    for id in 0..=model.index.value() {
        let id = SessionId::new(id);
        assert_eq!(table.has_session(id), model.session(id).is_some(), "session {id}");
    }
    let counts = table.counts();
    assert_eq!(counts.sessions, model.sessions.len() as u64, "sessions");
    assert_eq!(counts.locks, model.holds.len() as u64, "locks");
    assert_eq!(counts.waiters, model.waiters.len() as u64, "waiters");
    assert_eq!(counts.files, model.files.len() as u64, "files");
    assert_eq!(counts.past_holds, model.past.len() as u64, "past holds");
    assert_eq!(counts.pending_bytes, model.pending_bytes(), "pending bytes");
    let waiting_max = u64::from(model.limits.pending_bytes_max);
    assert!(model.waiting_bytes() <= waiting_max, "what waits leaves no room for its end");
    let files = model.answer(&Query::Files { after: None });
    let quorlock_core::message::Answer::Files(files) = files else {
        panic!("the model answers another question")
    };
    assert_eq!(table.files().collect::<Vec<_>>(), files, "the list of files");
}

/// The index that follows the last one of a model.
pub(crate) fn next_index(model: &Model) -> LogIndex {
    model.index.next()
}
