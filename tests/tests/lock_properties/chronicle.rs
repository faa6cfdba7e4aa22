//! What must be true of the events of any lock table.
//!
//! Events come in the order in which things happened, so that who holds what and who waits can be
//! followed from them alone, and every rule can be checked at the moment it is about: a lock is
//! free when it is granted, to the first who waits for it, who is alive.

use std::collections::{BTreeMap, BTreeSet};

use quorlock_core::ids::{FencingToken, Sequence, SessionId};
use quorlock_core::lock::{LockEvent, LockTable};
use quorlock_core::message::{Answer, Query};
use quorlock_core::text::{FileName, LockName};

/// What the events so far amount to.
#[derive(Default)]
pub(crate) struct Chronicle {
    sessions: BTreeSet<SessionId>,
    holders: BTreeMap<LockName, (SessionId, FencingToken)>,
    queues: BTreeMap<LockName, Vec<(SessionId, Sequence)>>,
    /// The guard and the length of every file.
    files: BTreeMap<FileName, (LockName, u64)>,
    /// The last hold of every lock that is over.
    ended: BTreeMap<LockName, FencingToken>,
    last_token: FencingToken,
}

impl Chronicle {
    /// The events of one entry, and the table after it.
    pub(crate) fn saw(&mut self, events: &[LockEvent], table: &LockTable) {
        for event in events {
            self.saw_event(event);
        }
        self.compare(table);
    }

    fn saw_event(&mut self, event: &LockEvent) {
        match event {
            LockEvent::SessionOpened { session } => {
                assert!(self.sessions.insert(*session), "session {session} is opened twice");
            }
            LockEvent::SessionEnded { session, cause: _ } => self.session_ended(*session),
            LockEvent::Granted { lock, session, token, predecessor } => {
                self.granted(lock, *session, *token, *predecessor);
            }
            LockEvent::Ended { lock, session, token, cause: _ } => {
                assert_eq!(self.holders.remove(lock), Some((*session, *token)), "{event:?}");
                self.ended.insert(lock.clone(), *token);
            }
            LockEvent::Queued { lock, session, sequence, position } => {
                assert!(self.holders.contains_key(lock), "waits for a free lock: {event:?}");
                self.must_live(*session);
                let queue = self.queues.entry(lock.clone()).or_default();
                assert_eq!(*position, queue.len() as u64, "{event:?}");
                queue.push((*session, *sequence));
            }
            LockEvent::WaitEnded { lock, session, sequence, cause: _ } => {
                let queue = self.queues.entry(lock.clone()).or_default();
                let place = queue.iter().position(|it| *it == (*session, *sequence));
                queue.remove(place.expect("only who waits can stop waiting"));
            }
            LockEvent::FileCreated { file, guard } => {
                let before = self.files.insert(file.clone(), (guard.clone(), 0));
                assert_eq!(before, None, "{file} is created twice");
            }
            LockEvent::Appended { file, token, offset, length } => {
                let (guard, end) = self.files.get_mut(file).expect("the file was created");
                let (_, present) = self.holders.get(guard).expect("its guard is held");
                assert_eq!((present, *end), (token, *offset), "{event:?}");
                *end += length;
            }
            LockEvent::Rejected { session, sequence, rejection: _ } => {
                self.refused(*session, *sequence);
            }
        }
    }

    fn must_live(&self, session: SessionId) {
        assert!(self.sessions.contains(&session), "session {session} does not live");
    }

    fn session_ended(&mut self, session: SessionId) {
        assert!(self.sessions.remove(&session), "session {session} ends, but did not live");
        assert!(self.holders.values().all(|(holder, _)| *holder != session), "the dead hold");
        let mut waiting = self.queues.values().flatten();
        assert!(waiting.all(|(waiter, _)| *waiter != session), "the dead wait");
    }

    fn granted(
        &mut self,
        lock: &LockName,
        session: SessionId,
        token: FencingToken,
        predecessor: Option<FencingToken>,
    ) {
        self.must_live(session);
        assert!(token > self.last_token, "token {token} after {}", self.last_token);
        self.last_token = token;
        let before = self.holders.insert(lock.clone(), (session, token));
        assert_eq!(before, None, "{lock} is granted to a second holder");
        if let Some(predecessor) = predecessor {
            assert_eq!(self.ended.get(lock), Some(&predecessor), "the hold before, of {lock}");
        }
        let queue = self.queues.entry(lock.clone()).or_default();
        if !queue.is_empty() {
            let (first, _) = queue.remove(0);
            assert_eq!(first, session, "{lock} is granted out of turn");
        }
    }

    /// A request that waits is refused only at its turn.
    fn refused(&mut self, session: SessionId, sequence: Sequence) {
        for (lock, queue) in &mut self.queues {
            if queue.contains(&(session, sequence)) {
                assert_eq!(queue.remove(0), (session, sequence), "refused before its turn");
                assert!(!self.holders.contains_key(lock), "a turn while the lock is held");
            }
        }
    }

    fn compare(&self, table: &LockTable) {
        let locks: BTreeSet<&LockName> = self.holders.keys().chain(self.queues.keys()).collect();
        for lock in locks {
            let Answer::Lock(view) = table.answer(&Query::Lock { lock: lock.clone() }) else {
                panic!("an answer to another question")
            };
            let holder = view.holder.map(|it| (it.session, it.token));
            assert_eq!(holder.as_ref(), self.holders.get(lock), "the holder of {lock}");
            let queue: Vec<_> = view.queue.iter().map(|it| (it.session, it.sequence)).collect();
            let followed = self.queues.get(lock).cloned().unwrap_or_default();
            assert_eq!(queue, followed, "the queue of {lock}");
            assert!(holder.is_some() || queue.is_empty(), "{lock} is free and waited for");
        }
        let files: Vec<_> = table.files().map(|it| (it.file, (it.guard, it.length))).collect();
        let followed: Vec<_> =
            self.files.iter().map(|(name, file)| (name.clone(), file.clone())).collect();
        assert_eq!(files, followed, "the files");
        assert_eq!(table.counts().locks, self.holders.len() as u64, "the locks that are held");
    }
}
