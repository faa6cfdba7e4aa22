//! Whatever comes, in whatever order: what a client may do and what it must not.
//!
//! Nodes answer at random here, with sense and without; time passes and jumps; connections come and
//! go. A watcher sees every output and holds the client to its rules.

use alloc::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::*;
use crate::message::{Acked, Answer, LockView};

/// What the watcher has seen.
struct Watcher {
    host: Host,
    config: ClientConfig,
    state: SessionState,
    session: Option<SessionId>,
    lease_ends_at: Option<Time>,
    connected: bool,
    open: BTreeSet<u64>,
    /// Calls that are over, with what they came to.
    over: BTreeMap<u64, CallResult>,
    /// Cancels that went on to the cluster, in order.
    cancels: Vec<u64>,
    /// The op and the call of each number that was sent.
    numbered: BTreeMap<Sequence, (Op, u64)>,
    /// The numbers that were sent on this connection, since they had to be sent again.
    sent_here: BTreeSet<Sequence>,
    /// Whether the node has turned a submission away.
    turned_away: bool,
    /// Every request, with its attempt.
    requests: Vec<(AttemptId, Request)>,
    /// When each open or keep-alive was first sent.
    greetings: BTreeMap<RequestKey, Time>,
    lost: BTreeSet<(LogIndex, FencingToken)>,
}

impl Watcher {
    fn new() -> Self {
        let config = ClientConfig { calls_max: 12, ..ClientConfig::default() };
        let host = Host::new(&[1, 2, 3], config.clone());
        Self {
            host,
            config,
            state: SessionState::Opening,
            session: None,
            lease_ends_at: None,
            connected: false,
            open: BTreeSet::new(),
            over: BTreeMap::new(),
            cancels: vec![],
            numbered: BTreeMap::new(),
            sent_here: BTreeSet::new(),
            turned_away: false,
            requests: vec![],
            greetings: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    fn step(&mut self, kind: u8, choice: u8, detail: u8) {
        let mut answered = None;
        match kind % 32 {
            0..=4 => self.call(choice, detail),
            5 => {
                let back = u64::from(detail % 8);
                self.make(Action::Cancel { call: call_id(self.host.calls.saturating_sub(back)) });
            }
            6 => self.pass(millis(u64::from(detail))),
            7 if choice.is_multiple_of(16) => {
                self.pass(Duration::from_secs(u64::from(detail % 16)));
            }
            8 => self.pass_to_timeout(),
            9 if choice.is_multiple_of(4) => self.disconnect(),
            10..=12 => self.connect(),
            _ => answered = self.answer(choice, detail),
        }
        self.look(answered);
    }

    fn call(&mut self, choice: u8, detail: u8) {
        let name = ["a", "b", "c"][usize::from(detail % 3)];
        let file = FileName::new(std::format!("{}", self.host.calls + 1)).expect("a valid name");
        let appends = vec![FileAppend { file: file.clone(), bytes: Bytes::new() }];
        let max_hold = Some(Duration::from_micros(self.host.calls + 1));
        let consistency =
            if detail.is_multiple_of(2) { Consistency::Stale } else { Consistency::Linearizable };
        let wait = if detail.is_multiple_of(2) { Wait::Forever } else { Wait::Try };
        let token = FencingToken::new(u64::from(detail % 16));
        self.make(match choice % 16 {
            0..=5 => Action::Op(Op::Acquire { lock: lock(name), wait, max_hold }),
            6..=8 => Action::Op(Op::Release { lock: lock(name), token, appends }),
            9..=10 => Action::Op(Op::Section { lock: lock(name), wait, appends }),
            11..=12 => Action::Op(Op::CreateFile { file, guard: lock(name) }),
            13..=14 => Action::Read { query: Query::Lock { lock: lock(name) }, consistency },
            _ if detail.is_multiple_of(16) => Action::Op(Op::CloseSession),
            _ => Action::Read { query: Query::History { lock: lock(name) }, consistency },
        });
    }

    fn make(&mut self, action: Action) {
        let cancel = matches!(action, Action::Cancel { .. });
        let call = self.host.calls + 1;
        self.open.insert(call);
        self.host.call(action);
        let finished = |output: &ClientOutput| matches!(output, ClientOutput::Finished { call: over, .. } if over.value() == call);
        if cancel && !self.host.outputs.0.iter().any(finished) {
            // It is numbered after those before it; `look` sees it if that was at once.
            self.cancels.push(call);
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.host.pause(duration).input(ClientInput::Timeout);
    }

    fn pass_to_timeout(&mut self) {
        if let Some((time, _)) = self.host.client.poll_timeout() {
            self.host.now = self.host.now.max(time);
        }
        self.host.input(ClientInput::Timeout);
    }

    fn connect(&mut self) {
        self.host.connected();
        self.connected = self.host.client.node().is_some();
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.host.disconnected();
    }

    /// A node answers one of the requests, of this connection or an earlier one, once more or for
    /// the first time. Returns the key of what it answered, if it is on this connection.
    fn answer(&mut self, choice: u8, detail: u8) -> Option<RequestKey> {
        let back = usize::from(choice % 16).saturating_sub(8);
        let (attempt, request) = self.requests.iter().rev().nth(back)?.clone();
        let key = request.key();
        let reply = match detail % 32 {
            0 => not_leader(&request, Some(u64::from(detail / 32) % 4 + 1)),
            1 => not_leader(&request, None),
            2 => overloaded(&request),
            3 => lost(["a", "b", "c"][usize::from(choice % 3)], u64::from(detail), 9),
            4 if detail > 240 || self.requests.len() > 60 => end_of(&request),
            _ => self.sensible(request, detail),
        };
        let here = attempt == self.host.attempt && self.connected;
        self.turned_away |= here && turns_away(&reply);
        self.host.input(ClientInput::Reply { attempt, reply });
        here.then_some(key)
    }

    fn sensible(&self, request: Request, detail: u8) -> Reply {
        let index = LogIndex::new(u64::from(detail));
        match request {
            Request::OpenSession { nonce, .. } => {
                let session = SessionId::new(SESSION.value() + u64::from(detail / 128));
                Reply::Opened { nonce, result: Ok(Opened { session, window_max: WINDOW }) }
            }
            Request::KeepAlive { id, keep_alive } => {
                let outcomes = self.numbered.iter().filter(|(number, _)| {
                    !keep_alive.acked.contains(**number)
                        && number.value() % 3 == u64::from(detail % 3)
                });
                let outcomes = outcomes.map(|(number, (op, _))| (*number, outcome(op, detail)));
                let news = SessionNews { outcomes: outcomes.collect(), losses: vec![] };
                Reply::KeptAlive { id, session: keep_alive.session, index, result: Ok(news) }
            }
            Request::Submit(Submission { session, sequence, op, .. }) => {
                let outcome = outcome(&op, detail);
                Reply::Submitted { session, sequence, index, outcome }
            }
            Request::Read { id, query, .. } => {
                let view = LockView { lock: lock("a"), holder: None, waiters: 0, queue: vec![] };
                let answer = match query {
                    Query::Lock { .. } if detail != 77 => Answer::Lock(view),
                    _ => Answer::History(vec![]),
                };
                Reply::Read { id, index, answer }
            }
        }
    }

    /// Looks at everything that came out, and at the client.
    fn look(&mut self, answered: Option<RequestKey>) {
        for output in self.host.take().0 {
            self.look_at(output);
        }
        self.look_at_lease(answered);
        for held in self.host.client.held() {
            let granted = done(Done::Granted { token: held.token, predecessor: None });
            assert!(self.over.values().any(|result| *result == granted), "held without a grant");
        }
    }

    fn look_at(&mut self, output: ClientOutput) {
        let alive = !matches!(self.state, SessionState::Ended(_));
        match output {
            ClientOutput::Connect { .. } => {
                assert!(alive && !self.connected);
                self.leave_connection();
            }
            ClientOutput::Disconnect { attempt } => {
                assert!(attempt <= self.host.attempt);
                self.leave_connection();
            }
            ClientOutput::Send { attempt, request } => {
                assert!(alive && self.connected && attempt == self.host.attempt);
                self.look_at_request(&request);
                self.requests.push((attempt, request));
            }
            ClientOutput::Finished { call, result } => {
                assert!(self.open.remove(&call.value()), "finished once");
                self.cancels.retain(|cancel| *cancel != call.value());
                self.over.insert(call.value(), result);
            }
            ClientOutput::State(state) => {
                assert_legal(&self.state, &state);
                self.state = state;
            }
            ClientOutput::Lost(loss) => {
                assert!(alive && self.lost.insert((loss.index, loss.token)), "told once");
            }
        }
    }

    fn leave_connection(&mut self) {
        self.connected = false;
        self.sent_here.clear();
        self.turned_away = false;
    }

    fn look_at_request(&mut self, request: &Request) {
        match request {
            Request::OpenSession { .. } => {
                self.greetings.entry(request.key()).or_insert(self.host.now);
            }
            Request::KeepAlive { keep_alive, .. } => {
                self.greetings.insert(request.key(), self.host.now);
                self.look_at_acked(&keep_alive.acked);
            }
            Request::Submit(submission) => self.look_at_submission(submission),
            Request::Read { .. } => {}
        }
    }

    fn look_at_submission(&mut self, submission: &Submission) {
        let usable = matches!(self.state, SessionState::Safe | SessionState::Jeopardy);
        assert!(usable, "no op without a lease: {:?}", self.state);
        let number = submission.sequence;
        match self.numbered.get(&number) {
            Some((op, _)) => assert_eq!(*op, submission.op, "a number keeps its op"),
            None => self.look_at_new_number(number, &submission.op),
        }
        self.look_at_acked(&submission.acked);
        if self.turned_away && self.sent_here.contains(&number) {
            self.sent_here.clear();
            self.turned_away = false;
        }
        let last = self.sent_here.last();
        assert!(last.is_none_or(|last| *last < number), "in order, and once");
        let unanswered = self.unanswered();
        let before = unanswered.iter().filter(|open| **open < number);
        assert!(before.clone().all(|open| self.sent_here.contains(open)), "without gaps");
        assert!(unanswered.len() <= WINDOW as usize, "within the window");
        self.sent_here.insert(number);
    }

    fn look_at_new_number(&mut self, number: Sequence, op: &Op) {
        assert_eq!(number.value(), self.numbered.len() as u64 + 1, "numbers are dense");
        let number_of = |file: &FileName| file.as_str().parse().expect("a number");
        let call = match op {
            Op::Acquire { max_hold, .. } => {
                let tag = max_hold.expect("every acquire is tagged").as_micros();
                u64::try_from(tag).expect("a small number")
            }
            Op::Release { appends, .. } | Op::Section { appends, .. } => {
                number_of(&appends[0].file)
            }
            Op::CreateFile { file, .. } => number_of(file),
            Op::Cancel { .. } if self.cancels.is_empty() => self.host.calls,
            Op::Cancel { .. } => self.cancels.remove(0),
            Op::CloseSession => self.host.calls.max(1),
            other => panic!("the test does not do this: {other:?}"),
        };
        self.numbered.insert(number, (op.clone(), call));
    }

    fn unanswered(&self) -> Vec<Sequence> {
        let open = self.numbered.iter().filter(|(_, (_, call))| !self.over.contains_key(call));
        open.map(|(number, _)| *number).collect()
    }

    fn look_at_acked(&self, acked: &Acked) {
        assert!(acked.except.is_sorted());
        for (number, (op, call)) in &self.numbered {
            let here = self.over.contains_key(call) || matches!(op, Op::CloseSession);
            assert!(here || !acked.contains(*number), "acknowledged without an outcome: {number}");
        }
    }

    /// A lease changes only by an answer, and counts from when that request was sent.
    fn look_at_lease(&mut self, answered: Option<RequestKey>) {
        let session = self.host.client.session();
        if self.session.is_some() && session.is_none() {
            // Another session will be opened, by the same nonce.
            self.greetings.retain(|key, _| !matches!(key, RequestKey::Open(_)));
        }
        self.session = session;
        let ends_at = self.host.client.lease_ends_at();
        if ends_at != self.lease_ends_at && ends_at.is_some() {
            let sent = answered.and_then(|key| self.greetings.get(&key));
            let sent = sent.expect("a lease without a request on this connection");
            assert_eq!(ends_at, Some(sent.after(self.config.own_lease())));
        }
        self.lease_ends_at = ends_at;
        let left = ends_at.map(|ends_at| ends_at.since(self.host.now));
        let warning = self.config.own_lease().saturating_sub(self.config.jeopardy_after);
        match &self.state {
            SessionState::Opening => {}
            SessionState::Safe => assert!(left > Some(warning), "safe with {left:?} left"),
            SessionState::Jeopardy => assert!(left > Some(Duration::ZERO), "over"),
            SessionState::Ended(_) => assert_eq!(self.open.len(), 0, "calls end with the session"),
        }
        assert_eq!(self.host.client.state(), &self.state);
    }
}

/// Whether a reply makes the client send submissions again on the same connection.
fn turns_away(reply: &Reply) -> bool {
    let undecided = |outcome: &Outcome| {
        matches!(outcome, Err(Rejection::OutOfOrder { .. } | Rejection::WindowFull))
    };
    match reply {
        Reply::Submitted { outcome, .. } => undecided(outcome),
        Reply::KeptAlive { result: Ok(news), .. } => {
            news.outcomes.iter().any(|(_, outcome)| undecided(outcome))
        }
        Reply::Unavailable { request: RequestKey::Submit(..), reason } => {
            *reason == Unavailable::Overloaded
        }
        _ => false,
    }
}

fn end_of(request: &Request) -> Reply {
    let index = LogIndex::new(9);
    match request {
        Request::KeepAlive { .. } => session_unknown(request),
        Request::Submit(Submission { session, sequence, .. }) => {
            let (session, sequence) = (*session, *sequence);
            Reply::Submitted { session, sequence, index, outcome: Err(Rejection::SessionUnknown) }
        }
        Request::OpenSession { .. } | Request::Read { .. } => {
            Reply::SessionEnded { session: SESSION, index, cause: SessionEnd::Expired }
        }
    }
}

/// One of the outcomes that an op can have, and some that it cannot.
fn outcome(op: &Op, detail: u8) -> Outcome {
    match detail / 16 {
        0 => return Err(Rejection::OutOfOrder { expected: Sequence::new(1) }),
        1 => return Err(Rejection::WindowFull),
        2 => return Err(Rejection::ResultEvicted),
        3 => return Err(Rejection::NotObtained),
        4 => return Ok(Done::Broken),
        _ => {}
    }
    let token = FencingToken::new(u64::from(detail % 16));
    Ok(match op {
        Op::Acquire { .. } => return granted(token.value()),
        Op::Release { .. } => Done::Released { offsets: vec![0] },
        Op::Section { .. } => Done::Sectioned { token, offsets: vec![0] },
        Op::Cancel { .. } => Done::Cancelled,
        Op::CloseSession => Done::SessionClosed,
        _ => Done::FileCreated,
    })
}

fn assert_legal(from: &SessionState, to: &SessionState) {
    use SessionState::{Ended, Jeopardy, Opening, Safe};
    let legal = matches!(
        (from, to),
        (Opening | Jeopardy, Safe) | (Safe, Jeopardy) | (Opening | Safe | Jeopardy, Ended(_))
    );
    assert!(legal, "{from:?} to {to:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn client_keeps_its_rules_whatever_comes(
        steps in vec_of(any::<(u8, u8, u8)>(), 0..300),
        opened_first in any::<bool>(),
    ) {
        let mut watcher = Watcher::new();
        watcher.look(None);
        if opened_first {
            watcher.connect();
            watcher.look(None);
            watcher.host.reply(opened(SESSION));
            watcher.look(Some(RequestKey::Open(NONCE)));
        }
        for (kind, choice, detail) in steps {
            watcher.step(kind, choice, detail);
        }
        watcher.pass(Duration::from_hours(1));
        watcher.look(None);
        prop_assert_eq!(watcher.open.len(), 0, "every call is finished");
        prop_assert_eq!(watcher.host.client.poll_timeout(), None);
    }
}
