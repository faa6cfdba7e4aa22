//! The exactly-once client, without IO.
//!
//! An application wants to say "acquire this lock" and hear once how that went. Between it and the
//! log there are nodes that crash, connections that break, leaders that change and replies that
//! get lost. [`Client`] is what stands in between. Like a node it is a value with three verbs: the
//! host tells it what happened ([`Client::handle_input`]), does what it wants
//! ([`Client::poll_output`]), and wakes it in time ([`Client::poll_timeout`]). The simulator, the
//! page and the native library all run this one.
//!
//! # How it works
//!
//! - **One session.** The client opens it by a nonce, so that an open that is sent twice opens one
//!   session, and renews its lease by keep-alives. It counts the lease from when the request was
//!   *sent*, and makes it shorter by a margin, so that it knows of the end before the cluster
//!   decides it. [`SessionState`] tells the application where it stands: safe, in jeopardy, ended
//!   (Chubby, 2.8). The clock is looked at before anything else: a process that was paused past
//!   its lease hears that first, and sends nothing more. *`lease`*
//! - **Numbered requests.** Each op gets the session's next number when it is first sent, keeps it,
//!   and is sent again on every new connection until its outcome is there. Apply takes numbers only
//!   in order, and answers a repeated one with its first outcome (thesis, 6.3). With each request
//!   the client says which outcomes it has, so that the cluster may forget them. *`calls`*
//! - **One connection.** Only the leader serves a session. The client goes from node to node, with
//!   pauses that double, or where a node sends it, but not in circles. On a new connection an open
//!   or keep-alive comes first. Its answer shows that this is the leader, that the session lives,
//!   and, as [`SessionNews`](crate::message::SessionNews), what the client has missed; then follow
//!   the submissions that have no outcome, in order, and the reads. *`connection`, `sending`*
//! - **Outcomes.** What the log decided is final. What a node cannot say is tried elsewhere. When
//!   the session ends, each open call ends with it: what was not sent certainly did nothing; of
//!   what was sent, nobody can say any more ([`CallError::Unknown`]). *`replies`*
//! - **Locks.** [`Client::held`] lists what the session holds. News of a lock may overtake each
//!   other; their tokens put them in order. *`locks`*
//!
//! # Caveats
//!
//! - That a lock is held is an opinion. Between the look at it and the act the process may be
//!   paused for any time. What makes an append safe is its fencing token, which is checked where
//!   the append is applied.
//! - A connection must deliver what is sent in order, or break. Requests that are answered at once
//!   are timed; one that waits for a lock is not, and is sent again only on a new connection.
//! - The host's clock must go on while the machine sleeps (`CLOCK_BOOTTIME`), or the client's lease
//!   would too.
//! - A session that ended is not opened again: what it held is gone, and only the application knows
//!   what that means. It makes a new client, with a new nonce.

mod boundary;
mod calls;
mod config;
mod connection;
mod fit;
mod lease;
mod locks;
mod replies;
mod sending;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test knows which cases it makes")]
mod tests;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

pub use boundary::{
    Action, CallError, CallResult, ClientInput, ClientOutput, ClientTimer, Completed, Ending,
    HeldLock, SessionState,
};
pub use config::ClientConfig;

use crate::config::{ConfigError, within};
use crate::ids::{AttemptId, CallId, ClientNonce, NodeId, RequestId, SessionId};
use crate::membership::VOTERS_MAX;
use crate::message::{Done, Op, Rejection};
use crate::text::Label;
use crate::time::Time;
use calls::{Call, Calls, Read};
use connection::{Connection, Link};
use lease::{Phase, Session};
use locks::Locks;

/// The most nodes that a client can be given: those of a joint membership.
const NODES_MAX: u64 = 2 * VOTERS_MAX as u64;

/// The exactly-once client of one session.
///
/// Invariants, beside those of its parts: `Safe` and `Jeopardy` are what the lease says now; after
/// the end nothing is open, held or due; every lock with an acquire under way is known as such;
/// whatever is due is done before an input is left, so that the next time-out is in the future.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    nonce: ClientNonce,
    label: Label,
    state: SessionState,
    session: Session,
    /// When opening is given up.
    open_until: Time,
    connection: Connection,
    calls: Calls,
    locks: Locks,
    outputs: VecDeque<ClientOutput>,
    /// The time of the latest input.
    now: Time,
    last_call: CallId,
    last_request: RequestId,
    /// Replies that meant nothing.
    ignored: u64,
}

impl Client {
    /// A client that begins at once to open a session.
    ///
    /// `nodes` are those that the host can connect to; repeated ones count once. `label` says to
    /// people whose session it is. `nonce` must be random: two clients with the same one would share
    /// a session. `seed` decides about pauses and the first node, nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting is out of its range, or if there are no nodes or more than a
    /// cluster can have.
    pub fn new(
        config: ClientConfig,
        nodes: impl IntoIterator<Item = NodeId>,
        label: Label,
        nonce: ClientNonce,
        seed: u64,
        now: Time,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        within("nodes", nodes.len() as u64, 1, NODES_MAX)?;
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let mut client = Self {
            open_until: now.after(config.open_timeout),
            config,
            nonce,
            label,
            state: SessionState::Opening,
            session: Session::NEW,
            connection: Connection::new(nodes, seed, now),
            calls: Calls::new(),
            locks: Locks::default(),
            outputs: VecDeque::new(),
            now,
            last_call: CallId::ZERO,
            last_request: RequestId::ZERO,
            ignored: 0,
        };
        client.run_timers();
        Ok(client)
    }

    /// Takes in what the host tells. What follows from it comes out of [`Client::poll_output`].
    ///
    /// # Panics
    /// If the host breaks its side of the contract: `now` is before that of the last input, a
    /// call's number is not above the last one's, an attempt was never asked for.
    pub fn handle_input(&mut self, now: Time, input: ClientInput) {
        assert!(now >= self.now, "the host's clock went back from {:?} to {now:?}", self.now);
        self.now = now;
        self.check_clock();
        match input {
            ClientInput::Call { call, action } => self.handle_call(call, action),
            ClientInput::Connected { attempt } => self.handle_connected(attempt),
            ClientInput::Disconnected { attempt } => {
                if self.is_present(attempt) {
                    self.handle_disconnected();
                }
            }
            ClientInput::Reply { attempt, reply } => {
                let present = self.is_present(attempt) && self.connection.live().is_some();
                if !present || self.handle_reply(reply).is_err() {
                    self.ignored = self.ignored.saturating_add(1);
                }
            }
            ClientInput::Timeout => {}
        }
        if !self.is_ended() {
            self.run_timers();
            self.send_all();
        }
    }

    /// What the host is to do next; `None` when there is nothing more to do for now. To be taken
    /// after every input: outputs that nobody takes pile up.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When the host is to say [`ClientInput::Timeout`] at the latest, and what for. To come early
    /// is harmless. `None` when the session has ended.
    pub fn poll_timeout(&self) -> Option<(Time, ClientTimer)> {
        if self.is_ended() { None } else { self.timers().min() }
    }

    /// How the session stood at the last input. A new client is [`SessionState::Opening`]; each
    /// change is a [`ClientOutput::State`].
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// The session; `None` until the cluster has opened it.
    pub fn session(&self) -> Option<SessionId> {
        self.session.id()
    }

    /// When the client will take the session for lost, unless a keep-alive is answered before;
    /// `None` while it is opening, and after its end.
    pub fn lease_ends_at(&self) -> Option<Time> {
        match self.state {
            SessionState::Opening | SessionState::Ended(_) => None,
            SessionState::Safe | SessionState::Jeopardy => {
                self.session.lease().map(lease::Lease::ends_at)
            }
        }
    }

    /// The locks that the session holds, by name: granted, and neither given back nor lost as far
    /// as the client knows. A release counts when its outcome is here, not when it is asked for.
    /// Empty once the session has ended.
    pub fn held(&self) -> impl Iterator<Item = HeldLock<'_>> {
        self.locks.held().map(|(lock, token)| HeldLock { lock, token })
    }

    /// The node that the client is connected to; `None` while there is no connection.
    pub fn node(&self) -> Option<NodeId> {
        self.connection.live().map(|_| self.connection.node())
    }

    /// How many calls are open: made, and not finished.
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// How many replies were ignored: late, repeated, or senseless.
    pub fn ignored_replies(&self) -> u64 {
        self.ignored
    }

    fn is_ended(&self) -> bool {
        matches!(self.state, SessionState::Ended(_))
    }

    /// Whether an attempt is the present one, and not over.
    fn is_present(&self, attempt: AttemptId) -> bool {
        assert!(attempt <= self.connection.attempt(), "attempt {attempt} was never asked for");
        attempt == self.connection.attempt() && self.connection.is_open()
    }

    fn handle_connected(&mut self, attempt: AttemptId) {
        if self.is_present(attempt) && self.connection.live().is_none() {
            self.connection.establish(self.calls.reads());
        }
    }

    fn handle_call(&mut self, call: CallId, action: Action) {
        assert!(call > self.last_call, "call {call} does not follow {}", self.last_call);
        self.last_call = call;
        if let Err(error) = self.take_up(call, action) {
            self.finish(call, Err(error));
        }
    }

    fn take_up(&mut self, call: CallId, action: Action) -> Result<(), CallError> {
        if let SessionState::Ended(ending) = &self.state {
            return Err(CallError::SessionEnded(ending.clone()));
        }
        if self.calls.is_closing() {
            return Err(CallError::SessionEnded(Ending::Closed));
        }
        match action {
            Action::Op(op) => self.take_up_op(call, op),
            Action::Cancel { call: target } => self.take_up_cancel(call, target),
            Action::Read { query, consistency } => {
                check_room(self.calls.has_room(&self.config))?;
                let request = self.next_request();
                self.calls.add_read(request, Read { id: call, query, consistency });
                if let Some(live) = self.connection.live_mut() {
                    live.unsent_reads.insert(request);
                }
                Ok(())
            }
        }
    }

    fn take_up_op(&mut self, call: CallId, op: Op) -> Result<(), CallError> {
        fit::check_size(&op).map_err(CallError::Rejected)?;
        check_room(self.calls.has_room_for(&self.config, &op))?;
        self.calls.enqueue(call, op);
        Ok(())
    }

    fn take_up_cancel(&mut self, call: CallId, target: CallId) -> Result<(), CallError> {
        if let Some(waiting) = self.calls.waiting_number(target) {
            return self.take_up_op(call, Op::Cancel { waiting });
        }
        let Some(unsent) = self.calls.take_back(target) else {
            return Err(CallError::Rejected(Rejection::NotWaiting));
        };
        self.finish(unsent.id, Err(CallError::Rejected(Rejection::Cancelled)));
        self.finish(call, Ok(Completed::Done(Done::Cancelled)));
        Ok(())
    }

    fn next_request(&mut self) -> RequestId {
        self.last_request = self.last_request.next();
        self.last_request
    }

    fn finish(&mut self, call: CallId, result: CallResult) {
        self.outputs.push_back(ClientOutput::Finished { call, result });
    }

    fn set_state(&mut self, state: SessionState) {
        if self.state != state {
            assert!(self.state.may_become(&state), "{:?} cannot become {state:?}", self.state);
            self.state = state.clone();
            self.outputs.push_back(ClientOutput::State(state));
        }
    }

    /// Ends the session for good, and every call with it.
    fn end(&mut self, ending: Ending) {
        self.set_state(SessionState::Ended(ending.clone()));
        self.locks = Locks::default();
        while let Some(call) = self.calls.pop_submitted() {
            let result = last_word(&call, &ending);
            self.finish(call.id, result);
        }
        while let Some(call) = self.calls.pop_unsent() {
            self.finish(call, Err(CallError::SessionEnded(ending.clone())));
        }
        self.disconnect();
        self.connection.stop();
    }

    /// Asserts the invariants of the client and of its parts.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.connection.check_invariants();
        let window_max = match self.session {
            Session::Unopened { .. } => 0,
            Session::Opened { window_max, .. } => window_max,
        };
        self.calls.check_invariants(window_max);
        self.locks.check_invariants(&self.calls.acquires());
        self.check_state();
        self.check_live();
        let timeout = self.poll_timeout();
        assert!(
            timeout.is_none_or(|(time, _)| time > self.now),
            "what is due is done: {timeout:?}"
        );
    }

    fn check_state(&self) {
        let phase = self.session.lease().map(|lease| {
            lease.check_invariants();
            lease.phase(self.now)
        });
        match self.state {
            SessionState::Opening => assert!(self.now < self.open_until, "opening takes its time"),
            SessionState::Safe => assert_eq!(phase, Some(Phase::Safe), "safe is safe"),
            SessionState::Jeopardy => assert_eq!(phase, Some(Phase::Jeopardy), "told in time"),
            SessionState::Ended(_) => {
                assert_eq!(self.calls.len(), 0, "calls end with the session");
                assert_eq!(self.held().count(), 0, "and so do holds");
                assert!(!self.connection.is_open(), "and the connection");
            }
        }
    }

    fn check_live(&self) {
        let Link::Connected(live) = self.connection.link() else { return };
        let open = |id: &RequestId| self.calls.read(*id).is_some();
        assert!(live.unsent_reads.iter().all(open), "reads to be sent are open");
        assert!(!live.greeted || self.session.id().is_some(), "only a session is confirmed");
    }
}

impl SessionState {
    /// Whether a session in this state can come into another one.
    fn may_become(&self, next: &Self) -> bool {
        match next {
            Self::Opening => false,
            Self::Safe => matches!(self, Self::Opening | Self::Jeopardy),
            Self::Jeopardy => matches!(self, Self::Safe),
            Self::Ended(_) => !matches!(self, Self::Ended(_)),
        }
    }
}

fn check_room(room: bool) -> Result<(), CallError> {
    if room { Ok(()) } else { Err(CallError::TooManyCalls) }
}

/// How a call ends that was sent when the session ended, and whose outcome is not here.
fn last_word(call: &Call, ending: &Ending) -> CallResult {
    match call.op {
        // The cluster itself says that the session is over: all that was asked for.
        Op::CloseSession => match ending {
            Ending::Closed | Ending::Expired | Ending::Forgotten => {
                Ok(Completed::Done(Done::SessionClosed))
            }
            Ending::LeaseRanOut | Ending::NotOpened | Ending::Refused(_) => Err(CallError::Unknown),
        },
        // Whether it was granted or not: the lock does not outlast the session.
        Op::Acquire { .. } => Err(CallError::SessionEnded(ending.clone())),
        Op::Cancel { .. }
        | Op::Release { .. }
        | Op::Append { .. }
        | Op::Section { .. }
        | Op::Break { .. }
        | Op::CreateFile { .. } => Err(CallError::Unknown),
    }
}
