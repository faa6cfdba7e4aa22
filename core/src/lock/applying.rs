//! One entry being applied: time first, then the command.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::ids::{ClientNonce, LogIndex, SessionId};
use crate::message::{EndCause, KeepAlive, Opened, Rejection, SessionEnd};
use crate::text::Label;
use crate::time::Duration;

use super::LockTable;
use super::applied::{Applied, LockEvent, Notice, WaitEnd};
use super::command::Command;
use super::due::Due;
use super::queue::LockSlot;
use super::session::{Place, Session};
use super::window::Window;

/// One entry being applied.
///
/// Everything that changes the table is a method of this: here what concerns time and sessions,
/// in `request` what a session asks for, in `grant` who gets a lock and who loses it.
pub(super) struct Applying<'a> {
    pub(super) table: &'a mut LockTable,
    pub(super) applied: &'a mut Applied,
    /// Locks that have lost their holder and have waiters, in the order in which that happened.
    pub(super) freed: Vec<LockSlot>,
}

impl<'a> Applying<'a> {
    pub(super) fn new(table: &'a mut LockTable, applied: &'a mut Applied) -> Self {
        Self { table, applied, freed: Vec::new() }
    }

    /// Lets pass what is due, then runs the command.
    ///
    /// Locks are handed over after all of what was due, not in between: whoever expires with this
    /// entry is not granted anything by it.
    pub(super) fn run(mut self, command: Option<Command>) {
        for _ in 0..self.table.limits.expiries_per_entry_max {
            let Some(due) = self.table.deadlines.due(self.table.clock).cloned() else { break };
            self.pass(due);
        }
        self.hand_over();
        if let Some(command) = command {
            self.command(command);
            self.hand_over();
        }
    }

    /// Ends what has reached its deadline.
    fn pass(&mut self, due: Due) {
        match due {
            Due::Session(session) => self.end_session(session, SessionEnd::Expired),
            Due::Hold(lock) => {
                let slot = self.table.locks.find(&lock).expect("a lock with a deadline is held");
                self.take_back(slot, EndCause::HoldTimedOut);
            }
            Due::Wait(session, sequence) => {
                self.end_wait(session, sequence, WaitEnd::TimedOut);
                self.decide(session, sequence, Err(Rejection::TimedOut));
            }
        }
    }

    /// Grants the locks that have become free to those who wait for them.
    fn hand_over(&mut self) {
        for slot in mem::take(&mut self.freed) {
            self.grant_next(slot);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::OpenSession { nonce, label, lease } => {
                let result = self.open_session(nonce, label, lease);
                self.applied.notices.push(Notice::Opened { nonce, result });
            }
            Command::KeepAlive(keep_alives) => {
                for keep_alive in &keep_alives {
                    self.keep_alive(keep_alive);
                }
            }
            Command::Submit(submission) => self.submit(submission),
        }
    }

    /// Opens a session, or finds the one that has the nonce and renews its lease.
    fn open_session(
        &mut self,
        nonce: ClientNonce,
        label: Label,
        lease: Duration,
    ) -> Result<Opened, Rejection> {
        let window_max = self.table.limits.window_max;
        if let Some(session) = self.table.sessions.find(nonce) {
            self.renew(session);
            return Ok(Opened { session, window_max });
        }
        let (min, max) = (self.table.limits.session_lease_min, self.table.limits.session_lease_max);
        if lease < min || lease > max {
            return Err(Rejection::LeaseOutOfRange { min, max });
        }
        if self.table.sessions.len() >= u64::from(self.table.limits.sessions_max) {
            return Err(Rejection::TooManySessions);
        }
        let session = SessionId::new(self.index().value());
        self.add_session(session, nonce, label, lease);
        Ok(Opened { session, window_max })
    }

    fn add_session(&mut self, id: SessionId, nonce: ClientNonce, label: Label, lease: Duration) {
        let deadline = self.table.clock.after(lease);
        let places = BTreeMap::new();
        let window = Window::default();
        let label = Arc::new(label);
        let session = Session { nonce, label, lease, deadline, places, window };
        let inserted = self.table.sessions.insert(id, session);
        assert!(inserted, "an entry opens one session, and its index names no other");
        self.table.deadlines.add(Some(deadline), || Due::Session(id));
        self.applied.events.push(LockEvent::SessionOpened { session: id });
    }

    fn keep_alive(&mut self, keep_alive: &KeepAlive) {
        let id = keep_alive.session;
        let news = self.table.sessions.change(id, |session| {
            session.window.acknowledge(&keep_alive.acked);
            session.window.acknowledge_losses(keep_alive.losses_seen);
            session.window.news()
        });
        if news.is_some() {
            self.renew(id);
        }
        let result = news.ok_or(Rejection::SessionUnknown);
        self.applied.notices.push(Notice::KeptAlive { session: id, result });
    }

    /// Starts the lease of an open session anew.
    fn renew(&mut self, id: SessionId) {
        let clock = self.table.clock;
        let change = self.table.sessions.change(id, |session| {
            let before = session.deadline;
            session.deadline = clock.after(session.lease);
            (before, session.deadline)
        });
        if let Some((before, after)) = change {
            self.table.deadlines.remove(Some(before), || Due::Session(id));
            self.table.deadlines.add(Some(after), || Due::Session(id));
        }
    }

    /// Ends a session: its holds and waits, in the order of the names of the locks.
    ///
    /// It is gone from every queue before any lock is handed over, so it is never granted one.
    pub(super) fn end_session(&mut self, id: SessionId, cause: SessionEnd) {
        let session = self.table.sessions.remove(id);
        self.table.deadlines.remove(Some(session.deadline), || Due::Session(id));
        for place in session.places.into_values() {
            match place {
                Place::Holder { slot } => {
                    let cause = match cause {
                        SessionEnd::Closed => EndCause::SessionClosed,
                        SessionEnd::Expired => EndCause::SessionExpired,
                    };
                    self.end_hold(slot, Arc::clone(&session.label), cause);
                }
                Place::Waiting { slot, ticket, .. } => {
                    self.leave_queue(slot, ticket, WaitEnd::SessionEnded);
                }
            }
        }
        self.applied.events.push(LockEvent::SessionEnded { session: id, cause });
        self.applied.notices.push(Notice::SessionEnded { session: id, cause });
    }

    /// The index of the entry.
    pub(super) fn index(&self) -> LogIndex {
        self.table.index
    }
}
