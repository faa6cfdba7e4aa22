//! The lock table as bytes: the data of a snapshot.
//!
//! The encoding is canonical: equal tables have equal bytes, and no other bytes are accepted for
//! them, so that the checksum of the bytes can stand for the state. It has every fact once. What
//! can be concluded (a session's places, its open requests, all deadlines) is left out, and
//! rebuilt on decoding.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::capped;
use crate::checksum::Checksum;
use crate::codec::{self, DecodeError, SNAPSHOT_BYTES_MAX, encodable};
use crate::config::Limits;
use crate::config::{PLACES_CEILING, WINDOW_CEILING};
use crate::ids::{ClientNonce, FencingToken, LogIndex, Sequence, SessionId};
use crate::message::{FileView, Loss, Outcome, PastHold};
use crate::text::{Label, LockName};
use crate::time::{Duration, LeaseTime};

use super::LockTable;
use super::due::Due;
use super::queue::{Hold, Lock, LockSlot, Waiter};
use super::session::{Place, Session};
use super::window::Window;

/// The highest value of any limit that counts things.
const LIST_MAX: usize = u32::MAX as usize;

/// Everything that a lock table cannot conclude from the rest. All lists are in the order of their
/// keys, the history in the order of ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct State {
    limits: Limits,
    index: LogIndex,
    clock: LeaseTime,
    last_token: FencingToken,
    #[serde(deserialize_with = "capped::vec::<_, _, LIST_MAX>")]
    sessions: Vec<SessionState>,
    #[serde(deserialize_with = "capped::vec::<_, _, LIST_MAX>")]
    locks: Vec<LockState>,
    #[serde(deserialize_with = "capped::vec::<_, _, LIST_MAX>")]
    files: Vec<FileView>,
    #[serde(deserialize_with = "capped::vec::<_, _, LIST_MAX>")]
    history: Vec<(LockName, PastHold)>,
}

encodable! {
    8 State, SNAPSHOT_BYTES_MAX;
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SessionState {
    id: SessionId,
    nonce: ClientNonce,
    label: Label,
    lease: Duration,
    deadline: LeaseTime,
    last: Sequence,
    #[serde(deserialize_with = "capped::vec::<_, _, WINDOW_CEILING>")]
    outcomes: Vec<(Sequence, Outcome)>,
    #[serde(deserialize_with = "capped::vec::<_, _, PLACES_CEILING>")]
    losses: Vec<Loss>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LockState {
    name: LockName,
    hold: Hold,
    #[serde(deserialize_with = "capped::vec::<_, _, LIST_MAX>")]
    queue: Vec<(LogIndex, Waiter)>,
}

/// Tables are equal when their snapshots are.
impl PartialEq for LockTable {
    fn eq(&self, other: &Self) -> bool {
        self.state() == other.state()
    }
}

impl Eq for LockTable {}

impl LockTable {
    /// The bytes of the table, for [`Snapshot::data`](crate::message::Snapshot::data). Equal
    /// tables have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        codec::encode(&self.state()).into()
    }

    /// The table of which these are the bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else than what [`LockTable::encode`] gives: also where parts
    /// contradict each other, or a limit is exceeded.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let state: State = codec::decode(bytes)?;
        let table = Self::from_state(state).ok_or(DecodeError::Malformed)?;
        if table.verify().is_err() || table.encode() != bytes {
            return Err(DecodeError::Malformed);
        }
        Ok(table)
    }

    /// The checksum of [`LockTable::encode`]: equal for equal tables.
    #[must_use]
    pub fn digest(&self) -> Checksum {
        Checksum::of(&self.encode())
    }

    fn state(&self) -> State {
        State {
            limits: self.limits.clone(),
            index: self.index,
            clock: self.clock,
            last_token: self.last_token,
            sessions: self.sessions.iter().map(|(id, session)| session.state(id)).collect(),
            locks: self.locks.iter().filter_map(Lock::state).collect(),
            files: self.files().collect(),
            history: self.history_state(),
        }
    }

    fn history_state(&self) -> Vec<(LockName, PastHold)> {
        let name = |slot| self.locks.lock(slot).name.clone();
        self.history.iter().map(|(slot, past)| (name(*slot), past.view())).collect()
    }

    /// Rebuilds a table; `None` when a part refers to something that is not there, or twice to
    /// the same.
    fn from_state(state: State) -> Option<Self> {
        state.limits.check().ok()?;
        let mut table = Self::new(state.limits);
        table.index = state.index;
        table.clock = state.clock;
        table.last_token = state.last_token;
        for session in state.sessions {
            table.restore_session(session)?;
        }
        for lock in state.locks {
            table.restore_lock(lock)?;
        }
        for file in state.files {
            table.files.insert(file).then_some(())?;
        }
        for (lock, past) in state.history {
            let slot = table.locks.find_or_add(&lock);
            table.history.record(&mut table.locks, slot, past.into(), &table.limits);
        }
        Some(table)
    }

    fn restore_session(&mut self, state: SessionState) -> Option<()> {
        let SessionState { id, nonce, label, lease, deadline, last, outcomes, losses } = state;
        let window = Window::restore(last, outcomes, losses);
        let places = BTreeMap::new();
        let label = Arc::new(label);
        let session = Session { nonce, label, lease, deadline, places, window };
        self.sessions.insert(id, session).then_some(())?;
        self.deadlines.add(Some(deadline), || Due::Session(id));
        Some(())
    }

    fn restore_lock(&mut self, state: LockState) -> Option<()> {
        let LockState { name, hold, queue } = state;
        self.locks.find(&name).is_none().then_some(())?;
        let slot = self.locks.find_or_add(&name);
        self.restore_place(hold.session, &name, Place::Holder { slot })?;
        self.restore_deadline(hold.deadline, || Due::Hold(name.clone()))?;
        self.locks.grant(slot, hold);
        for (ticket, waiter) in queue {
            self.restore_waiter(slot, &name, ticket, waiter)?;
        }
        Some(())
    }

    fn restore_waiter(
        &mut self,
        slot: LockSlot,
        name: &LockName,
        ticket: LogIndex,
        waiter: Waiter,
    ) -> Option<()> {
        let Waiter { session, sequence, deadline, .. } = waiter;
        let bytes = waiter.turn.bytes();
        self.restore_place(session, name, Place::Waiting { slot, ticket, sequence })?;
        self.restore_deadline(deadline, || Due::Wait(session, sequence))?;
        self.sessions.change(session, |session| {
            session.window.open(sequence, name.clone(), bytes);
        })?;
        if self.locks.lock(slot).queue.contains_key(&ticket) {
            return None;
        }
        self.locks.enqueue(slot, ticket, waiter);
        Some(())
    }

    /// Gives a session its place at a lock, of which it has none yet.
    fn restore_place(&mut self, id: SessionId, name: &LockName, place: Place) -> Option<()> {
        let before = self.sessions.change(id, |session| session.places.insert(name.clone(), place));
        before?.is_none().then_some(())
    }

    /// Adds a deadline that is not there yet.
    fn restore_deadline(
        &mut self,
        deadline: Option<LeaseTime>,
        due: impl Fn() -> Due,
    ) -> Option<()> {
        let taken = deadline.is_some_and(|deadline| self.deadlines.contains(deadline, due()));
        (!taken).then(|| self.deadlines.add(deadline, due))
    }
}

impl Session {
    fn state(&self, id: SessionId) -> SessionState {
        SessionState {
            id,
            nonce: self.nonce,
            label: Label::clone(&self.label),
            lease: self.lease,
            deadline: self.deadline,
            last: self.window.last(),
            outcomes: self.window.outcomes().map(|(at, outcome)| (at, outcome.clone())).collect(),
            losses: self.window.losses().iter().cloned().collect(),
        }
    }
}

impl Lock {
    /// `None` for a lock that nobody holds: it is in the table for its history only.
    fn state(&self) -> Option<LockState> {
        Some(LockState {
            name: self.name.clone(),
            hold: self.hold.clone()?,
            queue: self.queue.iter().map(|(ticket, waiter)| (*ticket, waiter.clone())).collect(),
        })
    }
}
