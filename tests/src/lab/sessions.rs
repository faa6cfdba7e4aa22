//! Sessions that a test drives request by request, without a client.

use std::collections::BTreeMap;

use quorlock_core::checksum::Checksum;
use quorlock_core::ids::{ClientNonce, LogIndex, RequestId, Sequence, SessionId};
use quorlock_core::message::{
    Acked, Consistency, KeepAlive, Op, Opened, Outcome, Query, Rejection, Reply, Request,
    Submission,
};
use quorlock_core::text::{Label, Text};
use quorlock_core::time::Duration;

use super::Lab;

/// The first connection that the lab numbers itself. Those below are the test's.
const FIRST_CONNECTION: u64 = 1000;

/// The time-to-live of a session that is opened without one.
const LEASE: Duration = Duration::from_secs(10);

/// The sessions that the test has opened, and the connections that the lab has made.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    /// The number that each session's next request has.
    next: BTreeMap<SessionId, Sequence>,
    /// By session and node.
    connections: BTreeMap<(SessionId, u64), u64>,
    connections_made: u64,
    reads: u64,
}

/// A label that says nothing but a name.
#[must_use]
pub fn label(name: &str) -> Label {
    let text = |text: &str| Text::new(text).expect("a name in a test is a short text");
    Label { host: text("lab"), pid: 0, user: text(name), command: text("") }
}

/// The nonce of a client with this name.
#[must_use]
pub fn nonce(name: &str) -> ClientNonce {
    ClientNonce(Checksum::of(name.as_bytes()).value(), 0)
}

impl Lab {
    /// A connection that was not used before.
    pub fn new_connection(&mut self) -> u64 {
        self.sessions.connections_made += 1;
        FIRST_CONNECTION + self.sessions.connections_made
    }

    /// The connection on which a session speaks with a node.
    pub fn connection(&mut self, n: u64, session: SessionId) -> u64 {
        if let Some(conn) = self.sessions.connections.get(&(session, n)) {
            return *conn;
        }
        let conn = self.new_connection();
        self.sessions.connections.insert((session, n), conn);
        conn
    }

    /// A session that was opened by a raw request speaks with a node on this connection.
    pub fn adopt(&mut self, n: u64, session: SessionId, conn: u64) {
        self.sessions.connections.insert((session, n), conn);
        self.sessions.next.entry(session).or_insert(Sequence::new(1));
    }

    /// Breaks the connection on which a session speaks with a node. The next request is on another.
    pub fn disconnect_session(&mut self, n: u64, session: SessionId) {
        if let Some(conn) = self.sessions.connections.remove(&(session, n)) {
            self.disconnect(n, conn);
        }
    }

    /// Opens a session through a node, and settles. The name gives the nonce and the label.
    ///
    /// # Panics
    /// If it is not opened.
    pub fn open(&mut self, n: u64, name: &str) -> SessionId {
        self.open_for(n, name, LEASE).expect("the session is opened").session
    }

    /// The same with a time-to-live; for once, without a panic when it is refused.
    ///
    /// # Errors
    /// What the log decided.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn open_for(&mut self, n: u64, name: &str, lease: Duration) -> Result<Opened, Rejection> {
        let conn = self.new_connection();
        let open = Request::OpenSession { nonce: nonce(name), label: label(name), lease };
        self.request(n, conn, open);
        self.settle();
        let replies = self.replies(conn);
        let opened = replies.iter().find_map(|reply| match reply {
            Reply::Opened { result, .. } => Some(result.clone()),
            Reply::KeptAlive { .. }
            | Reply::Submitted { .. }
            | Reply::Lost { .. }
            | Reply::SessionEnded { .. }
            | Reply::Read { .. }
            | Reply::Unavailable { .. } => None,
        });
        let result = opened.unwrap_or_else(|| panic!("no answer to the opening: {replies:?}"));
        if let Ok(opened) = &result {
            self.sessions.connections.insert((opened.session, n), conn);
            self.sessions.next.entry(opened.session).or_insert(Sequence::new(1));
        }
        result
    }

    /// Sends one numbered request of a session to a node.
    pub fn submit(&mut self, n: u64, session: SessionId, sequence: u64, op: Op) {
        self.submit_acked(n, session, sequence, Acked::default(), op);
    }

    /// The same, acknowledging outcomes.
    pub fn submit_acked(
        &mut self,
        n: u64,
        session: SessionId,
        sequence: u64,
        acked: Acked,
        op: Op,
    ) {
        let sequence = Sequence::new(sequence);
        let next = self.sessions.next.entry(session).or_insert(Sequence::new(1));
        *next = sequence.next().max(*next);
        let conn = self.connection(n, session);
        self.request(n, conn, Request::Submit(Submission { session, sequence, acked, op }));
    }

    /// The number that the next request of a session has.
    #[must_use]
    pub fn next_sequence(&self, session: SessionId) -> u64 {
        self.sessions.next.get(&session).map_or(1, |sequence| sequence.value())
    }

    /// Sends the next request of a session to a node, settles, and returns what was decided; `None`
    /// when that is still open.
    pub fn perform(&mut self, n: u64, session: SessionId, op: Op) -> Option<Outcome> {
        let sequence = self.next_sequence(session);
        self.submit(n, session, sequence, op);
        self.settle();
        self.outcome(session, sequence)
    }

    /// What a session was told of a request, by whichever node; `None` when nothing yet.
    #[must_use]
    pub fn outcome(&self, session: SessionId, sequence: u64) -> Option<Outcome> {
        self.checks.outcome(session, Sequence::new(sequence)).cloned()
    }

    /// Sends a keep-alive of a session to a node, acknowledging outcomes, and losses up to an index.
    pub fn keep_alive(&mut self, n: u64, session: SessionId, acked: Acked, losses_seen: LogIndex) {
        let id = self.new_request();
        let conn = self.connection(n, session);
        let keep_alive = KeepAlive { session, acked, losses_seen };
        self.request(n, conn, Request::KeepAlive { id, keep_alive });
    }

    /// Sends a query to a node, on a connection.
    pub fn read(&mut self, n: u64, conn: u64, query: Query, consistency: Consistency) -> RequestId {
        let id = self.new_request();
        self.request(n, conn, Request::Read { id, query, consistency });
        id
    }

    fn new_request(&mut self) -> RequestId {
        self.sessions.reads += 1;
        RequestId::new(self.sessions.reads)
    }
}
