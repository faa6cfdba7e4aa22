//! What a session asks for: first whether its number is due, then the operation itself.

use alloc::vec::Vec;
use core::slice;

use bytes::Bytes;

use crate::ids::{FencingToken, Sequence, SessionId};
use crate::message::{
    Done, Effect, EndCause, FileAppend, Op, Outcome, Rejection, SessionEnd, Submission, Wait,
};
use crate::text::{FileName, Label, LockName, Text};
use crate::time::Duration;

use super::applied::{LockEvent, Notice, WaitEnd};
use super::applying::Applying;
use super::file;
use super::queue::{Hold, LockSlot, Turn};
use super::session::Place;
use super::window::{Admission, PENDING_OVERHEAD_BYTES, Room};

impl Applying<'_> {
    /// Runs a request if it is new, and answers it from memory if it is not.
    pub(super) fn submit(&mut self, submission: Submission) {
        let Submission { session, sequence, acked, op } = submission;
        let window_max = self.table.limits.window_max;
        let pending_max = u64::from(self.table.limits.pending_bytes_max);
        let pending = self.table.sessions.pending_bytes();
        let admission = self.table.sessions.change(session, |session| {
            let others = pending - session.window.bytes();
            session.window.acknowledge(&acked);
            let room = Room::new(others + session.window.bytes(), pending_max, begins(&op));
            session.window.admit(sequence, window_max, room)
        });
        match admission {
            Some(Admission::Run) => self.operate(session, sequence, op),
            Some(Admission::Decided(outcome)) => self.answer(session, sequence, outcome),
            Some(Admission::Open) => {}
            Some(Admission::Crowded) => {
                self.decide(session, sequence, Err(Rejection::TooManyPendingBytes));
            }
            Some(Admission::Refused(rejection)) => self.refuse(session, sequence, rejection),
            None => self.refuse(session, sequence, Rejection::SessionUnknown),
        }
    }

    /// Runs an operation that was accepted.
    fn operate(&mut self, session: SessionId, sequence: Sequence, op: Op) {
        let outcome = match op {
            Op::Acquire { lock, wait, max_hold } => {
                self.acquire(session, sequence, &lock, wait, max_hold).transpose()
            }
            Op::Section { lock, wait, appends } => {
                self.section(session, sequence, &lock, wait, appends).transpose()
            }
            Op::Cancel { waiting } => Some(self.cancel(session, waiting)),
            Op::Release { lock, token, appends } => {
                Some(self.release(session, &lock, token, &appends))
            }
            Op::Append { lock, token, append } => Some(self.append(session, &lock, token, &append)),
            Op::Break { lock, token, reason } => {
                Some(self.break_hold(session, &lock, token, reason))
            }
            Op::CreateFile { file, guard } => Some(self.create_file(&file, &guard)),
            Op::CloseSession => {
                self.answer(session, sequence, Ok(Done::SessionClosed));
                self.end_session(session, SessionEnd::Closed);
                None
            }
        };
        if let Some(outcome) = outcome {
            self.decide(session, sequence, outcome);
        }
    }

    /// Grants a free lock, or queues for one that is not; `None` when the request waits.
    fn acquire(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        lock: &LockName,
        wait: Wait,
        max_hold: Option<Duration>,
    ) -> Result<Option<Done>, Rejection> {
        match self.place(session, lock) {
            Some(Place::Waiting { .. }) => return Err(Rejection::AlreadyWaiting),
            Some(Place::Holder { slot }) => {
                let Hold { token, predecessor, .. } = *self.own_hold(slot);
                return Ok(Some(Done::Granted { token, predecessor }));
            }
            None => {}
        }
        if let Some(slot) = self.held_slot(lock) {
            return self.wait(session, sequence, slot, wait, Turn::Hold { max_hold });
        }
        if self.table.locks.held() >= u64::from(self.table.limits.locks_max) {
            return Err(Rejection::TooManyLocks);
        }
        self.check_places(session)?;
        let slot = self.table.locks.find_or_add(lock);
        Ok(Some(self.grant(slot, session, max_hold)))
    }

    /// Runs a section on a free lock, or queues it; `None` when it waits. What it asks for by
    /// itself is checked at once, what depends on the files when its turn comes.
    fn section(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        lock: &LockName,
        wait: Wait,
        appends: Vec<FileAppend>,
    ) -> Result<Option<Done>, Rejection> {
        file::check_sizes(&appends, &self.table.limits)?;
        match self.place(session, lock) {
            Some(Place::Waiting { .. }) => return Err(Rejection::AlreadyWaiting),
            Some(Place::Holder { slot }) => {
                return Err(Rejection::AlreadyHeld { token: self.own_hold(slot).token });
            }
            None => {}
        }
        if let Some(slot) = self.held_slot(lock) {
            return self.wait(session, sequence, slot, wait, Turn::Section { appends });
        }
        let slot = self.table.locks.find_or_add(lock);
        let outcome = self.run_section(slot, session, &appends);
        self.table.locks.drop_if_idle(slot);
        outcome.map(Some)
    }

    /// Queues a request if there is room for what it brings. No acknowledgement frees what waits:
    /// all of it together must stay within the limit itself, so that the outcomes that end the
    /// waits find room above it.
    fn wait(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        slot: LockSlot,
        wait: Wait,
        turn: Turn,
    ) -> Result<Option<Done>, Rejection> {
        let pending = self.table.sessions.pending_bytes() + PENDING_OVERHEAD_BYTES + turn.bytes();
        let fits = pending <= u64::from(self.table.limits.pending_bytes_max);
        if !fits && wait != Wait::Try {
            return Err(Rejection::TooManyPendingBytes);
        }
        self.enqueue(session, sequence, slot, wait, turn).map(|()| None)
    }

    /// The hold of a lock where the session has a holder's place.
    fn own_hold(&self, slot: LockSlot) -> &Hold {
        let hold = self.table.locks.lock(slot).hold.as_ref();
        hold.expect("a holder's place is at a lock that is held")
    }

    /// Where a lock is, if anybody holds it.
    fn held_slot(&self, lock: &LockName) -> Option<LockSlot> {
        let slot = self.table.locks.find(lock)?;
        self.table.locks.lock(slot).hold.is_some().then_some(slot)
    }

    /// What the session is to the lock.
    fn place(&self, session: SessionId, lock: &LockName) -> Option<Place> {
        self.table.sessions.session(session).places.get(lock).copied()
    }

    /// Takes one of the session's requests out of its queue.
    fn cancel(&mut self, session: SessionId, waiting: Sequence) -> Outcome {
        if self.table.sessions.session(session).window.waits_for(waiting).is_none() {
            return Err(Rejection::NotWaiting);
        }
        self.end_wait(session, waiting, WaitEnd::Cancelled);
        self.decide(session, waiting, Err(Rejection::Cancelled));
        Ok(Done::Cancelled)
    }

    /// Appends, then gives the lock back; nothing of it if any append is refused.
    fn release(
        &mut self,
        session: SessionId,
        lock: &LockName,
        token: FencingToken,
        appends: &[FileAppend],
    ) -> Outcome {
        let slot = self.check_hold(session, lock, token)?;
        file::check_sizes(appends, &self.table.limits)?;
        self.check_appends(slot, appends)?;
        let offsets = self.append_all(slot, token, appends);
        let label = self.label(session);
        self.vacate(session, slot);
        self.end_hold(slot, label, EndCause::Released);
        Ok(Done::Released { offsets })
    }

    /// Appends to one file, if the session holds the lock with that very token.
    fn append(
        &mut self,
        session: SessionId,
        lock: &LockName,
        token: FencingToken,
        append: &FileAppend,
    ) -> Outcome {
        let slot = self.check_hold(session, lock, token)?;
        file::check_sizes(slice::from_ref(append), &self.table.limits)?;
        self.check_appends(slot, slice::from_ref(append))?;
        Ok(Done::Appended { offset: self.append_one(slot, token, append) })
    }

    /// The fence: the lock, if the session holds it with that token at this point of the log.
    fn check_hold(
        &self,
        session: SessionId,
        lock: &LockName,
        token: FencingToken,
    ) -> Result<LockSlot, Rejection> {
        match self.place(session, lock) {
            Some(Place::Holder { slot }) if self.own_hold(slot).token == token => Ok(slot),
            Some(Place::Holder { .. } | Place::Waiting { .. }) | None => {
                let current = self.held_slot(lock).map(|slot| self.own_hold(slot).token);
                Err(Rejection::NotHolder { current })
            }
        }
    }

    /// Ends the hold with that token, whoever has it.
    fn break_hold(
        &mut self,
        session: SessionId,
        lock: &LockName,
        token: FencingToken,
        reason: Text,
    ) -> Outcome {
        let held = self.held_slot(lock).map(|slot| (slot, self.own_hold(slot).token));
        let Some((slot, _)) = held.filter(|(_, current)| *current == token) else {
            return Err(Rejection::NotHolder { current: held.map(|(_, current)| current) });
        };
        let by = Label::clone(&self.label(session));
        self.take_back(slot, EndCause::Broken { by, reason });
        Ok(Done::Broken)
    }

    /// Creates a file, and has the host create it too.
    fn create_file(&mut self, file: &FileName, guard: &LockName) -> Outcome {
        if self.table.files.create(file, guard, self.table.limits.files_max)? {
            let (file, guard) = (file.clone(), guard.clone());
            self.applied.events.push(LockEvent::FileCreated { file: file.clone(), guard });
            let (index, bytes) = (self.index(), Bytes::new());
            self.applied.effects.push(Effect { index, file, offset: 0, bytes });
        }
        Ok(Done::FileCreated)
    }

    /// Keeps the outcome of a request, and tells it.
    pub(super) fn decide(&mut self, session: SessionId, sequence: Sequence, outcome: Outcome) {
        if let Err(rejection) = &outcome {
            let rejection = rejection.clone();
            self.applied.events.push(LockEvent::Rejected { session, sequence, rejection });
        }
        self.table
            .sessions
            .change(session, |session| session.window.decide(sequence, outcome.clone()));
        self.answer(session, sequence, outcome);
    }

    /// Refuses a request for its number, which is not used up.
    fn refuse(&mut self, session: SessionId, sequence: Sequence, rejection: Rejection) {
        self.applied.events.push(LockEvent::Rejected {
            session,
            sequence,
            rejection: rejection.clone(),
        });
        self.answer(session, sequence, Err(rejection));
    }

    fn answer(&mut self, session: SessionId, sequence: Sequence, outcome: Outcome) {
        self.applied.notices.push(Notice::Submitted { session, sequence, outcome });
    }
}

/// Whether an operation may begin a wait or a hold. Others may end one.
fn begins(op: &Op) -> bool {
    match op {
        Op::Acquire { .. } | Op::Section { .. } => true,
        Op::Cancel { .. }
        | Op::Release { .. }
        | Op::Append { .. }
        | Op::Break { .. }
        | Op::CreateFile { .. }
        | Op::CloseSession => false,
    }
}
