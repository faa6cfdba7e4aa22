//! Answers to queries.

use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use crate::config::PAGE_MAX;
use crate::message::{Answer, HolderView, LockSummary, LockView, PastHold, Query, WaiterView};
use crate::text::{Label, LockName, Text};

use super::LockTable;
use super::history::Past;
use super::queue::{Hold, Lock, Waiter};

impl LockTable {
    /// Answers a query, as of the last entry that was applied.
    ///
    /// The table does not have the bytes of files: to [`Query::ReadFile`] it answers with the file
    /// and no bytes, and the caller reads them, no further than the length it is told.
    #[must_use]
    pub fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Lock { lock } => Answer::Lock(self.lock_view(lock)),
            Query::Locks { prefix, after } => {
                Answer::Locks(self.lock_summaries(prefix, after.as_ref()))
            }
            Query::History { lock } => Answer::History(self.past_holds(lock)),
            Query::File { file } => Answer::File(self.file(file)),
            Query::Files { after } => {
                Answer::Files(self.files.views_after(after.as_ref()).take(PAGE_MAX).collect())
            }
            Query::ReadFile { file, .. } => {
                Answer::Bytes { file: self.file(file), bytes: Bytes::new() }
            }
        }
    }

    fn past_holds(&self, lock: &LockName) -> Vec<PastHold> {
        let lock = self.locks.find(lock).map(|slot| self.locks.lock(slot));
        lock.into_iter().flat_map(|lock| self.history.of(lock)).map(Past::view).collect()
    }

    fn lock_view(&self, name: &LockName) -> LockView {
        let lock = self.locks.find(name).map(|slot| self.locks.lock(slot));
        let queue = lock.into_iter().flat_map(|lock| lock.queue.values());
        LockView {
            lock: name.clone(),
            holder: lock.and_then(|lock| lock.hold.as_ref()).map(|hold| self.holder_view(hold)),
            waiters: lock.map_or(0, |lock| lock.queue.len() as u64),
            queue: queue.take(PAGE_MAX).map(|waiter| self.waiter_view(waiter)).collect(),
        }
    }

    /// One page of the locks whose names begin with `prefix`, after the name `after`.
    fn lock_summaries(&self, prefix: &Text, after: Option<&LockName>) -> Vec<LockSummary> {
        let prefix = prefix.as_str();
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            Some(_) | None => Bound::Included(prefix),
        };
        let locks = self.locks.from(start);
        let locks = locks.take_while(|lock| lock.name.as_str().starts_with(prefix));
        locks.take(PAGE_MAX).map(|lock| self.lock_summary(lock)).collect()
    }

    fn lock_summary(&self, lock: &Lock) -> LockSummary {
        LockSummary {
            lock: lock.name.clone(),
            holder: lock.hold.as_ref().map(|hold| self.holder_view(hold)),
            waiters: lock.queue.len() as u64,
        }
    }

    fn holder_view(&self, hold: &Hold) -> HolderView {
        let session = self.sessions.session(hold.session);
        HolderView {
            session: hold.session,
            label: Label::clone(&session.label),
            token: hold.token,
            held_for: self.clock.since(hold.since),
            lease_left: session.deadline.since(self.clock),
            hold_left: hold.deadline.map(|deadline| deadline.since(self.clock)),
        }
    }

    fn waiter_view(&self, waiter: &Waiter) -> WaiterView {
        WaiterView {
            session: waiter.session,
            label: Label::clone(&self.sessions.session(waiter.session).label),
            sequence: waiter.sequence,
            waited_for: self.clock.since(waiter.since),
        }
    }
}
