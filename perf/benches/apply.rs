//! Commands applied per second, on one thread: decoding, exactly-once bookkeeping, locks, files.
//!
//! `cargo bench -p quorlock-perf` prints `thrpt: ... elem/s`; an element is one command. Consensus
//! and disks are not in it: this is what the lock table can do once an entry is committed.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorlock_core::codec;
use quorlock_core::config::Limits;
use quorlock_core::ids::{ClientNonce, FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Applied, Command, LockEvent, LockTable};
use quorlock_core::message::{Acked, FileAppend, Op, Submission, Wait};
use quorlock_core::text::{FileName, Label, LockName};
use quorlock_core::time::{Duration, LeaseTime};

/// How many sessions take part, each with requests of its own.
const SESSIONS: u64 = 1000;
/// How many cycles each session makes in one measured pass.
const CYCLES: u64 = 20;

/// A table, and the commands that are applied to it in a measured pass.
struct Workload {
    table: LockTable,
    index: LogIndex,
    commands: Vec<Vec<u8>>,
}

impl Workload {
    /// A table with [`SESSIONS`] open sessions, whose ids are 1, 2, 3, ...
    fn new() -> Self {
        let mut workload = Self {
            table: LockTable::new(Limits::default()),
            index: LogIndex::ZERO,
            commands: Vec::new(),
        };
        for number in 0..SESSIONS {
            let command = Command::OpenSession {
                nonce: ClientNonce(0, number),
                label: Label::default(),
                lease: Duration::from_mins(1),
            };
            workload.apply_now(command);
        }
        workload
    }

    fn apply_now(&mut self, command: Command) -> Applied {
        let mut applied = Applied::default();
        self.index = self.index.next();
        self.table.apply(self.index, LeaseTime::ZERO, Some(command), &mut applied);
        applied
    }

    /// Adds a request to the measured pass. Tokens have to be known beforehand, so it is applied
    /// once here, to a copy that is thrown away.
    fn plan(&mut self, rehearsal: &mut Self, session: u64, sequence: u64, op: Op) -> Applied {
        // A client that has the outcome of everything but the request before.
        let through = Sequence::new(sequence.saturating_sub(2));
        let command = Command::Submit(Submission {
            session: SessionId::new(session),
            sequence: Sequence::new(sequence),
            acked: Acked { through, except: Vec::new() },
            op,
        });
        self.commands.push(codec::encode(&command));
        rehearsal.apply_now(command)
    }

    fn copy(&self) -> Self {
        Self { table: self.table.clone(), index: self.index, commands: Vec::new() }
    }

    /// The measured pass.
    fn run(&self, mut table: LockTable) -> LockTable {
        let mut applied = Applied::default();
        let mut index = self.index;
        for bytes in &self.commands {
            let command = codec::decode::<Command>(bytes).expect("a command that was encoded");
            index = index.next();
            table.apply(index, LeaseTime::ZERO, Some(command), &mut applied);
            applied.clear();
        }
        table
    }
}

fn lock(name: &str) -> LockName {
    LockName::new(name).expect("a valid name")
}

fn append() -> FileAppend {
    let file = FileName::new("journal").expect("a valid name");
    FileAppend { file, bytes: Bytes::from_static(&[b'x'; 100]) }
}

fn granted(applied: &Applied) -> Option<FencingToken> {
    applied.events.iter().find_map(|event| match event {
        LockEvent::Granted { token, .. } => Some(*token),
        LockEvent::SessionOpened { .. }
        | LockEvent::SessionEnded { .. }
        | LockEvent::Ended { .. }
        | LockEvent::Queued { .. }
        | LockEvent::WaitEnded { .. }
        | LockEvent::FileCreated { .. }
        | LockEvent::Appended { .. }
        | LockEvent::Rejected { .. } => None,
    })
}

fn acquire(name: &str) -> Op {
    Op::Acquire { lock: lock(name), wait: Wait::Forever, max_hold: None }
}

/// Every session has a lock of its own: acquire, append 100 bytes, release.
fn own_locks() -> Workload {
    let mut workload = Workload::new();
    let mut rehearsal = workload.copy();
    for cycle in 0..CYCLES {
        for session in 1..=SESSIONS {
            let name = format!("jobs/{session}");
            let file = FileName::new(name.as_str()).expect("a valid name");
            let applied = workload.plan(&mut rehearsal, session, 3 * cycle + 1, acquire(&name));
            let token = granted(&applied).expect("nobody else wants it");
            let append = FileAppend { file, ..append() };
            let op = Op::Append { lock: lock(&name), token, append };
            workload.plan(&mut rehearsal, session, 3 * cycle + 2, op);
            let op = Op::Release { lock: lock(&name), token, appends: Vec::new() };
            workload.plan(&mut rehearsal, session, 3 * cycle + 3, op);
        }
    }
    workload
}

/// All sessions want one lock: each queues, is granted by the release before, appends 100 bytes,
/// and releases.
fn one_lock() -> Workload {
    let mut workload = Workload::new();
    let mut rehearsal = workload.copy();
    for cycle in 0..CYCLES {
        let mut token = None;
        for session in 1..=SESSIONS {
            let applied = workload.plan(&mut rehearsal, session, 3 * cycle + 1, acquire("hot"));
            token = token.or(granted(&applied));
        }
        for session in 1..=SESSIONS {
            let current = token.expect("the release before granted it");
            let op = Op::Append { lock: lock("hot"), token: current, append: append() };
            workload.plan(&mut rehearsal, session, 3 * cycle + 2, op);
            let op = Op::Release { lock: lock("hot"), token: current, appends: Vec::new() };
            let applied = workload.plan(&mut rehearsal, session, 3 * cycle + 3, op);
            token = granted(&applied);
        }
    }
    workload
}

/// Sections of 100 bytes on one lock, each in one command.
fn sections() -> Workload {
    let mut workload = Workload::new();
    let mut rehearsal = workload.copy();
    for cycle in 0..CYCLES {
        for session in 1..=SESSIONS {
            let op =
                Op::Section { lock: lock("hot"), wait: Wait::Forever, appends: vec![append()] };
            workload.plan(&mut rehearsal, session, cycle + 1, op);
        }
    }
    workload
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.sample_size(20);
    for (name, workload) in
        [("own_locks", own_locks()), ("one_lock", one_lock()), ("sections", sections())]
    {
        group.throughput(Throughput::Elements(workload.commands.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || workload.table.clone(),
                |table| workload.run(table),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
