//! The driver: gives the core's client what happens, and does what it wants.
//!
//! One task owns the client; there are no locks. It waits for replies, for handles, and for the
//! client's next deadline, in this order when several are there: what keeps the session alive comes
//! first, and new calls last.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorlock_core::client::{
    Action, CallError as CoreError, CallResult, Client as CoreClient, ClientInput, ClientOutput,
    Completed, Ending, SessionState,
};
use quorlock_core::ids::{AttemptId, CallId, FencingToken, NodeId, SessionId};
use quorlock_core::message::{Done, Op, Rejection, Reply, Unavailable, Wait};
use quorlock_core::text::LockName;
use quorlock_core::time::Time;
use tokio::sync::oneshot;

use super::background::Aborting;
use super::command::{Acquire, Command, DriverEnds, Farewell, Grant, Posture, Ticket};
use super::dial::Dialler;
use super::errors::{AcquireError, CallError, Standing};
use super::holds::{Admission, Holds};
use super::link::{self, LinkEvent, LinkEvents, Outgoing, Reports};
use crate::clock;

/// How long a session without handles may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long what is done in the background, and found no room, is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How opening ended.
#[derive(Debug)]
pub(super) enum Opening {
    Opened(SessionId),
    Ended(Ending, BTreeMap<NodeId, Standing>),
}

/// Drives one session.
pub(super) struct Driver {
    core: CoreClient,
    ends: DriverEnds,
    dialler: Dialler,
    addresses: BTreeMap<NodeId, String>,
    reports: Reports,
    events: LinkEvents,
    link: Option<Link>,
    last_call: CallId,
    calls: BTreeMap<CallId, Open>,
    /// The calls that somebody waits for.
    tickets: BTreeMap<Ticket, CallId>,
    holds: Holds,
    /// What is to be done in the background, and found no room.
    retries: VecDeque<Errand>,
    retry_at: Time,
    /// What is known of each node; of interest until the session is open.
    standings: BTreeMap<NodeId, Standing>,
    opened: Option<oneshot::Sender<Opening>>,
    /// Set when the last handle is gone: until when the session may take to close.
    close_by: Option<Time>,
}

/// The present attempt, or connection.
struct Link {
    attempt: AttemptId,
    node: NodeId,
    outgoing: Option<Outgoing>,
    /// Dropped, it is aborted.
    _task: Aborting<()>,
}

/// A call that is open.
enum Open {
    Call {
        ticket: Ticket,
        may_wait: bool,
        release: Option<(LockName, FencingToken)>,
        answer: oneshot::Sender<CallResult>,
    },
    Acquire {
        ticket: Ticket,
        lock: LockName,
        answer: oneshot::Sender<Result<Grant, AcquireError>>,
    },
    Errand(Errand),
    Close,
}

/// What is done in the background, for a handle that is gone.
#[derive(Clone, Debug)]
enum Errand {
    Cancel(CallId),
    Release { lock: LockName, token: FencingToken },
}

/// What the driver wakes for.
enum Event {
    Link(LinkEvent),
    Farewell(Farewell),
    Command(Command),
    NoHandles,
    Deadline,
}

impl Driver {
    /// Must be called on a runtime.
    pub(super) fn new(
        core: CoreClient,
        ends: DriverEnds,
        dialler: Dialler,
        addresses: BTreeMap<NodeId, String>,
        opened: oneshot::Sender<Opening>,
    ) -> Self {
        let (reports, events) = link::reports();
        Self {
            core,
            ends,
            dialler,
            addresses,
            reports,
            events,
            link: None,
            last_call: CallId::ZERO,
            calls: BTreeMap::new(),
            tickets: BTreeMap::new(),
            holds: Holds::default(),
            retries: VecDeque::new(),
            retry_at: Time::MAX,
            standings: BTreeMap::new(),
            opened: Some(opened),
            close_by: None,
        }
    }

    /// Returns when the session is over, or when nobody needs it and it was closed.
    pub(super) async fn run(mut self) {
        self.pump();
        while !self.is_over() {
            match self.event().await {
                Event::Link(event) => self.handle_link(event),
                Event::Farewell(farewell) => self.handle_farewell(farewell),
                Event::Command(command) => self.handle_command(command),
                Event::NoHandles => self.begin_close(),
                Event::Deadline => self.handle_deadline(),
            }
            self.pump();
        }
        // Whoever comes now finds the channels closed, and the state saying why.
        let Self { dialler, .. } = self;
        dialler.close().await;
    }

    fn is_over(&self) -> bool {
        let is_late = self.close_by.is_some_and(|time| clock::now() >= time);
        is_late || matches!(self.core.state(), SessionState::Ended(_))
    }

    async fn event(&mut self) -> Event {
        let deadlines = [
            self.core.poll_timeout().map(|(time, _)| time),
            Some(self.retry_at).filter(|_| !self.retries.is_empty()),
            self.close_by,
        ];
        let deadline = deadlines.into_iter().flatten().min().unwrap_or(Time::MAX);
        let gone = "the driver itself holds a sender";
        tokio::select! {
            biased;
            event = self.events.keep_alives.recv() => Event::Link(event.expect(gone)),
            farewell = self.ends.farewells.recv() => Event::Farewell(farewell.expect(gone)),
            () = clock::sleep_until(deadline) => Event::Deadline,
            event = self.events.others.recv() => Event::Link(event.expect(gone)),
            command = self.ends.commands.recv(), if self.close_by.is_none() => {
                command.map_or(Event::NoHandles, Event::Command)
            }
        }
    }

    fn input(&mut self, input: ClientInput) {
        self.core.handle_input(clock::now(), input);
    }

    fn call(&mut self, action: Action, open: Open) {
        self.last_call = self.last_call.next();
        let call = self.last_call;
        match &open {
            Open::Call { ticket, .. } | Open::Acquire { ticket, .. } => {
                self.tickets.insert(*ticket, call);
            }
            Open::Errand(_) | Open::Close => {}
        }
        self.calls.insert(call, open);
        self.input(ClientInput::Call { call, action });
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Call { ticket, action, answer } => {
                // Given up before it was taken up: it is not done at all.
                if !answer.is_closed() {
                    let (may_wait, release) = (may_wait(&action), releases(&action));
                    self.call(action, Open::Call { ticket, may_wait, release, answer });
                }
            }
            Command::Acquire(acquire) => {
                if !acquire.answer.is_closed() {
                    self.admit(acquire);
                }
            }
        }
    }

    fn admit(&mut self, acquire: Acquire) {
        match self.holds.admit(acquire) {
            Admission::Ask(acquire) => self.acquire(acquire),
            Admission::Later => {}
            Admission::AlreadyHeld(Acquire { lock, answer, .. }) => {
                drop(answer.send(Err(AcquireError::AlreadyHeld { lock })));
            }
            Admission::AlreadyWaiting(Acquire { lock, answer, .. }) => {
                drop(answer.send(Err(AcquireError::AlreadyWaiting { lock })));
            }
        }
    }

    fn acquire(&mut self, acquire: Acquire) {
        let Acquire { ticket, lock, wait, max_hold, answer } = acquire;
        let op = Op::Acquire { lock: lock.clone(), wait, max_hold };
        self.call(Action::Op(op), Open::Acquire { ticket, lock, answer });
    }

    fn acquire_next(&mut self, next: Option<Acquire>) {
        if let Some(next) = next {
            self.acquire(next);
        }
    }

    fn handle_farewell(&mut self, farewell: Farewell) {
        match farewell {
            Farewell::Abandoned(ticket) => {
                let Some(call) = self.tickets.remove(&ticket) else { return };
                match self.calls.get(&call) {
                    Some(Open::Acquire { lock, .. }) => self.holds.leave(lock),
                    Some(Open::Call { may_wait: true, .. }) => {}
                    Some(Open::Call { .. } | Open::Errand(_) | Open::Close) | None => return,
                }
                self.run_errand(Errand::Cancel(call));
            }
            Farewell::Released { lock, token } => {
                if self.holds.release(&lock, token) {
                    self.run_errand(Errand::Release { lock, token });
                }
            }
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        let action = match &errand {
            Errand::Cancel(call) => {
                if !self.calls.contains_key(call) {
                    return;
                }
                Action::Cancel { call: *call }
            }
            Errand::Release { lock, token } => {
                let (lock, token, appends) = (lock.clone(), *token, Vec::new());
                Action::Op(Op::Release { lock, token, appends })
            }
        };
        self.call(action, Open::Errand(errand));
    }

    fn begin_close(&mut self) {
        self.close_by = Some(match self.core.session() {
            Some(_) => clock::now().after(CLOSE_TIMEOUT),
            // Nobody waits for it any more, and nobody can hold anything in it.
            None => Time::ZERO,
        });
        self.call(Action::Op(Op::CloseSession), Open::Close);
    }

    fn handle_deadline(&mut self) {
        if clock::now() >= self.retry_at {
            self.retry_at = Time::MAX;
            for errand in std::mem::take(&mut self.retries) {
                self.run_errand(errand);
            }
        }
        self.input(ClientInput::Timeout);
    }

    fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { attempt, outgoing } => {
                if let Some(link) = self.link.as_mut().filter(|link| link.attempt == attempt) {
                    link.outgoing = Some(outgoing);
                    self.standings.insert(link.node, Standing::NoAnswer);
                    self.input(ClientInput::Connected { attempt });
                }
            }
            LinkEvent::Reply { attempt, reply } => {
                self.note_standing(attempt, &reply);
                self.input(ClientInput::Reply { attempt, reply });
            }
            LinkEvent::Down { attempt, error } => {
                if let Some(link) = self.link.take_if(|link| link.attempt == attempt) {
                    self.standings.insert(link.node, Standing::Unreachable(error));
                    self.input(ClientInput::Disconnected { attempt });
                }
            }
        }
    }

    /// Takes note of what a node said, for the case that no session can be opened.
    fn note_standing(&mut self, attempt: AttemptId, reply: &Reply) {
        let Some(link) = self.link.as_ref().filter(|link| link.attempt == attempt) else { return };
        let Reply::Unavailable { reason, .. } = reply else { return };
        let standing = match reason {
            Unavailable::NotLeader { leader } | Unavailable::LeadershipLost { leader } => {
                Standing::NotLeader { leader: *leader }
            }
            Unavailable::Transferring { to } => Standing::NotLeader { leader: Some(*to) },
            Unavailable::Overloaded | Unavailable::TooLarge => Standing::Overloaded,
        };
        self.standings.insert(link.node, standing);
    }

    /// Does what the client wants, then tells how it stands.
    fn pump(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                ClientOutput::Connect { attempt, node } => self.connect(attempt, node),
                ClientOutput::Disconnect { attempt } => {
                    drop(self.link.take_if(|link| link.attempt == attempt));
                }
                ClientOutput::Send { attempt, request } => {
                    let link = self.link.as_ref().filter(|link| link.attempt == attempt);
                    if let Some(outgoing) = link.and_then(|link| link.outgoing.as_ref()) {
                        outgoing.send(request);
                    }
                }
                ClientOutput::Finished { call, result } => self.finish(call, result),
                ClientOutput::State(state) => self.take_state(state),
                ClientOutput::Lost(loss) => {
                    let next = self.holds.lost(loss);
                    self.acquire_next(next);
                }
            }
        }
        let posture = Posture { lease_ends_at: self.core.lease_ends_at(), node: self.core.node() };
        self.ends.posture.send_if_modified(|present| {
            let is_new = *present != posture;
            *present = posture;
            is_new
        });
    }

    fn connect(&mut self, attempt: AttemptId, node: NodeId) {
        let address = self.addresses.get(&node).cloned();
        let address = address.expect("the client knows only the nodes that have an address");
        let task = link::start(self.dialler.clone(), self.reports.clone(), attempt, node, address);
        self.link = Some(Link { attempt, node, outgoing: None, _task: task });
    }

    fn take_state(&mut self, state: SessionState) {
        tracing::debug!(session = ?self.core.session(), ?state, "session");
        // The lease first: whoever is told that it is safe may ask for how long.
        self.ends.posture.send_modify(|posture| posture.lease_ends_at = self.core.lease_ends_at());
        self.ends.state.send_replace(state.clone());
        match state {
            SessionState::Opening | SessionState::Jeopardy => {}
            SessionState::Safe => {
                let opened = self.core.session().and_then(|id| Some((id, self.opened.take()?)));
                if let Some((session, opened)) = opened {
                    // If nobody waits for it any more, there are no handles either.
                    drop(opened.send(Opening::Opened(session)));
                }
            }
            SessionState::Ended(ending) => {
                for Acquire { lock, answer, .. } in self.holds.end(&ending) {
                    let error = AcquireError::of(&lock, CoreError::SessionEnded(ending.clone()));
                    drop(answer.send(Err(error)));
                }
                if let Some(opened) = self.opened.take() {
                    let standings = std::mem::take(&mut self.standings);
                    drop(opened.send(Opening::Ended(ending, standings)));
                }
            }
        }
    }

    /// A call is over. Whoever waited for it may be gone: then what it got is given back.
    fn finish(&mut self, call: CallId, result: CallResult) {
        match self.calls.remove(&call).expect("a call ends once") {
            Open::Call { ticket, release, answer, .. } => {
                self.tickets.remove(&ticket);
                let next = release.filter(|_| is_released(&result));
                let next = next.and_then(|(lock, token)| self.holds.released(&lock, token));
                drop(answer.send(result));
                self.acquire_next(next);
            }
            Open::Acquire { ticket, lock, answer } => {
                self.tickets.remove(&ticket);
                self.finish_acquire(lock, answer, result);
            }
            Open::Errand(errand) => self.finish_errand(errand, &result),
            Open::Close => {}
        }
    }

    fn finish_acquire(
        &mut self,
        lock: LockName,
        answer: oneshot::Sender<Result<Grant, AcquireError>>,
        result: CallResult,
    ) {
        let error = match result {
            Ok(Completed::Done(Done::Granted { token, predecessor })) => {
                let loss = self.holds.granted(&lock, token);
                let farewells = Some(self.ends.farewell_sender.clone());
                // A grant that nobody takes says so itself.
                drop(answer.send(Ok(Grant { lock, token, predecessor, loss, farewells })));
                return;
            }
            Ok(_) => CallError::Unknown.into(),
            Err(error) => AcquireError::of(&lock, error),
        };
        drop(answer.send(Err(error)));
        let next = self.holds.not_granted(&lock);
        self.acquire_next(next);
    }

    fn finish_errand(&mut self, errand: Errand, result: &CallResult) {
        let no_room = matches!(
            result,
            Err(CoreError::TooManyCalls | CoreError::Rejected(Rejection::TooManyPendingBytes))
        );
        if no_room {
            self.retries.push_back(errand);
            self.retry_at = self.retry_at.min(clock::now().after(RETRY_PAUSE));
            return;
        }
        match errand {
            Errand::Cancel(_) => {}
            Errand::Release { lock, token } => {
                let next = self.holds.released(&lock, token);
                self.acquire_next(next);
            }
        }
    }
}

/// Whether what was asked for may wait for a lock.
fn may_wait(action: &Action) -> bool {
    match action {
        Action::Op(Op::Acquire { wait, .. } | Op::Section { wait, .. }) => match wait {
            Wait::Try => false,
            Wait::For(_) | Wait::Forever => true,
        },
        Action::Op(
            Op::Cancel { .. }
            | Op::Release { .. }
            | Op::Append { .. }
            | Op::Break { .. }
            | Op::CreateFile { .. }
            | Op::CloseSession,
        )
        | Action::Cancel { .. }
        | Action::Read { .. } => false,
    }
}

/// Which hold an action gives back.
fn releases(action: &Action) -> Option<(LockName, FencingToken)> {
    match action {
        Action::Op(Op::Release { lock, token, .. }) => Some((lock.clone(), *token)),
        Action::Op(
            Op::Acquire { .. }
            | Op::Section { .. }
            | Op::Cancel { .. }
            | Op::Append { .. }
            | Op::Break { .. }
            | Op::CreateFile { .. }
            | Op::CloseSession,
        )
        | Action::Cancel { .. }
        | Action::Read { .. } => None,
    }
}

/// Whether a release, ended so, leaves nothing to release.
fn is_released(result: &CallResult) -> bool {
    match result {
        Ok(_) | Err(CoreError::SessionEnded(_) | CoreError::Unknown) => true,
        Err(CoreError::Rejected(rejection)) => matches!(rejection, Rejection::NotHolder { .. }),
        Err(CoreError::TooManyCalls) => false,
    }
}
