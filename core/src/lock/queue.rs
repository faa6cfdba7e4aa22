//! Locks: who holds them and who waits, in order.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::capped;
use crate::config::APPENDS_CEILING;
use crate::ids::{FencingToken, LogIndex, Sequence, SessionId};
use crate::message::FileAppend;
use crate::text::LockName;
use crate::time::{Duration, LeaseTime};

use super::history::PastNumbers;

/// Where a lock is in memory: found once by name, then used in place of it.
///
/// A slot is used again for another lock. It is never encoded nor told, and nothing that can be
/// seen from outside is in the order of slots, so tables with other slots are still equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LockSlot(u32);

/// The locks that are held, waited for, or remembered by the history. A lock that is none of these
/// takes no memory.
///
/// Invariants: `by_name` finds each lock, and nothing else; the slots without a lock are `free`;
/// `held` and `waiters` count the holds and the waiters of all locks. Between two entries, a lock
/// with waiters has a holder, since one that loses it is granted again in the same entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    by_name: BTreeMap<LockName, LockSlot>,
    slots: Vec<Option<Lock>>,
    free: Vec<LockSlot>,
    held: u64,
    waiters: u64,
}

/// One lock.
///
/// The queue is ordered by ticket: the log index at which a request got its place, which is the
/// order of arrival and survives fail-over and snapshots. One entry brings one request at most, so
/// tickets are distinct.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    pub(super) name: LockName,
    pub(super) hold: Option<Hold>,
    pub(super) queue: BTreeMap<LogIndex, Waiter>,
    /// The past holds that the [`History`](super::history::History) has of it.
    pub(super) past: PastNumbers,
}

/// That a session holds a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) session: SessionId,
    pub(super) token: FencingToken,
    /// The token of the hold before, as the grant reported it.
    pub(super) predecessor: Option<FencingToken>,
    /// When it was granted.
    pub(super) since: LeaseTime,
    /// When it is taken back; `None` for never.
    pub(super) deadline: Option<LeaseTime>,
}

/// A request that waits for a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Waiter {
    pub(super) session: SessionId,
    pub(super) sequence: Sequence,
    /// When it got its place.
    pub(super) since: LeaseTime,
    /// Until when it waits; `None` for as long as it takes.
    pub(super) deadline: Option<LeaseTime>,
    /// What it waits for.
    pub(super) turn: Turn,
}

/// What happens when a waiter's turn comes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Turn {
    /// It holds the lock from then on.
    Hold {
        /// After how long the lock is taken back; `None` for never.
        max_hold: Option<Duration>,
    },
    /// These are appended, and the lock goes on to the next.
    Section {
        #[serde(deserialize_with = "capped::vec::<_, _, APPENDS_CEILING>")]
        appends: Vec<FileAppend>,
    },
}

impl Turn {
    /// The bytes that a waiting request keeps in memory beside itself.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Hold { .. } => 0,
            Self::Section { appends } => appends.iter().map(append_bytes).sum(),
        }
    }
}

/// The bytes of an append with the name of its file, and a little for the outcome it will have.
fn append_bytes(append: &FileAppend) -> u64 {
    append.bytes.len() as u64 + append.file.as_str().len() as u64 + 8
}

impl Lock {
    fn new(name: LockName) -> Self {
        Self { name, hold: None, queue: BTreeMap::new(), past: PastNumbers::default() }
    }

    /// The token of its latest past hold; `None` when none is remembered.
    pub(super) fn last_token(&self) -> Option<FencingToken> {
        self.past.back().map(|(_, token)| *token)
    }

    fn is_idle(&self) -> bool {
        self.hold.is_none() && self.queue.is_empty() && self.past.is_empty()
    }
}

impl Locks {
    /// How many locks are held.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// How many requests wait.
    pub(super) fn waiters(&self) -> u64 {
        self.waiters
    }

    /// The locks that are held, in the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.from(Bound::Unbounded)
    }

    /// All locks, also those that are only remembered.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lock> {
        self.slots.iter().flatten()
    }

    /// The locks that are held, in the order of names, from `start` on.
    pub(super) fn from(&self, start: Bound<&str>) -> impl Iterator<Item = &Lock> {
        let locks = self.by_name.range::<str, _>((start, Bound::Unbounded));
        locks.map(|(_, slot)| self.lock(*slot)).filter(|lock| lock.hold.is_some())
    }

    /// Where a lock is; `None` for one that is neither held nor remembered.
    pub(super) fn find(&self, name: &LockName) -> Option<LockSlot> {
        self.by_name.get(name).copied()
    }

    /// Where a lock is, or will be from now on.
    pub(super) fn find_or_add(&mut self, name: &LockName) -> LockSlot {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).expect("no memory holds 2^32 locks");
            self.slots.push(None);
            LockSlot(slot)
        });
        self.slots[slot.0 as usize] = Some(Lock::new(name.clone()));
        self.by_name.insert(name.clone(), slot);
        slot
    }

    /// Forgets a lock that is not needed any more; nothing happens if it is, or is gone already.
    pub(super) fn drop_if_idle(&mut self, slot: LockSlot) {
        if let Some(lock) = self.slots[slot.0 as usize].take_if(|lock| lock.is_idle()) {
            self.by_name.remove(&lock.name);
            self.free.push(slot);
        }
    }

    pub(super) fn lock(&self, slot: LockSlot) -> &Lock {
        self.slots[slot.0 as usize].as_ref().expect("a slot in use has its lock")
    }

    pub(super) fn lock_mut(&mut self, slot: LockSlot) -> &mut Lock {
        self.slots[slot.0 as usize].as_mut().expect("a slot in use has its lock")
    }

    /// Gives a lock to its next holder.
    pub(super) fn grant(&mut self, slot: LockSlot, hold: Hold) {
        let before = self.lock_mut(slot).hold.replace(hold);
        assert!(before.is_none(), "a lock has one holder");
        self.held += 1;
    }

    /// Takes the hold of a lock away.
    pub(super) fn end_hold(&mut self, slot: LockSlot) -> Hold {
        self.held -= 1;
        self.lock_mut(slot).hold.take().expect("a hold that ends has not ended before")
    }

    /// Puts a waiter at the end of the queue; says how many are before it.
    pub(super) fn enqueue(&mut self, slot: LockSlot, ticket: LogIndex, waiter: Waiter) -> u64 {
        let lock = self.lock_mut(slot);
        let position = lock.queue.len() as u64;
        let before = lock.queue.insert(ticket, waiter);
        assert!(before.is_none(), "an entry puts one request into a queue");
        self.waiters += 1;
        position
    }

    /// Takes a waiter out of the queue.
    pub(super) fn leave(&mut self, slot: LockSlot, ticket: LogIndex) -> Waiter {
        self.waiters -= 1;
        let waiter = self.lock_mut(slot).queue.remove(&ticket);
        waiter.expect("a place in a queue has its waiter")
    }

    /// Takes out the waiter whose turn it is, of a lock without a holder.
    ///
    /// The lock may be gone: between its freeing and its turn, all waiters may have left, and the
    /// history may have forgotten it. Its slot is not used again before the entry is over.
    pub(super) fn next(&mut self, slot: LockSlot) -> Option<Waiter> {
        let lock = self.slots[slot.0 as usize].as_mut()?;
        assert!(lock.hold.is_none(), "a turn comes when the hold before is over");
        let (_, waiter) = lock.queue.pop_first()?;
        self.waiters -= 1;
        Some(waiter)
    }

    /// Finds a broken invariant.
    pub(super) fn verify(&self) -> Result<(), &'static str> {
        if self.by_name.len() + self.free.len() != self.slots.len() {
            return Err("a slot has a lock with a name, or is free");
        }
        let (mut held, mut waiters) = (0, 0);
        for (name, slot) in &self.by_name {
            let lock = self.lock(*slot);
            if lock.name != *name || lock.is_idle() {
                return Err("a name finds its lock, which is in use");
            }
            if lock.hold.is_none() && !lock.queue.is_empty() {
                return Err("between two entries a lock with waiters has a holder");
            }
            held += u64::from(lock.hold.is_some());
            waiters += lock.queue.len() as u64;
        }
        if (held, waiters) != (self.held, self.waiters) {
            return Err("the holders and waiters are counted");
        }
        Ok(())
    }
}
