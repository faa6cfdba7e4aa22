//! Small stories about the lock table. After every entry its invariants are checked, and that its
//! bytes are the table again.

mod locks;
mod random;
mod sessions;

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::codec::{self, DecodeError};
use crate::ids::{ClientNonce, Sequence};
use crate::message::{
    Acked, Answer, Done, EndCause, FileAppend, KeepAlive, Loss, Op, Opened, Outcome, Query,
    Rejection, SessionEnd, Submission, Wait,
};
use crate::prng::Prng;
use crate::text::{Label, LockName, Text};
use crate::time::Duration;

/// A table and the entries so far.
struct Story {
    table: LockTable,
    applied: Applied,
    /// The stamp of the next entry, in milliseconds.
    now: u64,
}

/// A session and how many requests it has made.
#[derive(Clone, Copy)]
struct Who {
    session: SessionId,
    requests: u64,
}

const LEASE: Duration = Duration::from_secs(10);

fn name(text: &str) -> LockName {
    LockName::new(text).expect("a valid name")
}

fn append(file: &str, bytes: &'static str) -> FileAppend {
    let file = FileName::new(file).expect("a valid name");
    FileAppend { file, bytes: Bytes::from_static(bytes.as_bytes()) }
}

fn acquire(lock: &str) -> Op {
    Op::Acquire { lock: name(lock), wait: Wait::Forever, max_hold: None }
}

fn acquire_for(lock: &str, millis: u64) -> Op {
    let wait = Wait::For(Duration::from_millis(millis));
    Op::Acquire { lock: name(lock), wait, max_hold: None }
}

fn hold_for(lock: &str, millis: u64) -> Op {
    let max_hold = Some(Duration::from_millis(millis));
    Op::Acquire { lock: name(lock), wait: Wait::Forever, max_hold }
}

fn release(lock: &str, token: u64, appends: Vec<FileAppend>) -> Op {
    Op::Release { lock: name(lock), token: FencingToken::new(token), appends }
}

fn append_under(lock: &str, token: u64, append: FileAppend) -> Op {
    Op::Append { lock: name(lock), token: FencingToken::new(token), append }
}

fn section(lock: &str, appends: Vec<FileAppend>) -> Op {
    Op::Section { lock: name(lock), wait: Wait::Forever, appends }
}

fn break_hold(lock: &str, token: u64) -> Op {
    let reason = Text::new("stuck").expect("a valid text");
    Op::Break { lock: name(lock), token: FencingToken::new(token), reason }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with outcomes")]
fn granted(token: u64, predecessor: Option<u64>) -> Outcome {
    let predecessor = predecessor.map(FencingToken::new);
    Ok(Done::Granted { token: FencingToken::new(token), predecessor })
}

fn not_holder(current: Option<u64>) -> Outcome {
    Err(Rejection::NotHolder { current: current.map(FencingToken::new) })
}

impl Story {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self { table: LockTable::new(limits), applied: Applied::default(), now: 0 }
    }

    /// Applies one entry; what came of it is in `applied`.
    fn apply(&mut self, command: Option<Command>) {
        self.applied.clear();
        let index = self.table.index().next();
        let stamp = LeaseTime::from_micros(self.now * 1000);
        self.table.apply(index, stamp, command, &mut self.applied);
        self.table.check_invariants();
        let bytes = self.table.encode();
        let again = LockTable::decode(&bytes).expect("a table can read its own bytes");
        assert_eq!(again, self.table);
        again.check_invariants();
        assert_eq!(again.next_due(), self.table.next_due());
        assert_eq!(again.counts(), self.table.counts());
    }

    /// Lets time pass with an empty entry.
    fn wait(&mut self, millis: u64) {
        self.now += millis;
        self.apply(None);
    }

    fn open(&mut self, nonce: u64) -> Who {
        self.open_for(nonce, LEASE)
    }

    fn open_for(&mut self, nonce: u64, lease: Duration) -> Who {
        let nonce = ClientNonce(nonce, 0);
        self.apply(Some(Command::OpenSession { nonce, label: Label::default(), lease }));
        match self.applied.notices.last() {
            Some(Notice::Opened { result: Ok(Opened { session, .. }), .. }) => {
                Who { session: *session, requests: 0 }
            }
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Submits the next request of a session; `None` when it waits.
    fn ask(&mut self, who: &mut Who, op: Op) -> Option<Outcome> {
        who.requests += 1;
        self.submit(who.session, who.requests, Acked::default(), op)
    }

    /// Submits a request by number; its outcome, unless it waits.
    fn submit(&mut self, session: SessionId, number: u64, acked: Acked, op: Op) -> Option<Outcome> {
        let sequence = Sequence::new(number);
        self.apply(Some(Command::Submit(Submission { session, sequence, acked, op })));
        self.outcome(session, number)
    }

    /// What the last entry decided on a request.
    fn outcome(&self, session: SessionId, number: u64) -> Option<Outcome> {
        let mut outcomes = self.applied.notices.iter().filter_map(|notice| match notice {
            Notice::Submitted { session: of, sequence, outcome }
                if *of == session && sequence.value() == number =>
            {
                Some(outcome.clone())
            }
            Notice::Opened { .. }
            | Notice::KeptAlive { .. }
            | Notice::Submitted { .. }
            | Notice::Lost { .. }
            | Notice::SessionEnded { .. } => None,
        });
        outcomes.next()
    }

    fn keep_alive(&mut self, session: SessionId, acked: Acked, seen: u64) -> &Notice {
        let losses_seen = LogIndex::new(seen);
        self.apply(Some(Command::KeepAlive(vec![KeepAlive { session, acked, losses_seen }])));
        self.applied.notices.last().expect("a keep-alive is answered")
    }

    fn holder(&self, lock: &str) -> Option<(SessionId, u64)> {
        let answer = self.table.answer(&Query::Lock { lock: name(lock) });
        let Answer::Lock(view) = answer else { panic!("not a lock: {answer:?}") };
        view.holder.map(|holder| (holder.session, holder.token.value()))
    }

    fn file(&self, file: &str) -> Option<FileView> {
        self.table.file(&FileName::new(file).expect("a valid name"))
    }
}

fn acked(through: u64, except: &[u64]) -> Acked {
    let except = except.iter().copied().map(Sequence::new).collect();
    Acked { through: Sequence::new(through), except }
}
