//! The past holds of each lock: who, when, and why it ended.
//!
//! A lock in use takes memory in the table only while somebody wants it. What is remembered of it
//! afterwards is here, and bounded twice: for each lock, and for all together.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use crate::config::Limits;
use crate::ids::{FencingToken, SessionId};
use crate::message::{EndCause, PastHold};
use crate::text::Label;
use crate::time::LeaseTime;

use super::queue::{Lock, LockSlot, Locks};

/// Past holds, oldest forgotten first.
///
/// Each gets the next number when it ends. Invariants: the number of each past hold is in the list
/// of its lock, in ascending order; no other number is.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    by_end: BTreeMap<u64, (LockSlot, Past)>,
    ended: u64,
}

/// A [`PastHold`] that shares the label with its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Past {
    pub(super) session: SessionId,
    pub(super) label: Arc<Label>,
    pub(super) token: FencingToken,
    pub(super) since: LeaseTime,
    pub(super) until: LeaseTime,
    pub(super) cause: EndCause,
}

/// The past holds of one lock that are remembered, oldest first: number and token.
pub(super) type PastNumbers = VecDeque<(u64, FencingToken)>;

impl History {
    /// How many past holds are remembered.
    pub(super) fn len(&self) -> u64 {
        self.by_end.len() as u64
    }

    /// All past holds, in the order in which they ended.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(LockSlot, Past)> {
        self.by_end.values()
    }

    /// The past holds of a lock, oldest first.
    pub(super) fn of(&self, lock: &Lock) -> impl Iterator<Item = &Past> {
        lock.past.iter().filter_map(|(number, _)| self.by_end.get(number)).map(|(_, past)| past)
    }

    /// Remembers a hold that has just ended, and forgets what is too much.
    pub(super) fn record(
        &mut self,
        locks: &mut Locks,
        slot: LockSlot,
        past: Past,
        limits: &Limits,
    ) {
        if limits.history_per_lock_max == 0 || limits.history_max == 0 {
            return;
        }
        let of_lock = &mut locks.lock_mut(slot).past;
        of_lock.push_back((self.ended, past.token));
        if of_lock.len() as u64 > u64::from(limits.history_per_lock_max)
            && let Some((oldest, _)) = of_lock.pop_front()
        {
            self.by_end.remove(&oldest);
        }
        self.by_end.insert(self.ended, (slot, past));
        self.ended += 1;
        if self.len() > u64::from(limits.history_max) {
            self.forget_oldest(locks);
        }
    }

    fn forget_oldest(&mut self, locks: &mut Locks) {
        let Some((number, (slot, _))) = self.by_end.pop_first() else { return };
        let first = locks.lock_mut(slot).past.pop_front();
        let first = first.map(|(number, _)| number);
        assert!(first == Some(number), "the oldest of all is the oldest of its lock");
        locks.drop_if_idle(slot);
    }

    /// Finds a broken invariant.
    pub(super) fn verify(&self, locks: &Locks, limits: &Limits) -> Result<(), &'static str> {
        if self.len() > u64::from(limits.history_max) {
            return Err("the history is within its limit");
        }
        for (number, (slot, past)) in &self.by_end {
            let of_lock = &locks.lock(*slot).past;
            if of_lock.binary_search(&(*number, past.token)).is_err() {
                return Err("a past hold is in the list of its lock");
            }
            if of_lock.len() as u64 > u64::from(limits.history_per_lock_max) {
                return Err("the history of a lock is within its limit");
            }
            if !of_lock.iter().is_sorted_by(|(_, a), (_, b)| a < b) {
                return Err("the tokens of a lock's past holds ascend");
            }
        }
        let listed: u64 = locks.all().map(|lock| lock.past.len() as u64).sum();
        if listed != self.len() {
            return Err("the lists of the locks have the past holds, and no others");
        }
        Ok(())
    }
}

impl Past {
    /// As clients and snapshots see it.
    pub(super) fn view(&self) -> PastHold {
        let Self { session, label, token, since, until, cause } = self;
        PastHold {
            session: *session,
            label: Label::clone(label),
            token: *token,
            since: *since,
            until: *until,
            cause: cause.clone(),
        }
    }
}

impl From<PastHold> for Past {
    fn from(past: PastHold) -> Self {
        let PastHold { session, label, token, since, until, cause } = past;
        Self { session, label: Arc::new(label), token, since, until, cause }
    }
}
