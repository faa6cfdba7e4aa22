//! A client against a small model of a cluster, over connections that break at any moment and
//! deliver replies twice or out of order. Afterwards the faults stop; then every call must have
//! taken effect exactly once, and the client must have been told of each what the cluster decided.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use std::format;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::*;

const LOCKS: [&str; 3] = ["a", "b", "c"];

/// What the log of the model has decided: one session, and locks that others may hold.
#[derive(Default)]
struct Model {
    index: u64,
    last: Sequence,
    stored: BTreeMap<Sequence, Outcome>,
    open: BTreeMap<Sequence, LockName>,
    losses: Vec<Loss>,
    held: BTreeMap<LockName, FencingToken>,
    /// Locks that somebody else holds.
    contended: BTreeSet<LockName>,
    /// Every op that was applied, and every outcome: never forgotten.
    applied: BTreeMap<Sequence, Op>,
    decided: BTreeMap<Sequence, Outcome>,
    all_losses: BTreeSet<u64>,
}

impl Model {
    fn acknowledge(&mut self, acked: &crate::message::Acked) {
        self.stored.retain(|sequence, _| !acked.contains(*sequence));
    }

    /// Applies a submission. Returns the replies.
    fn submit(&mut self, submission: Submission) -> Vec<Reply> {
        self.index += 1;
        self.acknowledge(&submission.acked);
        let sequence = submission.sequence;
        if sequence > self.last.next() {
            let expected = self.last.next();
            return vec![self.submitted(sequence, Err(Rejection::OutOfOrder { expected }))];
        }
        if sequence <= self.last {
            let outcome = match self.stored.get(&sequence) {
                Some(outcome) => outcome.clone(),
                None if self.open.contains_key(&sequence) => return vec![],
                None => Err(Rejection::ResultEvicted),
            };
            return vec![self.submitted(sequence, outcome)];
        }
        assert!(self.stored.len() + self.open.len() < WINDOW as usize, "the window is respected");
        self.last = sequence;
        self.applied.insert(sequence, submission.op.clone());
        self.run(sequence, submission.op)
    }

    fn run(&mut self, sequence: Sequence, op: Op) -> Vec<Reply> {
        match op {
            Op::Acquire { lock, wait, .. } => self.acquire(sequence, lock, wait),
            Op::Cancel { waiting } => match self.open.remove(&waiting) {
                Some(_) => vec![
                    self.decide(waiting, Err(Rejection::Cancelled)),
                    self.decide(sequence, Ok(Done::Cancelled)),
                ],
                None => vec![self.decide(sequence, Err(Rejection::NotWaiting))],
            },
            Op::Release { lock, token, .. } if self.held.get(&lock) == Some(&token) => {
                self.held.remove(&lock);
                vec![self.decide(sequence, Ok(Done::Released { offsets: vec![0] }))]
            }
            Op::Release { lock, .. } => {
                let current = self.held.get(&lock).copied();
                vec![self.decide(sequence, Err(Rejection::NotHolder { current }))]
            }
            Op::CreateFile { .. } => vec![self.decide(sequence, Ok(Done::FileCreated))],
            other => panic!("the test does not do this: {other:?}"),
        }
    }

    fn acquire(&mut self, sequence: Sequence, lock: LockName, wait: Wait) -> Vec<Reply> {
        let waiting = self.open.values().any(|other| *other == lock);
        if let Some(token) = self.held.get(&lock) {
            vec![self.decide(sequence, granted(token.value()))]
        } else if waiting {
            vec![self.decide(sequence, Err(Rejection::AlreadyWaiting))]
        } else if !self.contended.contains(&lock) {
            self.grant(sequence, lock)
        } else if wait == Wait::Try {
            vec![self.decide(sequence, Err(Rejection::NotObtained))]
        } else {
            self.open.insert(sequence, lock);
            vec![]
        }
    }

    fn grant(&mut self, sequence: Sequence, lock: LockName) -> Vec<Reply> {
        self.held.insert(lock, FencingToken::new(self.index));
        vec![self.decide(sequence, granted(self.index))]
    }

    fn decide(&mut self, sequence: Sequence, outcome: Outcome) -> Reply {
        assert!(self.decided.insert(sequence, outcome.clone()).is_none(), "decided once");
        self.stored.insert(sequence, outcome.clone());
        self.submitted(sequence, outcome)
    }

    fn submitted(&self, sequence: Sequence, outcome: Outcome) -> Reply {
        let index = LogIndex::new(self.index);
        Reply::Submitted { session: SESSION, sequence, index, outcome }
    }

    fn keep_alive(&mut self, id: RequestId, keep_alive: &KeepAlive) -> Reply {
        self.index += 1;
        self.acknowledge(&keep_alive.acked);
        self.losses.retain(|loss| loss.index > keep_alive.losses_seen);
        let outcomes = self.stored.iter().map(|(sequence, outcome)| (*sequence, outcome.clone()));
        let news = SessionNews { outcomes: outcomes.collect(), losses: self.losses.clone() };
        let index = LogIndex::new(self.index);
        Reply::KeptAlive { id, session: SESSION, index, result: Ok(news) }
    }

    /// Somebody else gets a lock, or gives it back.
    fn toggle(&mut self, lock: &LockName) -> Vec<Reply> {
        self.index += 1;
        if self.contended.remove(lock) {
            let waiting = self.open.iter().find(|(_, other)| *other == lock);
            let Some(sequence) = waiting.map(|(sequence, _)| *sequence) else { return vec![] };
            self.open.remove(&sequence);
            return self.grant(sequence, lock.clone());
        }
        self.contended.insert(lock.clone());
        let Some(token) = self.held.remove(lock) else { return vec![] };
        let loss = loss(lock.as_str(), token.value(), self.index);
        self.losses.push(loss.clone());
        assert!(self.all_losses.insert(token.value()), "lost once");
        vec![Reply::Lost { session: SESSION, loss }]
    }
}

/// The client's host, the model, and the one connection between them.
struct Run {
    host: Host,
    model: Model,
    leader: u64,
    to_node: VecDeque<Request>,
    to_client: VecDeque<Reply>,
    made: BTreeMap<u64, Action>,
    results: BTreeMap<u64, CallResult>,
    lost: BTreeSet<u64>,
}

impl Run {
    fn new() -> Self {
        let mut config = ClientConfig::for_lease(Duration::from_secs(1_000_000));
        config.open_timeout = config.lease;
        Self {
            host: Host::new(&[1, 2, 3], config),
            model: Model::default(),
            leader: 1,
            to_node: VecDeque::new(),
            to_client: VecDeque::new(),
            made: BTreeMap::new(),
            results: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    fn step(&mut self, kind: u8, choice: u8) {
        let lock_name = LOCKS[usize::from(choice) % LOCKS.len()];
        match kind % 32 {
            0 | 1 => self.acquire(lock_name, Wait::Forever),
            2 => self.acquire(lock_name, Wait::Try),
            3 | 4 => self.release(lock_name),
            5 => self.make(Action::Op(Op::CreateFile { file: self.tag(), guard: lock("a") })),
            6 => {
                let back = u64::from(choice % 8);
                self.make(Action::Cancel { call: call_id(self.host.calls.saturating_sub(back)) });
            }
            7 if choice.is_multiple_of(4) => self.leader = u64::from(choice / 4 % 3) + 1,
            8 if choice.is_multiple_of(4) => self.break_connection(),
            9 => self.turn_away(),
            10 => self.repeat_reply(choice),
            11 => {
                let replies = self.model.toggle(&lock(lock_name));
                self.to_client.extend(replies);
            }
            12 | 13 => self.wake(),
            14..=17 => self.deliver_to_client(),
            18..=21 => self.deliver_to_node(),
            _ => {
                self.deliver_to_node();
                self.deliver_to_client();
            }
        }
        self.look();
    }

    fn make(&mut self, action: Action) {
        let call = self.host.call(action.clone());
        self.made.insert(call, action);
    }

    /// A file name that tells the next call from all others.
    fn tag(&self) -> FileName {
        FileName::new(format!("{}", self.host.calls + 1)).expect("a valid name")
    }

    fn acquire(&mut self, name: &str, wait: Wait) {
        let max_hold = Some(Duration::from_micros(self.host.calls + 1));
        self.make(Action::Op(Op::Acquire { lock: lock(name), wait, max_hold }));
    }

    fn release(&mut self, name: &str) {
        let held = self.host.client.held().find(|held| held.lock.as_str() == name);
        if let Some(token) = held.map(|held| held.token) {
            let appends = vec![FileAppend { file: self.tag(), bytes: Bytes::new() }];
            self.make(Action::Op(Op::Release { lock: lock(name), token, appends }));
        }
    }

    fn break_connection(&mut self) {
        self.to_node.clear();
        self.to_client.clear();
        self.host.disconnected();
    }

    /// The node turns the next request away, whatever it is.
    fn turn_away(&mut self) {
        if let Some(request) = self.to_node.pop_front() {
            self.to_client.push_back(overloaded(&request));
        }
    }

    /// A reply comes twice, and the second time out of order.
    fn repeat_reply(&mut self, choice: u8) {
        if let Some(reply) = self.to_client.back().cloned() {
            let at = usize::from(choice) % self.to_client.len();
            self.to_client.insert(at, reply);
        }
    }

    fn wake(&mut self) {
        let (time, _) = self.host.client.poll_timeout().expect("the session goes on");
        self.host.now = self.host.now.max(time);
        self.host.input(ClientInput::Timeout);
    }

    fn deliver_to_client(&mut self) {
        match self.to_client.pop_front() {
            Some(reply) => {
                self.host.reply(reply);
            }
            // An attempt to connect succeeds when there is nothing else to tell.
            None => {
                self.host.connected();
            }
        }
    }

    fn deliver_to_node(&mut self) {
        let Some(request) = self.to_node.pop_front() else { return };
        if self.host.node.value() != self.leader {
            self.to_client.push_back(not_leader(&request, Some(self.leader)));
            return;
        }
        match request {
            Request::OpenSession { .. } => self.to_client.push_back(opened(SESSION)),
            Request::KeepAlive { id, keep_alive } => {
                self.to_client.push_back(self.model.keep_alive(id, &keep_alive));
            }
            Request::Submit(submission) => self.to_client.extend(self.model.submit(submission)),
            Request::Read { .. } => panic!("the test does not read"),
        }
    }

    /// Looks at what the client wants, and does it.
    fn look(&mut self) {
        for output in self.host.take().0 {
            match output {
                ClientOutput::Connect { .. } | ClientOutput::Disconnect { .. } => {
                    self.to_node.clear();
                    self.to_client.clear();
                }
                ClientOutput::Send { attempt, request } => {
                    assert_eq!(attempt, self.host.attempt);
                    self.to_node.push_back(request);
                }
                ClientOutput::Finished { call, result } => {
                    let earlier = self.results.insert(call.value(), result);
                    assert_eq!(earlier, None, "finished once");
                }
                ClientOutput::State(state) => assert_eq!(state, SessionState::Safe),
                ClientOutput::Lost(loss) => {
                    assert!(self.lost.insert(loss.token.value()), "told once");
                }
            }
        }
    }

    /// No more faults, and nobody else wants a lock.
    fn heal(&mut self) {
        for name in LOCKS {
            if self.model.contended.contains(&lock(name)) {
                let replies = self.model.toggle(&lock(name));
                self.to_client.extend(replies);
            }
        }
        for _ in 0..2000 {
            if self.is_calm() {
                return;
            }
            if !self.to_node.is_empty() {
                self.deliver_to_node();
            } else if !self.to_client.is_empty() {
                self.deliver_to_client();
            } else if self.host.client.node().is_some()
                || self.host.connected().client.node().is_none()
            {
                self.wake();
            }
            self.look();
        }
        panic!("calls stay open: {:?}", self.host.client);
    }

    /// Whether every call is over and every loss is told.
    fn is_calm(&self) -> bool {
        self.host.client.open_calls() == 0 && self.lost == self.model.all_losses
    }

    fn judge(&self) {
        let numbers = self.model.applied.keys().map(|number| number.value());
        assert!(numbers.eq(1..=self.model.applied.len() as u64), "no number is left out");
        assert!(self.results.keys().eq(self.made.keys()), "every call is finished");
        let mut unsent = self.made.clone();
        for (sequence, op) in &self.model.applied {
            if let Some(call) = call_of(op) {
                let applied = unsent.remove(&call);
                assert_eq!(applied, Some(Action::Op(op.clone())), "applied once, as it was made");
                assert_eq!(self.results[&call], as_result(&self.model.decided[sequence]));
            }
        }
        for (call, action) in unsent {
            if let Action::Op(_) = action {
                assert_eq!(self.results[&call], rejected(Rejection::Cancelled), "taken back");
            }
        }
        let count = |wanted: CallResult| self.results.values().filter(|it| **it == wanted).count();
        assert_eq!(count(done(Done::Cancelled)), count(rejected(Rejection::Cancelled)));
        assert_eq!(count(Err(CallError::Unknown)), 0);
        let held: BTreeMap<LockName, FencingToken> =
            self.host.client.held().map(|held| (held.lock.clone(), held.token)).collect();
        assert_eq!(held, self.model.held);
    }
}

/// The call that an op was made by; `None` for a cancel.
fn call_of(op: &Op) -> Option<u64> {
    let number = |file: &FileName| file.as_str().parse().ok();
    match op {
        Op::Acquire { max_hold, .. } => max_hold.and_then(|hold| hold.as_micros().try_into().ok()),
        Op::Release { appends, .. } => number(&appends.first()?.file),
        Op::CreateFile { file, .. } => number(file),
        _ => None,
    }
}

fn as_result(outcome: &Outcome) -> CallResult {
    outcome.clone().map(Completed::Done).map_err(CallError::Rejected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_call_takes_effect_once_and_is_told_as_decided(
        steps in vec_of((any::<u8>(), any::<u8>()), 0..400),
    ) {
        let mut run = Run::new();
        run.look();
        for (kind, choice) in steps {
            run.step(kind, choice);
        }
        run.heal();
        run.judge();
    }
}
