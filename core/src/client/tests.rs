//! The client, driven by hand: the test is the host, the network and the cluster.

mod calls;
mod connections;
mod exactly_once;
mod locks;
mod random;
mod reads;
mod sessions;

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::ids::{FencingToken, LogIndex, Sequence};
use crate::message::{
    Consistency, EndCause, FileAppend, KeepAlive, Loss, Opened, Outcome, Query, Reply, Request,
    RequestKey, SessionEnd, SessionNews, Submission, Unavailable, Wait,
};
use crate::text::{FileName, LockName, Text};
use crate::time::Duration;

const NONCE: ClientNonce = ClientNonce(7, 11);
const SESSION: SessionId = SessionId::new(42);
const WINDOW: u32 = 4;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn call_id(call: u64) -> CallId {
    CallId::new(call)
}

fn lock(name: &str) -> LockName {
    LockName::new(name).expect("a valid name")
}

fn acquire(name: &str, wait: Wait) -> Op {
    Op::Acquire { lock: lock(name), wait, max_hold: None }
}

fn file_append(bytes: usize) -> FileAppend {
    FileAppend {
        file: FileName::new("f").expect("a valid name"),
        bytes: Bytes::from(vec![0; bytes]),
    }
}

fn append(bytes: usize) -> Op {
    Op::Append { lock: lock("a"), token: FencingToken::new(5), append: file_append(bytes) }
}

fn create_file() -> Op {
    Op::CreateFile { file: FileName::new("f").expect("a valid name"), guard: lock("a") }
}

fn release(name: &str, token: u64) -> Op {
    Op::Release { lock: lock(name), token: FencingToken::new(token), appends: vec![] }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside refusals")]
fn granted(token: u64) -> Outcome {
    Ok(Done::Granted { token: FencingToken::new(token), predecessor: None })
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside refusals")]
fn done(done: Done) -> CallResult {
    Ok(Completed::Done(done))
}

fn rejected(rejection: Rejection) -> CallResult {
    Err(CallError::Rejected(rejection))
}

fn ended(ending: Ending) -> CallResult {
    Err(CallError::SessionEnded(ending))
}

fn submitted(sequence: u64, outcome: Outcome) -> Reply {
    let sequence = Sequence::new(sequence);
    Reply::Submitted { session: SESSION, sequence, index: LogIndex::new(100), outcome }
}

fn loss(name: &str, token: u64, index: u64) -> Loss {
    Loss {
        lock: lock(name),
        token: FencingToken::new(token),
        index: LogIndex::new(index),
        cause: EndCause::HoldTimedOut,
    }
}

fn lost(name: &str, token: u64, index: u64) -> Reply {
    Reply::Lost { session: SESSION, loss: loss(name, token, index) }
}

fn not_leader(request: &Request, leader: Option<u64>) -> Reply {
    let leader = leader.map(NodeId::new);
    Reply::Unavailable { request: request.key(), reason: Unavailable::NotLeader { leader } }
}

fn overloaded(request: &Request) -> Reply {
    Reply::Unavailable { request: request.key(), reason: Unavailable::Overloaded }
}

/// What came out after one input, or after some time.
#[derive(PartialEq, Debug, Default)]
struct Outputs(Vec<ClientOutput>);

impl Outputs {
    fn sent(&self) -> Vec<Request> {
        let sent = self.0.iter().filter_map(|output| match output {
            ClientOutput::Send { request, .. } => Some(request.clone()),
            _ => None,
        });
        sent.collect()
    }

    fn submissions(&self) -> Vec<Submission> {
        let submissions = self.sent().into_iter().filter_map(|request| match request {
            Request::Submit(submission) => Some(submission),
            _ => None,
        });
        submissions.collect()
    }

    /// The numbers of the submissions.
    fn numbers(&self) -> Vec<u64> {
        self.submissions().iter().map(|submission| submission.sequence.value()).collect()
    }

    fn finished(&self) -> Vec<(u64, CallResult)> {
        let finished = self.0.iter().filter_map(|output| match output {
            ClientOutput::Finished { call, result } => Some((call.value(), result.clone())),
            _ => None,
        });
        finished.collect()
    }

    fn states(&self) -> Vec<SessionState> {
        let states = self.0.iter().filter_map(|output| match output {
            ClientOutput::State(state) => Some(state.clone()),
            _ => None,
        });
        states.collect()
    }

    fn connects(&self) -> Vec<u64> {
        let connects = self.0.iter().filter_map(|output| match output {
            ClientOutput::Connect { node, .. } => Some(node.value()),
            _ => None,
        });
        connects.collect()
    }

    fn disconnects(&self) -> usize {
        let disconnect = |output: &&ClientOutput| matches!(output, ClientOutput::Disconnect { .. });
        self.0.iter().filter(disconnect).count()
    }

    /// The only request that was sent.
    fn request(&self) -> Request {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{self:?}");
        sent[0].clone()
    }
}

/// The one who tells the client the time and what happens.
struct Host {
    client: Client,
    now: Time,
    calls: u64,
    /// The latest attempt, and the node that it is about.
    attempt: AttemptId,
    node: NodeId,
    /// What was taken from the client and not looked at by the test yet.
    outputs: Outputs,
}

impl Host {
    fn new(nodes: &[u64], config: ClientConfig) -> Self {
        let now = Time::from_micros(1_000_000);
        let nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId::new).collect();
        let client = Client::new(config, nodes, Label::default(), NONCE, 1, now)
            .expect("a valid configuration");
        let mut host = Self {
            client,
            now,
            calls: 0,
            attempt: AttemptId::ZERO,
            node: NodeId::ZERO,
            outputs: Outputs::default(),
        };
        host.drain();
        host
    }

    /// A host whose client is connected and safe.
    fn safe() -> Self {
        Self::safe_with(ClientConfig::default())
    }

    fn safe_with(config: ClientConfig) -> Self {
        let mut host = Self::new(&[1, 2, 3], config);
        host.connected();
        host.reply(opened(SESSION));
        assert_eq!(host.take().states(), [SessionState::Safe]);
        host
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            if let ClientOutput::Connect { attempt, node } = output {
                assert_eq!(attempt, self.attempt.next(), "attempts are dense");
                (self.attempt, self.node) = (attempt, node);
            }
            self.outputs.0.push(output);
        }
        self.client.check_invariants();
    }

    /// What came out since this was last asked.
    fn take(&mut self) -> Outputs {
        core::mem::take(&mut self.outputs)
    }

    fn input(&mut self, input: ClientInput) -> &mut Self {
        self.client.handle_input(self.now, input);
        self.drain();
        self
    }

    fn call(&mut self, action: Action) -> u64 {
        self.calls += 1;
        self.input(ClientInput::Call { call: call_id(self.calls), action });
        self.calls
    }

    fn op(&mut self, op: Op) -> u64 {
        self.call(Action::Op(op))
    }

    fn read(&mut self, consistency: Consistency) -> u64 {
        self.call(Action::Read { query: Query::Lock { lock: lock("a") }, consistency })
    }

    fn cancel(&mut self, call: u64) -> u64 {
        self.call(Action::Cancel { call: call_id(call) })
    }

    fn connected(&mut self) -> &mut Self {
        self.input(ClientInput::Connected { attempt: self.attempt })
    }

    fn disconnected(&mut self) -> &mut Self {
        self.input(ClientInput::Disconnected { attempt: self.attempt })
    }

    fn reply(&mut self, reply: Reply) -> &mut Self {
        self.input(ClientInput::Reply { attempt: self.attempt, reply })
    }

    /// Time passes, and the client is woken whenever it wants to be.
    fn wait(&mut self, duration: Duration) -> &mut Self {
        let end = self.now.after(duration);
        while let Some((time, _)) = self.client.poll_timeout().filter(|(time, _)| *time <= end) {
            self.now = time;
            self.input(ClientInput::Timeout);
        }
        self.now = end;
        self.input(ClientInput::Timeout)
    }

    /// Time passes while nobody does anything: the process is paused.
    fn pause(&mut self, duration: Duration) -> &mut Self {
        self.now = self.now.after(duration);
        self
    }

    /// Waits until the client starts another attempt.
    fn wait_for_connect(&mut self) -> &mut Self {
        let attempt = self.attempt;
        while self.attempt == attempt {
            let (time, _) = self.client.poll_timeout().expect("the session goes on");
            self.now = self.now.max(time);
            self.input(ClientInput::Timeout);
        }
        self
    }

    /// Loses the connection, makes the next one, and answers the keep-alive on it.
    fn reconnect(&mut self, news: SessionNews) -> &mut Self {
        self.disconnected();
        self.wait_for_connect();
        self.take();
        self.connected();
        let keep_alive = self.take().request();
        self.reply(kept_alive(&keep_alive, news))
    }

    fn held(&self) -> Vec<(&str, u64)> {
        self.client.held().map(|held| (held.lock.as_str(), held.token.value())).collect()
    }

    fn ignored(&self) -> u64 {
        self.client.ignored_replies()
    }
}

fn opened(session: SessionId) -> Reply {
    Reply::Opened { nonce: NONCE, result: Ok(Opened { session, window_max: WINDOW }) }
}

/// The answer to a keep-alive.
fn kept_alive(request: &Request, news: SessionNews) -> Reply {
    let (id, keep_alive) = as_keep_alive(request);
    let (session, index) = (keep_alive.session, LogIndex::new(100));
    Reply::KeptAlive { id, session, index, result: Ok(news) }
}

fn session_unknown(request: &Request) -> Reply {
    let (id, keep_alive) = as_keep_alive(request);
    let result = Err(Rejection::SessionUnknown);
    Reply::KeptAlive { id, session: keep_alive.session, index: LogIndex::new(100), result }
}

fn as_keep_alive(request: &Request) -> (RequestId, &KeepAlive) {
    match request {
        Request::KeepAlive { id, keep_alive } => (*id, keep_alive),
        other => panic!("no keep-alive: {other:?}"),
    }
}

fn news() -> SessionNews {
    SessionNews::default()
}
