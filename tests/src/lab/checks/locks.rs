//! What lock events must add up to: one holder, growing tokens, queues in order, fenced appends.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use quorlock_core::ids::{FencingToken, LogIndex, Sequence, SessionId};
use quorlock_core::lock::LockEvent;
use quorlock_core::text::{FileName, LockName};

/// Who holds and waits for what, from nothing but the events.
#[derive(Clone, Debug, Default)]
pub(super) struct LockCheck {
    last_token: FencingToken,
    holders: BTreeMap<LockName, (SessionId, FencingToken)>,
    queues: BTreeMap<LockName, VecDeque<(SessionId, Sequence)>>,
    /// The guard of each file, and its length.
    files: BTreeMap<FileName, (LockName, u64)>,
}

impl LockCheck {
    /// The events of an entry, which no node had applied before.
    pub(super) fn happened(&mut self, index: LogIndex, events: &[LockEvent]) {
        for event in events {
            self.event(index, event);
        }
        for (lock, queue) in &self.queues {
            let held = self.holders.contains_key(lock);
            assert!(held || queue.is_empty(), "{lock} is free after {index}, and {queue:?} wait");
        }
    }

    fn event(&mut self, index: LogIndex, event: &LockEvent) {
        match event {
            LockEvent::Granted { lock, session, token, .. } => {
                self.granted(index, lock, *session, *token);
            }
            LockEvent::Ended { lock, session, token, .. } => {
                let holder = self.holders.remove(lock);
                assert_eq!(holder, Some((*session, *token)), "{lock} ends for its holder");
            }
            LockEvent::Queued { lock, session, sequence, position } => {
                assert!(self.holders.contains_key(lock), "nobody waits for a lock that is free");
                let queue = self.queues.entry(lock.clone()).or_default();
                assert_eq!(queue.len() as u64, *position, "a request joins the queue at its end");
                queue.push_back((*session, *sequence));
            }
            LockEvent::WaitEnded { lock, session, sequence, .. } => {
                self.leave(lock, *session, *sequence);
            }
            LockEvent::Rejected { session, sequence, .. } => self.refused(*session, *sequence),
            LockEvent::FileCreated { file, guard } => {
                let earlier = self.files.insert(file.clone(), (guard.clone(), 0));
                assert!(earlier.is_none(), "{file} is created once");
            }
            LockEvent::Appended { file, token, offset, length } => {
                self.appended(file, *token, *offset, *length);
            }
            LockEvent::SessionOpened { .. } => (),
            LockEvent::SessionEnded { session, .. } => self.ended(*session),
        }
    }

    fn granted(&mut self, index: LogIndex, lock: &LockName, to: SessionId, token: FencingToken) {
        assert!(token > self.last_token, "token {token} comes after {}", self.last_token);
        assert!(token.value() >= index.value(), "a token is not below the index of its grant");
        self.last_token = token;
        let holder = self.holders.insert(lock.clone(), (to, token));
        assert_eq!(holder, None, "{lock} is granted to {to} while it is held");
        let first = self.queues.get_mut(lock).and_then(VecDeque::pop_front);
        let in_turn = first.is_none_or(|(session, _)| session == to);
        assert!(in_turn, "{lock} is granted to {to} before {first:?}");
    }

    fn leave(&mut self, lock: &LockName, session: SessionId, sequence: Sequence) {
        let queue = self.queues.entry(lock.clone()).or_default();
        let place = queue.iter().position(|waiter| *waiter == (session, sequence));
        let left = place.and_then(|place| queue.remove(place));
        assert!(left.is_some(), "{session} leaves the queue of {lock} without a place in it");
    }

    /// A request was refused: at once, or as a section whose turn has come.
    fn refused(&mut self, session: SessionId, sequence: Sequence) {
        for queue in self.queues.values_mut() {
            if queue.front() == Some(&(session, sequence)) {
                queue.pop_front();
            }
        }
    }

    fn appended(&mut self, file: &FileName, token: FencingToken, offset: u64, length: u64) {
        let (guard, end) = self.files.get_mut(file).expect("a file is created before");
        let holder = self.holders.get(guard).map(|(_, token)| *token);
        assert_eq!(holder, Some(token), "{file} is appended to by the holder of {guard} alone");
        assert_eq!(offset, *end, "{file} has no gaps");
        *end += length;
    }

    fn ended(&mut self, session: SessionId) {
        let held = self.holders.values().any(|(holder, _)| *holder == session);
        let waits = self.queues.values().flatten().any(|(waiter, _)| *waiter == session);
        assert!(!held && !waits, "session {session} is over and keeps nothing");
    }
}
