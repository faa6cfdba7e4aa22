//! Holding, waiting and handing over.

use quorlock_core::ids::{FencingToken, Sequence, SessionId};
use quorlock_core::lock::Notice;
use quorlock_core::message::{Done, EndCause, FileAppend, Loss, Outcome, PastHold, Rejection};
use quorlock_core::text::{Label, LockName};
use quorlock_core::time::{Duration, LeaseTime};

use super::{Hold, Model, Past, Turn};

impl Model {
    /// The present hold of a lock.
    pub fn hold(&self, lock: &LockName) -> Option<&Hold> {
        self.holds.iter().find(|it| it.lock == *lock)
    }

    /// The token of the present hold of a lock.
    pub fn token(&self, lock: &LockName) -> Option<FencingToken> {
        self.hold(lock).map(|it| it.token)
    }

    /// The token of the last hold of a lock that is over, if it is remembered.
    pub(super) fn predecessor(&self, lock: &LockName) -> Option<FencingToken> {
        self.past.iter().rev().find(|it| it.lock == *lock).map(|it| it.hold.token)
    }

    /// How many places a session takes: what it holds, what it waits for, and the losses that it
    /// has not acknowledged.
    pub fn places(&self, session: SessionId) -> usize {
        let held = self.holds.iter().filter(|it| it.session == session).count();
        let waiting = self.waiters.iter().filter(|it| it.session == session).count();
        let losses = self.session(session).map_or(0, |it| it.losses.len());
        held + waiting + losses
    }

    /// How many wait for a lock.
    pub fn queue_length(&self, lock: &LockName) -> usize {
        self.waiters.iter().filter(|it| it.lock == *lock).count()
    }

    pub(super) fn label(&self, session: SessionId) -> Label {
        self.session(session).expect("asked only for live sessions").label.clone()
    }

    fn next_token(&mut self) -> FencingToken {
        let by_index = FencingToken::new(self.index.value());
        self.last_token = by_index.max(self.last_token.next());
        self.last_token
    }

    /// Grants a free lock.
    pub(super) fn grant(
        &mut self,
        lock: &LockName,
        session: SessionId,
        max_hold: Option<Duration>,
    ) -> Done {
        assert!(self.hold(lock).is_none(), "one holder at most");
        assert!(self.session(session).is_some(), "nothing is granted to the dead");
        let predecessor = self.predecessor(lock);
        let token = self.next_token();
        self.holds.push(Hold {
            lock: lock.clone(),
            session,
            token,
            since: self.now,
            deadline: max_hold.map(|it| self.now.after(it)),
            predecessor,
        });
        Done::Granted { token, predecessor }
    }

    /// Runs a whole section on a free lock.
    ///
    /// Open: one that fails takes no token and leaves no trace in the history.
    pub(super) fn section(
        &mut self,
        lock: &LockName,
        session: SessionId,
        appends: &[FileAppend],
    ) -> Outcome {
        self.check_appends(lock, appends)?;
        let token = self.next_token();
        let offsets = self.append_all(lock, appends);
        self.remember(lock, session, token, self.now, EndCause::Released);
        Ok(Done::Sectioned { token, offsets })
    }

    /// Ends the hold of a lock.
    pub(super) fn end_hold(&mut self, lock: &LockName, cause: EndCause) -> Hold {
        let position = self
            .holds
            .iter()
            .position(|it| it.lock == *lock)
            .expect("asked only for locks that are held");
        let hold = self.holds.remove(position);
        self.remember(lock, hold.session, hold.token, hold.since, cause);
        self.freed.push(lock.clone());
        hold
    }

    fn remember(
        &mut self,
        lock: &LockName,
        session: SessionId,
        token: FencingToken,
        since: LeaseTime,
        cause: EndCause,
    ) {
        let label = self.label(session);
        let hold = PastHold { session, label, token, since, until: self.now, cause };
        self.past.push(Past { lock: lock.clone(), hold });
        let of_lock = self.past.iter().filter(|it| it.lock == *lock).count();
        if of_lock as u64 > u64::from(self.limits.history_per_lock_max) {
            let oldest = self.past.iter().position(|it| it.lock == *lock);
            self.past.remove(oldest.expect("there is at least the one just added"));
        }
        if self.past.len() as u64 > u64::from(self.limits.history_max) {
            self.past.remove(0);
        }
    }

    /// Takes a lock from a session that lives on.
    pub(super) fn take_away(&mut self, lock: &LockName, cause: EndCause) {
        let hold = self.end_hold(lock, cause.clone());
        let loss = Loss { lock: lock.clone(), token: hold.token, index: self.index, cause };
        let session = self.session_mut(hold.session).expect("a holder is alive");
        session.losses.push(loss.clone());
        self.tell(Notice::Lost { session: hold.session, loss });
    }

    /// Ends a wait without a turn.
    pub(super) fn leave_queue(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        rejection: Rejection,
    ) {
        self.waiters.retain(|it| (it.session, it.sequence) != (session, sequence));
        self.decide(session, sequence, Err(rejection));
    }

    /// Hands over all that has become free.
    pub(super) fn hand_over_all(&mut self) {
        for lock in std::mem::take(&mut self.freed) {
            self.hand_over(&lock);
        }
    }

    /// Gives a free lock to those who wait for it, in the order of their arrival, until one keeps
    /// it or nobody waits.
    fn hand_over(&mut self, lock: &LockName) {
        while self.hold(lock).is_none() {
            let Some(first) = self.waiters.iter().position(|it| it.lock == *lock) else {
                return;
            };
            let waiter = self.waiters.remove(first);
            let outcome = match waiter.turn {
                Turn::Hold(max_hold) => Ok(self.grant(lock, waiter.session, max_hold)),
                Turn::Section(appends) => self.section(lock, waiter.session, &appends),
            };
            self.decide(waiter.session, waiter.sequence, outcome);
        }
    }
}
