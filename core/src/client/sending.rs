//! What the client does of its own accord: find a node, renew the lease, send what is to be sent.

use super::connection::Link;
use super::lease::{Phase, Session};
use super::{Client, ClientOutput, ClientTimer, Ending, SessionState, fit};
use crate::ids::{NodeId, Sequence};
use crate::message::{Consistency, KeepAlive, Op, Request, RequestKey, Submission};
use crate::time::Time;

impl Client {
    /// Looks at the clock, before anything else is looked at: a process that was paused must not
    /// act on a lease that ran out meanwhile.
    pub(super) fn check_clock(&mut self) {
        match self.state {
            SessionState::Opening if self.now >= self.open_until => self.end(Ending::NotOpened),
            SessionState::Opening | SessionState::Ended(_) => {}
            SessionState::Safe | SessionState::Jeopardy => self.check_lease(),
        }
    }

    fn check_lease(&mut self) {
        match self.session.lease().map(|lease| lease.phase(self.now)) {
            Some(Phase::Safe) => {}
            Some(Phase::Jeopardy) => self.set_state(SessionState::Jeopardy),
            Some(Phase::Over) => {
                self.set_state(SessionState::Jeopardy);
                self.end(Ending::LeaseRanOut);
            }
            None => unreachable!("a session without a lease is still opening"),
        }
    }

    /// Does what is due.
    pub(super) fn run_timers(&mut self) {
        let due = |time: Option<Time>| time.is_some_and(|time| time <= self.now);
        match self.connection.link() {
            Link::Waiting { until } if due(Some(*until)) => self.connect(self.connection.node()),
            Link::Connecting { until } if due(Some(*until)) => self.give_up(),
            Link::Waiting { .. } | Link::Connecting { .. } => {}
            Link::Connected(live) => {
                if let Some((_, node)) = live.leave.filter(|(at, _)| due(Some(*at))) {
                    self.move_to(node);
                } else if due(live.deadlines.first()) {
                    self.give_up();
                } else if due(live.paused_until) {
                    self.resume();
                }
            }
        }
    }

    /// Every time at which the client has something to do, with what it is.
    pub(super) fn timers(&self) -> impl Iterator<Item = (Time, ClientTimer)> {
        [self.session_timer(), self.link_timer()].into_iter().chain(self.live_timers()).flatten()
    }

    fn session_timer(&self) -> Option<(Time, ClientTimer)> {
        let lease = self.session.lease();
        match self.state {
            SessionState::Opening => Some((self.open_until, ClientTimer::Open)),
            SessionState::Safe => lease.map(|lease| (lease.jeopardy_at(), ClientTimer::Jeopardy)),
            SessionState::Jeopardy => lease.map(|lease| (lease.ends_at(), ClientTimer::Expiry)),
            SessionState::Ended(_) => None,
        }
    }

    fn link_timer(&self) -> Option<(Time, ClientTimer)> {
        match self.connection.link() {
            Link::Waiting { until } => Some((*until, ClientTimer::Reconnect)),
            Link::Connecting { until } => Some((*until, ClientTimer::Connect)),
            Link::Connected(live) => live.leave.map(|(at, _)| (at, ClientTimer::Reconnect)),
        }
    }

    fn live_timers(&self) -> [Option<(Time, ClientTimer)>; 3] {
        let Some(live) = self.connection.live() else { return [None; 3] };
        let with = |timer| move |time| (time, timer);
        [
            live.deadlines.first().map(with(ClientTimer::Reply)),
            live.paused_until.map(with(ClientTimer::Resend)),
            self.greeting_at().map(with(ClientTimer::KeepAlive)),
        ]
    }

    fn connect(&mut self, node: NodeId) {
        let attempt = self.connection.start(&self.config, node, self.now);
        self.outputs.push_back(ClientOutput::Connect { attempt, node });
    }

    /// Tells the host to forget the present attempt. What it has not sent on it, it need not.
    pub(super) fn disconnect(&mut self) {
        self.drop_unsent();
        if self.connection.is_open() {
            self.outputs.push_back(ClientOutput::Disconnect { attempt: self.connection.attempt() });
        }
    }

    fn drop_unsent(&mut self) {
        self.outputs.retain(|output| !matches!(output, ClientOutput::Send { .. }));
    }

    /// Gives the present attempt up.
    fn give_up(&mut self) {
        self.disconnect();
        self.connection.fail(&self.config, self.now);
    }

    /// The host says that the present attempt has failed.
    pub(super) fn handle_disconnected(&mut self) {
        self.drop_unsent();
        self.connection.fail(&self.config, self.now);
    }

    fn move_to(&mut self, node: NodeId) {
        self.disconnect();
        self.connect(node);
    }

    /// The node is not the leader, and may have said who is.
    pub(super) fn redirect(&mut self, hint: Option<NodeId>) {
        let hint = hint.filter(|node| self.connection.is_other_node(*node));
        if let Some(node) = hint.filter(|_| self.connection.may_redirect_at_once()) {
            return self.move_to(node);
        }
        if self.connection.live().is_some_and(|live| live.leave.is_none()) {
            let node = hint.unwrap_or(self.connection.next_node());
            let at = self.now.after(self.connection.pause(&self.config));
            if let Some(live) = self.connection.live_mut() {
                live.leave = Some((at, node));
            }
        }
    }

    /// Holds submissions and reads back for a while.
    pub(super) fn pause(&mut self) {
        if self.connection.live().is_some_and(|live| live.paused_until.is_none()) {
            let until = self.now.after(self.connection.pause(&self.config));
            if let Some(live) = self.connection.live_mut() {
                live.paused_until = Some(until);
            }
        }
    }

    fn resume(&mut self) {
        if let Some(live) = self.connection.live_mut() {
            live.paused_until = None;
        }
    }

    /// Sends all that can be sent now.
    pub(super) fn send_all(&mut self) {
        self.send_greeting();
        self.send_reads();
        self.send_submissions();
    }

    /// When the next open or keep-alive is to be sent on this connection; `None` while one is under
    /// way, or nothing is to be asked of this node.
    fn greeting_at(&self) -> Option<Time> {
        let live = self.connection.live()?;
        if live.greeting.is_some() || live.leave.is_some() {
            return None;
        }
        let lease = self.session.lease().filter(|_| live.greeted);
        let due = lease.map_or(Time::ZERO, |lease| lease.renewal_at(&self.config));
        Some(due.max(live.greet_after))
    }

    fn send_greeting(&mut self) {
        if self.greeting_at().is_none_or(|at| at > self.now) {
            return;
        }
        let request = self.greeting();
        let key = request.key();
        if let Some(live) = self.connection.live_mut() {
            live.greeting = Some((key, self.now));
        }
        self.send(request, true);
    }

    fn greeting(&mut self) -> Request {
        match &mut self.session {
            Session::Unopened { first_sent, .. } => {
                first_sent.get_or_insert(self.now);
                let lease = self.config.lease;
                Request::OpenSession { nonce: self.nonce, label: self.label.clone(), lease }
            }
            Session::Opened { id, .. } => {
                let keep_alive = KeepAlive {
                    session: *id,
                    acked: self.calls.acked(),
                    losses_seen: self.locks.losses_seen(),
                };
                Request::KeepAlive { id: self.next_request(), keep_alive }
            }
        }
    }

    fn send_reads(&mut self) {
        while let Some(request) = self.next_read() {
            self.send(request, true);
        }
    }

    /// The next read that can be sent on this connection. It counts as sent.
    fn next_read(&mut self) -> Option<Request> {
        let live = self.connection.live_mut()?;
        let leader = live.greeted && live.leave.is_none();
        let sendable = |consistency| match consistency {
            Consistency::Linearizable => leader,
            Consistency::Stale => true,
        };
        if live.paused_until.is_some() {
            return None;
        }
        let id = *live
            .unsent_reads
            .iter()
            .find(|id| self.calls.read(**id).is_some_and(|read| sendable(read.consistency)))?;
        live.unsent_reads.remove(&id);
        let read = self.calls.read(id)?;
        Some(Request::Read { id, query: read.query.clone(), consistency: read.consistency })
    }

    /// Whether submissions can be sent: to a node that is the leader, in a session that is alive.
    fn may_submit(&self) -> bool {
        let alive = match self.state {
            SessionState::Opening | SessionState::Ended(_) => false,
            SessionState::Safe | SessionState::Jeopardy => true,
        };
        let ready = self.connection.live().is_some_and(|live| {
            live.greeted && live.leave.is_none() && live.paused_until.is_none()
        });
        alive && ready
    }

    fn send_submissions(&mut self) {
        while self.may_submit() {
            let Some((submission, may_wait)) = self.next_submission() else { return };
            self.send(Request::Submit(submission), !may_wait);
        }
    }

    /// The next submission, and whether its answer may take as long as it likes.
    fn next_submission(&mut self) -> Option<(Submission, bool)> {
        let Session::Opened { id: session, window_max, .. } = self.session else { return None };
        let (sequence, op) = self.next_op(window_max)?;
        self.connection.live_mut()?.cursor = sequence.next();
        let may_wait = fit::may_wait(&op);
        Some((Submission { session, sequence, acked: self.calls.acked(), op }, may_wait))
    }

    /// The op to be sent next: first what was sent before on another connection or before a pause,
    /// then what is queued.
    fn next_op(&mut self, window_max: usize) -> Option<(Sequence, Op)> {
        let cursor = self.connection.live()?.cursor;
        if let Some((sequence, op)) = self.calls.submitted_from(cursor) {
            return Some((sequence, op.clone()));
        }
        let (sequence, op) = self.calls.number_next(window_max)?;
        if let Op::Acquire { lock, .. } = op {
            self.locks.acquire_sent(lock);
        }
        Some((sequence, op.clone()))
    }

    /// Puts a request on the present connection; `timed` if an answer must come soon.
    fn send(&mut self, request: Request, timed: bool) {
        let key: RequestKey = request.key();
        let deadline = self.now.after(self.config.reply_timeout);
        if let Some(live) = self.connection.live_mut().filter(|_| timed) {
            live.deadlines.set(key, deadline);
        }
        self.outputs.push_back(ClientOutput::Send { attempt: self.connection.attempt(), request });
    }
}
