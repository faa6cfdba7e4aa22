//! What happens by itself when lease time reaches a deadline.

use alloc::collections::BTreeSet;

use crate::ids::{Sequence, SessionId};
use crate::text::LockName;
use crate::time::LeaseTime;

/// Something with a deadline.
///
/// Of things with the same deadline the lesser comes first, so that all nodes agree: sessions by
/// id, then holds by the name of the lock, then waits by session and number. A session's end
/// comes first because it ends its holds and waits as well.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// A session expires.
    Session(SessionId),
    /// A lock is taken back from its holder.
    Hold(LockName),
    /// A request has waited for long enough.
    Wait(SessionId, Sequence),
}

/// Every deadline of the lock table, in the order in which they come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(LeaseTime, Due)>);

impl Deadlines {
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<LeaseTime> {
        self.0.first().map(|(deadline, _)| *deadline)
    }

    /// The first thing that is due at `now`.
    pub(super) fn due(&self, now: LeaseTime) -> Option<&Due> {
        self.0.first().filter(|(deadline, _)| *deadline <= now).map(|(_, due)| due)
    }

    pub(super) fn contains(&self, deadline: LeaseTime, due: Due) -> bool {
        self.0.contains(&(deadline, due))
    }

    /// Adds a deadline; `None` is one that never comes.
    pub(super) fn add(&mut self, deadline: Option<LeaseTime>, due: impl FnOnce() -> Due) {
        if let Some(deadline) = deadline {
            let added = self.0.insert((deadline, due()));
            assert!(added, "nothing has two deadlines");
        }
    }

    /// Removes a deadline that was added.
    pub(super) fn remove(&mut self, deadline: Option<LeaseTime>, due: impl FnOnce() -> Due) {
        if let Some(deadline) = deadline {
            let removed = self.0.remove(&(deadline, due()));
            assert!(removed, "a deadline is there until it is removed");
        }
    }
}
