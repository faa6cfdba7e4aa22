//! Sessions: who they belong to, how long they live, and their places at locks.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::ids::{ClientNonce, LogIndex, Sequence, SessionId};
use crate::text::{Label, LockName};
use crate::time::{Duration, LeaseTime};

use super::queue::LockSlot;
use super::window::Window;

/// All open sessions.
///
/// Invariants: `by_nonce` has exactly the nonces of the sessions; `pending_bytes` is the sum over
/// their windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    by_nonce: BTreeMap<ClientNonce, SessionId>,
    pending_bytes: u64,
}

/// One open session.
///
/// Invariants: an open request of the window waits for a lock where the session has the place
/// [`Place::Waiting`] under that number, and each such place has its open request.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// By which a repeated opening finds it.
    pub(super) nonce: ClientNonce,
    /// Who it belongs to.
    pub(super) label: Arc<Label>,
    /// How long it lives without a keep-alive.
    pub(super) lease: Duration,
    /// When it expires.
    pub(super) deadline: LeaseTime,
    /// The locks that it holds or waits for: at most one place at each.
    pub(super) places: BTreeMap<LockName, Place>,
    /// Its exactly-once table.
    pub(super) window: Window,
}

/// What a session is to a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Its holder.
    Holder {
        /// The lock.
        slot: LockSlot,
    },
    /// In its queue.
    Waiting {
        /// The lock.
        slot: LockSlot,
        /// Its key in the queue.
        ticket: LogIndex,
        /// The number of the request that waits.
        sequence: Sequence,
    },
}

impl Session {
    /// How many places the session takes up: it may come to hold, or has lost, so many locks.
    pub(super) fn places_taken(&self) -> u64 {
        (self.places.len() + self.window.losses().len()) as u64
    }
}

impl Sessions {
    pub(super) fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// What all windows count for.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    pub(super) fn find(&self, nonce: ClientNonce) -> Option<SessionId> {
        self.by_nonce.get(&nonce).copied()
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn find_by_id(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// A session that something in the table refers to.
    pub(super) fn session(&self, id: SessionId) -> &Session {
        self.by_id.get(&id).expect("whoever holds or waits has an open session")
    }

    /// Puts a session in; `false`, and no change to the others, when its id or nonce is taken.
    pub(super) fn insert(&mut self, id: SessionId, session: Session) -> bool {
        if self.by_id.contains_key(&id) || self.by_nonce.contains_key(&session.nonce) {
            return false;
        }
        self.pending_bytes += session.window.bytes();
        self.by_nonce.insert(session.nonce, id);
        self.by_id.insert(id, session);
        true
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Session {
        let session = self.by_id.remove(&id).expect("only an open session can end");
        self.by_nonce.remove(&session.nonce);
        self.pending_bytes -= session.window.bytes();
        session
    }

    /// Changes a session, and keeps count of its window; `None` when it is not open.
    pub(super) fn change<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let session = self.by_id.get_mut(&id)?;
        let before = session.window.bytes();
        let result = change(session);
        self.pending_bytes = self.pending_bytes - before + session.window.bytes();
        Some(result)
    }

    /// Finds a broken invariant.
    pub(super) fn verify(&self) -> Result<(), &'static str> {
        let bytes: u64 = self.by_id.values().map(|session| session.window.bytes()).sum();
        if bytes != self.pending_bytes {
            return Err("the pending bytes are those of all windows");
        }
        if self.by_nonce.len() != self.by_id.len() {
            return Err("every session has one nonce");
        }
        for (id, session) in &self.by_id {
            if self.by_nonce.get(&session.nonce) != Some(id) {
                return Err("a nonce finds its session");
            }
            session.window.verify()?;
        }
        Ok(())
    }
}
