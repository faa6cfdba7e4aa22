//! The client library: locks, and files that they guard, from an application's side.
//!
//! ```no_run
//! use quorlock::client::{Client, ClientOptions, Wait};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // QUORLOCK_ENDPOINTS and its companions, or .quorlock/client.toml.
//! let client = Client::connect(ClientOptions::from_env()?).await?;
//!
//! let lock = client.acquire("reports/nightly", Wait::Forever).await?;
//! println!("it is our turn, with token {}", lock.token());
//! lock.append("reports.log", "begun\n").await?;
//! tokio::select! {
//!     () = work() => lock.release().await?,
//!     loss = lock.lost() => println!("stop, somebody else may have it: {loss}"),
//! }
//! client.close().await?;
//! # Ok(())
//! # }
//! # async fn work() {}
//! ```
//!
//! # The session
//!
//! All that a [`Client`] does belongs to one session, which it opens when it connects and renews from
//! then on. The cluster keeps a session, with its locks, for as long as it is renewed before its lease
//! ends ([`ClientOptions::lease`], 10 s by default). The longer the lease, the longer an outage does no
//! harm, and the longer others wait for the locks of a process that died.
//!
//! ```text
//!              opened                not confirmed for 2/3 of the lease
//! [Opening] ------------> [Safe] ---------------------------------------> [Jeopardy]
//!     |                     |  ^                                           |     |
//!     | not in time         |  '-------------------------------------------'     |
//!     v                     v                     confirmed                      v
//!  ConnectError          [Ended] <-------------------------------------------- lease over
//!                   closed, or expired
//! ```
//!
//! - **[`Safe`](SessionState::Safe)**: the cluster keeps what the session holds for a good while.
//! - **[`Jeopardy`](SessionState::Jeopardy)**: the cluster was not heard from for a while. All is still
//!   held, but soon it may not be: finish, or get ready to stop ([`Lock::in_jeopardy`]). If the
//!   cluster answers in time, nothing was lost.
//! - **[`Ended`](SessionState::Ended)**: all is lost, for good, with the reason. The application connects
//!   again if it wants to, and acquires again: a new session has nothing of the old one.
//!
//! The client counts its lease from when it *sent* the last renewal that was answered, with a margin for
//! clocks, so it knows of the end before the cluster gives its locks to others. It counts on a clock that
//! goes on while the machine sleeps. A process that was paused looks at that clock before anything else.
//!
//! # A lock is only as safe as its token
//!
//! "I hold the lock" cannot be made safe by any library: right after the look, the process may be paused
//! for a minute (by the garbage collector of its host, a debugger, a laptop that is closed), and meanwhile
//! the lease ends and somebody else holds the lock. What is safe is the **fencing token**. Each hold of a
//! lock has a higher one than all holds before it. [`Lock::append`] sends it along, and the cluster refuses
//! an append whose token is not that of the present hold, at the very place in the log where it would
//! be applied. To protect something outside of Quorlock, send [`Lock::token`] with every write, and let the
//! place that is written to refuse tokens that are lower than the highest that it has seen.
//!
//! # Done, not done, unknown
//!
//! Each call takes effect exactly once, however often it had to be sent, to however many nodes. It ends
//! in one of four ways:
//!
//! - `Ok`: done, once, and no crash of any minority of nodes undoes it.
//! - [`CallError::Rejected`]: the cluster decided not to. Nothing happened.
//! - [`CallError::SessionEnded`], and what was not even sent: nothing happened.
//! - [`CallError::Unknown`]: it was sent, and the session ended before an answer came. **It may have been
//!   done, and it may not.** Never tell anybody that it failed, and do not just do it again: look first, in
//!   a new session, by reading the file or inspecting the lock.
//!
//! # One client is one holder
//!
//! Clones of a [`Client`] are the same session, and so the same holder: it does not queue behind itself.
//! Asked for a lock that it has already, [`Client::acquire`] says
//! [`AlreadyHeld`](AcquireError::AlreadyHeld) at once. Tasks that compete for a lock connect one client
//! each, or settle it among themselves.
//!
//! # Dropping
//!
//! - Dropping the future of [`Client::acquire`] leaves the queue; what was granted first is given back.
//! - Dropping a [`Lock`] gives it back in the background, and dropping the last handle closes the session.
//! - Dropping the future of any other call does not take it back: what was sent is done.
//!
//! What happens in the background needs the process to live on for a moment. One that exits at once leaves
//! its locks to the end of the lease; [`Lock::release`] and [`Client::close`] wait instead.
//!
//! # Threads and runtimes
//!
//! One thread, which all clients of a process share, keeps the sessions alive (`background`): so it
//! does not matter how long the application blocks its own threads. What is awaited here are plain
//! channels, which work on every runtime, of tokio or not. To *hear* of a loss, though, some task of the
//! application must get to run.
//!
//! # Finding the cluster
//!
//! One [`Endpoint`] of a node that is up is enough: every node knows the others. All are asked at once, and
//! names are looked up at every attempt. [`ConnectError`] says of each endpoint why it was of no use, and
//! tells "nobody could be reached" from "nodes were reached, but no majority of them works together".

mod background;
#[cfg(feature = "config-file")]
pub(crate) mod client_file;
mod command;
mod connect;
mod dial;
mod dial_error;
mod discover;
mod driver;
mod endpoints;
mod errors;
mod holds;
mod label;
mod link;
mod lock;
mod options;
mod reading;
#[cfg(all(test, feature = "cli"))]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub use dial_error::DialError;
pub use discover::{Member, discover, report};
pub use endpoints::{Endpoint, ParseEndpointError};
pub use errors::{
    AcquireError, CallError, ConnectError, LossCause, NodeStanding, ReleaseError, Standing,
};
pub use label::own_label;
pub use lock::{Lock, LossReport};
pub use options::{CLIENT_FILE, ClientOptions, HOME_CLIENT_FILE, OptionsError};
pub use quorlock_core::client::{ClientConfig, Ending, SessionState};
pub use quorlock_core::ids::{FencingToken, LogIndex, NodeId, SessionId};
pub use quorlock_core::message::{
    Answer, Consistency, Done, EndCause, FileAppend, FileView, HolderView, LockSummary, LockView,
    Op, PastHold, Query, Rejection, Wait, WaiterView,
};
pub use quorlock_core::text::{FileName, Label, LockName, Text};
pub use quorlock_core::time::Time;
pub use reading::{Chunk, FileReader, Tail};

use crate::clock;
use background::Background;
use command::{Acquire, Command, Farewell, HandleEnds, Ticket};
use quorlock_core::client::{Action, CallResult, Completed};

/// A session with the cluster: connects, keeps itself alive, asks until it has an answer.
///
/// Clones are handles of the same session, and cheap. When the last one is gone, and the last
/// [`Lock`], the session is closed in the background; [`Client::close`] waits for that.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ends: HandleEnds,
    session: SessionId,
    config: ClientConfig,
    /// Whose certificate it is, where that is no admin.
    not_admin: Option<String>,
    tickets: AtomicU64,
    background: Background,
}

/// How to acquire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcquireOptions {
    /// How long to wait for one's turn.
    pub wait: Wait,
    /// After how long the lock is taken back; `None` for never.
    pub max_hold: Option<Duration>,
}

impl Default for AcquireOptions {
    /// Waits for ever, holds for ever.
    fn default() -> Self {
        Self { wait: Wait::Forever, max_hold: None }
    }
}

impl From<Wait> for AcquireOptions {
    fn from(wait: Wait) -> Self {
        Self { wait, max_hold: None }
    }
}

/// What became of a section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sectioned {
    /// The token under which it ran.
    pub token: FencingToken,
    /// The offset of each append, in order.
    pub offsets: Vec<u64>,
}

impl Client {
    /// Finds the nodes, opens a session, and waits until the cluster has confirmed it.
    ///
    /// Tries for [`open_timeout`](ClientConfig::open_timeout). Dropping the future gives up.
    ///
    /// # Errors
    /// [`ConnectError`] says which nodes were tried, and what came of it.
    pub async fn connect(options: ClientOptions) -> Result<Self, ConnectError> {
        connect::connect(options).await
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.inner.session
    }

    /// The settings of the session.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// How the session stands. It looks at the clock: once the lease runs short this says
    /// [`SessionState::Jeopardy`] even if the process has just been paused and nothing else has
    /// noticed yet.
    pub fn state(&self) -> SessionState {
        let state = self.inner.ends.state.borrow().clone();
        let runs_short = || {
            let config = &self.inner.config;
            let warning = config.own_lease().saturating_sub(config.jeopardy_after);
            self.lease_left().is_some_and(|left| left <= warning)
        };
        match state {
            SessionState::Safe if runs_short() => SessionState::Jeopardy,
            SessionState::Opening
            | SessionState::Safe
            | SessionState::Jeopardy
            | SessionState::Ended(_) => state,
        }
    }

    /// The session's state, and its changes. Who looks rarely may miss that it was in jeopardy.
    pub fn watch(&self) -> watch::Receiver<SessionState> {
        self.inner.ends.state.clone()
    }

    /// Waits until the session is over, and says why.
    pub async fn ended(&self) -> Ending {
        let mut state = self.watch();
        drop(state.wait_for(|state| matches!(state, SessionState::Ended(_))).await);
        self.ending()
    }

    /// How long the session lasts, by the client's own clock, if the cluster is not heard from
    /// again: less than the cluster itself would give it. `None` when it is over.
    pub fn lease_left(&self) -> Option<Duration> {
        self.lease_ends_at().map(|end| end.since(clock::now()))
    }

    /// The end of the lease on [`clock::now`], which all processes of this
    /// machine share. `None` when the session is over.
    pub fn lease_ends_at(&self) -> Option<Time> {
        self.inner.ends.posture.borrow().lease_ends_at
    }

    /// The node that the client is connected to; `None` while it looks for one.
    pub fn node(&self) -> Option<NodeId> {
        self.inner.ends.posture.borrow().node
    }

    /// Acquires a lock.
    ///
    /// [`Wait::For`] counts from when the cluster has the request. While there is no quorum the call
    /// goes on, at the longest until the session ends; a time-out around it is safe, since dropping is.
    ///
    /// Dropping the future leaves the queue, and gives back what was granted first.
    ///
    /// # Errors
    /// [`AcquireError`]: in every case the lock is not held.
    pub async fn acquire(&self, lock: &str, wait: Wait) -> Result<Lock, AcquireError> {
        self.acquire_with(lock, wait.into()).await
    }

    /// Acquires a lock, with all options.
    ///
    /// # Errors
    /// As [`Client::acquire`].
    pub async fn acquire_with(
        &self,
        lock: &str,
        options: AcquireOptions,
    ) -> Result<Lock, AcquireError> {
        let lock = LockName::new(lock).map_err(CallError::name(lock))?;
        let AcquireOptions { wait, max_hold } = options;
        let make =
            |ticket, answer| Command::Acquire(Acquire { ticket, lock, wait, max_hold, answer });
        let grant = self.ask(make).await.ok_or_else(|| self.not_taken_up())??;
        Ok(Lock::new(self.clone(), grant))
    }

    /// A whole critical section in one step: when it is this session's turn, appends and releases,
    /// all of it or nothing.
    ///
    /// Dropping the future leaves the queue; the section may have run before.
    ///
    /// # Errors
    /// [`AcquireError`]; only [`CallError::Unknown`] leaves open whether it ran.
    pub async fn section<F: AsRef<str>, B: Into<Bytes>>(
        &self,
        lock: &str,
        wait: Wait,
        appends: impl IntoIterator<Item = (F, B)>,
    ) -> Result<Sectioned, AcquireError> {
        let lock = LockName::new(lock).map_err(CallError::name(lock))?;
        let op = Op::Section { lock: lock.clone(), wait, appends: appends_of(appends)? };
        match self.submit(Action::Op(op)).await {
            Some(Ok(Completed::Done(Done::Sectioned { token, offsets }))) => {
                Ok(Sectioned { token, offsets })
            }
            Some(Ok(other)) => unreachable!("the core checks that {other:?} fits a section"),
            Some(Err(error)) => Err(AcquireError::of(&lock, error)),
            None => Err(self.not_taken_up().into()),
        }
    }

    /// Takes a lock from its holder, who learns the reason. Needs an admin's certificate.
    ///
    /// # Errors
    /// [`CallError::NotAdmin`], or [`Rejection::NotHolder`] if that hold is over already.
    pub async fn break_lock(
        &self,
        lock: &str,
        token: FencingToken,
        reason: &str,
    ) -> Result<(), CallError> {
        let lock = LockName::new(lock).map_err(CallError::name(lock))?;
        let reason = Text::new(reason).map_err(CallError::name(reason))?;
        self.call(Op::Break { lock, token, reason }).await.map(|_done| ())
    }

    /// Makes an empty file, and says which lock guards it. The same again changes nothing.
    ///
    /// # Errors
    /// [`Rejection::WrongGuard`] if another lock guards it.
    pub async fn create_file(&self, file: &str, guard: &str) -> Result<(), CallError> {
        let file = FileName::new(file).map_err(CallError::name(file))?;
        let guard = LockName::new(guard).map_err(CallError::name(guard))?;
        self.call(Op::CreateFile { file, guard }).await.map(|_done| ())
    }

    /// Does anything that a session can do, exactly once.
    ///
    /// What an [`Op::Acquire`] is granted here has no guard: only an [`Op::Release`] gives it back.
    /// Dropping the future of what waits for a lock leaves the queue; anything else that was sent
    /// is done all the same.
    ///
    /// # Errors
    /// [`CallError`]; only [`CallError::Unknown`] leaves open whether it was done.
    pub async fn call(&self, op: Op) -> Result<Done, CallError> {
        match (&op, &self.inner.not_admin) {
            (Op::Break { .. }, Some(role)) => {
                return Err(CallError::NotAdmin { role: role.clone() });
            }
            (Op::Acquire { lock, wait, max_hold }, _) => {
                let options = AcquireOptions { wait: *wait, max_hold: *max_hold };
                return self.acquire_bare(lock, options).await;
            }
            _ => {}
        }
        match self.submit(Action::Op(op)).await {
            Some(Ok(Completed::Done(done))) => Ok(done),
            Some(Ok(Completed::Read { .. })) => {
                unreachable!("the core answers an op by its outcome")
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(self.not_taken_up()),
        }
    }

    async fn acquire_bare(
        &self,
        lock: &LockName,
        options: AcquireOptions,
    ) -> Result<Done, CallError> {
        let (token, predecessor) = match self.acquire_with(lock.as_str(), options).await {
            Ok(lock) => lock.into_grant(),
            Err(AcquireError::NotObtained { .. }) => return Err(Rejection::NotObtained.into()),
            Err(AcquireError::TimedOut { .. }) => return Err(Rejection::TimedOut.into()),
            Err(AcquireError::Cancelled { .. }) => return Err(Rejection::Cancelled.into()),
            Err(AcquireError::AlreadyHeld { .. } | AcquireError::AlreadyWaiting { .. }) => {
                return Err(Rejection::AlreadyWaiting.into());
            }
            Err(AcquireError::Call(error)) => return Err(error),
        };
        Ok(Done::Granted { token, predecessor })
    }

    /// Looks at something; also says as of which log index the answer is true.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn read(
        &self,
        query: Query,
        consistency: Consistency,
    ) -> Result<(LogIndex, Answer), CallError> {
        match self.submit(Action::Read { query, consistency }).await {
            Some(Ok(Completed::Read { index, answer })) => Ok((index, answer)),
            Some(Ok(Completed::Done(_))) => unreachable!("the core answers a read by an answer"),
            Some(Err(error)) => Err(error.into()),
            None => Err(self.not_taken_up()),
        }
    }

    /// Closes the session, which releases all that it holds, and waits until that is done.
    ///
    /// # Errors
    /// [`CallError`]: the session ended in another way.
    pub async fn close(self) -> Result<(), CallError> {
        self.call(Op::CloseSession).await.map(|_done| ())
    }

    /// Why the session is over, once it is.
    fn ending(&self) -> Ending {
        match &*self.inner.ends.state.borrow() {
            SessionState::Ended(ending) => ending.clone(),
            // Only if the driver is gone without a word. What is certain is that nothing renews
            // the lease any more.
            SessionState::Opening | SessionState::Safe | SessionState::Jeopardy => {
                Ending::LeaseRanOut
            }
        }
    }

    /// How a call ends that nobody took up.
    fn not_taken_up(&self) -> CallError {
        CallError::SessionEnded(self.ending())
    }

    async fn submit(&self, action: Action) -> Option<CallResult> {
        self.ask(|ticket, answer| Command::Call { ticket, action, answer }).await
    }

    /// Asks the driver; `None` if it is not there any more, and did not take the question up.
    async fn ask<T>(
        &self,
        command: impl FnOnce(Ticket, oneshot::Sender<T>) -> Command,
    ) -> Option<T> {
        let ticket = Ticket(self.inner.tickets.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        let ends = &self.inner.ends;
        ends.commands.send(command(ticket, sender)).await.ok()?;
        let mut asked = Asked { ends, ticket, receiver, answered: false };
        let answer = (&mut asked.receiver).await;
        asked.answered = true;
        answer.ok()
    }
}

/// A question that is under way. Dropped before its answer, it tells the driver.
struct Asked<'a, T> {
    ends: &'a HandleEnds,
    ticket: Ticket,
    receiver: oneshot::Receiver<T>,
    answered: bool,
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        if !self.answered {
            // From here on no answer is taken, so the driver knows even if it hears of the question
            // only after this.
            self.receiver.close();
            drop(self.ends.farewells.send(Farewell::Abandoned(self.ticket)));
        }
    }
}

fn appends_of<F: AsRef<str>, B: Into<Bytes>>(
    appends: impl IntoIterator<Item = (F, B)>,
) -> Result<Vec<FileAppend>, CallError> {
    let append = |(file, bytes): (F, B)| {
        let file = file.as_ref();
        let file = FileName::new(file).map_err(CallError::name(file))?;
        Ok(FileAppend { file, bytes: bytes.into() })
    };
    appends.into_iter().map(append).collect()
}
