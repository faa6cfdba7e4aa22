//! Which connection an answer goes to.
//!
//! There are two ways to it. A request that this node put into the log is answered on the
//! connection that it came on. What happens to a session later (a grant, a loss) goes to the
//! connection on which the session was heard last. Both are bounded: the first by the limit on
//! uncommitted entries, the second by the sessions that are open.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::ids::{ConnectionId, EntryId, LogIndex, SessionId};
use crate::message::RequestKey;

/// The requests that are in the log through this node, and the connection of each session.
///
/// Invariant: `of_connection` holds the pairs of `of_session`, turned around.
#[derive(Clone, Debug, Default)]
pub(super) struct Routing {
    pending: BTreeMap<LogIndex, Pending>,
    of_session: BTreeMap<SessionId, ConnectionId>,
    of_connection: BTreeSet<(ConnectionId, SessionId)>,
}

/// The requests of one entry that wait for it to be applied.
#[derive(Clone, Debug)]
struct Pending {
    entry: EntryId,
    requests: Vec<(RequestKey, ConnectionId)>,
}

impl Routing {
    /// Remembers who asked for an entry that was just proposed.
    pub(super) fn expect(&mut self, entry: EntryId, requests: Vec<(RequestKey, ConnectionId)>) {
        self.pending.insert(entry.index, Pending { entry, requests });
    }

    /// Takes the requests of an entry that is applied now; none if it is another leader's entry.
    pub(super) fn take(&mut self, entry: EntryId) -> VecDeque<(RequestKey, ConnectionId)> {
        match self.pending.remove(&entry.index) {
            Some(pending) if pending.entry == entry => pending.requests.into(),
            Some(_) | None => VecDeque::new(),
        }
    }

    /// Takes every request that waits for an entry.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (RequestKey, ConnectionId)> + use<> {
        core::mem::take(&mut self.pending).into_values().flat_map(|pending| pending.requests)
    }

    /// The connection on which a session was heard last.
    pub(super) fn connection(&self, session: SessionId) -> Option<ConnectionId> {
        self.of_session.get(&session).copied()
    }

    /// A session was heard on a connection. The caller knows that the session is open.
    pub(super) fn attach(&mut self, session: SessionId, conn: ConnectionId) {
        match self.of_session.insert(session, conn) {
            Some(earlier) if earlier == conn => return,
            Some(earlier) => self.of_connection.remove(&(earlier, session)),
            None => false,
        };
        self.of_connection.insert((conn, session));
    }

    /// A session is over.
    pub(super) fn detach(&mut self, session: SessionId) {
        if let Some(conn) = self.of_session.remove(&session) {
            self.of_connection.remove(&(conn, session));
        }
    }

    /// A connection is gone.
    pub(super) fn disconnect(&mut self, conn: ConnectionId) {
        for pending in self.pending.values_mut() {
            pending.requests.retain(|(_, of)| *of != conn);
        }
        let gone: Vec<(ConnectionId, SessionId)> = self
            .of_connection
            .range((conn, SessionId::ZERO)..=(conn, SessionId::MAX))
            .copied()
            .collect();
        for pair in gone {
            self.of_connection.remove(&pair);
            self.of_session.remove(&pair.1);
        }
    }

    /// Keeps only the sessions for which `open` holds.
    pub(super) fn retain_sessions(&mut self, mut open: impl FnMut(SessionId) -> bool) {
        self.of_session.retain(|session, _| open(*session));
        self.of_connection.retain(|(_, session)| self.of_session.contains_key(session));
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.of_session.len(), self.of_connection.len(), "a session has one connection");
        for (session, conn) in &self.of_session {
            assert!(self.of_connection.contains(&(*conn, *session)), "the two maps agree");
        }
        for (index, pending) in &self.pending {
            assert_eq!(*index, pending.entry.index, "requests wait under their own index");
        }
    }
}
