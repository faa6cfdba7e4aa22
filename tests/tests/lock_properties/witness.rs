//! What must be true of any lock table, whatever the model says.
//!
//! The witness sees what clients and hosts see: requests, notices, effects, answers. It knows
//! nothing of the state machine.

use std::collections::{BTreeMap, BTreeSet};

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::{Command, LockTable, Notice};
use quorlock_core::message::{Answer, Done, Effect, LockView, Op, Outcome, Query, Rejection};
use quorlock_core::text::{FileName, LockName};
use quorlock_tests::lock_model::Output;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Witness {
    /// The first decision on every request.
    decided: BTreeMap<(SessionId, Sequence), Outcome>,
    /// The lock that each request which may be granted one is about.
    asked: BTreeMap<(SessionId, Sequence), LockName>,
    /// Who was last granted each lock.
    granted: BTreeMap<LockName, (SessionId, FencingToken)>,
    last_token: FencingToken,
    dead: BTreeSet<SessionId>,
    files: BTreeMap<FileName, Vec<u8>>,
}

impl Witness {
    /// One entry and what came of it.
    pub(crate) fn saw(&mut self, index: LogIndex, command: Option<&Command>, output: &Output) {
        if let Some(Command::Submit(submission)) = command {
            let key = (submission.session, submission.sequence);
            let lock = match &submission.op {
                Op::Acquire { lock, .. } | Op::Section { lock, .. } => Some(lock),
                Op::Cancel { .. }
                | Op::Release { .. }
                | Op::Append { .. }
                | Op::Break { .. }
                | Op::CreateFile { .. }
                | Op::CloseSession => None,
            };
            let refused = output.notices.iter().any(|it| match it {
                Notice::Submitted { session, sequence, outcome } => {
                    (*session, *sequence) == key && !is_decision(outcome)
                }
                Notice::Opened { .. }
                | Notice::KeptAlive { .. }
                | Notice::Lost { .. }
                | Notice::SessionEnded { .. } => false,
            });
            if let Some(lock) = lock
                && !refused
            {
                self.asked.entry(key).or_insert_with(|| lock.clone());
            }
        }
        self.saw_notices(&output.notices);
        for effect in &output.effects {
            assert_eq!(effect.index, index, "an effect of another entry");
            self.saw_effect(effect);
        }
    }

    fn saw_notices(&mut self, notices: &[Notice]) {
        let mut fresh: Vec<FencingToken> = Vec::new();
        for notice in notices {
            match notice {
                Notice::Submitted { session, sequence, outcome } => {
                    fresh.extend(self.saw_outcome(*session, *sequence, outcome));
                }
                Notice::KeptAlive { session, result: Ok(news) } => {
                    self.must_live(*session);
                    for (sequence, outcome) in &news.outcomes {
                        let decided = self.decided.get(&(*session, *sequence));
                        assert_eq!(Some(outcome), decided, "news that was never told");
                    }
                }
                Notice::SessionEnded { session, .. } => {
                    assert!(self.dead.insert(*session), "session {session} ends twice");
                }
                Notice::Lost { session, .. } => self.must_live(*session),
                Notice::Opened { result: Ok(opened), .. } => self.must_live(opened.session),
                Notice::Opened { result: Err(_), .. }
                | Notice::KeptAlive { result: Err(_), .. } => {}
            }
        }
        fresh.sort();
        for token in fresh {
            assert!(token > self.last_token, "token {token} after {}", self.last_token);
            self.last_token = token;
        }
    }

    fn must_live(&self, session: SessionId) {
        assert!(!self.dead.contains(&session), "session {session} is dead");
    }

    /// Exactly once: a number has one outcome. Gives the token of a new grant.
    fn saw_outcome(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        outcome: &Outcome,
    ) -> Option<FencingToken> {
        if !is_decision(outcome) {
            return None;
        }
        if !matches!(outcome, Ok(Done::SessionClosed)) {
            self.must_live(session);
        }
        let key = (session, sequence);
        if let Some(first) = self.decided.get(&key) {
            assert_eq!(outcome, first, "request {sequence} of session {session} decided twice");
            return None;
        }
        self.decided.insert(key, outcome.clone());
        let (token, keeps) = match outcome {
            Ok(Done::Granted { token, .. }) => (*token, true),
            Ok(Done::Sectioned { token, .. }) => (*token, false),
            Ok(
                Done::Cancelled
                | Done::Released { .. }
                | Done::Appended { .. }
                | Done::Broken
                | Done::FileCreated
                | Done::SessionClosed,
            )
            | Err(_) => return None,
        };
        let lock = self.asked.get(&key).expect("only what was asked for is granted").clone();
        if self.granted.get(&lock) == Some(&(session, token)) {
            // The session held it already.
            return None;
        }
        if keeps {
            self.granted.insert(lock, (session, token));
        }
        Some(token)
    }

    /// The host's side: a write at an offset, here always the end of the file.
    fn saw_effect(&mut self, effect: &Effect) {
        let file = self.files.entry(effect.file.clone()).or_default();
        assert_eq!(effect.offset, file.len() as u64, "a gap or an overlap in {}", effect.file);
        file.extend_from_slice(&effect.bytes);
    }

    /// The table's records of the files against the host's bytes.
    pub(crate) fn saw_files(&self, table: &LockTable) {
        let recorded: Vec<_> = table.files().collect();
        assert_eq!(recorded.len(), self.files.len(), "as many files as the host has");
        for (view, (name, bytes)) in recorded.iter().zip(&self.files) {
            assert_eq!(&view.file, name);
            assert_eq!(view.length, bytes.len() as u64, "the length of {name}");
            assert_eq!(view.checksum, Checksum::of(bytes), "the checksum of {name}");
        }
        for (lock, (session, token)) in &self.granted {
            let Answer::Lock(view) = table.answer(&Query::Lock { lock: lock.clone() }) else {
                panic!("an answer to another question")
            };
            if let Some(holder) = view.holder {
                assert_eq!((holder.session, holder.token), (*session, *token), "holder of {lock}");
                self.must_live(holder.session);
            }
            for waiter in &view.queue {
                self.must_live(waiter.session);
            }
        }
    }

    /// First in, first out: queues only lose waiters, and gain them at their ends; who got the
    /// lock from the queue is followed only by those who came later.
    pub(crate) fn saw_queues(before: &[Answer], after: &[Answer]) {
        for (before, after) in before.iter().zip(after) {
            let (Answer::Lock(before), Answer::Lock(after)) = (before, after) else {
                panic!("an answer to another question")
            };
            saw_queue(before, after);
        }
    }
}

fn saw_queue(before: &LockView, after: &LockView) {
    let key = |it: &quorlock_core::message::WaiterView| (it.session, it.sequence);
    let had: Vec<_> = before.queue.iter().map(key).collect();
    let has: Vec<_> = after.queue.iter().map(key).collect();
    let stayed = has.iter().take_while(|it| had.contains(it)).count();
    assert!(has.len() <= stayed + 1, "one entry brings one waiter: {had:?}, {has:?}");
    let positions: Vec<_> =
        has[..stayed].iter().map(|it| had.iter().position(|other| other == it)).collect();
    assert!(positions.is_sorted(), "overtaken in the queue: {had:?}, {has:?}");
    if let Some(holder) = &after.holder
        && let Some(place) = had.iter().position(|(session, _)| *session == holder.session)
    {
        let overtaken = has.iter().find(|it| had[..place].contains(it));
        assert_eq!(overtaken, None, "overtaken by the holder {holder:?}");
    }
    assert!(after.holder.is_some() || has.is_empty(), "a free lock that is waited for");
}

/// Whether this is what the log decided on the request, rather than a word on its number.
fn is_decision(outcome: &Outcome) -> bool {
    !matches!(
        outcome,
        Err(Rejection::SessionUnknown
            | Rejection::OutOfOrder { .. }
            | Rejection::ResultEvicted
            | Rejection::WindowFull)
    )
}
