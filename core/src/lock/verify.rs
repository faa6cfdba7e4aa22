//! The invariants that hold between two entries, within the parts and across them.

use alloc::collections::BTreeSet;

use super::LockTable;
use super::due::Due;
use super::queue::{Hold, Lock, Waiter};
use super::session::{Place, Session};
use super::window::Slot;
use crate::ids::{FencingToken, LogIndex, SessionId};
use crate::text::LockName;

/// What is wrong; `Ok` when nothing is.
type Verdict = Result<(), &'static str>;

fn ensure(holds: bool, invariant: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(invariant) }
}

impl LockTable {
    /// Checks every invariant of the table, its limits among them.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check_invariants(&self) {
        if let Err(invariant) = self.verify() {
            panic!("invariant of the lock table at index {}: {invariant}", self.index);
        }
    }

    /// The first invariant that does not hold. Also what a decoded table has to pass.
    pub(super) fn verify(&self) -> Verdict {
        self.sessions.verify()?;
        self.locks.verify()?;
        self.files.verify()?;
        self.history.verify(&self.locks, &self.limits)?;
        self.verify_counts()?;
        self.sessions.iter().try_for_each(|(id, session)| self.verify_session(id, session))?;
        self.locks.iter().try_for_each(|lock| self.verify_lock(lock))?;
        self.verify_tokens()
    }

    fn verify_counts(&self) -> Verdict {
        let limits = &self.limits;
        let places: u64 =
            self.sessions.iter().map(|(_, session)| session.places.len() as u64).sum();
        let deadlines: u64 = self.locks.iter().map(deadlines).sum();
        ensure(limits.check().is_ok(), "the limits are in their ranges")?;
        ensure(self.sessions.len() <= u64::from(limits.sessions_max), "not too many sessions")?;
        ensure(self.locks.held() <= u64::from(limits.locks_max), "not too many locks")?;
        ensure(self.files.len() <= u64::from(limits.files_max), "not too many files")?;
        ensure(
            places == self.locks.held() + self.locks.waiters(),
            "every place is that of a holder or of a waiter",
        )?;
        ensure(
            self.deadlines.len() == self.sessions.len() + deadlines,
            "every deadline is that of a session, a hold or a wait",
        )
    }

    fn verify_session(&self, id: SessionId, session: &Session) -> Verdict {
        let limits = &self.limits;
        ensure(id.value() <= self.index.value(), "a session was opened by an applied entry")?;
        ensure(id > SessionId::ZERO, "no entry has index zero")?;
        ensure(
            (limits.session_lease_min..=limits.session_lease_max).contains(&session.lease),
            "a session's time-to-live is within the limits",
        )?;
        ensure(
            self.deadlines.contains(session.deadline, Due::Session(id)),
            "a session has its deadline",
        )?;
        ensure(session.deadline <= self.clock.after(session.lease), "a lease began in the past")?;
        ensure(
            session.places_taken() <= u64::from(limits.places_per_session_max),
            "a session has not too many places",
        )?;
        ensure(
            session.window.len() <= u64::from(limits.window_max),
            "a session has not too many requests",
        )?;
        let losses = session.window.losses();
        ensure(
            losses.iter().all(|loss| loss.index <= self.index && loss.token <= self.last_token),
            "a loss was decided by an applied entry",
        )?;
        session.verify_open_requests()
    }

    fn verify_lock(&self, lock: &Lock) -> Verdict {
        if let Some(hold) = &lock.hold {
            self.verify_hold(lock, hold)?;
        }
        ensure(
            lock.queue.len() as u64 <= u64::from(self.limits.waiters_per_lock_max),
            "a queue is not too long",
        )?;
        let mut waiters = lock.queue.iter();
        waiters.try_for_each(|(ticket, waiter)| self.verify_waiter(&lock.name, *ticket, waiter))
    }

    fn verify_hold(&self, lock: &Lock, hold: &Hold) -> Verdict {
        let name = &lock.name;
        let slot = self.locks.find(name);
        let place = slot.map(|slot| Place::Holder { slot });
        ensure(
            place.is_some() && self.place_of(hold.session, name) == place,
            "a holder has an open session and its place",
        )?;
        ensure(hold.since <= self.clock, "a grant is in the past")?;
        ensure(hold.predecessor < Some(hold.token), "a predecessor is lower")?;
        ensure(lock.last_token() < Some(hold.token), "the tokens of a lock ascend")?;
        let due = Due::Hold(name.clone());
        ensure(
            hold.deadline.is_none_or(|deadline| self.deadlines.contains(deadline, due)),
            "a hold has its deadline",
        )
    }

    fn verify_waiter(&self, name: &LockName, ticket: LogIndex, waiter: &Waiter) -> Verdict {
        let Waiter { session, sequence, since, deadline, turn } = waiter;
        let slot = self.locks.find(name);
        let place = slot.map(|slot| Place::Waiting { slot, ticket, sequence: *sequence });
        ensure(
            place.is_some() && self.place_of(*session, name) == place,
            "a waiter has an open session and its place",
        )?;
        let slot = self.sessions.session(*session).window.slot(*sequence);
        ensure(
            slot == Some(&Slot::Open { lock: name.clone(), bytes: turn.bytes() }),
            "a waiter has its open request",
        )?;
        ensure(ticket <= self.index && *since <= self.clock, "a wait began in the past")?;
        let due = Due::Wait(*session, *sequence);
        ensure(
            deadline.is_none_or(|deadline| self.deadlines.contains(deadline, due)),
            "a wait has its deadline",
        )
    }

    /// No token was given twice, and none is above the last.
    fn verify_tokens(&self) -> Verdict {
        let mut tokens: BTreeSet<FencingToken> = BTreeSet::new();
        let past = self.history.iter().map(|(_, past)| past.token);
        let held = self.locks.iter().filter_map(|lock| lock.hold.as_ref());
        for token in past.chain(held.map(|hold| hold.token)) {
            ensure(token > FencingToken::ZERO, "no grant has token zero")?;
            ensure(token <= self.last_token, "no token is above the last")?;
            ensure(tokens.insert(token), "no token is given twice")?;
        }
        Ok(())
    }

    fn place_of(&self, session: SessionId, name: &LockName) -> Option<Place> {
        self.sessions.find_by_id(session)?.places.get(name).copied()
    }
}

impl Session {
    /// Open requests and waiting places are the two ends of the same thing.
    fn verify_open_requests(&self) -> Verdict {
        let mut open = 0;
        for (number, slot) in self.window.slots() {
            let Slot::Open { lock, .. } = slot else { continue };
            open += 1;
            let waits = matches!(
                self.places.get(lock),
                Some(Place::Waiting { sequence, .. }) if sequence == number
            );
            ensure(waits, "an open request has its place")?;
        }
        let is_waiting = |place: &&Place| matches!(place, Place::Waiting { .. });
        let waiting = self.places.values().filter(is_waiting).count();
        ensure(waiting == open, "a waiting place has its open request")
    }
}

/// How many deadlines a lock has: its hold's and its waiters'.
fn deadlines(lock: &Lock) -> u64 {
    let hold = lock.hold.iter().filter(|hold| hold.deadline.is_some()).count();
    let waits = lock.queue.values().filter(|waiter| waiter.deadline.is_some()).count();
    (hold + waits) as u64
}
