//! Who gets a lock, who waits for it, and how each hold ends.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::{FencingToken, LogIndex, Sequence, SessionId};
use crate::message::{Done, Effect, EndCause, FileAppend, Loss, Outcome, Rejection, Wait};
use crate::text::{Label, LockName};
use crate::time::{Duration, LeaseTime};

use super::applied::{LockEvent, Notice, WaitEnd};
use super::applying::Applying;
use super::due::Due;
use super::history::Past;
use super::queue::{Hold, LockSlot, Turn, Waiter};
use super::session::Place;

impl Applying<'_> {
    /// The token of the next grant: the index of the entry, or the number after the last token
    /// where this entry has granted before, or an earlier one ran ahead of its index.
    fn next_token(&mut self) -> FencingToken {
        let last = self.table.last_token;
        assert!(last < FencingToken::MAX, "fencing tokens last for as long as log indexes");
        self.table.last_token = last.next().max(FencingToken::new(self.index().value()));
        self.table.last_token
    }

    /// A hold that begins now.
    fn new_hold(&mut self, slot: LockSlot, session: SessionId) -> Hold {
        let token = self.next_token();
        let lock = self.table.locks.lock(slot);
        let (lock, predecessor) = (lock.name.clone(), lock.last_token());
        self.applied.events.push(LockEvent::Granted { lock, session, token, predecessor });
        Hold { session, token, predecessor, since: self.table.clock, deadline: None }
    }

    /// Makes a session the holder of a lock that has none.
    pub(super) fn grant(
        &mut self,
        slot: LockSlot,
        session: SessionId,
        max_hold: Option<Duration>,
    ) -> Done {
        let mut hold = self.new_hold(slot, session);
        hold.deadline = max_hold.map(|duration| self.table.clock.after(duration));
        let Hold { token, predecessor, deadline, .. } = hold;
        let lock = self.name(slot);
        self.table.deadlines.add(deadline, || Due::Hold(lock.clone()));
        self.table.locks.grant(slot, hold);
        self.table.sessions.change(session, |session| {
            session.places.insert(lock, Place::Holder { slot });
        });
        Done::Granted { token, predecessor }
    }

    /// Runs a section on a lock that has no holder: a hold that begins and ends in this entry.
    /// Refused, it changes nothing, and takes no token.
    pub(super) fn run_section(
        &mut self,
        slot: LockSlot,
        session: SessionId,
        appends: &[FileAppend],
    ) -> Outcome {
        self.check_appends(slot, appends)?;
        let hold = self.new_hold(slot, session);
        let token = hold.token;
        let offsets = self.append_all(slot, token, appends);
        let label = self.label(session);
        self.remember(slot, hold, label, EndCause::Released);
        Ok(Done::Sectioned { token, offsets })
    }

    /// Gives a lock without a holder to whoever is next, and lets sections on the way have their
    /// turn. A section that cannot be run any more is refused, and the next one has its turn.
    pub(super) fn grant_next(&mut self, slot: LockSlot) {
        while let Some(waiter) = self.table.locks.next(slot) {
            let Waiter { session, sequence, deadline, turn, .. } = waiter;
            self.table.deadlines.remove(deadline, || Due::Wait(session, sequence));
            match turn {
                Turn::Hold { max_hold } => {
                    let granted = self.grant(slot, session, max_hold);
                    return self.decide(session, sequence, Ok(granted));
                }
                Turn::Section { appends } => {
                    self.vacate(session, slot);
                    let outcome = self.run_section(slot, session, &appends);
                    self.decide(session, sequence, outcome);
                }
            }
        }
        self.table.locks.drop_if_idle(slot);
    }

    /// Puts a request into the queue of a lock that is held, if it may wait and there is room.
    pub(super) fn enqueue(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        slot: LockSlot,
        wait: Wait,
        turn: Turn,
    ) -> Result<(), Rejection> {
        let deadline = self.wait_deadline(wait)?;
        let waiting = self.table.locks.lock(slot).queue.len() as u64;
        if waiting >= u64::from(self.table.limits.waiters_per_lock_max) {
            return Err(Rejection::TooManyWaiters);
        }
        self.check_places(session)?;
        let (lock, ticket, bytes) = (self.name(slot), self.index(), turn.bytes());
        let waiter = Waiter { session, sequence, since: self.table.clock, deadline, turn };
        let position = self.table.locks.enqueue(slot, ticket, waiter);
        self.table.deadlines.add(deadline, || Due::Wait(session, sequence));
        self.table.sessions.change(session, |session| {
            session.places.insert(lock.clone(), Place::Waiting { slot, ticket, sequence });
            session.window.open(sequence, lock.clone(), bytes);
        });
        self.applied.events.push(LockEvent::Queued { lock, session, sequence, position });
        Ok(())
    }

    /// Until when to wait; `None` for as long as it takes. A wait that would be over at once is
    /// no wait.
    fn wait_deadline(&self, wait: Wait) -> Result<Option<LeaseTime>, Rejection> {
        let clock = self.table.clock;
        match wait {
            Wait::Try => Err(Rejection::NotObtained),
            Wait::For(duration) if clock.after(duration) == clock => Err(Rejection::NotObtained),
            Wait::For(duration) => Ok(Some(clock.after(duration))),
            Wait::Forever => Ok(None),
        }
    }

    /// Whether a session may have one more place.
    pub(super) fn check_places(&self, session: SessionId) -> Result<(), Rejection> {
        let taken = self.table.sessions.session(session).places_taken();
        if taken >= u64::from(self.table.limits.places_per_session_max) {
            return Err(Rejection::TooManyPlaces);
        }
        Ok(())
    }

    /// Ends a wait before its turn. To decide its request is the caller's business.
    pub(super) fn end_wait(&mut self, session: SessionId, sequence: Sequence, cause: WaitEnd) {
        let asker = self.table.sessions.session(session);
        let lock = asker.window.waits_for(sequence).expect("a wait that ends is open");
        let Some(Place::Waiting { slot, ticket, .. }) = asker.places.get(lock).copied() else {
            panic!("an open request has a place in a queue");
        };
        self.vacate(session, slot);
        self.leave_queue(slot, ticket, cause);
    }

    /// Takes a request out of a queue. Its session's place is the caller's business.
    pub(super) fn leave_queue(&mut self, slot: LockSlot, ticket: LogIndex, cause: WaitEnd) {
        let Waiter { session, sequence, deadline, .. } = self.table.locks.leave(slot, ticket);
        self.table.deadlines.remove(deadline, || Due::Wait(session, sequence));
        let lock = self.name(slot);
        self.applied.events.push(LockEvent::WaitEnded { lock, session, sequence, cause });
    }

    /// Gives up the place that a session has at a lock.
    pub(super) fn vacate(&mut self, session: SessionId, slot: LockSlot) {
        let lock = &self.table.locks.lock(slot).name;
        let place = self.table.sessions.change(session, |session| session.places.remove(lock));
        assert!(place.flatten().is_some(), "whoever holds or waits has a place");
    }

    /// Ends a hold. The place of its session is the caller's business.
    pub(super) fn end_hold(&mut self, slot: LockSlot, label: Arc<Label>, cause: EndCause) {
        let hold = self.table.locks.end_hold(slot);
        let deadline = hold.deadline;
        self.table
            .deadlines
            .remove(deadline, || Due::Hold(self.table.locks.lock(slot).name.clone()));
        self.remember(slot, hold, label, cause);
        if self.table.locks.lock(slot).queue.is_empty() {
            self.table.locks.drop_if_idle(slot);
        } else {
            self.freed.push(slot);
        }
    }

    /// Takes a lock from a session that lives on, and keeps the loss until its client knows.
    pub(super) fn take_back(&mut self, slot: LockSlot, cause: EndCause) {
        let lock = self.table.locks.lock(slot);
        let hold = lock.hold.as_ref().expect("a lock that is taken back is held");
        let (session, token, index) = (hold.session, hold.token, self.index());
        let loss = Loss { lock: lock.name.clone(), token, index, cause: cause.clone() };
        let label = self.label(session);
        self.vacate(session, slot);
        self.end_hold(slot, label, cause);
        self.table.sessions.change(session, |session| session.window.lose(loss.clone()));
        self.applied.notices.push(Notice::Lost { session, loss });
    }

    /// Who a session belongs to.
    pub(super) fn label(&self, session: SessionId) -> Arc<Label> {
        Arc::clone(&self.table.sessions.session(session).label)
    }

    fn name(&self, slot: LockSlot) -> LockName {
        self.table.locks.lock(slot).name.clone()
    }

    /// Notes that a hold is over.
    fn remember(&mut self, slot: LockSlot, hold: Hold, label: Arc<Label>, cause: EndCause) {
        let Hold { session, token, since, .. } = hold;
        let (lock, until) = (self.name(slot), self.table.clock);
        self.applied.events.push(LockEvent::Ended { lock, session, token, cause: cause.clone() });
        let past = Past { session, label, token, since, until, cause };
        self.table.history.record(&mut self.table.locks, slot, past, &self.table.limits);
    }

    /// Whether all of the appends can be made under a lock, whatever their sizes are.
    pub(super) fn check_appends(
        &self,
        slot: LockSlot,
        appends: &[FileAppend],
    ) -> Result<(), Rejection> {
        let guard = &self.table.locks.lock(slot).name;
        self.table.files.check(guard, appends, &self.table.limits)
    }

    /// Makes appends that were checked; says where each begins.
    pub(super) fn append_all(
        &mut self,
        slot: LockSlot,
        token: FencingToken,
        appends: &[FileAppend],
    ) -> Vec<u64> {
        appends.iter().map(|append| self.append_one(slot, token, append)).collect()
    }

    /// Makes an append that was checked; says where it begins.
    pub(super) fn append_one(
        &mut self,
        slot: LockSlot,
        token: FencingToken,
        append: &FileAppend,
    ) -> u64 {
        let guard = &self.table.locks.lock(slot).name;
        let (offset, created) = self.table.files.append(guard, append);
        let (index, FileAppend { file, bytes }) = (self.table.index, append.clone());
        let length = bytes.len() as u64;
        if created {
            let (file, guard) = (file.clone(), guard.clone());
            self.applied.events.push(LockEvent::FileCreated { file, guard });
        }
        self.applied.events.push(LockEvent::Appended { file: file.clone(), token, offset, length });
        self.applied.effects.push(Effect { index, file, offset, bytes });
        offset
    }
}
